//! How fetched files are laid out for a build, as a value, and the tree that it means.
//!
//! A [`Layout`] says where each fetched file stands below `/build`, unpacked or as it is, and what
//! small files and links are written beside them. It holds hashes of contents and nothing of where
//! they were had from, so it is an identity: the builder `layout` makes the same tree of it
//! everywhere, from the store, from a cache or from a registry.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::derivation::Derivation;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath};
use serde_json::{Value, json};

use super::fetch::read_fetched;
use super::unpack::{Format, Unpacking, unpack};
use super::{Integrity, LanguageError};
use crate::recipe::BUILDER_ID;

/// Version of the `layout` builder: rises whenever its output can change.
const VERSION: u32 = 1;

/// What becomes of one fetched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// It stands at a path as it is.
    File(TreePath),
    /// It is an archive with one folder at its top, whose contents stand in a directory.
    Unpacked {
        /// The directory.
        directory: TreePath,
        /// The kind of archive.
        format: Format,
        /// Paths in the directory that may be executed, whatever the archive says.
        executable: BTreeSet<String>,
    },
}

/// One fetched file and its place. One file may stand in several places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The file's hash.
    pub integrity: Integrity,
    /// What people call it, for messages; in no identity.
    pub title: String,
    /// Where it stands, and how.
    pub form: Form,
}

/// All that is put before a build: paths are below `build`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The fetched files.
    pub placements: Vec<Placement>,
    /// Small files that are written beside them.
    pub files: BTreeMap<TreePath, String>,
    /// Symbolic links and their targets.
    pub links: BTreeMap<TreePath, String>,
}

impl Placement {
    fn to_json(&self) -> Value {
        let integrity = self.integrity.to_string();
        match &self.form {
            Form::File(path) => json!({ "file": path.as_str(), "of": integrity }),
            Form::Unpacked { directory, format, executable } => json!({
                "directory": directory.as_str(), "executable": executable,
                "format": format.as_str(), "of": integrity,
            }),
        }
    }
}

impl Layout {
    /// Whether nothing is to be laid out.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.files.is_empty() && self.links.is_empty()
    }

    /// The derivation: hashes and places, and nothing else.
    pub fn derivation(&self) -> Derivation {
        let texts = |map: &BTreeMap<TreePath, String>| -> Value {
            map.iter().map(|(path, text)| (path.as_str().to_owned(), json!(text))).collect()
        };
        let placements: Vec<Value> = self.placements.iter().map(Placement::to_json).collect();
        Derivation::new("layout", VERSION)
            .with_arg("files", texts(&self.files))
            .with_arg("links", texts(&self.links))
            .with_arg("placements", placements)
    }

    /// The tree, if it is known.
    pub fn realised(&self, store: &Store) -> Result<Option<Output>, StoreError> {
        store.realised_output(&self.derivation().id(), "out")
    }

    /// The tree, made of what was fetched: all of it is in the store.
    pub fn realise(&self, store: &Store) -> Result<Output, LanguageError> {
        if let Some(output) = self.realised(store)? {
            return Ok(output);
        }
        let derivation = self.derivation();
        let _lock = store.lock_derivation(&derivation.id())?;
        if let Some(output) = self.realised(store)? {
            return Ok(output);
        }
        let output = self.make(store)?;
        store.put_realisation(&derivation, [("out".to_owned(), output.clone())])?;
        Ok(output)
    }

    fn make(&self, store: &Store) -> Result<Output, LanguageError> {
        let mut spool = store.spool();
        let mut entries = 0;
        for placement in &self.placements {
            read_fetched(store, &placement.integrity, &mut |entry, content| {
                match &placement.form {
                    Form::File(path) => {
                        let entry = Entry::file(path.clone(), 0o644, entry.content_size());
                        spool.add(entry, content)?;
                    }
                    Form::Unpacked { directory, format, executable } => {
                        let target = Unpacking { directory, executable, strips_top: true };
                        unpack(content, *format, &target, &mut spool, &mut entries).map_err(
                            |source| {
                                let (title, path) = (placement.title.clone(), directory.clone());
                                LanguageError::Unpack { title, path, source }
                            },
                        )?;
                    }
                }
                Ok(())
            })?;
        }
        for (path, text) in &self.files {
            spool.add_file(path.clone(), 0o644, text.as_bytes())?;
        }
        for (path, target) in &self.links {
            spool.add_empty(Entry::symlink(path.clone(), target))?;
        }
        // What the build may change belongs to it, directories on the way included.
        let mut directories = BTreeSet::new();
        for entry in spool.entries() {
            directories.extend(std::iter::successors(entry.path.parent(), TreePath::parent));
        }
        for path in directories {
            if spool.entry(&path).is_none_or(|it| it.kind == Kind::Directory) {
                spool.add_empty(Entry::directory(path))?;
            }
        }
        spool.map_owners(&|_, _| (BUILDER_ID, BUILDER_ID));
        Ok(store.add_tree("dependencies", Compression::Store1, &mut spool)?)
    }
}
