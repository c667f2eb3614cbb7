//! Laying out a canonical tar as a directory tree.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use drystone_store::tar::{MTIME, ReadError, TreeReader};
use drystone_store::tree::{Entry, Kind, TreePath};
use drystone_store::with_causes;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};

use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::super::identity::ID_COUNT;
use super::directory::{self, DIRECTORY};
use super::{caller, descriptor_path, remove};

/// Bytes read and written at once.
const BUFFER: usize = 256 << 10;

/// The time of every entry.
pub(super) const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: MTIME as i64, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: MTIME as i64, tv_nsec: 0 },
};

/// Lays out a tree in the new directory `destination`; on failure nothing stays.
pub(super) fn checkout(tar: File, destination: &Path) -> Result<(), Failure> {
    // Modes beyond the owner's are set when a directory is complete.
    caller::at_parent(destination, |parent, name| rustix::fs::mkdirat(parent, name, Mode::RWXU))
        .at("create", destination)?;
    let result = lay_out(tar, destination);
    if result.is_err() {
        // The first error is the one to tell.
        let _ = remove::remove(destination);
    }
    result
}

fn lay_out(tar: File, destination: &Path) -> Result<(), Failure> {
    let root = directory::open_absolute(destination)?;
    prepare_root(&root, destination)?;
    let mut reader = TreeReader::new(BufReader::with_capacity(BUFFER, tar));
    let mut layout = Layout { root, open: Vec::new(), buffer: vec![0; BUFFER] };
    let damaged = |error: &ReadError| match error {
        ReadError::Io(error) => Failure::io("read the tree for", destination, error),
        other => Failure::tree(destination.to_string_lossy(), with_causes(other)),
    };
    while let Some(entry) = reader.next_entry().map_err(|error| damaged(&error))? {
        layout.enter_parent(&entry.path)?;
        layout.add(entry, &mut reader)?;
    }
    layout.finish_all()?;
    reader.finish().map_err(|error| damaged(&error))?;
    let Layout { root, .. } = layout;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).at("set the mode of", destination)?;
    rustix::fs::futimens(&root, &TIMES).at("set the time of", destination)
}

/// The new directory may have got a group and default ACL from its parent; entries must not.
fn prepare_root(root: &OwnedFd, destination: &Path) -> Result<(), Failure> {
    let _ = rustix::fs::fremovexattr(root, "system.posix_acl_default");
    let _ = rustix::fs::fremovexattr(root, "system.posix_acl_access");
    rustix::fs::fchown(root, Some(Uid::ROOT), Some(Gid::ROOT)).at("own", destination)?;
    rustix::fs::fchmod(root, Mode::RWXU).at("set the mode of", destination)
}

/// A directory whose metadata is set when all below it is there.
struct OpenDirectory {
    entry: Entry,
    descriptor: OwnedFd,
}

struct Layout {
    root: OwnedFd,
    /// The directories from the root to the current one.
    open: Vec<OpenDirectory>,
    buffer: Vec<u8>,
}

impl Layout {
    fn current(&self) -> &OwnedFd {
        self.open.last().map_or(&self.root, |directory| &directory.descriptor)
    }

    /// Completes directories until the current one is the parent of `path`.
    fn enter_parent(&mut self, path: &TreePath) -> Result<(), Failure> {
        let parent = path.parent();
        while let Some(top) = self.open.last() {
            if parent.as_ref() == Some(&top.entry.path) {
                return Ok(());
            }
            self.finish_last()?;
        }
        match parent {
            None => Ok(()),
            Some(_) => Err(Failure::tree(path.as_str(), "its directory is missing")),
        }
    }

    fn add<R: Read>(&mut self, entry: Entry, reader: &mut TreeReader<R>) -> Result<(), Failure> {
        if entry.uid >= ID_COUNT || entry.gid >= ID_COUNT {
            let problem =
                format!("its owner {}:{} is above {}", entry.uid, entry.gid, ID_COUNT - 1);
            return Err(Failure::tree(entry.path.as_str(), problem));
        }
        match &entry.kind {
            Kind::Directory => return self.directory(entry),
            Kind::File { .. } => self.file(&entry, &mut reader.content())?,
            Kind::Symlink { target } => self.symlink(&entry, target)?,
            Kind::HardLink { target } => self.hard_link(&entry, target)?,
            Kind::Deletion => self.deletion(&entry)?,
        }
        Ok(())
    }

