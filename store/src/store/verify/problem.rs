//! What verification finds, and what repair does about it.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::digest::{BlobDigest, DerivationId};
use crate::layer::Compression;
use crate::path::StorePath;
use crate::store::MalformedRow;

/// One thing that is wrong in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// SQLite finds its own file inconsistent.
    DamagedDatabase {
        /// What SQLite says.
        message: String,
    },
    /// A row cannot be understood, or belongs to nothing.
    MalformedRow {
        /// The row.
        row: MalformedRow,
    },
    /// A root's file cannot be understood; `gc` deletes nothing meanwhile.
    DamagedRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A blob's bytes do not hash to its name.
    DamagedBlob {
        /// The digest that is its name.
        digest: BlobDigest,
        /// The digest of its bytes.
        actual: BlobDigest,
        /// Trees that have it as layer or listing.
        trees: Vec<StorePath>,
    },
    /// A blob's file cannot be read.
    UnreadableBlob {
        /// The digest that is its name.
        digest: BlobDigest,
        /// Why not.
        message: String,
        /// Trees that have it as layer or listing.
        trees: Vec<StorePath>,
    },
    /// A recorded layer is not there.
    MissingLayer {
        /// The tree.
        tree: StorePath,
        /// The layer's compression.
        compression: Compression,
        /// The layer's blob.
        digest: BlobDigest,
    },
    /// No layer of a tree is recorded.
    NoLayer {
        /// The tree.
        tree: StorePath,
    },
    /// A recorded listing is not there.
    MissingListing {
        /// The tree.
        tree: StorePath,
        /// The listing's blob.
        digest: BlobDigest,
    },
    /// A layer's blob is whole, but does not hold the tree that it is recorded for.
    WrongLayer {
        /// The tree.
        tree: StorePath,
        /// The layer's compression.
        compression: Compression,
        /// The layer's blob.
        digest: BlobDigest,
        /// The tree that it holds, or why it holds none.
        actual: String,
    },
    /// The database says something about a tree that its bytes contradict.
    WrongRecord {
        /// The tree.
        tree: StorePath,
        /// What is recorded: `diff id`, `size`, `listing`, `size of the listing` or `size of the
        /// layer`.
        field: &'static str,
        /// What the bytes say.
        expected: String,
        /// What is recorded.
        actual: String,
    },
    /// A derivation's JSON does not hash to its id, or is no derivation.
    DamagedDerivation {
        /// The id.
        id: DerivationId,
        /// What its JSON is.
        actual: String,
    },
    /// A realisation names trees that are not recorded, or not the outputs of its derivation.
    BrokenRealisation {
        /// The derivation.
        id: DerivationId,
        /// The outputs that it should have.
        expected: String,
        /// What is wrong.
        actual: String,
    },
    /// A checkout differs from its tree.
    DamagedCheckout {
        /// The tree.
        tree: StorePath,
        /// The path inside the tree.
        path: String,
        /// What differs: `type`, `mode`, `size`, `content`, `target`, `link`, `owner`, `presence`.
        what: &'static str,
        /// What the tree says.
        expected: String,
        /// What stands there.
        actual: String,
    },
    /// A file that no part of a store has made.
    UnknownFile {
        /// The file.
        path: PathBuf,
    },
}

impl Problem {
    /// What should be, where that is more than the absence of the problem.
    pub fn expected(&self) -> Option<String> {
        match self {
            Self::DamagedBlob { digest, .. } => Some(digest.to_string()),
            Self::WrongLayer { tree, .. } => Some(tree.hash().to_string()),
            Self::DamagedDerivation { id, .. } => Some(id.to_string()),
            Self::WrongRecord { expected, .. }
            | Self::BrokenRealisation { expected, .. }
            | Self::DamagedCheckout { expected, .. } => Some(expected.clone()),
            _ => None,
        }
    }

    /// What is.
    pub fn actual(&self) -> Option<String> {
        match self {
            Self::DamagedBlob { actual, .. } => Some(actual.to_string()),
            Self::MissingLayer { .. } | Self::MissingListing { .. } => Some("missing".into()),
            Self::DamagedDatabase { message }
            | Self::DamagedRoot { message, .. }
            | Self::UnreadableBlob { message, .. } => Some(message.clone()),
            Self::WrongLayer { actual, .. }
            | Self::WrongRecord { actual, .. }
            | Self::DamagedDerivation { actual, .. }
            | Self::BrokenRealisation { actual, .. }
            | Self::DamagedCheckout { actual, .. } => Some(actual.clone()),
            _ => None,
        }
    }

