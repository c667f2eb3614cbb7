//! package-lock.json, versions 2 and 3: which packages of the registry an installation needs.
//!
//! The file's `packages` names every place that an installation has. What it takes from a registry
//! is known there by name, version and hash; an address (`resolved`) is a memory of where some host
//! once found it, which npm can leave out, so it decides nothing. The lockfile that the build sees is
//! written anew with one made-up address for each package, so that the memory is in no identity.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use url::Url;

use crate::recipe::language::{Integrity, LockfileError};

/// The registry that rewritten lockfiles name. It is none: such names never exist.
pub(super) const NOWHERE: &str = "https://registry.invalid/";

const RENEW: &str =
    "run `npm install --package-lock-only --lockfile-version 3` with npm 7 or later";

/// What an installation is for, in npm's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub os: &'static str,
    pub cpu: &'static str,
    pub libc: &'static str,
}

/// A package of the registry, or an archive at an address of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub name: String,
    pub version: String,
    pub integrity: Integrity,
    /// The address, for a package that package.json asks for by address and not by name.
    pub url: Option<Url>,
}

/// A lockfile, read for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lockfile {
    /// What is to be fetched, each once.
    pub packages: BTreeSet<Package>,
    /// The lockfile for the build, without addresses of registries.
    pub rewritten: String,
}

/// Reads the text of a lockfile.
pub(super) fn read(file: &str, text: &str, target: Target) -> Result<Lockfile, LockfileError> {
    let malformed = |problem: String| LockfileError::Malformed { file: file.to_owned(), problem };
    let mut document: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let version = document.get("lockfileVersion").cloned().unwrap_or(Value::from(1));
    if !matches!(version.as_u64(), Some(2 | 3)) {
        let (file, version) = (file.to_owned(), version.to_string());
        return Err(LockfileError::Version { file, version, help: RENEW });
    }
    // Version 2 repeats everything for npm 6, addresses included.
    document.remove("dependencies");
    let Some(Value::Object(entries)) = document.get_mut("packages") else {
        return Err(malformed("it has no `packages`".to_owned()));
    };
    let by_address = asked_for_by_address(entries);
    let mut packages = BTreeSet::new();
    for (place, entry) in entries.iter_mut() {
        let Some(entry) = entry.as_object_mut() else {
            return Err(malformed(format!("packages.{place:?} is no table")));
        };
        let reader = EntryReader { file, place, target, by_address: &by_address };
        packages.extend(reader.read(entry)?);
    }
    let rewritten = serde_json::to_string_pretty(&document).expect("a map with text keys") + "\n";
    Ok(Lockfile { packages, rewritten })
}

/// The addresses that some package.json names where others name a version.
fn asked_for_by_address(entries: &Map<String, Value>) -> BTreeSet<String> {
    const KINDS: [&str; 4] =
        ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    let tables = entries.values().flat_map(|entry| KINDS.iter().filter_map(|kind| entry.get(kind)));
    let wanted = tables.filter_map(Value::as_object).flat_map(Map::values);
    let texts = wanted.filter_map(Value::as_str);
    texts.filter(|text| is_web(text)).map(str::to_owned).collect()
}

fn is_web(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// Whether an address is of something that git fetches.
fn is_git(text: &str) -> bool {
    const STARTS: [&str; 6] = ["git+", "git:", "git@", "github:", "gitlab:", "bitbucket:"];
    STARTS.iter().any(|start| text.starts_with(start)) || text.contains(".git#")
}

struct EntryReader<'a> {
    file: &'a str,
    place: &'a str,
    target: Target,
    by_address: &'a BTreeSet<String>,
}

