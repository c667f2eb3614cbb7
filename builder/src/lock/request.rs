//! What image.toml asked for when pins were chosen, so that a lock can tell whether it still answers.

use std::collections::BTreeSet;
use std::fmt;

use crate::document::ValueError;
use crate::spec::{Component, Image, Name, PackageName, Suite, VersionPattern};

/// What image.toml asked of its repositories: all that decides which packages are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedRequest {
    /// The suite as written; it may be an alias.
    pub suite: Suite,
    /// The components of the main archive.
    pub components: BTreeSet<Component>,
    /// The packages.
    pub packages: BTreeSet<RequestedPackage>,
    /// Whether all Essential packages enter the image.
    pub essential: bool,
    /// Whether Recommends are followed.
    pub recommends: bool,
    /// Packages that may not enter the image.
    pub exclude: BTreeSet<PackageName>,
    /// The recipes with what their builds ask for.
    pub recipes: BTreeSet<RequestedRecipe>,
    /// The repositories that packages are asked from. Others give nothing, so they are left out.
    pub repositories: BTreeSet<RequestedRepository>,
}

impl LockedRequest {
    /// What an image.toml asks for; `None` without `[debian]`.
    pub fn of(image: &Image) -> Option<Self> {
        let debian = image.debian.as_ref()?;
        let mut packages: BTreeSet<_> = debian
            .packages
            .iter()
            .map(|package| RequestedPackage {
                name: package.name.clone(),
                version: package.version.clone(),
                from: package.from.clone(),
            })
            .collect();
        let runtime = image.recipes.values().flat_map(|recipe| &recipe.runtime);
        for name in runtime {
            if packages.iter().all(|package| package.name != *name) {
                packages.insert(RequestedPackage { name: name.clone(), version: None, from: None });
            }
        }
        let recipes = image.recipes.iter().map(|(name, recipe)| RequestedRecipe {
            name: name.clone(),
            packages: recipe.build_packages(&debian.suite),
        });
        let used: BTreeSet<&Name> =
            debian.packages.iter().filter_map(|package| package.from.as_ref()).collect();
        let repositories = image.repositories.iter().filter(|(name, _)| used.contains(name));
        let repositories = repositories.map(|(name, repository)| RequestedRepository {
            name: name.clone(),
            suite: repository.suite.clone(),
            components: repository.components.iter().cloned().collect(),
        });
        Some(Self {
            suite: debian.suite.clone(),
            components: debian.components.iter().cloned().collect(),
            packages,
            recipes: recipes.collect(),
            essential: debian.essential,
            recommends: debian.recommends,
            exclude: debian.exclude.clone(),
            repositories: repositories.collect(),
        })
    }
}

/// One package as it was asked for; its text is `NAME [VERSION] [from REPOSITORY]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestedPackage {
    /// The package, real or virtual.
    pub name: PackageName,
    /// The versions that are accepted; all when absent.
    pub version: Option<VersionPattern>,
    /// The repository that it must come from; the main archive when absent.
    pub from: Option<Name>,
}

impl RequestedPackage {
    /// Reads its text.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const FORM: &str = "it must be: PACKAGE [VERSION] [from REPOSITORY]";
        let words: Vec<&str> = text.split(' ').collect();
        let (name, version, from) = match words.as_slice() {
            [name] => (name, None, None),
            [name, version] => (name, Some(version), None),
            [name, "from", from] => (name, None, Some(from)),
            [name, version, "from", from] => (name, Some(version), Some(from)),
            _ => return Err(ValueError::new("request", text, FORM)),
        };
        Ok(Self {
            name: PackageName::new(name)?,
            version: version.map(|text| VersionPattern::new(text)).transpose()?,
            from: from.map(|text| Name::new(text)).transpose()?,
        })
    }
}

impl fmt::Display for RequestedPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        if let Some(version) = &self.version {
            write!(f, " {}", version.as_str())?;
        }
        match &self.from {
            Some(from) => write!(f, " from {from}"),
            None => Ok(()),
        }
    }
}

/// A recipe and the packages that its build asks for; its text is `RECIPE PACKAGE…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestedRecipe {
    /// The recipe.
    pub name: Name,
    /// The packages.
    pub packages: BTreeSet<PackageName>,
}

impl RequestedRecipe {
    /// Reads its text.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let mut words = text.split(' ');
        let name = Name::new(words.next().unwrap_or_default())?;
        Ok(Self { name, packages: words.map(PackageName::new).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for RequestedRecipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        self.packages.iter().try_for_each(|package| write!(f, " {package}"))
    }
}

/// A repository that packages are asked from; its text is `NAME SUITE COMPONENT…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestedRepository {
    /// Its name in image.toml.
    pub name: Name,
    /// The suite.
    pub suite: Suite,
    /// The components.
    pub components: BTreeSet<Component>,
}

impl RequestedRepository {
    /// Reads its text.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let mut words = text.split(' ');
        let (Some(name), Some(suite)) = (words.next(), words.next()) else {
            let form = "it must be: REPOSITORY SUITE COMPONENT…";
            return Err(ValueError::new("repository", text, form));
        };
        Ok(Self {
            name: Name::new(name)?,
            suite: Suite::new(suite)?,
            components: words.map(Component::new).collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for RequestedRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.suite)?;
        self.components.iter().try_for_each(|component| write!(f, " {component}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_themselves() {
        for text in ["nginx-light", "nodejs 22.*", "nodejs from node", "nodejs 22.* from node"] {
            assert_eq!(RequestedPackage::new(text).unwrap().to_string(), text);
        }
        for text in ["", "a b c", "nodejs 22.* from", "nodejs  22.*", "nodejs 1 from node x"] {
            assert!(RequestedPackage::new(text).is_err(), "{text:?}");
        }
        for text in ["node nodistro main", "node x", "node bookworm contrib main"] {
            assert_eq!(RequestedRepository::new(text).unwrap().to_string(), text);
        }
        for text in ["app", "app gcc libc6-dev"] {
            assert_eq!(RequestedRecipe::new(text).unwrap().to_string(), text);
        }
        for text in ["", "app ", "app  gcc"] {
            assert!(RequestedRecipe::new(text).is_err(), "{text:?}");
        }
        for text in ["", "node", "node x ", "node  x"] {
            assert!(RequestedRepository::new(text).is_err(), "{text:?}");
        }
    }
}
