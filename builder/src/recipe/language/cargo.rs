//! Rust: Cargo.lock, and a vendor folder that takes the place of every registry.
//!
//! ```text
//! /build/source/Cargo.lock                  the list (versions 3 and 4)
//! /build/vendor/NAME-VERSION/               each crate, with .cargo-checksum.json
//! /build/.cargo/config.toml                 HOME is /build: all registries are replaced by vendor/
//! ```
//!
//! An entry with a checksum and without a source is of the default registry. So a lockfile may leave
//! addresses out (`sed -i '/^source = "registry+/d' Cargo.lock`); cargo, which does not know this
//! form, completes it from the vendor folder before the script runs, and can choose only what is
//! there.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::digest::BlobDigest;
use drystone_store::tree::TreePath;
use serde::Deserialize;

use super::{
    Algorithm, Dependency, Form, Format, Integrity, Layout, LockfileError, Placement, Prepared,
    Project, Registry,
};

/// The lockfile.
const LOCKFILE: &str = "Cargo.lock";
/// The project's own configuration, which may replace registries in ways that do not work here.
const CONFIGURATIONS: [&str; 2] = [".cargo/config.toml", ".cargo/config"];
/// The files of a project that are read.
pub const FILES: &[&str] = &[LOCKFILE, CONFIGURATIONS[0], CONFIGURATIONS[1]];
/// What is run unless the recipe has a script: programs of the default members are installed. cargo's
/// names for packages, and with them all symbols, hold the folder that it is run in; so that is always
/// the same, and not where the recipe happens to stand.
pub const SCRIPT: &str = "cd /build/source\n\
    cargo build --release --locked\n\
    find target/release -maxdepth 1 -type f -perm -100 ! -name '*.so' \
    -exec install -D -t \"$out/usr/bin\" {} +";
/// What goes before any script where the lockfile names no source.
const COMPLETE: &str = "cargo metadata --offline --format-version 1 > /dev/null";
/// Variables of every build.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("CARGO_HOME", "/build/.cargo"),
    ("CARGO_INCREMENTAL", "0"),
    ("CARGO_NET_OFFLINE", "true"),
    ("CARGO_TERM_COLOR", "never"),
];
/// SHA-256 of the source by which Cargo.lock names cargo's default registry. Its address stands
/// nowhere in this program: it is cargo's to know.
const DEFAULT_REGISTRY: &str = "c19b7c6f923b580ac259164a89f2577984ad5ab09ee9d583b888f934adbbe8d0";
/// Suites whose security archive carries a current Rust beside that of the release.
const WITH_CURRENT_RUST: [&str; 2] = ["bookworm", "oldstable"];

/// Debian's toolchain, unless the recipe names a package of Rust.
pub fn packages(suite: &str, named: &[&str]) -> &'static [&'static str] {
    if named.iter().any(|name| name.starts_with("rustc") || name.starts_with("cargo")) {
        return &[];
    }
    match WITH_CURRENT_RUST.contains(&suite) {
        true => &["cargo-web", "rustc-web"],
        false => &["cargo", "rustc"],
    }
}

