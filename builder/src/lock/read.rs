//! Reads the lock's text, strictly: a wrong line is named, never repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drystone_store::digest::{BlobDigest, TreeHash};
use drystone_store::tree::TreePath;
use jiff::Timestamp;

use crate::document::ValueError;
use crate::document::{
    self, Diagnostics, Entry, Format, Key, Schema, Shape, SourceText, Table, Value,
};
use crate::spec::{
    Architecture, Component, ImageName, ImageReference, Name, PackageName, PackageVersion,
    Platform, Suite,
};

use super::model::{
    ArchiveKey, Fingerprint, Index, IndexKey, LayerMember, Lock, LockedBase, LockedImage,
    LockedPackage, LockedPlatform, LockedRecipe, PackageKey, VERSION,
};
use super::references::References;
use super::request::{LockedRequest, RequestedPackage, RequestedRecipe, RequestedRepository};

const fn key(name: &'static str, expects: &'static str, example: &'static str) -> Key {
    Key { name, expects, example }
}

const fn table(title: &'static str, keys: &'static [Key]) -> Schema {
    Schema { title, keys, reserved: &[], family: all }
}

/// Every schema of a lock file.
pub(super) fn all() -> &'static [&'static Schema] {
    static ALL: [&Schema; 6] = [&TOP, &INDEX, &IMAGE, &REQUEST, &PLATFORM, &PACKAGE];
    &ALL
}

static TOP: Schema = table(
    "",
    &[
        key("version", "the number of the file format", "version = 1"),
        key("index", "a list of tables", "[[index]]"),
        key("image", "a table of images", "[image.web]"),
        key("package", "a list of tables", "[[package]]"),
    ],
);

