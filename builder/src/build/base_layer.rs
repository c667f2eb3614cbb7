//! The `oci` builder: a base image's layer as a tree, so that what stands in a base is known.
//!
//! Images never hold this tree: they name the blob as it is. The tree answers what lies below
//! `[files]` and which accounts there are, from its listing alone once anybody has made it.
//!
//! A layer is read as engines unpack it: later entries win, parents that are links are followed,
//! parents that no entry names are those of the layers below. Device nodes, sockets and names that
//! are no UTF-8 stay in the blob and are left out here.

use std::io::{self, Read};

use drystone_store::derivation::Derivation;
use drystone_store::digest::{DiffId, Sha256Reader};
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};

use super::BuildError;
use super::files::below_links;
use super::view::StackView;
use crate::base::{Base, BaseError, BaseImages, BaseLayer};

/// Version of the `oci` builder: rises whenever its output can change.
const VERSION: u32 = 1;
/// Bytes that a layer may unpack to whatever its size.
const FREE_CONTENT: u64 = 8 << 30;
/// Beyond that, how many times larger than its blob a layer may be: more is a decompression bomb.
const MOST_RATIO: u64 = 200;
/// Bytes of the two empty blocks that end an archive.
const END_OF_ARCHIVE: u64 = 1024;
/// What the output `accounts` keeps.
pub(super) const ACCOUNT_PATHS: [&str; 4] =
    ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];

/// A layer of a base as trees.
#[derive(Debug, Clone)]
pub struct LayerTrees {
    /// Everything in it.
    pub tree: Output,
    /// Its account files alone, which are small.
    pub accounts: Output,
}

/// The layers of a base as trees, lowest first. Only those that nobody has made yet are fetched.
pub fn realise(images: &BaseImages<'_>, base: &Base) -> Result<Vec<LayerTrees>, BuildError> {
    let mut all: Vec<LayerTrees> = Vec::new();
    for layer in &base.layers {
        let derivation = derivation(layer, &all);
        let known = images.store.realisation(&derivation.id())?;
        let known = known.and_then(|mut known| {
            let tree = known.outputs.remove("out")?;
            Some(LayerTrees { tree, accounts: known.outputs.remove("accounts")? })
        });
        let trees = match known {
            Some(trees) => trees,
            None => {
                images.fetch_layer(base, layer)?;
                make(images.store, base, layer, &all, &derivation)?
            }
        };
        all.push(trees);
    }
    Ok(all)
}

fn derivation(layer: &BaseLayer, below: &[LayerTrees]) -> Derivation {
    let mut derivation = Derivation::new("oci", VERSION)
        .with_inputs(below.iter().map(|trees| *trees.tree.path.hash()))
        .with_arg("diff_id", layer.diff_id.to_string());
    derivation.outputs = vec!["out".to_owned(), "accounts".to_owned()];
    derivation
}

fn make(
    store: &Store,
    base: &Base,
    layer: &BaseLayer,
    below: &[LayerTrees],
    derivation: &Derivation,
) -> Result<LayerTrees, BuildError> {
    let malformed = |reason: String| {
        let what = format!("layer {}", layer.digest);
        BuildError::Base(BaseError::Malformed { from: base.from.to_string(), what, reason })
    };
    let view = StackView::new(store, below.iter().map(|trees| &trees.tree).collect(), |_| 0)?;
    let file = store.open_blob(&layer.digest)?.ok_or(StoreError::NoBlob(layer.digest))?;
    let limit = FREE_CONTENT.max(layer.size.saturating_mul(MOST_RATIO));
    let stream = decompress(layer.media_type, io::BufReader::new(file))
        .map_err(|error| malformed(error.to_string()))?;
    let mut stream = Sha256Reader::new(stream.take(limit));
    let mut reading = Reading { view: &view, all: store.spool(), accounts: store.spool() };
    reading.read(&mut stream).map_err(malformed)?;
    // What stands behind the archive's end is part of its digest.
    let (size, digest) = stream.finish().map_err(|error| malformed(error.to_string()))?;
    if size == limit {
        return Err(malformed(format!("it unpacks to more than {limit} bytes")));
    }
    let actual = DiffId::from_bytes(digest);
    if actual != layer.diff_id {
        return Err(BuildError::Base(BaseError::Mismatch {
            from: base.from.to_string(),
            what: format!("layer {}", layer.digest),
            expected: layer.diff_id.to_string(),
            actual: actual.to_string(),
        }));
    }
    reading.add_parents()?;
    let Reading { mut all, mut accounts, .. } = reading;
    let tree = store.add_tree("base", Compression::Store1, &mut all)?;
    let accounts = store.add_tree("base-accounts", Compression::Store1, &mut accounts)?;
    let outputs = [("out".to_owned(), tree.clone()), ("accounts".to_owned(), accounts.clone())];
    store.put_realisation(derivation, outputs)?;
    Ok(LayerTrees { tree, accounts })
}

