//! Debian archives: indexes, versions, relations, solving, packages.

pub mod apt_sources;
pub mod archive;
pub mod control;
pub mod deb;
pub mod index;
pub mod mirror;
pub mod openpgp;
pub mod relation;
pub mod release;
pub mod solve;
pub mod universe;
pub mod version;
pub mod xz;
