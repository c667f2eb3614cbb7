//! Why a project's dependencies cannot be had.

use std::io;
use std::path::PathBuf;

use drystone_store::store::StoreError;
use drystone_store::tree::{SpoolError, TreePath};

use super::registry::RegistryError;
use super::unpack::UnpackError;
use super::{Integrity, IntegrityError};
use drystone_source::fetch::FetchError;

/// Why a lockfile is not followed. Files are named as they stand in the recipe's source.
#[derive(Debug, thiserror::Error)]
pub enum LockfileError {
    /// The source has no lockfile.
    #[error("the source has no {}", files.join(" and no "))]
    Missing {
        /// The files that would do.
        files: Vec<&'static str>,
        /// What makes one.
        help: &'static str,
    },
    /// It is not written as such files are.
    #[error("{file}: {problem}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong, with its place.
        problem: String,
    },
    /// It is of a version that is not known.
    #[error("{file} is of version {version}, which is not known here")]
    Version {
        /// The file.
        file: String,
        /// The version.
        version: String,
        /// What would make one that is known.
        help: &'static str,
    },
    /// An entry does not say what its file must be.
    #[error("{file}: {package} has no hash")]
    NoHash {
        /// The file.
        file: String,
        /// Name and version.
        package: String,
        /// What would give it one.
        help: &'static str,
    },
    /// An entry's hash is none that counts.
    #[error("{file}: the hash of {package}")]
    Hash {
        /// The file.
        file: String,
        /// Name and version.
        package: String,
        /// Why.
        source: IntegrityError,
    },
    /// An entry comes from where nothing is fetched from.
    #[error("{file}: {package} comes from {origin}, which is not supported")]
    Origin {
        /// The file.
        file: String,
        /// Name and version.
        package: String,
        /// Where it comes from, in words.
        origin: String,
        /// What to do instead.
        help: &'static str,
    },
}

impl LockfileError {
    /// What would mend it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { help, .. }
            | Self::Version { help, .. }
            | Self::NoHash { help, .. }
            | Self::Origin { help, .. } => Some(help),
            Self::Malformed { .. } | Self::Hash { .. } => None,
        }
    }
}

/// Why a project's dependencies cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// Its lockfile is not followed.
    #[error("recipe {recipe}")]
    Lockfile {
        /// The recipe.
        recipe: String,
        /// Why.
        source: LockfileError,
    },
    /// The network may not be used, and the store lacks files.
    #[error("{} not in the store, and the network may not be used: {}", counted(titles.len()), titles.join(", "))]
    Offline {
        /// What is missing.
        titles: Vec<String>,
    },
    /// The registry's address is not known, or it does not answer as registries do.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file could not be fetched.
    #[error("cannot fetch {title}")]
    Fetch {
        /// Name and version.
        title: String,
        /// Why.
        source: Box<FetchError>,
    },
    /// A file is not what the lockfile says.
    #[error("{title} has the wrong content: expected {expected}, got {actual}{}", from(url))]
    Mismatch {
        /// Name and version.
        title: String,
        /// The address that served it, if it was fetched just now.
        url: Option<String>,
        /// The lockfile's hash.
        expected: Integrity,
        /// The hash of what came.
        actual: Integrity,
    },
    /// A fetched file is in the store no more.
    #[error("the fetched file {0} is not in the store")]
    NotFetched(Integrity),
    /// An archive is refused.
    #[error("cannot unpack {title} into /{path}")]
    Unpack {
        /// Name and version.
        title: String,
        /// Where it should stand.
        path: TreePath,
        /// Why.
        source: UnpackError,
    },
    /// A file could not be made or read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A thread failed.
    #[error("a worker thread failed")]
    Worker(#[source] io::Error),
    /// What was laid out makes no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LanguageError {
    /// What would mend it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Lockfile { source, .. } => source.hint(),
            Self::Offline { .. } => Some("build once without `--offline`"),
            Self::Registry(error) => error.hint(),
            Self::Mismatch { .. } => Some(
                "if the file was published anew under the same version, the lockfile must be made \
                 anew; else somebody may be tampering with the registry",
            ),
            _ => None,
        }
    }
}

fn counted(count: usize) -> String {
    match count {
        1 => "a dependency is".to_owned(),
        count => format!("{count} dependencies are"),
    }
}

fn from(url: &Option<String>) -> String {
    url.as_ref().map(|url| format!(" from {url}")).unwrap_or_default()
}
