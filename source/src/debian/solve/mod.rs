//! Solving: from the packages that are asked for to all that must be installed with them.
//!
//! The choice is apt's, so that an image holds what people get from `apt-get install`:
//!
//! - one candidate for each name: the newest version of the repositories that it may come from;
//! - dependencies depth first, in the order `Pre-Depends`, `Depends`, `Recommends`, and inside a
//!   field in the order of the text; what is already chosen satisfies a group;
//! - alternatives from left to right; the package of that name before those that provide it;
//!   providers by Essential, by priority, then by who was mentioned last in the indexes.
//!
//! Where apt's greedy way ends in a conflict, this solver goes back to the latest choice that has
//! to do with the conflict, and takes its next alternative; so it finds a solution wherever there
//! is one with apt's candidates.
//!
//! ```text
//! request -> candidates (one record for a name, options of a group)
//!         -> search (choices, conflicts, way back) -> Solution, or explain -> Unsolvable
//! ```

mod candidates;
mod explain;
mod search;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use explain::{Failure, Problem, Rejection, Unsolvable};

use super::index::PackageRecord;
use super::universe::Universe;
use super::version::Version;

/// A package that is asked for by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackageRequest {
    /// The package's name; a virtual package will do if only one package provides it.
    pub name: String,
    /// A pattern for its version, with `*` and `?`, as `22.*`; the epoch may be left out.
    pub version: Option<String>,
    /// The repository that it must come from. Without, it comes from a default repository.
    pub repository: Option<String>,
}

impl PackageRequest {
    /// Asks for a package of any version, from the default repositories.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// What a solve is to find.
#[derive(Clone)]
pub struct SolveRequest<'a> {
    /// The packages that are asked for. What the first ones need is chosen first, as apt does; so
    /// the order can decide between alternatives.
    pub roots: Vec<PackageRequest>,
    /// Whether the Essential packages are installed first, as a system's installer does.
    pub essential: bool,
    /// Whether `Recommends` are followed where that is possible.
    pub recommends: bool,
    /// Packages that may not be chosen.
    pub exclude: BTreeSet<String>,
    /// Versions that are settled, as by a lock: a package that is named here has that version or
    /// is not chosen.
    pub pinned: BTreeMap<String, Version>,
    /// Tells of a (package, dependency) pair that the dependency is not to be followed, as for what
    /// only maintainer scripts need. A group is dropped if one of its alternatives is such a one.
    pub ignored: &'a dyn Fn(&str, &str) -> bool,
}

impl Default for SolveRequest<'_> {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            essential: false,
            recommends: false,
            exclude: BTreeSet::new(),
            pinned: BTreeMap::new(),
            ignored: &|_, _| false,
        }
    }
}

impl fmt::Debug for SolveRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SolveRequest")
            .field("roots", &self.roots)
            .field("essential", &self.essential)
            .field("recommends", &self.recommends)
            .field("exclude", &self.exclude)
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

/// A relation that brings packages in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelationKind {
    /// `Pre-Depends`
    PreDepends,
    /// `Depends`
    Depends,
    /// `Recommends`
    Recommends,
}

impl RelationKind {
    /// The relation as a verb: `a depends on b`.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::PreDepends => "pre-depends on",
            Self::Depends => "depends on",
            Self::Recommends => "recommends",
        }
    }
}

/// Why a package was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was asked for.
    Requested,
    /// It is Essential.
    Essential,
    /// Another package of the solution needs it.
    Needed {
        /// That package.
        by: String,
        /// The field with the relation.
        kind: RelationKind,
        /// The relation, alternatives included.
        relation: String,
    },
}

/// What is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solution<'u> {
    /// The packages, sorted by name.
    pub packages: Vec<&'u PackageRecord>,
    /// Why each of them was chosen, by name.
    pub reasons: BTreeMap<String, Reason>,
}

impl Solution<'_> {
    /// Why a package is there: the way from a package that was asked for (first) to this one
    /// (last). Empty if it is not in the solution.
    pub fn chain(&self, name: &str) -> Vec<(&str, &Reason)> {
        let mut chain = Vec::new();
        let mut next = self.reasons.get_key_value(name);
        while let Some((name, reason)) = next {
            chain.push((name.as_str(), reason));
            next = match reason {
                Reason::Needed { by, .. } => self.reasons.get_key_value(by),
                Reason::Requested | Reason::Essential => None,
            };
        }
        chain.reverse();
        chain
    }
}

/// Finds the packages that a request needs.
///
/// The result depends on the content and the order of the universe's indexes and on the request
/// alone.
pub fn solve<'u>(
    universe: &'u Universe,
    request: &SolveRequest<'_>,
) -> Result<Solution<'u>, Unsolvable> {
    search::run(universe, request)
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
