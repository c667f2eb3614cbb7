//! Reading and writing a root's files from outside, never out of the root.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::super::request::{Item, ItemKind};
use super::directory;
use super::metadata::file_type;
use super::remove;

/// The name that a new file has until it is complete.
const TEMPORARY: &str = ".drystone-new";

/// Links are followed as if the root were `/`; none of `/proc`'s magic ones.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a regular file for reading; `None` if there is none.
pub(super) fn open(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, Failure> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), INSIDE) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other.at("open, inside the root,", path)?,
    };
    let stat = rustix::fs::fstat(&file).at("look at", path)?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(Failure::request(format!("{path} is not a regular file")));
    }
    Ok(Some(file))
}

/// Puts a regular file at `path`.
pub(super) fn write(
    root: &OwnedFd,
    path: &str,
    content: &[u8],
    mode: u32,
    owner: (u32, u32),
) -> Result<(), Failure> {
    let (parent, name) = parent(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, TEMPORARY, flags, Mode::RUSR)
        .at("create, inside the root,", path)?;
    let result = fill(&file, content, mode, owner, path).and_then(|()| {
        rustix::fs::renameat(&parent, TEMPORARY, &parent, name).at("write, inside the root,", path)
    });
    if result.is_err() {
        // The first error is the one to tell.
        let _ = rustix::fs::unlinkat(&parent, TEMPORARY, AtFlags::empty());
    }
    result
}

fn fill(
    file: &OwnedFd,
    mut content: &[u8],
    mode: u32,
    owner: (u32, u32),
    path: &str,
) -> Result<(), Failure> {
    while !content.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, content))
            .at("write, inside the root,", path)?;
        content = &content[written..];
    }
    own(file, mode, owner, path)
}

fn own(file: &OwnedFd, mode: u32, owner: (u32, u32), path: &str) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::fchown(file, Some(uid), Some(gid)).at("own, inside the root,", path)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).at("set the mode of", path)
}

/// Lists a directory in order of names.
pub(super) fn list(root: &OwnedFd, path: &str) -> Result<Option<Vec<Item>>, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = if path.is_empty() { "." } else { path };
    let directory = match rustix::fs::openat2(root, place, flags, Mode::empty(), INSIDE) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.at("list, inside the root,", path)?,
    };
    let mut items = Vec::new();
    for name in directory::list(&directory, path)? {
        items.extend(item(&directory, &name)?);
    }
    Ok(Some(items))
}

/// What stands at a path.
pub(super) fn look(root: &OwnedFd, path: &str) -> Result<Option<Item>, Failure> {
    match parent(root, path) {
        Ok((parent, name)) => item(&parent, name),
        Err(Failure::Io { errno: libc::ENOENT | libc::ENOTDIR, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn item(directory: &OwnedFd, name: &str) -> Result<Option<Item>, Failure> {
    let stat: Stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.at("look at", name)?,
    };
    let kind = match file_type(&stat) {
        FileType::Directory => ItemKind::Directory,
        FileType::RegularFile => ItemKind::File,
        FileType::Symlink => {
            let target =
                rustix::fs::readlinkat(directory, name, Vec::new()).at("read the link", name)?;
            ItemKind::Symlink(target.to_string_lossy().into_owned())
        }
        _ => ItemKind::Other,
    };
    Ok(Some(Item {
        name: name.to_owned(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size.unsigned_abs(),
    }))
}

/// Makes a directory, or sets the mode and owner of one that is there.
pub(super) fn make_directory(
    root: &OwnedFd,
    path: &str,
    mode: u32,
    owner: (u32, u32),
) -> Result<(), Failure> {
    let (parent, name) = parent(root, path)?;
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).at("create, inside the root,", path),
    }
    let made = rustix::fs::openat(&parent, name, directory::DIRECTORY, Mode::empty())
        .at("open, inside the root,", path)?;
    own(&made, mode, owner, path)
}

/// Puts a symbolic link at `path`.
pub(super) fn make_symlink(
    root: &OwnedFd,
    path: &str,
    target: &str,
    owner: (u32, u32),
) -> Result<(), Failure> {
    let (parent, name) = parent(root, path)?;
    let place = "link, inside the root,";
    rustix::fs::symlinkat(target, &parent, TEMPORARY).at(place, path)?;
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let result = rustix::fs::chownat(&parent, TEMPORARY, Some(uid), Some(gid), flags)
        .and_then(|()| rustix::fs::renameat(&parent, TEMPORARY, &parent, name));
    if result.is_err() {
        // The first error is the one to tell.
        let _ = rustix::fs::unlinkat(&parent, TEMPORARY, AtFlags::empty());
    }
    result.at(place, path)
}

/// Sets the mode and owner of an entry that is no symbolic link.
pub(super) fn set_attributes(
    root: &OwnedFd,
    path: &str,
    mode: u32,
    owner: (u32, u32),
) -> Result<(), Failure> {
    let (parent, name) = parent(root, path)?;
    let entry = rustix::fs::openat(&parent, name, directory::FILE, Mode::empty())
        .at("open, inside the root,", path)?;
    own(&entry, mode, owner, path)
}

/// Renames an entry.
pub(super) fn rename(root: &OwnedFd, from: &str, to: &str) -> Result<(), Failure> {
    let (old, old_name) = parent(root, from)?;
    let (new, new_name) = parent(root, to)?;
    rustix::fs::renameat(&old, old_name, &new, new_name).at("rename, inside the root,", from)
}

/// Deletes an entry with all below it.
pub(super) fn delete(root: &OwnedFd, path: &str) -> Result<(), Failure> {
    let (parent, name) = match parent(root, path) {
        Err(Failure::Io { errno: libc::ENOENT | libc::ENOTDIR, .. }) => return Ok(()),
        other => other?,
    };
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).at("delete, inside the root,", path),
    }
    let inner = rustix::fs::openat(&parent, name, directory::DIRECTORY, Mode::empty())
        .at("open, inside the root,", path)?;
    remove::remove_contents(&inner, path)?;
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).at("delete, inside the root,", path)
}

/// The open directory of a path, and the path's last component.
fn parent<'a>(root: &OwnedFd, path: &'a str) -> Result<(OwnedFd, &'a str), Failure> {
    let path = path.trim_matches('/');
    let (place, name) = path.rsplit_once('/').unwrap_or((".", path));
    if matches!(name, "" | "." | "..") {
        return Err(Failure::request(format!("{path:?} names no entry of the root")));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat2(root, place, flags, Mode::empty(), INSIDE)
        .at("open, inside the root,", place)?;
    Ok((directory, name))
}
