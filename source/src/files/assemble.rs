//! All specifications together: one tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use drystone_store::tree::{DELETION_PREFIX, Entry, Kind, TreePath};

use super::fingerprint::Recorder;
use super::ignore_rules::IgnoreRules;
use super::walk::{Found, Include, Walk, classify};
use super::{ContentSource, FileSource, FileSpec, FilesError, SourceEntry, SourceTree, io_error};

const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Reads what the specifications name and makes one tree of it.
///
/// A deeper destination wins over what a folder with a higher destination brings, whatever the
/// order of the specifications. File contents are not read: they are streamed later from where the
/// entries say, and the fingerprint tells whether they changed in between.
pub fn read_sources(specs: &[FileSpec]) -> Result<SourceTree, FilesError> {
    let mut order: Vec<&FileSpec> = specs.iter().collect();
    let depth = |spec: &FileSpec| spec.destination.as_ref().map_or(0, |p| p.components().count());
    order.sort_by(|left, right| {
        (depth(left), &left.destination).cmp(&(depth(right), &right.destination))
    });
    let mut assembly = Assembly::default();
    for (index, spec) in order.iter().enumerate() {
        let next = order.get(index + 1);
        if let (Some(path), Some(next)) = (&spec.destination, next)
            && next.destination.as_ref() == Some(path)
        {
            return Err(FilesError::Twice { path: path.clone() });
        }
        assembly.add(spec)?;
    }
    assembly.finish()
}

#[derive(Default)]
struct Assembly {
    entries: BTreeMap<TreePath, SourceEntry>,
    recorder: Recorder,
    ignored: usize,
}

/// The mode of a folder's directories: its files' mode with `x` wherever that has `r`.
const fn directory_mode(mode: u32) -> u32 {
    (mode | (mode & 0o444) >> 2) & 0o1777
}

impl Assembly {
    fn add(&mut self, spec: &FileSpec) -> Result<(), FilesError> {
        if let FileSource::Path { path, include, exclude } = &spec.source {
            return self.add_path(spec, path, &Include::new(include, exclude)?);
        }
        let path = spec.destination.clone().ok_or(FilesError::RootDestination)?;
        check_name(&path)?;
        let (kind, mode, content) = match &spec.source {
            FileSource::Text(text) => {
                let content = text.clone().into_bytes();
                let kind = Kind::File { size: content.len() as u64 };
                (kind, spec.mode.unwrap_or(FILE_MODE), ContentSource::Inline(content))
            }
            FileSource::Stored { path, size } => {
                let kind = Kind::File { size: *size };
                let mode = spec.mode.unwrap_or(FILE_MODE);
                (kind, mode, ContentSource::Path(path.clone()))
            }
            FileSource::Symlink(target) => {
                (Kind::Symlink { target: target.clone() }, 0o777, ContentSource::None)
            }
            FileSource::Directory | FileSource::Path { .. } => {
                let mode = spec.mode.unwrap_or(DIRECTORY_MODE);
                (Kind::Directory, mode, ContentSource::None)
            }
        };
        self.insert(spec, path, kind, mode, content, false);
        Ok(())
    }

    fn insert(
        &mut self,
        spec: &FileSpec,
        path: TreePath,
        kind: Kind,
        mode: u32,
        content: ContentSource,
        implied: bool,
    ) {
        // A folder over a folder keeps what was asked of the first; all else is replaced.
        if implied
            && self.entries.get(&path).is_some_and(|known| known.entry.kind == Kind::Directory)
        {
            return;
        }
        let (uid, gid) = (spec.uid, spec.gid);
        let entry = Entry {
            path: path.clone(),
            mode: mode & 0o7777,
            uid,
            gid,
            xattrs: BTreeMap::new(),
            kind,
        };
        self.entries.insert(path, SourceEntry { entry, content, implied });
    }

    /// Adds a local file or folder. A link that the user named is followed, and stamped.
    fn add_path(
        &mut self,
        spec: &FileSpec,
        path: &Path,
        include: &Include,
    ) -> Result<(), FilesError> {
        let missing = || FilesError::Missing {
            path: path.to_owned(),
            destination: spec.destination.as_ref().map(TreePath::to_string).unwrap_or_default(),
        };
        let read = || io_error("read", path);
        let named = self.recorder.metadata(path).map_err(read())?.ok_or_else(missing)?;
        let real = if named.is_symlink() {
            match fs::canonicalize(path) {
                Ok(real) => real,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
                Err(error) => return Err(read()(error)),
            }
        } else {
            path.to_owned()
        };
        let metadata = self.recorder.metadata(&real).map_err(read())?.ok_or_else(missing)?;
        match classify(&real, &metadata)? {
            Found::Directory => self.add_folder(spec, &real, include),
            found => {
                let destination = spec.destination.clone().ok_or(FilesError::RootDestination)?;
                check_name(&destination)?;
                self.add_found(spec, destination, real, found, false);
                Ok(())
            }
        }
    }

