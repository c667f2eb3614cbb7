//! What can go wrong on the way out.

use std::io;
use std::path::{Path, PathBuf};

use drystone_store::digest::BlobDigest;

/// An output that could not be written or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A file or directory could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, `rename`, `lock`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A stream that is no file, such as a program's standard input, could not be written.
    #[error("cannot write the image's tarball")]
    Stream {
        /// The cause.
        source: io::Error,
    },
    /// A layer's file has another size than its manifest says.
    #[error("layer {digest} in {} has {actual} bytes, expected {expected}", path.display())]
    BlobSize {
        /// The layer.
        digest: BlobDigest,
        /// Its file.
        path: PathBuf,
        /// The size in the manifest.
        expected: u64,
        /// The size of the file.
        actual: u64,
    },
    /// A name that engines would refuse.
    #[error("{text:?} is no image name: {reason}")]
    Name {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The directory exists and is something else than an OCI layout.
    #[error("{} is no OCI layout: {reason}", path.display())]
    NotALayout {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The engine's program could not be started.
    #[error("cannot run {program}")]
    EngineMissing {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// The engine did not take the image.
    #[error("{program} load failed ({status}): {message}")]
    EngineFailed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote on standard error.
        message: String,
    },
}

impl OutputError {
    /// Makes an error of one that the system gave for `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::EngineMissing { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "install the engine or put its program on PATH; without one, `-o FILE` writes a tarball to load elsewhere",
            ),
            Self::EngineFailed { message, .. } => hint_for_engine(message),
            Self::BlobSize { .. } => Some("run `drystone store verify` to repair the store"),
            Self::NotALayout { .. } => Some("give an empty or new directory, or an OCI layout"),
            _ => None,
        }
    }
}

/// Engines explain themselves in prose only; these parts of it have been stable for years.
fn hint_for_engine(message: &str) -> Option<&'static str> {
    let message = message.to_ascii_lowercase();
    if message.contains("permission denied") {
        Some(
            "you may not use the engine's socket: join its group (`docker`), or use a rootless engine through DOCKER_HOST",
        )
    } else if message.contains("connect to the docker daemon") || message.contains("no such host") {
        Some("start the engine's daemon, or point DOCKER_HOST at a running one")
    } else if message.contains("no space left") {
        Some("free space where the engine keeps its images, for example with `docker system prune`")
    } else if message.contains("max depth exceeded") {
        Some("the engine allows fewer layers: set a lower `layers` in [image]")
    } else if message.contains("zstd") || message.contains("archive/tar: invalid tar header") {
        Some("this engine cannot read zstd layers: build with gzip")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_complaints_get_the_right_mend() {
        let cases = [
            ("Got permission denied while trying to connect to the Docker daemon socket", "group"),
            (
                "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
                "DOCKER_HOST",
            ),
            ("write /x: no space left on device", "space"),
        ];
        for (message, word) in cases {
            let error = OutputError::EngineFailed {
                program: "docker".into(),
                status: "exit status: 1".into(),
                message: message.into(),
            };
            assert!(error.hint().is_some_and(|hint| hint.contains(word)), "{message}");
        }
    }
}
