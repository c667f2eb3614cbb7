//! Checkouts against their listings.
//!
//! A checkout is what a sandbox mounts: it may belong to subordinate ids, so owners are compared
//! as a mapping (each owner of the listing is one owner on disk), and what this user may not look
//! at is counted and left alone. A deletion may stand as its `.wh.` file, or as overlayfs has it:
//! a device 0/0 at the path itself, and `user.overlay.opaque` on an opaque directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rayon::prelude::*;
use rustix::io::Errno;

use crate::digest::FileHash;
use crate::listing::{Listing, ListingEntry};
use crate::tree::{Entry, Kind, TreePath};

/// One difference: path, what, expected, actual.
pub(super) struct Difference {
    pub(super) path: String,
    pub(super) what: &'static str,
    pub(super) expected: String,
    pub(super) actual: String,
}

/// All differences of a checkout, and the number of paths that could not be looked at.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) differences: Vec<Difference>,
    pub(super) unreadable: u64,
}

/// How one file compares.
enum Verdict {
    Same,
    Unreadable,
    Different(&'static str, String, String),
}

/// Compares a checkout with its tree's listing.
pub(super) fn compare(root: &Path, listing: &Listing) -> Comparison {
    let mut comparison = Comparison::default();
    let mut owners = Owners::default();
    // What lies below a directory that is none would be looked for elsewhere, through a link.
    let mut blocked: Option<&TreePath> = None;
    let mut files: Vec<&ListingEntry> = Vec::new();
    for item in listing.entries() {
        let path = &item.entry.path;
        if blocked.is_some_and(|blocked| path.starts_with(blocked)) {
            continue;
        }
        let verdict = check_entry(root, &item.entry, &mut owners);
        let is_same = matches!(verdict, Verdict::Same);
        if item.entry.kind == Kind::Directory
            && !is_same
            && !is_directory(&root.join(path.as_str()))
        {
            blocked = Some(path);
        }
        if is_same && item.hash.is_some() {
            files.push(item);
        }
        comparison.add(path.as_str(), verdict);
    }
    let verdicts: Vec<Verdict> =
        files.par_iter().with_max_len(1).map(|item| check_content(root, item)).collect();
    for (item, verdict) in files.iter().zip(verdicts) {
        comparison.add(item.entry.path.as_str(), verdict);
    }
    comparison.add_extra(root, listing);
    comparison
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.is_dir())
}

impl Comparison {
    fn add(&mut self, path: &str, verdict: Verdict) {
        match verdict {
            Verdict::Same => {}
            Verdict::Unreadable => self.unreadable += 1,
            Verdict::Different(what, expected, actual) => {
                let path = path.to_owned();
                self.differences.push(Difference { path, what, expected, actual });
            }
        }
    }

    /// Adds what stands in the checkout and not in the tree.
    fn add_extra(&mut self, root: &Path, listing: &Listing) {
        let deleted: BTreeSet<TreePath> =
            listing.entries().iter().filter_map(|item| item.entry.deleted_path()).collect();
        for entry in walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name() {
            let Ok(entry) = entry else {
                self.unreadable += 1;
                continue;
            };
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let text = relative.to_string_lossy().into_owned();
            let known = relative.to_str().and_then(|text| TreePath::new(text).ok());
            let is_known =
                known.is_some_and(|path| listing.find(&path).is_some() || deleted.contains(&path));
            if !is_known {
                let (expected, actual) = ("absent".into(), "present".into());
                let verdict = Verdict::Different("presence", expected, actual);
                self.add(&text, verdict);
            }
        }
    }
}

/// Which owner on disk stands for which owner of the listing.
#[derive(Default)]
struct Owners {
    users: BTreeMap<u32, u32>,
    groups: BTreeMap<u32, u32>,
}

impl Owners {
    fn check(&mut self, entry: &Entry, data: &Metadata) -> Option<Verdict> {
        let user = *self.users.entry(entry.uid).or_insert(data.uid());
        let group = *self.groups.entry(entry.gid).or_insert(data.gid());
        ((user, group) != (data.uid(), data.gid())).then(|| {
            let expected = format!("{user}:{group} (for {}:{})", entry.uid, entry.gid);
            Verdict::Different("owner", expected, format!("{}:{}", data.uid(), data.gid()))
        })
    }
}

