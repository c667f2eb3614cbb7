//! The packages chosen so far: what they satisfy, what they forbid, and how to take them back.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::explain::Problem;
use super::{Reason, RelationKind, SolveRequest};
use crate::debian::index::PackageRecord;
use crate::debian::relation::{Alternative, Group};
use crate::debian::universe::{NameId, Polarity, RecordId, Universe, matches};

/// Indexes of choice points.
pub(super) type Levels = BTreeSet<usize>;

/// One group of a package's dependencies.
pub(super) struct Requirement {
    pub owner: RecordId,
    pub kind: RelationKind,
    pub group: Group,
}

/// `Conflicts` or `Breaks` of a package with one other.
pub(super) struct Negative {
    owner: RecordId,
    verb: &'static str,
    alternative: Alternative,
}

/// A package's relations, parsed.
pub(super) struct Parsed {
    pub requirements: Vec<Rc<Requirement>>,
    negatives: Vec<Rc<Negative>>,
}

/// A package that was chosen.
pub(super) struct Chosen {
    pub record: RecordId,
    /// The choice points without which it would perhaps not have been chosen.
    pub levels: Rc<Levels>,
    pub reason: Reason,
}

/// Why a record cannot be chosen now, and the choice points that this has to do with.
pub(super) struct Obstacle {
    pub problem: Problem,
    pub levels: Rc<Levels>,
}

/// The packages chosen so far.
pub(super) struct State<'u, 'r> {
    universe: &'u Universe,
    request: &'r SolveRequest<'r>,
    parsed: HashMap<RecordId, Rc<Parsed>>,
    chosen: HashMap<NameId, Chosen>,
    /// The names in `chosen`, in the order in which they were chosen.
    trail: Vec<NameId>,
    /// The chosen packages that provide a name.
    provided: HashMap<NameId, Vec<RecordId>>,
    /// What the chosen packages say against a name.
    negatives: HashMap<NameId, Vec<Rc<Negative>>>,
}

impl<'u, 'r> State<'u, 'r> {
    pub fn new(universe: &'u Universe, request: &'r SolveRequest<'r>) -> Self {
        Self {
            universe,
            request,
            parsed: HashMap::new(),
            chosen: HashMap::new(),
            trail: Vec::new(),
            provided: HashMap::new(),
            negatives: HashMap::new(),
        }
    }

    /// How many packages are chosen.
    pub fn len(&self) -> usize {
        self.trail.len()
    }

    /// The chosen packages, in the order in which they were chosen.
    pub fn iter(&self) -> impl Iterator<Item = &Chosen> {
        self.trail.iter().filter_map(|name| self.chosen.get(name))
    }

    /// The package that was chosen under a name.
    pub fn chosen(&self, name: NameId) -> Option<&Chosen> {
        self.chosen.get(&name)
    }

    /// The choice points that a chosen package has to do with.
    pub fn levels_of(&self, id: RecordId) -> Rc<Levels> {
        let chosen = self.chosen(self.universe.name_of(id));
        chosen.map(|chosen| Rc::clone(&chosen.levels)).unwrap_or_default()
    }

    /// The relations of a package, without the edges that the request ignores.
    pub fn parsed(&mut self, id: RecordId) -> Rc<Parsed> {
        if let Some(parsed) = self.parsed.get(&id) {
            return Rc::clone(parsed);
        }
        let parsed = Rc::new(self.parse(id));
        self.parsed.insert(id, Rc::clone(&parsed));
        parsed
    }

    fn parse(&self, id: RecordId) -> Parsed {
        let record = self.universe.record(id);
        let mut fields = vec![
            (RelationKind::PreDepends, &record.pre_depends),
            (RelationKind::Depends, &record.depends),
        ];
        if self.request.recommends {
            fields.push((RelationKind::Recommends, &record.recommends));
        }
        let ignored = |group: &Group| {
            let mut alternatives = group.alternatives.iter();
            alternatives.any(|alternative| (self.request.ignored)(&record.name, &alternative.name))
        };
        let mut requirements = Vec::new();
        for (kind, field) in fields {
            for group in field.relations().groups.into_iter().filter(|group| !ignored(group)) {
                requirements.push(Rc::new(Requirement { owner: id, kind, group }));
            }
        }
        let mut negatives = Vec::new();
        for (verb, field) in [("conflicts with", &record.conflicts), ("breaks", &record.breaks)] {
            let alternatives =
                field.relations().groups.into_iter().flat_map(|group| group.alternatives);
            negatives.extend(
                alternatives.map(|alternative| Rc::new(Negative { owner: id, verb, alternative })),
            );
        }
        Parsed { requirements, negatives }
    }

    /// Tells whether a chosen package satisfies one of a group's alternatives.
    pub fn satisfies(&self, group: &Group) -> bool {
        group.alternatives.iter().any(|alternative| {
            self.bearers(&alternative.name)
                .any(|id| matches(alternative, self.universe.record(id), Polarity::Positive))
        })
    }

