//! The merged lower trees as one directory: a plain copy for hosts that refuse overlays, or links
//! where there are more trees than an overlay takes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::directory::{DIRECTORY, FILE, join};
use super::lowers::{Found, Lowers, Merged};
use super::metadata::{Metadata, file_type};
use super::overlay::ensure_directory;
use super::{checkout, descriptor_path};

/// Fills the empty directory `upper` with the merged lower trees, which may be written to then.
pub(super) fn copy_lowers(lowers: &Lowers, upper: &OwnedFd) -> Result<(), Failure> {
    let mut copy = Copy { lowers, upper, linked: HashMap::new(), links: false };
    copy.directory(&lowers.root(), "")
}

/// Makes a lower tree of several, whose files are links to theirs.
pub(super) fn merge(lower: &[PathBuf], destination: &Path) -> Result<(), Failure> {
    let lowers = Lowers::open(lower)?;
    let made = ensure_directory(destination)?;
    let mut copy = Copy { lowers: &lowers, upper: &made, linked: HashMap::new(), links: true };
    copy.directory(&lowers.root(), "")
}

struct Copy<'a> {
    lowers: &'a Lowers,
    upper: &'a OwnedFd,
    /// The first name of each copied file that has several, by layer and inode.
    linked: HashMap<(usize, u64), String>,
    /// Whether files are links to those of the lower trees.
    links: bool,
}

impl Copy<'_> {
    fn directory(&mut self, merged: &Merged, place: &str) -> Result<(), Failure> {
        for (name, found) in self.lowers.children(merged, place)? {
            let path = join(place, &name);
            match found {
                Found::Directory(inner) => {
                    rustix::fs::mkdirat(self.upper, &*path, Mode::RWXU).at("create", &path)?;
                    self.directory(&inner, &path)?;
                    let metadata = self.lowers.directory_metadata(&inner, &path)?;
                    let directory =
                        rustix::fs::openat(self.upper, &*path, DIRECTORY, Mode::empty())
                            .at("open", &path)?;
                    apply(&directory, &metadata, &path, &checkout::TIMES)?;
                }
                Found::Other { layer, stat } => self.other(layer, &stat, &path)?,
            }
        }
        Ok(())
    }

    fn other(&mut self, layer: usize, stat: &Stat, path: &str) -> Result<(), Failure> {
        let root = self.lowers.layer(layer);
        match file_type(stat) {
            FileType::RegularFile => self.file(layer, stat, path),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(root, path, Vec::new()).at("read the link", path)?;
                rustix::fs::symlinkat(target, self.upper, path).at("create", path)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(self.upper, path, Some(uid), Some(gid), flags)
                    .at("own", path)?;
                rustix::fs::utimensat(self.upper, path, &times(stat), flags)
                    .at("set the time of", path)
            }
            _ => Err(Failure::tree(path, "a lower tree holds a device, socket or FIFO")),
        }
    }

    fn file(&mut self, layer: usize, stat: &Stat, path: &str) -> Result<(), Failure> {
        let root = self.lowers.layer(layer);
        if self.links {
            let flags = AtFlags::empty();
            return rustix::fs::linkat(root, path, self.upper, path, flags).at("link", path);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(layer, stat.st_ino)) {
                let flags = AtFlags::empty();
                return rustix::fs::linkat(self.upper, first, self.upper, path, flags)
                    .at("link", path);
            }
            self.linked.insert((layer, stat.st_ino), path.to_owned());
        }
        let source = rustix::fs::openat(root, path, FILE, Mode::empty()).at("open", path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = rustix::fs::openat(self.upper, path, flags, Mode::RUSR).at("create", path)?;
        copy_content(&source, &target).at("copy", path)?;
        let metadata = Metadata::read(root, path, stat)?;
        apply(&target, &metadata, path, &times(stat))
    }
}

fn times(stat: &Stat) -> Timestamps {
    #[allow(clippy::cast_possible_wrap, reason = "nanoseconds are below 10^9")]
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

fn apply(
    file: &OwnedFd,
    metadata: &Metadata,
    path: &str,
    times: &Timestamps,
) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid)).at("own", path)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode)).at("set the mode of", path)?;
    for (name, value) in &metadata.xattrs {
        rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())
            .at(&format!("set {name} of"), path)?;
    }
    rustix::fs::futimens(file, times).at("set the time of", path)
}

fn copy_content(source: &OwnedFd, target: &OwnedFd) -> std::io::Result<()> {
    let mut within_kernel = true;
    while within_kernel {
        match rustix::fs::copy_file_range(source, None, target, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                within_kernel = false;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let duplicate = |fd: &OwnedFd| fd.try_clone().map(std::fs::File::from);
    std::io::copy(&mut duplicate(source)?, &mut duplicate(target)?).map(drop)
}

/// Whether `directory` may hold attributes of users, which overlays need; asked by setting one.
pub(super) fn keeps_user_xattrs(directory: &OwnedFd) -> bool {
    let (path, name) = (descriptor_path(directory), "user.drystone.probe");
    rustix::fs::setxattr(&path, name, b"", XattrFlags::empty()).is_ok()
        && rustix::fs::removexattr(&path, name).is_ok()
}

/// Whether a directory has no entries.
pub(super) fn is_empty(directory: &OwnedFd) -> Result<bool, Failure> {
    Ok(super::directory::list(directory, ".")?.is_empty())
}
