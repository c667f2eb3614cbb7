//! Which record stands for a name, and which records can satisfy a group.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::explain::{Problem, Rejection};
use super::{PackageRequest, SolveRequest};
use crate::debian::index::PackageRecord;
use crate::debian::relation::{Alternative, Group};
use crate::debian::universe::{NameId, Polarity, Reach, RecordId, Universe, matches};
use crate::debian::version::Version;

/// Names that must come from a repository other than the default ones, because a package of that
/// repository needs them so.
pub(super) type Overrides = BTreeMap<NameId, String>;

/// Where the records of a look-up come from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// The candidates of the request.
    Candidates,
    /// The newest records of one repository.
    Repository(&'a str),
}

/// What can satisfy a group, in the order of preference, and why the rest cannot.
#[derive(Default)]
pub(super) struct Options {
    pub records: Vec<RecordId>,
    pub rejections: Vec<Rejection>,
}

/// The candidates of one request.
pub(super) struct Candidates<'u, 'r> {
    universe: &'u Universe,
    request: &'r SolveRequest<'r>,
    roots: HashMap<NameId, Vec<&'r PackageRequest>>,
    overrides: &'r Overrides,
    known: RefCell<HashMap<NameId, Result<RecordId, Problem>>>,
}

impl<'u, 'r> Candidates<'u, 'r> {
    pub fn new(
        universe: &'u Universe,
        request: &'r SolveRequest<'r>,
        overrides: &'r Overrides,
    ) -> Self {
        let mut roots: HashMap<NameId, Vec<&PackageRequest>> = HashMap::new();
        for root in &request.roots {
            if let Some(name) = universe.find(&root.name) {
                roots.entry(name).or_default().push(root);
            }
        }
        Self { universe, request, roots, overrides, known: RefCell::default() }
    }

    /// Tells whether the request settles where a package comes from.
    pub fn is_settled(&self, name: NameId) -> bool {
        self.request.pinned.contains_key(self.universe.name(name))
            || self.overrides.contains_key(&name)
            || self.roots.contains_key(&name)
    }

    /// The one record that may stand for a name, or why there is none.
    pub fn candidate(&self, name: NameId) -> Result<RecordId, Problem> {
        if let Some(known) = self.known.borrow().get(&name) {
            return known.clone();
        }
        let found = self.find_candidate(name);
        self.known.borrow_mut().insert(name, found.clone());
        found
    }

    fn find_candidate(&self, name: NameId) -> Result<RecordId, Problem> {
        let universe = self.universe;
        let text = universe.name(name);
        if self.request.exclude.contains(text) {
            return Err(Problem::Excluded);
        }
        if universe.records_of(name).is_empty() {
            return Err(Problem::Unknown { near: Vec::new() });
        }
        let roots = self.roots.get(&name).map_or(&[][..], Vec::as_slice);
        let pin = self.request.pinned.get(text);
        let over = self.overrides.get(&name);
        let wanted = roots.iter().find_map(|root| root.repository.as_ref()).or(over);
        let in_reach = |id: RecordId| match wanted {
            Some(repository) => *universe.record(id).repository == **repository,
            // A lock says where a package came from; its version alone identifies it here.
            None => pin.is_some() || universe.reach(id) == Reach::Default,
        };
        let suits = |id: RecordId| {
            let record = universe.record(id);
            in_reach(id)
                && pin.is_none_or(|pin| pin.as_str() == record.version.as_str())
                && roots.iter().all(|root| root_allows(root, record))
        };
        universe.newest_of(name, suits).ok_or_else(|| {
            let mut offers: Vec<String> = universe
                .records_of(name)
                .iter()
                .map(|id| universe.record(*id))
                .map(|record| format!("{} (from {})", record.version, record.repository))
                .collect();
            offers.dedup();
            Problem::NoCandidate { wanted: wish(roots, pin, wanted), offers }
        })
    }

    /// The record that is asked for by the name of a root: the package itself, or the only one
    /// that provides the name.
    pub fn root(&self, root: &PackageRequest) -> Result<RecordId, Rejection> {
        let reject = |problem| Rejection { candidate: root.name.clone(), problem };
        let unknown = || reject(Problem::Unknown { near: Vec::new() });
        let name = self.universe.find(&root.name).ok_or_else(unknown)?;
        let problem = match self.candidate(name) {
            Ok(id) => return Ok(id),
            Err(problem) => problem,
        };
        if !matches!(problem, Problem::Unknown { .. }) || root.version.is_some() {
            return Err(reject(problem));
        }
        let mut providers: Vec<RecordId> = self.universe.providers_of(name).to_vec();
        providers.retain(|id| self.candidate(self.universe.name_of(*id)).as_ref() == Ok(id));
        match providers.as_slice() {
            [] => Err(reject(problem)),
            [one] => Ok(*one),
            many => {
                let name = |id: &RecordId| self.universe.record(*id).name.clone();
                let mut providers: Vec<String> = many.iter().map(name).collect();
                providers.sort_unstable();
                Err(reject(Problem::Virtual { providers }))
            }
        }
    }

    /// What can satisfy a group of a package that comes from `owner_repository`.
    pub fn options(&self, group: &Group, owner: &PackageRecord, reach: Reach) -> Options {
        let options = self.options_from(group, Origin::Candidates);
        if !options.records.is_empty() || reach == Reach::Default {
            return options;
        }
        let named = self.options_from(group, Origin::Repository(&owner.repository));
        if named.records.is_empty() { options } else { named }
    }

