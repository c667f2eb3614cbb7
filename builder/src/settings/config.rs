//! The two config.toml files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::{self, Diagnostic, Diagnostics, Key, Schema, SourceText, Table, ValueError};
use crate::spec::{CacheAddress, Compression, address};

use super::origin::Origin;

const fn key(name: &'static str, expects: &'static str, example: &'static str) -> Key {
    Key { name, expects, example }
}

fn all() -> &'static [&'static Schema] {
    static ALL: [&Schema; 1] = [&CONFIG];
    &ALL
}

/// The keys of a config.toml.
pub(super) static CONFIG: Schema = Schema {
    title: "",
    keys: &[
        key("store", "a path, a string", r#"store = "/srv/drystone""#),
        key("mirror", "an address, a string", r#"mirror = "https://packages.example.com/debian""#),
        key(
            "security-mirror",
            "an address, a string",
            r#"security-mirror = "https://packages.example.com/debian-security""#,
        ),
        key("cache", "a list of addresses", r#"cache = ["registry.example.com/team/cache"]"#),
        key("signing-key", "a path or NAME:BASE64", r#"signing-key = "builder.key""#),
        key("trusted-keys", "a list of paths or of NAME:BASE64", r#"trusted-keys = ["team.pub"]"#),
        key("revoked-keys", "a list of paths or of NAME:BASE64", r#"revoked-keys = ["old.pub"]"#),
        key("threshold", "a number", "threshold = 1"),
        key("jobs", "a number", "jobs = 4"),
        key("log", "a filter, a string", r#"log = "info""#),
        key("keyring", "a path, a string", r#"keyring = "archive.gpg""#),
        key("compression", "\"gzip\" or \"zstd\"", r#"compression = "zstd""#),
    ],
    reserved: &[],
    family: all,
};

/// The texts of the config files that exist.
#[derive(Debug, Clone, Default)]
pub struct ConfigFiles {
    /// The user's: `$XDG_CONFIG_HOME/drystone/config.toml`, or what `DRYSTONE_CONFIG` names.
    pub user: Option<Arc<SourceText>>,
    /// The system's: `/etc/drystone/config.toml`.
    pub system: Option<Arc<SourceText>>,
}

impl ConfigFiles {
    /// Where the user's config.toml is, whether or not it exists: what `key trust` writes to.
    ///
    /// `None` when neither `DRYSTONE_CONFIG`, `XDG_CONFIG_HOME` nor `HOME` is set.
    pub fn user_path(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let set = |name| environment(name).filter(|value| !value.is_empty());
        if let Some(path) = set("DRYSTONE_CONFIG") {
            return Some(PathBuf::from(path));
        }
        // The XDG Base Directory specification has relative paths ignored.
        let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        let folder = set("XDG_CONFIG_HOME").and_then(absolute);
        let folder = folder.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
        folder.map(|folder| folder.join("drystone/config.toml"))
    }

    /// Reads the files that exist. One that `DRYSTONE_CONFIG` names must.
    pub fn read(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Diagnostics> {
        let named = environment("DRYSTONE_CONFIG").is_some_and(|path| !path.is_empty());
        let user = match Self::user_path(environment) {
            Some(path) => read(&path, named)?,
            None => None,
        };
        Ok(Self { user, system: read(Path::new("/etc/drystone/config.toml"), false)? })
    }
}

fn read(path: &Path, required: bool) -> Result<Option<Arc<SourceText>>, Diagnostics> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(SourceText::new(path.display().to_string(), text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            let problem = Diagnostic::nowhere(message);
            Err(match required {
                true => problem.with_help("DRYSTONE_CONFIG names this file").into(),
                false => problem.into(),
            })
        }
    }
}

/// One value as typed somewhere: a list, since some settings are one.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) texts: Vec<String>,
    pub(super) origin: Origin,
    /// The folder that relative paths start from: empty is the working folder.
    pub(super) base: PathBuf,
    /// Where to point when the value is wrong.
    pub(super) place: Option<(Arc<SourceText>, document::Place)>,
}

/// The most keys that can be asked to agree.
pub(super) const MOST_KEYS: i64 = 100;
/// More steps at once help no machine, and are surely a slip.
pub(super) const MOST_JOBS: i64 = 4096;

/// Checks a value here, where all problems of one file are told together.
fn checked(key: &str, text: &str) -> Result<String, ValueError> {
    match key {
        "mirror" | "security-mirror" => address(text).map(drop)?,
        "cache" => CacheAddress::new(text, true).map(drop)?,
        "compression" => Compression::new(text).map(drop)?,
        _ => {}
    }
    Ok(text.to_owned())
}

/// What one config.toml says, by key: all of it is checked, also what another level overrides.
pub(super) fn typed(source: &Arc<SourceText>) -> Result<Vec<(&'static str, Typed)>, Diagnostics> {
    document::read(source, &CONFIG, None, |table| Some(entries(table, source)))
}

fn entries(table: &Table<'_>, source: &Arc<SourceText>) -> Vec<(&'static str, Typed)> {
    let base = Path::new(source.name()).parent().unwrap_or(Path::new("")).to_owned();
    let entries = CONFIG.keys.iter().filter_map(|key| {
        let value = table.get(key.name)?;
        let place = value.place();
        let texts = match key.name {
            "cache" | "trusted-keys" | "revoked-keys" => {
                let items = value.items()?;
                items
                    .iter()
                    .filter_map(|item| item.text_as(|text| checked(key.name, text)))
                    .collect()
            }
            "threshold" => vec![value.integer(1, MOST_KEYS)?.to_string()],
            "jobs" => vec![value.integer(1, MOST_JOBS)?.to_string()],
            _ => vec![value.text_as(|text| checked(key.name, text))?],
        };
        let origin =
            Origin::File { file: source.name().to_owned(), line: source.position(place.start).0 };
        let place = Some((Arc::clone(source), place));
        Some((key.name, Typed { texts, origin, base: base.clone(), place }))
    });
    entries.collect()
}
