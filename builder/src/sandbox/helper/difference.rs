//! Reading an upper directory as the difference to its lower trees.
//!
//! The walk visits what the upper directory holds (for an overlay: what was touched; for a copy:
//! everything) and compares it with the merged lower trees; [`super::links`] then decides about
//! files with several names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use drystone_store::tree::{Entry, Kind, TreePath};
use rustix::fs::{AtFlags, FileType, Mode, ResolveFlags, Stat};

use super::super::error::{At, Failure};
use super::super::messages::{ScanReply, WireEntry, tree_path};
use super::super::request::{Storage, Unsupported};
use super::super::wire::Connection;
use super::directory::{self, FILE, join, relative};
use super::links;
use super::lowers::{Found, Lowers, Merged, is_opaque};
use super::metadata::{Metadata, file_type, is_whiteout};
use super::mounts::MOUNT_POINTS;

/// The lower file at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LowerFile {
    pub(super) layer: usize,
    pub(super) inode: u64,
    pub(super) names: u64,
}

/// A regular file or a symbolic link of the upper directory.
pub(super) struct UpperFile {
    pub(super) path: TreePath,
    pub(super) stat: Stat,
    pub(super) metadata: Metadata,
    /// The target, for a symbolic link.
    pub(super) target: Option<String>,
    /// Whether an overlay made it by copying up the lower file, to change its metadata: then the
    /// content and the time of modification are still the lower file's. (The kernel marks no copy
    /// of a file with several names.)
    pub(super) copied_up: bool,
    /// The regular lower file at its path.
    pub(super) lower: Option<LowerFile>,
    /// Whether the lower entry at its path is just so.
    pub(super) equal: bool,
}

/// What the walk found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) files: Vec<UpperFile>,
    /// Directories with whether the lower trees have them just so.
    pub(super) directories: BTreeMap<TreePath, (Metadata, bool)>,
    pub(super) deletions: Vec<TreePath>,
    pub(super) unsupported: Vec<Unsupported>,
}

/// An upper directory over its lower trees.
pub(super) struct Scanner {
    pub(super) lowers: Lowers,
    pub(super) upper: OwnedFd,
    pub(super) storage: Storage,
}

/// A directory of the walk.
struct Visit<'a> {
    path: &'a str,
    lower: Option<&'a Merged>,
    /// Whether what is absent here is deleted: in copies and in opaque directories.
    complete: bool,
}