/// A layer's tar, whatever it is compressed with.
fn decompress(media_type: &str, file: impl Read + Send + 'static) -> io::Result<Box<dyn Read>> {
    Ok(match media_type.rsplit_once('+') {
        Some((_, "gzip")) => Compression::Gzip1.decompress(file)?,
        Some((_, "zstd")) => Compression::Zstd1.decompress(file)?,
        _ => Box::new(file),
    })
}

/// A layer on its way into trees.
struct Reading<'a> {
    view: &'a StackView<'a>,
    all: TreeSpool,
    accounts: TreeSpool,
}

impl Reading<'_> {
    fn read(&mut self, stream: &mut impl Read) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        // Some writers leave out the two empty blocks at the end, and engines do not mind.
        let end = io::repeat(0).take(END_OF_ARCHIVE);
        let mut archive = tar::Archive::new(stream.chain(end));
        for entry in archive.entries().map_err(text)? {
            let mut entry = entry.map_err(text)?;
            let Some(converted) = self.convert(&entry)? else { continue };
            if ACCOUNT_PATHS.contains(&converted.path.as_str())
                && matches!(converted.kind, Kind::File { size } if size <= 1 << 20)
            {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(text)?;
                let both = [&mut self.all, &mut self.accounts];
                for spool in both {
                    spool
                        .replace(converted.clone(), &mut bytes.as_slice())
                        .map_err(|error| error.to_string())?;
                }
                continue;
            }
            self.put(converted, &mut entry).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        entry: Entry,
        content: &mut dyn Read,
    ) -> Result<(), drystone_store::tree::SpoolError> {
        if let Kind::HardLink { target } = &entry.kind
            && self.all.entry(target).is_none()
        {
            // The layers below carry it, or nobody: here only its name matters.
            let empty = Entry { kind: Kind::File { size: 0 }, ..entry };
            return self.all.replace(empty, &mut io::empty());
        }
        self.all.replace(entry, content)
    }

    /// A tar entry as one of a tree; `None` for what trees do not hold.
    fn convert<R: Read>(&self, entry: &tar::Entry<'_, R>) -> Result<Option<Entry>, String> {
        let raw = entry.path_bytes();
        let Ok(text) = std::str::from_utf8(&raw) else { return Ok(None) };
        let path = TreePath::from_rooted(text).map_err(|error| error.to_string())?;
        let Some(path) = path else { return Ok(None) };
        let path = below_links(path, self.view);
        if let Some(deleted) = path.name().strip_prefix(".wh.") {
            return deletion(&path, deleted).map_err(|error| error.to_string());
        }
        let header = entry.header();
        let link = || {
            let link = entry.link_name_bytes().unwrap_or_default().into_owned();
            String::from_utf8(link).ok()
        };
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                Kind::File { size: entry.size() }
            }
            tar::EntryType::Symlink => {
                let Some(target) = link() else { return Ok(None) };
                Kind::Symlink { target }
            }
            tar::EntryType::Link => {
                let Some(target) = link() else { return Ok(None) };
                let target = TreePath::from_rooted(&target).map_err(|error| error.to_string())?;
                let Some(target) = target else { return Err(format!("{text} links to the root")) };
                Kind::HardLink { target: below_links(target, self.view) }
            }
            _ => return Ok(None),
        };
        let number = |number: io::Result<u64>| {
            let number = number.map_err(|error| error.to_string())?;
            u32::try_from(number).map_err(|_| format!("{text} belongs to {number}, which is no id"))
        };
        let is_symlink = matches!(kind, Kind::Symlink { .. });
        let mode = header.mode().map_err(|error| error.to_string())? & 0o7777;
        Ok(Some(Entry {
            mode: if is_symlink { 0o777 } else { mode },
            uid: number(header.uid())?,
            gid: number(header.gid())?,
            xattrs: std::collections::BTreeMap::new(),
            path,
            kind,
        }))
    }

    /// Parents that no entry names are as the layers below have them.
    fn add_parents(&mut self) -> Result<(), BuildError> {
        let mut parents = std::collections::BTreeSet::new();
        for entry in self.all.entries() {
            let mut parent = entry.path.parent();
            while let Some(directory) = parent {
                parent = directory.parent();
                parents.insert(directory);
            }
        }
        for path in parents {
            if self.all.entry(&path).is_none()
                && let Some(entry) = self.view.entry(&path)
                && entry.kind == Kind::Directory
            {
                self.all.add_empty(entry.clone())?;
            }
        }
        Ok(())
    }
}

/// A whiteout. Names that old engines kept for themselves mean nothing.
fn deletion(
    path: &TreePath,
    deleted: &str,
) -> Result<Option<Entry>, drystone_store::tree::PathError> {
    match (deleted, path.parent()) {
        (".wh..opq", Some(directory)) => Entry::opaque(&directory).map(Some),
        // At the root: no layer that an image's tool makes has it, and a tree cannot say it.
        _ if deleted.is_empty() || deleted.starts_with(".wh.") => Ok(None),
        _ => Entry::deletion(&path.with_name(deleted)?).map(Some),
    }
}
