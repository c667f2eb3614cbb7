//! Language builders: a project's own lockfile is the list of its dependencies.
//!
//! ```text
//! source tree ─ project files ─ prepare ─┬─ dependencies ─ `fetch` each (store, cache, registry) ─┐
//!                  (pure, per language)  └─ layout ───────── `layout` (one tree below /build) <───┘
//! ```
//!
//! What a language is, in functions of values, one module each ([`cargo`], and so on):
//!
//! | function | says |
//! |---|---|
//! | `FILES` | which text files of the source are read |
//! | `prepare` | lockfile → [`Dependency`] list and [`Layout`]: where each stands, what is written beside |
//! | `packages` | the Debian toolchain that is used unless the recipe names one |
//! | `SCRIPT` | the script that is run unless the recipe has one |
//! | `environment` | variables, which the recipe's own override |
//!
//! They are joined by [`files`], [`prepare`], [`packages`], [`script`] and [`environment`] here. A new
//! language adds a module, an arm in each of these, and an arm in [`registry::addresses`], which is
//! where the network begins: registries are found in the tools' own configuration on this host, and
//! no address enters an identity.
//!
//! A [`Layout`] names contents by hash alone. So a known layout needs no look at its parts, a warm
//! cache needs no registry, and a changed dependency is the only one that is fetched. Archives are
//! unpacked by own code ([`unpack`]), never in the sandbox, where nothing is fetched at all.

pub mod cargo;
mod error;
mod fetch;
mod integrity;
mod layout;
pub mod registry;
mod unpack;

use std::collections::BTreeMap;
use std::fmt;

pub use error::{LanguageError, LockfileError};
pub use fetch::{Fetching, derivation, fetch_all, fetched, missing};
pub use integrity::{Algorithm, Integrity, IntegrityError};
pub use layout::{Form, Layout, Placement};
pub use unpack::{Format, UnpackError};

use crate::spec::{Platform, RecipeBuilder};

/// The kind of registry that a dependency is asked from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A registry of crates: its index as the lockfile names it, such as `sparse+https://…`; cargo's
    /// default one otherwise.
    Crates(Option<String>),
}

/// One file that a lockfile pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hash of its file.
    pub integrity: Integrity,
    /// Where it is asked from.
    pub registry: Registry,
    /// The file's name.
    pub file_name: String,
}

/// The name and version, for messages.
impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A project as language builders see it.
#[derive(Debug, Clone)]
pub struct Project {
    /// Those of [`files`] that the source has, by path below the source's folder.
    pub files: BTreeMap<String, String>,
    /// What it is built for.
    pub platform: Platform,
}

/// What a project's lockfile means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The files to fetch.
    pub dependencies: Vec<Dependency>,
    /// Where they stand when the script runs.
    pub layout: Layout,
    /// What the shell runs before the script, as part of it.
    pub before: Option<String>,
}

/// The text files of a source that a builder reads, below the source's folder.
pub fn files(builder: RecipeBuilder) -> &'static [&'static str] {
    match builder {
        RecipeBuilder::Cargo => cargo::FILES,
        RecipeBuilder::Script | RecipeBuilder::Npm | RecipeBuilder::Python => &[],
    }
}

/// Reads a project's lockfile.
///
/// # Errors
///
/// [`LockfileError`] when there is none, or it cannot be followed.
pub fn prepare(builder: RecipeBuilder, project: &Project) -> Result<Prepared, LockfileError> {
    match builder {
        RecipeBuilder::Cargo => cargo::prepare(project),
        RecipeBuilder::Script | RecipeBuilder::Npm | RecipeBuilder::Python => {
            Ok(Prepared::default())
        }
    }
}

/// The Debian packages of a builder's toolchain in a suite, beside those that a recipe names.
pub fn packages(builder: RecipeBuilder, suite: &str, named: &[&str]) -> &'static [&'static str] {
    match builder {
        RecipeBuilder::Cargo => cargo::packages(suite, named),
        RecipeBuilder::Script | RecipeBuilder::Npm | RecipeBuilder::Python => &[],
    }
}

/// The script of a recipe that has none.
pub const fn script(builder: RecipeBuilder) -> &'static str {
    match builder {
        RecipeBuilder::Cargo => cargo::SCRIPT,
        RecipeBuilder::Script | RecipeBuilder::Npm | RecipeBuilder::Python => "",
    }
}

/// Variables that a builder sets, and that a recipe's own override.
pub fn environment(builder: RecipeBuilder) -> BTreeMap<String, String> {
    let variables: &[(&str, &str)] = match builder {
        RecipeBuilder::Cargo => cargo::ENVIRONMENT,
        RecipeBuilder::Script | RecipeBuilder::Npm | RecipeBuilder::Python => &[],
    };
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
