//! Deleting trees, however deep, without following a link.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::caller;
use super::directory::{self, DIRECTORY};

/// How deep the descent goes before a directory is moved up; bounds open descriptors and stack.
const MAX_DEPTH: usize = 64;

/// Deletes a file or a directory with all below it; nothing there is fine.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match unlink(path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).at("remove", path),
    }
    let directory = directory::open_absolute(path)?;
    remove_contents(&directory, &path.to_string_lossy())?;
    match unlink(path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other.at("remove", path),
    }
}

fn unlink(path: &Path, flags: AtFlags) -> Result<(), Errno> {
    caller::at_parent(path, |parent, name| rustix::fs::unlinkat(parent, name, flags))
}

/// Deletes all that is in a directory.
pub(super) fn remove_contents(top: &OwnedFd, place: &str) -> Result<(), Failure> {
    let mut sweep = Sweep { top, place, moved: 0 };
    // Directories that were moved up are swept in the next round.
    loop {
        let before = sweep.moved;
        sweep.empty(top, 0)?;
        if sweep.moved == before {
            return Ok(());
        }
    }
}

struct Sweep<'a> {
    top: &'a OwnedFd,
    place: &'a str,
    moved: u64,
}

impl Sweep<'_> {
    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Failure> {
        let names: Vec<_> = Dir::read_from(directory)
            .at("list", self.place)?
            .map(|entry| entry.map(|entry| (entry.file_name().to_owned(), entry.file_type())))
            .collect::<Result<_, _>>()
            .at("list", self.place)?;
        for (name, kind) in names {
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if kind == FileType::Directory {
                self.directory(directory, &name, depth)?;
                continue;
            }
            match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // A file system that does not tell types.
                Err(Errno::ISDIR) => self.directory(directory, &name, depth)?,
                Err(error) => return Err(self.failure(&name, error)),
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &std::ffi::CStr,
        depth: usize,
    ) -> Result<(), Failure> {
        if depth >= MAX_DEPTH {
            self.moved += 1;
            let up = format!(".drystone-removal-{}-{}", std::process::id(), self.moved);
            return rustix::fs::renameat(parent, name, self.top.as_fd(), up)
                .map_err(|error| self.failure(name, error));
        }
        let inner = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
            .map_err(|error| self.failure(name, error))?;
        self.empty(&inner, depth + 1)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failure(name, error)),
        }
    }

    fn failure(&self, name: &std::ffi::CStr, error: Errno) -> Failure {
        let path = Path::new(self.place).join(name.to_string_lossy().as_ref());
        Failure::io("remove", path, &error.into())
    }
}
