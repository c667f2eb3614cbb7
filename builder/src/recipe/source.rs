//! A recipe's source and patches, as a tree below `/build`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, SpoolError, TreePath};

use super::{ARCHIVE, BUILDER_ID};
use crate::build::StoredFile;
use crate::spec::{Image, Recipe, RecipeSource};
use drystone_source::files::{
    ContentSource, FileSource, FileSpec, FilesError, Fingerprint, SourceEntry, SourceTree,
    read_sources,
};

/// Why a source cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Local files cannot be taken.
    #[error("recipe {recipe}")]
    Files {
        /// The recipe.
        recipe: String,
        /// Why.
        #[source]
        source: FilesError,
    },
    /// The source is no folder.
    #[error("recipe {recipe}: its source {} is no folder", path.display())]
    NoFolder {
        /// The recipe.
        recipe: String,
        /// The path.
        path: PathBuf,
    },
    /// Nothing of the folder is taken.
    #[error("recipe {recipe}: nothing of its source {} is taken", path.display())]
    Nothing {
        /// The recipe.
        recipe: String,
        /// The path.
        path: PathBuf,
    },
    /// The source holds a file of git's large file storage instead of its content.
    #[error("recipe {recipe}: {} is kept by git's large file storage, and only its name is here", path.display())]
    LargeFile {
        /// The recipe.
        recipe: String,
        /// The file.
        path: PathBuf,
    },
    /// A file changed while it was read.
    #[error("recipe {recipe}: {} changed while it was read", path.display())]
    Changed {
        /// The recipe.
        recipe: String,
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("recipe {recipe}: cannot read {}", path.display())]
    Read {
        /// The recipe.
        recipe: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The files make no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sources of all recipes that were read.
#[derive(Default)]
pub struct Sources {
    /// The tree of each recipe.
    pub trees: BTreeMap<crate::spec::Name, Output>,
    /// What was read of the disk.
    pub fingerprints: Vec<Fingerprint>,
    /// How many files `.gitignore` kept out.
    pub ignored: usize,
}

/// The first line of a file that git's large file storage put in the place of the real one.
pub(super) const LARGE_FILE: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

/// What a recipe takes of the project: its folder and its patches.
pub struct LocalSource {
    /// The specifications, in the order in which they stand over each other.
    specs: Vec<FileSpec>,
    /// The folder, if its source is one.
    folder: Option<PathBuf>,
}

impl LocalSource {
    /// What `recipe` takes. `outputs` are files that builds write beside image.toml; they are no
    /// source, wherever the folder begins.
    pub fn of(
        image: &Image,
        name: &str,
        recipe: &Recipe,
        outputs: &[PathBuf],
    ) -> Result<Self, SourceError> {
        let mut specs = vec![spec(path("build"), FileSource::Directory)];
        let mut folder = None;
        match &recipe.source {
            Some(RecipeSource::Folder { path: local, include, exclude }) => {
                let directory = local.below(&image.directory);
                if directory.exists() && !directory.is_dir() {
                    let recipe = name.to_owned();
                    return Err(SourceError::NoFolder { recipe, path: directory });
                }
                let exclude = exclude.iter().cloned().chain(written_below(&directory, outputs));
                let source = FileSource::Path {
                    path: directory.clone(),
                    include: include.clone(),
                    exclude: exclude.collect(),
                };
                specs.push(spec(path("build/source"), source));
                folder = Some(directory);
            }
            _ => specs.push(spec(path("build/source"), FileSource::Directory)),
        }
        for (number, patch) in recipe.patches.iter().enumerate() {
            let source = FileSource::Path {
                path: patch.below(&image.directory),
                include: Vec::new(),
                exclude: Vec::new(),
            };
            specs.push(spec(path(&format!("build/patches/{number:04}")), source));
        }
        Ok(Self { specs, folder })
    }

    /// Walks it; contents stay on disk.
    pub fn read(&self, name: &str) -> Result<SourceTree, SourceError> {
        let files = |source| SourceError::Files { recipe: name.to_owned(), source };
        let tree = read_sources(&self.specs).map_err(files)?;
        let below = |it: &SourceEntry| it.entry.path.as_str().starts_with("build/source/");
        match &self.folder {
            Some(folder) if !tree.entries.iter().any(below) => {
                Err(SourceError::Nothing { recipe: name.to_owned(), path: folder.clone() })
            }
            _ => Ok(tree),
        }
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).expect("a valid path")
}

fn spec(destination: TreePath, source: FileSource) -> FileSpec {
    let destination = Some(destination);
    FileSpec { destination, source, mode: None, uid: BUILDER_ID, gid: BUILDER_ID }
}

/// Reads a recipe's source and patches, and stores them as a tree; `fetched` has what was
/// downloaded for it.
pub fn read_source(
    store: &Store,
    image: &Image,
    name: &str,
    recipe: &Recipe,
    outputs: &[PathBuf],
    fetched: &BTreeMap<BlobDigest, StoredFile>,
) -> Result<(Output, SourceTree), SourceError> {
    let mut local = LocalSource::of(image, name, recipe, outputs)?;
    if let Some(RecipeSource::Download { sha256, url, .. }) = &recipe.source
        && recipe.unpacked_before().is_none()
    {
        let file = fetched.get(sha256).ok_or(StoreError::NoBlob(*sha256))?;
        let source = FileSource::Stored { path: file.path.clone(), size: file.size };
        let place = match recipe.unpacked_inside() {
            Some(_) => ARCHIVE[1..].to_owned(),
            None => format!("build/source/{}", file_name(url)),
        };
        let place = TreePath::new(place).unwrap_or_else(|_| path("build/source/file"));
        local.specs.push(spec(place, source));
    }
    let tree = local.read(name)?;
    let output = store_tree(store, name, &tree)?;
    Ok((output, tree))
}

/// The last part of an address, as the name of a file.
fn file_name(url: &url::Url) -> &str {
    match url.path().rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "file",
        name => name,
    }
}

