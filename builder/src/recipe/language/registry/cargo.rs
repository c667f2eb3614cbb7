//! Registries of crates, as cargo is configured on this host.
//!
//! ```text
//! crates-io ─ [source.crates-io] replace-with ─ [source.X] / [registries.X] ─ sparse index ─ config.json ─ dl
//!     └───── nothing configured: cargo itself is asked which index it uses
//! ```
//!
//! Configuration is cargo's: `.cargo/config.toml` from the project's folder upwards, then that of
//! `CARGO_HOME`, and `CARGO_REGISTRIES_NAME_INDEX`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};
use url::Url;

use super::{Host, RegistryError};
use crate::recipe::language::Dependency;
use drystone_source::fetch::shown;

/// Cargo's name of its default registry.
const DEFAULT: &str = "crates-io";
/// The largest `config.json` that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;
/// How often one source may be replaced by another.
const MOST_REPLACEMENTS: usize = 16;
/// How long cargo may take to say where its default registry is.
const PATIENCE: Duration = Duration::from_secs(60);
const HELP: &str = "install cargo, or write [source.crates-io] replace-with = \"NAME\" and \
    [source.NAME] registry = \"sparse+https://…\" into cargo's config.toml";

/// An index's `config.json`.
#[derive(Debug, Clone, Deserialize)]
struct Index {
    dl: String,
    #[serde(default, rename = "auth-required")]
    needs_credentials: bool,
}

/// Where crates of one registry are.
#[derive(Debug, Clone)]
enum Place {
    /// A template, or the beginning, of addresses.
    Download(String),
    /// A folder with `NAME-VERSION.crate`.
    Folder(PathBuf),
}

/// Registries that were asked about so far.
pub(super) struct Crates<'a> {
    host: Host<'a>,
    configuration: Option<Table>,
    places: BTreeMap<Option<String>, Place>,
}

impl<'a> Crates<'a> {
    pub(super) fn new(host: Host<'a>) -> Self {
        Self { host, configuration: None, places: BTreeMap::new() }
    }

    /// The address of a crate in the registry that a lockfile names; the default one otherwise.
    pub(super) async fn urls(
        &mut self,
        index: Option<&str>,
        dependency: &Dependency,
    ) -> Result<Vec<Url>, RegistryError> {
        let key = index.map(str::to_owned);
        if !self.places.contains_key(&key) {
            let place = self.place(index, dependency).await?;
            self.places.insert(key.clone(), place);
        }
        match &self.places[&key] {
            Place::Download(template) => address(template, dependency).map(|url| vec![url]),
            Place::Folder(folder) => {
                let path = folder.join(&dependency.file_name);
                let url =
                    Url::from_file_path(&path).map_err(|()| RegistryError::Configuration {
                        place: path.display().to_string(),
                        problem: "it is no absolute path".to_owned(),
                    })?;
                Ok(vec![url])
            }
        }
    }

    async fn place(
        &mut self,
        index: Option<&str>,
        dependency: &Dependency,
    ) -> Result<Place, RegistryError> {
        if self.configuration.is_none() {
            self.configuration = Some(configuration(self.host)?);
        }
        let table = self.configuration.as_ref().expect("it was just read");
        match settle(table, self.host, index)? {
            Settled::Index(address) => self.ask(&address).await,
            Settled::Folder(folder) => Ok(Place::Folder(folder)),
            Settled::Default => {
                let index = ask_cargo(self.host, dependency).await?;
                checked(&index, "cargo's default registry")
            }
        }
    }

    /// Asks an index where its crates are.
    async fn ask(&self, address: &str) -> Result<Place, RegistryError> {
        let wrong = |problem: String| RegistryError::Configuration {
            place: format!("the registry {address}"),
            problem,
        };
        let Some(address) = address.strip_prefix("sparse+") else {
            let url = address.strip_prefix("registry+").unwrap_or(address);
            let registry = Url::parse(url).map_or(url.to_owned(), |url| shown(&url));
            return Err(RegistryError::Kind {
                registry,
                kind: "an index in git",
                help: "replace it by a sparse index in cargo's config.toml: [source.NAME] registry \
                       = \"…\", replace-with = \"SPARSE\"",
            });
        };
        let base = Url::parse(address).map_err(|error| wrong(error.to_string()))?;
        let url = base.join("config.json").map_err(|error| wrong(error.to_string()))?;
        let registry = shown(&base);
        let bytes = self.host.downloader.fetch_bytes(&url, MOST_BYTES).await;
        let bytes = bytes.map_err(|source| RegistryError::Fetch {
            registry: registry.clone(),
            source: Box::new(source),
        })?;
        let answer = |problem: String| RegistryError::Answer { url: shown(&url), problem };
        let bytes = bytes.ok_or_else(|| answer("there is no such file".to_owned()))?;
        let index: Index =
            serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))?;
        checked(&index, &registry)
    }
}

