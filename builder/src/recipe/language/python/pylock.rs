//! pylock.toml, version 1.0 (PEP 751): packages with their files, already resolved.

use std::collections::BTreeMap;

use serde::Deserialize;
use url::Url;

use super::lock::{Locked, LockedFile, LockedPackage, file_name, holds};
use super::marker::{Environment, normalised};
use crate::recipe::language::{Algorithm, Integrity, LockfileError};

/// The file.
pub(super) const FILE: &str = "pylock.toml";

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "lock-version")]
    version: String,
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    version: String,
    marker: Option<String>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
    archive: Option<File>,
    vcs: Option<toml::Value>,
    directory: Option<Directory>,
}

#[derive(Deserialize)]
struct File {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Directory {
    path: String,
}

/// Reads the text of pylock.toml.
pub(super) fn read(text: &str, environment: &Environment) -> Result<Locked, LockfileError> {
    let document: Document = toml::from_str(text).map_err(|error| LockfileError::Malformed {
        file: FILE.to_owned(),
        problem: error.to_string().trim_end().to_owned(),
    })?;
    if document.version.split('.').next() != Some("1") {
        return Err(LockfileError::Version {
            file: FILE.to_owned(),
            version: document.version,
            help: "export the file with a tool that writes version 1.0",
        });
    }
    let mut locked = Locked::default();
    for package in &document.packages {
        if !holds(FILE, package.marker.as_deref(), environment)? {
            continue;
        }
        match &package.directory {
            Some(directory) => locked.projects.push(directory.path.clone()),
            None => locked.packages.push(package.locked()?),
        }
    }
    Ok(locked)
}

impl Package {
    fn locked(&self) -> Result<LockedPackage, LockfileError> {
        let package = format!("{} {}", self.name, self.version).trim_end().to_owned();
        if self.vcs.is_some() {
            return Err(LockfileError::Origin {
                file: FILE.to_owned(),
                package,
                origin: "a repository".to_owned(),
                help: "use a published version, or keep its source as a folder of the project",
            });
        }
        let offered = self.sdist.iter().chain(&self.wheels).map(|file| (file, false));
        let own = self.archive.iter().map(|file| (file, true));
        let mut files = Vec::new();
        for (file, is_own) in offered.chain(own) {
            let known = [("sha512", Algorithm::Sha512), ("sha256", Algorithm::Sha256)];
            let hash = known
                .into_iter()
                .find_map(|(name, algorithm)| Some((algorithm, file.hashes.get(name)?)));
            let Some((algorithm, digits)) = hash else { continue };
            let integrity = Integrity::from_hex(algorithm, digits).map_err(|source| {
                let (file, package) = (FILE.to_owned(), package.clone());
                LockfileError::Hash { file, package, source }
            })?;
            let address = file.url.as_deref().or(file.path.as_deref());
            let name = file.name.clone().or_else(|| file_name(address?));
            let url = file.url.as_ref().filter(|_| is_own).and_then(|url| Url::parse(url).ok());
            files.push(LockedFile { name, integrity, url });
        }
        match files.is_empty() {
            true => Err(LockfileError::NoHash {
                file: FILE.to_owned(),
                package,
                help: "export the file anew, from an index that gives hashes of its files",
            }),
            false => {
                let (name, version) = (normalised(&self.name), self.version.clone());
                Ok(LockedPackage { name, version, files })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_their_files_are_read() {
        let digits = "1".repeat(64);
        let text = format!(
            "lock-version = '1.0'\ncreated-by = 'x'\n\
             [[packages]]\nname = 'Web_Thing'\nversion = '1.0'\n\
             wheels = [{{ name = 'web_thing-1.0-py3-none-any.whl', url = \
             'https://files.example.com/w', hashes = {{ sha256 = '{digits}' }} }}]\n\
             [[packages]]\nname = 'win'\nversion = '1.0'\nmarker = \"sys_platform == 'win32'\"\n\
             [[packages]]\nname = 'own'\ndirectory = {{ path = '.' }}\n"
        );
        let locked = read(&text, &Environment::default()).unwrap();
        assert_eq!(locked.packages.len(), 1);
        assert_eq!(locked.packages[0].name, "web-thing");
        assert_eq!(locked.packages[0].files[0].url, None);
        assert_eq!(locked.projects, ["."]);
        let without = text.replace(&format!("sha256 = '{digits}'"), "");
        let error = read(&without, &Environment::default()).unwrap_err();
        assert!(error.to_string().contains("Web_Thing 1.0 has no hash"), "{error}");
        let newer = text.replace("'1.0'\ncreated", "'2.0'\ncreated");
        assert!(matches!(
            read(&newer, &Environment::default()),
            Err(LockfileError::Version { .. })
        ));
    }
}
