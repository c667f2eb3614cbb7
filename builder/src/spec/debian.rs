//! `[debian]`: packages and where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use url::Url;

use crate::document::{Place, Shape, Table, Value, ValueError, nearest};

use super::names::{Architecture, Component, Name, PackageName, Suite, VersionPattern};
use super::schema;
use super::values::{PathPattern, address};

/// What the image takes from Debian, or from a distribution built like it.
#[derive(Debug, Clone)]
pub struct Debian {
    /// The suite as written: a codename, or an alias that the lock turns into one.
    pub suite: Suite,
    /// The archive's components.
    pub components: Vec<Component>,
    /// The packages asked for, by name.
    pub packages: Vec<PackageRequest>,
    /// Whether all Essential packages enter the image.
    pub essential: bool,
    /// Whether Recommends are followed.
    pub recommends: bool,
    /// Packages that may not enter the image.
    pub exclude: BTreeSet<PackageName>,
    /// Preseed lines for debconf, in the order as written.
    pub debconf: Vec<String>,
    /// The archive's mirror, if the file names one.
    pub mirror: Option<Url>,
    /// The mirror of the security archive, if the file names one.
    pub security_mirror: Option<Url>,
    /// A keyring that is trusted beside the embedded one; relative to the file's folder.
    pub keyring: Option<PathBuf>,
    /// Whether an expired Release is refused when locking.
    pub check_valid_until: bool,
    /// State made at install time that is removed from the image, beyond the built-in table.
    pub remove_state: Vec<RemoveState>,
    /// Where the table stands.
    pub place: Place,
    /// Where the suite stands.
    pub suite_place: Place,
}

/// One package asked for.
#[derive(Debug, Clone)]
pub struct PackageRequest {
    /// The package, real or virtual.
    pub name: PackageName,
    /// The versions that are accepted; all when absent.
    pub version: Option<VersionPattern>,
    /// The repository that it must come from; the main archive when absent.
    pub from: Option<Name>,
    /// Where it stands.
    pub place: Place,
}

/// A path that install scripts make and that no image may hold.
#[derive(Debug, Clone)]
pub struct RemoveState {
    /// What is removed.
    pub path: PathPattern,
    /// Why that is right, for people.
    pub reason: String,
    /// Where it stands.
    pub place: Place,
}

/// A repository beside the main archive.
#[derive(Debug, Clone)]
pub struct Repository {
    /// The address that holds `dists/`.
    pub url: Url,
    /// The suite.
    pub suite: Suite,
    /// The components.
    pub components: Vec<Component>,
    /// The key that signs it, relative to the file's folder.
    pub key: PathBuf,
    /// The architectures that it serves; all of the image's when empty.
    pub architectures: BTreeSet<Architecture>,
    /// Where it stands.
    pub place: Place,
    /// Where its key stands.
    pub key_place: Place,
}

/// Names that the lock gives to the main archive, so no repository may have them.
const RESERVED_REPOSITORIES: [&str; 2] = ["debian", "debian-security"];

/// The `[debian]` table and its repositories.
pub(super) type DebianTables = (Debian, BTreeMap<Name, Repository>);

pub(super) fn read(table: &Table<'_>, directory: &Path) -> Option<DebianTables> {
    let suite_value = table.required("suite");
    let suite = suite_value.as_ref().and_then(|value| value.text_as(Suite::new));
    let components = components(table);
    let packages = packages(table);
    let exclude = table.texts_as("exclude", PackageName::new).into_iter().collect();
    let debconf = table.texts_as("debconf", preseed_line);
    let mirror = table.text_as("mirror", address);
    let security_mirror = table.text_as("security-mirror", address);
    let keyring = table.text_as("keyring", |text| key_path(text, directory));
    let essential = table.flag("essential", false);
    let recommends = table.flag("recommends", false);
    let check_valid_until = table.flag("check-valid-until", true);
    let removals = table.tables("remove-state", &schema::REMOVE_STATE);
    let remove_state = removals.iter().filter_map(remove_state).collect();
    let (repositories, names) = repositories(table, directory);
    check_requests(table, &packages, &exclude, &names);
    let debian = Debian {
        suite: suite?,
        components,
        packages,
        essential,
        recommends,
        exclude,
        debconf,
        mirror,
        security_mirror,
        keyring,
        check_valid_until,
        remove_state,
        place: table.place(),
        suite_place: suite_value?.place(),
    };
    Some((debian, repositories))
}

fn components(table: &Table<'_>) -> Vec<Component> {
    if !table.has("components") {
        return vec![Component::new("main").expect("a valid component")];
    }
    let components = table.texts_as("components", Component::new);
    if components.is_empty()
        && let Some(value) = table.get("components")
        && value.items().is_some_and(|items| items.is_empty())
    {
        value.problem("`components` is empty").help("leave it out for [\"main\"]").record();
    }
    components
}