/// Patterns for those of `outputs` that lie below a folder.
fn written_below<'a>(
    folder: &'a Path,
    outputs: &'a [PathBuf],
) -> impl Iterator<Item = String> + 'a {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    let folder = real(folder).ok();
    outputs.iter().filter_map(move |output| {
        let parent =
            real(output.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        let path = parent.ok()?.join(output.file_name()?);
        let relative = path.strip_prefix(folder.as_ref()?).ok()?.to_str()?.to_owned();
        Some(globset_escape(&relative))
    })
}

/// A path as a pattern that matches only itself.
fn globset_escape(path: &str) -> String {
    let mut pattern = String::new();
    for character in path.chars() {
        match character {
            '?' | '*' | '[' | ']' | '{' | '}' | '\\' => {
                pattern.push('[');
                pattern.push(character);
                pattern.push(']');
            }
            other => pattern.push(other),
        }
    }
    pattern
}

fn store_tree(store: &Store, name: &str, tree: &SourceTree) -> Result<Output, SourceError> {
    let mut spool = store.spool();
    for source in &tree.entries {
        let mut entry: Entry = source.entry.clone();
        if matches!(entry.kind, Kind::Symlink { .. }) {
            (entry.uid, entry.gid) = (BUILDER_ID, BUILDER_ID);
        }
        match &source.content {
            ContentSource::None => spool.add_empty(entry)?,
            ContentSource::Inline(bytes) => spool.replace(entry, &mut bytes.as_slice())?,
            ContentSource::Path(path) => {
                let read = |source| SourceError::Read {
                    recipe: name.to_owned(),
                    path: path.clone(),
                    source,
                };
                let size = entry.content_size();
                if size < 1024 && std::fs::read(path).map_err(read)?.starts_with(LARGE_FILE) {
                    let recipe = name.to_owned();
                    return Err(SourceError::LargeFile { recipe, path: path.clone() });
                }
                let mut file = File::open(path).map_err(read)?;
                if file.metadata().map_err(read)?.len() != size {
                    let recipe = name.to_owned();
                    return Err(SourceError::Changed { recipe, path: path.clone() });
                }
                spool.replace(entry, &mut file)?;
            }
        }
    }
    Ok(store.add_tree("source", Compression::Store1, &mut spool)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths_match_themselves_alone() {
        let glob = globset::Glob::new(&globset_escape("a[1]*.tar")).unwrap().compile_matcher();
        assert!(glob.is_match("a[1]*.tar"));
        assert!(!glob.is_match("a1x.tar"));
    }
}
