//! Access to the caller's directories.
//!
//! The session's root may do anything to files whose user and group both have an id inside. A
//! directory of the caller's with another group (a home of a shared group, a set-gid project) is
//! not among them; there the caller's own permission serves.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::super::identity::ID_COUNT;

/// Finds a directory, without a right to anything in it.
pub(super) fn find_directory(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// Does something with the last component of a path, in the directory that holds it.
pub(super) fn at_parent<T>(
    path: &Path,
    operation: impl Fn(&OwnedFd, &OsStr) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent = find_directory(parent, OFlags::empty())?;
    retry(|| operation(&parent, name))
}

/// Does something with a path; when that is denied, tries again as the caller.
pub(super) fn retry<T>(operation: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match operation() {
        Err(Errno::ACCESS | Errno::PERM) => {}
        other => return other,
    }
    let _caller = Caller::enter();
    operation()
}

/// While it lives, this thread looks at files as the caller.
struct Caller;

impl Caller {
    fn enter() -> Self {
        set_file_ids(ID_COUNT);
        Self
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        set_file_ids(0);
    }
}

/// Of this thread only; the kernel takes the capabilities for files away and gives them back.
/// Where the caller has no id of its own inside, nothing happens.
fn set_file_ids(id: u32) {
    // SAFETY: the calls take numbers only, and never fail otherwise than by doing nothing.
    unsafe {
        if id == 0 {
            libc::syscall(libc::SYS_setfsuid, id);
            libc::syscall(libc::SYS_setfsgid, id);
        } else {
            libc::syscall(libc::SYS_setfsgid, id);
            libc::syscall(libc::SYS_setfsuid, id);
        }
    }
}