fn packages(table: &Table<'_>) -> Vec<PackageRequest> {
    let items = table.get("packages").and_then(|value| value.items()).unwrap_or_default();
    let mut requests: Vec<PackageRequest> = items.iter().filter_map(package).collect();
    let mut seen = BTreeSet::new();
    for request in &requests {
        if !seen.insert(&request.name) {
            table
                .problem_at(request.place, format!("package `{}` is named twice", request.name))
                .help("keep one of the two")
                .record();
        }
    }
    // The order in which people list packages is of no meaning, so it may not become one.
    requests.sort_by(|left, right| left.name.cmp(&right.name));
    requests
}

fn package(item: &Value<'_>) -> Option<PackageRequest> {
    let place = item.place();
    match item.shape() {
        Shape::Text(_) => {
            let name = item.text_as(PackageName::new)?;
            Some(PackageRequest { name, version: None, from: None, place })
        }
        Shape::Table => {
            let table = item.table(&schema::PACKAGE)?;
            let name = table.required("name").and_then(|value| value.text_as(PackageName::new));
            let version = table.text_as("version", VersionPattern::new);
            let from = table.text_as("from", Name::new);
            Some(PackageRequest { name: name?, version, from, place })
        }
        _ => {
            item.wrong_type();
            None
        }
    }
}

fn preseed_line(text: &str) -> Result<String, ValueError> {
    const WHAT: &str = "preseed line";
    if text.contains(['\n', '\r', '\0']) {
        return Err(ValueError::new(WHAT, text, "it has more than one line"));
    }
    let mut words = text.split_whitespace();
    let (owner, question, kind) = (words.next(), words.next(), words.next());
    let kinds = [
        "string",
        "boolean",
        "select",
        "multiselect",
        "note",
        "text",
        "password",
        "title",
        "error",
        "seen",
    ];
    match (owner, question, kind) {
        (Some(_), Some(question), Some(kind))
            if question.contains('/') && kinds.contains(&kind) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(ValueError::new(WHAT, text, "it must be: PACKAGE QUESTION TYPE VALUE")
            .with_help("for example: \"tzdata tzdata/Areas select Europe\"")),
    }
}

/// A keyring proves packages and is no part of the image, so it may stand anywhere on the host.
pub(super) fn key_path(text: &str, directory: &Path) -> Result<PathBuf, ValueError> {
    match text.is_empty() || text.contains('\0') {
        true => Err(ValueError::new("path of a key", text, "it is empty or has a NUL byte")),
        false => Ok(directory.join(text)),
    }
}

fn remove_state(table: &Table<'_>) -> Option<RemoveState> {
    let path = table.required("path").and_then(|value| value.text_as(PathPattern::new));
    let reason = table.required("reason").and_then(|value| value.text());
    Some(RemoveState { path: path?, reason: reason?.to_owned(), place: table.place() })
}

fn repositories<'a>(
    table: &Table<'a>,
    directory: &Path,
) -> (BTreeMap<Name, Repository>, Vec<&'a str>) {
    let entries = table.entries("repository");
    let names = entries.iter().map(|entry| entry.name).collect();
    let repositories = entries.iter().filter_map(|entry| {
        let name = match Name::new(entry.name) {
            Ok(name) if RESERVED_REPOSITORIES.contains(&entry.name) => {
                let message = format!("`{name}` is the name of the main archive");
                table.problem_at(entry.place, message).help("choose another name").record();
                None
            }
            Ok(name) => Some(name),
            Err(error) => {
                table.problem_at(entry.place, error.to_string()).record();
                None
            }
        };
        let repository = repository(&entry.value.table(&schema::REPOSITORY)?, directory);
        Some((name?, repository?))
    });
    (repositories.collect(), names)
}

fn repository(table: &Table<'_>, directory: &Path) -> Option<Repository> {
    let url = table.required("url").and_then(|value| value.text_as(address));
    let suite = table.required("suite").and_then(|value| value.text_as(Suite::new));
    let components = components(table);
    let key_value = table.required("key");
    let key = key_value.as_ref().and_then(|value| value.text_as(|text| key_path(text, directory)));
    let architectures = table.texts_as("architectures", Architecture::new).into_iter().collect();
    Some(Repository {
        url: url?,
        suite: suite?,
        components,
        key: key?,
        architectures,
        place: table.place(),
        key_place: key_value?.place(),
    })
}

fn check_requests(
    table: &Table<'_>,
    packages: &[PackageRequest],
    exclude: &BTreeSet<PackageName>,
    repositories: &[&str],
) {
    for request in packages {
        if exclude.contains(&request.name) {
            let message = format!("package `{}` is both asked for and excluded", request.name);
            table.problem_at(request.place, message).record();
        }
        let Some(from) = request.from.as_ref().map(Name::as_str) else { continue };
        if repositories.contains(&from) {
            continue;
        }
        let problem = table.problem_at(request.place, format!("there is no repository `{from}`"));
        let help = match nearest(from, repositories.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a [debian.repository.{from}]"),
        };
        problem.help(help).record();
    }
}
