//! Finding out what makes files differ, with few runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use drystone_store::store::Store;

use super::compare::{Outputs, Place, compare, contents, entries};
use super::evidence::examine;
use super::{Difference, Kind, Rebuild, Rebuilt, Report, Variation};
use crate::build::BuildError;

/// Why a file is likely to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It differs when this is varied, and nothing else is.
    Varied(Kind),
    /// It differs each time unless random numbers are the same.
    Random,
    /// It differs each time; random numbers do not explain it.
    Timing,
    /// It differs only when several things are varied at once.
    Combination,
}

impl Cause {
    /// Whether the sandbox fixes it for every build.
    pub const fn is_fixed(&self) -> bool {
        matches!(self, Self::Varied(kind) if kind.is_fixed())
    }

    /// A word for scripts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Varied(kind) => kind.name(),
            Self::Random => "random",
            Self::Timing => "timing",
            Self::Combination => "combination",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Varied(Kind::Clock) => "the clock, or times of files",
            Self::Varied(Kind::DirectoryOrder) => "the order in which directories are listed",
            Self::Varied(Kind::Inodes) => "numbers of the file system (inodes, blocks)",
            Self::Varied(Kind::Processors) => "the number or model of processors",
            Self::Varied(Kind::Kernel) => "the kernel (release, boot, memory)",
            Self::Varied(Kind::Addresses) => "addresses in memory",
            Self::Varied(Kind::Processes) => "process numbers",
            Self::Varied(Kind::User) => "the user",
            Self::Varied(Kind::BuildFolder) => "the build folder",
            Self::Varied(Kind::Locale) => "the locale",
            Self::Varied(Kind::TimeZone) => "the time zone",
            Self::Varied(Kind::Umask) => "the umask",
            Self::Varied(Kind::HostName) => "the host name",
            Self::Varied(Kind::Environment) => "the order of variables",
            Self::Random => "random numbers (random names and the order of hash tables included)",
            Self::Timing => "timing: threads, processes that race, or a fine clock",
            Self::Combination => "several of the things varied, together",
        })
    }
}

/// The search about one step.
pub(super) struct Search<'a> {
    store: &'a Store,
    step: &'a dyn Rebuild,
    tell: &'a dyn Fn(&str),
    runs: usize,
}

/// What running again in some surroundings showed.
enum Seen {
    Differs(BTreeSet<Place>),
    Fails,
}

impl<'a> Search<'a> {
    pub(super) fn new(store: &'a Store, step: &'a dyn Rebuild, tell: &'a dyn Fn(&str)) -> Self {
        Self { store, step, tell, runs: 0 }
    }

    /// Checks the step with all `kinds` varied, and finds causes if that shows something.
    pub(super) fn run(mut self, kinds: &[Kind]) -> Result<Report, BuildError> {
        let stored = self.step.stored();
        let mut report = Report {
            name: self.step.name(),
            derivation: self.step.derivation(),
            entries: 0,
            runs: 0,
            differences: Vec::new(),
            failure: None,
            trees: Vec::new(),
        };
        for (_, output) in &stored {
            report.entries += entries(self.store, output)?.len();
        }
        match self.rebuild(&Variation::of(kinds.iter().copied()))? {
            Rebuilt::Failed(tail) => {
                (self.tell)("it fails; find out why");
                let causes = self.failing(kinds)?;
                report.failure = Some((causes, tail));
            }
            Rebuilt::Outputs(rebuilt) => {
                let places = compare(self.store, &stored, &rebuilt)?;
                if !places.is_empty() {
                    (self.tell)("it differs; find out why");
                    report.differences = self.explain(kinds, &stored, &rebuilt, &places)?;
                    let pairs = stored.into_iter().zip(rebuilt);
                    report.trees = pairs
                        .filter(|((_, one), (_, two))| one.path.hash() != two.path.hash())
                        .map(|((name, one), (_, two))| (name, one, two))
                        .collect();
                }
            }
        }
        report.runs = self.runs;
        Ok(report)
    }

    fn rebuild(&mut self, variation: &Variation) -> Result<Rebuilt, BuildError> {
        self.runs += 1;
        self.step.rebuild(variation)
    }

    fn look(&mut self, kinds: &[Kind]) -> Result<Seen, BuildError> {
        let variation = match kinds {
            [] => Variation::none(),
            kinds => Variation::of(kinds.iter().copied()),
        };
        Ok(match self.rebuild(&variation)? {
            Rebuilt::Outputs(rebuilt) => {
                Seen::Differs(compare(self.store, &self.step.stored(), &rebuilt)?)
            }
            Rebuilt::Failed(_) => Seen::Fails,
        })
    }

    /// The single kinds that make the step fail.
    fn failing(&mut self, kinds: &[Kind]) -> Result<Vec<Cause>, BuildError> {
        if matches!(self.look(&[])?, Seen::Fails) {
            return Ok(vec![Cause::Timing]);
        }
        let mut causes = Vec::new();
        self.halve(kinds, &mut |kind, seen| {
            if matches!(seen, Seen::Fails) {
                causes.extend(kind.map(Cause::Varied));
                return true;
            }
            false
        })?;
        if causes.is_empty() {
            causes.push(Cause::Combination);
        }
        Ok(causes)
    }

    /// Looks at groups of kinds and, where `interests` says so, at their halves. A group of one is
    /// given by its name.
    fn halve(
        &mut self,
        kinds: &[Kind],
        interests: &mut dyn FnMut(Option<Kind>, &Seen) -> bool,
    ) -> Result<(), BuildError> {
        if kinds.is_empty() {
            return Ok(());
        }
        let seen = self.look(kinds)?;
        let single = <[Kind; 1]>::try_from(kinds).ok().map(|[kind]| kind);
        if interests(single, &seen) && single.is_none() {
            let (first, second) = kinds.split_at(kinds.len() / 2);
            self.halve(first, interests)?;
            self.halve(second, interests)?;
        }
        Ok(())
    }

