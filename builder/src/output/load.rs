//! Hands an image to a container engine through its own program, without a tarball on disk.
//!
//! The engine's program decides which daemon it talks to (DOCKER_HOST, contexts, CONTAINER_HOST), so
//! everything that works for the user's `docker load` works here.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread;

use super::{Output, OutputError, write_archive};

/// The end of an engine's complaint that is worth showing, in bytes.
const MESSAGE_LIMIT: usize = 2000;

/// A kind of container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker, or another program with its commands.
    Docker,
    /// Podman.
    Podman,
}

impl EngineKind {
    const fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "docker" => Ok(Self::Docker),
            "podman" => Ok(Self::Podman),
            _ => Err(format!("{text:?} is no container engine: expected docker or podman")),
        }
    }
}

/// A container engine and how its program is called.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Which engine it is.
    pub kind: EngineKind,
    /// The program, looked up on PATH unless it is a path.
    pub program: OsString,
    /// Arguments before the command, such as `--root DIR`.
    pub arguments: Vec<OsString>,
}

impl Engine {
    /// The engine as the user's shell finds it.
    pub fn new(kind: EngineKind) -> Self {
        Self { kind, program: kind.program().into(), arguments: Vec::new() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    fn missing(&self) -> impl FnOnce(io::Error) -> OutputError {
        let program = self.program.display().to_string();
        move |source| OutputError::EngineMissing { program, source }
    }
}

/// What loading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// The engine took the image.
    Loaded,
    /// The engine has this very image under this name already; nothing was sent.
    AlreadyThere,
}

/// Loads an image into an engine, unless it is there already.
///
/// # Errors
/// No such program; an engine that fails, with the end of its message; layers that cannot be read.
pub fn load(output: &Output<'_>, engine: &Engine) -> Result<LoadOutcome, OutputError> {
    if is_there(output, engine)? {
        return Ok(LoadOutcome::AlreadyThere);
    }
    let mut command = engine.command();
    command
        .args(["load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(engine.missing())?;
    let Fed { sent, status, message } = feed(output, child)?;
    if !status.success() {
        // The engine's reason explains more than the broken pipe that it left behind.
        let program = engine.program.display().to_string();
        return Err(OutputError::EngineFailed { program, status: status.to_string(), message });
    }
    match sent {
        // An engine may stop reading once it has what it wants.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(OutputError::Stream { source: error });
        }
        _ => {}
    }
    Ok(LoadOutcome::Loaded)
}

/// How feeding an engine ended.
struct Fed {
    sent: io::Result<()>,
    status: ExitStatus,
    message: String,
}

/// Sends the tarball to a child's standard input and waits for its end.
fn feed(output: &Output<'_>, mut child: Child) -> Result<Fed, OutputError> {
    let failed = |source| OutputError::Stream { source };
    let stdin = child.stdin.take().expect("standard input was set to a pipe");
    let mut stderr = child.stderr.take().expect("standard error was set to a pipe");
    // Read beside writing: an engine that fills the pipe with messages must not block both.
    let reader = thread::spawn(move || {
        let mut message = Vec::new();
        let _ = stderr.read_to_end(&mut message);
        message
    });
    let sent = match write_archive(output, stdin).map(drop) {
        Ok(()) => Ok(()),
        Err(OutputError::Stream { source }) => Err(source),
        Err(ours) => {
            // A layer is missing: the engine must not take half an image for a whole one.
            let _ = child.kill();
            let _ = child.wait();
            return Err(ours);
        }
    };
    let status = child.wait().map_err(failed)?;
    Ok(Fed { sent, status, message: tail(&reader.join().unwrap_or_default()) })
}

/// Asks the engine which image it has under the name. Any doubt means no.
fn is_there(output: &Output<'_>, engine: &Engine) -> Result<bool, OutputError> {
    let name = match engine.kind {
        EngineKind::Docker => output.name.to_string(),
        // Podman would look the short name up under several hosts.
        EngineKind::Podman => output.name.canonical(),
    };
    let mut command = engine.command();
    command.args(["image", "inspect", "--format", "{{.Id}}", &name]).stdin(Stdio::null());
    let answer = command.output().map_err(engine.missing())?;
    let id = String::from_utf8_lossy(&answer.stdout);
    let id = id.trim().trim_start_matches("sha256:");
    // Engines name an image by its configuration, docker on containerd's store by its manifest or index.
    // Docker loads the first platform, Podman the host's.
    let loadable = match engine.kind {
        EngineKind::Docker => &output.set.images()[..1],
        EngineKind::Podman => output.set.images(),
    };
    let configs = loadable.iter().map(|image| image.config.digest);
    let is_this = configs.chain([output.set.digest()]).any(|digest| digest.to_hex() == id);
    Ok(answer.status.success() && is_this)
}

/// The end of a message, at a line's start if possible.
fn tail(message: &[u8]) -> String {
    let start = message.len().saturating_sub(MESSAGE_LIMIT);
    String::from_utf8_lossy(&message[start..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::testing::{Blobs, image_set, noise};
    use super::*;
    use crate::image::ImageSet;

    /// A program that stands for an engine: it behaves as real ones do in cases that are hard to provoke.
    fn engine(directory: &Path, script: &str) -> Engine {
        let program = directory.join("engine");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Engine { program: program.into(), ..Engine::new(EngineKind::Docker) }
    }

    fn load_into(
        blobs: &Blobs,
        set: &ImageSet,
        engine: &Engine,
    ) -> Result<LoadOutcome, OutputError> {
        let name = "hello".parse().unwrap();
        load(&Output { set, name: &name, blob_path: &|digest| blobs.path(digest) }, engine)
    }

    #[test]
    fn the_engine_gets_the_whole_archive() {
        let blobs = Blobs::new();
        let set = image_set(&["linux/amd64"], &[blobs.layer("large", &noise(500_000))]);
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        let script = format!("test $1 = load && cat > {}", copy.display());
        let outcome = load_into(&blobs, &set, &engine(directory.path(), &script)).unwrap();
        assert_eq!(outcome, LoadOutcome::Loaded);
        let name = "hello".parse().unwrap();
        let output = Output { set: &set, name: &name, blob_path: &|digest| blobs.path(digest) };
        assert_eq!(std::fs::read(copy).unwrap(), write_archive(&output, Vec::new()).unwrap());
    }

    #[test]
    fn an_image_that_is_there_is_not_sent_again() {
        let blobs = Blobs::new();
        let set = image_set(&["linux/amd64"], &[blobs.layer("hello", b"hello")]);
        let directory = tempfile::tempdir().unwrap();
        let id = set.images()[0].config.digest;
        let script = format!("test $1 = image && echo {id}");
        let outcome = load_into(&blobs, &set, &engine(directory.path(), &script)).unwrap();
        assert_eq!(outcome, LoadOutcome::AlreadyThere);
    }

    #[test]
    fn the_engines_reason_is_told_even_when_it_stops_reading() {
        let blobs = Blobs::new();
        let set = image_set(&["linux/amd64"], &[blobs.layer("large", &noise(500_000))]);
        let directory = tempfile::tempdir().unwrap();
        let script = "echo Cannot connect to the Docker daemon >&2; exit 3";
        let error = load_into(&blobs, &set, &engine(directory.path(), script)).unwrap_err();
        assert!(
            error.to_string().contains("Cannot connect") && error.to_string().contains('3'),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("DOCKER_HOST"));
    }

    #[test]
    fn a_missing_engine_and_a_missing_layer_are_told_apart() {
        let blobs = Blobs::new();
        let layer = blobs.layer("hello", b"hello");
        let set = image_set(&["linux/amd64"], std::slice::from_ref(&layer));
        let missing =
            Engine { program: "/nowhere/docker".into(), ..Engine::new(EngineKind::Docker) };
        let error = load_into(&blobs, &set, &missing).unwrap_err();
        assert!(matches!(error, OutputError::EngineMissing { .. }) && error.hint().is_some());
        std::fs::remove_file(blobs.path(&layer.digest)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let script = "test $1 = load && cat > /dev/null";
        let error = load_into(&blobs, &set, &engine(directory.path(), script)).unwrap_err();
        assert!(matches!(error, OutputError::Io { action: "read", .. }), "{error}");
    }
}