    fn options_from(&self, group: &Group, origin: Origin<'_>) -> Options {
        let mut options = Options::default();
        for alternative in &group.alternatives {
            let Some(name) = self.universe.find(&alternative.name) else {
                let problem = Problem::Unknown { near: Vec::new() };
                options.rejections.push(Rejection { candidate: alternative.to_string(), problem });
                continue;
            };
            let before = options.records.len();
            let rejection = self.named(alternative, name, origin, &mut options);
            self.provided(alternative, name, origin, &mut options);
            if options.records.len() == before {
                options.rejections.extend(rejection);
            }
        }
        let mut seen = HashSet::new();
        options.records.retain(|id| seen.insert(*id));
        options
    }

    fn stands_for(&self, name: NameId, origin: Origin<'_>) -> Result<RecordId, Problem> {
        let Origin::Repository(repository) = origin else { return self.candidate(name) };
        if self.is_settled(name) {
            return self.candidate(name);
        }
        if self.request.exclude.contains(self.universe.name(name)) {
            return Err(Problem::Excluded);
        }
        let newest =
            self.universe.newest_of(name, |id| *self.universe.record(id).repository == *repository);
        newest.ok_or(Problem::Unknown { near: Vec::new() })
    }

    /// Adds the package that an alternative names, or says why it will not do.
    fn named(
        &self,
        alternative: &Alternative,
        name: NameId,
        origin: Origin<'_>,
        options: &mut Options,
    ) -> Option<Rejection> {
        let problem = match self.stands_for(name, origin) {
            Ok(id) if matches(alternative, self.universe.record(id), Polarity::Positive) => {
                options.records.push(id);
                return None;
            }
            Ok(id) => {
                let record = self.universe.record(id);
                Problem::Unsuitable {
                    version: record.version.to_string(),
                    repository: record.repository.to_string(),
                }
            }
            Err(problem) => problem,
        };
        // A name that only others provide is not unknown; they may be unsuitable, though.
        let providers = self.universe.providers_of(name);
        let problem = if matches!(problem, Problem::Unknown { .. }) && !providers.is_empty() {
            let mut names: Vec<String> =
                providers.iter().map(|id| self.universe.record(*id).name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            Problem::NoProvider { providers: names }
        } else {
            problem
        };
        Some(Rejection { candidate: alternative.to_string(), problem })
    }

    /// Adds the packages that provide what an alternative names.
    fn provided(
        &self,
        alternative: &Alternative,
        name: NameId,
        origin: Origin<'_>,
        options: &mut Options,
    ) {
        let universe = self.universe;
        let mut providers: Vec<RecordId> = universe.providers_of(name).to_vec();
        providers.retain(|id| {
            self.stands_for(universe.name_of(*id), origin).as_ref() == Ok(id)
                && matches(alternative, universe.record(*id), Polarity::Positive)
        });
        providers.sort_by_key(|id| {
            let record = universe.record(*id);
            (!record.essential, record.priority, Reverse(universe.name_of(*id)))
        });
        options.records.extend(providers);
    }
}

fn root_allows(root: &PackageRequest, record: &PackageRecord) -> bool {
    root.version.as_deref().is_none_or(|pattern| {
        wildcard_matches(pattern, record.version.as_str())
            || wildcard_matches(pattern, record.version.without_epoch())
    })
}

/// Says in words which records of a name would have been welcome.
fn wish(roots: &[&PackageRequest], pin: Option<&Version>, repository: Option<&String>) -> String {
    let mut words: Vec<String> = roots
        .iter()
        .filter_map(|root| root.version.as_ref())
        .map(|v| format!("version {v}"))
        .collect();
    words.extend(pin.map(|pin| format!("version {pin}, which the lock pins")));
    words.push(match (repository, pin) {
        (Some(repository), _) => format!("from {repository}"),
        (None, None) => "from a default repository".to_owned(),
        (None, Some(_)) => "from any repository".to_owned(),
    });
    words.join(", ")
}

/// Matches a text with a pattern in which `*` stands for any text and `?` for one character.
fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at_pattern, mut at_text) = (0, 0);
    // Where to go on after the last star, should what follows it not match here.
    let mut retry: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                at_pattern += 1;
                retry = Some((at_pattern, at_text));
                continue;
            }
            Some(byte) if *byte == b'?' || *byte == text[at_text] => {
                at_pattern += 1;
                at_text += 1;
                continue;
            }
            _ => {}
        }
        let Some((after_star, from)) = retry else { return false };
        retry = Some((after_star, from + 1));
        (at_pattern, at_text) = (after_star, from + 1);
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::wildcard_matches;

    #[test]
    fn wildcards_match_whole_texts() {
        for (pattern, text) in [
            ("22.*", "22.1-1"),
            ("*", ""),
            ("1.?.*-1", "1.2.3-1"),
            ("*a*b", "xaaxb"),
            ("1.0", "1.0"),
        ] {
            assert!(wildcard_matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("22.*", "122.1"), ("1.0", "1.0-1"), ("?", ""), ("*a*b", "xab1")] {
            assert!(!wildcard_matches(pattern, text), "{pattern} {text}");
        }
    }
}