    fn explain(
        &mut self,
        kinds: &[Kind],
        stored: &Outputs,
        rebuilt: &Outputs,
        places: &BTreeSet<Place>,
    ) -> Result<Vec<Difference>, BuildError> {
        let mut found = self.examine(stored, rebuilt, places)?;
        let by_itself = match self.look(&[])? {
            Seen::Differs(places) => places,
            Seen::Fails => BTreeSet::new(),
        };
        // A random name is another one each time, so no single path comes back.
        let has_random_names = by_itself.iter().any(|place| !places.contains(place));
        let is_one_sided =
            |place: &Place| found[place].2.iter().any(|line| line.starts_with("only in"));
        let is_unstable = |place: &&Place| {
            by_itself.contains(*place) || (has_random_names && is_one_sided(place))
        };
        let unstable: BTreeSet<Place> = places.iter().filter(is_unstable).cloned().collect();
        let varied: BTreeSet<Place> = places.difference(&unstable).cloned().collect();
        let mut causes = self.vary(kinds, &varied, &found)?;
        if !unstable.is_empty() {
            let steady = self.steady_with_held_random(&unstable, &found)?;
            for place in &unstable {
                let is_clock = found[place].0.contains(&Kind::Clock);
                let cause = match (is_clock, steady.contains(place)) {
                    (true, _) => Cause::Varied(Kind::Clock),
                    (false, true) => Cause::Random,
                    (false, false) => Cause::Timing,
                };
                causes.entry(place.clone()).or_default().push(cause);
            }
        }
        let differences = places.iter().map(|place| {
            let (_, evidence, summary) = found.remove(place).unwrap_or_default();
            let mut causes = causes.remove(place).unwrap_or_default();
            if causes.is_empty() {
                causes.push(Cause::Combination);
            }
            let (output, path) = place.clone();
            Difference { output, path, causes, evidence, summary }
        });
        Ok(differences.collect())
    }

    /// The kinds that alone make files differ; those that the bytes speak for are tried first.
    fn vary(
        &mut self,
        kinds: &[Kind],
        places: &BTreeSet<Place>,
        found: &BTreeMap<Place, Examined>,
    ) -> Result<BTreeMap<Place, Vec<Cause>>, BuildError> {
        let mut causes: BTreeMap<Place, Vec<Cause>> = BTreeMap::new();
        let mut open = places.clone();
        let mut rest = kinds.to_vec();
        let suspects: BTreeSet<Kind> = places
            .iter()
            .flat_map(|place| found[place].0.iter().copied())
            .filter(|kind| kinds.contains(kind))
            .collect();
        for kind in suspects {
            let Seen::Differs(differing) = self.look(&[kind])? else { continue };
            rest.retain(|other| *other != kind);
            for place in differing.intersection(places) {
                open.remove(place);
                causes.entry(place.clone()).or_default().push(Cause::Varied(kind));
            }
        }
        if !open.is_empty() {
            self.halve(&rest, &mut |single, seen| {
                let Seen::Differs(differing) = seen else { return true };
                let mut interests = false;
                for place in differing.intersection(&open) {
                    interests = true;
                    if let Some(kind) = single {
                        causes.entry(place.clone()).or_default().push(Cause::Varied(kind));
                    }
                }
                interests
            })?;
        }
        Ok(causes)
    }

    /// Which files are the same in two runs that are given the same random numbers.
    fn steady_with_held_random(
        &mut self,
        places: &BTreeSet<Place>,
        found: &BTreeMap<Place, Examined>,
    ) -> Result<BTreeSet<Place>, BuildError> {
        let is_clock = |place: &Place| found[place].0.contains(&Kind::Clock);
        if places.iter().all(is_clock) {
            return Ok(BTreeSet::new());
        }
        let mut runs = Vec::new();
        for _ in 0..2 {
            match self.rebuild(&Variation::with_held_random())? {
                Rebuilt::Outputs(outputs) => runs.push(outputs),
                Rebuilt::Failed(_) => return Ok(BTreeSet::new()),
            }
        }
        let differing = compare(self.store, &runs[0], &runs[1])?;
        Ok(places.difference(&differing).cloned().collect())
    }

    /// What the bytes of each file say.
    fn examine(
        &self,
        stored: &Outputs,
        rebuilt: &Outputs,
        places: &BTreeSet<Place>,
    ) -> Result<BTreeMap<Place, Examined>, BuildError> {
        let mut found = BTreeMap::new();
        for ((name, one), (_, two)) in stored.iter().zip(rebuilt) {
            let wanted: BTreeSet<&str> = places
                .iter()
                .filter(|(output, _)| output == name)
                .map(|(_, path)| path.as_str())
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let entries = (entries(self.store, one)?, entries(self.store, two)?);
            let bytes = (contents(self.store, one, &wanted)?, contents(self.store, two, &wanted)?);
            for path in wanted {
                let sides = (entries.0.get(path), entries.1.get(path));
                let bytes = (bytes.0.get(path), bytes.1.get(path));
                found.insert((name.clone(), path.to_owned()), examine(sides, bytes));
            }
        }
        Ok(found)
    }
}

/// Hints, evidence and summary of a file.
pub(super) type Examined = (BTreeSet<Kind>, Vec<String>, Vec<String>);
