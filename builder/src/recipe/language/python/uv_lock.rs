//! uv.lock, version 1: a graph of packages with the files of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use url::Url;

use super::lock::{Locked, LockedFile, LockedPackage, file_name, holds, integrity};
use super::marker::{Environment, normalised};
use crate::recipe::language::LockfileError;

/// The file.
pub(super) const FILE: &str = "uv.lock";
/// The group of dependencies that builds need and images do not.
const BUILD_GROUP: &str = "build";
const HELP: &str = "run `uv lock` with a version of uv that writes version 1 of the file";

#[derive(Deserialize)]
struct Document {
    version: u32,
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    source: BTreeMap<String, toml::Value>,
    #[serde(default)]
    dependencies: Vec<Edge>,
    #[serde(default, rename = "optional-dependencies")]
    optional: BTreeMap<String, Vec<Edge>>,
    #[serde(default, rename = "dev-dependencies")]
    groups: BTreeMap<String, Vec<Edge>>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
}

#[derive(Deserialize)]
struct Edge {
    name: String,
    version: Option<String>,
    #[serde(default)]
    extra: Vec<String>,
    marker: Option<String>,
}

#[derive(Deserialize)]
struct File {
    url: Option<String>,
    path: Option<String>,
    filename: Option<String>,
    hash: Option<String>,
}

/// Where a package comes from.
enum Source<'a> {
    Registry,
    Url(&'a str),
    /// A folder that is installed.
    Project(&'a str),
    /// A folder that only has dependencies.
    Virtual(&'a str),
    Git,
    Archive(&'a str),
}

impl Package {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn source(&self) -> Source<'_> {
        let text = |key: &str| self.source.get(key).and_then(toml::Value::as_str);
        if let Some(path) = text("virtual") {
            return Source::Virtual(path);
        }
        if let Some(path) = text("editable").or_else(|| text("directory")) {
            return Source::Project(path);
        }
        if text("git").is_some() {
            return Source::Git;
        }
        match (text("url"), text("path")) {
            (Some(url), _) => Source::Url(url),
            (_, Some(path)) => Source::Archive(path),
            _ => Source::Registry,
        }
    }

    fn locked(&self) -> Result<LockedPackage, LockfileError> {
        let own_address = match self.source() {
            Source::Url(url) => Some(url),
            _ => None,
        };
        let mut files = Vec::new();
        for file in self.sdist.iter().chain(&self.wheels) {
            let Some(hash) = &file.hash else { continue };
            let hash = integrity(hash).ok_or_else(|| self.no_hash())?;
            let integrity = hash.map_err(|source| LockfileError::Hash {
                file: FILE.to_owned(),
                package: self.title(),
                source,
            })?;
            let named = file.filename.clone();
            let address = own_address.or(file.url.as_deref());
            let name =
                named.or_else(|| file_name(address?)).or_else(|| file_name(file.path.as_deref()?));
            let url = own_address.and_then(|url| Url::parse(url).ok());
            files.push(LockedFile { name, integrity, url });
        }
        match files.is_empty() {
            true => Err(self.no_hash()),
            false => {
                let (name, version) = (normalised(&self.name), self.version.clone());
                Ok(LockedPackage { name, version, files })
            }
        }
    }

    fn no_hash(&self) -> LockfileError {
        LockfileError::NoHash {
            file: FILE.to_owned(),
            package: self.title(),
            help: "lock against an index that gives hashes of its files",
        }
    }

    fn refused(&self, origin: &str) -> LockfileError {
        LockfileError::Origin {
            file: FILE.to_owned(),
            package: self.title(),
            origin: origin.to_owned(),
            help: "use a published version, or keep its source as a folder of the project",
        }
    }
}

/// Reads the text of uv.lock.
pub(super) fn read(text: &str, environment: &Environment) -> Result<Locked, LockfileError> {
    let malformed = |problem: String| LockfileError::Malformed { file: FILE.to_owned(), problem };
    let document: Document =
        toml::from_str(text).map_err(|error| malformed(error.to_string().trim_end().to_owned()))?;
    if document.version != 1 {
        let (file, version) = (FILE.to_owned(), document.version.to_string());
        return Err(LockfileError::Version { file, version, help: HELP });
    }
    let walk = Walk { packages: &document.package, environment };
    let roots = walk.roots();
    if roots.is_empty() {
        return Err(malformed("no package in it is the project itself".to_owned()));
    }
    let mut locked = Locked::default();
    let needed = walk.needed(roots.iter().flat_map(|root| edges_of(root, &[])))?;
    let groups = roots.iter().flat_map(|root| root.groups.get(BUILD_GROUP).into_iter().flatten());
    let build = walk.needed(groups.collect::<Vec<_>>())?;
    for root in &roots {
        if let Source::Project(path) = root.source() {
            locked.projects.push(path.to_owned());
        }
    }
    for (at, package) in document.package.iter().enumerate() {
        let (is_needed, is_for_build) = (needed.contains(&at), build.contains(&at));
        if !is_needed && !is_for_build {
            continue;
        }
        match package.source() {
            Source::Git => return Err(package.refused("git")),
            Source::Archive(path) => {
                return Err(package.refused(&format!("the archive {path:?} of the project")));
            }
            Source::Virtual(_) => {}
            Source::Project(path) => {
                if is_needed && !locked.projects.iter().any(|it| it == path) {
                    locked.projects.push(path.to_owned());
                }
            }
            Source::Registry | Source::Url(_) if is_needed => {
                locked.packages.push(package.locked()?);
            }
            Source::Registry | Source::Url(_) => locked.build.push(package.locked()?),
        }
    }
    // Folders that the project needs are installed before it.
    locked.projects.sort_by_key(|path| (path == ".", path.clone()));
    Ok(locked)
}

/// The edges of a package and of some of its extras.
fn edges_of<'a>(package: &'a Package, extras: &[String]) -> Vec<&'a Edge> {
    let wanted: BTreeSet<String> = extras.iter().map(|extra| normalised(extra)).collect();
    let optional = package.optional.iter().filter(|(name, _)| wanted.contains(&normalised(name)));
    package.dependencies.iter().chain(optional.flat_map(|(_, edges)| edges)).collect()
}

