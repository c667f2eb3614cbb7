//! Credentials for registries, as docker and podman keep them.
//!
//! ```text
//! REGISTRY_AUTH_FILE                          podman, skopeo: named on purpose
//! DOCKER_CONFIG or ~/.docker /config.json     docker; what `drystone login` writes
//! XDG_RUNTIME_DIR/containers/auth.json        podman login
//! XDG_CONFIG_HOME or ~/.config /containers/auth.json
//! ```
//!
//! The first file that has an entry decides; within one, the longest key that names the repository,
//! its namespace or its registry. A helper that fails is a warning and means no credentials: public
//! images must not become unreachable because somebody's keychain is locked.

mod file;
mod helper;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::reference::{Host, RepositoryName};
pub use file::FileError;
pub use store::{CredentialStore, StoreError, Stored};

/// A user name and a secret. Its `Debug` form shows neither secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token to be exchanged for others.
    IdentityToken(String),
    /// A token that is sent to the registry as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "the password of {user}"),
            Self::IdentityToken(_) => f.write_str("an identity token"),
            Self::RegistryToken(_) => f.write_str("a registry token"),
        }
    }
}

/// The user name that marks a secret as an identity token.
const TOKEN_USER: &str = "<token>";

impl Credential {
    /// A user name and its secret, as helpers give them.
    pub fn new(user: &str, secret: &str) -> Self {
        match user {
            TOKEN_USER => Self::IdentityToken(secret.to_owned()),
            user => Self::Password { user: user.to_owned(), password: secret.to_owned() },
        }
    }
}

/// Where credentials are looked for.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    fixed: Option<(Host, Credential)>,
    files: Arc<[PathBuf]>,
}

impl Credentials {
    /// Looks in the files that the environment names.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let home = |rest: &str| Some(PathBuf::from(set("HOME")?).join(rest));
        let below = |name: &str, rest: &str| Some(PathBuf::from(set(name)?).join(rest));
        let files = [
            set("REGISTRY_AUTH_FILE").map(PathBuf::from),
            docker_config(environment),
            below("XDG_RUNTIME_DIR", "containers/auth.json"),
            below("XDG_CONFIG_HOME", "containers/auth.json")
                .or_else(|| home(".config/containers/auth.json")),
        ];
        Self { fixed: None, files: files.into_iter().flatten().collect() }
    }

    /// Uses one credential for one registry and none elsewhere.
    pub fn fixed(host: Host, credential: Credential) -> Self {
        Self { fixed: Some((host, credential)), files: Arc::default() }
    }

    /// The credential for a repository. Files and helpers are read each time; this blocks.
    pub fn find(&self, host: &Host, name: Option<&RepositoryName>) -> Option<Credential> {
        if let Some((fixed, credential)) = &self.fixed {
            return (fixed == host).then(|| credential.clone());
        }
        for path in self.files.iter() {
            let found = file::AuthFile::read(path).map(|file| file.find(host, name));
            match found {
                Ok(Some(found)) => match found.resolve() {
                    Ok(Some(credential)) => return Some(credential),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(
                        "{}: {error}; going on without credentials for {host}",
                        path.display()
                    ),
                },
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}; going on without it"),
            }
        }
        None
    }
}

/// Docker's own file of credentials.
pub(crate) fn docker_config(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let folder = set("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(set("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

#[cfg(test)]
mod tests;
