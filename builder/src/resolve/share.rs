//! One image's share of the lock: what was chosen, joined with what stays.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::tree::TreePath;
use jiff::Timestamp;

use super::ResolveError;
use super::archives::{Proved, indexed_architectures, timestamp};
use super::complete::is_locked;
use super::indexes::record_name;
use super::pins::Update;
use super::request::pinnable;
use super::sets::Sets;
use crate::document::ValueError;
use crate::lock::{
    ArchiveKey, Index, IndexKey, Lock, LockedImage, LockedPackage, LockedPlatform, LockedRequest,
    PackageKey,
};
use crate::spec::{
    Architecture, Debian, Image, Name, PackageName, PackageVersion, Platform, Suite,
};
use drystone_source::debian::index::PackageRecord;

fn locked<'a>(image: &Image, previous: Option<&'a Lock>) -> Option<&'a LockedImage> {
    previous?.images.get(&image.name)
}

/// Whether what is locked answers the same request.
fn is_same_request(image: &Image, previous: Option<&Lock>) -> bool {
    let before = locked(image, previous).and_then(|locked| locked.request.as_ref());
    before.is_some() && before == LockedRequest::of(image).as_ref()
}

/// Whether platforms that are not chosen anew stay as they are.
fn keeps(image: &Image, previous: Option<&Lock>, update: &Update) -> bool {
    *update == Update::Missing && is_same_request(image, previous)
}

/// The platforms whose packages are to be chosen.
pub(super) fn targets(
    image: &Image,
    platforms: &[Platform],
    previous: Option<&Lock>,
    update: &Update,
) -> BTreeSet<Platform> {
    let asked = platforms.iter().copied();
    if keeps(image, previous, update) {
        return asked.filter(|&platform| !is_locked(previous, image, platform)).collect();
    }
    let before = image.platforms.iter().copied().filter(|platform| {
        locked(image, previous).is_some_and(|locked| locked.platforms.contains_key(platform))
    });
    asked.chain(before).collect()
}

/// The suite to fetch: an alias keeps the codename that it was locked as, unless all is updated.
pub(super) fn asked_suite(
    image: &Image,
    debian: &Debian,
    previous: Option<&Lock>,
    update: &Update,
) -> Suite {
    let before = locked(image, previous).filter(|locked| {
        *update != Update::All
            && locked.request.as_ref().is_some_and(|request| request.suite == debian.suite)
    });
    before.and_then(|locked| locked.suite.clone()).unwrap_or_else(|| debian.suite.clone())
}

/// The share of an image for which nothing is to be chosen: what is locked, or nothing.
pub(super) fn unchanged(image: &Image, previous: Option<&Lock>) -> Lock {
    let mut lock = Lock::default();
    let content = match (locked(image, previous), &image.debian) {
        (Some(locked), Some(_)) => locked.clone(),
        (Some(locked), None) => LockedImage {
            date: locked.date.filter(|_| locked.platforms.is_empty()),
            recipes: locked.recipes.clone(),
            ..LockedImage::default()
        },
        (None, _) => LockedImage::default(),
    };
    copy_pins(&mut lock, previous, content.platforms.values());
    copy_indexes(&mut lock, previous, &content.archives);
    lock.images.insert(image.name.clone(), content);
    lock
}

fn copy_pins<'a>(
    lock: &mut Lock,
    previous: Option<&Lock>,
    contents: impl Iterator<Item = &'a LockedPlatform>,
) {
    let Some(previous) = previous else { return };
    for key in contents.flat_map(LockedPlatform::everything) {
        if let Some(package) = previous.packages.get(key) {
            lock.packages.insert(key.clone(), package.clone());
        }
    }
}

fn copy_indexes(lock: &mut Lock, previous: Option<&Lock>, archives: &BTreeSet<ArchiveKey>) {
    let indexes = previous.into_iter().flat_map(|previous| &previous.indexes);
    for (key, index) in indexes.filter(|(key, _)| archives.contains(&key.archive)) {
        lock.indexes.insert(key.clone(), index.clone());
    }
}

/// What a share is made of.
pub(super) struct Share<'a> {
    pub image: &'a Image,
    pub codename: &'a Suite,
    pub archives: &'a [Proved],
    pub previous: Option<&'a Lock>,
    pub update: &'a Update,
}

