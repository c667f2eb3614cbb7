//! The lock as values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use drystone_store::digest::{BlobDigest, TreeHash};
use drystone_store::tree::TreePath;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::document::{Diagnostics, ValueError};
use crate::spec::{
    Architecture, Component, ImageName, Name, PackageName, PackageVersion, Platform, Suite,
};

use super::request::LockedRequest;

/// The format's number. A file with a higher one is refused with a hint.
pub const VERSION: i64 = 1;

/// Why a lock file cannot be read, merged or written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file's text is wrong; the problems have their places.
    #[error("the lock file cannot be used\n{0}")]
    Text(Box<Diagnostics>),
    /// Reading or writing failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried: "read", "write", "lock the folder of"…
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Two locks pin one package, but not to the same bytes.
    #[error("package {package} is pinned to {ours} and to {theirs}")]
    Conflict {
        /// The package.
        package: PackageKey,
        /// The first pin.
        ours: String,
        /// The second pin.
        theirs: String,
    },
}

/// Everything that is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// The indexes that packages were chosen from.
    pub indexes: BTreeMap<IndexKey, Index>,
    /// The packages of all images.
    pub packages: BTreeMap<PackageKey, LockedPackage>,
    /// The images, by name.
    pub images: BTreeMap<ImageName, LockedImage>,
}

/// An archive: a repository's name (`debian` is the main one) and a suite of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveKey {
    /// The repository's name in image.toml, or `debian`.
    pub repository: Name,
    /// The suite as in `dists/`: `bookworm-security`.
    pub suite: Suite,
}

impl fmt::Display for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.repository, self.suite)
    }
}

/// Which index a pin is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexKey {
    /// The archive.
    pub archive: ArchiveKey,
    /// The architecture whose packages it lists.
    pub architecture: Architecture,
}

/// The Release that an index was proved by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The components that were read.
    pub components: BTreeSet<Component>,
    /// SHA-256 of the InRelease file.
    pub release: BlobDigest,
    /// The Release's own date, in whole seconds.
    pub date: Timestamp,
    /// When the Release says that it expires, in whole seconds.
    pub valid_until: Option<Timestamp>,
    /// The fingerprint of the key that signed it, in upper-case hexadecimal.
    pub signer: Fingerprint,
}

/// The fingerprint of an OpenPGP key: 40 or 64 upper-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(Box<str>);

impl Fingerprint {
    /// Reads a fingerprint; lower case and spaces are accepted, as tools print them.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let digits: String = text.chars().filter(|character| *character != ' ').collect();
        let digits = digits.to_ascii_uppercase();
        let good = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match good && (digits.len() == 40 || digits.len() == 64) {
            true => Ok(Self(digits.into())),
            false => Err(ValueError::new(
                "fingerprint",
                text,
                "it must have 40 or 64 hexadecimal digits",
            )),
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which package a pin is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageKey {
    /// The package.
    pub name: PackageName,
    /// Its version.
    pub version: PackageVersion,
    /// Its own architecture: `all`, or that of a platform.
    pub architecture: Architecture,
}

impl fmt::Display for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.architecture)
    }
}

/// A pinned package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Where it comes from.
    pub archive: ArchiveKey,
    /// Its source package, which layers are ordered by.
    pub source: PackageName,
    /// Its path below the repository's address.
    pub path: TreePath,
    /// The archive file's size in bytes.
    pub size: u64,
    /// The archive file's SHA-256.
    pub sha256: BlobDigest,
    /// The tree of its files, once imported: with it, any cache can be believed.
    pub tree: Option<TreeHash>,
    /// The tree of its control archive, once imported.
    pub control: Option<TreeHash>,
}

/// What is pinned for one image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedImage {
    /// The newest Release date when its pins last changed, in whole seconds: the image's
    /// `created`. It belongs to the image, so that no image changes because another one moved.
    pub date: Option<Timestamp>,
    /// The base image, where image.toml names it by a tag.
    pub base: Option<LockedBase>,
    /// The codename that the suite of image.toml stood for.
    pub suite: Option<Suite>,
    /// What image.toml asked for when the pins were chosen.
    pub request: Option<LockedRequest>,
    /// The archives that its packages were chosen from.
    pub archives: BTreeSet<ArchiveKey>,
    /// The numbers of accounts that its packages make.
    pub users: BTreeMap<String, u32>,
    /// The numbers of groups that its packages make.
    pub groups: BTreeMap<String, u32>,
    /// What its recipes fetched.
    pub recipes: BTreeMap<Name, LockedRecipe>,
    /// Its content on each platform.
    pub platforms: BTreeMap<Platform, LockedPlatform>,
}