fn check_entry(root: &Path, entry: &Entry, owners: &mut Owners) -> Verdict {
    if entry.kind == Kind::Deletion {
        return check_deletion(root, entry);
    }
    let path = root.join(entry.path.as_str());
    let data = match path.symlink_metadata() {
        Ok(data) => data,
        Err(error) => return absent_or_unreadable(&error, "presence", "present"),
    };
    let expected = match entry.kind {
        Kind::Directory => "directory",
        Kind::Symlink { .. } => "symbolic link",
        _ => "file",
    };
    let actual = type_name(&data);
    if actual != expected {
        return Verdict::Different("type", expected.into(), actual.into());
    }
    let mode = data.permissions().mode() & 0o7777;
    if !data.is_symlink() && mode != entry.mode {
        let (expected, actual) = (format!("{:04o}", entry.mode), format!("{mode:04o}"));
        return Verdict::Different("mode", expected, actual);
    }
    if let Some(verdict) = owners.check(entry, &data) {
        return verdict;
    }
    check_kind(root, entry, &path, &data)
}

fn check_kind(root: &Path, entry: &Entry, path: &Path, data: &Metadata) -> Verdict {
    match &entry.kind {
        Kind::File { size } if data.len() != *size => {
            Verdict::Different("size", size.to_string(), data.len().to_string())
        }
        Kind::Symlink { target } => match std::fs::read_link(path) {
            Ok(actual) if actual == Path::new(target) => Verdict::Same,
            Ok(actual) => {
                Verdict::Different("target", target.clone(), actual.display().to_string())
            }
            Err(error) => absent_or_unreadable(&error, "target", target),
        },
        Kind::HardLink { target } => {
            match root.join(target.as_str()).symlink_metadata() {
                Ok(first) if (first.dev(), first.ino()) == (data.dev(), data.ino()) => {
                    Verdict::Same
                }
                Ok(_) => {
                    let expected = format!("the file /{target}");
                    Verdict::Different("link", expected, "another file".into())
                }
                // The target has its own verdict.
                Err(_) => Verdict::Same,
            }
        }
        _ => Verdict::Same,
    }
}

fn check_deletion(root: &Path, entry: &Entry) -> Verdict {
    if root.join(entry.path.as_str()).symlink_metadata().is_ok() {
        return Verdict::Same;
    }
    let Some(path) = entry.deleted_path() else { return check_opaque(root, entry) };
    match root.join(path.as_str()).symlink_metadata() {
        Ok(data) if data.file_type().is_char_device() && data.rdev() == 0 => Verdict::Same,
        Ok(data) => Verdict::Different("type", "deletion".into(), type_name(&data).into()),
        Err(error) => absent_or_unreadable(&error, "presence", "a deletion"),
    }
}

fn check_opaque(root: &Path, entry: &Entry) -> Verdict {
    let directory = match entry.path.parent() {
        Some(parent) => root.join(parent.as_str()),
        None => root.to_owned(),
    };
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(&directory, "user.overlay.opaque", &mut value) {
        Ok(1) if value == *b"y" => Verdict::Same,
        Err(Errno::ACCESS | Errno::PERM) => Verdict::Unreadable,
        Err(error) if error != Errno::NODATA => {
            Verdict::Different("presence", "an opaque directory".into(), error.to_string())
        }
        _ => Verdict::Different("presence", "an opaque directory".into(), "a plain one".into()),
    }
}

fn check_content(root: &Path, item: &ListingEntry) -> Verdict {
    let Some(expected) = &item.hash else { return Verdict::Same };
    let open = || -> io::Result<FileHash> {
        let mut file = std::fs::File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(root.join(item.entry.path.as_str()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file)?;
        Ok(FileHash::from_bytes(*hasher.finalize().as_bytes()))
    };
    match open() {
        Ok(actual) if actual == *expected => Verdict::Same,
        Ok(actual) => Verdict::Different("content", expected.to_string(), actual.to_string()),
        Err(error) => absent_or_unreadable(&error, "content", &expected.to_string()),
    }
}

fn absent_or_unreadable(error: &io::Error, what: &'static str, expected: &str) -> Verdict {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Verdict::Unreadable,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Verdict::Different(what, expected.into(), "absent".into())
        }
        _ => Verdict::Different(what, expected.into(), error.to_string()),
    }
}

fn type_name(data: &Metadata) -> &'static str {
    let kind = data.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_file() => "file",
        () if kind.is_char_device() || kind.is_block_device() => "device",
        () if kind.is_fifo() => "FIFO",
        () => "socket",
    }
}
