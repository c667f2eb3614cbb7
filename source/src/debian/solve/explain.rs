//! Why a request has no solution, for people.

use std::fmt;
use std::sync::Arc;

use crate::debian::universe::Universe;

/// How deep nested failures are written out; below, the first lines have said enough.
const DEPTH: usize = 4;

/// A request without a solution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unsolvable {
    /// What could not be satisfied. Not empty.
    pub failures: Vec<Failure>,
    /// Whether the search was ended after too many attempts, so that there may be a solution.
    pub gave_up: bool,
}

/// One requirement that could not be satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the requirement came up: each line is a package that was asked for or that the line
    /// before needs.
    pub chain: Vec<String>,
    /// The requirement.
    pub requirement: String,
    /// Why each way to satisfy it is closed.
    pub rejections: Vec<Rejection>,
}

/// Why one package will not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The alternative, or the package and its version.
    pub candidate: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No repository has a package of that name.
    Unknown {
        /// Names that are spelled almost so.
        near: Vec<String>,
    },
    /// The request excludes the package.
    Excluded,
    /// There are packages of that name, but none that the request lets in.
    NoCandidate {
        /// What the request wants.
        wanted: String,
        /// What there is.
        offers: Vec<String>,
    },
    /// The candidate does not satisfy the relation; apt looks at no older version.
    Unsuitable {
        /// The candidate's version.
        version: String,
        /// The repository that it comes from.
        repository: String,
    },
    /// Several packages provide the name, so that the request must say which.
    Virtual {
        /// The packages that provide it.
        providers: Vec<String>,
    },
    /// The name is virtual, and none of its providers suits the relation.
    NoProvider {
        /// The packages that provide it, in some version.
        providers: Vec<String>,
    },
    /// Another version of the package was chosen.
    OtherVersion {
        /// The version that was chosen.
        version: String,
        /// Why it was chosen.
        chain: Vec<String>,
    },
    /// A package that was chosen cannot be installed beside it.
    Conflict {
        /// The relation that forbids it.
        relation: String,
        /// Why the other package was chosen.
        chain: Vec<String>,
    },
    /// Something that it needs cannot be satisfied.
    Needs(Arc<Failure>),
}

impl Unsolvable {
    /// Adds near names to packages that nobody knows.
    pub(super) fn with_near_names(mut self, universe: &Universe) -> Self {
        self.failures.iter_mut().for_each(|failure| add_near_names(failure, universe, 0));
        self
    }
}

fn add_near_names(failure: &mut Failure, universe: &Universe, depth: usize) {
    for rejection in &mut failure.rejections {
        match &mut rejection.problem {
            Problem::Unknown { near } => {
                let name = rejection.candidate.split([' ', ':']).next().unwrap_or_default();
                *near = universe.near_names(name).into_iter().map(str::to_owned).collect();
            }
            Problem::Needs(inner) if depth < DEPTH => {
                add_near_names(Arc::make_mut(inner), universe, depth + 1);
            }
            _ => {}
        }
    }
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Problem {
    fn summary(&self) -> String {
        match self {
            Self::Unknown { near } if near.is_empty() => "no repository has it".to_owned(),
            Self::Unknown { near } => {
                format!("no repository has it; did you mean {}?", near.join(", "))
            }
            Self::Excluded => "it is excluded".to_owned(),
            Self::NoCandidate { wanted, offers } => {
                format!("wanted {wanted}, but there is only {}", list(offers))
            }
            Self::Unsuitable { version, repository } => {
                format!("the newest is {version} (from {repository})")
            }
            Self::Virtual { providers } => {
                format!("it is virtual; ask for one of {}", list(providers))
            }
            Self::NoProvider { providers } => {
                format!("it is virtual, and no candidate suits of {}", list(providers))
            }
            Self::OtherVersion { version, .. } => format!("{version} is already chosen:"),
            Self::Conflict { relation, .. } => format!("{relation}:"),
            Self::Needs(_) => "cannot be installed:".to_owned(),
        }
    }

    fn chain(&self) -> &[String] {
        match self {
            Self::OtherVersion { chain, .. } | Self::Conflict { chain, .. } => chain,
            _ => &[],
        }
    }
}

impl Failure {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(2 * depth);
        if depth == 0 {
            for line in &self.chain {
                writeln!(f, "{indent}  {line}")?;
            }
        }
        write!(f, "{indent}  {}", self.requirement)?;
        for rejection in &self.rejections {
            let summary = rejection.problem.summary();
            write!(f, "\n{indent}    {}: {summary}", rejection.candidate)?;
            for line in rejection.problem.chain() {
                write!(f, "\n{indent}      {line}")?;
            }
            if let (Problem::Needs(inner), true) = (&rejection.problem, depth < DEPTH) {
                writeln!(f)?;
                inner.write(f, depth + 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Unsolvable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the packages cannot be installed")?;
        if self.gave_up {
            f.write_str(" (the search was given up; the last obstacle follows)")?;
        }
        f.write_str(":")?;
        for failure in &self.failures {
            writeln!(f)?;
            failure.write(f, 0)?;
        }
        Ok(())
    }
}
