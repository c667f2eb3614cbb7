//! Why a repository could not do what it was asked. No message holds credentials: places are shown
//! without user names, passwords and queries.

use std::io;
use std::path::PathBuf;

use drystone_store::digest::BlobDigest;

/// A request to a repository that failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The content is not what its digest says.
    #[error("{place} serves something else than was asked for: expected {expected}, got {actual}")]
    Mismatch {
        /// Where it came from.
        place: String,
        /// The digest that was asked for.
        expected: BlobDigest,
        /// The digest of what came.
        actual: BlobDigest,
    },
    /// The content has another size than its descriptor says.
    #[error("{place} has {digest} with the wrong size: expected {expected} bytes, got {actual}")]
    Size {
        /// Where it came from.
        place: String,
        /// The content.
        digest: BlobDigest,
        /// The size that was expected, in bytes.
        expected: u64,
        /// The size that was announced or came, in bytes; if too much came, what had come by then.
        actual: u64,
    },
    /// A document is larger than allowed.
    #[error("{place} answers with more than {limit} bytes")]
    TooLarge {
        /// Where it came from.
        place: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A document or a header cannot be understood.
    #[error("{place} answers with something that makes no sense: {reason}")]
    Malformed {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content broke off, more often than is borne.
    #[error("{place} ended after {actual} of {expected} bytes")]
    Truncated {
        /// Where it came from.
        place: String,
        /// The size that was expected, in bytes.
        expected: u64,
        /// The size that came, in bytes.
        actual: u64,
    },
    /// The server does not accept the credentials, or wants some.
    #[error("{place}: access denied ({status}){}", after_colon(.message))]
    Denied {
        /// What was asked for.
        place: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it.
        message: String,
    },
    /// The server refused or failed.
    #[error("{place}: the server answered {status}{}", after_colon(.message))]
    Status {
        /// What was asked for.
        place: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it.
        message: String,
    },
    /// What must be there is not.
    #[error("{place} does not exist")]
    Missing {
        /// What was asked for.
        place: String,
    },
    /// The repository cannot do this.
    #[error("{place} does not allow to {action}")]
    Unsupported {
        /// The repository.
        place: String,
        /// What it does not allow.
        action: &'static str,
    },
    /// The server could not be reached, or the connection broke, more often than is borne.
    #[error("cannot reach {place}")]
    Transport {
        /// What was asked for.
        place: String,
        /// The last failure.
        source: reqwest::Error,
    },
    /// Nothing moved for too long, more often than is borne.
    #[error("{place}: nothing moved for {seconds} seconds")]
    Stalled {
        /// What was asked for.
        place: String,
        /// The longest silence that is borne.
        seconds: u64,
    },
    /// The server leads to an address that must not be used.
    #[error("{place} leads to {address}: {reason}")]
    Misled {
        /// What was asked for.
        place: String,
        /// Where it leads.
        address: String,
        /// Why that will not do.
        reason: &'static str,
    },
    /// The HTTP client could not be made.
    #[error("cannot start the HTTP client")]
    Client {
        /// Why.
        source: reqwest::Error,
    },
    /// A folder is no OCI image layout.
    #[error("{} is no OCI image layout: {reason}", path.display())]
    NotALayout {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A local file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The source of a blob that was being sent failed.
    #[error("cannot read what is sent to {place}")]
    Source {
        /// Where it is sent.
        place: String,
        /// Why.
        source: Box<RegistryError>,
    },
    /// A task of this program was lost.
    #[error("a task was lost")]
    Task(#[source] tokio::task::JoinError),
}

fn after_colon(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

impl RegistryError {
    /// Whether what came is not what was asked for: a lie, and not a failure.
    pub fn is_verification_failure(&self) -> bool {
        match self {
            Self::Mismatch { .. } | Self::Size { .. } => true,
            Self::Source { source, .. } => source.is_verification_failure(),
            _ => false,
        }
    }

    /// Whether the repository did answer, and what it has is missing or wrong.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Mismatch { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::Truncated { .. } => true,
            Self::Source { source, .. } => source.is_answer(),
            _ => false,
        }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { status: 401, .. } => {
                Some("run `drystone login REGISTRY`, or check the credentials".to_owned())
            }
            Self::Denied { .. } => {
                Some("check that these credentials may do this, and the repository's name".to_owned())
            }
            Self::Misled { .. } => Some(
                "plain HTTP is used for this machine only; allow another registry with \
                 `--insecure-registry HOST`"
                    .to_owned(),
            ),
            Self::Status { status: 404, .. } => {
                Some("check the repository's name; some registries want it to exist".to_owned())
            }
            Self::Status { status: 429, .. } => {
                Some("the registry limits requests: wait, or log in for a higher limit".to_owned())
            }
            _ if self.is_verification_failure() => Some(
                "the registry serves something else than was pushed: push again, and tell its owner"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// An I/O error of a path.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
