//! image.lock: what was chosen, pinned by digest, for people to review and for builds to follow.
//!
//! ```text
//! text --parse--> Lock --for_image--> what one image and platform is built from
//!   ^              |
//!   +--- to_text --+      Lock::edit(path, change): read, change, write, one process at a time
//! ```
//!
//! The text is a function of the value alone: sorted, one fact a line, the same from any order of
//! insertion. Several images may share one file; each owns its own section and archives are pinned
//! once for all of them. `docs/lock.md` describes the format for people.

mod file;
mod merge;
mod model;
mod read;
mod references;
mod request;
mod text;

#[cfg(test)]
mod tests;

pub use file::Written;
pub use model::{
    ArchiveKey, Fingerprint, Index, IndexKey, LayerMember, Lock, LockError, LockedBase,
    LockedImage, LockedPackage, LockedPlatform, LockedRecipe, PackageKey, VERSION,
};
pub use request::{LockedRequest, RequestedPackage, RequestedRecipe, RequestedRepository};