#[derive(Deserialize)]
struct Lockfile {
    version: Option<u32>,
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

impl Package {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The package as it is fetched; `None` for the project's own.
    fn dependency(&self) -> Result<Option<Dependency>, LockfileError> {
        let (file, package) = (LOCKFILE.to_owned(), self.title());
        let registry = match &self.source {
            None if self.checksum.is_none() => return Ok(None),
            None => None,
            Some(source) if is_default(source) => None,
            Some(source) if source.starts_with("git+") => {
                let origin = "a git repository".to_owned();
                let help = "publish it to a registry, or keep it in the source and name it by path";
                return Err(LockfileError::Origin { file, package, origin, help });
            }
            Some(source) => Some(source.clone()),
        };
        let Some(checksum) = &self.checksum else {
            let help = "run `cargo update -p NAME` with a registry that gives checksums";
            return Err(LockfileError::NoHash { file, package, help });
        };
        if !is_name(&self.name) || !is_version(&self.version) {
            let problem = format!("{package:?} is no name and version of a crate");
            return Err(LockfileError::Malformed { file, problem });
        }
        let integrity = Integrity::from_hex(Algorithm::Sha256, checksum)
            .map_err(|source| LockfileError::Hash { file, package, source })?;
        Ok(Some(Dependency {
            file_name: format!("{}-{}.crate", self.name, self.version),
            name: self.name.clone(),
            version: self.version.clone(),
            integrity,
            registry: Registry::Crates(registry),
        }))
    }
}

fn is_default(source: &str) -> bool {
    BlobDigest::of(source.as_bytes()).to_hex() == DEFAULT_REGISTRY
}

/// A published crate.
pub fn published(name: String, version: String, sha256: &BlobDigest) -> Dependency {
    let integrity = Integrity::from_hex(Algorithm::Sha256, &sha256.to_hex());
    Dependency {
        file_name: format!("{name}-{version}.crate"),
        integrity: integrity.expect("a digest has the right length"),
        registry: Registry::Crates(None),
        name,
        version,
    }
}

/// Whether a text can be the name of a crate. Names and versions become parts of paths and addresses.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether a text can be the version of a crate.
pub fn is_version(text: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.len() <= 128
        && text.bytes().all(is_usual)
}

/// Reads Cargo.lock.
pub fn prepare(project: &Project) -> Result<Prepared, LockfileError> {
    let Some(text) = project.files.get(LOCKFILE) else {
        let help = "run `cargo generate-lockfile`, and commit what it writes";
        return Err(LockfileError::Missing { files: vec![LOCKFILE], help });
    };
    let lockfile = read(text)?;
    let mut dependencies = Vec::new();
    for package in &lockfile.package {
        dependencies.extend(package.dependency()?);
    }
    let is_partial = lockfile.package.iter().any(|it| it.source.is_none() && it.checksum.is_some());
    let layout = layout(&dependencies, project)?;
    let before = is_partial.then(|| COMPLETE.to_owned());
    Ok(Prepared { dependencies, layout, before, ..Prepared::default() })
}

fn read(text: &str) -> Result<Lockfile, LockfileError> {
    let file = LOCKFILE.to_owned();
    let lockfile: Lockfile = toml::from_str(text).map_err(|error| {
        let problem = error.to_string().trim_end().to_owned();
        LockfileError::Malformed { file: file.clone(), problem }
    })?;
    let help = match lockfile.version {
        Some(3 | 4) => return Ok(lockfile),
        Some(5..) => {
            "a newer drystone may know it; cargo writes the version that the project's `rust-version` asks for"
        }
        _ => {
            "run `cargo generate-lockfile` of Rust 1.53 or later; it keeps no versions, so compare"
        }
    };
    let version = lockfile.version.map_or("1 or 2".to_owned(), |version| version.to_string());
    Err(LockfileError::Version { file, version, help })
}

fn layout(dependencies: &[Dependency], project: &Project) -> Result<Layout, LockfileError> {
    let mut layout = Layout::default();
    // The default registry comes first, so that its folder is the same whatever others there are.
    let mut registries: BTreeSet<&Registry> = dependencies.iter().map(|it| &it.registry).collect();
    registries.insert(&Registry::Crates(None));
    let folders: BTreeMap<&Registry, String> =
        registries.iter().enumerate().map(|(at, registry)| (*registry, folder(at))).collect();
    for dependency in dependencies {
        let folder = &folders[&dependency.registry];
        let directory = format!("build/{folder}/{}-{}", dependency.name, dependency.version);
        let directory = path(&directory)?;
        let checksum = directory.join(".cargo-checksum.json").map_err(malformed)?;
        let package = dependency.integrity.to_hex();
        layout.files.insert(checksum, format!("{{\"files\":{{}},\"package\":\"{package}\"}}\n"));
        layout.placements.push(Placement {
            integrity: dependency.integrity.clone(),
            title: dependency.to_string(),
            form: Form::Unpacked {
                directory,
                format: Format::TarGzip,
                executable: BTreeSet::new(),
            },
        });
    }
    let written = configuration(&folders, &replaced(project)?);
    layout.files.insert(path("build/.cargo/config.toml")?, written);
    Ok(layout)
}

fn folder(number: usize) -> String {
    match number {
        0 => "vendor".to_owned(),
        number => format!("vendor-{number}"),
    }
}

fn path(text: &str) -> Result<TreePath, LockfileError> {
    TreePath::new(text).map_err(malformed)
}

fn malformed(error: drystone_store::tree::PathError) -> LockfileError {
    LockfileError::Malformed { file: LOCKFILE.to_owned(), problem: error.to_string() }
}

/// The names by which the project's own configuration replaces sources: what stands behind them
/// cannot be reached, so they are replaced in turn.
fn replaced(project: &Project) -> Result<BTreeSet<String>, LockfileError> {
    let mut names = BTreeSet::new();
    for file in CONFIGURATIONS {
        let Some(text) = project.files.get(file) else { continue };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let problem = error.to_string().trim_end().to_owned();
            LockfileError::Malformed { file: file.to_owned(), problem }
        })?;
        let sources = table.get("source").and_then(toml::Value::as_table);
        for source in sources.into_iter().flat_map(toml::Table::values) {
            let with = source.get("replace-with").and_then(toml::Value::as_str);
            names.extend(with.map(str::to_owned));
        }
    }
    Ok(names)
}

