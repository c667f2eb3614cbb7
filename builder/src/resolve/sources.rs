//! Where archives and their packages are fetched from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use url::Url;

use super::ResolveError;
use crate::lock::{ArchiveKey, LockedPackage};
use crate::spec::{Name, Repository};
use drystone_source::debian::apt_sources::{AptSource, AptSourceError, read_apt_sources};
use drystone_source::debian::mirror::{Mirrors, address_of, find_mirrors};

/// The repository name that the lock gives to the main archive, its security archive included.
pub(super) const MAIN: &str = "debian";

/// An address that may serve an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub base: Url,
    /// Whether only the host's apt sources speak for it: then it must prove to be Debian's.
    pub from_host: bool,
}

/// Mirrors as settings name them, else as the host's apt sources do (read when first needed), and
/// the addresses of other repositories.
#[derive(Debug)]
pub struct Sources {
    mirror: Option<Url>,
    security_mirror: Option<Url>,
    apt_directory: PathBuf,
    repositories: BTreeMap<Name, Url>,
    host: OnceLock<Vec<AptSource>>,
}

impl Sources {
    /// Mirrors that settings name (flags, environment, configuration, image.toml), and the folder
    /// of the host's apt configuration, usually `/etc/apt`, for what they leave open.
    pub fn new(
        mirror: Option<Url>,
        security_mirror: Option<Url>,
        apt_directory: impl Into<PathBuf>,
    ) -> Self {
        Self {
            mirror,
            security_mirror,
            apt_directory: apt_directory.into(),
            repositories: BTreeMap::new(),
            host: OnceLock::new(),
        }
    }

    /// Adds the repositories of an image.toml.
    #[must_use]
    pub fn with_repositories(mut self, repositories: &BTreeMap<Name, Repository>) -> Self {
        let addresses = repositories.iter().map(|(name, it)| (name.clone(), it.url.clone()));
        self.repositories.extend(addresses);
        self
    }

    /// Whether the mirror was set by the user, so that it may be a private one.
    pub(super) fn is_set(&self) -> bool {
        self.mirror.is_some()
    }

    /// The addresses that may serve a suite, and its `-security`, best first.
    pub(super) fn candidates(
        &self,
        suite: &str,
    ) -> Result<(Vec<Candidate>, Vec<Candidate>), ResolveError> {
        let Mirrors { main, security } = self.mirrors(suite)?;
        let from_host = self.mirror.is_none();
        let candidate = |from_host| move |base| Candidate { base, from_host };
        let main: Vec<_> = main.into_iter().map(candidate(from_host)).collect();
        let from_host = from_host && self.security_mirror.is_none();
        let mut security: Vec<_> = security.into_iter().map(candidate(from_host)).collect();
        if self.mirror.is_some() && self.security_mirror.is_none() {
            // Other distributions keep their security suite on the main mirror.
            security.extend(main.iter().cloned());
        }
        Ok((main, security))
    }

    fn mirrors(&self, suite: &str) -> Result<Mirrors, ResolveError> {
        let mirror = self.mirror.as_ref();
        let sources = match mirror {
            Some(_) => &[],
            None => self.host_sources()?,
        };
        let named: Vec<AptSource> =
            sources.iter().filter(|source| names_suite(source, suite)).cloned().collect();
        // An alias may be known by its codename only: then every entry is a guess.
        let sources = if named.is_empty() { sources } else { &named };
        Ok(find_mirrors(suite, mirror, self.security_mirror.as_ref(), sources)?)
    }

    fn host_sources(&self) -> Result<&[AptSource], AptSourceError> {
        if let Some(sources) = self.host.get() {
            return Ok(sources);
        }
        let sources = read_apt_sources(&self.apt_directory)?;
        Ok(self.host.get_or_init(|| sources))
    }

