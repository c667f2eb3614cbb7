//! The order in which packages are unpacked and configured.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Package, queue};
use crate::source::debian::relation::RelationField;

/// One round: some packages are unpacked, then some are configured. One round is the rule; another
/// is needed only when a `preinst` wants packages configured that are themselves new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Packages (by number) to unpack, in order.
    pub unpack: Vec<usize>,
    /// Packages to configure afterwards, in order.
    pub configure: Vec<usize>,
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

/// Splits packages, which come in dependency order, into rounds. `below` is configured, `status` is
/// dpkg's status file.
pub fn rounds(packages: &[Package], below: &[Package], status: &str) -> Vec<Round> {
    let graph = Graph::new(packages);
    let mut unpacked = vec![false; packages.len()];
    let mut configured = vec![false; packages.len()];
    let mut rounds = Vec::new();
    while configured.contains(&false) {
        let waits = |number: usize| {
            packages[number].has_script("preinst")
                && graph.below(number).into_iter().any(|other| {
                    other != number && !configured[other] && packages[other].has_effects()
                })
        };
        let mut unpack: Vec<usize> =
            (0..packages.len()).filter(|&n| !unpacked[n] && !waits(n)).collect();
        let is_last = unpack.len() == unpacked.iter().filter(|&&done| !done).count();
        if unpack.is_empty() && configured == unpacked {
            // Only a cycle of Pre-Depends, which Debian forbids, leads here: give in.
            unpack = (0..packages.len()).filter(|&n| !unpacked[n]).take(1).collect();
        }
        // Before the last round only what others wait for is unpacked and configured, with what it
        // needs: apt puts that first.
        let mut wanted = vec![is_last; packages.len()];
        if !is_last {
            for number in (0..packages.len()).filter(|n| !unpacked[*n] && !unpack.contains(n)) {
                for below in graph.below(number) {
                    wanted[below] = true;
                }
            }
            if unpack.iter().any(|&number| wanted[number]) {
                unpack.retain(|&number| wanted[number]);
            }
        }
        for &number in &unpack {
            unpacked[number] = true;
        }
        let configure: Vec<usize> =
            (0..packages.len()).filter(|&n| unpacked[n] && !configured[n] && wanted[n]).collect();
        for &number in &configure {
            configured[number] = true;
        }
        rounds.push(Round { unpack, configure });
    }
    // Without a package there is still the one round that ends the stage.
    let mut last = rounds.pop().unwrap_or_default();
    last.configure = last_order(packages, below, &graph, &last.configure, status);
    rounds.push(last);
    rounds
}

/// apt has what others pre-depend on configured before these are unpacked, and leaves all the rest
/// to dpkg.
fn last_order(
    packages: &[Package],
    below: &[Package],
    graph: &Graph,
    configure: &[usize],
    status: &str,
) -> Vec<usize> {
    let mut is_early = vec![false; packages.len()];
    for number in 0..packages.len() {
        for other in graph.below(number) {
            is_early[other] = true;
        }
    }
    let (mut order, rest): (Vec<usize>, Vec<usize>) =
        configure.iter().partition(|&&number| is_early[number]);
    let everyone: Vec<&Package> = packages.iter().chain(below).collect();
    order.extend(queue::configuration_order(&everyone, &rest, status));
    order
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
