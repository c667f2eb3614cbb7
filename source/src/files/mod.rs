//! Local files of the project: `[files]` of `image.toml`, and the sources of recipes.
//!
//! ```text
//! FileSpec (checked, absolute) -> walk (git-aware) -> SourceTree: entries in tree order, contents
//!                                                     still on disk
//!                              -> Fingerprint: was anything touched since? (by stat alone)
//! ```
//!
//! What enters a tree never depends on the machine: owners are 0:0 or as given, modes 0644 or 0755
//! by any `x` bit, names are sorted. Only `.gitignore` files decide what is ignored: a user's global
//! ignore file and `.git/info/exclude` differ between clones of one commit. For the same reason the
//! index of git is not read, so a *tracked* file that a pattern matches is skipped as well; a
//! negated pattern (`!name`) brings it in.

mod assemble;
mod fingerprint;
mod ignore_rules;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use drystone_store::tree::{Entry, PathError, TreePath};

pub use assemble::read_sources;
pub use fingerprint::{Fingerprint, Stamp, StampState, Timestamp};

/// Why local files cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or directory could not be read.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path on disk.
        path: PathBuf,
        /// The answer of the system.
        #[source]
        source: io::Error,
    },
    /// A named source does not exist.
    #[error("{path} does not exist (wanted for /{destination})", path = path.display())]
    Missing {
        /// The path on disk.
        path: PathBuf,
        /// Where it was to stand in the image.
        destination: String,
    },
    /// A device, socket or FIFO.
    #[error("{path} is a {kind}; only files, directories and symbolic links can be taken", path = path.display())]
    Special {
        /// The path on disk.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A symbolic link that leads out of the folder that is taken.
    #[error("the symbolic link {path} -> {target} leaves {root}; copy its target there, or make it with {{ symlink = … }}", path = path.display(), root = root.display())]
    LinkLeaves {
        /// The link on disk.
        path: PathBuf,
        /// Its text.
        target: String,
        /// The folder that is taken.
        root: PathBuf,
    },
    /// A name that trees do not take.
    #[error("{path} cannot enter an image", path = path.display())]
    Name {
        /// The path on disk, or in the image.
        path: PathBuf,
        /// Why.
        #[source]
        source: PathError,
    },
    /// A name that means a deletion in image layers.
    #[error("{path} cannot enter an image: names with .wh. in front mean deletions there", path = path.display())]
    Whiteout {
        /// The path on disk.
        path: PathBuf,
    },
    /// A `.gitignore` line or an `include` pattern cannot be read.
    #[error("{place}: {message}")]
    Pattern {
        /// The file, or `include`.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// Two entries of `[files]` have one destination.
    #[error("two entries have the destination /{path}")]
    Twice {
        /// The destination.
        path: TreePath,
    },
    /// A path is a file by one entry and a directory by another.
    #[error("/{file} is no directory, but /{below} lies below it")]
    NotDirectory {
        /// The file or link.
        file: TreePath,
        /// A path below it.
        below: TreePath,
    },
    /// The destination `/` takes a folder and nothing else.
    #[error("the destination / takes a local folder and nothing else")]
    RootDestination,
}

/// One entry of `[files]`, checked and absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Where it stands in the image; `None` is `/`, for a folder.
    pub destination: Option<TreePath>,
    /// What stands there.
    pub source: FileSource,
    /// Permission bits; default 0644, or 0755 for directories and executables. For a folder this
    /// is the mode of its files; its directories get it with `x` wherever it has `r`.
    pub mode: Option<u32>,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// Where the content of an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// A local file or folder; a folder means its contents.
    Path {
        /// Absolute path on disk. A link here is followed: the user named it.
        path: PathBuf,
        /// Globs, relative to the folder, of what is taken; empty takes everything. `*` stops at a
        /// slash, `**` does not, and the name of a directory takes all below it.
        include: Vec<String>,
        /// Globs of the same kind of what is left out, whatever `include` says.
        exclude: Vec<String>,
    },
    /// A file that the store keeps under its digest: never executable by itself, and not stamped,
    /// since it cannot change.
    Stored {
        /// Absolute path on disk.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// This text.
    Text(String),
    /// A symbolic link with this text.
    Symlink(String),
    /// An empty directory.
    Directory,
}

/// Where the content of a file entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentSource {
    /// The entry has no content.
    None,
    /// In this file on disk, whose size was that of the entry when it was walked.
    Path(PathBuf),
    /// Here.
    Inline(Vec<u8>),
}

/// One entry of the tree that the specifications make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// The entry.
    pub entry: Entry,
    /// Its content.
    pub content: ContentSource,
    /// A directory that merely holds others, without a mode or owner that the user asked for:
    /// where a lower tree has it, its own mode and owner should stay (`/tmp`, `/root`).
    pub implied: bool,
}

/// Everything that the specifications make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTree {
    /// Sorted by path, one for each. Parents of destinations are not among them.
    pub entries: Vec<SourceEntry>,
    /// How many files and directories `.gitignore` files kept out; an ignored directory counts one.
    pub ignored: usize,
    /// Paths that are equal but for case: trouble for a checkout on macOS or Windows.
    pub case_clashes: Vec<(TreePath, TreePath)>,
    /// What was read, to find out later that nothing changed.
    pub fingerprint: Fingerprint,
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FilesError + 'a {
    move |source| FilesError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
