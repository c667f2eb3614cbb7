//! Recipes: software that is built from source, in the sandbox.
//!
//! ```text
//! source, patches ─> a tree below /build ────────────┐
//! other recipes' outputs ────────────────────────────┤
//! Essential set and `debian`, configured ─> plain ───┴─> root ─ script ─> outputs ─> trees
//! ```
//!
//! The script runs as one ordinary user without capabilities and without network. What it may read
//! belongs to 0:0 and has no setuid bits ([`plain`]), so the host's accounts and the packages'
//! make no difference. It writes into a folder for each output; what it leaves there becomes a
//! tree that is rooted at `/`.
//!
//! A recipe is a derivation of the trees it sees, its script, variables and outputs. A changed
//! source that builds to the same tree therefore changes nothing after it.

mod by_hand;
mod collect;
mod error;
pub mod git;
mod graph;
mod hints;
pub mod language;
mod plain;
mod run;
mod source;

pub use by_hand::{Person, SCRIPT, Wanted};
pub use error::{FailedScript, RecipeError};
pub use graph::{Build, build_all};
pub use hints::comes_with;
pub use plain::plain;
pub use run::{Job, Made, Tools, Workbench};
pub use source::{LocalSource, SourceError, Sources, read_source};

/// Version of the `recipe` builder: rises whenever its output can change.
pub const VERSION: u32 = 2;
/// The user and group that scripts run as.
pub const BUILDER_ID: u32 = 1000;
/// Where the source stands, and where the script starts.
pub const SOURCE_DIRECTORY: &str = "/build/source";
/// Where a fetched archive stands until it is unpacked.
pub const ARCHIVE: &str = "/build/archive";
/// Where the outputs are written, each in a folder of its own.
pub const OUTPUT_DIRECTORY: &str = "/out";
