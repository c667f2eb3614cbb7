//! The order in which dpkg configures what is pending, and processes triggers
//! (`dpkg --configure --pending`).
//!
//! Scripts take the lowest free number for a new account, append to shared files, and win ties
//! between alternatives by being first, so the order shows in the result. dpkg walks its hash table
//! of names and keeps a queue: who still waits for a dependency goes to the end again; when a whole
//! turn brings nothing, cycles of dependencies are broken, at packages without a `postinst` first.
//! When that brings nothing either, triggers are processed that somebody waits for, and those that
//! were pending at the beginning; all others once everything is configured.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Package;
use super::triggers::Triggers;
use drystone_source::debian::control;
use drystone_source::debian::relation::{Alternative, RelationField};
use drystone_source::debian::version::Version;

/// The size of dpkg's hash table.
const BINS: u32 = 65_521;
/// The fields of a status paragraph whose names enter the table when it is read.
const RELATIONS: [&str; 9] = [
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
];
/// How often the queue may be gone round without progress before it is given up; dpkg's limit.
const LAST_TRY: usize = 7;
/// From this try on cycles are broken.
const BREAKS_CYCLES: usize = 2;
/// From this try on triggers are processed.
const PROCESSES_TRIGGERS: usize = 3;

/// dpkg's walk through its table: by bin, and in a bin by who was mentioned first.
fn in_bins(everyone: &[&Package], mut numbers: Vec<usize>, status: &str) -> VecDeque<usize> {
    let bin = |number: usize| bin_of(&everyone[number].name);
    let bins: HashSet<u32> = numbers.iter().map(|&number| bin(number)).collect();
    let mentions = match bins.len() == numbers.len() {
        true => HashMap::new(),
        false => mentions(status),
    };
    numbers.sort_by_key(|&number| (bin(number), mentions.get(&everyone[number].name).copied()));
    numbers.into()
}

fn bin_of(name: &str) -> u32 {
    // FNV-1a
    let hash = name.bytes().fold(2_166_136_261_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(16_777_619)
    });
    hash % BINS
}

/// When each name enters the table: relations are read before the package that has them is.
fn mentions(status: &str) -> HashMap<String, usize> {
    let mut mentions = HashMap::new();
    let mut mention = |name: &str| {
        let next = mentions.len();
        mentions.entry(name.to_owned()).or_insert(next);
    };
    for paragraph in control::paragraphs(status).flatten() {
        for field in RELATIONS.iter().filter_map(|field| paragraph.value(field)) {
            if let Ok(relations) = RelationField::new(field) {
                relations.names().for_each(&mut mention);
            }
        }
        paragraph.value("Package").into_iter().for_each(&mut mention);
    }
    mentions
}

/// One alternative of a dependency: who may satisfy it, the package of that name first.
struct Possibility {
    targets: Vec<usize>,
    is_broken: bool,
}

/// What dpkg does next; the numbers are packages'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Run a package's `postinst configure`.
    Configure(usize),
    /// Run a package's `postinst triggered`.
    Trigger(usize),
}

/// dpkg's queue.
pub struct Queue<'a> {
    everyone: &'a [&'a Package],
    /// dpkg's names.
    names: Vec<String>,
    /// Package -> groups -> alternatives.
    needs: Vec<Vec<Vec<Possibility>>>,
    waiting: VecDeque<usize>,
    attempt: usize,
    since_progress: usize,
    /// Whose triggers somebody waits for, and for nothing else.
    helper: Option<usize>,
}

