//! Locking for commands: when a lock must change, who may change it, and what a build adds to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drystone_builder::base::{BaseImages, BaseSource};
use drystone_builder::build::Built;
use drystone_builder::lock::{Lock, LockError, PackageKey, Written};
use drystone_builder::resolve::{
    MissingFile, Resolver, Sources, Update, is_complete, record_trees,
};
use drystone_builder::settings::Settings;
use drystone_builder::spec::{Image, ImageName, Name, PackageName, Platform};
use drystone_cache::registry::Registries;
use drystone_store::digest::TreeHash;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::bases::{self, RegistryBases};
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::progress::Display;
use crate::wiring::{APT, Wiring, downloader, lock_out_of_date, now};

/// What a command that locks works with.
pub struct Locking<'a> {
    /// What opens the store.
    pub wiring: &'a Wiring,
    /// The settings.
    pub settings: &'a Settings,
    /// Registries that base images are in.
    pub registries: &'a Registries,
    /// Whether the network may not be used.
    pub offline: bool,
    /// Whether the lock may not change.
    pub locked: bool,
    /// Where progress goes.
    pub display: &'a Display,
}

/// A package, or a base image, whose pin changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The package; of a base image the reference.
    pub name: String,
    /// Its architecture; `image` for a base image.
    pub architecture: String,
    /// The old version or digest.
    pub old: Option<String>,
    /// The new version or digest.
    pub new: Option<String>,
}

/// Where packages come from, by the settings and the image's own repositories.
pub fn sources(settings: &Settings, image: &Image) -> Sources {
    let mirror = settings.mirror.as_ref().map(|setting| setting.value.clone());
    let security = settings.security_mirror.as_ref().map(|setting| setting.value.clone());
    Sources::new(mirror, security, APT).with_repositories(&image.repositories)
}

