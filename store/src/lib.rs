//! Trees, layers, derivations and realisations as values, and the store that keeps them on disk.
//!
//! This crate knows no network and no `image.toml`. See `docs/ARCHITECTURE.md` for how the parts
//! fit, `docs/formats/` for every byte format that is frozen here.

mod causes;
pub mod derivation;
pub mod digest;
pub mod layer;
pub mod listing;
pub mod path;
pub mod realisation;
pub mod store;
pub mod substituter;
pub mod tar;
pub mod tree;

pub use causes::with_causes;
