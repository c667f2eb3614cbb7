//! What changed in an upper directory since last time, by looking at metadata only.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Stat};

use super::super::error::{At, Failure};
use super::directory::{self, join, relative};
use super::metadata::{file_type, is_whiteout};

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
    marks: BTreeMap<String, Mark>,
}

impl Snapshot {
    /// Looks for the first time.
    pub(super) fn take(upper: OwnedFd) -> Result<Self, Failure> {
        let mut marks = BTreeMap::new();
        look(&upper, "", &mut marks)?;
        Ok(Self { upper, marks })
    }

    /// The upper directory.
    pub(super) const fn upper(&self) -> &OwnedFd {
        &self.upper
    }

    /// The paths that are new, changed (`false`) or gone (`true`) since the last call.
    pub(super) fn changes(&mut self) -> Result<Vec<(String, bool)>, Failure> {
        let mut marks = BTreeMap::new();
        look(&self.upper, "", &mut marks)?;
        let mut changes: BTreeMap<String, bool> = BTreeMap::new();
        for (path, mark) in &marks {
            if self.marks.get(path) != Some(mark) {
                changes.insert(path.clone(), *mark == Mark::Whiteout);
            }
        }
        for path in self.marks.keys().filter(|path| !marks.contains_key(*path)) {
            changes.insert(path.clone(), true);
        }
        self.marks = marks;
        Ok(changes.into_iter().collect())
    }
}

fn look(upper: &OwnedFd, place: &str, marks: &mut BTreeMap<String, Mark>) -> Result<(), Failure> {
    let descriptor = directory::open(upper, relative(place))?;
    for name in directory::list(&descriptor, place)? {
        let path = join(place, &name);
        let stat = rustix::fs::statat(&descriptor, &*name, AtFlags::SYMLINK_NOFOLLOW)
            .at("look at", &path)?;
        let mark = Mark::of(&stat);
        let descend = matches!(mark, Mark::Directory { .. });
        marks.insert(path.clone(), mark);
        if descend {
            look(upper, &path, marks)?;
        }
    }
    Ok(())
}