/// Cargo's configuration: paths in it are relative to the folder above `.cargo`.
fn configuration(folders: &BTreeMap<&Registry, String>, replaced: &BTreeSet<String>) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = String::from("[source.crates-io]\nreplace-with = \"drystone\"\n");
    text.push_str("[source.drystone]\ndirectory = \"vendor\"\n");
    for name in replaced.iter().filter(|name| *name != "crates-io") {
        text.push_str(&format!("[source.{}]\nreplace-with = \"drystone\"\n", quoted(name)));
    }
    for (registry, folder) in folders {
        let Registry::Crates(Some(source)) = registry else { continue };
        // A git index is named without the kind of registry, a sparse one with it.
        let address = source.strip_prefix("registry+").unwrap_or(source);
        text.push_str(&format!(
            "[source.{folder}-registry]\nregistry = {}\nreplace-with = \"{folder}\"\n\
             [source.{folder}]\ndirectory = \"{folder}\"\n",
            quoted(address)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Platform;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn project(lockfile: &str) -> Project {
        let files = [(LOCKFILE.to_owned(), lockfile.to_owned())];
        Project { files: files.into(), ..Project::new(Platform::new("linux/amd64").unwrap()) }
    }

    fn lock(entries: &str) -> String {
        format!("version = 4\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n{entries}")
    }

    fn entry(name: &str, more: &str) -> String {
        format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n{more}\n")
    }

    #[test]
    fn crates_stand_in_a_vendor_folder_and_the_projects_own_do_not() {
        let text = lock(&entry("dep", &format!("checksum = \"{HASH}\"")));
        let prepared = prepare(&project(&text)).unwrap();
        let [dependency] = prepared.dependencies.as_slice() else { panic!() };
        assert_eq!(dependency.file_name, "dep-1.0.0.crate");
        assert_eq!(dependency.registry, Registry::Crates(None));
        let files: Vec<&str> = prepared.layout.files.keys().map(TreePath::as_str).collect();
        let checksum = "build/vendor/dep-1.0.0/.cargo-checksum.json";
        assert_eq!(files, ["build/.cargo/config.toml", checksum]);
        assert_eq!(prepared.before.as_deref(), Some(COMPLETE), "no source is named");
    }

    #[test]
    fn other_registries_have_folders_of_their_own() {
        let source = "source = \"sparse+https://crates.example.com/\"";
        let more = format!("{source}\nchecksum = \"{HASH}\"");
        let text = lock(&(entry("dep", &more) + &entry("same", &format!("checksum = \"{HASH}\""))));
        let prepared = prepare(&project(&text)).unwrap();
        let config = &prepared.layout.files[&path("build/.cargo/config.toml").unwrap()];
        assert!(
            config.contains(
                "registry = \"sparse+https://crates.example.com/\"\nreplace-with = \"vendor-1\""
            ),
            "{config}"
        );
        assert!(config.parse::<toml::Table>().is_ok(), "{config}");
    }

    #[test]
    fn replacements_of_the_project_lead_to_the_vendor_folder() {
        let mut project = project(&lock(""));
        let own = "[source.crates-io]\nreplace-with = 'a \"mirror\"'\n";
        project.files.insert(CONFIGURATIONS[0].to_owned(), own.to_owned());
        let prepared = prepare(&project).unwrap();
        let config = &prepared.layout.files[&path("build/.cargo/config.toml").unwrap()];
        let table: toml::Table = config.parse().unwrap();
        assert_eq!(table["source"]["a \"mirror\""]["replace-with"].as_str(), Some("drystone"));
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        let registry = "source = \"registry+https://index.example.com/git\"";
        let git = "source = \"git+https://example.com/x.git?rev=1#abc\"";
        for (text, expected) in [
            (lock(&entry("dep", registry)), "dep 1.0.0 has no hash"),
            (lock(&entry("dep", git)), "dep 1.0.0 comes from a git repository"),
            (lock(&entry("dep", "checksum = \"ab\"")), "the hash of dep 1.0.0"),
            (lock(&entry("../x", &format!("checksum = \"{HASH}\""))), "no name and version"),
            (lock("[["), "Cargo.lock: "),
            ("version = 9\n".to_owned(), "of version 9"),
            ("".to_owned(), "of version 1 or 2"),
        ] {
            let error = prepare(&project(&text)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let mut without = project("");
        without.files.clear();
        let error = prepare(&without).unwrap_err();
        assert_eq!(error.to_string(), "the source has no Cargo.lock");
    }

    #[test]
    fn the_toolchain_is_the_suites_unless_the_recipe_has_one() {
        assert_eq!(packages("bookworm", &["make"]), ["cargo-web", "rustc-web"]);
        assert_eq!(packages("trixie", &[]), ["cargo", "rustc"]);
        assert!(packages("bookworm", &["rustc", "cargo"]).is_empty());
    }
}
