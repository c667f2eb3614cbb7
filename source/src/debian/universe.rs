//! A universe: every package of one architecture that some repositories offer.

use std::collections::HashMap;
use std::fmt;

use super::index::{MultiArch, PackageRecord};
use super::relation::{Alternative, RelationField};

/// Which packages a repository is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The distribution's own: all packages may come from it.
    Default,
    /// A third party's: only packages that ask for it by name, and what they depend on if no
    /// default repository has it.
    Named,
}

/// A package name, numbered by when the indexes first mention it.
///
/// apt numbers packages in the same way, and its last resort between equal providers is the one
/// that was mentioned last; so the numbers are part of solving as apt does, and not only a
/// shorthand. They depend on the content and the order of the indexes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NameId(u32);

/// A record of a universe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RecordId(u32);

/// What the universe knows of one name.
#[derive(Default)]
struct Name {
    text: Box<str>,
    /// The packages of that name, in the order of the indexes.
    records: Vec<RecordId>,
    /// The packages that provide that name.
    providers: Vec<RecordId>,
}

/// Every package of one architecture, and of `all`, that some repositories offer.
pub struct Universe {
    architecture: String,
    numbers: HashMap<Box<str>, NameId>,
    names: Vec<Name>,
    records: Vec<PackageRecord>,
    record_names: Vec<NameId>,
    reaches: Vec<Reach>,
}

impl Universe {
    /// A universe without packages, for one architecture, as `amd64`.
    pub fn new(architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            numbers: HashMap::new(),
            names: Vec::new(),
            records: Vec::new(),
            record_names: Vec::new(),
            reaches: Vec::new(),
        }
    }

    /// Adds the records of one index. Records of other architectures are left out.
    ///
    /// The order of the indexes matters as it does for apt: of two equal versions the one added
    /// first is taken, and of equal providers the one mentioned last. A stable order is that of
    /// apt's sources: the release, its updates, its security updates, then third parties.
    pub fn add(&mut self, reach: Reach, records: Vec<PackageRecord>) {
        self.names.reserve(records.len());
        self.numbers.reserve(records.len());
        for record in records {
            if record.architecture == "all" || record.architecture == self.architecture {
                self.add_record(reach, record);
            }
        }
    }

    fn add_record(&mut self, reach: Reach, record: PackageRecord) {
        let name = self.number(&record.name);
        let id = RecordId(u32::try_from(self.records.len()).expect("fewer than 2^32 packages"));
        // apt's order of the fields: it decides the numbers.
        for field in [
            &record.pre_depends,
            &record.depends,
            &record.conflicts,
            &record.breaks,
            &record.recommends,
            &record.suggests,
            &record.replaces,
            &record.enhances,
        ] {
            self.number_all(field);
        }
        for provided in &record.provides {
            let provided = self.number(&provided.name);
            let providers = &mut self.names[provided.0 as usize].providers;
            if providers.last() != Some(&id) {
                providers.push(id);
            }
        }
        self.names[name.0 as usize].records.push(id);
        self.record_names.push(name);
        self.reaches.push(reach);
        self.records.push(record);
    }

    fn number_all(&mut self, field: &RelationField) {
        for name in field.names() {
            self.number(name);
        }
    }

    fn number(&mut self, name: &str) -> NameId {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = NameId(u32::try_from(self.names.len()).expect("fewer than 2^32 names"));
        self.numbers.insert(name.into(), number);
        self.names.push(Name { text: name.into(), ..Name::default() });
        number
    }

    /// The architecture of the universe.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// All packages, in the order of the indexes.
    pub fn packages(&self) -> &[PackageRecord] {
        &self.records
    }

    /// All packages of a name, in the order of the indexes.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = &PackageRecord> {
        let ids = self.find(name).map_or(&[][..], |name| self.records_of(name));
        ids.iter().map(|id| self.record(*id))
    }

    /// The newest package of a name in the default repositories: what apt calls the candidate.
    pub fn newest(&self, name: &str) -> Option<&PackageRecord> {
        let id = self.newest_of(self.find(name)?, |id| self.reach(id) == Reach::Default)?;
        Some(self.record(id))
    }

    /// The names of the packages that are Essential in the default repositories, sorted. They are
    /// no closure: solve for it.
    pub fn essential(&self) -> Vec<&str> {
        let essential = self.records.iter().filter(|record| record.essential);
        let mut names: Vec<&str> = essential
            .map(|record| record.name.as_str())
            .filter(|name| self.newest(name).is_some_and(|newest| newest.essential))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn find(&self, name: &str) -> Option<NameId> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, id: NameId) -> &str {
        &self.names[id.0 as usize].text
    }

    pub(super) fn name_of(&self, id: RecordId) -> NameId {
        self.record_names[id.0 as usize]
    }

    pub(super) fn record(&self, id: RecordId) -> &PackageRecord {
        &self.records[id.0 as usize]
    }

    pub(super) fn reach(&self, id: RecordId) -> Reach {
        self.reaches[id.0 as usize]
    }

    pub(super) fn records_of(&self, name: NameId) -> &[RecordId] {
        &self.names[name.0 as usize].records
    }

    pub(super) fn providers_of(&self, name: NameId) -> &[RecordId] {
        &self.names[name.0 as usize].providers
    }

    /// The newest record of a name that passes a test; of equal versions the one added first.
    pub(super) fn newest_of(
        &self,
        name: NameId,
        allowed: impl Fn(RecordId) -> bool,
    ) -> Option<RecordId> {
        let mut best: Option<RecordId> = None;
        for &id in self.records_of(name).iter().filter(|id| allowed(**id)) {
            if best.is_none_or(|best| self.record(best).version < self.record(id).version) {
                best = Some(id);
            }
        }
        best
    }

    /// Names of packages that are spelled almost as `name`, the nearest first, five at most.
    pub fn near_names(&self, name: &str) -> Vec<&str> {
        let known = self.names.iter().filter(|known| {
            !(known.records.is_empty() && known.providers.is_empty())
                && known.text.len().abs_diff(name.len()) <= 4
        });
        let mut near: Vec<(usize, &str)> = known
            .map(|known| (strsim::osa_distance(name, &known.text), &*known.text))
            .filter(|(distance, _)| *distance <= 1 + name.len() / 5)
            .collect();
        near.sort_unstable();
        near.into_iter().take(5).map(|(_, name)| name).collect()
    }
}

