//! One file of credentials: docker's `config.json`, or containers' `auth.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::Deserialize;

use super::Credential;
use super::helper::{self, HelperError};
use crate::reference::{Host, RepositoryName};

/// The key under which docker keeps Docker Hub's credentials.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The most bytes of a file that are read.
const MOST_BYTES: u64 = 8 << 20;

/// A file of credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{} is no file of credentials: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        reason: String,
    },
}

/// What of the file is used. There is no `Debug`: it holds secrets.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Clone, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// An entry that names a repository or its registry.
pub(super) enum Found {
    /// In the file itself.
    Known(Credential),
    /// In the keeping of a helper, under a key.
    Helper { program: String, key: String },
    /// An entry that cannot be read.
    Broken(&'static str),
}

impl Found {
    /// Asks the helper, if there is one.
    pub(super) fn resolve(self) -> Result<Option<Credential>, HelperError> {
        match self {
            Self::Known(credential) => Ok(Some(credential)),
            Self::Helper { program, key } => helper::get(&program, &key),
            Self::Broken(reason) => Err(HelperError::Entry(reason)),
        }
    }
}

impl AuthFile {
    /// Reads a file; one that is missing holds nothing.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Io { action: "read", path: path.to_owned(), source };
        let size = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let malformed = |reason: String| FileError::Malformed { path: path.to_owned(), reason };
        if size > MOST_BYTES {
            return Err(malformed("it is too large".to_owned()));
        }
        let text = fs::read(path).map_err(failed)?;
        // serde_json's messages may quote values, which are secrets here: only the place is told.
        serde_json::from_slice(&text)
            .map_err(|error| malformed(format!("line {} column {}", error.line(), error.column())))
    }

    /// The entry for a repository: helpers first, as docker and podman have it.
    pub(super) fn find(&self, host: &Host, name: Option<&RepositoryName>) -> Option<Found> {
        for key in keys(host, name) {
            let helper = self.cred_helpers.iter().find(|(have, _)| normalised(have) == key);
            if let Some((key, program)) = helper.filter(|(_, program)| !program.is_empty()) {
                let (program, key) = (program.clone(), key.clone());
                return Some(Found::Helper { program, key });
            }
            let entry = self.auths.iter().find(|(have, _)| normalised(have) == key);
            if let Some(found) = entry.and_then(|(_, entry)| entry.found()) {
                return Some(found);
            }
        }
        (!self.creds_store.is_empty())
            .then(|| Found::Helper { program: self.creds_store.clone(), key: helper_key(host) })
    }

    /// The helper that keeps a registry's credentials, if one does.
    pub(super) fn helper(&self, host: &Host) -> Option<&str> {
        let own = self.cred_helpers.iter().find(|(have, _)| normalised(have) == host.as_str());
        let program = own.map_or(self.creds_store.as_str(), |(_, program)| program);
        (!program.is_empty()).then_some(program)
    }
}

impl Entry {
    /// The credential of an entry; docker leaves empty entries where a helper keeps the secret.
    fn found(&self) -> Option<Found> {
        if !self.identitytoken.is_empty() {
            return Some(Found::Known(Credential::IdentityToken(self.identitytoken.clone())));
        }
        if !self.registrytoken.is_empty() {
            return Some(Found::Known(Credential::RegistryToken(self.registrytoken.clone())));
        }
        if !self.auth.is_empty() {
            let decoded = BASE64.decode(self.auth.trim().as_bytes()).ok();
            let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            return Some(match text.as_deref().and_then(|text| text.split_once(':')) {
                // Old versions of docker end the password with NUL.
                Some((user, password)) => {
                    Found::Known(Credential::new(user, password.trim_end_matches('\0')))
                }
                None => Found::Broken("its `auth` is not the base64 of USER:PASSWORD"),
            });
        }
        (!self.username.is_empty())
            .then(|| Found::Known(Credential::new(&self.username, &self.password)))
    }
}

/// The key for a registry that helpers and docker's file know.
pub(super) fn helper_key(host: &Host) -> String {
    match host.is_docker_hub() {
        true => DOCKER_HUB_KEY.to_owned(),
        false => host.to_string(),
    }
}

/// The keys that name a repository, longest first: `host/a/b`, `host/a`, `host`.
fn keys(host: &Host, name: Option<&RepositoryName>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut name = name.map(RepositoryName::as_str);
    while let Some(path) = name {
        keys.push(format!("{host}/{path}"));
        name = path.rsplit_once('/').map(|(parent, _)| parent);
    }
    keys.push(host.to_string());
    keys
}

/// A key as it is compared: old files hold addresses.
pub(super) fn normalised(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let is_address = bare.is_some();
    let bare = bare.unwrap_or(key).trim_end_matches('/');
    let bare = match is_address {
        true => bare.trim_end_matches("/v1").trim_end_matches("/v2"),
        false => bare,
    };
    let (host, path) = match bare.split_once('/') {
        // Docker Hub's key has a path even without a scheme.
        Some((host, "v1" | "v2")) => (host, None),
        Some((host, path)) => (host, Some(path)),
        None => (bare, None),
    };
    let host = Host::new(host).map_or_else(|_| host.to_owned(), |host| host.to_string());
    match path {
        Some(path) => format!("{host}/{path}"),
        None => host,
    }
}
