//! Failures as people and scripts see them: the chain of causes, a hint, an exit code.
//!
//! ```text
//! error: cannot configure the packages
//!   cause: this host cannot run the sandbox: user namespaces are refused
//! hint: sudo sysctl -w kernel.unprivileged_userns_clone=1
//! ```
//!
//! The libraries' errors say what went wrong; `classify` finds the family of the exit code and
//! the hint by the first error of the chain that has something to say about it.

mod classify;

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use drystone_builder::build::BuildError;
use drystone_builder::document::{Diagnostic, Diagnostics};
use drystone_builder::lock::LockError;
use drystone_builder::resolve::ResolveError;
use drystone_store::store::StoreError;
use serde_json::{Value, json};

use crate::terminal::{CYAN, RED, Terminal};
use classify::classify;

/// Families of failures: one exit code each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The build, or whatever was asked for, failed.
    Failed,
    /// The command line, image.toml, the lock's text or a setting is wrong.
    Usage,
    /// The lock would change, and `--locked` forbids it.
    LockOutOfDate,
    /// Two runs, or two builders, gave different results.
    NotReproducible,
    /// A package does not exist, or the set cannot be installed.
    Unsolvable,
    /// The network, a mirror or a registry.
    Network,
    /// A signature or a hash.
    Integrity,
    /// This host cannot: sandbox, disk, permission.
    Host,
    /// A signal ended the command; its number.
    Interrupted(i32),
    /// The status of a command that was run by hand.
    Status(u8),
}

impl Family {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::LockOutOfDate => 3,
            Self::NotReproducible => 4,
            Self::Unsolvable => 5,
            Self::Network => 6,
            Self::Integrity => 7,
            Self::Host => 8,
            Self::Status(status) => status,
            Self::Interrupted(signal) => 128 + u8::try_from(signal).unwrap_or(2),
        }
    }
}

/// What went wrong.
#[derive(Debug)]
enum Cause {
    /// One sentence.
    Message(String),
    /// An error of a library.
    Error(Box<dyn Error + Send + Sync>),
    /// Problems with their places.
    Problems(Diagnostics),
    /// All has been said.
    Told,
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// The family.
    pub family: Family,
    cause: Cause,
    hint: Option<String>,
    /// The end of a failed script's output.
    tail: Option<String>,
}

impl Failure {
    /// A failure of one sentence.
    pub fn new(family: Family, message: impl Into<String>) -> Self {
        Self { family, cause: Cause::Message(message.into()), hint: None, tail: None }
    }

    /// Whether a cache has lost something that the build relied on.
    pub fn is_lost(&self) -> bool {
        let Cause::Error(error) = &self.cause else { return false };
        let mut next: Option<&(dyn Error + 'static)> = Some(error.as_ref());
        while let Some(error) = next {
            if matches!(error.downcast_ref(), Some(StoreError::Lost { .. })) {
                return true;
            }
            // An I/O error shows what it wraps as itself, and not as its source.
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = match wrapped {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        false
    }

    /// A wrong command line, image.toml or setting.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Family::Usage, message)
    }

    /// A library's error; the family and the hint are found in its chain.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        let opinion = classify(&error);
        let cause = Cause::Error(Box::new(error));
        Self { family: opinion.family, cause, hint: opinion.hint, tail: None }
    }

    /// An I/O error and what was tried: `write to standard output`.
    pub fn io(action: &str, source: io::Error) -> Self {
        Self::of(Attempt { action: action.to_owned(), source })
    }

    /// An I/O error of a path.
    pub fn path(action: &str, path: &Path, source: io::Error) -> Self {
        Self::io(&format!("{action} {}", path.display()), source)
    }

    /// The command has said already what is wrong.
    pub const fn told(family: Family) -> Self {
        Self { family, cause: Cause::Told, hint: None, tail: None }
    }

    /// Adds what to do, unless something more exact is known already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.family.code())
    }

    /// The failure as text, ending with a line break; empty when all has been said.
    pub fn render(&self, terminal: Terminal) -> String {
        let mut text = match &self.cause {
            Cause::Told => return String::new(),
            Cause::Problems(problems) => problems.render(terminal.style()),
            Cause::Message(message) => format!("{} {message}\n", terminal.paint(RED, "error:")),
            Cause::Error(error) => {
                let chain = chain(error.as_ref());
                let mut lines = chain.iter();
                let first = lines.next().map_or("", String::as_str);
                let mut text = format!("{} {first}\n", terminal.paint(RED, "error:"));
                for line in lines {
                    text.push_str(&format!("  cause: {}\n", line.replace('\n', "\n    ")));
                }
                text
            }
        };
        for line in self.tail.iter().flat_map(|tail| tail.lines()) {
            let line: String = line.chars().filter(|character| !character.is_control()).collect();
            text.push_str(&format!("  | {line}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{} {hint}\n", terminal.paint(CYAN, "hint:")));
        }
        text
    }

