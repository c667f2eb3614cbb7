//! One entry of a tree, as a value without its content.

use std::collections::BTreeMap;

use super::TreePath;

/// The prefix of a deletion's name (OCI image specification, layer.md, "Whiteouts").
pub const DELETION_PREFIX: &str = ".wh.";
/// The name of the entry that hides everything that lower trees have in its directory.
pub const OPAQUE_NAME: &str = ".wh..wh..opq";

/// What stands at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of `size` bytes.
    File {
        /// Size of the content in bytes.
        size: u64,
    },
    /// A symbolic link and its target, as written.
    Symlink {
        /// The text of the link.
        target: String,
    },
    /// Another name of a file that comes earlier in the tree.
    HardLink {
        /// The first path of the file.
        target: TreePath,
    },
    /// A deletion: the entry's name is `.wh.NAME` (or `.wh..wh..opq`), its content empty.
    Deletion,
}

/// One entry: path, metadata and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as it stands in the tree (for a deletion: with its `.wh.` prefix).
    pub path: TreePath,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Extended attributes that trees keep, by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// What stands here.
    pub kind: Kind,
}

impl Entry {
    /// A directory 0:0 with mode 0755.
    pub fn directory(path: TreePath) -> Self {
        Self::plain(path, 0o755, Kind::Directory)
    }

    /// A regular file 0:0 with the given mode and size.
    pub fn file(path: TreePath, mode: u32, size: u64) -> Self {
        Self::plain(path, mode, Kind::File { size })
    }

    /// A symbolic link 0:0.
    pub fn symlink(path: TreePath, target: impl Into<String>) -> Self {
        Self::plain(path, 0o777, Kind::Symlink { target: target.into() })
    }

    /// The deletion of `path` from the trees below.
    pub fn deletion(path: &TreePath) -> Result<Self, super::PathError> {
        let path = path.with_name(&format!("{DELETION_PREFIX}{}", path.name()))?;
        Ok(Self::plain(path, 0, Kind::Deletion))
    }

    /// The deletion of everything that lower trees have in `directory`.
    pub fn opaque(directory: &TreePath) -> Result<Self, super::PathError> {
        Ok(Self::plain(directory.join(OPAQUE_NAME)?, 0, Kind::Deletion))
    }

    fn plain(path: TreePath, mode: u32, kind: Kind) -> Self {
        Self { path, mode, uid: 0, gid: 0, xattrs: BTreeMap::new(), kind }
    }

    /// Size of the content that follows this entry, in bytes.
    pub const fn content_size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }

    /// For a deletion of one path: that path. `None` for all else, opaque markers included.
    pub fn deleted_path(&self) -> Option<TreePath> {
        if self.kind != Kind::Deletion || self.path.name() == OPAQUE_NAME {
            return None;
        }
        let name = self.path.name().strip_prefix(DELETION_PREFIX)?;
        self.path.with_name(name).ok()
    }

    /// Whether this entry hides all that lower trees have in its directory.
    pub fn is_opaque(&self) -> bool {
        self.kind == Kind::Deletion && self.path.name() == OPAQUE_NAME
    }
}
