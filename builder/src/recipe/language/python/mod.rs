//! Python: uv.lock, pylock.toml or requirements.txt, installed by pip.
//!
//! ```text
//! /build/python/wheels/         the wheels that are installed; pip checks their hashes again
//! /build/python/sources/NAME/   packages that have no wheel for this Python, to be built
//! /build/python/build/          wheels that builds need and images do not
//! /build/python/root/           what is installed, before the script; it goes to the output
//! ```
//!
//! Wheels are chosen for the Python and the C library that the lock pins for the recipe, by pip's
//! order. Packages go where Debian's Python looks for what its administrator installed,
//! `/usr/local/lib/python3.X/dist-packages`, so `python3 -m NAME` works in the image as it is.
//! Bytecode is compiled at the end, in one order, and bound to no modification time.

mod index;
mod lock;
mod marker;
mod pylock;
mod requirements;
mod settings;
mod tags;
mod uv_lock;
mod version;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use drystone_store::digest::BlobDigest;
use drystone_store::tree::TreePath;

pub(super) use index::{ACCEPT, OfferedFile, read as read_index};
pub(super) use marker::normalised;
pub(super) use settings::{Indexes, Texts, of_project};

use super::{
    Algorithm, Dependency, Form, Format, Integrity, LockfileError, Placement, Prepared, Project,
    Question, Registry,
};
use lock::{Chosen, Locked, LockedPackage};
use marker::Environment;
use tags::{Interpreter, WheelName};
use version::Version;

const PROJECT: &str = "pyproject.toml";
const OLD_PROJECT: &str = "setup.py";
const MAKE_ONE: &str =
    "make one: `uv lock`, or `pip-compile --generate-hashes -o requirements.txt`";
/// What is run unless the recipe has a script.
pub(super) const SCRIPT: &str = "install_python \"$out\"";
/// The functions that scripts may call.
const FUNCTIONS: &str = include_str!("../../../../data/python-install.sh");
/// Variables of every build. Where pip's option says no, its variable must.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_CACHE_DIR", "1"),
    ("PIP_NO_COMPILE", "0"),
    ("PIP_NO_DEPS", "1"),
    ("PIP_NO_INDEX", "1"),
    ("PIP_NO_INPUT", "1"),
    ("PIP_NO_WARN_SCRIPT_LOCATION", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONHASHSEED", "0"),
];

/// Whether a text is the name of a package.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let ends = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
    ends(text.chars().next()) && ends(text.chars().next_back()) && text.bytes().all(plain)
}

/// Whether a text is a package's version.
pub fn is_version(text: &str) -> bool {
    Version::new(text).is_some()
}

/// A package's source archive as it was published. What the index calls it is not known yet: the
/// hash finds it.
pub fn published(name: String, version: String, sha256: &BlobDigest) -> Dependency {
    let integrity = Integrity::from_hex(Algorithm::Sha256, &sha256.to_hex());
    Dependency {
        file_name: format!("{name}-{version}.tar.gz"),
        name,
        version,
        integrity: integrity.expect("a digest has the length of its algorithm"),
        registry: Registry::Python,
    }
}

/// Whether a file of the source is read.
pub(super) fn is_read(path: &str) -> bool {
    let named = [uv_lock::FILE, pylock::FILE, PROJECT, OLD_PROJECT];
    let is_requirements = path.ends_with(".txt") && path.matches('/').count() < 4;
    named.contains(&path) || is_requirements
}

/// Debian's Python and pip, which brings setuptools.
pub(super) const fn packages() -> &'static [&'static str] {
    &["python3", "python3-pip"]
}

