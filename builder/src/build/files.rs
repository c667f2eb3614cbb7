//! `[files]` as a tree.

use std::collections::BTreeMap;
use std::fs::File;

use drystone_store::digest::{BlobDigest, TreeHash};
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};
use serde::{Deserialize, Serialize};

use super::BuildError;
use super::remote_files::StoredFile;
use super::view::StackView;
use crate::finish::private_keys;
use crate::recipe::RecipeError;
use crate::spec::{FileEntry, FileSource, Image, RecipeOutput};
use drystone_source::debian::deb::merge_usr;
use drystone_source::files::{
    self, ContentSource, FileSpec, Fingerprint, SourceEntry, SourceTree, read_sources,
};

/// The kind of the store's facts that hold trees of local files.
const MADE: &str = "local-files";
/// Files up to this size are searched for private keys.
const KEY_LIMIT: u64 = 1 << 20;

/// What local files stand over.
pub struct Root<'a> {
    /// Its trees, lowest first.
    pub stack: Vec<&'a Output>,
    /// Whether paths are mapped to merged `/usr`. A base image's own links decide otherwise.
    pub keeps_merged_usr: bool,
}

/// The local files of an image.
pub struct LocalFiles {
    /// What was walked, contents still on disk.
    pub sources: SourceTree,
}

impl LocalFiles {
    /// Walks the sources of `[files]`; `fetched` has those that were downloaded.
    pub fn read(
        image: &Image,
        fetched: &BTreeMap<BlobDigest, StoredFile>,
    ) -> Result<Self, BuildError> {
        Ok(Self { sources: walk(image, image.files.iter(), fetched)? })
    }

    /// Walks only those sources that are in the project.
    pub fn of_project(image: &Image) -> Result<SourceTree, BuildError> {
        let is_here = |entry: &&FileEntry| !matches!(entry.source, FileSource::Download { .. });
        walk(image, image.files.iter().filter(is_here), &BTreeMap::new())
    }

