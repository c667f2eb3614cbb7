//! What recipes are built from and did not write themselves: archives, commits, and whatever
//! packages of a language's registry their lockfiles pin.

use drystone_store::digest::BlobDigest;

use super::purl;
use crate::recipe::language::{Algorithm, Dependency, Registry};
use crate::spec::{Image, RecipeSource};
use drystone_source::fetch::shown;

/// Something that a recipe fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The recipe.
    pub recipe: String,
    /// What it is called.
    pub name: String,
    /// Its version, or the commit.
    pub version: Option<String>,
    /// Its package URL, if it is a package of a registry.
    pub purl: Option<String>,
    /// Where it was fetched from, without credentials.
    pub url: Option<String>,
    /// SHA-256 of what was fetched.
    pub sha256: Option<BlobDigest>,
    /// Its licence, as an SPDX expression, if its makers declare one.
    pub licence: Option<String>,
}

/// The sources that image.toml itself names.
pub fn declared(image: &Image) -> Vec<Source> {
    let mut sources = Vec::new();
    for (name, recipe) in &image.recipes {
        let nothing = Source {
            recipe: name.to_string(),
            name: String::new(),
            version: None,
            purl: None,
            url: None,
            sha256: None,
            licence: None,
        };
        match &recipe.source {
            Some(RecipeSource::Download { url, sha256, .. }) => {
                let file = url.path().rsplit('/').next().filter(|file| !file.is_empty());
                sources.push(Source {
                    name: file.unwrap_or(name.as_str()).to_owned(),
                    url: Some(shown(url)),
                    sha256: Some(*sha256),
                    ..nothing
                });
            }
            Some(RecipeSource::Git { url, revision }) => {
                let place = url.path().trim_end_matches('/').trim_end_matches(".git");
                let last = place.rsplit('/').next().filter(|last| !last.is_empty());
                sources.push(Source {
                    name: last.unwrap_or(name.as_str()).to_owned(),
                    version: Some(revision.clone()),
                    url: Some(shown(url)),
                    ..nothing
                });
            }
            Some(RecipeSource::Package(package)) => {
                sources.push(Source::of_dependency(name.as_str(), package));
            }
            Some(RecipeSource::Folder { .. }) | None => {}
        }
    }
    sources
}

impl Source {
    /// A package of a language's registry. Where it was fetched from is the host's own affair.
    pub fn of_dependency(recipe: &str, package: &Dependency) -> Self {
        let Dependency { name, version, integrity, registry, .. } = package;
        let purl = match registry {
            // Registries that a lockfile names are not the one that `cargo` stands for in a URL.
            Registry::Crates(None) => Some(purl::of_registry("cargo", name, version)),
            Registry::Npm => Some(purl::of_registry("npm", name, version)),
            Registry::Python => {
                let name = name.to_lowercase().replace(['_', '.'], "-");
                Some(purl::of_registry("pypi", &name, version))
            }
            Registry::Crates(Some(_)) | Registry::Address(_) => None,
        };
        let is_sha256 = integrity.algorithm() == Algorithm::Sha256;
        Self {
            recipe: recipe.to_owned(),
            name: name.clone(),
            version: Some(version.clone()),
            purl,
            url: None,
            sha256: is_sha256.then(|| BlobDigest::from_hex(&integrity.to_hex())).flatten(),
            licence: None,
        }
    }
}
