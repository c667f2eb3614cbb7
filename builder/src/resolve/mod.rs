//! Locking: from what image.toml asks for to pinned packages; and importing what is pinned.
//!
//! ```text
//! image.toml ─┐   archives: Release proved, indexes read    (network, in parallel)
//! mirrors ────┼─> sets: essential, image, full              (solver, a thread for each platform)
//! old lock ───┘   share: pins of this image ─ merged by the caller
//!
//! lock ─ import: download, verify, .deb -> trees            (downloads and imports overlap)
//! ```
//!
//! A lock that answers its image.toml ([`is_complete`]) is never touched: no mirror is asked, so a
//! build works after mirrors have dropped what it is made of. What is there stays; only
//! [`Update`] moves pins. Nothing here reads the clock or the environment.

mod archives;
mod complete;
mod contents;
mod error;
mod import;
mod indexes;
mod observe;
mod pins;
mod request;
mod script_only;
mod sets;
mod share;
mod sources;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::try_join_all;

use crate::lock::{ArchiveKey, Lock};
use crate::progress::{Event, Progress};
use crate::spec::{Architecture, Debian, Image, Name, Platform, Repository, Suite};
use drystone_source::debian::openpgp::Keyring;
use drystone_source::debian::universe::Reach;
use drystone_source::fetch::Downloader;

use archives::{Wanted, locked_date, may_stand_alone};
use indexes::{Offer, ordered};
use request::Task;
use sources::{Candidate, MAIN};

pub use complete::is_complete;
pub use contents::MissingFile;
pub use error::ResolveError;
pub use import::{ImportError, Imports, import_packages, record_trees, substitutable};
pub use pins::Update;
pub use sources::Sources;
pub use verify::Unproved;

/// Makes locks.
pub struct Resolver<'a> {
    /// Fetches Releases and indexes.
    pub downloader: Downloader,
    /// Where archives are.
    pub sources: Sources,
    /// A key file that is trusted for the main archive beside Debian's own keys.
    pub keyring: Option<PathBuf>,
    /// What time it is, in seconds since 1970: expiry is judged by it.
    pub now: i64,
    /// Hears how it goes.
    pub progress: &'a dyn Progress,
}

