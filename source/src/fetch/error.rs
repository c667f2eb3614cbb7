//! Why a download failed. Addresses in these are already free of credentials.

use std::io;
use std::path::PathBuf;

use drystone_store::digest::BlobDigest;
use drystone_store::with_causes;

/// A failed download.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server has no such file.
    #[error("{url} does not exist")]
    NotFound {
        /// The address.
        url: String,
    },
    /// The server refused or failed.
    #[error("{url}: the server answered {status}{}", hint(*status))]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server could not be reached, or the connection broke, more often than is borne.
    #[error("cannot fetch {url}")]
    Transport {
        /// The address.
        url: String,
        /// The last failure.
        source: reqwest::Error,
    },
    /// The server ended its answer early, more often than is borne.
    #[error("{url} ended after {actual} of {expected} bytes")]
    Truncated {
        /// The address.
        url: String,
        /// The size that was expected, in bytes.
        expected: u64,
        /// The size that came, in bytes.
        actual: u64,
    },
    /// What came is not what was expected.
    #[error("{url} has the wrong content: expected {expected}, got {actual}")]
    HashMismatch {
        /// The address.
        url: String,
        /// The expected digest.
        expected: BlobDigest,
        /// The digest of what came.
        actual: BlobDigest,
    },
    /// The server offers a file of another size than expected.
    #[error("{url} has the wrong size: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// The address.
        url: String,
        /// The expected size, in bytes.
        expected: u64,
        /// The size that the server states or that came, in bytes.
        actual: u64,
    },
    /// The file is larger than allowed.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// The address.
        url: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The address is of no kind that can be fetched.
    #[error("{url} cannot be fetched: only http, https and file addresses can")]
    Scheme {
        /// The address.
        url: String,
    },
    /// There is no address to fetch from.
    #[error("no address is known for {name}")]
    NoAddress {
        /// What should be fetched.
        name: String,
    },
    /// A local file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client {
        /// Why not.
        source: reqwest::Error,
    },
    /// Every address failed, each in its own way.
    #[error("cannot fetch {name} from any of its {} addresses: {}", failures.len(), chains(failures))]
    Exhausted {
        /// What should be fetched.
        name: String,
        /// One failure for each address, in order.
        failures: Vec<FetchError>,
    },
}

impl FetchError {
    /// Whether some server gave bytes that are not what was asked for, rather than none.
    pub fn is_verification_failure(&self) -> bool {
        match self {
            Self::HashMismatch { .. } | Self::SizeMismatch { .. } => true,
            Self::Exhausted { failures, .. } => failures.iter().any(Self::is_verification_failure),
            _ => false,
        }
    }

    /// Whether every server that was asked said that there is no such file.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Exhausted { failures, .. } => failures.iter().all(Self::is_not_found),
            _ => false,
        }
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (credentials are read from the address, apt's auth.conf and ~/.netrc)",
        407 => " (the proxy wants credentials: put them into the proxy's address)",
        _ => "",
    }
}

/// All failures with their causes, since an error can have only one source.
fn chains(failures: &[FetchError]) -> String {
    let texts: Vec<String> = failures.iter().map(|failure| with_causes(failure)).collect();
    texts.join("; ")
}
