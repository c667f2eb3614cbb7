//! What changed in an upper directory since last time.
//!
//! Metadata tells, by itself, whether a path is as it was last time. The first time that a path differs
//! it is compared with the lower trees as well: an overlay copies what is only opened for writing, and
//! a copy gets new times from what leaves it as it was. So both say the same.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Stat};

use super::super::error::{At, Failure};
use super::super::request::Storage;
use super::difference::{read_link, same_file};
use super::directory::{self, join, relative};
use super::lowers::{Found, Lowers, is_opaque};
use super::metadata::{Metadata, file_type, is_whiteout};

/// What is compared. A directory's times and size change with its entries, so its mode and owner
/// stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Directory { inode: u64, mode: u32, owner: (u32, u32) },
    Whiteout,
    Other { inode: u64, mode: u32, size: i64, modified: (i64, i64), changed: (i64, i64) },
}

impl Mark {
    fn of(stat: &Stat) -> Self {
        let (inode, mode) = (stat.st_ino, stat.st_mode);
        if file_type(stat) == FileType::Directory {
            return Self::Directory { inode, mode, owner: (stat.st_uid, stat.st_gid) };
        }
        if is_whiteout(stat) {
            return Self::Whiteout;
        }
        #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
        Self::Other {
            inode,
            mode,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// An upper directory and how it looked last time.
pub(super) struct Snapshot {
    upper: OwnedFd,
    lower: Vec<PathBuf>,
    /// The lower trees, opened when they are first needed: most roots never do.
    opened: OnceCell<Lowers>,
    storage: Storage,
    marks: BTreeMap<String, Mark>,
    /// What was said to have changed.
    told: BTreeSet<String>,
    /// Directories that are not looked at.
    covered: Vec<String>,
}

impl Snapshot {
    /// Looks for the first time.
    pub(super) fn take(
        upper: OwnedFd,
        lower: Vec<PathBuf>,
        storage: Storage,
        covered: Vec<String>,
    ) -> Result<Self, Failure> {
        let (marks, told) = (BTreeMap::new(), BTreeSet::new());
        let opened = OnceCell::new();
        let mut snapshot = Self { upper, lower, opened, storage, marks, told, covered };
        snapshot.marks = snapshot.look()?;
        Ok(snapshot)
    }

    /// The upper directory.
    pub(super) const fn upper(&self) -> &OwnedFd {
        &self.upper
    }

    /// The paths that are new, changed (`false`) or gone (`true`) since the last call.
    pub(super) fn changes(&mut self) -> Result<Vec<(String, bool)>, Failure> {
        let marks = self.look()?;
        let mut changes: BTreeMap<String, bool> = BTreeMap::new();
        for (path, mark) in &marks {
            let is_known = self.told.contains(path);
            if self.marks.get(path) != Some(mark) && (is_known || !self.is_as_below(path, mark)?) {
                changes.insert(path.clone(), *mark == Mark::Whiteout);
            }
        }
        for path in self.marks.keys().filter(|path| !marks.contains_key(*path)) {
            changes.insert(path.clone(), true);
        }
        // What is gone takes along all that was in it.
        let gone: BTreeSet<String> =
            changes.iter().filter(|(_, is_gone)| **is_gone).map(|(path, _)| path.clone()).collect();
        changes.retain(|path, _| !has_ancestor_in(path, &gone));
        self.marks = marks;
        self.told.extend(changes.keys().cloned());
        Ok(changes.into_iter().collect())
    }

    /// Whether the lower trees have just this. A file that was written has another time, whatever
    /// was written.
    fn is_as_below(&self, path: &str, mark: &Mark) -> Result<bool, Failure> {
        if *mark == Mark::Whiteout {
            return Ok(false);
        }
        let lowers = self.lowers()?;
        let Some(found) = lowers.find(path)? else { return Ok(false) };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(&self.upper, path, flags).at("look at", path)?;
        let own = || Metadata::read(&self.upper, path, &stat);
        match found {
            Found::Directory(merged) => Ok(file_type(&stat) == FileType::Directory
                && lowers.directory_metadata(&merged, path)? == own()?),
            Found::Other { layer, stat: below } => {
                let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
                let look = |stat: &Stat| (stat.st_mode, stat.st_size, time(stat));
                let root = lowers.layer(layer);
                if look(&stat) != look(&below) || Metadata::read(root, path, &below)? != own()? {
                    return Ok(false);
                }
                match file_type(&stat) {
                    FileType::RegularFile => same_file(&self.upper, root, path),
                    FileType::Symlink => {
                        Ok(read_link(&self.upper, path)? == read_link(root, path)?)
                    }
                    _ => Ok(false),
                }
            }
        }
    }

    fn lowers(&self) -> Result<&Lowers, Failure> {
        if let Some(lowers) = self.opened.get() {
            return Ok(lowers);
        }
        let lowers = Lowers::open(&self.lower)?;
        Ok(self.opened.get_or_init(|| lowers))
    }

    fn look(&self) -> Result<BTreeMap<String, Mark>, Failure> {
        let mut marks = BTreeMap::new();
        self.look_into("", false, &mut marks)?;
        Ok(marks)
    }

    /// Looks into a directory; `hides` if it hides what the lower trees have there.
    fn look_into(
        &self,
        place: &str,
        hides: bool,
        marks: &mut BTreeMap<String, Mark>,
    ) -> Result<(), Failure> {
        let descriptor = directory::open(&self.upper, relative(place))?;
        let names = directory::list(&descriptor, place)?;
        if hides && let Some(Found::Directory(below)) = self.lowers()?.find(place)? {
            for name in self.lowers()?.children(&below, place)?.into_keys() {
                if names.binary_search(&name).is_err() {
                    marks.insert(join(place, &name), Mark::Whiteout);
                }
            }
        }
        for name in names {
            let path = join(place, &name);
            if self.covered.contains(&path) {
                continue;
            }
            let stat = rustix::fs::statat(&descriptor, &*name, AtFlags::SYMLINK_NOFOLLOW)
                .at("look at", &path)?;
            let mark = Mark::of(&stat);
            let descend = matches!(mark, Mark::Directory { .. });
            marks.insert(path.clone(), mark);
            if descend {
                let is_overlay = self.storage == Storage::Overlay;
                let hides = hides || (is_overlay && is_opaque(&self.upper, &path)?);
                self.look_into(&path, hides, marks)?;
            }
        }
        Ok(())
    }
}

fn has_ancestor_in(path: &str, places: &BTreeSet<String>) -> bool {
    path.match_indices('/').any(|(at, _)| places.contains(&path[..at]))
}
