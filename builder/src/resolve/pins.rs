//! What a lock already settles: which versions are kept, and packages that mirrors have dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::indexes::record_name;
use super::sets::{SetError, Sets, Wish, choose};
use super::sources::MAIN;
use crate::lock::{Lock, LockedPackage, PackageKey};
use crate::spec::{ImageName, Name, PackageName, Platform, Suite, VersionPattern};
use drystone_source::debian::index::PackageRecord;
use drystone_source::debian::relation::RelationField;
use drystone_source::debian::solve::{Failure, Problem, Unsolvable};
use drystone_source::debian::universe::{Reach, Universe};
use drystone_source::debian::version::Version;

/// Rounds of letting go of pins that an update of a few packages meets.
const MOST_ROUNDS: usize = 50;

/// Which pins a lock step may move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// None: what is missing is added, everything else stays.
    Missing,
    /// All: everything is chosen again.
    All,
    /// Those of the named packages, of others of the same source, and of what they then need.
    Packages(BTreeSet<PackageName>),
}

/// The versions that a lock settles for one image on one platform, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins {
    /// Of this image: they are kept, or there is no lock.
    own: BTreeMap<String, Pin>,
    /// Of other images of the same suite that share the lock: kept if that works out.
    shared: BTreeMap<String, Pin>,
}

#[derive(Debug, Clone)]
struct Pin {
    key: PackageKey,
    package: LockedPackage,
    version: Version,
}

/// How the pins and the request came to terms.
#[derive(Debug)]
pub(super) enum PinError {
    Set(SetError),
    /// There are sets, but not with these pins.
    InTheWay(Box<Unsolvable>),
}

impl Pins {
    /// The pins of a lock that concern an image on a platform, whose suite has this codename. Pins
    /// of repositories that nothing is asked from any more say nothing.
    pub fn of(
        lock: &Lock,
        image: &ImageName,
        codename: &Suite,
        platform: Platform,
        repositories: &BTreeSet<&Name>,
    ) -> Self {
        let used = |pin: &Pin| {
            let repository = &pin.package.archive.repository;
            repository.as_str() == MAIN || repositories.contains(repository)
        };
        let mut pins = Self::default();
        for (name, locked) in &lock.images {
            if locked.suite.as_ref() != Some(codename) {
                continue;
            }
            for (at, content) in &locked.platforms {
                let own = name == image && *at == platform;
                let target = if own { &mut pins.own } else { &mut pins.shared };
                let pinned = content.everything().filter_map(|key| pin(lock, key)).filter(used);
                pinned.for_each(|pin| keep(target, pin));
            }
        }
        pins.shared.retain(|name, _| !pins.own.contains_key(name));
        pins
    }

    /// Lets go of the named packages, and of others from the same sources: those depend on each
    /// other in exact versions.
    fn release(&mut self, names: &BTreeSet<String>) -> bool {
        let before = self.own.len() + self.shared.len();
        for pins in [&mut self.own, &mut self.shared] {
            let named = pins.iter().filter(|(name, _)| names.contains(*name));
            let sources: BTreeSet<_> = named.map(|(_, pin)| pin.package.source.clone()).collect();
            pins.retain(|name, pin| {
                !names.contains(name) && !sources.contains(&pin.package.source)
            });
        }
        self.own.len() + self.shared.len() < before
    }

    /// Lets go of pins that contradict what is asked for by name: the request is newer.
    fn release_contradicted(&mut self, wish: &Wish) {
        let contradicted = wish.roots.iter().filter(|root| {
            [&self.own, &self.shared].iter().any(|pins| {
                pins.get(&root.name).is_some_and(|pin| {
                    let version = root.version.as_deref();
                    let repository = root.repository.as_deref();
                    !version.is_none_or(|pattern| pattern_matches(pattern, pin.version.as_str()))
                        || !answers_origin(repository, &pin.package)
                })
            })
        });
        let names = contradicted.map(|root| root.name.clone()).collect();
        self.release(&names);
    }

    /// Records of pinned packages that the universe lacks, so that they can be chosen although
    /// mirrors have dropped them. A lock knows no relations: those of the version that is offered
    /// now stand in for them, with its own version number put back to the pinned one.
    pub fn dropped(&self, universe: &Universe) -> Vec<(Reach, PackageRecord)> {
        let native = [universe.architecture(), "all"];
        let pins = self.own.values().chain(self.shared.values());
        let fitting = pins.filter(|pin| native.contains(&pin.key.architecture.as_str()));
        let missing = fitting.filter(|pin| !is_offered(universe, pin));
        missing.filter_map(|pin| Some((reach(pin), revive(universe, pin)?))).collect()
    }

