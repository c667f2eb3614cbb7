//! The rules that hold across entries: order, parents, link targets, deletions.

use std::collections::HashSet;

use super::keeps_xattr;
use crate::tree::{DELETION_PREFIX, Entry, Kind, TreePath};

/// An entry that breaks a rule of the canonical tar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The entry does not sort after the one before it (or is that one again).
    #[error("{path} does not sort after {previous}")]
    NotSorted {
        /// The entry.
        path: TreePath,
        /// The entry before it.
        previous: TreePath,
    },
    /// The entry's directory did not come before it.
    #[error("the parent directory of {path} is missing")]
    NoParent {
        /// The entry.
        path: TreePath,
    },
    /// A hard link names no earlier file.
    #[error("hard link {path} names {target}, which is no earlier file")]
    BadLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// A value that a tree cannot hold.
    #[error("{path}: {problem}")]
    BadValue {
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        problem: String,
    },
}

/// Checks entries one after the other.
#[derive(Default)]
pub(super) struct OrderCheck {
    previous: Option<TreePath>,
    directories: Vec<TreePath>,
    files: HashSet<TreePath>,
}

impl OrderCheck {
    pub(super) fn check(&mut self, entry: &Entry) -> Result<(), OrderError> {
        let path = &entry.path;
        if let Some(previous) = self.previous.as_ref().filter(|previous| *previous >= path) {
            let previous = previous.clone();
            return Err(OrderError::NotSorted { path: path.clone(), previous });
        }
        while self.directories.last().is_some_and(|directory| !path.starts_with(directory)) {
            self.directories.pop();
        }
        if path.parent().as_ref() != self.directories.last() {
            return Err(OrderError::NoParent { path: path.clone() });
        }
        check_values(entry)?;
        match &entry.kind {
            Kind::Directory => self.directories.push(path.clone()),
            Kind::File { .. } => {
                self.files.insert(path.clone());
            }
            Kind::HardLink { target } if !self.files.contains(target) => {
                let target = target.clone();
                return Err(OrderError::BadLink { path: path.clone(), target });
            }
            _ => {}
        }
        self.previous = Some(path.clone());
        Ok(())
    }
}

fn check_values(entry: &Entry) -> Result<(), OrderError> {
    let bad = |problem: String| OrderError::BadValue { path: entry.path.clone(), problem };
    if entry.mode > 0o7777 {
        return Err(bad(format!("mode {:o} has bits beyond 7777", entry.mode)));
    }
    if let Some(name) = entry.xattrs.keys().find(|name| !keeps_xattr(name)) {
        return Err(bad(format!("extended attribute {name:?} depends on the host")));
    }
    let is_deletion = entry.kind == Kind::Deletion;
    if entry.path.name().starts_with(DELETION_PREFIX) != is_deletion {
        return Err(bad(format!("only deletions have names that start with {DELETION_PREFIX}")));
    }
    if is_deletion && (entry.mode, entry.uid, entry.gid, entry.xattrs.len()) != (0, 0, 0, 0) {
        return Err(bad("a deletion has mode 0, owner 0:0 and no attributes".into()));
    }
    match &entry.kind {
        Kind::Symlink { target } if target.is_empty() || target.contains('\0') => {
            Err(bad("a symbolic link's target is empty or has a NUL byte".into()))
        }
        Kind::Symlink { .. } if entry.mode != 0o777 => {
            Err(bad("a symbolic link's mode is 0777".into()))
        }
        Kind::HardLink { .. } if !entry.xattrs.is_empty() => {
            Err(bad("a hard link's attributes stand at its first path".into()))
        }
        _ => Ok(()),
    }
}
