//! What can go wrong in a store.

use std::io;
use std::path::PathBuf;

use crate::digest::{BlobDigest, TreeHash};
use crate::listing::ListingError;
use crate::path::StorePath;
use crate::tar::{ReadError, WriteError};
use crate::tree::SpoolError;

/// A store operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The metadata could not be read or written.
    #[error("the store's database {path} cannot be used")]
    Database {
        /// The database file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The store was made by a newer version.
    #[error("the store {path} has format {found}; this drystone knows format {known}")]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format of this program.
        known: i64,
    },
    /// The metadata contradicts itself.
    #[error("the store's database holds {what}, which is malformed")]
    Corrupt {
        /// The value.
        what: String,
    },
    /// A tree is not in the store.
    #[error("tree {0} is not in the store")]
    NoTree(TreeHash),
    /// A blob is recorded but its file is gone.
    #[error("blob {0} is missing from the store")]
    NoBlob(BlobDigest),
    /// Caches had a blob once, and have it no more. What needed it is forgotten: another attempt
    /// builds it.
    #[error("no cache has blob {digest} any more")]
    Lost {
        /// The blob.
        digest: BlobDigest,
    },
    /// Bytes do not hash to their name.
    #[error("{what} is damaged: expected {expected}, actual {actual}")]
    Mismatch {
        /// What was read.
        what: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// A root cannot be written, or its file cannot be understood.
    #[error("the root {path} is unusable: {problem}")]
    Root {
        /// The root's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Others use the store, so nothing may be deleted from it now.
    #[error("the store {path} is in use by another drystone; gave up after {seconds} s")]
    InUse {
        /// The store.
        path: PathBuf,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// A text names no tree of the store.
    #[error("{query:?} is no store path here, nor the start of one")]
    NoSuchPath {
        /// The text.
        query: String,
    },
    /// A text is the start of several store paths.
    #[error("{query:?} is the start of {} store paths: {}", candidates.len(), join(candidates))]
    Ambiguous {
        /// The text.
        query: String,
        /// The store paths that start with it.
        candidates: Vec<StorePath>,
    },
    /// A tree could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A tree could not be collected.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A tree could not be read back.
    #[error("tree {tree} cannot be read")]
    Read {
        /// The tree.
        tree: TreeHash,
        /// The cause.
        source: ReadError,
    },
    /// A listing could not be read back.
    #[error("the listing of tree {tree} cannot be read")]
    Listing {
        /// The tree.
        tree: TreeHash,
        /// The cause.
        source: ListingError,
    },
}

impl StoreError {
    /// Makes an I/O error that names its path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn join(paths: &[StorePath]) -> String {
    let texts: Vec<String> = paths.iter().take(5).map(ToString::to_string).collect();
    let more = if paths.len() > texts.len() { ", ..." } else { "" };
    format!("{}{more}", texts.join(", "))
}