static INDEX: Schema = table(
    "[[index]]",
    &[
        key("repository", "a repository's name", r#"repository = "debian""#),
        key("suite", "a suite", r#"suite = "bookworm""#),
        key("architecture", "a Debian architecture", r#"architecture = "amd64""#),
        key("components", "a list of strings", r#"components = ["main"]"#),
        key("release", "64 hexadecimal digits", r#"release = "…""#),
        key("date", "a time in UTC", r#"date = "2026-10-03T09:12:00Z""#),
        key("valid-until", "a time in UTC", r#"valid-until = "2026-10-10T09:12:00Z""#),
        key("signer", "a key's fingerprint", r#"signer = "…""#),
    ],
);

static IMAGE: Schema = table(
    "[image.NAME]",
    &[
        key("date", "a time in UTC", r#"date = "2026-10-03T09:12:00Z""#),
        key("from", "an image reference", r#"from = "registry.example.com/team/base:1""#),
        key("base", "64 hexadecimal digits", r#"base = "…""#),
        key("suite", "a codename", r#"suite = "bookworm""#),
        key("archives", "a list of archives", r#"archives = ["debian bookworm"]"#),
        key("request", "a table", "[image.web.request]"),
        key("users", "a table of numbers", "users = { redis = 101 }"),
        key("groups", "a table of numbers", "groups = { redis = 102 }"),
        key("recipe", "a table of recipes", "[image.web.recipe.app]"),
        key("platform", "a table of platforms", r#"[image.web.platform."linux/amd64"]"#),
    ],
);

static REQUEST: Schema = table(
    "[image.NAME.request]",
    &[
        key("suite", "a suite", r#"suite = "stable""#),
        key("components", "a list of strings", r#"components = ["main"]"#),
        key("packages", "a list of requests", r#"packages = ["nodejs 22.* from node"]"#),
        key("essential", "true or false", "essential = true"),
        key("recommends", "true or false", "recommends = true"),
        key("exclude", "a list of packages", r#"exclude = ["mawk"]"#),
        key("repositories", "a list of repositories", r#"repositories = ["node nodistro main"]"#),
        key("recipes", "a list of recipes and what they build with", r#"recipes = ["app gcc"]"#),
    ],
);

static PLATFORM: Schema = table(
    "[image.NAME.platform.\"PLATFORM\"]",
    &[
        key("packages", "a list of packages", r#"packages = ["nginx-light"]"#),
        key("essential", "a list of packages", r#"essential = ["dash"]"#),
        key("configure", "a list of packages", r#"configure = ["debconf"]"#),
        key("order", "a string", r#"order = "packed-6c2f8e51d07a94b3""#),
        key("layers", "a list of lists of names", r#"layers = [["libc6"], ["@files"]]"#),
        key("build", "a table of lists of packages", r#"build = { app = ["gcc"] }"#),
        key("found-by", "a table of recipes by package", r#"found-by = { libssl3 = "app" }"#),
    ],
);

static PACKAGE: Schema = table(
    "[[package]]",
    &[
        key("name", "a package name", r#"name = "nginx-light""#),
        key("version", "a version", r#"version = "1.22.1-9""#),
        key("architecture", "a Debian architecture", r#"architecture = "amd64""#),
        key("repository", "a repository's name", r#"repository = "debian""#),
        key("suite", "a suite", r#"suite = "bookworm""#),
        key("source", "a source package's name", r#"source = "nginx""#),
        key("path", "a path below the repository", r#"path = "pool/main/n/nginx/….deb""#),
        key("size", "a number of bytes", "size = 4096"),
        key("sha256", "64 hexadecimal digits", r#"sha256 = "…""#),
        key("tree", "a tree's hash", r#"tree = "…""#),
        key("control", "a tree's hash", r#"control = "…""#),
    ],
);

impl Lock {
    /// Reads a lock file's text. `path` is for messages only.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Diagnostics> {
        let source = SourceText::new(path.display().to_string(), text);
        let format = Format { key: "version", newest: VERSION };
        document::read(&source, &TOP, Some(format), read)
    }
}

fn read(top: &Table<'_>) -> Option<Lock> {
    let version = top.required("version").and_then(|value| value.integer(1, VERSION));
    let mut lock = Lock::default();
    let mut broken = BTreeSet::new();
    for table in top.tables("index", &INDEX) {
        let Some((key, index)) = index(&table) else { continue };
        let name = format!("{} {}", key.archive, key.architecture);
        if lock.indexes.insert(key, index).is_some() {
            table.problem(format!("index {name} stands here twice")).record();
        }
    }
    for table in top.tables("package", &PACKAGE) {
        let Some((key, package)) = package(&table) else {
            // What refers to it is no second problem.
            if let Some(Shape::Text(name)) = table.get("name").map(|value| value.shape()) {
                broken.insert(name.to_owned());
            }
            continue;
        };
        let name = key.to_string();
        if lock.packages.insert(key, package).is_some() {
            table.problem(format!("package {name} stands here twice")).record();
        }
    }
    let mut images = BTreeMap::new();
    for entry in top.entries("image") {
        let name = named(top, &entry, ImageName::new);
        let image = entry.value.table(&IMAGE).and_then(|table| image(&table, &lock, &broken));
        if let (Some(name), Some(image)) = (name, image) {
            images.insert(name, image);
        }
    }
    version?;
    lock.images = images;
    Some(lock)
}

fn named<T>(
    top: &Table<'_>,
    entry: &Entry<'_>,
    parse: impl Fn(&str) -> Result<T, ValueError>,
) -> Option<T> {
    parse(entry.name).map_err(|error| top.problem_at(entry.place, error.to_string()).record()).ok()
}

fn need<T>(
    table: &Table<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, ValueError>,
) -> Option<T> {
    table.required(key)?.text_as(parse)
}

fn archive(table: &Table<'_>) -> Option<ArchiveKey> {
    let repository = need(table, "repository", Name::new);
    let suite = need(table, "suite", Suite::new);
    Some(ArchiveKey { repository: repository?, suite: suite? })
}

fn index(table: &Table<'_>) -> Option<(IndexKey, Index)> {
    let archive = archive(table);
    let architecture = need(table, "architecture", Architecture::new);
    let components = table.texts_as("components", Component::new).into_iter().collect();
    let release = need(table, "release", digest);
    let date = need(table, "date", time);
    let valid_until = table.text_as("valid-until", time);
    let signer = need(table, "signer", Fingerprint::new);
    let key = IndexKey { archive: archive?, architecture: architecture? };
    let index = Index { components, release: release?, date: date?, valid_until, signer: signer? };
    Some((key, index))
}

fn package(table: &Table<'_>) -> Option<(PackageKey, LockedPackage)> {
    let name = need(table, "name", PackageName::new);
    let version = need(table, "version", PackageVersion::new);
    let architecture = need(table, "architecture", Architecture::new);
    let archive = archive(table);
    let source = table.text_as("source", PackageName::new);
    let path = need(table, "path", pool_path);
    let size = table.required("size").and_then(|value| value.integer(0, i64::MAX));
    let sha256 = need(table, "sha256", digest);
    let tree = table.text_as("tree", tree_hash);
    let control = table.text_as("control", tree_hash);
    let key = PackageKey { name: name?, version: version?, architecture: architecture? };
    let package = LockedPackage {
        archive: archive?,
        source: source.unwrap_or_else(|| key.name.clone()),
        path: path?,
        size: u64::try_from(size?).ok()?,
        sha256: sha256?,
        tree,
        control,
    };
    Some((key, package))
}

fn image(table: &Table<'_>, lock: &Lock, broken: &BTreeSet<String>) -> Option<LockedImage> {
    let mut image = LockedImage {
        date: table.text_as("date", time),
        base: base(table),
        suite: table.text_as("suite", Suite::new),
        request: table.get("request").and_then(|value| request(&value.table(&REQUEST)?)),
        archives: table.texts_as("archives", archive_key).into_iter().collect(),
        users: numbers(table, "users"),
        groups: numbers(table, "groups"),
        ..LockedImage::default()
    };
    for entry in table.entries("recipe") {
        let name = named(table, &entry, Name::new);
        let sources = entry.value.entries().unwrap_or_default();
        let sources = sources
            .iter()
            .filter_map(|source| Some((source.name.to_owned(), source.value.text_as(digest)?)));
        let recipe = LockedRecipe { sources: sources.collect() };
        image.recipes.insert(name?, recipe);
    }
    for entry in table.entries("platform") {
        let platform = named(table, &entry, Platform::new);
        let Some(content) = entry.value.table(&PLATFORM) else { continue };
        let Some(platform) = platform else { continue };
        let content = platform_content(&content, &References::of_lock(lock, platform), broken);
        if image.platforms.insert(platform, content).is_some() {
            table
                .problem_at(entry.place, format!("platform {platform} stands here twice"))
                .record();
        }
    }
    Some(image)
}

/// Both or neither of its lines stand there.
fn base(table: &Table<'_>) -> Option<LockedBase> {
    if !table.has("from") && !table.has("base") {
        return None;
    }
    let from = need(table, "from", ImageReference::new);
    let digest = need(table, "base", digest);
    Some(LockedBase { from: from?.to_string(), digest: digest? })
}

fn request(table: &Table<'_>) -> Option<LockedRequest> {
    let suite = need(table, "suite", Suite::new);
    let components = match table.has("components") {
        true => table.texts_as("components", Component::new).into_iter().collect(),
        false => [Component::new("main").expect("a valid component")].into(),
    };
    Some(LockedRequest {
        suite: suite?,
        components,
        packages: table.texts_as("packages", RequestedPackage::new).into_iter().collect(),
        essential: table.flag("essential", false),
        recommends: table.flag("recommends", false),
        exclude: table.texts_as("exclude", PackageName::new).into_iter().collect(),
        repositories: table
            .texts_as("repositories", RequestedRepository::new)
            .into_iter()
            .collect(),
        recipes: table.texts_as("recipes", RequestedRecipe::new).into_iter().collect(),
    })
}

fn numbers(table: &Table<'_>, key: &'static str) -> BTreeMap<String, u32> {
    let entries = table.entries(key);
    let numbers = entries.iter().filter_map(|entry| {
        let number = entry.value.integer(0, i64::from(u32::MAX) - 1)?;
        Some((entry.name.to_owned(), u32::try_from(number).ok()?))
    });
    numbers.collect()
}

fn platform_content(
    table: &Table<'_>,
    references: &References<'_>,
    broken: &BTreeSet<String>,
) -> LockedPlatform {
    let set = |key| package_set(table, key, references, broken);
    let mut recipes = BTreeMap::new();
    for entry in table.entries("build") {
        let keys = references_of(&entry.value, references, broken);
        if let Some(name) = named(table, &entry, Name::new) {
            recipes.insert(name, keys);
        }
    }
    let found_by = table.entries("found-by");
    let found_by = found_by.iter().filter_map(|entry| {
        let package = named(table, entry, PackageName::new);
        let recipe = entry.value.text_as(Name::new);
        Some((package?, recipe?))
    });
    let layers = table.get("layers").and_then(|value| value.items()).unwrap_or_default();
    let layers = layers.iter().map(|layer| {
        let members = layer.items().unwrap_or_default();
        members.iter().filter_map(|member| member.text_as(LayerMember::new)).collect()
    });
    LockedPlatform {
        packages: set("packages"),
        essential: set("essential"),
        configure: set("configure"),
        recipes,
        found_by: found_by.collect(),
        order: table.get("order").and_then(|value| value.text()).map(str::to_owned),
        layers: layers.collect(),
    }
}

fn package_set(
    table: &Table<'_>,
    key: &'static str,
    references: &References<'_>,
    broken: &BTreeSet<String>,
) -> BTreeSet<PackageKey> {
    let value = table.get(key);
    value.map(|value| references_of(&value, references, broken)).unwrap_or_default()
}

fn references_of(
    value: &Value<'_>,
    references: &References<'_>,
    broken: &BTreeSet<String>,
) -> BTreeSet<PackageKey> {
    let items = value.items().unwrap_or_default();
    items.iter().filter_map(|item| reference(item, references, broken)).collect()
}

fn reference(
    item: &Value<'_>,
    references: &References<'_>,
    broken: &BTreeSet<String>,
) -> Option<PackageKey> {
    let text = item.text()?;
    let found = references.find(text);
    if found.is_empty() && text.split(' ').next().is_some_and(|name| broken.contains(name)) {
        return None;
    }
    match found.as_slice() {
        [one] => Some((*one).clone()),
        [] => {
            item.problem(format!("no [[package]] is named {text:?}"))
                .help("run `drystone build` to lock it again, or restore the file from git")
                .record();
            None
        }
        several => {
            let texts: Vec<_> = several.iter().map(|key| references.text(key)).collect();
            item.problem(format!("{text:?} could mean {}", texts.join(" or "))).record();
            None
        }
    }
}

fn digest(text: &str) -> Result<BlobDigest, ValueError> {
    BlobDigest::from_hex(text).ok_or_else(|| {
        ValueError::new("SHA-256 digest", text, "it must have 64 digits of 0-9, a-f")
    })
}

fn tree_hash(text: &str) -> Result<TreeHash, ValueError> {
    text.parse()
        .map_err(|_| ValueError::new("tree hash", text, "it must have 52 characters of a-z, 2-7"))
}

fn pool_path(text: &str) -> Result<TreePath, ValueError> {
    TreePath::new(text).map_err(|error| ValueError::new("pool path", text, error.to_string()))
}

fn archive_key(text: &str) -> Result<ArchiveKey, ValueError> {
    let refuse = || ValueError::new("archive", text, "it must be: REPOSITORY SUITE");
    let (repository, suite) = text.split_once(' ').ok_or_else(refuse)?;
    Ok(ArchiveKey { repository: Name::new(repository)?, suite: Suite::new(suite)? })
}

/// Whole seconds in UTC, in the one form that the writer uses, so that a lock has one text.
fn time(text: &str) -> Result<Timestamp, ValueError> {
    let refuse = || ValueError::new("time", text, "it must have the form 2026-10-03T09:12:00Z");
    let exact = text.len() == 20 && text.ends_with('Z') && !text.contains(' ');
    let time: Timestamp = text.parse().map_err(|_| refuse())?;
    if exact && time.subsec_nanosecond() == 0 { Ok(time) } else { Err(refuse()) }
}
