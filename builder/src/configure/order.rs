//! The order in which packages are unpacked and configured.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Package;
use drystone_source::debian::relation::RelationField;

/// One round: some packages are unpacked, then some are configured, then one's `preinst` runs, which
/// is unpacked first in the next round. After the last round dpkg configures the rest in an order of
/// its own (see [`super::queue`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Packages (by number) to unpack, in order.
    pub unpack: Vec<usize>,
    /// Packages to configure afterwards, in order.
    pub configure: Vec<usize>,
    /// The package whose `preinst` runs at the end.
    pub preinst: Option<usize>,
}

/// Sorts packages so that each comes after what it depends on; `Pre-Depends` are visited before
/// `Depends`. Cycles are broken where they are first met. Otherwise those come first that apt gives a
/// higher score (where `scored`: the Essential set is not unpacked by apt), then ties go by name.
pub fn dependency_order(packages: &[Package], scored: bool) -> Vec<usize> {
    let graph = Graph::new(packages);
    let mut visit = Visit { done: vec![false; packages.len()], order: Vec::new() };
    let mut starts: Vec<usize> = (0..packages.len()).collect();
    let key = |&number: &usize| {
        let package = &packages[number];
        (Reverse(if scored { score(package) } else { 0 }), &package.name)
    };
    starts.sort_by(|left, right| key(left).cmp(&key(right)));
    for number in starts {
        visit.visit(&graph, number);
    }
    visit.order
}

/// How early apt unpacks a package (`pkgOrderList::Score` in apt-pkg/orderlist.cc): by its priority,
/// and before that by whether it has Pre-Depends.
fn score(package: &Package) -> u32 {
    let priority = match package.priority.as_str() {
        "required" => 5,
        "important" => 4,
        "standard" => 3,
        "optional" => 1,
        _ => 0,
    };
    let has_pre_depends = package.pre_depends.names().next().is_some();
    priority + if has_pre_depends { 50 } else { 0 }
}

/// Splits packages, which come in the order of unpacking, into rounds: apt has configured what a
/// package pre-depends on, with all that this needs, before it unpacks the package, and leaves all
/// the rest to dpkg. Where no `preinst` can tell the difference, rounds are one.
pub fn rounds(packages: &[Package]) -> Vec<Round> {
    let graph = Graph::new(packages);
    let mut configured = vec![false; packages.len()];
    let mut rounds = Vec::new();
    let mut round = Round::default();
    for (number, package) in packages.iter().enumerate() {
        // In a cycle of Pre-Depends, which Debian forbids, what comes later is not waited for.
        let mut needed = graph.below(number);
        needed.retain(|&other| other < number && !configured[other]);
        needed.sort_unstable();
        needed.iter().for_each(|&other| configured[other] = true);
        round.configure.extend(needed);
        if package.has_script("preinst") {
            round.preinst = Some(number);
            rounds.push(std::mem::take(&mut round));
        }
        round.unpack.push(number);
    }
    // Without a package there is still the one round that ends the stage.
    rounds.push(round);
    rounds
}

struct Graph {
    pre_depends: Vec<Vec<usize>>,
    depends: Vec<Vec<usize>>,
}

impl Graph {
    fn new(packages: &[Package]) -> Self {
        let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, package) in packages.iter().enumerate() {
            providers.entry(&package.name).or_default().insert(0, number);
            for name in package.provides.names() {
                providers.entry(name).or_default().push(number);
            }
        }
        let edges = |field: &RelationField| {
            let mut edges: Vec<usize> = Vec::new();
            for name in field.names() {
                for &number in providers.get(name).map_or(&[][..], Vec::as_slice) {
                    if !edges.contains(&number) {
                        edges.push(number);
                    }
                }
            }
            edges
        };
        Self {
            pre_depends: packages.iter().map(|package| edges(&package.pre_depends)).collect(),
            depends: packages.iter().map(|package| edges(&package.depends)).collect(),
        }
    }

    /// What must be configured before this package's preinst runs: its Pre-Depends with all that
    /// these need.
    fn below(&self, number: usize) -> Vec<usize> {
        let mut seen = vec![false; self.depends.len()];
        let mut todo = self.pre_depends[number].clone();
        let mut found = Vec::new();
        while let Some(next) = todo.pop() {
            if !std::mem::replace(&mut seen[next], true) {
                found.push(next);
                todo.extend(&self.pre_depends[next]);
                todo.extend(&self.depends[next]);
            }
        }
        found
    }
}

struct Visit {
    done: Vec<bool>,
    order: Vec<usize>,
}

impl Visit {
    /// Depth first without recursion, since dependency chains can be long.
    fn visit(&mut self, graph: &Graph, start: usize) {
        let edges =
            |number: usize| graph.pre_depends[number].iter().chain(&graph.depends[number]).copied();
        if std::mem::replace(&mut self.done[start], true) {
            return;
        }
        let mut stack = vec![(start, edges(start).collect::<Vec<_>>().into_iter())];
        while let Some((number, rest)) = stack.last_mut() {
            match rest.next() {
                Some(next) if std::mem::replace(&mut self.done[next], true) => {}
                Some(next) => stack.push((next, edges(next).collect::<Vec<_>>().into_iter())),
                None => {
                    self.order.push(*number);
                    stack.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::package::tests::package;
    use super::*;

    #[test]
    fn a_preinst_comes_after_what_its_package_pre_depends_on() {
        let with_preinst = |name: &str, fields: &str| {
            let mut package = package(name, fields, true);
            package.control_files.insert("preinst".into(), (0o755, Vec::new()));
            package
        };
        let packages = [
            package("library", "", false),
            package("users", "Depends: library\n", true),
            package("plain", "", true),
            with_preinst("server", "Pre-Depends: users\n"),
            package("other", "Pre-Depends: plain\n", true),
            with_preinst("tool", "Pre-Depends: library\n"),
        ];
        let round = |unpack: &[usize], configure: &[usize], preinst: Option<usize>| Round {
            unpack: unpack.into(),
            configure: configure.into(),
            preinst,
        };
        // Nobody sees that "other" is unpacked before "plain" is configured.
        assert_eq!(
            rounds(&packages),
            [
                round(&[0, 1, 2], &[0, 1], Some(3)),
                round(&[3, 4], &[2], Some(5)),
                round(&[5], &[], None)
            ]
        );
        assert_eq!(rounds(&packages[..3]), [round(&[0, 1, 2], &[], None)]);
        assert_eq!(rounds(&[]), [Round::default()]);
    }
}
