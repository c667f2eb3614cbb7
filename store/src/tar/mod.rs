//! The canonical tar: the one byte stream of a tree.
//!
//! Format: POSIX.1-2017 `ustar` with PAX extended headers only where a value does not fit
//! (`docs/formats/canonical-tar.md`). Every constant in this module shapes bytes that are frozen
//! by golden files; none may change without a new tree format.
//!
//! ```text
//! [pax header + records]?  header  content padded to 512     (once per entry, in path order)
//! two zero blocks
//! ```

mod header;
mod order;
mod reader;
mod writer;

pub use order::OrderError;
pub use reader::{ReadError, TreeReader};
pub use writer::{TreeWriter, WriteError};

/// The modification time of every entry, in seconds since 1970: 1980-01-01T00:00:00Z, the
/// earliest that zip-based formats accept.
pub const MTIME: u64 = 315_532_800;

/// Size of a tar block in bytes.
pub const BLOCK: usize = 512;

/// Bytes of padding after `size` bytes of content.
const fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Whether a tree keeps the extended attribute of this name: capabilities, POSIX ACLs and the
/// user's own; all others depend on the host.
pub fn keeps_xattr(name: &str) -> bool {
    matches!(name, "security.capability" | "system.posix_acl_access" | "system.posix_acl_default")
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}
