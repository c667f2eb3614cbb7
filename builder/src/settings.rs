//! Settings: what was typed in flags, variables and files, resolved into one value each.
//!
//! ```text
//! flag > DRYSTONE_* > user's config.toml > system's config.toml > image.toml > default or host
//! ```
//!
//! The first level that says something wins as a whole; lists are not joined, except that the
//! caches of image.toml follow the user's own, and that revoked keys of every level are revoked.
//! image.toml can neither trust nor revoke a key. [`Flags`] is what was typed, [`Settings`] what
//! holds. Every value remembers its [`Origin`], for `doctor` and for messages. Environment and
//! host are handed in, so that resolving is a function of values.

mod config;
mod keys;
mod origin;
mod resolve;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use url::Url;

use crate::spec::{CacheAddress, Compression};

pub use config::ConfigFiles;
pub use keys::{SigningKey, TrustedKeys};
pub use origin::{Origin, Setting};

/// Settings as typed on the command line; `None` and empty lists were not typed.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--store`.
    pub store: Option<PathBuf>,
    /// `--mirror`.
    pub mirror: Option<String>,
    /// `--security-mirror`.
    pub security_mirror: Option<String>,
    /// `--cache`, once for each.
    pub cache: Vec<String>,
    /// `--no-project-caches`.
    pub no_project_caches: bool,
    /// `--signing-key`: a path or the key itself.
    pub signing_key: Option<String>,
    /// `--trusted-key`, once for each: a path or the key itself.
    pub trusted_keys: Vec<String>,
    /// `--threshold`.
    pub threshold: Option<String>,
    /// `--jobs`.
    pub jobs: Option<String>,
    /// `--log`.
    pub log: Option<String>,
    /// `--keyring`.
    pub keyring: Option<PathBuf>,
    /// `--compression`.
    pub compression: Option<String>,
}

/// What the host itself decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Whether the process is root, whose store is the system's.
    pub root: bool,
    /// The number of processors that it may use.
    pub processors: usize,
}

/// Settings as they hold.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the store.
    pub store: Setting<PathBuf>,
    /// The archive's mirror; `None` leaves it to the host's own apt sources.
    pub mirror: Option<Setting<Url>>,
    /// The security archive's mirror; `None` derives it from the mirror.
    pub security_mirror: Option<Setting<Url>>,
    /// The binary caches to read, in the order in which they are asked.
    pub caches: Vec<Setting<CacheAddress>>,
    /// The key that realisations are signed with.
    pub signing_key: Option<Setting<SigningKey>>,
    /// The keys whose realisations are believed.
    pub trusted_keys: Option<Setting<TrustedKeys>>,
    /// The keys that are never believed, of every level that names some.
    pub revoked_keys: Vec<Setting<TrustedKeys>>,
    /// How many of the trusted keys must agree.
    pub threshold: Setting<usize>,
    /// How many steps run at once.
    pub jobs: Setting<usize>,
    /// What is logged: a filter as `tracing` reads it.
    pub log: Setting<String>,
    /// A keyring beside the embedded one.
    pub keyring: Option<Setting<PathBuf>>,
    /// How layers are compressed.
    pub compression: Setting<Compression>,
    /// The time that `SOURCE_DATE_EPOCH` sets for the image's config, in seconds since 1970.
    pub source_date_epoch: Option<Setting<i64>>,
}
