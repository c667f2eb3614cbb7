//! Debian archives: indexes, versions, relations, solving, packages.