impl Locking<'_> {
    /// The lock of an image, complete for the platforms; `lock` is what its file holds. What is
    /// missing is chosen now, and written if `write` says so.
    pub fn complete(
        &self,
        runtime: &Runtime,
        image: &Image,
        platforms: &[Platform],
        lock: Option<Lock>,
        write: bool,
    ) -> Result<Lock, Failure> {
        let complete = lock.as_ref().is_some_and(|lock| is_complete(lock, image, platforms));
        let nothing_to_lock =
            lock.is_none() && image.debian.is_none() && image.tagged_base().is_none();
        if complete || nothing_to_lock {
            return Ok(lock.unwrap_or_default());
        }
        let path = image.lock_path.display();
        let problem = match &lock {
            None => format!("there is no {path}"),
            Some(_) => format!("{path} does not answer what image.toml asks for"),
        };
        if self.locked {
            return Err(lock_out_of_date(problem));
        }
        self.allow_network(&problem)?;
        let share = self.choose(runtime, image, platforms, lock.as_ref(), &Update::Missing)?;
        match write {
            true => self.merge(&image.lock_path, share).map(|(lock, _)| lock),
            false => {
                let mut lock = lock.unwrap_or_default();
                lock.merge(share)?;
                Ok(lock)
            }
        }
    }

    /// Closes a lock over the packages that recipes' outputs need when they run: these join the
    /// image, and those that are needed no more leave it.
    pub fn close(
        &self,
        runtime: &Runtime,
        image: &Image,
        mut lock: Lock,
        found: &BTreeMap<Platform, BTreeMap<PackageName, Name>>,
    ) -> Result<Lock, Failure> {
        let Some(locked) = lock.images.get_mut(&image.name) else { return Ok(lock) };
        let (mut differs, mut settled) = (false, true);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (platform, found) in found {
            let Some(content) = locked.platforms.get_mut(platform) else { continue };
            let has = |name: &PackageName| content.packages.iter().any(|key| key.name == *name);
            settled &= found.keys().all(has);
            settled &= content.found_by.keys().all(|name| found.contains_key(name));
            if content.found_by != *found {
                let changed = found.keys().chain(content.found_by.keys());
                let changed = changed.filter(|name| {
                    found.contains_key(*name) != content.found_by.contains_key(*name)
                });
                names.extend(changed.map(ToString::to_string));
                differs = true;
                content.found_by.clone_from(found);
            }
        }
        if !differs && settled {
            return Ok(lock);
        }
        let path = image.lock_path.display();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let problem =
            format!("recipes need other packages at run time than {path} records: {names}");
        if self.locked {
            return Err(lock_out_of_date(problem));
        }
        let share = match settled {
            true => only(&lock, image),
            false => {
                self.allow_network(&problem)?;
                let platforms: Vec<Platform> = found.keys().copied().collect();
                // Nothing is let go of, but everything that is asked for counts anew.
                let update = Update::Packages(BTreeSet::new());
                self.choose(runtime, image, &platforms, Some(&lock), &update)?
            }
        };
        self.merge(&image.lock_path, share).map(|(lock, _)| lock)
    }

    /// Fails when the network would be needed and may not be used.
    pub fn allow_network(&self, why: &str) -> Result<(), Failure> {
        match self.offline {
            true => Err(Failure::new(
                Family::Network,
                format!("{why}, and the network may not be used"),
            )
            .hint("run it once without `--offline`")),
            false => Ok(()),
        }
    }

    /// Chooses packages: this image's share of a lock.
    pub fn choose(
        &self,
        runtime: &Runtime,
        image: &Image,
        platforms: &[Platform],
        previous: Option<&Lock>,
        update: &Update,
    ) -> Result<Lock, Failure> {
        let resolver = self.resolver(image);
        let locked = resolver.lock_image(image, platforms, previous, update);
        let mut share =
            runtime.block_on(interrupt::or_cancelled(locked)).map_err(Failure::of)??;
        if image.tagged_base().is_some() {
            let store = self.wiring.store(self.settings)?;
            let source = RegistryBases::new(self.registries, runtime.handle());
            let source: Option<&dyn BaseSource> = Some(&source);
            let base = bases::pin(BaseImages { store: &store, source }, image, previous, update)?;
            share.images.entry(image.name.clone()).or_default().base = base;
        }
        Ok(share)
    }

    /// Proves the pins of an image against what its archives list now; those that cannot be.
    pub fn unproved(
        &self,
        runtime: &Runtime,
        image: &Image,
        lock: &Lock,
    ) -> Result<Vec<drystone_builder::resolve::Unproved>, Failure> {
        let resolver = self.resolver(image);
        let unproved = interrupt::or_cancelled(resolver.verify_lock(image, lock));
        Ok(runtime.block_on(unproved).map_err(Failure::of)??)
    }

    /// The packages of the image's suite that have a file.
    pub fn packages_with(
        &self,
        runtime: &Runtime,
        image: &Image,
        lock: &Lock,
        platform: Platform,
        file: &MissingFile,
    ) -> Result<Vec<String>, Failure> {
        let resolver = self.resolver(image);
        let found = interrupt::or_cancelled(resolver.packages_with(image, lock, platform, file));
        Ok(runtime.block_on(found).map_err(Failure::of)??)
    }

    fn resolver(&self, image: &Image) -> Resolver<'_> {
        Resolver {
            downloader: downloader(self.settings),
            sources: sources(self.settings, image),
            keyring: self.settings.keyring.as_ref().map(|setting| setting.value.clone()),
            now: now(),
            progress: self.display,
        }
    }

    /// Merges an image's share into its lock file.
    pub fn merge(&self, path: &Path, share: Lock) -> Result<(Lock, Written), Failure> {
        Ok(Lock::edit::<LockError>(path, |lock| lock.merge(share))?)
    }
}

/// What a build adds to the lock: the trees of packages, account numbers, the plan of layers.
pub fn with_results(lock: &Lock, image: &Image, built: &Built) -> Lock {
    let mut lock = lock.clone();
    for platform in &built.platforms {
        record_trees(&mut lock, &platform.imported);
    }
    if let Some(locked) = lock.images.get_mut(&image.name) {
        for built in &built.platforms {
            locked.users.extend(built.users.clone());
            locked.groups.extend(built.groups.clone());
            if let Some(platform) = locked.platforms.get_mut(&built.platform) {
                platform.order = Some(built.order.clone());
                platform.layers.clone_from(&built.layers);
            }
        }
    }
    lock
}

