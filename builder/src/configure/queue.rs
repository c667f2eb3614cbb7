//! The order in which dpkg configures what is pending (`dpkg --configure --pending`).
//!
//! Scripts take the lowest free number for a new account, append to shared files, and win ties
//! between alternatives by being first, so the order shows in the result. dpkg walks its hash table
//! of names and keeps a queue: who still waits for a dependency goes to the end again; when a whole
//! turn brings nothing, cycles of dependencies are broken, at packages without a `postinst` first.
//!
//! Triggers that packages wait for are not taken into account: a package that activated one counts
//! as configured.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Package;
use crate::source::debian::control;
use crate::source::debian::relation::{Alternative, RelationField};
use crate::source::debian::version::Version;

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

/// Sorts the packages `pending` (numbers of `everyone`) as dpkg configures them; all others are
/// configured. `status` is dpkg's status file.
pub fn configuration_order(everyone: &[&Package], pending: &[usize], status: &str) -> Vec<usize> {
    let mut queue = Queue::new(everyone, pending);
    queue.waiting = in_bins(everyone, pending, status).into();
    queue.run()
}

/// dpkg's walk through its table: by bin, and in a bin by who was mentioned first.
fn in_bins(everyone: &[&Package], pending: &[usize], status: &str) -> Vec<usize> {
    let bin = |number: usize| bin_of(&everyone[number].name);
    let bins: HashSet<u32> = pending.iter().map(|&number| bin(number)).collect();
    let mentions = match bins.len() == pending.len() {
        true => HashMap::new(),
        false => mentions(status),
    };
    let mut sorted = pending.to_vec();
    sorted.sort_by_key(|&number| (bin(number), mentions.get(&everyone[number].name).copied()));
    sorted
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

struct Queue<'a> {
    everyone: &'a [&'a Package],
    /// Package -> groups -> alternatives.
    needs: Vec<Vec<Vec<Possibility>>>,
    is_configured: Vec<bool>,
    waiting: VecDeque<usize>,
}

impl<'a> Queue<'a> {
    fn new(everyone: &'a [&'a Package], pending: &[usize]) -> Self {
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
        let mut is_configured = vec![true; everyone.len()];
        for &number in pending {
            is_configured[number] = false;
        }
        let needs = everyone.iter().map(needs).collect();
        Self { everyone, needs, is_configured, waiting: VecDeque::new() }
    }

    fn run(mut self) -> Vec<usize> {
        let mut order = Vec::new();
        let (mut attempt, mut since_progress) = (1, 0);
        while let Some(number) = self.waiting.pop_front() {
            since_progress += 1;
            if since_progress > self.waiting.len() * 2 + 2 {
                attempt += 1;
                since_progress = 0;
            }
            if attempt >= BREAKS_CYCLES && self.break_cycle(number) {
                since_progress = 0;
            }
            // dpkg would fail at the last; what cannot be satisfied was never asked for here.
            if self.is_ready(number) || attempt >= LAST_TRY {
                self.is_configured[number] = true;
                order.push(number);
                since_progress = 0;
            } else {
                self.waiting.push_back(number);
            }
        }
        order
    }

    /// Whether every dependency is satisfied, or never will be, as when it was excluded.
    fn is_ready(&self, number: usize) -> bool {
        self.needs[number].iter().all(|group| {
            group.iter().all(|possibility| possibility.targets.is_empty())
                || group.iter().any(|possibility| {
                    let ready = |target: &usize| *target == number || self.is_configured[*target];
                    possibility.is_broken || possibility.targets.iter().any(ready)
                })
        })
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
    use super::*;

    /// The order of packages that are all pending, by name.
    fn order(packages: &[Package]) -> Vec<&str> {
        let everyone: Vec<&Package> = packages.iter().collect();
        let pending: Vec<usize> = (0..packages.len()).collect();
        let order = configuration_order(&everyone, &pending, "");
        order.into_iter().map(|number| packages[number].name.as_str()).collect()
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
            order(&packages),
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
        assert_eq!(order(&one)[0], "one");
        assert_eq!(order(&two)[0], "two");
        assert_eq!(order(&cycle(true, true)).len(), 3);
    }

    #[test]
    fn what_nobody_provides_is_not_waited_for() {
        let packages = [
            package("alone", "Depends: excluded, mta | nothing\n", true),
            package("mail", "Provides: mta\nDepends: alone\n", true),
        ];
        assert_eq!(order(&packages).len(), 2);
    }

    #[test]
    fn of_two_names_in_one_bin_the_first_mentioned_comes_first() {
        let mentions = mentions("Package: b\nDepends: z | y\n\nPackage: c\nProvides: a\n");
        let mut names: Vec<&String> = mentions.keys().collect();
        names.sort_by_key(|name| mentions[*name]);
        assert_eq!(names, ["z", "y", "b", "a", "c"]);
    }
}