/// Answers a scan, then hands out file contents by index until the caller hangs up.
pub(super) fn serve(connection: &Connection, upper: &Path, lower: &[PathBuf], storage: Storage) {
    let (reply, upper, contents) = match scan(upper, lower, storage) {
        Ok(found) => found,
        Err(failure) => {
            let _ = connection.send(&Err::<ScanReply, _>(failure));
            return;
        }
    };
    if connection.send(&Ok::<_, Failure>(reply)).is_err() {
        return;
    }
    while let Ok(Some(frame)) = connection.receive::<usize>() {
        let opened = match contents.get(&frame.message) {
            Some(path) => open_file(&upper, path),
            None => Err(Failure::request("this entry has no content")),
        };
        let sent = match &opened {
            Ok(file) => connection.send_with(&Ok::<_, Failure>(()), &[], &[file.as_fd()]),
            Err(_) => connection.send(&opened.map(drop)),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Opens a regular file below `root`, through no link.
fn open_file(root: &OwnedFd, path: &str) -> Result<OwnedFd, Failure> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, FILE, Mode::empty(), resolve).at("open", path)
}

type Scanned = (ScanReply, OwnedFd, BTreeMap<usize, String>);

fn scan(upper: &Path, lower: &[PathBuf], storage: Storage) -> Result<Scanned, Failure> {
    let root = directory::open_absolute(upper)?;
    let scanner = Scanner { lowers: Lowers::open(lower)?, upper: root, storage };
    let mut findings = Findings::default();
    let merged = scanner.lowers.root();
    let complete = storage == Storage::Copy;
    scanner.walk(&Visit { path: "", lower: Some(&merged), complete }, &mut findings)?;
    let unsupported = std::mem::take(&mut findings.unsupported);
    let difference = scanner.assemble(findings)?;
    let mut contents = BTreeMap::new();
    let mut entries = Vec::with_capacity(difference.len());
    for (index, (entry, unchanged, content)) in difference.into_iter().enumerate() {
        contents.extend(content.map(|path| (index, path)));
        entries.push(WireEntry::new(entry, unchanged));
    }
    Ok((ScanReply { entries, unsupported }, scanner.upper, contents))
}

/// An entry, whether it is unchanged, and where its content is in the upper directory.
pub(super) type Emitted = (Entry, bool, Option<String>);

impl Scanner {
    fn walk(&self, visit: &Visit<'_>, findings: &mut Findings) -> Result<(), Failure> {
        let descriptor = directory::open(&self.upper, relative(visit.path))?;
        let mut present = BTreeSet::new();
        for name in directory::list(&descriptor, visit.path)? {
            let path = join(visit.path, &name);
            let stat = rustix::fs::statat(&descriptor, &*name, AtFlags::SYMLINK_NOFOLLOW)
                .at("look at", &path)?;
            let lower = match visit.lower {
                Some(merged) => self.lowers.child(merged, visit.path, &name)?,
                None => None,
            };
            if self.is_own_mount_point(&path, &stat, lower.is_some())? {
                continue;
            }
            if self.entry(&path, &stat, lower, visit.complete, findings)? {
                present.insert(name);
            }
        }
        if let Some(merged) = visit.lower.filter(|_| visit.complete) {
            for name in self.lowers.children(merged, visit.path)?.into_keys() {
                if !present.contains(&name) {
                    findings.deletions.push(tree_path(&join(visit.path, &name))?);
                }
            }
        }
        Ok(())
    }

    /// Records one entry; `false` when it counts as absent.
    fn entry(
        &self,
        path: &str,
        stat: &Stat,
        lower: Option<Found>,
        complete: bool,
        findings: &mut Findings,
    ) -> Result<bool, Failure> {
        if is_whiteout(stat) {
            // A complete directory finds its deletions by itself.
            if lower.is_some() && !complete {
                findings.deletions.push(tree_path(path)?);
            }
            return Ok(false);
        }
        match file_type(stat) {
            FileType::Directory => self.directory(path, stat, lower, complete, findings)?,
            FileType::RegularFile | FileType::Symlink => {
                findings.files.push(self.file(path, *stat, lower)?);
            }
            other => {
                let what = describe(other).to_owned();
                findings.unsupported.push(Unsupported { path: path.to_owned(), what });
                if lower.is_some() && !complete {
                    findings.deletions.push(tree_path(path)?);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn directory(
        &self,
        path: &str,
        stat: &Stat,
        lower: Option<Found>,
        complete: bool,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let metadata = Metadata::read(&self.upper, path, stat)?;
        let merged = match lower {
            Some(Found::Directory(merged)) => Some(merged),
            _ => None,
        };
        let unchanged = match &merged {
            Some(merged) => self.lowers.directory_metadata(merged, path)? == metadata,
            None => false,
        };
        findings.directories.insert(tree_path(path)?, (metadata, unchanged));
        let opaque = self.storage == Storage::Overlay && is_opaque(&self.upper, path)?;
        let visit = Visit { path, lower: merged.as_ref(), complete: complete || opaque };
        self.walk(&visit, findings)
    }

    fn file(&self, path: &str, stat: Stat, lower: Option<Found>) -> Result<UpperFile, Failure> {
        let metadata = Metadata::read(&self.upper, path, &stat)?;
        let symlink = file_type(&stat) == FileType::Symlink;
        let target = if symlink { Some(read_link(&self.upper, path)?) } else { None };
        let mut file = UpperFile {
            path: tree_path(path)?,
            stat,
            metadata,
            target,
            copied_up: false,
            lower: None,
            equal: false,
        };
        if let Some(Found::Other { layer, stat }) = lower {
            self.compare(&mut file, layer, &stat)?;
        }
        Ok(file)
    }

    fn compare(&self, file: &mut UpperFile, layer: usize, stat: &Stat) -> Result<(), Failure> {
        let regular = file_type(stat) == FileType::RegularFile;
        if regular {
            file.lower = Some(LowerFile { layer, inode: stat.st_ino, names: stat.st_nlink });
        }
        let root = self.lowers.layer(layer);
        let metadata = Metadata::read(root, file.path.as_str(), stat)? == file.metadata;
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        let candidate = self.storage == Storage::Overlay
            && regular
            && stat.st_nlink > 1
            && time(stat) == time(&file.stat);
        if metadata || candidate {
            let content = self.same_content(file, layer, stat)?;
            file.equal = metadata && content;
            file.copied_up = candidate && content;
        }
        Ok(())
    }

    fn same_content(&self, file: &UpperFile, layer: usize, stat: &Stat) -> Result<bool, Failure> {
        let (path, root) = (file.path.as_str(), self.lowers.layer(layer));
        if file_type(stat) != file_type(&file.stat) {
            return Ok(false);
        }
        if let Some(target) = &file.target {
            return Ok(read_link(root, path)? == *target);
        }
        if stat.st_size != file.stat.st_size {
            return Ok(false);
        }
        same_file(&self.upper, root, path)
    }

    /// In a copy, the sandbox had to make mount points that the trees lack.
    fn is_own_mount_point(&self, path: &str, stat: &Stat, in_lower: bool) -> Result<bool, Failure> {
        if self.storage != Storage::Copy || in_lower || !MOUNT_POINTS.contains(&path) {
            return Ok(false);
        }
        if file_type(stat) != FileType::Directory {
            return Ok(false);
        }
        let descriptor = directory::open(&self.upper, path)?;
        Ok(directory::list(&descriptor, path)?.is_empty())
    }

    /// Turns findings into entries in canonical order, with every parent directory.
    fn assemble(&self, findings: Findings) -> Result<Vec<Emitted>, Failure> {
        let Findings { files, mut directories, deletions, .. } = findings;
        let mut emitted = links::resolve(self, files)?;
        for path in deletions {
            let entry = Entry::deletion(&path)
                .map_err(|error| Failure::tree(path.as_str(), error.to_string()))?;
            emitted.push((entry, false, None));
        }
        let mut parents = BTreeSet::new();
        let changed = directories.iter().filter(|(_, (_, unchanged))| !unchanged);
        for path in emitted.iter().map(|(entry, ..)| &entry.path).chain(changed.map(|it| it.0)) {
            let mut parent = path.parent();
            while let Some(path) = parent.filter(|path| !parents.contains(path)) {
                parent = path.parent();
                parents.insert(path);
            }
        }
        for path in &parents {
            if !directories.contains_key(path) {
                directories.insert(path.clone(), (self.lower_directory(path)?, true));
            }
        }
        for (path, (metadata, unchanged)) in directories {
            if !unchanged || parents.contains(&path) {
                emitted.push((entry(path, metadata, Kind::Directory), unchanged, None));
            }
        }
        emitted.sort_by(|left, right| left.0.path.cmp(&right.0.path));
        Ok(emitted)
    }

    fn lower_directory(&self, path: &TreePath) -> Result<Metadata, Failure> {
        match self.lowers.find(path.as_str())? {
            Some(Found::Directory(merged)) => {
                self.lowers.directory_metadata(&merged, path.as_str())
            }
            _ => Err(Failure::tree(path.as_str(), "a directory went missing during the scan")),
        }
    }
}

/// An entry with this metadata.
pub(super) fn entry(path: TreePath, metadata: Metadata, kind: Kind) -> Entry {
    let Metadata { mode, uid, gid, xattrs } = metadata;
    Entry { path, mode, uid, gid, xattrs, kind }
}

/// The target of a link.
pub(super) fn read_link(root: &OwnedFd, path: &str) -> Result<String, Failure> {
    let target = rustix::fs::readlinkat(root, path, Vec::new()).at("read the link", path)?;
    target.into_string().map_err(|_| Failure::tree(path, "its target is not UTF-8"))
}

/// Whether two trees have the same content in a file of one path.
pub(super) fn same_file(one: &OwnedFd, other: &OwnedFd, path: &str) -> Result<bool, Failure> {
    let (one, other) = (open_file(one, path)?, open_file(other, path)?);
    same_content(File::from(one), File::from(other)).at("compare", path)
}

fn same_content(mut left: File, mut right: File) -> std::io::Result<bool> {
    const CHUNK: usize = 64 << 10;
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let count = read_full(&mut left, &mut one)?;
        if count != read_full(&mut right, &mut other)? || one[..count] != other[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

const fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "unknown",
    }
}