impl<'a> Queue<'a> {
    /// The queue in which the packages `unpacked` (numbers of `everyone`) stand, and those with
    /// pending triggers. `status` is dpkg's status file.
    pub fn new(
        everyone: &'a [&'a Package],
        unpacked: &[usize],
        status: &str,
        triggers: &Triggers,
    ) -> Self {
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, package) in everyone.iter().enumerate() {
            by_name.insert(&package.name, number);
            for name in package.provides.names() {
                providers.entry(name).or_default().push(number);
            }
        }
        let possibility = |alternative: &Alternative| {
            let named = by_name.get(alternative.name.as_str()).copied();
            let provided = providers.get(alternative.name.as_str()).into_iter().flatten().copied();
            let named = named.filter(|&number| suits(alternative, everyone[number]));
            Possibility { targets: named.into_iter().chain(provided).collect(), is_broken: false }
        };
        let needs = |package: &&Package| {
            // As dpkg writes the fields into its status file, from where it reads them.
            let fields = [&package.depends, &package.pre_depends];
            let groups = fields.into_iter().flat_map(|field| field.relations().groups);
            groups.map(|group| group.alternatives.iter().map(possibility).collect()).collect()
        };
        let needs = everyone.iter().map(needs).collect();
        let names: Vec<String> = everyone.iter().map(|package| package.info_name()).collect();
        let is_triggered = |number: &usize| !triggers.pending(&names[*number]).is_empty();
        let triggered = (0..everyone.len()).filter(is_triggered);
        let waiting =
            in_bins(everyone, unpacked.iter().copied().chain(triggered).collect(), status);
        Self { everyone, names, needs, waiting, attempt: 1, since_progress: 0, helper: None }
    }

    /// What comes next; whoever asks does it, and tells `triggers`.
    pub fn next(&mut self, triggers: &Triggers) -> Option<Step> {
        while let Some(mut number) = self.waiting.pop_front() {
            let length = self.waiting.len();
            let is_pending =
                |queue: &Self, it: usize| !triggers.pending(&queue.names[it]).is_empty();
            self.since_progress += 1;
            if self.since_progress > length * 2 + 2 {
                let helper = self.helper.filter(|&helper| {
                    self.attempt >= PROCESSES_TRIGGERS
                        && self.since_progress <= length * 3 + 3
                        && is_pending(self, helper)
                });
                if let Some(helper) = helper {
                    self.enqueue(number);
                    self.helper = None;
                    number = helper;
                } else {
                    self.attempt += 1;
                    self.since_progress = 0;
                }
            }
            let is_trigger = is_pending(self, number);
            if is_trigger && self.attempt < PROCESSES_TRIGGERS {
                self.enqueue(number);
                continue;
            }
            if !is_trigger && triggers.is_configured(&self.names[number]) {
                // Its triggers were processed meanwhile.
                continue;
            }
            if self.attempt >= BREAKS_CYCLES && self.break_cycle(number) {
                self.since_progress = 0;
            }
            // dpkg would fail at the last; what cannot be satisfied was never asked for here.
            if self.is_ready(number, triggers) || self.attempt >= LAST_TRY {
                self.since_progress = 0;
                return Some(match is_trigger {
                    true => Step::Trigger(number),
                    false => Step::Configure(number),
                });
            }
            self.enqueue(number);
        }
        let name = triggers.longest_pending()?;
        self.names.iter().position(|other| other == name).map(Step::Trigger)
    }

    fn enqueue(&mut self, number: usize) {
        if !self.waiting.contains(&number) {
            self.waiting.push_back(number);
        }
    }

    /// Whether every dependency is satisfied, or never will be, as when it was excluded. If
    /// nothing but triggers is in the way, notes whose.
    fn is_ready(&mut self, number: usize, triggers: &Triggers) -> bool {
        let (mut is_ready, mut helps, mut helper) = (true, true, None);
        for group in &self.needs[number] {
            let satisfied = |possibility: &Possibility| {
                let ready =
                    |&target: &usize| target == number || triggers.is_ready(&self.names[target]);
                possibility.is_broken || possibility.targets.iter().any(ready)
            };
            let targets = || group.iter().flat_map(|possibility| &possibility.targets);
            if targets().next().is_none() || group.iter().any(satisfied) {
                continue;
            }
            is_ready = false;
            let mut configured = targets().filter(|it| triggers.is_configured(&self.names[**it]));
            match configured.next_back().and_then(|it| triggers.awaited(&self.names[*it]).first()) {
                Some(name) => helper = self.names.iter().position(|other| other == name),
                None => helps = false,
            }
        }
        if helps && helper.is_some() {
            self.helper = helper;
        }
        is_ready
    }

    /// The first edge from a place on of a package's dependencies that is not broken.
    fn edge(&self, number: usize, from: Edge) -> Option<Edge> {
        let mut edge = from;
        let groups = &self.needs[number];
        while let Some(group) = groups.get(edge.group) {
            match group.get(edge.possibility) {
                Some(it) if !it.is_broken && edge.target < it.targets.len() => return Some(edge),
                Some(_) => edge = Edge { possibility: edge.possibility + 1, target: 0, ..edge },
                None => edge = Edge { group: edge.group + 1, possibility: 0, target: 0 },
            }
        }
        None
    }

    /// Breaks the first cycle that is found from a package on; whether there was one.
    fn break_cycle(&mut self, start: usize) -> bool {
        let mut is_done = vec![false; self.everyone.len()];
        let mut path = vec![(start, Edge::default())];
        while let Some(&(number, from)) = path.last() {
            let Some(edge) = self.edge(number, from) else {
                is_done[number] = true;
                path.pop();
                if let Some((_, edge)) = path.last_mut() {
                    edge.target += 1;
                }
                continue;
            };
            let top = path.len() - 1;
            path[top].1 = edge;
            let target = self.needs[number][edge.group][edge.possibility].targets[edge.target];
            if path.iter().any(|(on_path, _)| *on_path == target) {
                self.break_at(&path, target);
                return true;
            }
            if is_done[target] {
                path[top].1.target += 1;
            } else {
                path.push((target, Edge::default()));
            }
        }
        false
    }

    /// Breaks a cycle that ends in `target`: at the last package on the way without a `postinst`,
    /// else at the target itself.
    fn break_at(&mut self, path: &[(usize, Edge)], target: usize) {
        for &(number, edge) in path.iter().rev() {
            if number == target || !self.everyone[number].has_script("postinst") {
                self.needs[number][edge.group][edge.possibility].is_broken = true;
                return;
            }
        }
    }
}

