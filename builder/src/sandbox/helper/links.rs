//! Files with several names.
//!
//! An overlay copies a lower file up under one name only, so the others keep showing the old file.
//! Here the names are put together again: a change of mode, owner or attributes made through one
//! name is a change of the file. (A change of content made through one name cannot be told from
//! another file that took its place, which is what scripts do; it stays with that name.)

use std::collections::BTreeMap;

use drystone_store::tree::{Kind, TreePath};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::super::messages::tree_path;
use super::difference::{Emitted, LowerFile, Scanner, UpperFile, entry};
use super::directory::join;
use super::lowers::{Found, is_opaque};
use super::metadata::{Metadata, file_type, is_whiteout};

/// The names that one upper inode has.
type Group = Vec<UpperFile>;

/// Decides which files are part of the difference, and as which names.
pub(super) fn resolve(scanner: &Scanner, files: Vec<UpperFile>) -> Result<Vec<Emitted>, Failure> {
    let mut groups: BTreeMap<(u64, u64), Group> = BTreeMap::new();
    let mut emitted = Vec::new();
    for file in files {
        if file.target.is_some() {
            emit_symlink(file, &mut emitted);
        } else {
            groups.entry((file.stat.st_dev, file.stat.st_ino)).or_default().push(file);
        }
    }
    let mut clusters: BTreeMap<(usize, u64), Vec<Group>> = BTreeMap::new();
    for (_, mut group) in groups {
        group.sort_by(|left, right| left.path.cmp(&right.path));
        match broken_link(&group) {
            Some(origin) => clusters.entry((origin.layer, origin.inode)).or_default().push(group),
            None if is_changed(&group) => emit(group, Vec::new(), &mut emitted),
            None => {}
        }
    }
    for ((layer, inode), groups) in clusters {
        let changed = |group: &Group| {
            group.iter().any(|file| {
                !file.equal || file.lower.map(|it| (it.layer, it.inode)) != Some((layer, inode))
            })
        };
        // When several names were changed apart from each other, the last change counts.
        let last = groups
            .iter()
            .enumerate()
            .filter(|(_, group)| changed(group))
            .max_by_key(|(_, group)| (group[0].stat.st_ctime, group[0].stat.st_ctime_nsec))
            .map(|(index, _)| index);
        let Some(last) = last else { continue };
        let mut others = scanner.untouched_names(layer, inode)?;
        let mut chosen = Group::new();
        for (index, group) in groups.into_iter().enumerate() {
            if index == last {
                chosen = group;
            } else {
                others.extend(group.into_iter().map(|file| file.path));
            }
        }
        emit(chosen, others, &mut emitted);
    }
    Ok(emitted)
}

/// The lower file with several names that an upper file was copied up from. A file that carries
/// names of two such files could be a copy of either; nothing is put together then.
fn broken_link(group: &Group) -> Option<LowerFile> {
    let copies = group.iter().filter(|file| file.copied_up);
    let mut origins = copies.filter_map(|file| file.lower);
    let first = origins.next()?;
    origins.all(|other| other == first).then_some(first)
}

/// Whether a file with all its names differs from what the lower trees have at these names.
fn is_changed(group: &Group) -> bool {
    let inode = |file: &UpperFile| file.lower.map(|lower| (lower.layer, lower.inode));
    group.iter().any(|file| !file.equal || inode(file) != inode(&group[0]))
}

fn emit_symlink(file: UpperFile, emitted: &mut Vec<Emitted>) {
    if file.equal {
        return;
    }
    if let Some(target) = file.target {
        emitted.push((entry(file.path, file.metadata, Kind::Symlink { target }), false, None));
    }
}

/// Emits one file under all its names: the first in order carries the content.
fn emit(group: Group, others: Vec<TreePath>, emitted: &mut Vec<Emitted>) {
    let Some(file) = group.first() else { return };
    let (metadata, size) = (file.metadata.clone(), file.stat.st_size.unsigned_abs());
    let content = file.path.as_str().to_owned();
    let mut names: Vec<TreePath> = group.into_iter().map(|file| file.path).chain(others).collect();
    names.sort();
    let mut names = names.into_iter();
    let Some(first) = names.next() else { return };
    for name in names {
        let kind = Kind::HardLink { target: first.clone() };
        // The canonical tar keeps a file's attributes at its first name only.
        let metadata = Metadata { xattrs: BTreeMap::new(), ..metadata.clone() };
        emitted.push((entry(name, metadata, kind), false, None));
    }
    emitted.push((entry(first, metadata, Kind::File { size }), false, Some(content)));
}

impl Scanner {
    /// The names of a lower file that still show it, because nothing stands above them.
    fn untouched_names(&self, layer: usize, inode: u64) -> Result<Vec<TreePath>, Failure> {
        let mut names = Vec::new();
        for name in self.lowers.names_of(layer, inode)? {
            let shown = matches!(
                self.lowers.find(&name)?,
                Some(Found::Other { layer: at, stat }) if at == layer && stat.st_ino == inode
            );
            if shown && !self.is_covered(&name)? {
                names.push(tree_path(&name)?);
            }
        }
        Ok(names)
    }

    /// Whether the upper directory holds something at a path, or hides it.
    fn is_covered(&self, path: &str) -> Result<bool, Failure> {
        let mut place = String::new();
        for part in path.split('/') {
            let hides = !place.is_empty() && is_opaque(&self.upper, &place)?;
            place = join(&place, part);
            let stat = match rustix::fs::statat(&self.upper, &*place, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(hides),
                other => other.at("look at", &place)?,
            };
            if is_whiteout(&stat) || file_type(&stat) != FileType::Directory {
                return Ok(true);
            }
        }
        Ok(true)
    }
}
