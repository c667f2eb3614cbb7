//! What can be wrong with the description of an image.

use drystone_store::digest::BlobDigest;

/// An image that cannot be described, or a table of layer classes that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The creation time has no RFC 3339 form.
    #[error("creation time {seconds} (seconds since 1970) is outside the years 0 to 9999")]
    CreatedOutOfRange {
        /// Seconds since 1970-01-01T00:00:00Z.
        seconds: i64,
    },
    /// A platform that is not `os/architecture` or `os/architecture/variant`.
    #[error("{text:?} is no platform: expected os/architecture or os/architecture/variant")]
    Platform {
        /// What was written.
        text: String,
    },
    /// A port that is not `number`, `number/tcp`, `number/udp` or `number/sctp`.
    #[error(
        "{text:?} is no port: expected a number from 1 to 65535, then /tcp, /udp or /sctp if not tcp"
    )]
    Port {
        /// What was written.
        text: String,
    },
    /// An environment variable's name is empty or holds `=` or NUL.
    #[error("{name:?} cannot be the name of an environment variable")]
    VariableName {
        /// The name.
        name: String,
    },
    /// Two images of one set are for the same platform.
    #[error("two images are for the platform {platform}")]
    DuplicatePlatform {
        /// The platform that both are for.
        platform: String,
    },
    /// A set of images without any image.
    #[error("a set of images needs at least one image")]
    EmptySet,
    /// A base image's layers leave no room for those of this image.
    #[error(
        "the base image has {reserved} layers, which leaves none of the {limit} that an image may have"
    )]
    TooManyBaseLayers {
        /// The base image's layers.
        reserved: usize,
        /// The most that an image may have.
        limit: usize,
    },
    /// A table of layer classes has a line that is not `NAME<TAB>CLASS`.
    #[error("class table, line {line}: {reason}")]
    OrderTable {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Two layers have one digest but different sizes or diff_ids.
    #[error("layer {digest} is described in two ways")]
    LayerMismatch {
        /// The blob that is described twice.
        digest: BlobDigest,
    },
}