    /// What mends it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::DamagedDatabase { .. } => {
                "end all builds and delete db.sqlite with its companions: \
                 the next builds make everything again"
            }
            Self::DamagedRoot { .. } => "delete the file and build its image again",
            Self::UnknownFile { .. } => "delete it unless you put it there",
            Self::DamagedCheckout { .. } => {
                "`store verify --repair` removes the checkout; it is made again when it is needed"
            }
            Self::MissingListing { .. } | Self::WrongRecord { .. } => {
                "`store verify --repair` makes it again from the tree's layer"
            }
            Self::MalformedRow { .. }
            | Self::DamagedDerivation { .. }
            | Self::BrokenRealisation { .. } => {
                "`store verify --repair` drops it; the next build makes it again"
            }
            Self::DamagedBlob { .. }
            | Self::UnreadableBlob { .. }
            | Self::MissingLayer { .. }
            | Self::NoLayer { .. }
            | Self::WrongLayer { .. } => {
                "`store verify --repair` makes it again where another layer of its tree is whole, \
                 and else drops it: the next build fetches or makes it again"
            }
        }
    }

    /// Whether repair does something about it.
    pub fn is_repairable(&self) -> bool {
        !matches!(
            self,
            Self::DamagedDatabase { .. } | Self::DamagedRoot { .. } | Self::UnknownFile { .. }
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DamagedDatabase { .. } => write!(f, "the database is damaged")?,
            Self::MalformedRow { row } => write!(f, "{row}")?,
            Self::DamagedRoot { path, .. } => write!(f, "root {} is damaged", path.display())?,
            Self::DamagedBlob { digest, trees, .. } => {
                write!(f, "blob {} is damaged{}", digest.to_hex(), Of(trees))?;
            }
            Self::UnreadableBlob { digest, trees, .. } => {
                write!(f, "blob {} cannot be read{}", digest.to_hex(), Of(trees))?;
            }
            Self::MissingLayer { tree, compression, digest } => {
                write!(f, "the {compression} layer {digest} of {tree}")?;
            }
            Self::NoLayer { tree } => write!(f, "{tree} has no layer")?,
            Self::MissingListing { tree, digest } => write!(f, "the listing {digest} of {tree}")?,
            Self::WrongLayer { tree, compression, digest, .. } => {
                write!(f, "the {compression} layer {digest} of {tree} holds another tree")?;
            }
            Self::WrongRecord { tree, field, .. } => write!(f, "the {field} recorded for {tree}")?,
            Self::DamagedDerivation { id, .. } => write!(f, "derivation {id} is damaged")?,
            Self::BrokenRealisation { id, .. } => write!(f, "the realisation of {id}")?,
            Self::DamagedCheckout { tree, path, what, .. } => {
                write!(f, "the checkout of {tree}: {what} of /{path}")?;
            }
            Self::UnknownFile { path } => {
                write!(f, "{} is no file of a store", path.display())?;
            }
        }
        match (self.expected(), self.actual()) {
            (Some(expected), Some(actual)) => write!(f, ": expected {expected}, actual {actual}"),
            (None, Some(actual)) => write!(f, ": {actual}"),
            _ => Ok(()),
        }
    }
}

struct Of<'a>(&'a [StorePath]);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [one] => write!(f, " (of {one})"),
            [one, rest @ ..] => write!(f, " (of {one} and {} more)", rest.len()),
        }
    }
}

/// Something that repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "repair", rename_all = "kebab-case")]
pub enum Repair {
    /// A row that meant nothing is gone.
    DroppedRow {
        /// The row.
        row: MalformedRow,
    },
    /// A damaged blob is gone.
    RemovedBlob {
        /// Its name.
        digest: BlobDigest,
    },
    /// A tree's records and listing were made again from its bytes.
    RemadeRecord {
        /// The tree.
        tree: StorePath,
    },
    /// A layer was made again from another layer of its tree.
    RemadeLayer {
        /// The tree.
        tree: StorePath,
        /// The layer's compression.
        compression: Compression,
    },
    /// A realisation is forgotten.
    DroppedRealisation {
        /// The derivation.
        id: DerivationId,
    },
    /// A damaged checkout is gone.
    RemovedCheckout {
        /// The tree.
        tree: StorePath,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DroppedRow { row } => write!(f, "dropped {row}"),
            Self::RemovedBlob { digest } => write!(f, "removed blob {}", digest.to_hex()),
            Self::RemadeRecord { tree } => write!(f, "made the records of {tree} again"),
            Self::RemadeLayer { tree, compression } => {
                write!(f, "made the {compression} layer of {tree} again")
            }
            Self::DroppedRealisation { id } => write!(f, "forgot the realisation of {id}"),
            Self::RemovedCheckout { tree } => write!(f, "removed the checkout of {tree}"),
        }
    }
}

/// A tree whose bytes are lost: it must be built, or fetched, again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The tree.
    pub tree: StorePath,
    /// The derivations that gave it.
    pub derivations: Vec<DerivationId>,
}