/// What the lockfile means.
pub(super) fn prepare(project: &Project) -> Result<Prepared, LockfileError> {
    let python = Python::new(project);
    let locked = read(project, &python.environment)?;
    let mut prepared = Prepared::default();
    let mut build = Plan { project, python: &python, prepared: &mut prepared };
    let build_list = build.add(&locked.build, "build/python/build", false)?;
    let list = build.add(&locked.packages, "build/python/wheels", true)?;
    if !prepared.questions.is_empty() {
        return Ok(prepared);
    }
    let (major, minor) = python.interpreter.python;
    let mut before = format!("python=python{major}.{minor}\n{FUNCTIONS}");
    for (name, lines, function) in
        [("build", build_list, "install_build_tools"), ("requirements", list, "install_wheels")]
    {
        if !lines.is_empty() {
            let path = format!("build/python/{name}.txt");
            prepared.layout.files.insert(tree_path(&path), lines);
            let _ = writeln!(before, "{function} /{path}");
        }
    }
    for directory in prepared.layout.placements.iter().filter_map(|it| match &it.form {
        Form::Unpacked { directory, .. } => Some(directory),
        Form::File(_) => None,
    }) {
        let _ = writeln!(before, "install_source /{directory} \"$dependencies\"");
    }
    let projects: Vec<String> = locked.projects.iter().map(|path| quoted(path)).collect();
    let _ = writeln!(
        before,
        "install_projects() {{ for project in {}; do install_source \
        \"/build/source/$project\" \"$1\"; done; }}",
        projects.join(" ")
    );
    prepared.before = Some(before);
    Ok(prepared)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn tree_path(text: &str) -> TreePath {
    TreePath::new(text).expect("a valid path")
}

/// Reads the lockfile that counts, and whether the source is a package itself.
fn read(project: &Project, environment: &Environment) -> Result<Locked, LockfileError> {
    let text = |name: &str| project.files.get(name).map(String::as_str);
    if let Some(lock) = text(uv_lock::FILE) {
        return uv_lock::read(lock, environment);
    }
    let mut locked = match (text(pylock::FILE), text(requirements::FILE)) {
        (Some(lock), _) => pylock::read(lock, environment)?,
        (None, Some(_)) => {
            let mut locked = requirements::read(requirements::FILE, &text, environment)?;
            if text(requirements::BUILD_FILE).is_some() {
                let file = requirements::BUILD_FILE;
                locked.build = requirements::read(file, &text, environment)?.packages;
            }
            locked
        }
        (None, None) => {
            let files = vec![uv_lock::FILE, pylock::FILE, requirements::FILE];
            return Err(LockfileError::Missing { files, help: MAKE_ONE });
        }
    };
    let is_package = text(OLD_PROJECT).is_some() || text(PROJECT).is_some_and(is_package);
    if is_package && !locked.projects.iter().any(|path| path == ".") {
        locked.projects.push(".".to_owned());
    }
    Ok(locked)
}

/// Whether a pyproject.toml is of something to install, and not of tools' settings alone.
fn is_package(text: &str) -> bool {
    let table = text.parse::<toml::Table>().unwrap_or_default();
    table.contains_key("project") || table.contains_key("build-system")
}

/// The Python that the lock pins.
struct Python {
    interpreter: Interpreter,
    environment: Environment,
}

impl Python {
    fn new(project: &Project) -> Self {
        let version = |package: &str| {
            let text = project.packages.get(package)?;
            let text = text.split_once(':').map_or(text.as_str(), |(_, rest)| rest);
            let end = text.find(|it: char| !(it.is_ascii_digit() || it == '.'));
            let text = text[..end.unwrap_or(text.len())].trim_end_matches('.');
            Some((text.to_owned(), Version::new(text)?))
        };
        let (full, python) = version("python3")
            .unwrap_or_else(|| ("3.11.0".to_owned(), Version::new("3.11.0").expect("a version")));
        let (major, minor) = python.major_minor();
        let glibc = version("libc6").or_else(|| version("libc6.1"));
        let glibc = glibc.map_or((2, 17), |(_, version)| version.major_minor());
        let machine = machine(project.platform.debian_name());
        let variables = [
            ("implementation_name", "cpython".to_owned()),
            ("implementation_version", full.clone()),
            ("os_name", "posix".to_owned()),
            ("platform_machine", machine.to_owned()),
            ("platform_python_implementation", "CPython".to_owned()),
            ("platform_system", "Linux".to_owned()),
            ("python_full_version", full),
            ("python_version", format!("{major}.{minor}")),
            ("sys_platform", "linux".to_owned()),
        ];
        Self {
            interpreter: Interpreter { python: (major, minor), glibc, machine },
            environment: Environment { variables: variables.into(), ..Environment::default() },
        }
    }
}

/// `uname -m` of an architecture of Debian.
fn machine(architecture: &str) -> &'static str {
    match architecture {
        "amd64" => "x86_64",
        "i386" => "i686",
        "armhf" => "armv7l",
        "armel" => "armv5tel",
        "ppc64el" => "ppc64le",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "mips64el" => "mips64",
        "loong64" => "loongarch64",
        _ => "aarch64",
    }
}

/// The files that are fetched, and where they stand.
struct Plan<'a> {
    project: &'a Project,
    python: &'a Python,
    prepared: &'a mut Prepared,
}

