//! What one side of a comparison holds: packages, files, layers.

use std::collections::BTreeMap;
use std::path::Path;

use drystone_builder::lock::Lock;
use drystone_builder::spec::Platform;
use drystone_source::debian::deb::imported;
use drystone_store::store::Store;
use drystone_store::tree::Kind;
use serde::Serialize;
use serde_json::Value;

use crate::diagnostics::Failure;
use crate::explain::locked::only_image;
use crate::explain::oci;
use crate::wiring::read_image;

/// A file as far as comparing needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileFact {
    /// `file`, `directory`, `symlink`, `hard link`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of the content.
    pub size: u64,
    /// The content's BLAKE3, or a link's target.
    pub content: String,
}

/// A layer as far as comparing needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerFact {
    /// SHA-256 of the blob.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
}

/// One side.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Versions by package name.
    pub packages: BTreeMap<String, String>,
    /// Files by path; `None` where only packages are known.
    pub files: Option<BTreeMap<String, FileFact>>,
    /// Layers, lowest first; none for a lock.
    pub layers: Vec<LayerFact>,
    /// The image's configuration.
    pub config: Option<Value>,
    /// Bytes that a client fetches: of layers, or of package archives for a lock.
    pub bytes: u64,
}

/// What a path turned out to be.
pub enum Side {
    /// A lock.
    Lock(Box<Lock>, std::path::PathBuf, Option<String>),
    /// A tarball or an OCI layout.
    Image(oci::Source),
}

impl Side {
    /// Opens a lock, an image.toml (its lock), a tarball or an OCI layout.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::usage(format!("there is no {}", path.display()))
            }
            _ => Failure::path("read", path, error),
        })?;
        if metadata.is_dir() {
            return oci::Source::layout(path).map(Self::Image);
        }
        if path.extension().is_some_and(|extension| extension == "toml") {
            let image = read_image(path)?;
            let lock = crate::explain::locked::read_lock(&image.lock_path)?;
            return Ok(Self::Lock(Box::new(lock), image.lock_path, Some(image.name.to_string())));
        }
        if path.extension().is_some_and(|extension| extension == "lock") {
            let lock = crate::explain::locked::read_lock(path)?;
            return Ok(Self::Lock(Box::new(lock), path.to_owned(), None));
        }
        oci::Source::archive(path).map(Self::Image)
    }

    /// The platforms that it has, in its own order.
    pub fn platforms(&self, image: Option<&str>) -> Result<Vec<String>, Failure> {
        match self {
            Self::Lock(lock, path, name) => {
                let (_, image) = only_image(lock, path, image.or(name.as_deref()))?;
                Ok(image.platforms.keys().map(ToString::to_string).collect())
            }
            Self::Image(source) => source.platforms(image),
        }
    }

    /// What it holds on a platform. `store` tells the files of a lock's packages, if it has them.
    pub fn content(
        &self,
        image: Option<&str>,
        platform: &str,
        store: Option<&Store>,
    ) -> Result<Content, Failure> {
        match self {
            Self::Lock(lock, path, name) => {
                let (name, _) = only_image(lock, path, image.or(name.as_deref()))?;
                let platform = Platform::new(platform)
                    .map_err(|error| Failure::usage(format!("--platform: {error}")))?;
                of_lock(lock, name, platform, store)
            }
            Self::Image(source) => source.content(image, platform),
        }
    }
}

fn of_lock(
    lock: &Lock,
    image: &drystone_builder::spec::ImageName,
    platform: Platform,
    store: Option<&Store>,
) -> Result<Content, Failure> {
    let Some(locked) = lock.platform(image, platform) else {
        return Err(Failure::usage(format!("the lock has no packages of {image} for {platform}")));
    };
    let mut content = Content::default();
    let mut files = BTreeMap::new();
    let mut complete = store.is_some();
    for key in &locked.packages {
        content.packages.insert(key.name.to_string(), key.version.to_string());
        let Some(pin) = lock.packages.get(key) else { continue };
        content.bytes += pin.size;
        let deb = match store {
            Some(store) => imported(store, &pin.sha256)?.map(|deb| (store, deb)),
            None => None,
        };
        let listing = match deb {
            Some((store, deb)) => store.listing(&deb.data)?,
            None => None,
        };
        match listing {
            Some(listing) => {
                files.extend(listing.entries().iter().map(|found| {
                    (found.entry.path.to_string(), fact(&found.entry, found.hash.as_ref()))
                }));
            }
            None => complete = false,
        }
    }
    content.files = complete.then_some(files);
    Ok(content)
}

fn fact(
    entry: &drystone_store::tree::Entry,
    hash: Option<&drystone_store::digest::FileHash>,
) -> FileFact {
    let (kind, content) = match &entry.kind {
        Kind::Directory => ("directory", String::new()),
        Kind::File { .. } => ("file", hash.map(ToString::to_string).unwrap_or_default()),
        Kind::Symlink { target } => ("symlink", target.clone()),
        Kind::HardLink { target } => ("hard link", target.to_string()),
        Kind::Deletion => ("deletion", String::new()),
    };
    FileFact {
        kind,
        mode: entry.mode,
        uid: u64::from(entry.uid),
        gid: u64::from(entry.gid),
        size: entry.content_size(),
        content,
    }
}