fn checked(index: &Index, registry: &str) -> Result<Place, RegistryError> {
    match index.needs_credentials {
        false => Ok(Place::Download(index.dl.clone())),
        true => Err(RegistryError::Kind {
            registry: registry.to_owned(),
            kind: "a registry that wants a token",
            help: "vendor its crates into the source, or serve them to this host without",
        }),
    }
}

/// What the configuration makes of a registry.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Index(String),
    Folder(PathBuf),
    Default,
}

/// Follows replacements to where they end.
fn settle(table: &Table, host: Host<'_>, index: Option<&str>) -> Result<Settled, RegistryError> {
    let sources = table.get("source").and_then(Value::as_table);
    let source = |name: &str| sources.and_then(|it| it.get(name)).and_then(Value::as_table);
    let plain = |text: &str| text.strip_prefix("registry+").unwrap_or(text).to_owned();
    let mut name = match index {
        None => DEFAULT.to_owned(),
        Some(index) => {
            let is_it = |table: &Table| text(table, "registry").map(plain) == Some(plain(index));
            let named = sources
                .into_iter()
                .flatten()
                .find(|(_, source)| source.as_table().is_some_and(is_it));
            match named {
                Some((name, _)) => name.clone(),
                None => return Ok(Settled::Index(index.to_owned())),
            }
        }
    };
    for _ in 0..MOST_REPLACEMENTS {
        if let Some(next) = source(&name).and_then(|source| text(source, "replace-with")) {
            name = next.to_owned();
            continue;
        }
        return end(&name, source(&name), table, host);
    }
    Err(RegistryError::Configuration {
        place: format!("cargo's config.toml, source {name}"),
        problem: "sources replace each other in a circle".to_owned(),
    })
}

/// Where the last source of a chain is.
fn end(
    name: &str,
    source: Option<&Table>,
    table: &Table,
    host: Host<'_>,
) -> Result<Settled, RegistryError> {
    let place = format!("cargo's config.toml, source {name}");
    if let Some(source) = source {
        if let Some(registry) = text(source, "registry") {
            return Ok(Settled::Index(registry.to_owned()));
        }
        if let Some(folder) = text(source, "local-registry") {
            return Ok(Settled::Folder(PathBuf::from(folder)));
        }
        if text(source, "directory").is_some() || text(source, "git").is_some() {
            return Err(RegistryError::Kind {
                registry: place,
                kind: "a folder of unpacked crates, or a git repository",
                help: "name a registry or a `local-registry` there: what is fetched must have the \
                       lockfile's hash",
            });
        }
    }
    let variable =
        format!("CARGO_REGISTRIES_{}_INDEX", name.to_ascii_uppercase().replace('-', "_"));
    let registries = table.get("registries").and_then(Value::as_table);
    let registry = registries.and_then(|it| it.get(name)).and_then(Value::as_table);
    let configured = registry.and_then(|it| text(it, "index")).map(str::to_owned);
    match (host.environment)(&variable).or(configured) {
        Some(index) => Ok(Settled::Index(index)),
        None if name == DEFAULT => Ok(Settled::Default),
        None => {
            let problem = "it has neither a registry nor a local-registry".to_owned();
            Err(RegistryError::Configuration { place, problem })
        }
    }
}

fn text<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    table.get(key).and_then(Value::as_str)
}

fn cargo_home(host: Host<'_>) -> Option<PathBuf> {
    let named = (host.environment)("CARGO_HOME").filter(|home| !home.is_empty());
    named.map(PathBuf::from).or_else(|| Some(host.home()?.join(".cargo")))
}

/// Cargo's configuration of sources and registries; the nearest file counts.
fn configuration(host: Host<'_>) -> Result<Table, RegistryError> {
    let project = std::path::absolute(host.project);
    let project = project.unwrap_or_else(|_| host.project.to_owned());
    let mut folders: Vec<PathBuf> =
        project.ancestors().map(|folder| folder.join(".cargo")).collect();
    folders.extend(cargo_home(host));
    let mut merged = Table::new();
    for folder in folders {
        if let Some(table) = read(&folder)? {
            merge(&mut merged, table);
        }
    }
    Ok(merged)
}