    /// The pins that can be honoured, as the solver wants them. Pins of other platforms name
    /// versions that this one may lack.
    fn versions(&self, universe: &Universe, shared: bool) -> BTreeMap<String, Version> {
        let shared = self.shared.iter().filter(|(_, pin)| shared && is_offered(universe, pin));
        let own = self.own.iter();
        own.chain(shared).map(|(name, pin)| (name.clone(), pin.version.clone())).collect()
    }

    /// Chooses the sets of another role beside what is settled already: with the pins that the
    /// update keeps, and without them where that cannot be.
    pub fn choose_beside(
        &self,
        universe: &Universe,
        wish: &Wish,
        update: &Update,
        settled: &BTreeMap<String, Version>,
    ) -> Result<Sets, PinError> {
        let mut pins = self.clone();
        match update {
            Update::All => pins = Self::default(),
            Update::Missing => {}
            Update::Packages(names) => {
                pins.release(&names.iter().map(ToString::to_string).collect());
            }
        }
        let mut pinned = pins.versions(universe, true);
        pinned.extend(settled.clone());
        match choose(universe, wish, &pinned) {
            Err(SetError::Unsolvable(_)) => choose(universe, wish, settled),
            result => result,
        }
        .map_err(PinError::Set)
    }

    /// Chooses the sets under as many pins as the update keeps.
    pub fn choose(
        mut self,
        universe: &Universe,
        wish: &Wish,
        update: &Update,
    ) -> Result<Sets, PinError> {
        let free = BTreeMap::new();
        let named = match update {
            Update::All => return choose(universe, wish, &free).map_err(PinError::Set),
            Update::Missing => {
                self.release_contradicted(wish);
                false
            }
            Update::Packages(names) => {
                self.release_contradicted(wish);
                self.release(&names.iter().map(ToString::to_string).collect());
                true
            }
        };
        let mut unsolvable = match choose(universe, wish, &self.versions(universe, true)) {
            Err(SetError::Unsolvable(unsolvable)) => unsolvable,
            result => return result.map_err(PinError::Set),
        };
        if !self.shared.is_empty() {
            match choose(universe, wish, &self.versions(universe, false)) {
                Err(SetError::Unsolvable(fewer)) => unsolvable = fewer,
                result => return result.map_err(PinError::Set),
            }
        }
        // What was named may need newer versions of what was not.
        for _ in 0..if named { MOST_ROUNDS } else { 0 } {
            if !self.release(&involved(&unsolvable)) {
                break;
            }
            match choose(universe, wish, &self.versions(universe, false)) {
                Err(SetError::Unsolvable(fewer)) => unsolvable = fewer,
                result => return result.map_err(PinError::Set),
            }
        }
        // Would there be sets without pins? That decides what to tell.
        match choose(universe, wish, &free) {
            Ok(_) => Err(PinError::InTheWay(unsolvable)),
            Err(error) => Err(PinError::Set(error)),
        }
    }
}

fn pin(lock: &Lock, key: &PackageKey) -> Option<Pin> {
    let package = lock.packages.get(key)?.clone();
    let version = Version::new(key.version.as_str()).ok()?;
    Some(Pin { key: key.clone(), package, version })
}

/// Of two pins of a name the newer one counts.
fn keep(pins: &mut BTreeMap<String, Pin>, pin: Pin) {
    let name = pin.key.name.to_string();
    let newer = pins.get(&name).is_none_or(|kept| kept.version < pin.version);
    if newer {
        pins.insert(name, pin);
    }
}

/// Whether a version has the form that image.toml asks for; the epoch may be left out.
pub(super) fn pattern_matches(pattern: &str, version: &str) -> bool {
    let bare = version.split_once(':').map_or(version, |(_, bare)| bare);
    VersionPattern::new(pattern)
        .is_ok_and(|pattern| pattern.matches(version) || pattern.matches(bare))
}

/// Whether a package comes from the repository that a request wants it from.
fn answers_origin(wanted: Option<&str>, package: &LockedPackage) -> bool {
    wanted.unwrap_or(MAIN) == package.archive.repository.as_str()
}

fn is_offered(universe: &Universe, pin: &Pin) -> bool {
    let mut versions = universe.versions(pin.key.name.as_str());
    versions.any(|record| record.version.as_str() == pin.version.as_str())
}