impl EntryReader<'_> {
    /// The package of an entry, if it is one that is fetched; its address becomes the made-up one.
    fn read(&self, entry: &mut Map<String, Value>) -> Result<Option<Package>, LockfileError> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let flag = |key: &str| entry.get(key).and_then(Value::as_bool).unwrap_or(false);
        let Some((_, place_name)) = self.place.rsplit_once("node_modules/") else {
            // The project itself, or a workspace's own folder.
            return Ok(None);
        };
        let resolved = text("resolved").unwrap_or_default().to_owned();
        if flag("link") || resolved.starts_with("file:") {
            return Ok(None);
        }
        if flag("inBundle") && text("integrity").is_none() {
            return Ok(None);
        }
        let name = text("name").unwrap_or(place_name).to_owned();
        let version = text("version").unwrap_or_default().to_owned();
        let package = format!("{name} {version}");
        if is_git(&resolved) {
            return Err(LockfileError::Origin {
                file: self.file.to_owned(),
                package,
                origin: "git".to_owned(),
                help: "use a published version, or put `npm pack`'s archive into the project and \
                       name it as `file:ARCHIVE.tgz`",
            });
        }
        if !is_name(&name) || !is_version(&version) {
            let problem = format!("packages.{:?} has no usable name and version", self.place);
            return Err(LockfileError::Malformed { file: self.file.to_owned(), problem });
        }
        let is_left_out = flag("optional") && !self.is_for_target(entry);
        let url = self.by_address.contains(&resolved).then(|| Url::parse(&resolved).ok()).flatten();
        if url.is_none() {
            entry.insert("resolved".to_owned(), nowhere(&name, &version).into());
        }
        if is_left_out {
            return Ok(None);
        }
        let integrity = self.integrity(entry, &package)?;
        // One hash for npm, so that it looks for the file where it is.
        entry.insert("integrity".to_owned(), integrity.to_sri().into());
        Ok(Some(Package { name, version, integrity, url }))
    }

    fn integrity(
        &self,
        entry: &Map<String, Value>,
        package: &str,
    ) -> Result<Integrity, LockfileError> {
        let (file, package) = (self.file.to_owned(), package.to_owned());
        let Some(text) = entry.get("integrity").and_then(Value::as_str) else {
            return Err(LockfileError::NoHash {
                file,
                package,
                help: "remove its entry and node_modules, and run `npm install \
                       --package-lock-only`; a registry that gives no hashes cannot be locked",
            });
        };
        Integrity::from_sri(text).map_err(|source| LockfileError::Hash { file, package, source })
    }

    /// Whether npm would install an optional package here.
    fn is_for_target(&self, entry: &Map<String, Value>) -> bool {
        let Target { os, cpu, libc } = self.target;
        [("os", os), ("cpu", cpu), ("libc", libc)].into_iter().all(|(key, value)| {
            let wanted: Vec<&str> = match entry.get(key) {
                Some(Value::String(one)) => vec![one],
                Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
                _ => return true,
            };
            is_wanted(&wanted, value)
        })
    }
}

/// npm's rule: nothing that is excluded, and something that is included, if anything is.
fn is_wanted(wanted: &[&str], value: &str) -> bool {
    let mut names_any = false;
    let mut is_named = false;
    for item in wanted {
        match item.strip_prefix('!') {
            Some(excluded) if excluded == value => return false,
            Some(_) => {}
            None => {
                names_any = true;
                is_named |= *item == value || *item == "any";
            }
        }
    }
    is_named || !names_any
}

/// The address that stands for a package in rewritten lockfiles.
fn nowhere(name: &str, version: &str) -> String {
    format!("{NOWHERE}{}", conventional_path(name, version))
}

/// Where registries keep a package's archive below their address.
pub(in crate::recipe::language) fn conventional_path(name: &str, version: &str) -> String {
    format!("{name}/-/{}", archive_name(name, version))
}

/// The name of a package's archive.
pub(super) fn archive_name(name: &str, version: &str) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    format!("{base}-{version}.tgz")
}

/// Whether a text is a name that can stand in an address and in a path: `name` or `@scope/name`.
pub(super) fn is_name(text: &str) -> bool {
    let part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!'()*".contains(&byte);
        !part.is_empty() && part.len() <= 214 && !part.starts_with('.') && part.bytes().all(plain)
    };
    match text.strip_prefix('@') {
        Some(scoped) => {
            scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name))
        }
        None => part(text),
    }
}

