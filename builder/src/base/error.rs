//! Why a base image cannot be used.

use drystone_store::digest::BlobDigest;
use drystone_store::store::StoreError;

/// What a registry's client says.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A base image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Something of it is not in the store, and the network may not be used.
    #[error("{what} of the base image {from} is not in the store, and the network may not be used")]
    Offline {
        /// The image.
        from: String,
        /// What is missing.
        what: String,
    },
    /// The registry does not have it, or not all of it.
    #[error("{what} of the base image {from} is not in the registry")]
    Missing {
        /// The image.
        from: String,
        /// What is missing.
        what: String,
    },
    /// The registry could not be asked.
    #[error("cannot read {what} of the base image {from}")]
    Source {
        /// The image.
        from: String,
        /// What was asked for.
        what: String,
        /// Why.
        source: SourceError,
    },
    /// Bytes are not what their digest says.
    #[error(
        "{what} of the base image {from} is not what its digest says: expected {expected}, got {actual}"
    )]
    Mismatch {
        /// The image.
        from: String,
        /// What was asked for.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A document or a layer cannot be understood.
    #[error("{what} of the base image {from} cannot be read: {reason}")]
    Malformed {
        /// The image.
        from: String,
        /// Which document or layer.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is well formed and no image that another one can stand on.
    #[error("{from} cannot be a base image: {reason}")]
    Unsuitable {
        /// The image.
        from: String,
        /// Why.
        reason: String,
    },
    /// It is not there for a platform.
    #[error("the base image {from} is not for {platform}, but for {}", found.join(", "))]
    Platform {
        /// The image.
        from: String,
        /// The platform that was asked for.
        platform: String,
        /// Those that it is for.
        found: Vec<String>,
    },
    /// The lock does not pin the tag.
    #[error("the lock does not pin the base image {from}")]
    NotPinned {
        /// The image.
        from: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BaseError {
    /// Bytes that are not what their digest says.
    pub(super) fn mismatch(from: String, what: String, pair: (BlobDigest, BlobDigest)) -> Self {
        let (expected, actual) = (pair.0.to_string(), pair.1.to_string());
        Self::Mismatch { from, what, expected, actual }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Offline { .. } => Some("run it once without `--offline`"),
            Self::NotPinned { .. } => Some("run `drystone lock`"),
            Self::Missing { .. } => Some(
                "check the name in `from`; if the image was removed, `drystone update` pins what \
                 the tag names now",
            ),
            Self::Platform { .. } => Some("name another base, or change `platforms`"),
            _ => None,
        }
    }
}