    /// The failure as an object for `--progress json`; `None` when all has been said.
    pub fn to_json(&self) -> Option<Value> {
        let messages = self.messages()?;
        Some(json!({
            "event": "error",
            "exit_code": self.family.code(),
            "messages": messages,
            "hint": self.hint,
            "tail": self.tail,
        }))
    }

    /// What went wrong and its causes; `None` when all has been said.
    pub fn messages(&self) -> Option<Vec<String>> {
        match &self.cause {
            Cause::Told => None,
            Cause::Message(message) => Some(vec![message.clone()]),
            Cause::Error(error) => Some(chain(error.as_ref())),
            Cause::Problems(problems) => Some(problems.iter().map(place_and_message).collect()),
        }
    }
}

fn place_and_message(problem: &Diagnostic) -> String {
    match (problem.file(), problem.line(), problem.column()) {
        (Some(file), Some(line), Some(column)) => {
            format!("{file}:{line}:{column}: {}", problem.message())
        }
        _ => problem.message().to_owned(),
    }
}

/// The messages of an error and its causes. A cause that its error has quoted is left out.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        if messages.last().is_none_or(|before| !before.ends_with(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages
}

/// An I/O error with what was tried.
#[derive(Debug)]
struct Attempt {
    action: String,
    source: io::Error,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.action)
    }
}

impl Error for Attempt {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Diagnostics> for Failure {
    fn from(problems: Diagnostics) -> Self {
        Self { family: Family::Usage, cause: Cause::Problems(problems), hint: None, tail: None }
    }
}

impl From<Diagnostic> for Failure {
    fn from(problem: Diagnostic) -> Self {
        Diagnostics::from(problem).into()
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Text(problems) => Self::from(*problems)
                .hint("delete the lock, or take another version of it, and run `drystone lock`"),
            other => Self::of(other),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Image(problems) => Self::from(*problems),
            other => {
                let tail = other.tail().map(str::to_owned);
                Self { tail, ..Self::of(other) }
            }
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Image(problems) => Self::from(*problems),
            ResolveError::Request(problems) => {
                Self { family: Family::Unsolvable, ..Self::from(*problems) }
            }
            other => Self::of(other),
        }
    }
}

/// Errors that need nothing but their chain.
macro_rules! from_errors {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(error)
            }
        })+
    };
}

from_errors!(
    drystone_builder::output::OutputError,
    drystone_builder::sandbox::SandboxError,
    drystone_source::fetch::FetchError,
    drystone_source::files::FilesError,
    drystone_store::store::StoreError,
);

#[cfg(test)]
mod tests {
    use drystone_builder::output::OutputError;

    use super::*;
    use crate::terminal::Kind;

    const PLAIN: Terminal = Terminal::plain(Kind::Lines);

    #[test]
    fn one_cause_a_line_and_then_the_hint() {
        let source = io::Error::from_raw_os_error(28);
        let failure = Failure::path("write", Path::new("/x/web.tar"), source);
        assert_eq!(failure.family, Family::Host);
        insta::assert_snapshot!(failure.render(PLAIN), @r"
        error: cannot write /x/web.tar
          cause: No space left on device (os error 28)
        hint: free some space, for example with `drystone store gc`
        ");
    }

    #[test]
    fn the_most_exact_hint_stays() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let error = OutputError::EngineMissing { program: "docker".into(), source };
        let failure = Failure::from(error).hint("a general hint");
        assert!(failure.render(PLAIN).contains("hint: install the engine"));
        assert_eq!(failure.family.code(), 8);
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let all = [
            (Family::Failed, 1),
            (Family::Usage, 2),
            (Family::LockOutOfDate, 3),
            (Family::NotReproducible, 4),
            (Family::Unsolvable, 5),
            (Family::Network, 6),
            (Family::Integrity, 7),
            (Family::Host, 8),
            (Family::Interrupted(2), 130),
            (Family::Interrupted(15), 143),
        ];
        for (family, code) in all {
            assert_eq!(family.code(), code);
        }
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let failure = Failure::told(Family::Integrity);
        assert_eq!(failure.render(PLAIN), "");
        assert_eq!(failure.to_json(), None);
    }
}
