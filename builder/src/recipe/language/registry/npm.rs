//! Registries of npm packages, as npm is configured on this host.
//!
//! Configuration is npm's: the global `npmrc`, the user's, the project's, and variables. Where none
//! names a registry, npm itself is asked. A package's archive is asked for where registries keep it
//! by convention; one that keeps it elsewhere is asked for the package's document.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::{Address, Host, RegistryError, ask};
use crate::recipe::language::Dependency;
use crate::recipe::language::npm::{Settings, address, conventional_path};
use drystone_source::fetch::{Headers, shown};

/// The largest document of a package that is read, in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// The short form of a package's document, which npm itself asks for.
const ACCEPT: &str = "application/vnd.npm.install-v1+json, application/json;q=0.8";
const HELP: &str = "install npm, or write `registry=ADDRESS` into ~/.npmrc, or set \
    NPM_CONFIG_REGISTRY";
/// Where distributions and installers keep the global file.
const GLOBAL: [&str; 3] = ["/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"];

/// A package's document, as far as it matters.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    versions: std::collections::BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    dist: Distribution,
}

#[derive(Deserialize)]
struct Distribution {
    tarball: String,
}

/// Registries that packages are asked from.
pub(super) struct Npm<'a> {
    host: Host<'a>,
    settings: Option<Settings<'a>>,
    default: Option<Url>,
}

impl<'a> Npm<'a> {
    pub(super) fn new(host: Host<'a>) -> Self {
        Self { host, settings: None, default: None }
    }

    /// The address of a package's archive.
    pub(super) async fn addresses(
        &mut self,
        dependency: &Dependency,
    ) -> Result<Vec<Address>, RegistryError> {
        let registry = match self.settings()?.registry(&dependency.name) {
            Some(registry) => registry,
            None => self.default().await?,
        };
        let path = conventional_path(&dependency.name, &dependency.version);
        let url = registry.join(&path).map_err(|error| RegistryError::Configuration {
            place: format!("the npm registry {}", shown(&registry)),
            problem: error.to_string(),
        })?;
        Ok(vec![self.authorised(url)])
    }

    /// What a package's own document says, for registries that follow no convention.
    pub(super) async fn further(
        &self,
        dependency: &Dependency,
    ) -> Result<Vec<Address>, RegistryError> {
        let registry = self.settings.as_ref().and_then(|it| it.registry(&dependency.name));
        let Some(registry) = registry.or_else(|| self.default.clone()) else {
            return Ok(Vec::new());
        };
        let Ok(url) = registry.join(&dependency.name.replace('/', "%2f")) else {
            return Ok(Vec::new());
        };
        let mut headers = self.authorised(url.clone()).headers;
        headers.accept = Some(ACCEPT);
        let answer = self.host.downloader.fetch_document(&url, MOST_BYTES, &headers).await;
        let bytes = answer.map_err(|source| RegistryError::Fetch {
            registry: shown(&registry),
            source: Box::new(source),
        })?;
        let Some(bytes) = bytes else { return Ok(Vec::new()) };
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
            RegistryError::Answer { url: shown(&url), problem: error.to_string() }
        })?;
        let version = document.versions.get(&dependency.version);
        let archive = version.and_then(|version| url.join(&version.dist.tarball).ok());
        Ok(archive.into_iter().map(|url| self.authorised(url)).collect())
    }

    /// An address with the credentials that npm would send there.
    fn authorised(&self, url: Url) -> Address {
        let authorization = self.settings.as_ref().and_then(|it| it.authorization(&url));
        Address { url, headers: Headers { authorization, ..Headers::default() } }
    }

    fn settings(&mut self) -> Result<&Settings<'a>, RegistryError> {
        if self.settings.is_none() {
            let mut texts = Vec::new();
            for path in self.files() {
                texts.extend(super::text_of(&path)?);
            }
            let texts = texts.iter().map(String::as_str);
            self.settings = Some(Settings::read(texts, self.host.environment));
        }
        Ok(self.settings.as_ref().expect("they were just read"))
    }

    /// The configuration's files, the weakest first.
    fn files(&self) -> Vec<PathBuf> {
        let named = |lower: &str, upper: &str| {
            let value = (self.host.environment)(lower).or_else(|| (self.host.environment)(upper));
            value.filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        let mut files = match named("npm_config_globalconfig", "NPM_CONFIG_GLOBALCONFIG") {
            Some(file) => vec![file],
            None => GLOBAL.map(PathBuf::from).to_vec(),
        };
        files.extend(
            named("npm_config_userconfig", "NPM_CONFIG_USERCONFIG")
                .or_else(|| Some(self.host.home()?.join(".npmrc"))),
        );
        files.push(self.host.project.join(".npmrc"));
        files
    }

    /// The registry that npm asks when nothing is configured.
    async fn default(&mut self) -> Result<Url, RegistryError> {
        if let Some(url) = &self.default {
            return Ok(url.clone());
        }
        let what = "the npm registry";
        let answer = ask(self.host, what, HELP, &["npm", "config", "get", "registry"]).await?;
        let url = address(answer.trim()).ok_or_else(|| RegistryError::Unknown {
            registry: what.to_owned(),
            reason: Some("npm gave no address".to_owned()),
            help: HELP,
        })?;
        self.default = Some(url.clone());
        Ok(url)
    }
}