impl fmt::Debug for Universe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Universe({}, {} packages)", self.architecture, self.records.len())
    }
}

/// What a relation is used for, which decides what `:any` means in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polarity {
    /// `Depends` and its kin: `:any` asks for a package that allows it.
    Positive,
    /// `Conflicts` and `Breaks`: `:any` means all architectures.
    Negative,
}

/// Tells whether a package, by its own name or one that it provides, is what an alternative names.
///
/// A versioned relation is satisfied by a versioned `Provides` only (Debian policy 7.5). A package
/// of architecture `all` counts as native.
pub fn matches(alternative: &Alternative, record: &PackageRecord, polarity: Polarity) -> bool {
    let architecture = match alternative.qualifier.as_deref() {
        None | Some("native") => true,
        Some("any") => polarity == Polarity::Negative || record.multi_arch == MultiArch::Allowed,
        Some(wanted) => record.architecture == wanted || record.architecture == "all",
    };
    if !architecture {
        return false;
    }
    let constraint = alternative.constraint.as_ref();
    let allows = |version| constraint.is_none_or(|constraint| constraint.allows(version));
    if record.name == alternative.name && allows(&record.version) {
        return true;
    }
    record.provides.iter().any(|provided| {
        provided.name == alternative.name
            && match &provided.version {
                Some(version) => allows(version),
                None => constraint.is_none(),
            }
    })
}