/// Writes what a build added. Under `--locked` the file stays as it is: results that are missing
/// are no fault, results that differ from the recorded ones are.
pub fn record(
    locking: &Locking<'_>,
    lock: &Lock,
    image: &Image,
    built: &Built,
) -> Result<bool, Failure> {
    let full = with_results(lock, image, built);
    if full == *lock {
        return Ok(false);
    }
    if locking.locked {
        return match contradiction(lock, &full, image) {
            Some(what) => {
                let path = image.lock_path.display();
                Err(lock_out_of_date(format!("{path} records another {what} than was built")))
            }
            None => Ok(false),
        };
    }
    let share = only(&full, image);
    let (_, written) = locking.merge(&image.lock_path, share)?;
    Ok(written == Written::Changed)
}

/// The part of a lock that belongs to an image: others may have changed theirs meanwhile.
fn only(lock: &Lock, image: &Image) -> Lock {
    let mut share = lock.clone();
    share.images.retain(|name, _| *name == image.name);
    share.prune();
    share
}

/// What two locks say differently, where both say something.
fn contradiction(old: &Lock, new: &Lock, image: &Image) -> Option<&'static str> {
    let trees = |lock: &Lock| -> BTreeMap<PackageKey, (Option<TreeHash>, Option<TreeHash>)> {
        let pins = lock.packages.iter();
        pins.map(|(key, pin)| (key.clone(), (pin.tree, pin.control))).collect()
    };
    let new_trees = trees(new);
    let differ = |old: Option<TreeHash>, new: Option<TreeHash>| old.is_some() && old != new;
    for (key, (tree, control)) in trees(old) {
        let (new_tree, new_control) = new_trees.get(&key).copied().unwrap_or_default();
        if differ(tree, new_tree) || differ(control, new_control) {
            return Some("tree of a package");
        }
    }
    let (old, new) = (old.images.get(&image.name)?, new.images.get(&image.name)?);
    let moved = |old: &BTreeMap<String, u32>, new: &BTreeMap<String, u32>| {
        old.iter().any(|(name, number)| new.get(name) != Some(number))
    };
    if moved(&old.users, &new.users) || moved(&old.groups, &new.groups) {
        return Some("number of an account");
    }
    let plans = old.platforms.iter().filter(|(_, old)| !old.layers.is_empty());
    plans
        .filter_map(|(platform, old)| Some((old, new.platforms.get(platform)?)))
        .any(|(old, new)| old.layers != new.layers)
        .then_some("plan of layers")
}

/// The pins that differ, for people and for JSON.
pub fn moved(old: &Lock, new: &Lock) -> Vec<Moved> {
    let packages = old.moved(new).into_iter().filter_map(|(old, new)| {
        let key = new.as_ref().or(old.as_ref())?;
        Some(Moved {
            name: key.name.to_string(),
            architecture: key.architecture.to_string(),
            old: old.as_ref().map(|key| key.version.to_string()),
            new: new.as_ref().map(|key| key.version.to_string()),
        })
    });
    packages.chain(moved_bases(old, new)).collect()
}

/// The base images that differ.
fn moved_bases(old: &Lock, new: &Lock) -> Vec<Moved> {
    let base = |lock: &Lock, name: &ImageName| lock.images.get(name)?.base.clone();
    let names: BTreeSet<&ImageName> = old.images.keys().chain(new.images.keys()).collect();
    let mut moved = Vec::new();
    for name in names {
        let (old, new) = (base(old, name), base(new, name));
        let Some(named) = new.as_ref().or(old.as_ref()).filter(|_| old != new) else { continue };
        moved.push(Moved {
            name: named.from.clone(),
            architecture: "image".to_owned(),
            old: old.as_ref().map(|base| base.digest.to_string()),
            new: new.as_ref().map(|base| base.digest.to_string()),
        });
    }
    moved
}

/// The moved pins as lines.
pub fn moved_text(moved: &[Moved]) -> String {
    let mut text = String::new();
    for pin in moved {
        let line = match (&pin.old, &pin.new) {
            (Some(old), Some(new)) => format!("~ {} {old} -> {new}", pin.name),
            (None, Some(new)) => format!("+ {} {new}", pin.name),
            (Some(old), None) => format!("- {} {old}", pin.name),
            (None, None) => continue,
        };
        text.push_str(&format!("{line} {}\n", pin.architecture));
    }
    text
}
