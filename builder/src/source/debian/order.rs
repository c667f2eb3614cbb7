//! In which order packages are unpacked and configured.
//!
//! dpkg's rules (Debian policy 7.2, 6.5): what a package's `Pre-Depends` name is configured before
//! the package is unpacked; what its `Depends` name is configured before the package is. Where
//! dependencies form a circle, dpkg breaks it at a package without a postinst, since configuring
//! that one does nothing. The order here is a function of the set alone; ties go by name.

use std::collections::{BTreeSet, HashMap};

use super::index::PackageRecord;
use super::relation::{Alternative, RelationField};
use super::universe::{Polarity, matches};

/// A step of an installation: first unpack these, then configure those.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Round {
    /// The packages to unpack, as indexes of the set, in order.
    pub unpack: Vec<usize>,
    /// The packages to configure once these are unpacked, in order.
    pub configure: Vec<usize>,
}

/// One group of a package's dependencies inside the set: any of the members satisfies it. The
/// preferred one is first.
struct Need {
    before_unpacking: bool,
    members: Vec<usize>,
}

/// The order of a set of packages.
pub struct Order<'a> {
    records: &'a [&'a PackageRecord],
    needs: Vec<Vec<Need>>,
    has_postinst: Vec<bool>,
}

/// The order in which a set of packages is configured, as indexes of the set, if all of them have
/// a postinst; see [`Order`].
pub fn configure_order(records: &[&PackageRecord]) -> Vec<usize> {
    Order::new(records, |_| true).configure()
}

