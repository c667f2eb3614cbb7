//! Proving a lock: each pinned package must be in an index that a signed Release lists today.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use drystone_store::digest::BlobDigest;

use super::indexes::record_name;
use super::{ResolveError, Resolver};
use crate::lock::{ArchiveKey, Lock, LockedPlatform, PackageKey};
use crate::spec::Image;

/// A pinned package that no index speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproved {
    /// The package.
    pub package: PackageKey,
    /// Where the lock says that it comes from.
    pub archive: ArchiveKey,
    /// The digest that an index has for this very version: then the pin is wrong, and not merely
    /// no longer offered.
    pub listed: Option<BlobDigest>,
}

impl fmt::Display for Unproved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.listed {
            Some(digest) => write!(
                f,
                "{} of `{}` is listed with another digest, {digest}",
                self.package, self.archive
            ),
            None => write!(f, "{} is no longer listed by `{}`", self.package, self.archive),
        }
    }
}

impl Resolver<'_> {
    /// Proves an image's pins against the indexes that its archives' signed Releases list now, and
    /// returns those that cannot be proved, sorted. A package may have moved between the suites of
    /// its repository, as security updates do at point releases.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] when a Release or index cannot be had or proved.
    pub async fn verify_lock(
        &self,
        image: &Image,
        lock: &Lock,
    ) -> Result<Vec<Unproved>, ResolveError> {
        let (Some(debian), Some(locked)) = (&image.debian, lock.images.get(&image.name)) else {
            return Ok(Vec::new());
        };
        let architectures =
            locked.platforms.keys().map(|platform| platform.debian_architecture()).collect();
        let suite = locked.suite.as_ref().unwrap_or(&debian.suite);
        let (_, offers) = self.offers(image, debian, suite, &architectures, Some(lock)).await?;
        type Listed<'a> = BTreeMap<(&'a str, &'a str, &'a str, &'a str), Vec<(BlobDigest, u64)>>;
        let mut listed = Listed::new();
        for offer in &offers {
            let repository = offer.archive.key.repository.as_str();
            for record in offer.records.values().flatten() {
                let version = record.version.as_str();
                let key = (repository, record.name.as_str(), version, record.architecture.as_str());
                listed.entry(key).or_default().push((record.sha256, record.size));
            }
        }
        let keys: BTreeSet<&PackageKey> =
            locked.platforms.values().flat_map(LockedPlatform::all).collect();
        let mut unproved = Vec::new();
        for (key, pin) in keys.into_iter().filter_map(|key| Some((key, lock.packages.get(key)?))) {
            let repository = pin.archive.repository.as_str();
            let (version, architecture) = (key.version.as_str(), key.architecture.as_str());
            let found = listed.get(&(repository, key.name.as_str(), version, architecture));
            let found = found.map_or(&[][..], Vec::as_slice);
            if !found.contains(&(pin.sha256, pin.size)) {
                unproved.push(Unproved {
                    package: key.clone(),
                    archive: pin.archive.clone(),
                    listed: found.first().map(|(digest, _)| *digest),
                });
            }
        }
        tracing::debug!(
            archives = ?offers.iter().map(|offer| record_name(&offer.archive.key)).collect::<Vec<_>>(),
            unproved = unproved.len(),
            "lock compared"
        );
        Ok(unproved)
    }
}
