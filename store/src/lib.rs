//! Trees, layers, derivations and realisations as values, and the store that keeps them on disk.
//!
//! This crate knows no network and no `image.toml`. See `docs/ARCHITECTURE.md` for how the parts
//! fit, `docs/formats/` for every byte format that is frozen here.

pub mod digest;
pub mod tree;
