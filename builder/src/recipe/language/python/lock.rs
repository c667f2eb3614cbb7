//! What the lockfiles of Python have in common, once they are read.

use std::collections::BTreeMap;

use url::Url;

use super::marker::{Environment, Marker};
use super::tags::{Interpreter, Rank, WheelName, source_version};
use super::version::Version;
use crate::recipe::language::{Algorithm, Integrity, LockfileError};

/// One file that a lockfile offers for a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockedFile {
    /// Its name; not known where a lockfile has hashes alone.
    pub name: Option<String>,
    /// Its hash.
    pub integrity: Integrity,
    /// Its address, where the project asks for an address and not for a package.
    pub url: Option<Url>,
}

/// One package that is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockedPackage {
    /// Its name, as PEP 503 writes it.
    pub name: String,
    /// Its version, where the lockfile says it.
    pub version: String,
    /// The files that may be used.
    pub files: Vec<LockedFile>,
}

/// A lockfile, read for one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Locked {
    /// What the project needs when it runs.
    pub packages: Vec<LockedPackage>,
    /// What is needed to build, beside that.
    pub build: Vec<LockedPackage>,
    /// Folders of the source that are packages themselves; the project is `.`.
    pub projects: Vec<String>,
}

/// The file of a package that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen<'a> {
    /// Its name.
    pub name: String,
    /// Whether it is a wheel; a source archive otherwise.
    pub is_wheel: bool,
    /// The file.
    pub file: &'a LockedFile,
}

impl LockedPackage {
    /// Name and version, for messages.
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The best wheel, else the source archive. `names` are names of files by hash, as the index
    /// told them.
    pub fn choose(
        &self,
        interpreter: &Interpreter,
        names: &BTreeMap<Integrity, String>,
    ) -> Option<Chosen<'_>> {
        let mut best: Option<(Rank, Chosen<'_>)> = None;
        let mut archive: Option<Chosen<'_>> = None;
        for file in &self.files {
            let name = file.name.as_ref().or_else(|| names.get(&file.integrity));
            let Some(name) = name.filter(|name| self.is_own(name)) else { continue };
            let chosen = |is_wheel| Chosen { name: name.clone(), is_wheel, file };
            match WheelName::new(name) {
                Some(wheel) => {
                    let Some(rank) = wheel.rank(interpreter) else { continue };
                    if best.as_ref().is_none_or(|(best, _)| rank < *best) {
                        best = Some((rank, chosen(true)));
                    }
                }
                None if name.ends_with(".tar.gz") => archive = Some(chosen(false)),
                None => {}
            }
        }
        best.map(|(_, chosen)| chosen).or(archive)
    }

    /// Whether a file's name is of this version, and one that can stand in a path.
    fn is_own(&self, name: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte);
        if name.starts_with('.') || !name.bytes().all(plain) {
            return false;
        }
        let version = match WheelName::new(name) {
            Some(wheel) => Some(wheel.version),
            None => source_version(name),
        };
        match Version::new(&self.version) {
            None => self.version.is_empty(),
            Some(wanted) => {
                let version = version.and_then(|text| Version::new(&text.replace('_', "+")));
                version.is_some_and(|version| version == wanted || version.cmp(&wanted).is_eq())
            }
        }
    }
}

/// The last part of an address or a path, as a file's name.
pub(super) fn file_name(address: &str) -> Option<String> {
    let path = address.split(['#', '?']).next()?;
    let name = path.rsplit('/').next()?.replace("%2B", "+").replace("%2b", "+");
    (!name.is_empty()).then_some(name)
}

/// Whether a marker holds; none always does.
pub(super) fn holds(
    file: &str,
    marker: Option<&str>,
    environment: &Environment,
) -> Result<bool, LockfileError> {
    let Some(text) = marker.filter(|text| !text.trim().is_empty()) else { return Ok(true) };
    let marker = Marker::new(text)
        .map_err(|problem| LockfileError::Malformed { file: file.to_owned(), problem })?;
    Ok(marker.holds(environment))
}

/// Reads `sha256:HEX` and the like.
pub(super) fn integrity(
    text: &str,
) -> Option<Result<Integrity, crate::recipe::language::IntegrityError>> {
    let (algorithm, digits) = text.split_once(':')?;
    let algorithm = match algorithm.trim() {
        "sha256" => Algorithm::Sha256,
        "sha512" => Algorithm::Sha512,
        _ => return None,
    };
    Some(Integrity::from_hex(algorithm, digits.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> Integrity {
        Integrity::from_hex(Algorithm::Sha256, &format!("{byte:02x}").repeat(32)).unwrap()
    }

    fn package(names: &[Option<&str>]) -> LockedPackage {
        let files = names.iter().zip(1..).map(|(name, byte)| LockedFile {
            name: name.map(str::to_owned),
            integrity: hash(byte),
            url: None,
        });
        LockedPackage { name: "a-b".into(), version: "1.0".into(), files: files.collect() }
    }

    const BOOKWORM: Interpreter =
        Interpreter { python: (3, 11), glibc: (2, 36), machine: "x86_64" };

    #[test]
    fn the_best_wheel_is_chosen_and_else_the_source() {
        let chosen = |names: &[Option<&str>]| {
            let package = package(names);
            package.choose(&BOOKWORM, &BTreeMap::new()).map(|it| (it.name, it.is_wheel))
        };
        let (pure, own) =
            ("a_b-1.0-py3-none-any.whl", "a_b-1.0-cp311-cp311-manylinux2014_x86_64.whl");
        let foreign = "a_b-1.0-cp311-cp311-musllinux_1_1_x86_64.whl";
        let source = "a-b-1.0.tar.gz";
        let name = |name: &str, is_wheel| Some((name.to_owned(), is_wheel));
        assert_eq!(chosen(&[Some(source), Some(pure), Some(own), Some(foreign)]), name(own, true));
        assert_eq!(chosen(&[Some(foreign), Some(source), Some(pure)]), name(pure, true));
        assert_eq!(chosen(&[Some(foreign), Some(source)]), name(source, false));
        assert_eq!(chosen(&[Some(foreign)]), None);
        for wrong in ["a_b-1.1-py3-none-any.whl", "../a_b-1.0-py3-none-any.whl", "a-b-1.0.exe"] {
            assert_eq!(chosen(&[Some(wrong)]), None, "{wrong}");
        }
    }

    #[test]
    fn files_that_have_hashes_alone_are_named_by_the_index() {
        let package = package(&[None, None]);
        assert_eq!(package.choose(&BOOKWORM, &BTreeMap::new()), None);
        let names = BTreeMap::from([(hash(2), "a_b-1.0-py3-none-any.whl".to_owned())]);
        let chosen = package.choose(&BOOKWORM, &names).unwrap();
        assert_eq!(chosen.file.integrity, hash(2));
    }
}