    /// The chosen packages that have or provide a name.
    fn bearers(&self, name: &str) -> impl Iterator<Item = RecordId> {
        let name = self.universe.find(name);
        let real = name.and_then(|name| self.chosen(name)).map(|chosen| chosen.record);
        let provided = name.and_then(|name| self.provided.get(&name));
        real.into_iter().chain(provided.into_iter().flatten().copied())
    }

    /// The names that a package has and provides.
    fn names_of(&self, id: RecordId) -> Vec<NameId> {
        let record = self.universe.record(id);
        let provided = record.provides.iter().map(|provided| provided.name.as_str());
        let mut names: Vec<NameId> = std::iter::once(record.name.as_str())
            .chain(provided)
            .filter_map(|name| self.universe.find(name))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What keeps a package from being chosen now, if anything does.
    pub fn obstacle(&mut self, id: RecordId) -> Option<Obstacle> {
        if let Some(other) = self.chosen(self.universe.name_of(id)) {
            return (other.record != id).then(|| Obstacle {
                problem: Problem::OtherVersion {
                    version: self.universe.record(other.record).version.to_string(),
                    chain: self.chain(other.record),
                },
                levels: Rc::clone(&other.levels),
            });
        }
        let parsed = self.parsed(id);
        let ours = parsed.negatives.iter().find_map(|negative| {
            let mut bearers = self.bearers(&negative.alternative.name);
            let other = bearers.find(|other| self.forbids(negative, *other))?;
            Some((negative, other))
        });
        if let Some((negative, other)) = ours {
            return Some(self.conflict(negative, other));
        }
        let names = self.names_of(id);
        let theirs = names.iter().filter_map(|name| self.negatives.get(name)).flatten();
        let theirs = theirs.into_iter().find(|negative| self.forbids(negative, id))?;
        Some(self.conflict(theirs, theirs.owner))
    }

    fn forbids(&self, negative: &Negative, id: RecordId) -> bool {
        negative.owner != id
            && matches(&negative.alternative, self.universe.record(id), Polarity::Negative)
    }

    fn conflict(&self, negative: &Negative, other: RecordId) -> Obstacle {
        let owner = self.universe.record(negative.owner);
        let Negative { verb, alternative, .. } = negative;
        Obstacle {
            problem: Problem::Conflict {
                relation: format!("{} {} {verb} {alternative}", owner.name, owner.version),
                chain: self.chain(other),
            },
            levels: self.levels_of(other),
        }
    }

    /// Chooses a package that has no obstacle.
    pub fn choose(&mut self, id: RecordId, levels: Rc<Levels>, reason: Reason) {
        let name = self.universe.name_of(id);
        for provided in self.names_of(id).into_iter().filter(|provided| *provided != name) {
            self.provided.entry(provided).or_default().push(id);
        }
        for negative in &self.parsed(id).negatives {
            if let Some(against) = self.universe.find(&negative.alternative.name) {
                self.negatives.entry(against).or_default().push(Rc::clone(negative));
            }
        }
        self.chosen.insert(name, Chosen { record: id, levels, reason });
        self.trail.push(name);
    }

    /// Takes back all but the first `count` packages.
    pub fn undo(&mut self, count: usize) {
        for name in self.trail.split_off(count).into_iter().rev() {
            let Some(Chosen { record, .. }) = self.chosen.remove(&name) else { continue };
            for provided in self.names_of(record) {
                if let Some(providers) = self.provided.get_mut(&provided) {
                    providers.retain(|id| *id != record);
                }
            }
            for negative in &self.parsed(record).negatives {
                let against = self.universe.find(&negative.alternative.name);
                if let Some(list) = against.and_then(|name| self.negatives.get_mut(&name)) {
                    list.retain(|negative| negative.owner != record);
                }
            }
        }
    }

    /// Why a package was chosen, from what was asked for down to it, a line for each step.
    pub fn chain(&self, id: RecordId) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = self.chosen(self.universe.name_of(id));
        while let Some(chosen) = next {
            let record = self.universe.record(chosen.record);
            let PackageRecord { name, version, .. } = record;
            next = None;
            match &chosen.reason {
                Reason::Requested => lines.push(format!("{name} {version} is asked for")),
                Reason::Essential => lines.push(format!("{name} {version} is Essential")),
                Reason::Needed { by, kind, relation } => {
                    let by = self.universe.find(by).and_then(|by| self.chosen(by));
                    if let Some(by) = by {
                        let owner = self.universe.record(by.record);
                        let verb = kind.verb();
                        lines.push(format!("{} {} {verb} {relation}", owner.name, owner.version));
                    }
                    next = by;
                }
            }
        }
        lines.reverse();
        lines
    }
}