impl Share<'_> {
    /// Puts the chosen sets into a lock.
    pub fn assemble(&self, chosen: BTreeMap<Platform, Sets>) -> Result<Lock, ResolveError> {
        let before = locked(self.image, self.previous);
        let mut lock = Lock::default();
        let mut content = LockedImage {
            suite: Some(self.codename.clone()),
            request: LockedRequest::of(self.image),
            archives: self.archives.iter().map(|archive| archive.key.clone()).collect(),
            ..before.cloned().unwrap_or_default()
        };
        if keeps(self.image, self.previous, self.update) {
            let archives = before.into_iter().flat_map(|before| before.archives.iter().cloned());
            content.archives.extend(archives);
            copy_pins(&mut lock, self.previous, content.platforms.values());
        } else {
            content.platforms.clear();
        }
        copy_indexes(&mut lock, self.previous, &content.archives);
        for (platform, sets) in &chosen {
            self.add_indexes(&mut lock, *platform)?;
            let locked = self.add_platform(&mut lock, *platform, sets)?;
            content.platforms.insert(*platform, locked);
        }
        content.date = self.date(&lock, &content);
        lock.images.insert(self.image.name.clone(), content);
        Ok(lock)
    }

    fn add_indexes(&self, lock: &mut Lock, platform: Platform) -> Result<(), ResolveError> {
        for archive in self.archives {
            let lists = |name: &str| {
                archive.components.iter().any(|component| archive.lists(component, name))
            };
            let names = indexed_architectures(archive, &platform.debian_architecture());
            for name in names.iter().filter(|name| lists(name)) {
                let key = IndexKey {
                    archive: archive.key.clone(),
                    architecture: pinnable(name, Architecture::new(name))?,
                };
                let index = Index {
                    components: archive.components.iter().cloned().collect(),
                    release: archive.sha256,
                    date: archive.date(),
                    valid_until: archive.release.valid_until.map(timestamp),
                    signer: archive.signer.clone(),
                };
                lock.indexes.insert(key, index);
            }
        }
        Ok(())
    }

    fn add_platform(
        &self,
        lock: &mut Lock,
        platform: Platform,
        sets: &Sets,
    ) -> Result<LockedPlatform, ResolveError> {
        let before = self.previous.and_then(|lock| lock.platform(&self.image.name, platform));
        let mut content = LockedPlatform {
            packages: BTreeSet::new(),
            essential: BTreeSet::new(),
            configure: BTreeSet::new(),
            recipes: BTreeMap::new(),
            ..before.cloned().unwrap_or_default()
        };
        for (name, record) in &sets.full {
            let (key, package) = self.pin(record)?;
            let (in_image, is_essential) =
                (sets.image.contains(name), sets.essential.contains(name));
            if in_image {
                content.packages.insert(key.clone());
            }
            if is_essential {
                content.essential.insert(key.clone());
            }
            if !in_image && !is_essential {
                content.configure.insert(key.clone());
            }
            lock.packages.insert(key, package);
        }
        for (recipe, records) in &sets.recipes {
            let mut inputs = BTreeSet::new();
            for record in records.values() {
                let (key, package) = self.pin(record)?;
                inputs.insert(key.clone());
                lock.packages.insert(key, package);
            }
            content.recipes.insert(pinnable(recipe, Name::new(recipe))?, inputs);
        }
        let packages: BTreeSet<&PackageName> =
            content.packages.iter().map(|key| &key.name).collect();
        content.found_by.retain(|package, _| packages.contains(package));
        Ok(content)
    }

    /// A chosen record as a pin. What is pinned already stays as it is; where all is chosen again,
    /// only the hashes of its trees do, if the file is the same.
    fn pin(&self, record: &PackageRecord) -> Result<(PackageKey, LockedPackage), ResolveError> {
        let name = record.name.as_str();
        let key = PackageKey {
            name: pinnable(name, PackageName::new(name))?,
            version: pinnable(name, PackageVersion::new(record.version.as_str()))?,
            architecture: pinnable(name, Architecture::new(&record.architecture))?,
        };
        let before = self.previous.and_then(|lock| lock.packages.get(&key));
        if let Some(package) = before.filter(|_| *self.update != Update::All) {
            return Ok((key, package.clone()));
        }
        let path = TreePath::new(record.filename.as_str())
            .map_err(|error| ValueError::new("pool path", &record.filename, error.to_string()));
        let archives = self.archives.iter();
        let mut archives =
            archives.filter(|archive| record_name(&archive.key) == *record.repository);
        let archive =
            archives.next().expect("records carry the names of these archives").key.clone();
        let same = before.filter(|before| before.sha256 == record.sha256);
        let package = LockedPackage {
            archive,
            source: pinnable(name, PackageName::new(&record.source))?,
            path: pinnable(name, path)?,
            size: record.size,
            sha256: record.sha256,
            tree: same.and_then(|same| same.tree),
            control: same.and_then(|same| same.control),
        };
        Ok((key, package))
    }

    /// The newest Release date, unless the pins are what they were.
    fn date(&self, lock: &Lock, content: &LockedImage) -> Option<Timestamp> {
        let newest = self.archives.iter().map(Proved::date).max();
        let Some(before) = locked(self.image, self.previous) else { return newest };
        let pins = |lock: Option<&Lock>, content: &LockedImage| -> BTreeMap<Platform, Vec<_>> {
            let of = |content: &LockedPlatform| {
                let roles = [&content.packages, &content.essential, &content.configure];
                let roles = roles.into_iter().chain(content.recipes.values());
                let keys = roles.flat_map(|role| role.iter().cloned().map(Some).chain([None]));
                keys.map(|key| {
                    let pin = key.as_ref().and_then(|key| lock?.packages.get(key));
                    (key.clone(), pin.map(|pin| pin.sha256))
                })
                .collect()
            };
            content.platforms.iter().map(|(platform, content)| (*platform, of(content))).collect()
        };
        match pins(self.previous, before) == pins(Some(lock), content) {
            true => before.date.or(newest),
            false => newest,
        }
    }
}