/// What the tag of a base image named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedBase {
    /// The reference as image.toml has it.
    pub from: String,
    /// The digest of the manifest or index.
    pub digest: BlobDigest,
}

/// What one recipe fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedRecipe {
    /// Digests of fetched sources, by what the recipe calls them.
    pub sources: BTreeMap<String, BlobDigest>,
}

/// What is pinned for one image on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedPlatform {
    /// The packages in the image.
    pub packages: BTreeSet<PackageKey>,
    /// The suite's Essential set, which the packages are configured over.
    pub essential: BTreeSet<PackageKey>,
    /// Further packages that only configuring needs.
    pub configure: BTreeSet<PackageKey>,
    /// For each recipe, the packages that its build needs above the Essential set.
    pub recipes: BTreeMap<Name, BTreeSet<PackageKey>>,
    /// Packages in the image that the runtime closure of a recipe brought in.
    pub found_by: BTreeMap<PackageName, Name>,
    /// The version of the order that layers were planned in; absent until they are planned.
    pub order: Option<String>,
    /// The layers, from the lowest to the highest.
    pub layers: Vec<Vec<LayerMember>>,
}

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerMember {
    /// A package of the image.
    Package(PackageName),
    /// Another tree, such as `files` or `recipe:app`; written behind an `@`.
    Special(String),
}

impl LayerMember {
    /// Reads a package's name, or `@` and the name of another tree.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        match text.strip_prefix('@') {
            Some(name) if !name.is_empty() && !name.contains(char::is_control) => {
                Ok(Self::Special(name.to_owned()))
            }
            Some(_) => Err(ValueError::new("layer member", text, "a name is missing after @")),
            None => PackageName::new(text).map(Self::Package),
        }
    }
}

impl fmt::Display for LayerMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(name) => name.fmt(f),
            Self::Special(name) => write!(f, "@{name}"),
        }
    }
}

impl LockedPlatform {
    /// Every package that the image and its configuration need, without the recipes' builds.
    pub fn all(&self) -> impl Iterator<Item = &PackageKey> {
        self.packages.iter().chain(&self.essential).chain(&self.configure)
    }

    /// Every package of every role, those of the recipes' builds included.
    pub fn everything(&self) -> impl Iterator<Item = &PackageKey> {
        self.all().chain(self.recipes.values().flatten())
    }
}

impl Lock {
    /// What is pinned for one image on one platform.
    pub fn platform(&self, image: &ImageName, platform: Platform) -> Option<&LockedPlatform> {
        self.images.get(image)?.platforms.get(&platform)
    }

    /// Everything of the lock that can influence one image on one platform, as JSON with sorted
    /// keys: the part of the image's key that a shared lock's other images may not change.
    ///
    /// `None` when nothing is pinned for them. Archives, paths and Releases are left out, since
    /// the packages' digests stand for what they led to.
    pub fn canonical(&self, image: &ImageName, platform: Platform) -> Option<Value> {
        let locked = self.images.get(image)?;
        let nothing = LockedPlatform::default();
        let content = match locked.platforms.get(&platform) {
            Some(content) => content,
            // Of an image on a base nothing else is pinned.
            None if locked.base.is_some() => &nothing,
            None => return None,
        };
        let set = |keys: &BTreeSet<PackageKey>| {
            let pins = keys.iter().map(|key| {
                let pin = self.packages.get(key);
                json!([
                    key.to_string(),
                    pin.map(|pin| pin.sha256.to_hex()),
                    pin.map(|pin| pin.source.to_string()),
                ])
            });
            Value::Array(pins.collect())
        };
        let layers = content
            .layers
            .iter()
            .map(|layer| layer.iter().map(ToString::to_string).collect::<Vec<_>>());
        let recipes: BTreeMap<_, _> = locked
            .recipes
            .iter()
            .map(|(name, recipe)| (name.to_string(), json!(recipe.sources)))
            .collect();
        let mut canonical = json!({
            "date": locked.date.map(|date| date.as_second()),
            "suite": locked.suite.as_ref().map(ToString::to_string),
            "users": locked.users,
            "groups": locked.groups,
            "recipes": recipes,
            "packages": set(&content.packages),
            "essential": set(&content.essential),
            "configure": set(&content.configure),
            "order": content.order,
            "layers": layers.collect::<Vec<_>>(),
        });
        if !content.recipes.is_empty() {
            let inputs = content.recipes.iter().map(|(name, keys)| (name.to_string(), set(keys)));
            canonical["build"] = Value::Object(inputs.collect());
        }
        if let Some(base) = &locked.base {
            canonical["base"] = json!(base.digest);
        }
        Some(canonical)
    }
}
