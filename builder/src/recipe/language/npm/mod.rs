//! Node: package-lock.json, and a cache of npm that holds what it names.
//!
//! ```text
//! /build/source/package-lock.json       rewritten: one made-up address for each package
//! /build/npm/cache/_cacache/content-v2/ each archive by its hash, where npm looks before it asks
//! /build/npm/cli/                       npm itself, unless the recipe names Debian's
//! ```
//!
//! So what runs is npm's own `npm ci`, with its rules for places, links, scripts and platforms, and
//! it needs no network: an archive whose hash is known is looked for in the cache by that hash
//! alone. Debian's npm would bring some four hundred packages; npm as its authors publish it is one
//! archive, pinned here like any dependency. Node is Debian's.

mod lockfile;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::tree::TreePath;

pub(super) use lockfile::conventional_path;
pub(super) use settings::{Settings, address};

use super::{
    Dependency, Form, Format, Integrity, LockfileError, Placement, Prepared, Project, Registry,
};
use crate::spec::Platform;
use lockfile::{Package, Target, archive_name};

/// The lockfiles, the one that counts first.
const LOCKFILES: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];
const SETTINGS: &str = ".npmrc";
/// Lockfiles of other tools.
const FOREIGN: [&str; 4] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];
const MAKE_ONE: &str = "run `npm install --package-lock-only` and commit package-lock.json";
/// The program that installs a project below a root.
const INSTALLER: &str = include_str!("../../../../data/npm-install.cjs");
/// What is run unless the recipe has a script.
pub(super) const SCRIPT: &str = "npm run build --if-present\ninstall_node \"$out\"";
/// npm itself: name, version and hash. It runs on Node 18.17 and later.
const NPM: (&str, &str, &str) = (
    "npm",
    "10.9.9",
    "sha512-1g+6jLQvaIuB4zwvHL7yrXuXcWZwDsCtBX8bbWDqbvJSSr9nPiDDWTHNgwXR27iIcTTW7v3A57hDW9RYv2W4Yg==",
);
/// Variables of every build.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/build/npm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("npm_config_audit", "false"),
    ("npm_config_cache", "/build/npm/cache"),
    ("npm_config_fund", "false"),
    ("npm_config_logs_max", "0"),
    ("npm_config_nodedir", "/usr"),
    ("npm_config_offline", "true"),
    ("npm_config_omit_lockfile_registry_resolved", "true"),
    ("npm_config_registry", lockfile::NOWHERE),
    ("npm_config_update_notifier", "false"),
];

/// Whether a text is the name of a package: `name` or `@scope/name`.
pub fn is_name(text: &str) -> bool {
    lockfile::is_name(text)
}

/// Whether a text is a package's version.
pub fn is_version(text: &str) -> bool {
    lockfile::is_version(text)
}

/// A package as it was published.
pub fn published(name: String, version: String, integrity: Integrity) -> Dependency {
    dependency(&Package { name, version, integrity, url: None })
}

/// Whether a file of the source is read.
pub(super) fn is_read(path: &str) -> bool {
    LOCKFILES.contains(&path) || FOREIGN.contains(&path) || path == SETTINGS
}

/// Debian's Node, unless the recipe names it.
pub(super) fn packages(named: &[&str]) -> &'static [&'static str] {
    match named.contains(&"nodejs") {
        true => &[],
        false => &["nodejs"],
    }
}

fn target(platform: Platform) -> Target {
    let cpu = match platform.debian_name() {
        "amd64" => "x64",
        "i386" => "ia32",
        "armhf" | "armel" => "arm",
        "ppc64el" => "ppc64",
        "mips64el" => "mips64el",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "loong64" => "loong64",
        _ => "arm64",
    };
    Target { os: "linux", cpu, libc: "glibc" }
}

/// What package-lock.json means.
pub(super) fn prepare(project: &Project) -> Result<Prepared, LockfileError> {
    let found = LOCKFILES.iter().find_map(|file| Some((*file, project.files.get(*file)?)));
    let Some((file, text)) = found else {
        let foreign = FOREIGN.iter().find(|file| project.files.contains_key(**file));
        let help = match foreign {
            Some(_) => {
                "of the lockfiles for Node, npm's alone is read: run `npm install \
                 --package-lock-only`, and commit package-lock.json"
            }
            None => MAKE_ONE,
        };
        return Err(LockfileError::Missing { files: vec![LOCKFILES[1]], help });
    };
    let lockfile = lockfile::read(file, text, target(project.platform))?;
    let mut prepared = Prepared::default();
    prepared.replaced.insert(file.to_owned(), lockfile.rewritten);
    if let Some(text) = project.files.get(SETTINGS) {
        prepared.replaced.insert(SETTINGS.to_owned(), settings::without_registries(text));
    }
    let mut places = BTreeSet::new();
    for package in &lockfile.packages {
        let path = cache_path(&package.integrity);
        // Two names may have one content.
        if places.insert(path.clone()) {
            let form = Form::File(path);
            let integrity = package.integrity.clone();
            let title = format!("{} {}", package.name, package.version);
            prepared.layout.placements.push(Placement { integrity, title, form });
        }
        prepared.dependencies.push(dependency(package));
    }
    if !project.packages.contains_key("npm") {
        add_npm(&mut prepared);
    }
    prepared.layout.files.insert(path("build/npm/install.cjs"), INSTALLER.to_owned());
    prepared.before = Some(
        "install_node() { npm prune --omit=dev --ignore-scripts && node /build/npm/install.cjs \"$1\"; }\n\
         npm ci"
            .to_owned(),
    );
    Ok(prepared)
}

