//! Debian archives: indexes, versions, relations, solving, packages.

pub mod deb;
