//! Roots: what keeps things from garbage collection.
//!
//! `roots/NAME.json` holds `{"format":1,"root":{...}}`. A root keeps the derivations, trees and
//! blobs that it names, the trees that its derivations gave, and all that these trees need at
//! run time. It does not keep the inputs of its derivations unless it names them too.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::inventory::Inventory;
use super::{Store, StoreError};
use crate::digest::{BlobDigest, DerivationId, TreeHash};

/// The format of root files.
const FORMAT: u32 = 1;

/// What an image, or someone, wants kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The `image.toml` that was built, absolute. When that file is gone, `gc` drops the root;
    /// without one the root stays until it is removed.
    pub image: Option<PathBuf>,
    /// `os/architecture` of the image.
    pub platform: String,
    /// Derivations to keep, with all that they gave.
    pub derivations: Vec<DerivationId>,
    /// Trees to keep.
    pub trees: Vec<TreeHash>,
    /// Blobs to keep that belong to no tree: fetched files, manifests.
    pub blobs: Vec<BlobDigest>,
    /// The file that the image was written to; for people.
    pub output: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile {
    format: u32,
    root: Root,
}

/// A root's name, and the root if its file can be understood.
type NamedRoot = (String, Result<Root, StoreError>);

/// The name of the root of an `image.toml` (absolute) and a platform: readable, and another one
/// for each pair.
pub fn root_name(image: &Path, platform: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(image.as_os_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(platform.as_bytes());
    let hash = BASE32_NOPAD.encode(&hasher.finalize().as_bytes()[..10]).to_ascii_lowercase();
    let part = |name: Option<&std::ffi::OsStr>| -> String {
        let text = name.unwrap_or_default().to_string_lossy();
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect()
    };
    let folder = part(image.parent().and_then(Path::file_name));
    let platform = part(Some(platform.as_ref()));
    format!("{folder}-{}-{platform}-{hash}", part(image.file_stem()))
}

impl Store {
    /// Writes a root, in place of one of the same name.
    ///
    /// Names are of `A-Za-z0-9+._-`, at most 200 characters, and do not start with a dot.
    pub fn put_root(&self, name: &str, root: &Root) -> Result<(), StoreError> {
        let path = self.root_path(name)?;
        let unusable = |problem: String| StoreError::Root { path: path.clone(), problem };
        if root.image.as_ref().is_some_and(|image| !image.is_absolute()) {
            return Err(unusable("the image's path is not absolute".into()));
        }
        let file = RootFile { format: FORMAT, root: root.clone() };
        let mut json =
            serde_json::to_vec_pretty(&file).map_err(|error| unusable(error.to_string()))?;
        json.push(b'\n');
        let mut file = self.temporary_file()?;
        file.write_all(&json)
            .and_then(|()| file.as_file().sync_all())
            .map_err(StoreError::io("write", file.path()))?;
        file.persist(&path).map_err(|error| StoreError::io("rename to", &path)(error.error))?;
        self.sync_directory("roots")
    }

    /// All roots by name. A root that cannot be understood is an error that names its file:
    /// what it keeps is not known, so nothing may be deleted.
    pub fn roots(&self) -> Result<Vec<(String, Root)>, StoreError> {
        self.read_roots()?.into_iter().map(|(name, root)| Ok((name, root?))).collect()
    }

    /// All roots by name, damaged ones as errors.
    pub(super) fn read_roots(&self) -> Result<Vec<NamedRoot>, StoreError> {
        let directory = self.root.join("roots");
        let list = || -> io::Result<Vec<PathBuf>> {
            std::fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect()
        };
        let mut paths = list().map_err(StoreError::io("list", &directory))?;
        paths.sort();
        let mut roots = Vec::new();
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(name) = name.strip_suffix(".json") else { continue };
            match std::fs::read(&path) {
                Ok(json) => roots.push((name.to_owned(), decode(&path, &json))),
                // Another process has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", path)(error)),
            }
        }
        Ok(roots)
    }

    /// Removes a root; whether there was one. What it kept stays until the next `gc`.
    pub fn remove_root(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.root_path(name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => self.sync_directory("roots").map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", path)(error)),
        }
    }

    pub(super) fn root_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '_' | '-');
        let path = self.root.join("roots").join(format!("{name}.json"));
        if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(legal)
        {
            let problem = "a root's name is of A-Za-z0-9+._-, at most 200, and starts with no dot";
            return Err(StoreError::Root { path, problem: problem.into() });
        }
        Ok(path)
    }

    fn sync_directory(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        std::fs::File::open(&path)
            .and_then(|directory| directory.sync_all())
            .map_err(StoreError::io("sync", path))
    }
}