impl Plan<'_> {
    /// Adds packages; the list that pip installs of their wheels.
    fn add(
        &mut self,
        packages: &[LockedPackage],
        folder: &str,
        with_sources: bool,
    ) -> Result<String, LockfileError> {
        let mut list = String::new();
        let mut seen = BTreeSet::new();
        for package in packages {
            if !self.project.is_answered && package.files.iter().any(|file| file.name.is_none()) {
                self.prepared.questions.push(question(package));
                continue;
            }
            let chosen = package.choose(&self.python.interpreter, &self.project.file_names);
            let chosen = chosen.filter(|it| it.is_wheel || with_sources);
            let chosen = chosen.ok_or_else(|| self.no_file(package))?;
            if !seen.insert(chosen.name.clone()) {
                continue;
            }
            self.place(package, &chosen, folder);
            if let Some(wheel) = WheelName::new(&chosen.name) {
                let hash = chosen.file.integrity.to_string();
                let _ = writeln!(list, "{}=={} --hash={hash}", wheel.name, wheel.version);
            }
        }
        Ok(list)
    }

    fn place(&mut self, package: &LockedPackage, chosen: &Chosen<'_>, folder: &str) {
        let integrity = chosen.file.integrity.clone();
        let form = match chosen.is_wheel {
            true => Form::File(tree_path(&format!("{folder}/{}", chosen.name))),
            false => Form::Unpacked {
                directory: tree_path(&format!("build/python/sources/{}", package.name)),
                format: Format::TarGzip,
                executable: BTreeSet::new(),
            },
        };
        let title = package.title();
        self.prepared.layout.placements.push(Placement {
            integrity: integrity.clone(),
            title,
            form,
        });
        self.prepared.dependencies.push(Dependency {
            name: package.name.clone(),
            version: package.version.clone(),
            integrity,
            registry: match &chosen.file.url {
                Some(url) => Registry::Address(url.clone()),
                None => Registry::Python,
            },
            file_name: chosen.name.clone(),
        });
    }

    fn no_file(&self, package: &LockedPackage) -> LockfileError {
        let (major, minor) = self.python.interpreter.python;
        LockfileError::Origin {
            file: "the lockfile".to_owned(),
            package: package.title(),
            origin: format!(
                "no file that Python {major}.{minor} on {} can use",
                self.python.interpreter.machine
            ),
            help: "lock a version that has a wheel for this Python or a .tar.gz of its source; \
                   `uv lock` and `pip-compile --generate-hashes` lock all files of a version",
        }
    }
}

/// Which files an index has for a package whose lockfile names hashes alone.
fn question(package: &LockedPackage) -> Question {
    Question {
        name: package.name.clone(),
        version: package.version.clone(),
        hashes: package.files.iter().map(|file| file.integrity.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Platform;

    fn project(files: &[(&str, &str)]) -> Project {
        let packages = [("python3", "3.11.2-1+b1"), ("libc6", "2.36-9+deb12u10")];
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Project {
            files: owned(files),
            packages: owned(&packages),
            ..Project::new(Platform::new("linux/amd64").unwrap())
        }
    }

    fn hash(digit: &str) -> Integrity {
        Integrity::from_hex(Algorithm::Sha256, &digit.repeat(64)).unwrap()
    }

    #[test]
    fn the_pinned_python_decides() {
        let python = Python::new(&project(&[]));
        assert_eq!(python.interpreter.python, (3, 11));
        assert_eq!(python.interpreter.glibc, (2, 36));
        assert_eq!(python.environment.variables["python_full_version"], "3.11.2");
        assert_eq!(python.environment.variables["platform_machine"], "x86_64");
    }

    /// Hashes alone say nothing of names: the index is asked once, and what it says is known then.
    #[test]
    fn requirements_are_asked_about_and_then_laid_out() {
        let text = format!(
            "web==1.0 --hash={} --hash={}\nold==2.0 --hash={}\n",
            hash("1"),
            hash("2"),
            hash("3")
        );
        let mut project = project(&[("requirements.txt", &text), ("pyproject.toml", "[project]")]);
        let asked = prepare(&project).unwrap();
        let names: Vec<&str> = asked.questions.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["web", "old"]);
        for (digit, name) in [
            ("1", "web-1.0.tar.gz"),
            ("2", "web-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"),
            ("3", "old-2.0.tar.gz"),
        ] {
            project.file_names.insert(hash(digit), name.to_owned());
        }
        project.is_answered = true;
        let prepared = prepare(&project).unwrap();
        assert!(prepared.questions.is_empty());
        let names: Vec<&str> =
            prepared.dependencies.iter().map(|it| it.file_name.as_str()).collect();
        assert_eq!(names, ["web-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", "old-2.0.tar.gz"]);
        let list = &prepared.layout.files[&tree_path("build/python/requirements.txt")];
        assert_eq!(*list, format!("web==1.0 --hash={}\n", hash("2")));
        let before = prepared.before.unwrap();
        assert!(before.contains("install_source /build/python/sources/old"), "{before}");
        assert!(before.contains("for project in '.'"), "{before}");
    }

    #[test]
    fn a_package_without_a_usable_file_is_named() {
        let text = format!("web==1.0 --hash={}\n", hash("1"));
        let mut project = project(&[("requirements.txt", &text)]);
        project.file_names.insert(hash("1"), "web-1.0-cp312-cp312-win_amd64.whl".to_owned());
        project.is_answered = true;
        let error = prepare(&project).unwrap_err();
        assert!(error.to_string().contains("web 1.0"), "{error}");
        assert!(error.to_string().contains("Python 3.11 on x86_64"), "{error}");
        project.file_names.clear();
        assert!(prepare(&project).is_err(), "an index that knows none of the hashes");
        let error = prepare(&self::project(&[])).unwrap_err();
        assert_eq!(error.hint(), Some(MAKE_ONE));
    }
}
