//! Whole locks and imports, against repositories that apt's own tools made and gpg signed.

mod host;
mod import;
mod locking;
mod refused;
mod updating;
mod world;