/// Whether a text has the form of a version.
pub(super) fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    text.len() <= 256
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TARGET: Target = Target { os: "linux", cpu: "x64", libc: "glibc" };

    fn sri(byte: u8) -> String {
        let hex = format!("{byte:02x}").repeat(64);
        let algorithm = crate::recipe::language::Algorithm::Sha512;
        Integrity::from_hex(algorithm, &hex).unwrap().to_sri()
    }

    fn lock(entries: &[(&str, Value)]) -> String {
        let packages: BTreeMap<&str, Value> = entries.iter().cloned().collect();
        serde_json::json!({ "name": "x", "lockfileVersion": 3, "packages": packages }).to_string()
    }

    fn parse(entries: &[(&str, Value)]) -> Result<Lockfile, LockfileError> {
        read("package-lock.json", &lock(entries), TARGET)
    }

    #[test]
    fn every_kind_of_entry_is_understood() {
        let one = |byte| serde_json::json!({ "version": "1.0.0", "integrity": sri(byte) });
        let with = |mut entry: Value, key: &str, value: Value| {
            entry[key] = value;
            entry
        };
        let lockfile = parse(&[
            ("", serde_json::json!({ "name": "x", "workspaces": ["packages/*"] })),
            ("node_modules/plain", one(1)),
            ("node_modules/plain/node_modules/nested", one(2)),
            ("node_modules/@scope/scoped", one(3)),
            ("node_modules/alias", with(one(4), "name", "@scope/real".into())),
            ("node_modules/again/node_modules/plain", one(1)),
            ("node_modules/development", with(one(5), "dev", true.into())),
            (
                "node_modules/bundler/node_modules/bundled",
                serde_json::json!({ "version": "1.0.0", "inBundle": true }),
            ),
            ("node_modules/own", serde_json::json!({ "resolved": "packages/own", "link": true })),
            ("packages/own", serde_json::json!({ "version": "0.0.1" })),
            (
                "node_modules/vendored",
                serde_json::json!({ "version": "2.0.0", "resolved": "file:vendor/a.tgz" }),
            ),
            (
                "node_modules/elsewhere",
                serde_json::json!({
                    "version": "1.0.0", "optional": true, "os": ["darwin"], "cpu": ["x64"],
                }),
            ),
            (
                "node_modules/here",
                serde_json::json!({
                    "version": "1.0.0", "optional": true, "integrity": sri(6),
                    "os": ["!win32"], "cpu": ["x64", "arm64"], "libc": ["glibc"],
                }),
            ),
            (
                "node_modules/musl",
                serde_json::json!({
                    "version": "1.0.0", "optional": true, "integrity": sri(7), "libc": ["musl"],
                }),
            ),
        ]);
        let packages = lockfile.unwrap().packages;
        let names: Vec<String> =
            packages.iter().map(|it| format!("{}@{}", it.name, it.version)).collect();
        assert_eq!(
            names,
            [
                "@scope/real@1.0.0",
                "@scope/scoped@1.0.0",
                "development@1.0.0",
                "here@1.0.0",
                "nested@1.0.0",
                "plain@1.0.0"
            ]
        );
    }

    /// An address is a memory of one host: present, foreign or absent, it is all the same.
    #[test]
    fn addresses_decide_nothing() {
        let entry = |resolved: Option<&str>| {
            let mut entry = serde_json::json!({ "version": "1.0.0", "integrity": sri(1) });
            if let Some(resolved) = resolved {
                entry["resolved"] = resolved.into();
            }
            parse(&[("node_modules/a", entry)]).unwrap()
        };
        let without = entry(None);
        assert_eq!(entry(Some("https://packages.example.com/a/-/a-1.0.0.tgz")), without);
        assert_eq!(entry(Some("https://other.example.org/x/a.tgz")), without);
        assert!(without.rewritten.contains("https://registry.invalid/a/-/a-1.0.0.tgz"));
        assert!(!without.rewritten.contains("example"));
    }

    #[test]
    fn what_is_asked_for_by_address_keeps_it() {
        let address = "https://files.example.com/a.tgz";
        let lockfile = parse(&[
            ("", serde_json::json!({ "dependencies": { "a": address } })),
            (
                "node_modules/a",
                serde_json::json!({
                    "version": "1.0.0", "resolved": address, "integrity": sri(1),
                }),
            ),
        ])
        .unwrap();
        let package = lockfile.packages.first().unwrap();
        assert_eq!(package.url.as_ref().map(Url::as_str), Some(address));
        assert!(lockfile.rewritten.contains(address));
    }

    #[test]
    fn the_strongest_hash_is_the_one_that_npm_sees() {
        let both = format!("sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0= {}", sri(1));
        let entry = serde_json::json!({ "version": "1.0.0", "integrity": both });
        let lockfile = parse(&[("node_modules/a", entry)]).unwrap();
        assert!(!lockfile.rewritten.contains("sha1"), "{}", lockfile.rewritten);
    }

    #[test]
    fn what_cannot_be_followed_says_so_with_its_mend() {
        let entry = |value: Value| parse(&[("node_modules/a", value)]).unwrap_err();
        let error = entry(serde_json::json!({ "version": "1.0.0" }));
        assert!(error.to_string().ends_with("a 1.0.0 has no hash"), "{error}");
        assert!(error.hint().unwrap().contains("--package-lock-only"));
        let weak = "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
        let error = entry(serde_json::json!({ "version": "1.0.0", "integrity": weak }));
        assert!(matches!(error, LockfileError::Hash { .. }), "{error}");
        for resolved in ["git+ssh://git@example.com/a.git#0123", "github:a/b#0123"] {
            let error = entry(serde_json::json!({ "version": "1.0.0", "resolved": resolved }));
            assert!(matches!(error, LockfileError::Origin { .. }), "{error}");
        }
        for name in ["..", "../x", "a/b", "@scope", "a b", "a%2fb"] {
            let value =
                serde_json::json!({ "name": name, "version": "1.0.0", "integrity": sri(1) });
            assert!(matches!(entry(value), LockfileError::Malformed { .. }), "{name}");
        }
        for (text, expected) in [
            ("", "EOF"),
            ("[]", "invalid type"),
            ("{\"lockfileVersion\": 3}", "no `packages`"),
            ("{\"lockfileVersion\": 3, \"packages\": {\"a\": 1}}", "no table"),
        ] {
            let error = read("package-lock.json", text, TARGET).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for text in ["{}", "{\"lockfileVersion\": 1}", "{\"lockfileVersion\": 9}"] {
            let error = read("package-lock.json", text, TARGET).unwrap_err();
            assert!(error.hint().unwrap().contains("--lockfile-version 3"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\":, a0-9nodemuls_/]{0,80}") {
            let _ = read("package-lock.json", &text, TARGET);
            let text = format!("{{\"lockfileVersion\":3,\"packages\":{{\"node_modules/a\":{{{text}}}}}}}");
            let _ = read("package-lock.json", &text, TARGET);
        }
    }
}