fn dependency(package: &Package) -> Dependency {
    Dependency {
        name: package.name.clone(),
        version: package.version.clone(),
        integrity: package.integrity.clone(),
        registry: match &package.url {
            Some(url) => Registry::Address(url.clone()),
            None => Registry::Npm,
        },
        file_name: archive_name(&package.name, &package.version),
    }
}

/// Lays npm itself out beside the project, where the shell finds it first.
fn add_npm(prepared: &mut Prepared) {
    let (name, version, integrity) = NPM;
    let integrity = Integrity::from_sri(integrity).expect("the hash of a released npm");
    let programs = [("npm", "bin/npm-cli.js"), ("npx", "bin/npx-cli.js")];
    prepared.dependencies.push(Dependency {
        name: name.to_owned(),
        version: version.to_owned(),
        integrity: integrity.clone(),
        registry: Registry::Npm,
        file_name: archive_name(name, version),
    });
    prepared.layout.placements.push(Placement {
        integrity,
        title: format!("{name} {version}"),
        form: Form::Unpacked {
            directory: path("build/npm/cli"),
            format: Format::TarGzip,
            executable: programs.iter().map(|(_, file)| (*file).to_owned()).collect(),
        },
    });
    let links: BTreeMap<TreePath, String> = programs
        .iter()
        .map(|(program, file)| {
            (path(&format!("build/npm/bin/{program}")), format!("../cli/{file}"))
        })
        .collect();
    prepared.layout.links.extend(links);
}

/// Where npm's cache keeps a content.
fn cache_path(integrity: &Integrity) -> TreePath {
    let hex = integrity.to_hex();
    let (algorithm, one, two, rest) =
        (integrity.algorithm().as_str(), &hex[..2], &hex[2..4], &hex[4..]);
    path(&format!("build/npm/cache/_cacache/content-v2/{algorithm}/{one}/{two}/{rest}"))
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).expect("a valid path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)], packages: &[(&str, &str)]) -> Project {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Project {
            files: owned(files),
            packages: owned(packages),
            ..Project::new(Platform::new("linux/amd64").unwrap())
        }
    }

    fn lock() -> String {
        let hash = |byte: &str| {
            let algorithm = super::super::Algorithm::Sha512;
            Integrity::from_hex(algorithm, &byte.repeat(64)).unwrap().to_sri()
        };
        format!(
            "{{\"lockfileVersion\":3,\"packages\":{{\"node_modules/a\":{{\"version\":\"1.0.0\",\
             \"resolved\":\"https://packages.example.com/a.tgz\",\"integrity\":\"{}\"}},\
             \"node_modules/b\":{{\"name\":\"a\",\"version\":\"1.0.0\",\"integrity\":\"{0}\"}}}}}}",
            hash("ab")
        )
    }

    #[test]
    fn archives_stand_where_npm_looks_for_them() {
        let prepared = prepare(&project(&[("package-lock.json", &lock())], &[])).unwrap();
        let names: Vec<String> = prepared.dependencies.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a 1.0.0", "npm 10.9.9"]);
        let Form::File(place) = &prepared.layout.placements[0].form else { panic!("a file") };
        let rest = "ab".repeat(62);
        let expected = format!("build/npm/cache/_cacache/content-v2/sha512/ab/ab/{rest}");
        assert_eq!(place.as_str(), expected);
        assert!(!prepared.replaced["package-lock.json"].contains("example.com"));
    }

    #[test]
    fn debians_npm_takes_the_place_of_the_pinned_one() {
        let debian = [("npm", "9.2.0~ds1-1"), ("nodejs", "18.20.4+dfsg-1")];
        let prepared = prepare(&project(&[("package-lock.json", &lock())], &debian)).unwrap();
        assert_eq!(prepared.dependencies.len(), 1);
        assert_eq!(packages(&["gcc"]), ["nodejs"]);
        assert!(packages(&["nodejs"]).is_empty());
    }

    #[test]
    fn other_tools_lockfiles_are_named_in_the_mend() {
        let error = prepare(&project(&[("yarn.lock", "")], &[])).unwrap_err();
        assert_eq!(error.to_string(), "the source has no package-lock.json");
        assert!(error.hint().unwrap().contains("npm's alone"));
        let error = prepare(&project(&[], &[])).unwrap_err();
        assert_eq!(error.hint(), Some(MAKE_ONE));
    }

    #[test]
    fn settings_lose_what_is_of_one_host() {
        let text = "//r.example.com/:_authToken=abc\nlegacy-peer-deps=true\n";
        let files = [("npm-shrinkwrap.json", lock()), (".npmrc", text.to_owned())];
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let prepared = prepare(&project(&files, &[])).unwrap();
        assert_eq!(prepared.replaced[".npmrc"], "legacy-peer-deps=true\n");
        assert!(prepared.replaced.contains_key("npm-shrinkwrap.json"));
    }
}