/// The configuration of one folder, with paths made absolute.
fn read(folder: &Path) -> Result<Option<Table>, RegistryError> {
    for name in ["config", "config.toml"] {
        let path = folder.join(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::IsADirectory
                ) =>
            {
                continue;
            }
            Err(source) => return Err(RegistryError::Read { path, source }),
        };
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let problem = error.to_string().trim_end().to_owned();
            RegistryError::Configuration { place: path.display().to_string(), problem }
        })?;
        let sources = table.get_mut("source").and_then(Value::as_table_mut);
        for (_, source) in sources.into_iter().flatten() {
            // Relative to the folder above `.cargo`.
            if let Some(Value::String(local)) = source.get_mut("local-registry") {
                *local = folder.parent().unwrap_or(folder).join(&*local).display().to_string();
            }
        }
        return Ok(Some(table));
    }
    Ok(None)
}

/// Adds what is not there yet.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (Some(_), _) => {}
            (None, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The address of a crate's file: markers are replaced, or cargo's usual end is added.
fn address(template: &str, dependency: &Dependency) -> Result<Url, RegistryError> {
    let markers = ["{crate}", "{version}", "{prefix}", "{lowerprefix}", "{sha256-checksum}"];
    let text = match markers.iter().any(|marker| template.contains(marker)) {
        true => template
            .replace("{crate}", &dependency.name)
            .replace("{version}", &dependency.version)
            .replace("{prefix}", &prefix(&dependency.name))
            .replace("{lowerprefix}", &prefix(&dependency.name.to_ascii_lowercase()))
            .replace("{sha256-checksum}", &dependency.integrity.to_hex()),
        false => format!(
            "{}/{}/{}/download",
            template.trim_end_matches('/'),
            dependency.name,
            dependency.version
        ),
    };
    Url::parse(&text).map_err(|error| RegistryError::Configuration {
        place: format!("the registry's address of {dependency}"),
        problem: error.to_string(),
    })
}

/// The folders in which an index keeps a crate.
fn prefix(name: &str) -> String {
    match name.len() {
        0..=2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

/// Lets cargo look for a version that no crate has, in a home of its own: what it keeps there of the
/// index says where crates are.
async fn ask_cargo(host: Host<'_>, dependency: &Dependency) -> Result<Index, RegistryError> {
    let unknown = |reason: String| RegistryError::Unknown {
        registry: "cargo's default registry".to_owned(),
        reason: Some(reason),
        help: HELP,
    };
    let io = |path: &Path, source| RegistryError::Read { path: path.to_owned(), source };
    let folder = tempfile::tempdir_in(host.temporary).map_err(|error| io(host.temporary, error))?;
    let (project, home) = (folder.path().join("project"), folder.path().join("home"));
    let manifest = format!(
        "[package]\nname = \"question\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [workspace]\n[dependencies]\n{} = \"=999999.0.0\"\n",
        dependency.name
    );
    std::fs::create_dir_all(project.join("src")).map_err(|error| io(&project, error))?;
    for (name, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", "")] {
        std::fs::write(project.join(name), text).map_err(|error| io(&project, error))?;
    }
    let program = (host.environment)("CARGO").unwrap_or_else(|| "cargo".to_owned());
    let running = tokio::process::Command::new(&program)
        .arg("generate-lockfile")
        .current_dir(&project)
        .env("CARGO_HOME", &home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(PATIENCE, running).await;
    let ended = ended.map_err(|_| unknown(format!("{program} did not answer in a minute")))?;
    let ended = ended.map_err(|error| unknown(format!("{program} cannot be run ({error})")))?;
    let kept = std::fs::read_dir(home.join("registry/index")).into_iter().flatten().flatten();
    let found = kept.map(|entry| entry.path().join("config.json")).find(|path| path.is_file());
    let Some(path) = found else {
        let text = String::from_utf8_lossy(&ended.stderr);
        let last =
            text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(unknown(format!("{program} did not tell: {}", last.trim())));
    };
    let bytes = std::fs::read(&path).map_err(|error| io(&path, error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| unknown(format!("what {program} keeps of its index: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::language::{Algorithm, Integrity, Registry};
    use drystone_source::fetch::{Downloader, Settings};

    fn dependency(name: &str) -> Dependency {
        Dependency {
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            integrity: Integrity::from_hex(Algorithm::Sha256, &"ab".repeat(32)).unwrap(),
            registry: Registry::Crates(None),
            file_name: format!("{name}-1.2.3.crate"),
        }
    }

    #[test]
    fn addresses_follow_the_template() {
        let of =
            |template: &str, name: &str| address(template, &dependency(name)).unwrap().to_string();
        assert_eq!(of("http://h/dl/", "serde"), "http://h/dl/serde/1.2.3/download");
        assert_eq!(
            of("http://h/{prefix}/{lowerprefix}/{crate}-{version}.crate", "Serde"),
            "http://h/Se/rd/se/rd/Serde-1.2.3.crate"
        );
        assert_eq!(of("http://h/{prefix}/{crate}", "abc"), "http://h/3/a/abc");
        assert_eq!(of("http://h/{prefix}/{crate}", "ab"), "http://h/2/ab");
        assert_eq!(of("http://h/{sha256-checksum}", "ab"), format!("http://h/{}", "ab".repeat(32)));
        assert!(address("no address", &dependency("a")).is_err());
    }

    #[test]
    fn replacements_are_followed_to_their_end() {
        let downloader = Downloader::new(Settings::default());
        let environment = |name: &str| {
            (name == "CARGO_REGISTRIES_MY_MIRROR_INDEX").then(|| "sparse+http://e/".to_owned())
        };
        let host = Host {
            project: Path::new("/nowhere"),
            environment: &environment,
            temporary: Path::new("/nowhere"),
            downloader: &downloader,
        };
        let of = |text: &str, index: Option<&str>| {
            settle(&text.parse().unwrap(), host, index).map_err(|error| error.to_string())
        };
        let index = |text: &str| Ok(Settled::Index(text.to_owned()));
        assert_eq!(of("", None), Ok(Settled::Default));
        let chain = "[source.crates-io]\nreplace-with='a'\n[source.a]\nreplace-with='b'\n\
            [source.b]\nregistry='sparse+http://b/'";
        assert_eq!(of(chain, None), index("sparse+http://b/"));
        let by_name =
            "[source.crates-io]\nreplace-with='c'\n[registries.c]\nindex='sparse+http://c/'";
        assert_eq!(of(by_name, None), index("sparse+http://c/"));
        let variable = "[source.crates-io]\nreplace-with='my-mirror'";
        assert_eq!(of(variable, None), index("sparse+http://e/"));
        let local = "[source.crates-io]\nreplace-with='l'\n[source.l]\nlocal-registry='/l'";
        assert_eq!(of(local, None), Ok(Settled::Folder("/l".into())));
        assert_eq!(of(chain, Some("sparse+http://o/")), index("sparse+http://o/"));
        let other = "[source.x]\nregistry='http://git/'\nreplace-with='y'\n\
            [source.y]\nregistry='sparse+http://y/'";
        assert_eq!(of(other, Some("registry+http://git/")), index("sparse+http://y/"));
        let circle = "[source.crates-io]\nreplace-with='a'\n[source.a]\nreplace-with='crates-io'";
        assert!(of(circle, None).unwrap_err().contains("in a circle"));
        let nothing = "[source.crates-io]\nreplace-with='a'";
        assert!(of(nothing, None).unwrap_err().contains("neither a registry nor"));
    }

    #[test]
    fn the_nearest_configuration_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/b/.cargo/config.toml", "[source.x]\nlocal-registry = 'crates'");
        write("home/config.toml", "[source.x]\nlocal-registry = '/far'\n[source.y]\nregistry='r'");
        let downloader = Downloader::new(Settings::default());
        let home = folder.path().join("home").display().to_string();
        let environment = |name: &str| (name == "CARGO_HOME").then(|| home.clone());
        let project = folder.path().join("a/b");
        let host = Host {
            project: &project,
            environment: &environment,
            temporary: folder.path(),
            downloader: &downloader,
        };
        let table = configuration(host).unwrap();
        let near = project.join("crates").display().to_string();
        assert_eq!(table["source"]["x"]["local-registry"].as_str(), Some(near.as_str()));
        assert_eq!(table["source"]["y"]["registry"].as_str(), Some("r"));
        write("a/b/.cargo/config.toml", "[source");
        let error = configuration(host).unwrap_err();
        assert!(error.to_string().contains("a/b/.cargo/config.toml"), "{error}");
    }
}
