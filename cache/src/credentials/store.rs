//! Where `login` puts credentials and `logout` takes them from: docker's own file, or its helper.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::file::{AuthFile, FileError, helper_key, normalised};
use super::helper::{self, HelperError};
use crate::reference::Host;

/// Credentials that could not be kept or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The helper that the file names.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// No variable says where the file is.
    #[error("neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Into the file, where everyone with this user's rights can read them.
    File(PathBuf),
    /// Into the keeping of a helper.
    Helper(String),
}

/// Docker's file of credentials.
#[derive(Debug, Clone)]
pub struct CredentialStore {
    path: PathBuf,
}

impl CredentialStore {
    /// The file that the environment means.
    ///
    /// # Errors
    /// An environment without DOCKER_CONFIG and HOME.
    pub fn from_environment(
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let path = super::docker_config(environment).ok_or(StoreError::NoPlace)?;
        Ok(Self { path })
    }

    /// Keeps a user name and a password. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read or written; a helper that fails.
    pub fn login(&self, host: &Host, user: &str, password: &str) -> Result<Stored, StoreError> {
        let key = helper_key(host);
        if let Some(program) = AuthFile::read(&self.path)?.helper(host) {
            helper::store(program, &key, user, password)?;
            return Ok(Stored::Helper(program.to_owned()));
        }
        let auth = BASE64.encode(format!("{user}:{password}").as_bytes());
        self.change(|auths| {
            auths.retain(|have, _| normalised(have) != host.as_str());
            auths.insert(key, json!({ "auth": auth }));
        })?;
        Ok(Stored::File(self.path.clone()))
    }

    /// Forgets what is kept for a registry; `false` when there was nothing. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read or written; a helper that fails.
    pub fn logout(&self, host: &Host) -> Result<bool, StoreError> {
        let mut had = false;
        if let Some(program) = AuthFile::read(&self.path)?.helper(host) {
            had = helper::get(program, &helper_key(host))?.is_some();
            if had {
                helper::erase(program, &helper_key(host))?;
            }
        }
        if self.path.exists() {
            self.change(|auths| {
                let before = auths.len();
                auths.retain(|have, _| normalised(have) != host.as_str());
                had |= auths.len() < before;
            })?;
        }
        Ok(had)
    }

    /// Changes `auths` and nothing else of the file, which is replaced as a whole.
    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), FileError> {
        let malformed =
            |reason: &str| FileError::Malformed { path: self.path.clone(), reason: reason.into() };
        let mut config: Map<String, Value> = match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|_| malformed("it is no object"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(self.failed("read")(error)),
        };
        let auths = config.entry("auths").or_insert_with(|| json!({}));
        change(auths.as_object_mut().ok_or_else(|| malformed("its `auths` is no object"))?);
        let mut text =
            serde_json::to_vec_pretty(&config).expect("what was read as JSON can be written");
        text.push(b'\n');
        self.write(&text)
    }

    /// A file that only its owner may read, whole or not at all. A link to a file stays a link.
    fn write(&self, text: &[u8]) -> Result<(), FileError> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder).map_err(self.failed("create the folder of"))?;
        // Temporary files are made with mode 0600.
        let mut temporary = tempfile::Builder::new()
            .prefix(".config.json-")
            .tempfile_in(folder)
            .map_err(self.failed("write"))?;
        temporary.write_all(text).map_err(self.failed("write"))?;
        temporary.as_file().sync_all().map_err(self.failed("write"))?;
        temporary.persist(&path).map_err(|error| self.failed("write")(error.error))?;
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> FileError {
        let path = self.path.clone();
        move |source| FileError::Io { action, path, source }
    }
}