    fn add_folder(
        &mut self,
        spec: &FileSpec,
        folder: &Path,
        include: &Include,
    ) -> Result<(), FilesError> {
        let above = IgnoreRules::above(folder, &mut self.recorder)?;
        let whole = above.as_ref().is_some_and(|rules| rules.ignores_named(folder, true));
        let mut walk = Walk {
            root: folder,
            include,
            recorder: &mut self.recorder,
            whole,
            ignored: 0,
            found: Vec::new(),
        };
        walk.run(&above.unwrap_or_default())?;
        let (found, ignored) = (walk.found, walk.ignored);
        self.ignored += ignored;
        // What was asked of a folder is asked of its directories; nothing asked means implied.
        let implied = spec.mode.is_none() && (spec.uid, spec.gid) == (0, 0);
        if let Some(destination) = &spec.destination {
            check_name(destination)?;
            self.add_found(spec, destination.clone(), folder.to_owned(), Found::Directory, implied);
        }
        for (relative, found) in found {
            let path = folder.join(&relative);
            let destination = destination(spec, &relative, &path)?;
            let implied = implied && found == Found::Directory;
            self.add_found(spec, destination, path, found, implied);
        }
        Ok(())
    }

    fn add_found(
        &mut self,
        spec: &FileSpec,
        destination: TreePath,
        path: PathBuf,
        found: Found,
        implied: bool,
    ) {
        let (kind, mode, content) = match found {
            Found::Directory => {
                let mode = spec.mode.map_or(DIRECTORY_MODE, directory_mode);
                (Kind::Directory, mode, ContentSource::None)
            }
            Found::File { size, executable } => {
                let mode = if executable { DIRECTORY_MODE } else { FILE_MODE };
                (Kind::File { size }, spec.mode.unwrap_or(mode), ContentSource::Path(path))
            }
            Found::Symlink { target } => (Kind::Symlink { target }, 0o777, ContentSource::None),
        };
        self.insert(spec, destination, kind, mode, content, implied);
    }

    fn finish(self) -> Result<SourceTree, FilesError> {
        let mut above: Option<&SourceEntry> = None;
        for entry in self.entries.values() {
            // In tree order whatever lies below a path comes right behind it.
            if let Some(file) =
                above.filter(|above| entry.entry.path.starts_with(&above.entry.path))
                && file.entry.kind != Kind::Directory
            {
                return Err(FilesError::NotDirectory {
                    file: file.entry.path.clone(),
                    below: entry.entry.path.clone(),
                });
            }
            above = Some(entry);
        }
        let case_clashes = case_clashes(self.entries.keys());
        Ok(SourceTree {
            entries: self.entries.into_values().collect(),
            ignored: self.ignored,
            case_clashes,
            fingerprint: self.recorder.finish(),
        })
    }
}

/// The destination of a path below a folder.
fn destination(spec: &FileSpec, relative: &Path, path: &Path) -> Result<TreePath, FilesError> {
    let wrong = |source| FilesError::Name { path: path.to_owned(), source };
    let relative = TreePath::from_bytes(relative.as_os_str().as_encoded_bytes()).map_err(wrong)?;
    let destination = match &spec.destination {
        Some(directory) => TreePath::new(format!("{directory}/{relative}")).map_err(wrong)?,
        None => relative,
    };
    if has_deletion(&destination) {
        return Err(FilesError::Whiteout { path: path.to_owned() });
    }
    Ok(destination)
}

fn has_deletion(path: &TreePath) -> bool {
    path.components().any(|part| part.starts_with(DELETION_PREFIX))
}

fn check_name(destination: &TreePath) -> Result<(), FilesError> {
    if has_deletion(destination) {
        return Err(FilesError::Whiteout { path: Path::new("/").join(destination.as_str()) });
    }
    Ok(())
}

/// Pairs of paths that differ only in case.
fn case_clashes<'a>(paths: impl Iterator<Item = &'a TreePath>) -> Vec<(TreePath, TreePath)> {
    let mut seen: BTreeMap<String, &TreePath> = BTreeMap::new();
    let mut clashes = Vec::new();
    for path in paths {
        match seen.entry(path.as_str().to_lowercase()) {
            std::collections::btree_map::Entry::Occupied(first) => {
                clashes.push(((*first.get()).clone(), path.clone()));
            }
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(path);
            }
        }
    }
    clashes
}