struct Walk<'a> {
    packages: &'a [Package],
    environment: &'a Environment,
}

impl<'a> Walk<'a> {
    /// The project; all members of a workspace that has none at its top.
    fn roots(&self) -> Vec<&'a Package> {
        let path = |package: &&Package| match package.source() {
            Source::Project(path) | Source::Virtual(path) => Some(path.to_owned()),
            _ => None,
        };
        let all = self.packages.iter();
        let own: Vec<&Package> =
            all.clone().filter(|it| path(it).is_some_and(|path| path == ".")).collect();
        match own.is_empty() {
            true => all.filter(|it| path(it).is_some()).collect(),
            false => own,
        }
    }

    /// The places of all packages that some edges lead to.
    fn needed(
        &self,
        start: impl IntoIterator<Item = &'a Edge>,
    ) -> Result<BTreeSet<usize>, LockfileError> {
        let mut queue: VecDeque<&Edge> = start.into_iter().collect();
        let mut seen: BTreeSet<(usize, Vec<String>)> = BTreeSet::new();
        let mut needed = BTreeSet::new();
        while let Some(edge) = queue.pop_front() {
            if !holds(FILE, edge.marker.as_deref(), self.environment)? {
                continue;
            }
            let is_it = |package: &Package| {
                package.name == edge.name
                    && edge.version.as_ref().is_none_or(|version| *version == package.version)
            };
            let Some(at) = self.packages.iter().position(is_it) else {
                let problem = format!("it names {} and has no such package", edge.name);
                return Err(LockfileError::Malformed { file: FILE.to_owned(), problem });
            };
            needed.insert(at);
            if seen.insert((at, edge.extra.clone())) {
                queue.extend(edges_of(&self.packages[at], &edge.extra));
            }
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn environment() -> Environment {
        let variables = [("sys_platform", "linux"), ("python_full_version", "3.11.2")];
        Environment {
            variables: variables.map(|(name, value)| (name, value.to_owned())).into(),
            ..Environment::default()
        }
    }

    fn lock() -> String {
        let file = |name: &str, digit: char| {
            format!(
                "[{{ url = \"https://files.example.com/x/{name}\", hash = \"{}\" }}]",
                hash(digit)
            )
        };
        let package = |name: &str, digit: char, rest: &str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0\"\nsource = {{ registry = \
                 \"https://index.example.com/simple\" }}\nwheels = {}\n{rest}\n",
                file(&format!("{name}-1.0-py3-none-any.whl"), digit)
            )
        };
        format!(
            "version = 1\nrevision = 3\nrequires-python = \">=3.11\"\n\
             [[package]]\nname = \"orders\"\nversion = \"0.1\"\nsource = {{ editable = \".\" }}\n\
             dependencies = [{{ name = \"web\", extra = [\"fast\"] }}, {{ name = \"win\", marker = \
             \"sys_platform == 'win32'\" }}, {{ name = \"own\" }}]\n\
             [package.dev-dependencies]\ndev = [{{ name = \"tester\" }}]\n\
             build = [{{ name = \"backend\" }}]\n{}{}{}{}{}{}{}",
            package(
                "web",
                '1',
                "dependencies = [{ name = \"core\" }]\n[package.optional-dependencies]\n\
                 fast = [{ name = \"speed\" }]\nslow = [{ name = \"win\" }]"
            ),
            package("core", '2', ""),
            package("speed", '3', ""),
            package("win", '4', ""),
            package("tester", '5', ""),
            package("backend", '6', ""),
            "[[package]]\nname = \"own\"\nversion = \"0.1\"\nsource = { directory = \"own\" }\n",
        )
    }

    #[test]
    fn what_the_project_needs_is_found() {
        let locked = read(&lock(), &environment()).unwrap();
        let names = |packages: &[LockedPackage]| {
            packages.iter().map(|it| it.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&locked.packages), ["web", "core", "speed"]);
        assert_eq!(names(&locked.build), ["backend"]);
        assert_eq!(locked.projects, ["own", "."]);
        let file = &locked.packages[0].files[0];
        assert_eq!(file.name.as_deref(), Some("web-1.0-py3-none-any.whl"));
        assert_eq!(file.url, None, "an address in it decides nothing");
    }

    #[test]
    fn files_may_be_named_without_an_address() {
        let text = lock().replace("url = \"https://files.example.com/x/", "filename = \"");
        let named = read(&text, &environment()).unwrap();
        assert_eq!(named, read(&lock(), &environment()).unwrap());
    }

    #[test]
    fn what_cannot_be_followed_says_so() {
        let wrong = |text: &str| read(text, &environment()).unwrap_err();
        assert!(wrong("version = 2").hint().unwrap().contains("uv lock"));
        assert!(matches!(wrong("version = 1"), LockfileError::Malformed { .. }));
        assert!(matches!(wrong("nonsense"), LockfileError::Malformed { .. }));
        let text = lock().replace(&format!(", hash = \"{}\"", hash('2')), "");
        let error = wrong(&text);
        assert!(error.to_string().contains("core 1.0 has no hash"), "{error}");
        let text = lock().replace(&hash('2'), "md5:00");
        assert!(matches!(wrong(&text), LockfileError::NoHash { .. }));
        let registry = "name = \"core\"\nversion = \"1.0\"\nsource = { registry";
        for (source, origin) in [("git", "git"), ("path", "archive")] {
            let text = lock().replace(registry, &registry.replace("registry", source));
            assert!(wrong(&text).to_string().contains(origin), "{source}");
        }
        let text = lock().replace("{ name = \"core\" }", "{ name = \"gone\" }");
        assert!(wrong(&text).to_string().contains("gone"));
    }
}