    fn directory(&mut self, entry: Entry) -> Result<(), Failure> {
        let (path, name) = (entry.path.as_str(), entry.path.name());
        let parent = self.current();
        rustix::fs::mkdirat(parent, name, Mode::RWXU).at("create", path)?;
        let descriptor =
            rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).at("open", path)?;
        self.open.push(OpenDirectory { entry, descriptor });
        Ok(())
    }

    fn file(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Failure> {
        let path = entry.path.as_str();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let plain = entry.mode & !0o777 == 0 && entry.uid == 0 && entry.gid == 0;
        let mode = if plain { Mode::from_raw_mode(entry.mode) } else { Mode::RUSR };
        let file = rustix::fs::openat(self.current(), entry.path.name(), flags, mode)
            .at("create", path)?;
        self.copy(&file, content, path)?;
        if plain {
            set_xattrs(&file, entry)?;
            return rustix::fs::futimens(&file, &TIMES).at("set the time of", path);
        }
        set_metadata(&file, entry)
    }

    fn copy(&mut self, file: &OwnedFd, content: &mut dyn Read, path: &str) -> Result<(), Failure> {
        loop {
            let count = content.read(&mut self.buffer).at("read the tree at", path)?;
            if count == 0 {
                return Ok(());
            }
            let mut rest = &self.buffer[..count];
            while !rest.is_empty() {
                let written = rustix::io::retry_on_intr(|| rustix::io::write(file, rest))
                    .at("write", path)?;
                rest = &rest[written..];
            }
        }
    }

    fn symlink(&self, entry: &Entry, target: &str) -> Result<(), Failure> {
        let (path, name, parent) = (entry.path.as_str(), entry.path.name(), self.current());
        rustix::fs::symlinkat(target, parent, name).at("create", path)?;
        if entry.uid != 0 || entry.gid != 0 {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .at("own", path)?;
        }
        rustix::fs::utimensat(parent, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", path)
    }

    fn hard_link(&self, entry: &Entry, target: &TreePath) -> Result<(), Failure> {
        let path = entry.path.as_str();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(&self.root, target.as_str(), flags, Mode::empty(), resolve)
            .at("open", target.as_str())?;
        let (parent, name) = (self.current(), entry.path.name());
        rustix::fs::linkat(CWD, descriptor_path(&file), parent, name, AtFlags::SYMLINK_FOLLOW)
            .at("link", path)
    }

    fn deletion(&self, entry: &Entry) -> Result<(), Failure> {
        let (path, parent) = (entry.path.as_str(), self.current());
        if entry.is_opaque() {
            let flags = XattrFlags::empty();
            return rustix::fs::fsetxattr(parent, "user.overlay.opaque", b"y", flags)
                .at("mark as opaque", path);
        }
        let deleted =
            entry.deleted_path().ok_or_else(|| Failure::tree(path, "a deletion without a name"))?;
        let kind = FileType::CharacterDevice;
        match rustix::fs::mknodat(parent, deleted.name(), kind, Mode::empty(), 0) {
            // An overlay keeps this kind of file for itself.
            Err(Errno::PERM) => {
                let mend = "put DRYSTONE_STORE on ext4, xfs, btrfs or a tmpfs, not on a \
                            container's own overlay (a volume, for example)";
                let problem = format!("no deletion of {deleted} can be kept on the store's disk");
                Err(Failure::host(problem, mend, Some(Errno::PERM.into())))
            }
            other => other.at("make a whiteout at", deleted.as_str()),
        }
    }

    fn finish_last(&mut self) -> Result<(), Failure> {
        match self.open.pop() {
            Some(OpenDirectory { entry, descriptor }) => set_metadata(&descriptor, &entry),
            None => Ok(()),
        }
    }

    fn finish_all(&mut self) -> Result<(), Failure> {
        while !self.open.is_empty() {
            self.finish_last()?;
        }
        Ok(())
    }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// Owner before mode and xattrs, since a change of owner drops set-id bits and capabilities.
fn set_metadata(file: &OwnedFd, entry: &Entry) -> Result<(), Failure> {
    let path = entry.path.as_str();
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(file, uid, gid).at("own", path)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).at("set the mode of", path)?;
    set_xattrs(file, entry)?;
    rustix::fs::futimens(file, &TIMES).at("set the time of", path)
}

fn set_xattrs(file: &OwnedFd, entry: &Entry) -> Result<(), Failure> {
    for (name, value) in &entry.xattrs {
        rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())
            .at(&format!("set {name} of"), entry.path.as_str())?;
    }
    Ok(())
}