    /// What was read, for the question whether it changed.
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.sources.fingerprint
    }

    /// Stores the tree, over the trees of `root`, whose directories keep their metadata and whose
    /// symbolic links to directories are followed; `None` without any file.
    ///
    /// While no file has changed since the same tree was made, none is read again.
    pub fn realise(
        &self,
        store: &Store,
        root: Root<'_>,
        recipes: &[RecipeFile],
    ) -> Result<Option<Output>, BuildError> {
        if self.sources.entries.is_empty() && recipes.is_empty() {
            return Ok(None);
        }
        let key = self.key(&root, recipes);
        if let Some(output) = known(store, &key)? {
            return Ok(Some(output));
        }
        let merge = root.keeps_merged_usr;
        let below = StackView::new(store, root.stack, |_| 0)?;
        let output = self.make(store, &below, merge, recipes)?;
        let tree = *output.path.hash();
        let made = Made { fingerprint: self.sources.fingerprint.clone(), tree };
        if let Ok(text) = serde_json::to_string(&made) {
            store.put_fact(MADE, &key, &text)?;
        }
        Ok(Some(output))
    }

    /// All that decides the tree but the contents of files on disk, which the fingerprint is for.
    /// Only this program compares such keys, so the form that is at hand serves.
    fn key(&self, root: &Root<'_>, recipes: &[RecipeFile]) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(root.keeps_merged_usr)]);
        for output in &root.stack {
            hasher.update(output.path.hash().as_bytes());
        }
        let recipes: Vec<_> = recipes
            .iter()
            .map(|file| {
                let hash = file.output.path.hash();
                (hash, &file.destination, &file.path, file.mode, file.uid, file.gid)
            })
            .collect();
        let version = env!("CARGO_PKG_VERSION");
        hasher.update(format!("{version} {recipes:?} {:?}", self.sources.entries).as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    fn make(
        &self,
        store: &Store,
        below: &StackView<'_>,
        merge: bool,
        recipes: &[RecipeFile],
    ) -> Result<Output, BuildError> {
        let mut spool = store.spool();
        for file in recipes {
            file.add(store, &mut spool, below)?;
        }
        for source in &self.sources.entries {
            add(&mut spool, source, below, merge)?;
        }
        let mut parents: Vec<TreePath> = Vec::new();
        for entry in spool.entries() {
            let mut parent = entry.path.parent();
            while let Some(directory) = parent {
                parent = directory.parent();
                parents.push(directory);
            }
        }
        for path in parents {
            if let Some(entry) = below.entry(&path).filter(|entry| entry.kind == Kind::Directory)
                && spool.entry(&path).is_none()
            {
                spool.add_empty(entry.clone())?;
            }
        }
        Ok(store.add_tree("files", Compression::Store1, &mut spool)?)
    }
}

/// A tree of local files, and what these were when it was made.
#[derive(Serialize, Deserialize)]
struct Made {
    fingerprint: Fingerprint,
    tree: TreeHash,
}

/// The tree that was made for a key, if no file has changed since.
fn known(store: &Store, key: &str) -> Result<Option<Output>, BuildError> {
    let Some(text) = store.fact(MADE, key)? else { return Ok(None) };
    let Ok(made) = serde_json::from_str::<Made>(&text) else { return Ok(None) };
    if !made.fingerprint.unchanged() {
        return Ok(None);
    }
    let output = store.output(&made.tree)?;
    Ok(output.filter(|output| store.is_present(output)))
}

/// What an entry of `[files]` takes of a recipe's output.
pub struct RecipeFile {
    /// The output's name.
    pub recipe: RecipeOutput,
    /// The output.
    pub output: Output,
    /// Where it stands in the image; `None` is `/`.
    pub destination: Option<TreePath>,
    /// What is taken of the output; `None` is all of it.
    pub path: Option<TreePath>,
    /// Permission bits, of a folder those of its files.
    pub mode: Option<u32>,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

impl RecipeFile {
    /// Where a path of the output stands in the image; `None` if it is not taken.
    fn place(&self, path: &TreePath) -> Option<TreePath> {
        let rest = match &self.path {
            None => Some(path.as_str()),
            Some(folder) if path == folder => None,
            Some(folder) => Some(path.as_str().strip_prefix(folder.as_str())?.strip_prefix('/')?),
        };
        match (&self.destination, rest) {
            (Some(directory), None) => Some(directory.clone()),
            (Some(directory), Some(rest)) => TreePath::new(format!("{directory}/{rest}")).ok(),
            (None, Some(rest)) => TreePath::new(rest).ok(),
            (None, None) => None,
        }
    }

    fn add(
        &self,
        store: &Store,
        spool: &mut TreeSpool,
        below: &StackView<'_>,
    ) -> Result<(), BuildError> {
        let mut found = false;
        // Other names of files whose first name is not taken.
        let mut contents: BTreeMap<TreePath, Vec<u8>> = BTreeMap::new();
        store.read_tree(&self.output, |entry, content| {
            let place = self.place(&entry.path);
            found |= place.is_some() || self.path.as_ref() == Some(&entry.path);
            let Some(place) = place else {
                if matches!(entry.kind, Kind::File { .. }) {
                    let path = entry.path.clone();
                    let mut bytes = Vec::new();
                    content
                        .read_to_end(&mut bytes)
                        .map_err(|source| BuildError::Content { path: path.clone(), source })?;
                    contents.insert(path, bytes);
                }
                return Ok(());
            };
            let mut entry = entry.clone();
            entry.path = below_links(place, below);
            (entry.uid, entry.gid) = (self.uid, self.gid);
            match (&entry.kind, self.mode) {
                (Kind::Directory, mode) => {
                    if let Some(there) = below.entry(&entry.path)
                        && mode.is_none()
                        && (self.uid, self.gid) == (0, 0)
                    {
                        match there.kind {
                            Kind::Directory => entry = there.clone(),
                            Kind::Symlink { .. } => return Ok(()),
                            _ => {}
                        }
                    } else if let Some(mode) = mode {
                        entry.mode = (mode | (mode & 0o444) >> 2) & 0o1777;
                    }
                }
                (Kind::Symlink { .. }, _) => {}
                (_, Some(mode)) => entry.mode = mode,
                (_, None) => {}
            }
            if let Kind::HardLink { target } = &entry.kind {
                match self.place(target) {
                    Some(place) => {
                        entry.kind = Kind::HardLink { target: below_links(place, below) }
                    }
                    None => {
                        let bytes = contents.get(target).map_or(&[][..], Vec::as_slice);
                        entry.kind = Kind::File { size: bytes.len() as u64 };
                        return Ok(spool.replace(entry, &mut &*bytes)?);
                    }
                }
            }
            Ok::<(), BuildError>(spool.replace(entry, content)?)
        })?;
        match (found, &self.path) {
            (false, Some(path)) => Err(RecipeError::NoPath {
                recipe: self.recipe.recipe.to_string(),
                output: self.recipe.output.as_ref().map_or("out", |it| it.as_str()).to_owned(),
                path: format!("/{path}"),
            }
            .into()),
            _ => Ok(()),
        }
    }
}

fn walk<'e>(
    image: &Image,
    entries: impl Iterator<Item = &'e FileEntry>,
    fetched: &BTreeMap<BlobDigest, StoredFile>,
) -> Result<SourceTree, BuildError> {
    let specs = entries.filter_map(|entry| convert(image, entry, fetched));
    Ok(read_sources(&specs.collect::<Result<Vec<_>, _>>()?)?)
}

fn convert(
    image: &Image,
    entry: &FileEntry,
    fetched: &BTreeMap<BlobDigest, StoredFile>,
) -> Option<Result<FileSpec, BuildError>> {
    let source = match &entry.source {
        FileSource::Local(path) => files::FileSource::Path {
            path: path.below(&image.directory),
            include: Vec::new(),
            exclude: Vec::new(),
        },
        FileSource::Text(text) => files::FileSource::Text(text.clone()),
        FileSource::Symlink { target } => files::FileSource::Symlink(target.clone()),
        FileSource::Directory => files::FileSource::Directory,
        FileSource::Download { sha256, .. } => match fetched.get(sha256) {
            Some(file) => files::FileSource::Stored { path: file.path.clone(), size: file.size },
            None => return Some(Err(StoreError::NoBlob(*sha256).into())),
        },
        // A recipe's output is a tree of the store: see `RecipeFile`.
        FileSource::Recipe { .. } => return None,
    };
    Some(Ok(FileSpec {
        destination: entry.target.tree_path().cloned(),
        source,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
    }))
}

fn add(
    spool: &mut drystone_store::tree::TreeSpool,
    source: &SourceEntry,
    below: &StackView<'_>,
    merge: bool,
) -> Result<(), BuildError> {
    let mut entry = source.entry.clone();
    let is_symlink = matches!(entry.kind, Kind::Symlink { .. });
    if merge {
        entry.path = merge_usr(entry.path, is_symlink);
    }
    entry.path = below_links(entry.path, below);
    if entry.kind == Kind::Directory
        && source.implied
        && let Some(there) = below.entry(&entry.path)
    {
        match &there.kind {
            Kind::Directory => entry = there.clone(),
            // A folder over a link to a directory means the link's target, which stands already.
            Kind::Symlink { .. } => return Ok(()),
            _ => {}
        }
    }
    match &source.content {
        ContentSource::None => spool.add_empty(entry)?,
        ContentSource::Inline(bytes) => {
            refuse_key(&entry, bytes)?;
            spool.replace(entry, &mut bytes.as_slice())?;
        }
        ContentSource::Path(path) => {
            let error = |source| BuildError::Content { path: entry.path.clone(), source };
            let mut file = File::open(path).map_err(error)?;
            let size = file.metadata().map_err(error)?.len();
            if size != entry.content_size() {
                return Err(BuildError::Changed(path.display().to_string()));
            }
            if size <= KEY_LIMIT {
                let bytes = std::fs::read(path).map_err(error)?;
                if bytes.len() as u64 != size {
                    return Err(BuildError::Changed(path.display().to_string()));
                }
                refuse_key(&entry, &bytes)?;
                spool.replace(entry, &mut bytes.as_slice())?;
            } else {
                spool.replace(entry, &mut file)?;
            }
        }
    }
    Ok(())
}

fn refuse_key(entry: &Entry, bytes: &[u8]) -> Result<(), BuildError> {
    match private_keys::detect(bytes) {
        Some(kind) if !private_keys::is_public(entry.path.as_str()) => {
            Err(BuildError::PrivateKey {
                path: entry.path.clone(),
                kind: kind.to_string(),
                maker: "[files]".to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Follows symbolic links to directories in the parents of a path, inside the image.
pub(super) fn below_links(path: TreePath, below: &StackView<'_>) -> TreePath {
    use crate::finish::root_view::resolve;
    let Some(parent) = path.parent() else { return path };
    match resolve(below, parent.as_str()) {
        Ok(Some((real, _))) if real != parent.as_str() => {
            TreePath::new(format!("{real}/{}", path.name())).unwrap_or(path)
        }
        _ => path,
    }
}