impl Resolver<'_> {
    /// Locks one image: this image's share of the lock, which the caller merges.
    ///
    /// `previous` is the lock so far, with all images that share it. Platforms of image.toml that
    /// it has are kept, and chosen again when the request has changed. Users, groups, recipes and
    /// layer plans stay as they are.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], whose [`ResolveError::exit_code`] tells the family.
    pub async fn lock_image(
        &self,
        image: &Image,
        platforms: &[Platform],
        previous: Option<&Lock>,
        update: &Update,
    ) -> Result<Lock, ResolveError> {
        request::check_updates(previous, update)?;
        let targets = share::targets(image, platforms, previous, update);
        let Some(debian) = image.debian.as_ref().filter(|_| !targets.is_empty()) else {
            return Ok(share::unchanged(image, previous));
        };
        let asked = share::asked_suite(image, debian, previous, update);
        let architectures = targets.iter().map(|platform| platform.debian_architecture()).collect();
        self.phase(&image.name.to_string(), format!("read the indexes of {asked}"));
        let (codename, mut offers) =
            self.offers(image, debian, &asked, &architectures, previous).await?;
        self.phase(&image.name.to_string(), "choose packages");
        let choices: Vec<_> = targets
            .iter()
            .map(|&platform| {
                let offers = &mut offers;
                let task = Task::new(image, debian, platform, &codename, previous, update, offers);
                async move { Ok::<_, ResolveError>((platform, task.run(image).await?)) }
            })
            .collect();
        let chosen: BTreeMap<_, _> = try_join_all(choices).await?.into_iter().collect();
        let archives: Vec<_> = offers.into_iter().map(|offer| offer.archive).collect();
        let share =
            share::Share { image, codename: &codename, archives: &archives, previous, update };
        let lock = share.assemble(chosen)?;
        self.progress.event(Event::Done { name: image.name.to_string() });
        Ok(lock)
    }

    fn phase(&self, name: &str, text: impl Into<String>) {
        self.progress.event(Event::Phase { name: name.to_owned(), text: text.into() });
    }

    /// Everything that the image's archives offer for these architectures, in the order in which
    /// the solver wants it, and the codename of the suite.
    async fn offers(
        &self,
        image: &Image,
        debian: &Debian,
        asked: &Suite,
        architectures: &BTreeSet<Architecture>,
        previous: Option<&Lock>,
    ) -> Result<(Suite, Vec<Offer>), ResolveError> {
        let plan = Plan::new(self, debian, asked, previous)?;
        let third_parties = self.third_parties(image, debian, architectures, previous)?;
        let third_parties =
            try_join_all(third_parties.iter().map(async |(wanted, architectures)| {
                let proved = self.prove(wanted).await?;
                self.offer(proved, architectures, true).await
            }));
        let main = async {
            let proved = self.prove(&plan.wanted(asked, "")?).await?;
            self.offer(proved, architectures, true).await
        };
        // Updates are asked for at once, in the hope that the suite is no alias.
        let (main, updates, third_parties) =
            tokio::join!(main, self.updates(&plan, asked, architectures), third_parties);
        let mut main = main?;
        let codename = codename(&main, asked)?;
        let updates = match codename == *asked {
            true => updates,
            false => self.updates(&plan, &codename, architectures).await,
        };
        if codename != *asked {
            main.rename(&codename);
            check_date(&main, previous)?;
        }
        let mut offers = vec![main];
        for (suffix, offer) in updates {
            match offer {
                Ok(offer) => offers.push(offer),
                Err(error) if error.is_absent() && self.tolerates(&offers[0], suffix, previous) => {
                    self.tell_absent(&offers[0], suffix);
                }
                Err(error) => return Err(error),
            }
        }
        offers.extend(third_parties?);
        Ok((codename, offers))
    }

    /// `-updates` and `-security` of a suite.
    async fn updates(
        &self,
        plan: &Plan<'_>,
        suite: &Suite,
        architectures: &BTreeSet<Architecture>,
    ) -> [(&'static str, Result<Offer, ResolveError>); 2] {
        let offer = async |suffix| {
            let proved = self.prove(&plan.wanted(suite, suffix)?).await?;
            self.offer(proved, architectures, false).await
        };
        let (updates, security) = tokio::join!(offer("-updates"), offer("-security"));
        [("-updates", updates), ("-security", security)]
    }

    /// Whether a suite may come without one of its companions. One that the lock was made from may
    /// not vanish: that is how updates would be held back.
    fn tolerates(&self, main: &Offer, suffix: &str, previous: Option<&Lock>) -> bool {
        let suite = Suite::new(&format!("{}{suffix}", main.archive.key.suite));
        let known = suite.is_ok_and(|suite| {
            let key = ArchiveKey { repository: main.archive.key.repository.clone(), suite };
            locked_date(previous, &key).is_some()
        });
        !known && may_stand_alone(&main.archive, self.sources.is_set())
    }

    fn tell_absent(&self, main: &Offer, suffix: &str) {
        let text = format!("suite `{}` has no `{suffix}`: none is used", main.archive.key.suite);
        let alarming = suffix == "-security" && main.archive.release.origin == "Debian";
        self.progress.event(match alarming {
            true => Event::Warning { text },
            false => Event::Note { text },
        });
    }

    /// The repositories that packages are asked from, each with the architectures that it serves.
    fn third_parties(
        &self,
        image: &Image,
        debian: &Debian,
        architectures: &BTreeSet<Architecture>,
        previous: Option<&Lock>,
    ) -> Result<Vec<(Wanted, BTreeSet<Architecture>)>, ResolveError> {
        let used = request::repositories(debian);
        let repositories = image.repositories.iter().filter(|(name, _)| used.contains(name));
        let mut wanted = Vec::new();
        for (name, repository) in repositories {
            let key = ArchiveKey { repository: name.clone(), suite: repository.suite.clone() };
            let served = |it: &&Architecture| {
                repository.architectures.is_empty() || repository.architectures.contains(*it)
            };
            let served = architectures.iter().filter(served).cloned().collect();
            let archive = Wanted {
                candidates: vec![Candidate { base: repository.url.clone(), from_host: false }],
                keyring: Arc::new(repository_keyring(image, repository)?),
                components: ordered(&repository.components),
                reach: Reach::Named,
                check_valid_until: debian.check_valid_until,
                strict_suite: false,
                locked_date: locked_date(previous, &key),
                key,
            };
            wanted.push((archive, served));
        }
        Ok(wanted)
    }
}

