//! TOML documents with places: what `image.toml`, `image.lock` and `config.toml` are read with.
//!
//! A document is parsed once into values that remember where they stand, and is then walked by a
//! [`Table`] that knows its [`Schema`]. Every problem is recorded with its place and the walk goes
//! on, so that one run reports *all* problems of a file:
//!
//! ```text
//! text -> toml (places) -> Table + Schema -> checked value
//!                               |
//!                               +-> Diagnostics (file, line, column, message, help)
//! ```
//!
//! Nothing here panics on hostile text, and nothing reads a file or the environment.

mod diagnostic;
mod reader;
mod schema;
mod source;

pub use diagnostic::{Diagnostic, Diagnostics, Style};
pub use reader::{Entry, Format, Shape, Table, Value, ValueError, read};
pub(crate) use schema::nearest;
pub use schema::{Key, Schema};
pub use source::{Place, SourceText};
