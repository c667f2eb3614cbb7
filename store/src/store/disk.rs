//! What stands in a store's directory, told apart by kind.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{DirEntry, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Store, StoreError, UNSANDBOXED};
use crate::digest::{BlobDigest, DerivationId, TreeHash};

/// The start of the name of a checkout that is being removed. It stays in its directory: moving
/// a directory elsewhere needs the right to write to it, which the owner of the store does not
/// have for checkouts that belong to subordinate ids.
pub(super) const REMOVED: &str = ".removed-";

/// A file's size on disk and age.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileFacts {
    /// Bytes that it occupies.
    pub(super) bytes: u64,
    /// Bytes that it holds.
    pub(super) length: u64,
    /// When it was written, in seconds since 1970.
    pub(super) modified: i64,
}

/// The files of a store by kind.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) blobs: BTreeMap<BlobDigest, FileFacts>,
    pub(super) checkouts: BTreeSet<TreeHash>,
    pub(super) logs: BTreeMap<DerivationId, FileFacts>,
    /// Derivations' locks; whether someone holds one is another question.
    pub(super) locks: Vec<PathBuf>,
    /// Checkouts whose removal was cut off.
    pub(super) debris: Vec<PathBuf>,
    /// Files that no part of a store has made.
    pub(super) unknown: Vec<PathBuf>,
}

impl From<&Metadata> for FileFacts {
    fn from(data: &Metadata) -> Self {
        Self { bytes: allocated(data), length: data.len(), modified: data.mtime() }
    }
}

/// Bytes that a file occupies on disk.
pub(super) fn allocated(data: &Metadata) -> u64 {
    // `st_blocks` counts 512 bytes whatever the file system's block is.
    data.blocks() * 512
}

/// The entries of a directory, in order; none when it is not there.
fn entries(path: &Path) -> Result<Vec<(DirEntry, String, Metadata)>, StoreError> {
    let read = || -> io::Result<Vec<_>> {
        let directory = match std::fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut entries = Vec::new();
        for entry in directory {
            let entry = entry?;
            match entry.path().symlink_metadata() {
                Ok(data) => {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    entries.push((entry, name, data));
                }
                // Others may remove their own files meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|left, right| left.1.cmp(&right.1));
        Ok(entries)
    };
    read().map_err(StoreError::io("list", path))
}

impl Store {
    /// Looks through the store's directory.
    pub(super) fn scan(&self) -> Result<Disk, StoreError> {
        let mut disk = Disk::default();
        let known = ["blobs", "trees", "roots", "logs", "locks", "tmp", "kept", UNSANDBOXED];
        for (entry, name, data) in entries(&self.root)? {
            let is_known = known.contains(&name.as_str()) && data.is_dir();
            let is_database = name == "db.sqlite" || name.starts_with("db.sqlite-");
            if !(is_known || is_database && data.is_file()) {
                disk.unknown.push(entry.path());
            }
        }
        let blobs = self.root.join("blobs");
        let others = entries(&blobs)?.into_iter().filter(|(_, name, _)| name != "sha256");
        disk.unknown.extend(others.map(|(entry, ..)| entry.path()));
        for (entry, name, data) in entries(&blobs.join("sha256"))? {
            match BlobDigest::from_hex(&name).filter(|_| data.is_file()) {
                Some(digest) => drop(disk.blobs.insert(digest, FileFacts::from(&data))),
                None => disk.unknown.push(entry.path()),
            }
        }
        for (entry, name, data) in entries(&self.root.join("trees"))? {
            match name.parse() {
                Ok(hash) if data.is_dir() => drop(disk.checkouts.insert(hash)),
                _ if name.starts_with(REMOVED) => disk.debris.push(entry.path()),
                _ => disk.unknown.push(entry.path()),
            }
        }
        for (entry, name, data) in entries(&self.root.join("logs"))? {
            match name.parse() {
                Ok(id) if data.is_file() => drop(disk.logs.insert(id, FileFacts::from(&data))),
                _ => disk.unknown.push(entry.path()),
            }
        }
        for (entry, name, _) in entries(&self.root.join("locks"))? {
            match name.parse::<DerivationId>() {
                Ok(_) => disk.locks.push(entry.path()),
                Err(_) if name == "store" => {}
                Err(_) => disk.unknown.push(entry.path()),
            }
        }
        for (entry, name, data) in entries(&self.root.join("roots"))? {
            if !name.ends_with(".json") || !data.is_file() {
                disk.unknown.push(entry.path());
            }
        }
        Ok(disk)
    }

    /// What processes that died left in `tmp`, this user's and others'. The store must be in
    /// exclusive use: a process that starts has a directory before it has its lock.
    pub(super) fn dead_workspaces(&self) -> Result<Vec<PathBuf>, StoreError> {
        let found = entries(&self.root.join("tmp"))?;
        let dead = found
            .into_iter()
            .map(|(entry, ..)| entry.path())
            .filter(|path| path != self.temporary_directory() && is_unlocked(&path.join("lock")));
        Ok(dead.collect())
    }
}

/// Whether nobody holds a lock on a file, or there is no such file.
pub(super) fn is_unlocked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(_) => true,
    }
}

/// Bytes that a directory with all below it occupies, as far as this user may look. Hard links
/// count once.
pub(super) fn directory_bytes(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    walkdir::WalkDir::new(path)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|data| data.is_dir() || data.nlink() < 2 || seen.insert((data.dev(), data.ino())))
        .map(|data| allocated(&data))
        .sum()
}
