//! Debian archives: indexes, versions, relations, solving, packages.

pub mod apt_sources;
pub mod archive;
pub mod mirror;
pub mod openpgp;