fn decode(path: &Path, json: &[u8]) -> Result<Root, StoreError> {
    let unusable = |problem: String| StoreError::Root { path: path.to_owned(), problem };
    let file: RootFile =
        serde_json::from_slice(json).map_err(|error| unusable(error.to_string()))?;
    match file.format {
        FORMAT => Ok(file.root),
        other => Err(unusable(format!("its format is {other}; this drystone knows {FORMAT}"))),
    }
}

impl Root {
    /// Whether the image that the root was made for is gone. A file that cannot be looked at
    /// (permission, a file system that is not mounted) may still be there.
    pub(super) fn is_abandoned(&self) -> bool {
        let Some(image) = &self.image else { return false };
        let gone = |error: io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        image.symlink_metadata().is_err_and(gone)
    }
}

/// All that roots keep.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) trees: BTreeSet<TreeHash>,
    pub(super) derivations: BTreeSet<DerivationId>,
    pub(super) blobs: BTreeSet<BlobDigest>,
}

impl Reach {
    pub(super) fn of<'a>(roots: impl IntoIterator<Item = &'a Root>, records: &Inventory) -> Self {
        let mut reach = Self::default();
        for root in roots {
            reach.blobs.extend(&root.blobs);
            let mut pending: Vec<TreeHash> = root.trees.clone();
            for id in &root.derivations {
                reach.derivations.insert(*id);
                if let Some(record) = records.derivations.get(id) {
                    pending.extend(record.outputs.values());
                }
            }
            while let Some(tree) = pending.pop() {
                let Some(record) = records.trees.get(&tree) else { continue };
                if reach.trees.insert(tree) {
                    reach.blobs.extend(record.blobs());
                    pending.extend(&record.output.references);
                }
            }
        }
        reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_come_back_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let root = Root {
            image: Some("/srv/web/image.toml".into()),
            platform: "linux/amd64".into(),
            derivations: vec![DerivationId::of(b"d")],
            trees: vec![TreeHash::from_bytes([1; 32])],
            blobs: vec![BlobDigest::of(b"b")],
            output: Some("/srv/web/web.tar".into()),
        };
        store.put_root("b", &Root::default()).unwrap();
        store.put_root("a", &Root::default()).unwrap();
        store.put_root("a", &root).unwrap();
        let all = store.roots().unwrap();
        assert_eq!(all, [("a".to_owned(), root), ("b".to_owned(), Root::default())]);
        assert!(store.remove_root("a").unwrap());
        assert!(!store.remove_root("a").unwrap());
        assert_eq!(store.roots().unwrap().len(), 1);
    }

    #[test]
    fn names_tell_images_and_platforms_apart() {
        let name = root_name(Path::new("/srv/web/image.toml"), "linux/amd64");
        assert!(name.starts_with("web-image-linux_amd64-"), "{name}");
        assert_ne!(name, root_name(Path::new("/srv/web/image.toml"), "linux/arm64"));
        assert_ne!(name, root_name(Path::new("/opt/web/image.toml"), "linux/amd64"));
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let odd = Path::new("/.../\u{e9}\n/x y.toml");
        store.put_root(&root_name(odd, "a b/c"), &Root::default()).unwrap();
    }

    #[test]
    fn bad_roots_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for name in ["", "../x", ".x", "a/b", &"x".repeat(201)] {
            let error = store.put_root(name, &Root::default()).unwrap_err();
            assert!(matches!(error, StoreError::Root { .. }), "{name}");
        }
        let relative = Root { image: Some("image.toml".into()), ..Root::default() };
        assert!(store.put_root("x", &relative).is_err());
        for text in ["{", "{}", "{\"format\":2,\"root\":{}}", "{\"format\":1,\"root\":{\"x\":1}}"] {
            std::fs::write(directory.path().join("roots/bad.json"), text).unwrap();
            let error = store.roots().unwrap_err().to_string();
            assert!(error.contains("roots/bad.json"), "{error}");
        }
    }
}
