//! A root file system seen through listings: what stands where once all trees are stacked.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath};

use super::BuildError;
use crate::finish::root_view::{Node, RootView};

/// How many bytes of a file's content a view may be asked for; decides what is kept of a tree that
/// streams by.
pub type Wanted = fn(&Entry) -> u64;

/// Stacked trees as one root.
pub struct StackView<'a> {
    store: &'a Store,
    trees: Vec<&'a Output>,
    listings: Vec<Arc<Listing>>,
    wanted: Wanted,
    /// What trees delete from the trees below them.
    deletions: Vec<Deleted>,
    /// Path -> the tree on top there, and the entry. Made when all of it is asked for: one path is
    /// found sooner in the listings.
    entries: OnceCell<BTreeMap<TreePath, (usize, Entry)>>,
    /// Contents of each tree that was read, in one unnamed file each.
    contents: RefCell<HashMap<usize, Contents>>,
    directory: PathBuf,
}

/// A deletion: of a path with all below it or, where it is opaque, of all below it only.
struct Deleted {
    number: usize,
    path: TreePath,
    is_opaque: bool,
}

impl Deleted {
    fn new(number: usize, entry: &Entry) -> Option<Self> {
        let is_opaque = entry.is_opaque();
        let path = if is_opaque { entry.path.parent() } else { entry.deleted_path() };
        path.map(|path| Self { number, path, is_opaque })
    }

    fn hides(&self, path: &TreePath) -> bool {
        path.starts_with(&self.path) && !(self.is_opaque && *path == self.path)
    }
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
        wanted: Wanted,
    ) -> Result<Self, BuildError> {
        let listings = super::listings(store, &trees)?;
        let numbered = listings.iter().enumerate();
        let deletions = numbered
            .flat_map(|(number, listing)| {
                listing.entries().iter().filter_map(move |item| Deleted::new(number, &item.entry))
            })
            .collect();
        let directory = store.temporary_directory().to_owned();
        let (entries, contents) = (OnceCell::new(), RefCell::default());
        Ok(Self { store, trees, listings, wanted, deletions, entries, contents, directory })
    }

    /// The listings of the trees, lowest first.
    pub(super) fn listings(&self) -> &[Arc<Listing>] {
        &self.listings
    }

    /// The entry at a path.
    pub fn entry(&self, path: &TreePath) -> Option<&Entry> {
        self.find(path).map(|(_, entry)| entry)
    }

    /// The tree on top at a path, and its entry.
    pub(super) fn find(&self, path: &TreePath) -> Option<(usize, &Entry)> {
        let hidden_below = self
            .deletions
            .iter()
            .filter(|deleted| deleted.hides(path))
            .map(|deleted| deleted.number)
            .max()
            .unwrap_or(0);
        (hidden_below..self.listings.len()).rev().find_map(|number| {
            let entry = &self.listings[number].find(path)?.entry;
            (entry.kind != Kind::Deletion).then_some((number, entry))
        })
    }

    /// Every entry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.all().values().map(|(_, entry)| entry)
    }

    fn all(&self) -> &BTreeMap<TreePath, (usize, Entry)> {
        self.entries.get_or_init(|| {
            let mut entries: BTreeMap<TreePath, (usize, Entry)> = BTreeMap::new();
            let mut deletions = self.deletions.iter().peekable();
            for (number, listing) in self.listings.iter().enumerate() {
                while let Some(deleted) = deletions.next_if(|deleted| deleted.number == number) {
                    let below = entries.range(deleted.path.clone()..).map(|(path, _)| path);
                    let gone: Vec<TreePath> = below
                        .take_while(|path| path.starts_with(&deleted.path))
                        .filter(|path| deleted.hides(path))
                        .cloned()
                        .collect();
                    gone.iter().for_each(|path| drop(entries.remove(path)));
                }
                let kept = listing.entries().iter().map(|item| &item.entry);
                for entry in kept.filter(|entry| entry.kind != Kind::Deletion) {
                    entries.insert(entry.path.clone(), (number, entry.clone()));
                }
            }
            entries
        })
    }

    /// Where a file's content is: tree and the path that carries it.
    fn carrier(&self, path: &str) -> Option<(usize, TreePath, u64)> {
        let path = TreePath::new(path).ok()?;
        let (number, entry) = self.find(&path)?;
        match &entry.kind {
            Kind::File { size } => Some((number, path, *size)),
            Kind::HardLink { target } => {
                let (other, first) = self.find(target)?;
                (other == number).then(|| (number, target.clone(), first.content_size()))
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
        let Some((number, entry)) = self.find(&path) else { return Ok(None) };
        let id = |path: &TreePath| {
            let hash = blake3::hash(format!("{number}/{path}").as_bytes());
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes of 32"))
        };
        Ok(Some(match &entry.kind {
            Kind::Directory => Node::Directory,
            Kind::File { size } => Node::File { id: id(&path), mode: entry.mode, size: *size },
            Kind::HardLink { target } => {
                let size = self.entry(target).map_or(0, Entry::content_size);
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
            Ok(path) => self.all().range(path..),
            Err(_) => self.all().range(..),
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