impl<'a> Order<'a> {
    /// Reads the dependencies between the packages of a set. `has_postinst` tells whether a package
    /// has something to do when it is configured; it decides where circles are broken.
    pub fn new(
        records: &'a [&'a PackageRecord],
        has_postinst: impl Fn(&PackageRecord) -> bool,
    ) -> Self {
        let mut bearers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, record) in records.iter().enumerate() {
            bearers.entry(&record.name).or_default().push(at);
            for provided in &record.provides {
                bearers.entry(&provided.name).or_default().push(at);
            }
        }
        let members = |alternative: &Alternative| {
            let bearers = bearers.get(alternative.name.as_str()).into_iter().flatten().copied();
            let suits = |at: &usize| matches(alternative, records[*at], Polarity::Positive);
            let mut members: Vec<usize> = bearers.filter(suits).collect();
            members.sort_by_key(|at| (records[*at].name != alternative.name, &records[*at].name));
            members
        };
        let read = |own: usize, field: &RelationField, before_unpacking| {
            let groups = field.relations().groups.into_iter();
            let needs = groups.map(|group| group.alternatives.iter().flat_map(members).collect());
            let open = |members: &Vec<usize>| !members.is_empty() && !members.contains(&own);
            needs.filter(open).map(|members| Need { before_unpacking, members }).collect::<Vec<_>>()
        };
        let needs = records.iter().enumerate().map(|(own, record)| {
            let mut needs = read(own, &record.pre_depends, true);
            needs.extend(read(own, &record.depends, false));
            needs
        });
        let needs = needs.collect();
        let has_postinst = records.iter().map(|record| has_postinst(record)).collect();
        Self { records, needs, has_postinst }
    }

    /// The order in which the whole set is configured.
    pub fn configure(&self) -> Vec<usize> {
        let mut done = vec![false; self.records.len()];
        self.configure_part((0..self.records.len()).collect(), &mut done)
    }

    /// What must be configured before a package may be unpacked, in order: its `Pre-Depends`, and
    /// all that these need.
    pub fn pre_depends(&self, package: usize) -> Vec<usize> {
        let needs = self.needs[package].iter().filter(|need| need.before_unpacking);
        let roots = needs.map(|need| need.members[0]);
        let mut part = self.closure(roots, |_| true);
        part.remove(&package);
        self.configure_part(part, &mut vec![false; self.records.len()])
    }

    /// The rounds of an installation: each unpacks all packages whose `Pre-Depends` are configured,
    /// then configures what others are waiting for; the last configures all that remain.
    pub fn rounds(&self) -> Vec<Round> {
        let count = self.records.len();
        let (mut unpacked, mut configured) = (vec![false; count], vec![false; count]);
        let mut rounds = Vec::new();
        while unpacked.contains(&false) {
            let mut waiting = self.by_name((0..count).filter(|at| !unpacked[*at]));
            let ready = |at: &usize| self.unmet(*at, &configured, true) == 0;
            let mut unpack: Vec<usize> = waiting.iter().copied().filter(ready).collect();
            if unpack.is_empty() {
                // A circle of Pre-Depends: policy forbids it, but something must go first.
                unpack.push(waiting[0]);
            }
            unpack.iter().for_each(|at| unpacked[*at] = true);
            waiting.retain(|at| !unpacked[*at]);
            let part = if waiting.is_empty() {
                (0..count).filter(|at| !configured[*at]).collect()
            } else {
                self.wanted(&waiting, &unpacked, &configured)
            };
            let configure = self.configure_part(part, &mut configured);
            rounds.push(Round { unpack, configure });
        }
        rounds
    }

    /// What to configure so that waiting packages can be unpacked. A package whose own dependencies
    /// are not all unpacked is left for a later round, unless nothing else is left to do.
    fn wanted(&self, waiting: &[usize], unpacked: &[bool], configured: &[bool]) -> BTreeSet<usize> {
        let needs = waiting.iter().flat_map(|at| &self.needs[*at]);
        let wanted: BTreeSet<usize> = needs
            .filter(|need| need.before_unpacking)
            .filter(|need| !need.members.iter().any(|member| configured[*member]))
            .map(|need| need.members[0])
            .collect();
        let whole = |at: &usize| {
            let closure = self.closure([*at].into_iter(), |at| !configured[at]);
            closure.iter().all(|at| unpacked[*at])
        };
        let ready: BTreeSet<usize> = wanted.iter().copied().filter(whole).collect();
        let chosen = if ready.is_empty() { wanted } else { ready };
        self.closure(chosen.into_iter(), |at| unpacked[at] && !configured[at])
    }

    fn by_name(&self, packages: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut packages: Vec<usize> = packages.collect();
        packages.sort_by_key(|at| &self.records[*at].name);
        packages
    }

    /// Some packages and what they need, as far as it passes a test.
    fn closure(
        &self,
        roots: impl Iterator<Item = usize>,
        allowed: impl Fn(usize) -> bool,
    ) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open: Vec<usize> = roots.collect();
        while let Some(at) = open.pop() {
            if allowed(at) && found.insert(at) {
                open.extend(self.needs[at].iter().map(|need| need.members[0]));
            }
        }
        found
    }

    /// How many groups of a package are not met by what is done.
    fn unmet(&self, package: usize, done: &[bool], before_unpacking: bool) -> usize {
        let groups = self.needs[package].iter();
        groups
            .filter(|need| need.before_unpacking == before_unpacking)
            .filter(|need| !need.members.iter().any(|member| done[*member]))
            .count()
    }

    /// Orders a part of the set, given what is done; marks it as done. What lies outside of the
    /// part and is not done is not waited for.
    fn configure_part(&self, part: BTreeSet<usize>, done: &mut [bool]) -> Vec<usize> {
        let mut remaining = self.by_name(part.into_iter());
        let mut order = Vec::with_capacity(remaining.len());
        while !remaining.is_empty() {
            let ready = |at: &usize| self.blockers(*at, &remaining, done).is_empty();
            let next = match remaining.iter().position(ready) {
                Some(position) => position,
                None => self.circle_breaker(&remaining, done),
            };
            let next = remaining.remove(next);
            done[next] = true;
            order.push(next);
        }
        order
    }

    /// What a package waits for among the remaining ones.
    fn blockers(&self, package: usize, remaining: &[usize], done: &[bool]) -> Vec<usize> {
        let unmet = self.needs[package]
            .iter()
            .filter(|need| !need.members.iter().any(|member| done[*member]));
        unmet
            .filter_map(|need| need.members.iter().find(|member| remaining.contains(member)))
            .copied()
            .collect()
    }

    /// Chooses, when all remaining packages wait, one that is part of a circle and waits for
    /// nothing outside of it: its place in `remaining`.
    fn circle_breaker(&self, remaining: &[usize], done: &[bool]) -> usize {
        let reach = |from: usize| {
            let mut found = BTreeSet::new();
            let mut open = vec![from];
            while let Some(at) = open.pop() {
                for blocker in self.blockers(at, remaining, done) {
                    if found.insert(blocker) {
                        open.push(blocker);
                    }
                }
            }
            found
        };
        // Whatever a package at the bottom reaches reaches it too, so the smallest reach is a
        // circle that waits for nothing else.
        let circle = remaining.iter().map(|at| reach(*at)).min_by_key(BTreeSet::len);
        let circle = circle.unwrap_or_default();
        let members = (0..remaining.len()).filter(|place| circle.contains(&remaining[*place]));
        let rank = |place: &usize| {
            let at = remaining[*place];
            let before_unpacking = self.unmet(at, done, true) > 0;
            (before_unpacking, self.has_postinst[at], self.unmet(at, done, false), *place)
        };
        members.min_by_key(rank).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::debian::solve::index;

    fn names(records: &[PackageRecord], order: &[usize]) -> String {
        let names: Vec<&str> = order.iter().map(|at| records[*at].name.as_str()).collect();
        names.join(" ")
    }

    fn configured(lines: &str) -> String {
        let records = index("debian", lines);
        let set: Vec<&PackageRecord> = records.iter().collect();
        names(&records, &configure_order(&set))
    }

    #[test]
    fn dependencies_come_first_and_ties_go_by_name() {
        for (why, lines, expected) in [
            ("names", "c 1\na 1\nb 1", "a b c"),
            ("depends", "a 1 ; Depends: c\nb 1\nc 1", "b c a"),
            ("provides", "a 1 ; Depends: v\nz 1 ; Provides: v", "z a"),
            (
                "any member of a group will do",
                "a 1 ; Depends: z | b\nb 1\nz 1 ; Depends: a",
                "b a z",
            ),
            (
                "a circle, and one that waits for it",
                "a 1 ; Depends: c\nb 1 ; Depends: c\nc 1 ; Depends: b",
                "b c a",
            ),
            ("pre-depends hold in circles", "a 1 ; Pre-Depends: b\nb 1 ; Depends: a", "b a"),
            ("what is not in the set is not waited for", "a 1 ; Depends: gone, b\nb 1", "b a"),
            ("itself", "a 1 ; Provides: v ; Depends: v", "a"),
        ] {
            assert_eq!(configured(lines), expected, "{why}");
        }
    }

    #[test]
    fn circles_are_broken_where_there_is_no_postinst() {
        let records = index("debian", "libc6 1 ; Depends: libgcc-s1\nlibgcc-s1 1 ; Depends: libc6");
        let set: Vec<&PackageRecord> = records.iter().collect();
        assert_eq!(names(&records, &configure_order(&set)), "libc6 libgcc-s1");
        let order = Order::new(&set, |record| record.name == "libc6").configure();
        assert_eq!(names(&records, &order), "libgcc-s1 libc6");
    }

    #[test]
    fn rounds_configure_pre_depends_before_unpacking() {
        let lines = "libc6 1\ndpkg 1 ; Pre-Depends: libc6, tar\ntar 1 ; Pre-Depends: libc6\nweb 1 ; Depends: dpkg";
        let records = index("debian", lines);
        let set: Vec<&PackageRecord> = records.iter().collect();
        let order = Order::new(&set, |_| true);
        let rounds = order.rounds().into_iter().map(|round| {
            format!("{} / {}", names(&records, &round.unpack), names(&records, &round.configure))
        });
        let rounds: Vec<String> = rounds.collect();
        assert_eq!(rounds, ["libc6 web / libc6", "tar / tar", "dpkg / dpkg web"]);
        assert_eq!(names(&records, &order.pre_depends(1)), "libc6 tar");
        assert_eq!(order.pre_depends(0), []);
    }

    proptest! {
        /// Every package is unpacked once and configured once, in this order, whatever the
        /// dependencies; without circles no dependency is broken.
        #[test]
        fn rounds_cover_the_set(edges in proptest::collection::vec((0usize..8, 0usize..8, any::<bool>()), 0..16), acyclic: bool) {
            let mut fields = vec![[Vec::new(), Vec::new()]; 8];
            for (from, to, pre) in edges {
                if from > to || !acyclic {
                    fields[from][usize::from(pre)].push(format!("p{to}"));
                }
            }
            let mut lines = String::new();
            for (at, [depends, pre_depends]) in fields.iter().enumerate() {
                lines += &format!("p{at} 1 ; Depends: {} ; Pre-Depends: {}\n", depends.join(", "), pre_depends.join(", "));
            }
            let records = index("debian", &lines);
            let set: Vec<&PackageRecord> = records.iter().collect();
            let order = Order::new(&set, |_| true);
            let (mut unpacked, mut configured) = (BTreeSet::new(), BTreeSet::new());
            for round in order.rounds() {
                for at in round.unpack {
                    prop_assert!(unpacked.insert(at));
                    prop_assert!(!acyclic || order.unmet(at, &flags(&configured), true) == 0);
                }
                for at in round.configure {
                    prop_assert!(unpacked.contains(&at));
                    prop_assert!(!acyclic || order.unmet(at, &flags(&configured), false) == 0);
                    prop_assert!(configured.insert(at));
                }
            }
            prop_assert_eq!(unpacked.len(), 8);
            prop_assert_eq!(configured.len(), 8);
            prop_assert_eq!(order.configure().into_iter().collect::<BTreeSet<_>>().len(), 8);
        }
    }

    fn flags(set: &BTreeSet<usize>) -> Vec<bool> {
        (0..8).map(|at| set.contains(&at)).collect()
    }
}
