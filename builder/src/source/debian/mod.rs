//! Debian archives: indexes, versions, relations, solving, packages.

pub mod apt_sources;
pub mod mirror;
pub mod openpgp;
