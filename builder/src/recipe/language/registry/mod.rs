//! Where the files of dependencies are: what this host's tools are configured to ask.
//!
//! Here, and nowhere before, addresses come in. They are read from the tools' own configuration, so
//! mirrors and private registries work as they do for the tools, and none is known to this program.

mod cargo;
mod npm;
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use url::Url;

use super::{Dependency, Integrity, Question, Registry};
use drystone_source::fetch::{Downloader, FetchError, Headers};

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

/// An address, and what is sent there.
#[derive(Debug, Clone)]
pub struct Address {
    /// The address.
    pub url: Url,
    /// What is sent.
    pub headers: Headers,
}

impl From<Url> for Address {
    fn from(url: Url) -> Self {
        Self { url, headers: Headers::default() }
    }
}

/// All registries of this host; each is looked for when it is first asked.
pub struct Registries<'a> {
    crates: cargo::Crates<'a>,
    npm: npm::Npm<'a>,
    python: python::Python<'a>,
}

impl<'a> Registries<'a> {
    /// The registries that this host's tools are configured for.
    pub fn new(host: Host<'a>) -> Self {
        Self {
            crates: cargo::Crates::new(host),
            npm: npm::Npm::new(host),
            python: python::Python::new(host),
        }
    }

    /// The addresses of each dependency's file, best first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] when a registry's address is not known, or it does not answer.
    pub async fn addresses(
        &mut self,
        dependencies: Vec<Dependency>,
    ) -> Result<Vec<(Dependency, Vec<Address>)>, RegistryError> {
        let of_python = dependencies.iter().filter(|it| it.registry == Registry::Python);
        self.python.read_pages(of_python.map(|it| it.name.clone())).await?;
        let mut addresses = Vec::new();
        for dependency in dependencies {
            let found = match &dependency.registry {
                Registry::Crates(index) => {
                    let urls = self.crates.urls(index.as_deref(), &dependency).await?;
                    urls.into_iter().map(Address::from).collect()
                }
                Registry::Npm => self.npm.addresses(&dependency).await?,
                Registry::Python => self.python.addresses(&dependency)?,
                Registry::Address(url) => vec![Address::from(url.clone())],
            };
            addresses.push((dependency, found));
        }
        Ok(addresses)
    }

    /// Further addresses of a file that the first ones do not have.
    ///
    /// # Errors
    ///
    /// As [`Registries::addresses`].
    pub async fn further(&self, dependency: &Dependency) -> Result<Vec<Address>, RegistryError> {
        match &dependency.registry {
            Registry::Npm => self.npm.further(dependency).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The names of files that lockfiles know by their hashes alone.
    ///
    /// # Errors
    ///
    /// As [`Registries::addresses`].
    pub async fn file_names(
        &mut self,
        questions: &[Question],
    ) -> Result<BTreeMap<Integrity, String>, RegistryError> {
        self.python.read_pages(questions.iter().map(|it| it.name.clone())).await?;
        Ok(questions.iter().flat_map(|it| self.python.file_names(it)).collect())
    }
}

/// How long a tool may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a tool of this host prints, in a folder where no project configures it.
async fn ask(
    host: Host<'_>,
    registry: &str,
    help: &'static str,
    command: &[&str],
) -> Result<String, RegistryError> {
    let program = command[0];
    let unknown = |reason: String| RegistryError::Unknown {
        registry: registry.to_owned(),
        reason: Some(reason),
        help,
    };
    let running = tokio::process::Command::new(program)
        .args(&command[1..])
        .current_dir(host.temporary)
        .env("COLUMNS", "200")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(PATIENCE, running).await;
    let ended = ended.map_err(|_| unknown(format!("{program} did not answer in a minute")))?;
    let ended = ended.map_err(|error| unknown(format!("{program} cannot be run ({error})")))?;
    match ended.status.success() {
        true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        false => Err(unknown(format!("`{}` failed", command.join(" ")))),
    }
}

/// A file of a tool's configuration; one that is not there, or not for this user, says nothing.
fn text_of(path: &Path) -> Result<Option<String>, RegistryError> {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error)
            if matches!(
                error.kind(),
                NotFound | NotADirectory | PermissionDenied | IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(RegistryError::Read { path: path.to_owned(), source }),
    }
}