    /// The addresses of a pinned package, best first; empty when its repository is not known.
    pub(super) fn addresses(&self, pin: &LockedPackage) -> Result<Vec<Url>, ResolveError> {
        let path = pin.path.as_str();
        let ArchiveKey { repository, suite } = &pin.archive;
        if repository.as_str() != MAIN {
            let base = self.repositories.get(repository);
            return Ok(base.map(|base| address_of(base, path)).into_iter().collect());
        }
        let suite = suite.as_str();
        let base_suite = ["-security", "-updates"]
            .iter()
            .find_map(|suffix| suite.strip_suffix(suffix))
            .unwrap_or(suite);
        let (main, security) = self.candidates(base_suite)?;
        let mut addresses = Vec::new();
        let mut add = |candidates: &[Candidate], path: &str| {
            for candidate in candidates {
                let address = address_of(&candidate.base, path);
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        };
        if suite.ends_with("-security") {
            add(&security, path);
            // A point release moves security updates into the main archive, bytes unchanged.
            if let Some(rest) = path.strip_prefix("pool/updates/") {
                add(&main, &format!("pool/{rest}"));
            }
        } else {
            add(&main, path);
        }
        Ok(addresses)
    }
}

fn names_suite(source: &AptSource, suite: &str) -> bool {
    source.suites.iter().any(|name| {
        name.strip_prefix(suite).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use drystone_store::digest::BlobDigest;
    use drystone_store::tree::TreePath;

    use super::*;
    use crate::spec::{PackageName, Suite};
    use drystone_source::debian::mirror::parse_mirror;

    fn pin(repository: &str, suite: &str, path: &str) -> LockedPackage {
        LockedPackage {
            archive: ArchiveKey {
                repository: Name::new(repository).unwrap(),
                suite: Suite::new(suite).unwrap(),
            },
            source: PackageName::new("openssl").unwrap(),
            path: TreePath::new(path).unwrap(),
            size: 1,
            sha256: BlobDigest::of(b""),
            tree: None,
            control: None,
        }
    }

    fn addresses(sources: &Sources, pin: &LockedPackage) -> Vec<String> {
        sources.addresses(pin).unwrap().into_iter().map(String::from).collect()
    }

    #[test]
    fn a_set_mirror_is_asked_and_no_other() {
        let mirror = parse_mirror("http://m.example.com/debian").unwrap();
        let sources = Sources::new(Some(mirror), None, "/nonexistent");
        let (main, security) = sources.candidates("bookworm").unwrap();
        assert!(main.iter().chain(&security).all(|candidate| !candidate.from_host));
        let bases: Vec<_> = security.iter().map(|candidate| candidate.base.as_str()).collect();
        assert_eq!(bases, ["http://m.example.com/debian-security", "http://m.example.com/debian"]);
        let pin = pin("debian", "bookworm-security", "pool/updates/main/o/openssl/x.deb");
        assert_eq!(
            addresses(&sources, &pin),
            [
                "http://m.example.com/debian-security/pool/updates/main/o/openssl/x.deb",
                "http://m.example.com/debian/pool/updates/main/o/openssl/x.deb",
                "http://m.example.com/debian/pool/main/o/openssl/x.deb",
            ]
        );
    }

    #[test]
    fn the_hosts_entries_for_other_suites_are_not_bothered() {
        let directory = tempfile::tempdir().unwrap();
        let list = "deb http://m.example.com/debian bookworm main\n\
                    deb http://s.example.com/debian-security bookworm-security main\n\
                    deb http://third.example.com/node nodistro main\n";
        fs::write(directory.path().join("sources.list"), list).unwrap();
        let sources = Sources::new(None, None, directory.path());
        let (main, security) = sources.candidates("bookworm").unwrap();
        assert_eq!(main.len(), 1);
        assert!(main[0].from_host && security[0].from_host);
        assert_eq!(security[0].base.as_str(), "http://s.example.com/debian-security");
        // A suite that no entry names may be served by any of them.
        assert_eq!(sources.candidates("stable").unwrap().0.len(), 2);
        let pin = pin("node", "nodistro", "pool/x.deb");
        assert!(addresses(&sources, &pin).is_empty(), "an unknown repository has no address");
    }
}