fn reach(pin: &Pin) -> Reach {
    match pin.package.archive.repository.as_str() {
        MAIN => Reach::Default,
        _ => Reach::Named,
    }
}

/// A record for a pinned package, after the one of its name that is offered now; `None` when there
/// is none at all.
fn revive(universe: &Universe, pin: &Pin) -> Option<PackageRecord> {
    let Pin { key, package, version } = pin;
    let repository = record_name(&package.archive);
    let near = |record: &&PackageRecord| {
        record.architecture == key.architecture.as_str()
            && repository_of(&record.repository) == repository_of(&repository)
    };
    let model = universe.versions(key.name.as_str()).filter(near).max_by(|left, right| {
        let of_archive = |record: &PackageRecord| *record.repository == *repository;
        (of_archive(left), &left.version).cmp(&(of_archive(right), &right.version))
    })?;
    let field = |field: &RelationField| put_back(field, &model.version, version);
    let mut record = PackageRecord {
        repository: repository.into(),
        version: version.clone(),
        source: package.source.to_string(),
        source_version: version.clone(),
        filename: package.path.to_string(),
        size: package.size,
        sha256: package.sha256,
        pre_depends: field(&model.pre_depends),
        depends: field(&model.depends),
        recommends: field(&model.recommends),
        breaks: field(&model.breaks),
        conflicts: field(&model.conflicts),
        replaces: field(&model.replaces),
        ..model.clone()
    };
    for provided in &mut record.provides {
        if provided.version.as_ref().is_some_and(|it| it.as_str() == model.version.as_str()) {
            provided.version = Some(version.clone());
        }
    }
    Some(record)
}

/// The repository's name, without the suite that records of the main archive carry.
fn repository_of(record_name: &str) -> &str {
    record_name.split(' ').next().unwrap_or_default()
}

/// Replaces one version by another in a relation field, with and without the suffix of a binary
/// rebuild, since packages of one source ask for each other by either.
fn put_back(field: &RelationField, from: &Version, to: &Version) -> RelationField {
    let (from, to) = (from.as_str(), to.as_str());
    let mut text = field.as_str().replace(&format!(" {from})"), &format!(" {to})"));
    let (from_source, to_source) = (without_rebuild(from), without_rebuild(to));
    if from_source != from {
        text = text.replace(&format!(" {from_source})"), &format!(" {to_source})"));
    }
    RelationField::new(&text).unwrap_or_else(|_| field.clone())
}

/// A version without `+b1` and its like, which a rebuild of an unchanged source appends.
fn without_rebuild(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, count))
            if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            source
        }
        _ => version,
    }
}

/// The names of all packages that an explanation speaks of.
fn involved(unsolvable: &Unsolvable) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    unsolvable.failures.iter().for_each(|failure| add_involved(failure, &mut names));
    names
}

fn add_involved(failure: &Failure, names: &mut BTreeSet<String>) {
    let first_word = |text: &str| text.split([' ', ':']).next().unwrap_or_default().to_owned();
    names.insert(first_word(&failure.requirement));
    for rejection in &failure.rejections {
        names.insert(first_word(&rejection.candidate));
        match &rejection.problem {
            Problem::Needs(inner) => add_involved(inner, names),
            Problem::Conflict { relation, .. } => {
                names.insert(first_word(relation));
                names.extend(relation.split(' ').map(first_word));
            }
            Problem::NoProvider { providers } => names.extend(providers.iter().cloned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_put_back_into_relations() {
        let version = |text: &str| Version::new(text).unwrap();
        let field =
            RelationField::new("a (= 2-1+b1), b (= 2-1), c (>= 1), d (>= 2-1~), e").unwrap();
        let back = put_back(&field, &version("2-1+b1"), &version("1-9"));
        assert_eq!(back.as_str(), "a (= 1-9), b (= 1-9), c (>= 1), d (>= 2-1~), e");
        assert_eq!(without_rebuild("1+bzr3-1"), "1+bzr3-1");
        assert_eq!(without_rebuild("1-1+b12"), "1-1");
    }

    #[test]
    fn patterns_may_leave_the_epoch_out() {
        assert!(pattern_matches("7.*", "5:7.0.15-1"));
        assert!(pattern_matches("5:7.*", "5:7.0.15-1"));
        assert!(!pattern_matches("22.*", "5:7.0.15-1"));
    }
}
