//! Archives: which ones an image draws from, and the proof that a mirror serves the right one.
//!
//! ```text
//! suite S ─┬─ S, S-updates    main mirrors      ┐
//!          └─ S-security      security mirrors  ├─ candidates in order ─ signature, suite, origin,
//! repository ─ its address                      ┘    Valid-Until, not older than the lock's ─ Proved
//! ```

use std::sync::Arc;

use drystone_store::digest::BlobDigest;
use jiff::Timestamp;
use url::Url;

use super::sources::Candidate;
use super::{ResolveError, Resolver};
use crate::lock::{ArchiveKey, Fingerprint, Lock};
use crate::progress::Event;
use crate::spec::{Architecture, Component};
use drystone_source::debian::archive::{ArchiveError, fetch_release};
use drystone_source::debian::openpgp::Keyring;
use drystone_source::debian::release::Release;
use drystone_source::debian::universe::Reach;

/// Suites that get neither updates nor security suites of their own.
const MOVING: [&str; 4] = ["sid", "unstable", "experimental", "rc-buggy"];

/// An archive that packages may be chosen from.
#[derive(Clone)]
pub(super) struct Wanted {
    pub key: ArchiveKey,
    pub candidates: Vec<Candidate>,
    pub keyring: Arc<Keyring>,
    pub components: Vec<Component>,
    pub reach: Reach,
    pub check_valid_until: bool,
    /// Whether the suite that the Release names must be the one asked for. Third parties often get
    /// it wrong, and their key vouches for nothing else anyway.
    pub strict_suite: bool,
    /// The date of the Release that the lock was made from.
    pub locked_date: Option<Timestamp>,
}

/// An archive whose Release was proved.
#[derive(Clone)]
pub(super) struct Proved {
    pub key: ArchiveKey,
    pub base: Url,
    /// Where the Release came from, without credentials.
    pub url: String,
    pub reach: Reach,
    pub components: Vec<Component>,
    pub release: Arc<Release>,
    pub sha256: BlobDigest,
    pub signer: Fingerprint,
    /// Whether packages of architecture `all` have an index of their own, which the indexes of the
    /// other architectures leave out.
    pub separate_all: bool,
}

impl Proved {
    pub fn date(&self) -> Timestamp {
        timestamp(self.release.date)
    }

    /// What went wrong with one of its files.
    pub fn failed(&self, source: ArchiveError) -> ResolveError {
        ResolveError::Archive { archive: self.key.clone(), source: Box::new(source) }
    }

    /// Whether the Release lists packages of a component for an architecture.
    pub fn lists(&self, component: &Component, architecture: &str) -> bool {
        let plain = format!("{component}/binary-{architecture}/Packages");
        ["", ".xz", ".gz"]
            .iter()
            .any(|suffix| self.release.files.contains_key(&format!("{plain}{suffix}")))
    }
}

/// Whether a suite is expected to come without updates or security suites.
pub(super) fn may_stand_alone(main: &Proved, mirror_is_set: bool) -> bool {
    mirror_is_set || main.release.origin != "Debian" || MOVING.contains(&&*main.release.codename)
}

/// The newest Release date that a lock has for an archive.
pub(super) fn locked_date(lock: Option<&Lock>, key: &ArchiveKey) -> Option<Timestamp> {
    let indexes = lock?.indexes.iter().filter(|(index, _)| index.archive == *key);
    indexes.map(|(_, index)| index.date).max()
}

/// Seconds since 1970 as a time; what no calendar holds becomes the nearest that it does.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(match seconds < 0 {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}

