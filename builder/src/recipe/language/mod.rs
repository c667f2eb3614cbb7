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
//! | `is_read` | which text files of the source are read |
//! | `prepare` | lockfile → [`Dependency`] list and [`Layout`]: where each stands, what is written beside |
//! | `packages` | the Debian toolchain that is used unless the recipe names one |
//! | `SCRIPT` | the script that is run unless the recipe has one |
//! | `environment` | variables, which the recipe's own override |
//!
//! They are joined by [`is_read`], [`prepare`], [`packages`], [`script`] and [`environment`] here. A new
//! language adds a module, an arm in each of these, and an arm in [`registry::Registries`], which is
//! where the network begins: registries are found in the tools' own configuration on this host, and
//! no address enters an identity.
//!
//! A [`Layout`] names contents by hash alone. So a known layout needs no look at its parts, a warm
//! cache needs no registry, and a changed dependency is the only one that is fetched. Archives are
//! unpacked by own code (`unpack`), never in the sandbox, where nothing is fetched at all.

pub mod cargo;
mod error;
mod fetch;
mod integrity;
mod layout;
pub mod npm;
pub mod python;
pub mod registry;
mod unpack;

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

pub use error::{LanguageError, LockfileError};
pub use fetch::{Fetching, derivation, fetch_all, fetched, missing};
pub use integrity::{Algorithm, Integrity, IntegrityError};
pub use layout::{Form, Layout, Placement};
pub use unpack::{Format, UnpackError, unpack_source};

use crate::spec::{Platform, RecipeBuilder};

/// The kind of registry that a dependency is asked from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A registry of crates: its index as the lockfile names it, such as `sparse+https://…`; cargo's
    /// default one otherwise.
    Crates(Option<String>),
    /// A registry of npm packages.
    Npm,
    /// An index of Python packages.
    Python,
    /// None: the project asks for the file at an address.
    Address(Url),
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
    /// Those that [`is_read`] picks and the source has, by path below the source's folder.
    pub files: BTreeMap<String, String>,
    /// What it is built for.
    pub platform: Platform,
    /// The Debian packages that it is built with, and their versions.
    pub packages: BTreeMap<String, String>,
    /// The names of files by hash, as far as [`Question`]s were answered.
    pub file_names: BTreeMap<Integrity, String>,
    /// Whether all questions were answered as well as they can be.
    pub is_answered: bool,
}

impl Project {
    /// A project without files.
    pub fn new(platform: Platform) -> Self {
        Self {
            files: BTreeMap::new(),
            platform,
            packages: BTreeMap::new(),
            file_names: BTreeMap::new(),
            is_answered: false,
        }
    }
}

/// A package of which a lockfile says hashes and no names of files: which they are is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hashes.
    pub hashes: Vec<Integrity>,
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
    /// Files of the source that the script sees otherwise: without what is of one host.
    pub replaced: BTreeMap<String, String>,
    /// What must be known first; all else is incomplete while there are any.
    pub questions: Vec<Question>,
}

/// Whether a builder reads a text file of a source, by its path below the source's folder.
pub fn is_read(builder: RecipeBuilder, path: &str) -> bool {
    match builder {
        RecipeBuilder::Cargo => cargo::FILES.contains(&path),
        RecipeBuilder::Npm => npm::is_read(path),
        RecipeBuilder::Python => python::is_read(path),
        RecipeBuilder::Script => false,
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
        RecipeBuilder::Npm => npm::prepare(project),
        RecipeBuilder::Python => python::prepare(project),
        RecipeBuilder::Script => Ok(Prepared::default()),
    }
}

/// The Debian packages of a builder's toolchain in a suite, beside those that a recipe names.
pub fn packages(builder: RecipeBuilder, suite: &str, named: &[&str]) -> &'static [&'static str] {
    match builder {
        RecipeBuilder::Cargo => cargo::packages(suite, named),
        RecipeBuilder::Npm => npm::packages(named),
        RecipeBuilder::Python => python::packages(),
        RecipeBuilder::Script => &[],
    }
}

/// The script of a recipe that has none.
pub const fn script(builder: RecipeBuilder) -> &'static str {
    match builder {
        RecipeBuilder::Cargo => cargo::SCRIPT,
        RecipeBuilder::Npm => npm::SCRIPT,
        RecipeBuilder::Python => python::SCRIPT,
        RecipeBuilder::Script => "",
    }
}

/// Variables that a builder sets, and that a recipe's own override.
pub fn environment(builder: RecipeBuilder) -> BTreeMap<String, String> {
    let variables: &[(&str, &str)] = match builder {
        RecipeBuilder::Cargo => cargo::ENVIRONMENT,
        RecipeBuilder::Npm => npm::ENVIRONMENT,
        RecipeBuilder::Python => python::ENVIRONMENT,
        RecipeBuilder::Script => &[],
    };
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