/// How the main archive's suites are asked for.
struct Plan<'a> {
    debian: &'a Debian,
    main: Vec<Candidate>,
    security: Vec<Candidate>,
    keyring: Arc<Keyring>,
    previous: Option<&'a Lock>,
}

impl<'a> Plan<'a> {
    fn new(
        resolver: &Resolver<'_>,
        debian: &'a Debian,
        asked: &Suite,
        previous: Option<&'a Lock>,
    ) -> Result<Self, ResolveError> {
        let (main, security) = resolver.sources.candidates(asked.as_str())?;
        let mut keyring = Keyring::debian().clone();
        if let Some(path) = &resolver.keyring {
            keyring.extend(read_keyring(path)?);
        }
        Ok(Self { debian, main, security, keyring: Arc::new(keyring), previous })
    }

    fn wanted(&self, suite: &Suite, suffix: &str) -> Result<Wanted, ResolveError> {
        let key = ArchiveKey {
            repository: main_repository(),
            suite: request::pinnable(suite.as_str(), Suite::new(&format!("{suite}{suffix}")))?,
        };
        let candidates = if suffix == "-security" { &self.security } else { &self.main };
        Ok(Wanted {
            candidates: candidates.clone(),
            keyring: Arc::clone(&self.keyring),
            components: ordered(&self.debian.components),
            reach: Reach::Default,
            check_valid_until: self.debian.check_valid_until,
            strict_suite: true,
            locked_date: locked_date(self.previous, &key),
            key,
        })
    }
}

fn main_repository() -> Name {
    Name::new(MAIN).expect("a valid name")
}

/// What an alias stands for; a Release without a codename stands for what was asked.
fn codename(main: &Offer, asked: &Suite) -> Result<Suite, ResolveError> {
    match main.archive.release.codename.as_str() {
        "" => Ok(asked.clone()),
        codename => request::pinnable(codename, Suite::new(codename)),
    }
}

/// Holds an archive that was asked for by an alias to the date that is locked for its codename.
fn check_date(main: &Offer, previous: Option<&Lock>) -> Result<(), ResolveError> {
    let date = main.archive.date();
    match locked_date(previous, &main.archive.key).filter(|locked| date < *locked) {
        Some(locked) => {
            let url = main.archive.url.clone();
            Err(ResolveError::RolledBack { url, date, locked })
        }
        None => Ok(()),
    }
}

/// The one key file of a repository; what is wrong with it is said at its place in image.toml.
fn repository_keyring(image: &Image, repository: &Repository) -> Result<Keyring, ResolveError> {
    read_keyring(&repository.key).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let message = format!("{error}: {}", cause.unwrap_or_default());
        ResolveError::Image(Box::new(image.problem(repository.key_place, message).into()))
    })
}

fn read_keyring(path: &Path) -> Result<Keyring, ResolveError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ResolveError::KeyFile { path: path.to_owned(), source })?;
    Keyring::from_bytes(&bytes)
        .map_err(|source| ResolveError::Key { path: path.to_owned(), source })
}
