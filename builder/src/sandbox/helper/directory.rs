//! Reading directories by descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};

use super::super::error::{At, Failure};
use super::caller;

/// Flags to open a directory that must not be a symbolic link.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Flags to open a regular file for reading; a FIFO in its place does not block.
pub(super) const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Opens the directory `path` below `parent` (`.` for itself).
pub(super) fn open(parent: impl AsFd, path: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(parent, path, DIRECTORY, Mode::empty()).at("open the directory", path)
}

/// Opens a directory by its absolute path.
pub(super) fn open_absolute(path: &Path) -> Result<OwnedFd, Failure> {
    let place = caller::find_directory(path, OFlags::NOFOLLOW).at("open", path)?;
    caller::retry(|| rustix::fs::openat(&place, ".", DIRECTORY, Mode::empty())).at("open", path)
}

/// The names in a directory, in order of bytes. `place` is for messages.
pub(super) fn list(directory: impl AsFd, place: &str) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).at("list", place)? {
        let entry = entry.at("list", place)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(text) = name.to_str() else {
            let shown = format!("{place}/{}", name.to_string_lossy());
            return Err(Failure::tree(shown, "its name is not UTF-8"));
        };
        names.push(text.to_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// The path of `name` in the directory `parent` (empty for the root).
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// A path as system calls want it: the root's is `.`.
pub(super) fn relative(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}
