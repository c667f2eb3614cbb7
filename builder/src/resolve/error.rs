//! Why a lock cannot be made, and which family of exit codes that belongs to.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::document::{Diagnostics, ValueError};
use crate::lock::ArchiveKey;
use crate::spec::Platform;
use drystone_source::debian::apt_sources::AptSourceError;
use drystone_source::debian::archive::ArchiveError;
use drystone_source::debian::index::IndexError;
use drystone_source::debian::mirror::MirrorError;
use drystone_source::debian::openpgp::KeyringError;
use drystone_source::debian::release::ReleaseError;
use drystone_source::debian::solve::Unsolvable;

/// A lock that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// image.toml asks for something that contradicts itself or the suite.
    #[error("{0}")]
    Image(Box<Diagnostics>),
    /// image.toml asks for packages that cannot be had.
    #[error("{0}")]
    Request(Box<Diagnostics>),
    /// The packages cannot be installed together.
    #[error("no set of packages answers image.toml on {platform}")]
    Unsolvable {
        /// The platform.
        platform: Platform,
        /// Why.
        source: Box<Unsolvable>,
    },
    /// The packages could be installed together, but not with the versions that the lock pins.
    #[error("the versions that the lock pins leave no set of packages for {platform}")]
    Pinned {
        /// The platform.
        platform: Platform,
        /// Why.
        source: Box<Unsolvable>,
    },
    /// A package that should be updated is not in the lock.
    #[error(
        "package `{name}` cannot be updated: the lock has no package of that name{}",
        did_you_mean(near)
    )]
    NotLocked {
        /// The name as asked for.
        name: String,
        /// Names in the lock that are spelled almost so.
        near: Vec<String>,
    },
    /// The suite lacks a package that every image is made of.
    #[error("{archive} offers no Essential package `{package}`, which every image needs")]
    NoBase {
        /// The main archive.
        archive: ArchiveKey,
        /// The package.
        package: &'static str,
    },
    /// An index offers a package that no lock can name.
    #[error("package {package:?} cannot be pinned")]
    Unpinnable {
        /// Its name as in the index.
        package: String,
        /// What is wrong with its name, version or path.
        source: ValueError,
    },
    /// No mirror is known, or an address is none.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The host's apt sources, which should name a mirror, cannot be read.
    #[error("no mirror is set, and the host's apt sources cannot be used")]
    AptSources(#[from] AptSourceError),
    /// A file of an archive cannot be fetched or proved.
    #[error("archive `{archive}` cannot be used")]
    Archive {
        /// The archive.
        archive: ArchiveKey,
        /// Why.
        source: Box<ArchiveError>,
    },
    /// A signed Release cannot be read.
    #[error("the Release at {url} cannot be used")]
    Release {
        /// Its address, without credentials.
        url: String,
        /// Why.
        source: ReleaseError,
    },
    /// A signed Release is of another suite than was asked for.
    #[error(
        "the Release at {url} is of suite {suite:?}, codename {codename:?}; expected {asked:?}"
    )]
    WrongSuite {
        /// Its address, without credentials.
        url: String,
        /// What was asked for.
        asked: String,
        /// The suite that it names.
        suite: String,
        /// The codename that it names.
        codename: String,
    },
    /// A mirror from the host's apt sources serves something else than Debian.
    #[error("the Release at {url} comes from {origin:?}; expected Debian")]
    WrongOrigin {
        /// Its address, without credentials.
        url: String,
        /// Who made it.
        origin: String,
    },
    /// A Release has expired: a mirror that is stale, or that someone holds back.
    #[error("the Release at {url} expired at {valid_until}")]
    Expired {
        /// Its address, without credentials.
        url: String,
        /// When it expired.
        valid_until: Timestamp,
    },
    /// A Release is older than the one that the lock was made from.
    #[error("the Release at {url} is of {date}; the lock was made from one of {locked}")]
    RolledBack {
        /// Its address, without credentials.
        url: String,
        /// Its date.
        date: Timestamp,
        /// The date of the locked one.
        locked: Timestamp,
    },
    /// A package index cannot be read.
    #[error("an index of `{archive}` cannot be read")]
    Index {
        /// The archive.
        archive: ArchiveKey,
        /// Where and why.
        source: Box<IndexError>,
    },
    /// A key file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key file holds no usable key.
    #[error("the key file {} cannot be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyringError,
    },
    /// A worker thread came to a bad end.
    #[error("a worker thread failed")]
    Worker(#[source] io::Error),
}

impl ResolveError {
    /// The exit code of the command: 2 image.toml, 5 unknown package or unsolvable, 6 network or
    /// mirror, 7 signature, hash, expired or rolled back.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Image(_) | Self::KeyFile { .. } | Self::Key { .. } => 2,
            Self::Request(_)
            | Self::Unsolvable { .. }
            | Self::Pinned { .. }
            | Self::NotLocked { .. }
            | Self::NoBase { .. }
            | Self::Unpinnable { .. } => 5,
            Self::Archive { source, .. } => archive_exit_code(source),
            Self::Mirror(_) | Self::AptSources(_) | Self::Release { .. } | Self::Index { .. } => 6,
            Self::WrongSuite { .. }
            | Self::WrongOrigin { .. }
            | Self::Expired { .. }
            | Self::RolledBack { .. } => 7,
            Self::Worker(_) => 1,
        }
    }

    /// What the user can do about it, in one line, if that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Pinned { .. } => "`drystone update` moves the pins that are in the way",
            Self::Expired { .. } => {
                "use another mirror, or set `check-valid-until = false` under [debian] for an \
                 archive that is frozen on purpose"
            }
            Self::RolledBack { .. } => {
                "the mirror is behind: try again later, or use another mirror"
            }
            Self::Archive { source, .. } => match source.as_ref() {
                ArchiveError::Signature { .. } => {
                    "if the archive's key is right but unknown here, name its file with `keyring` \
                     under [debian], or `key` of the repository"
                }
                ArchiveError::NoIndex { .. } => {
                    "check `components` and `platforms` in image.toml against what the suite offers"
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether the archive simply is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Archive { source, .. } if matches!(**source, ArchiveError::NoRelease { .. }))
    }

    pub(super) fn worker(error: tokio::task::JoinError) -> Self {
        Self::Worker(io::Error::other(error))
    }
}

fn archive_exit_code(error: &ArchiveError) -> u8 {
    match error {
        ArchiveError::Signature { .. }
        | ArchiveError::Content { .. }
        | ArchiveError::TooLarge { .. } => 7,
        ArchiveError::Fetch { source, .. } if source.is_verification_failure() => 7,
        ArchiveError::NoIndex { .. } => 5,
        _ => 6,
    }
}

pub(super) fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; did you mean {}?", near.join(", ")),
    }
}