impl Resolver<'_> {
    /// Proves the first candidate that will do. The error is that of the first candidate that has
    /// the archive at all.
    pub(super) async fn prove(&self, wanted: &Wanted) -> Result<Proved, ResolveError> {
        let mut failure: Option<ResolveError> = None;
        for candidate in &wanted.candidates {
            let error = match self.prove_candidate(wanted, candidate).await {
                Ok(proved) => return Ok(proved),
                Err(error) => error,
            };
            tracing::debug!(archive = %wanted.key, base = %candidate.base.path(), %error, "not used");
            if failure.as_ref().is_none_or(|first| first.is_absent() && !error.is_absent()) {
                failure = Some(error);
            }
        }
        Err(failure.unwrap_or_else(|| {
            let suite = wanted.key.suite.to_string();
            drystone_source::debian::mirror::MirrorError::NotFound { suite }.into()
        }))
    }

    async fn prove_candidate(
        &self,
        wanted: &Wanted,
        candidate: &Candidate,
    ) -> Result<Proved, ResolveError> {
        let suite = wanted.key.suite.as_str();
        let fetched =
            fetch_release(&self.downloader, &candidate.base, suite, &wanted.keyring, self.now);
        let verified = fetched.await.map_err(|source| ResolveError::Archive {
            archive: wanted.key.clone(),
            source: Box::new(source),
        })?;
        let url = verified.url;
        let release = Release::read(&verified.text)
            .map_err(|source| ResolveError::Release { url: url.clone(), source })?;
        self.check_release(wanted, candidate, &release, &url)?;
        let signer = verified.signers.iter().find_map(|signer| Fingerprint::new(signer).ok());
        let signer = signer.unwrap_or_else(|| {
            unreachable!("the verifier names signers by fingerprints and accepts none without")
        });
        Ok(Proved {
            key: wanted.key.clone(),
            base: candidate.base.clone(),
            url,
            reach: wanted.reach,
            components: wanted.components.clone(),
            separate_all: has_separate_all(&release, &verified.text),
            release: Arc::new(release),
            sha256: verified.sha256,
            signer,
        })
    }

    fn check_release(
        &self,
        wanted: &Wanted,
        candidate: &Candidate,
        release: &Release,
        url: &str,
    ) -> Result<(), ResolveError> {
        let asked = wanted.key.suite.as_str();
        let url = || url.to_owned();
        if release.codename != asked && release.suite != asked {
            if wanted.strict_suite {
                return Err(ResolveError::WrongSuite {
                    url: url(),
                    asked: asked.to_owned(),
                    suite: release.suite.clone(),
                    codename: release.codename.clone(),
                });
            }
            self.progress.event(Event::Note {
                text: format!(
                    "repository `{}` calls its suite {:?}, codename {:?}, not {asked:?}",
                    wanted.key.repository, release.suite, release.codename
                ),
            });
        }
        if candidate.from_host && release.origin != "Debian" {
            return Err(ResolveError::WrongOrigin { url: url(), origin: release.origin.clone() });
        }
        let expired = release.valid_until.filter(|until| *until < self.now);
        if let Some(until) = expired.filter(|_| wanted.check_valid_until) {
            return Err(ResolveError::Expired { url: url(), valid_until: timestamp(until) });
        }
        let date = timestamp(release.date);
        match wanted.locked_date.filter(|locked| date < *locked) {
            Some(locked) => Err(ResolveError::RolledBack { url: url(), date, locked }),
            None => Ok(()),
        }
    }
}

/// Whether `all` packages are only in an index of their own: `Architectures` names `all`, and
/// `No-Support-for-Architecture-all` does not take that back for `Packages` (Debian's repository
/// format). An index for `all` may be listed without; it is then a copy.
fn has_separate_all(release: &Release, text: &str) -> bool {
    let in_every_index = text.lines().any(|line| {
        line.strip_prefix("No-Support-for-Architecture-all:")
            .is_some_and(|value| value.split_whitespace().any(|word| word == "Packages"))
    });
    release.architectures.iter().any(|name| name == "all") && !in_every_index
}

/// The architectures whose indexes make up what an architecture can install.
pub(super) fn indexed_architectures(proved: &Proved, architecture: &Architecture) -> Vec<String> {
    let mut names = vec![architecture.to_string()];
    let has_all = || proved.components.iter().any(|component| proved.lists(component, "all"));
    if proved.separate_all && has_all() {
        names.push("all".to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_for_all_are_looked_for_where_they_are() {
        let separate = |fields: &str| {
            let text =
                format!("Suite: x\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n{fields}\nSHA256:\n");
            has_separate_all(&Release::read(&text).unwrap(), &text)
        };
        assert!(separate("Architectures: all amd64"));
        assert!(!separate("Architectures: amd64"));
        assert!(!separate("Architectures: all amd64\nNo-Support-for-Architecture-all: Packages"));
        assert!(separate("Architectures: all amd64\nNo-Support-for-Architecture-all: Contents"));
    }
}
