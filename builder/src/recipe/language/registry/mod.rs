//! Where the files of dependencies are: what this host's tools are configured to ask.
//!
//! Here, and nowhere before, addresses come in. They are read from the tools' own configuration, so
//! mirrors and private registries work as they do for the tools, and none is known to this program.

mod cargo;

use std::path::{Path, PathBuf};

use url::Url;

use super::{Dependency, Registry};
use crate::source::fetch::{Downloader, FetchError};

/// Why it is not known where files are.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A tool's configuration cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tool's configuration is wrong.
    #[error("{place}: {problem}")]
    Configuration {
        /// The file, or the variable.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing says where the registry is.
    #[error("nothing on this host says where {registry} is{}", because(reason))]
    Unknown {
        /// The registry, in words.
        registry: String,
        /// Why the tool did not say.
        reason: Option<String>,
        /// How to say it.
        help: &'static str,
    },
    /// The registry is of a kind that is not supported.
    #[error("{registry} is {kind}, which is not supported")]
    Kind {
        /// The registry, without credentials.
        registry: String,
        /// Its kind.
        kind: &'static str,
        /// What to do instead.
        help: &'static str,
    },
    /// It does not answer as registries do.
    #[error("{url}: {problem}")]
    Answer {
        /// The address, without credentials.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// It could not be asked.
    #[error("cannot ask {registry}")]
    Fetch {
        /// The registry, in words.
        registry: String,
        /// Why.
        source: Box<FetchError>,
    },
}

impl RegistryError {
    /// What would mend it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { help, .. } | Self::Kind { help, .. } => Some(help),
            _ => None,
        }
    }
}

fn because(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// What is known of this host.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The folder from which tools look upwards for a project's own configuration.
    pub project: &'a Path,
    /// Reads a variable of the environment.
    pub environment: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// A folder for what lives as long as the question.
    pub temporary: &'a Path,
    /// Asks registries.
    pub downloader: &'a Downloader,
}

impl Host<'_> {
    fn home(&self) -> Option<PathBuf> {
        (self.environment)("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
    }
}

/// The addresses of each dependency's file, best first.
///
/// # Errors
///
/// [`RegistryError`] when a registry's address is not known, or it does not answer.
pub async fn addresses(
    host: Host<'_>,
    dependencies: Vec<Dependency>,
) -> Result<Vec<(Dependency, Vec<Url>)>, RegistryError> {
    let mut crates = cargo::Crates::new(host);
    let mut addresses = Vec::new();
    for dependency in dependencies {
        let urls = match &dependency.registry {
            Registry::Crates(index) => crates.urls(index.as_deref(), &dependency).await?,
        };
        addresses.push((dependency, urls));
    }
    Ok(addresses)
}
