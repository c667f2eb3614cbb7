//! `/etc/ld.so.cache`, byte for byte as `ldconfig` of Debian's glibc writes it, without running it.
//!
//! Written after reading `elf/ldconfig.c`, `elf/cache.c`, `elf/readelflib.c` and
//! `sysdeps/generic/dl-cache.h` of glibc 2.36 and 2.41 with Debian's patches. The steps:
//!
//! ```text
//! /etc/ld.so.conf, built-in directories -> configuration: directories, in order, once each
//! names in each directory               -> scan:          libraries and SONAME links
//! headers of one file                   -> elf:           SONAME, flags, ISA level
//! sorted libraries                      -> cache_file:    the bytes
//! ```
//!
//! Differences from ldconfig, all outside what packages contain: a.out libraries are not entered;
//! where ldconfig's result depends on the order of a directory on disk (two names that differ only
//! in leading zeros of a number), names are taken in byte order.

mod cache_file;
mod configuration;
mod elf;
mod scan;

use std::io;

use drystone_store::tree::TreePath;

use super::root_view::RootView;

pub use elf::{Needs, needs};

/// Why no loader cache could be made.
#[derive(Debug, thiserror::Error)]
pub enum LoaderCacheError {
    /// A file or directory of the root could not be read.
    #[error("cannot read {path:?} for the loader cache")]
    Read {
        /// The path in the root.
        path: String,
        /// What the view answered.
        #[source]
        source: io::Error,
    },
    /// `include` lines nest without end.
    #[error("{path:?} is included too deeply: does it include itself?")]
    IncludeDepth {
        /// The configuration file.
        path: String,
    },
    /// Debian's architecture has no rules here.
    #[error("the loader cache of architecture {architecture:?} is not supported")]
    Architecture {
        /// Debian's name of the architecture.
        architecture: String,
    },
    /// The version of libc-bin is not of the form `2.36-9+deb12u14`.
    #[error("{version:?} is no version of libc-bin")]
    Version {
        /// The version as given.
        version: String,
    },
}

/// The architecture whose ldconfig is imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Debian's `amd64`.
    Amd64,
    /// Debian's `arm64`.
    Arm64,
    /// Debian's `armhf`.
    Armhf,
    /// Debian's `i386`.
    I386,
}

impl Machine {
    /// The machine of one of Debian's architectures.
    pub fn from_architecture(architecture: &str) -> Result<Self, LoaderCacheError> {
        match architecture {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            "armhf" => Ok(Self::Armhf),
            "i386" => Ok(Self::I386),
            _ => Err(LoaderCacheError::Architecture { architecture: architecture.to_owned() }),
        }
    }

    pub(crate) const fn triplet(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
            Self::Armhf => "arm-linux-gnueabihf",
            Self::I386 => "i386-linux-gnu",
        }
    }

    /// Whether ldconfig reads x86's GNU properties.
    const fn is_x86(self) -> bool {
        matches!(self, Self::Amd64 | Self::I386)
    }
}

/// Which ldconfig is imitated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ldconfig {
    machine: Machine,
    generator: String,
    /// Before glibc 2.37 there were hwcap subdirectories such as `haswell`, and library types.
    legacy: bool,
}

impl Ldconfig {
    /// The ldconfig of `libc-bin` in version `package_version` of a distribution, `Debian` or
    /// `Ubuntu`, for one machine.
    pub fn new(
        machine: Machine,
        distribution: &str,
        package_version: &str,
    ) -> Result<Self, LoaderCacheError> {
        let wrong = || LoaderCacheError::Version { version: package_version.to_owned() };
        let plain = package_version.split_once(':').map_or(package_version, |(_, rest)| rest);
        let upstream = plain.rsplit_once('-').map_or(plain, |(upstream, _)| upstream);
        let (major, minor) = upstream.split_once('.').ok_or_else(wrong)?;
        let minor = minor.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let major: u32 = major.parse().map_err(|_| wrong())?;
        let minor: u32 = minor.parse().map_err(|_| wrong())?;
        let generator = format!(
            "ldconfig ({distribution} GLIBC {plain}) stable release version {major}.{minor}"
        );
        Ok(Self { machine, generator, legacy: (major, minor) < (2, 37) })
    }

    /// Makes the cache of a root.
    pub fn run(&self, root: &dyn RootView) -> Result<LoaderCache, LoaderCacheError> {
        let mut scan = scan::Scan::new(self, root);
        configuration::read(&mut scan)?;
        scan.search()?;
        let (libraries, strings, links) = scan.finish();
        Ok(LoaderCache { content: cache_file::write(self, libraries, strings), links })
    }
}

/// What ldconfig would do to a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderCache {
    /// The bytes of `/etc/ld.so.cache` (mode 0644, owner 0:0).
    pub content: Vec<u8>,
    /// The links that ldconfig would make, replace or remove, by path.
    pub links: Vec<LinkChange>,
}

/// One symbolic link that ldconfig would change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkChange {
    /// Where the link stands, all directories resolved.
    pub path: TreePath,
    /// The new text of the link; `None` when a stale link is removed.
    pub target: Option<String>,
}

#[cfg(test)]
mod tests;