/// Where a walk through a package's dependencies is.
#[derive(Debug, Clone, Copy, Default)]
struct Edge {
    group: usize,
    possibility: usize,
    target: usize,
}

/// Whether a package of the right name has a version that will do.
fn suits(alternative: &Alternative, package: &Package) -> bool {
    alternative.constraint.as_ref().is_none_or(|constraint| {
        Version::new(&package.version).is_ok_and(|version| constraint.allows(&version))
    })
}

#[cfg(test)]
mod tests {
    use super::super::package::tests::package;
    use super::super::triggers::parse_directives;
    use super::*;

    /// What is done with packages that are all unpacked, by name; what triggers are processed is
    /// in brackets.
    fn steps(packages: &[Package]) -> Vec<String> {
        let everyone: Vec<&Package> = packages.iter().collect();
        let unpacked: Vec<usize> = (0..packages.len()).collect();
        let mut triggers = Triggers::default();
        packages.iter().for_each(|package| triggers.add_interests(package));
        let mut queue = Queue::new(&everyone, &unpacked, "", &triggers);
        let mut steps = Vec::new();
        while let Some(step) = queue.next(&triggers) {
            match step {
                Step::Configure(number) => {
                    steps.push(packages[number].name.clone());
                    triggers.activate_own(&packages[number]);
                    triggers.set_configured(&packages[number].name);
                }
                Step::Trigger(number) => {
                    steps.push(format!("[{}]", packages[number].name));
                    triggers.take_pending(&packages[number].name);
                }
            }
        }
        steps
    }

    /// What dpkg 1.21 did with a mail server's packages, a part of its log.
    #[test]
    fn the_queue_is_dpkgs() {
        let packages = [
            package("adduser", "Depends: passwd\n", true),
            package("passwd", "Depends: libsemanage2 (>= 3.3)\n", true),
            package("libsemanage2", "Depends: libsemanage-common, libsepol2\n", false),
            package("libsemanage-common", "", false),
            package("libsepol2", "", false),
            package("dbus-system-bus-common", "Depends: adduser, sensible-utils\n", true),
            package("sensible-utils", "", false),
            package("cpio", "", true),
            package("netbase", "", false),
            package("openssl", "Depends: libssl3\n", true),
            package("libssl3", "", true),
            package("ssl-cert", "Depends: adduser, openssl\n", true),
            package(
                "postfix",
                "Depends: adduser, cpio, netbase, ssl-cert, dbus-system-bus-common\n",
                true,
            ),
        ];
        assert_eq!(
            steps(&packages),
            [
                "cpio",
                "libssl3",
                "libsemanage-common",
                "libsepol2",
                "sensible-utils",
                "netbase",
                "libsemanage2",
                "openssl",
                "passwd",
                "adduser",
                "ssl-cert",
                "dbus-system-bus-common",
                "postfix"
            ]
        );
    }

    #[test]
    fn cycles_are_broken_where_no_script_is() {
        let cycle = |first: bool, second: bool| {
            [
                package("one", "Depends: two\n", first),
                package("two", "Depends: three\n", second),
                package("three", "Depends: one\n", true),
            ]
        };
        let (one, two) = (cycle(false, true), cycle(true, false));
        assert_eq!(steps(&one)[0], "one");
        assert_eq!(steps(&two)[0], "two");
        assert_eq!(steps(&cycle(true, true)).len(), 3);
    }

    #[test]
    fn who_depends_on_one_that_waits_for_triggers_waits_too() {
        let with = |name: &str, fields: &str, triggers: &str| {
            let directives = parse_directives(triggers);
            Package { directives, ..package(name, fields, true) }
        };
        let user = |triggers: &str| {
            [
                with("fonts", "", "interest new-font\ninterest-noawait new-text\n"),
                with("font", "Depends: fonts\n", triggers),
                with("printer", "Depends: font\n", ""),
                with("reader", "Depends: fonts\n", ""),
            ]
        };
        let waits = user("activate new-font\n");
        assert_eq!(steps(&waits), ["fonts", "reader", "font", "[fonts]", "printer"]);
        for not in ["activate-noawait new-font\n", "activate new-text\n"] {
            assert_eq!(steps(&user(not)), ["fonts", "reader", "font", "printer", "[fonts]"]);
        }
    }

    #[test]
    fn what_nobody_provides_is_not_waited_for() {
        let packages = [
            package("alone", "Depends: excluded, mta | nothing\n", true),
            package("mail", "Provides: mta\nDepends: alone\n", true),
        ];
        assert_eq!(steps(&packages).len(), 2);
    }

    #[test]
    fn of_two_names_in_one_bin_the_first_mentioned_comes_first() {
        let mentions = mentions("Package: b\nDepends: z | y\n\nPackage: c\nProvides: a\n");
        let mut names: Vec<&String> = mentions.keys().collect();
        names.sort_by_key(|name| mentions[*name]);
        assert_eq!(names, ["z", "y", "b", "a", "c"]);
    }
}
