//! A root file system seen through listings: what stands where once all trees are stacked.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath};

use crate::finish::root_view::{Node, RootView};

/// How many bytes of a file's content a view may be asked for; decides what is kept of a tree that
/// streams by.
pub type Wanted = fn(&Entry) -> u64;

/// Stacked trees as one root.
pub struct StackView<'a> {
    store: &'a Store,
    trees: Vec<&'a Output>,
    wanted: Wanted,
    /// Path -> the tree on top there, and the entry.
    entries: BTreeMap<TreePath, (usize, Entry)>,
    /// Contents of each tree that was read, in one unnamed file each.
    contents: RefCell<HashMap<usize, Contents>>,
    directory: PathBuf,
}

struct Contents {
    file: File,
    places: HashMap<TreePath, (u64, u64)>,
}

impl<'a> StackView<'a> {
    /// Stacks trees, lowest first. Deletions take away what lies below.
    pub fn new(
        store: &'a Store,
        trees: Vec<&'a Output>,
        listings: &[&Listing],
        wanted: Wanted,
    ) -> Self {
        let mut entries: BTreeMap<TreePath, (usize, Entry)> = BTreeMap::new();
        for (number, listing) in listings.iter().enumerate() {
            for item in listing.entries() {
                let entry = &item.entry;
                if let Some(gone) = entry.deleted_path() {
                    entries.retain(|path, _| !path.starts_with(&gone));
                    continue;
                }
                entries.insert(entry.path.clone(), (number, entry.clone()));
            }
        }
        let directory = store.temporary_directory().to_owned();
        Self { store, trees, wanted, entries, contents: RefCell::default(), directory }
    }

    /// The entry at a path.
    pub fn entry(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(path).map(|(_, entry)| entry)
    }

    /// Every entry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|(_, entry)| entry)
    }

    /// Where a file's content is: tree and the path that carries it.
    fn carrier(&self, path: &str) -> Option<(usize, TreePath, u64)> {
        let path = TreePath::new(path).ok()?;
        let (number, entry) = self.entries.get(&path)?;
        match &entry.kind {
            Kind::File { size } => Some((*number, path, *size)),
            Kind::HardLink { target } => {
                let (other, first) = self.entries.get(target)?;
                (other == number).then(|| (*number, target.clone(), first.content_size()))
            }
            _ => None,
        }
    }

    /// Reads one tree once and keeps what may be wanted.
    fn load(&self, number: usize) -> Result<Contents, StoreError> {
        let io_error = |source| StoreError::Io {
            action: "keep contents in",
            path: self.directory.clone(),
            source,
        };
        let mut file = tempfile::tempfile_in(&self.directory).map_err(io_error)?;
        let mut places = HashMap::new();
        let mut at = 0;
        self.store.read_tree(self.trees[number], |entry, content| {
            let wanted = (self.wanted)(entry).min(entry.content_size());
            if wanted > 0 {
                let size = io::copy(&mut content.take(wanted), &mut file).map_err(io_error)?;
                places.insert(entry.path.clone(), (at, size));
                at += size;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(Contents { file, places })
    }
}

impl RootView for StackView<'_> {
    fn node(&self, path: &str) -> io::Result<Option<Node>> {
        if path.is_empty() {
            return Ok(Some(Node::Directory));
        }
        let Ok(path) = TreePath::new(path) else { return Ok(None) };
        let Some((number, entry)) = self.entries.get(&path) else { return Ok(None) };
        let id = |path: &TreePath| {
            let hash = blake3::hash(format!("{number}/{path}").as_bytes());
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes of 32"))
        };
        Ok(Some(match &entry.kind {
            Kind::Directory => Node::Directory,
            Kind::File { size } => Node::File { id: id(&path), mode: entry.mode, size: *size },
            Kind::HardLink { target } => {
                let size = self.entries.get(target).map_or(0, |(_, first)| first.content_size());
                Node::File { id: id(target), mode: entry.mode, size }
            }
            Kind::Symlink { target } => Node::Symlink { target: target.clone() },
            Kind::Deletion => return Ok(None),
        }))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut names = Vec::new();
        let start = match TreePath::new(path) {
            Ok(path) => self.entries.range(path..),
            Err(_) => self.entries.range(..),
        };
        for (entry, _) in start {
            let text = entry.as_str();
            let Some(rest) = text.strip_prefix(&prefix) else {
                if text == path {
                    continue;
                }
                break;
            };
            if !rest.contains('/') {
                names.push(rest.to_owned());
            }
        }
        Ok(names)
    }

    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let Some((number, carrier, size)) = self.carrier(path) else { return Ok(Vec::new()) };
        if size == 0 {
            return Ok(Vec::new());
        }
        if !self.contents.borrow().contains_key(&number) {
            let contents = self.load(number).map_err(io::Error::other)?;
            self.contents.borrow_mut().insert(number, contents);
        }
        let mut contents = self.contents.borrow_mut();
        let contents = contents.get_mut(&number).expect("it was loaded just now");
        let Some((at, size)) = contents.places.get(&carrier).copied() else {
            return Err(io::Error::other(format!("the content of /{path} was not kept")));
        };
        contents.file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        (&mut contents.file).take(size.min(limit)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
