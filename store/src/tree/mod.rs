//! Trees: directories, files, links and deletions, rooted at `/`.

mod entry;
mod path;
mod spool;

pub use entry::{DELETION_PREFIX, Entry, Kind, OPAQUE_NAME};
pub use path::{PathError, TreePath};
pub use spool::{EntrySink, SpoolError, TreeSpool};
