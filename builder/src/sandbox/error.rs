//! Why the sandbox failed, on both sides of its process boundary.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::obstacle;

/// A failure of the sandbox itself. A command that ran and failed is no error but a
/// [`super::Finished`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This host does not allow what the sandbox needs.
    #[error("this host cannot run the sandbox: {problem}")]
    Host {
        /// What is missing or refused.
        problem: String,
        /// What the user can do about it: a command, or a sentence.
        mend: String,
        /// The kernel's answer, if one was given.
        #[source]
        source: Option<io::Error>,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: String,
        /// The path that it was tried on.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A tree holds something that cannot be laid out or recorded.
    #[error("the tree at {path:?} is refused: {problem}")]
    Tree {
        /// The entry, or the place, in the tree.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A command could not be started inside the sandbox.
    #[error("cannot start {program:?} in the sandbox ({step})")]
    Start {
        /// The program as asked for.
        program: String,
        /// The step that failed.
        step: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The request cannot be meant.
    #[error("the sandbox was asked for something impossible: {problem}")]
    Request {
        /// What is wrong with it.
        problem: String,
    },
    /// The sandbox's helper process ended or answered nonsense.
    #[error("the sandbox's helper process is gone: {problem}")]
    Helper {
        /// What was seen.
        problem: String,
        /// The failure of the connection, if one was seen.
        #[source]
        source: Option<io::Error>,
    },
}

impl SandboxError {
    /// Whether the host, and not the request, is to blame: missing permissions, a full disk.
    pub fn is_host(&self) -> bool {
        match self {
            Self::Host { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
            ),
            _ => false,
        }
    }

    /// What the user can do about it, where that is known.
    pub fn mend(&self) -> Option<&str> {
        match self {
            Self::Host { mend, .. } if !mend.is_empty() => Some(mend),
            _ => None,
        }
    }

    pub(super) fn helper(problem: &str, source: io::Error) -> Self {
        Self::Helper { problem: problem.to_owned(), source: Some(source) }
    }
}

/// A [`SandboxError`] in the form that crosses the process boundary.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Host { problem: String, mend: String, errno: Option<i32> },
    Io { action: String, path: String, errno: i32 },
    Tree { path: String, problem: String },
    Start { program: String, step: String, errno: i32 },
    Request { problem: String },
}

impl Failure {
    pub(super) fn host(problem: impl Into<String>, mend: &str, error: Option<io::Error>) -> Self {
        let errno = error.as_ref().and_then(io::Error::raw_os_error);
        Self::Host { problem: problem.into(), mend: mend.to_owned(), errno }
    }

    /// The kernel refused a namespace, or a privilege in one.
    pub(super) fn namespace(what: &str, error: io::Error) -> Self {
        let found = obstacle::find(Some(error.raw_os_error().unwrap_or(libc::EPERM)));
        let (problem, mut mend) = match found {
            Some(found) => (format!("{what}: {}", found.problem), found.mend),
            None => (what.to_owned(), String::new()),
        };
        if rustix::process::geteuid().is_root() {
            if !mend.is_empty() {
                mend += "; or ";
            }
            mend += "do without, in a container made for builds: --sandbox=none";
        }
        Self::host(problem, &mend, Some(error))
    }

    pub(super) fn io(action: &str, path: impl AsRef<Path>, error: &io::Error) -> Self {
        Self::Io {
            action: action.to_owned(),
            path: path.as_ref().to_string_lossy().into_owned(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    pub(super) fn tree(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tree { path: path.into(), problem: problem.into() }
    }

    pub(super) fn request(problem: impl Into<String>) -> Self {
        Self::Request { problem: problem.into() }
    }
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        let os = io::Error::from_raw_os_error;
        match failure {
            Failure::Host { problem, mend, errno } => {
                Self::Host { problem, mend, source: errno.map(os) }
            }
            Failure::Io { action, path, errno } => {
                Self::Io { action, path: path.into(), source: os(errno) }
            }
            Failure::Tree { path, problem } => Self::Tree { path, problem },
            Failure::Start { program, step, errno } => {
                Self::Start { program, step, source: os(errno) }
            }
            Failure::Request { problem } => Self::Request { problem },
        }
    }
}

/// Names the action and the path of a failed system call.
pub(super) trait At<T> {
    /// Turns the error into a [`Failure`] that says what was tried, and on which path.
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T, Failure> {
        self.map_err(|error| Failure::io(action, path, &error.into()))
    }
}
