//! Credential helpers: programs `docker-credential-NAME` that keep secrets (docker's protocol).

use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Credential;

/// The most bytes of an answer that are read.
const MOST_BYTES: u64 = 1 << 20;

/// A helper that did not do what it was asked. No message holds its answer.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The name is not one of a program beside others.
    #[error("{0:?} is no name of a credential helper")]
    Name(String),
    /// The program cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program failed.
    #[error("{program} failed: {message}")]
    Failed {
        /// The program.
        program: String,
        /// The last line of what it said.
        message: String,
    },
    /// The answer cannot be read.
    #[error("{program} gave an answer that cannot be read")]
    Answer {
        /// The program.
        program: String,
    },
    /// An entry of a file, not of a helper.
    #[error("{0}")]
    Entry(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// Asks a helper; `None` when it has nothing under this key.
pub(super) fn get(name: &str, key: &str) -> Result<Option<Credential>, HelperError> {
    let program = program(name)?;
    let answer = match run(&program, "get", key.as_bytes()) {
        Ok(answer) => answer,
        // The one failure that the protocol defines, by its text.
        Err(HelperError::Failed { message, .. }) if message.contains("credentials not found") => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| HelperError::Answer { program })?;
    Ok(Some(Credential::new(&answer.username, &answer.secret)))
}

/// Gives a helper something to keep.
pub(super) fn store(name: &str, key: &str, user: &str, secret: &str) -> Result<(), HelperError> {
    let program = program(name)?;
    let entry = Entry { server_url: key, username: user, secret };
    let entry = serde_json::to_vec(&entry).expect("texts always serialise");
    run(&program, "store", &entry).map(drop)
}

/// Makes a helper forget.
pub(super) fn erase(name: &str, key: &str) -> Result<(), HelperError> {
    run(&program(name)?, "erase", key.as_bytes()).map(drop)
}

fn program(name: &str) -> Result<String, HelperError> {
    let good = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match good {
        true => Ok(format!("docker-credential-{name}")),
        false => Err(HelperError::Name(name.to_owned())),
    }
}

fn run(program: &str, action: &str, input: &[u8]) -> Result<Vec<u8>, HelperError> {
    let failed = |source| HelperError::Run { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // A helper that does not listen will say why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MOST_BYTES).read_to_end(&mut output).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(output);
    }
    // What a failed helper says goes to standard output, and is no secret.
    let text = String::from_utf8_lossy(&output);
    let line = text.lines().last().unwrap_or_default();
    let message = line.chars().filter(|character| !character.is_control()).take(200).collect();
    Err(HelperError::Failed { program: program.to_owned(), message })
}
