//! Indexes of Python packages, as pip and uv are configured on this host.
//!
//! An index has a page for each package, with the names and hashes of its files. Where no default
//! index is configured, pip itself is asked which it uses.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _};
use url::Url;

use super::{Address, Host, RegistryError, ask, text_of};
use crate::recipe::language::python::{
    ACCEPT, Indexes, OfferedFile, Texts, normalised, of_project, read_index,
};
use crate::recipe::language::{Dependency, Integrity, Question};
use drystone_source::fetch::{Headers, shown};

/// The largest page that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;
/// Pages that are asked for at once.
const PARALLEL: usize = 16;
const HELP: &str = "install pip, or write `index-url` into pip.conf or uv.toml, or set \
    PIP_INDEX_URL";

/// Indexes and the pages that were read of them.
pub(super) struct Python<'a> {
    host: Host<'a>,
    indexes: Option<Vec<Url>>,
    pages: BTreeMap<String, Vec<OfferedFile>>,
}

impl<'a> Python<'a> {
    pub(super) fn new(host: Host<'a>) -> Self {
        Self { host, indexes: None, pages: BTreeMap::new() }
    }

    /// Reads the pages of packages, all at once.
    pub(super) async fn read_pages(
        &mut self,
        names: impl Iterator<Item = String>,
    ) -> Result<(), RegistryError> {
        let mut names: Vec<String> = names.map(|name| normalised(&name)).collect();
        names.sort();
        names.dedup();
        names.retain(|name| !self.pages.contains_key(name));
        if names.is_empty() {
            return Ok(());
        }
        let indexes = self.indexes().await?;
        let (this, indexes) = (&*self, &indexes);
        let pages = futures_util::stream::iter(names)
            .map(async |name| {
                let mut files = Vec::new();
                for index in indexes {
                    files.extend(this.page(index, &name).await?);
                }
                Ok::<_, RegistryError>((name, files))
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        self.pages.extend(pages);
        Ok(())
    }

    /// Where a file is; its page was read.
    pub(super) fn addresses(&self, dependency: &Dependency) -> Result<Vec<Address>, RegistryError> {
        let files = self.pages.get(&normalised(&dependency.name)).into_iter().flatten();
        let integrity = &dependency.integrity;
        let found = files.filter(|file| file.name == dependency.file_name || has(file, integrity));
        let addresses: Vec<Address> = found.map(|file| Address::from(file.url.clone())).collect();
        match addresses.is_empty() {
            false => Ok(addresses),
            true => Err(RegistryError::Answer {
                url: self.names(),
                problem: format!("there is no {} of {dependency}", dependency.file_name),
            }),
        }
    }

    /// The names of files that are known by their hashes alone; pages were read.
    pub(super) fn file_names(&self, question: &Question) -> BTreeMap<Integrity, String> {
        let files = self.pages.get(&normalised(&question.name)).into_iter().flatten();
        let mut names = BTreeMap::new();
        for file in files {
            if let Some(wanted) = question.hashes.iter().find(|wanted| has(file, wanted)) {
                names.entry(wanted.clone()).or_insert_with(|| file.name.clone());
            }
        }
        names
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.indexes.iter().flatten().map(shown).collect();
        names.join(", ")
    }

    async fn page(&self, index: &Url, name: &str) -> Result<Vec<OfferedFile>, RegistryError> {
        let url =
            index.join(&format!("{name}/")).map_err(|error| RegistryError::Configuration {
                place: format!("the index {}", shown(index)),
                problem: error.to_string(),
            })?;
        let headers = Headers { accept: Some(ACCEPT), ..Headers::default() };
        let answer = self.host.downloader.fetch_document(&url, MOST_BYTES, &headers).await;
        let bytes = answer.map_err(|source| RegistryError::Fetch {
            registry: shown(index),
            source: Box::new(source),
        })?;
        let Some(bytes) = bytes else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&bytes);
        let mut files = read_index(&text, &url)
            .map_err(|problem| RegistryError::Answer { url: shown(&url), problem })?;
        for file in &mut files {
            authorise(&mut file.url, index);
        }
        Ok(files)
    }

    async fn indexes(&mut self) -> Result<Vec<Url>, RegistryError> {
        if let Some(indexes) = &self.indexes {
            return Ok(indexes.clone());
        }
        let mut indexes = Indexes::read(&self.texts()?, self.host.environment);
        if indexes.default.is_none() {
            let asked = self.ask_pip().await;
            match asked {
                Ok(url) => indexes.default = Some(url),
                // Further ones may be all that a host has.
                Err(error) if indexes.extra.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        self.indexes = Some(indexes.all());
        Ok(indexes.all())
    }

    /// The configuration's files.
    fn texts(&self) -> Result<Texts, RegistryError> {
        let variable = |name: &str| {
            let value = (self.host.environment)(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let home = self.host.home();
        let user = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let below = |folder: &Option<PathBuf>, file: &str| Some(folder.as_ref()?.join(file));
        let pip = [
            Some(PathBuf::from("/etc/xdg/pip/pip.conf")),
            Some(PathBuf::from("/etc/pip.conf")),
            below(&home, ".pip/pip.conf"),
            below(&user, "pip/pip.conf"),
            below(&variable("VIRTUAL_ENV"), "pip.conf"),
            variable("PIP_CONFIG_FILE"),
        ];
        let project = self.host.project;
        let uv = [
            Some(PathBuf::from("/etc/uv/uv.toml")),
            below(&user, "uv/uv.toml"),
            Some(project.join("uv.toml")),
            variable("UV_CONFIG_FILE"),
        ];
        let read = |files: &[Option<PathBuf>]| -> Result<Vec<String>, RegistryError> {
            let texts = files.iter().flatten().map(|file: &PathBuf| text_of(file));
            texts.filter_map(Result::transpose).collect()
        };
        let mut texts = Texts { pip: read(&pip)?, uv: read(&uv)? };
        let of_this = text_of(&project.join("pyproject.toml"))?.and_then(|text| of_project(&text));
        texts.uv.extend(of_this);
        Ok(texts)
    }

    /// The index that pip asks when nothing is configured, as its help says.
    async fn ask_pip(&self) -> Result<Url, RegistryError> {
        let what = "the Python index";
        let help =
            ask(self.host, what, HELP, &["python3", "-m", "pip", "install", "--help"]).await?;
        default_of(&help).ok_or_else(|| RegistryError::Unknown {
            registry: what.to_owned(),
            reason: Some("pip's help names none".to_owned()),
            help: HELP,
        })
    }
}

/// Whether an index says that a file has a hash.
fn has(file: &OfferedFile, wanted: &Integrity) -> bool {
    let digits = file.hashes.get(wanted.algorithm().as_str());
    digits.is_some_and(|digits| digits.eq_ignore_ascii_case(&wanted.to_hex()))
}

/// The default that pip's help states for `--index-url`.
fn default_of(help: &str) -> Option<Url> {
    let (_, text) = help.split_once("--index-url")?;
    let (_, text) = text.split_once("(default")?;
    let (text, _) = text.split_once(')')?;
    let address: String = text.split_whitespace().collect();
    Url::parse(&format!("{}/", address.trim_end_matches('/'))).ok()
}

/// Credentials in an index's address are for its files as well, where these are on the same host.
fn authorise(url: &mut Url, index: &Url) {
    if url.origin() == index.origin() && url.username().is_empty() && !index.username().is_empty() {
        // Both fail only for addresses that cannot hold credentials.
        let _ = url.set_username(index.username());
        let _ = url.set_password(index.password());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pips_help_names_its_default() {
        let help = "  -i, --index-url <url>       Base URL of the Python Package Index (default\n   \
                    https://index.example.com/simple). This should point to\n  --extra-index-url";
        assert_eq!(default_of(help).unwrap().as_str(), "https://index.example.com/simple/");
        assert_eq!(default_of("nothing"), None);
    }

    #[test]
    fn credentials_stay_on_their_host() {
        let index = Url::parse("https://ann:secret@index.example.com/simple/").unwrap();
        let with = |address: &str| {
            let mut url = Url::parse(address).unwrap();
            authorise(&mut url, &index);
            url.to_string()
        };
        assert_eq!(
            with("https://index.example.com/files/a.whl"),
            "https://ann:secret@index.example.com/files/a.whl"
        );
        for other in ["https://files.example.com/a.whl", "http://index.example.com/a.whl"] {
            assert_eq!(with(other), other);
        }
    }
}
