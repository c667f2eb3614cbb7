//! A terminal inside a root: commands see only those of the root's own `/dev/pts`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};

use super::super::error::{At, Failure};

/// Makes a terminal; the outer end, and the inner one that commands have.
pub(super) fn open(
    root: &OwnedFd,
    size: (u16, u16),
    owner: (u32, u32),
) -> Result<(OwnedFd, OwnedFd), Failure> {
    const PLACE: &str = "dev/pts/ptmx";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let outer = rustix::fs::openat2(root, PLACE, flags, Mode::empty(), resolve)
        .at("open, inside the root,", PLACE)?;
    let size = libc::winsize { ws_row: size.0, ws_col: size.1, ws_xpixel: 0, ws_ypixel: 0 };
    let (unlocked, how): (libc::c_int, libc::c_int) =
        (0, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
    // SAFETY: each request is given what ioctl_tty(2) says it wants.
    let inner = unsafe {
        if libc::ioctl(outer.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) < 0
            || libc::ioctl(outer.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) < 0
        {
            -1
        } else {
            libc::ioctl(outer.as_raw_fd(), libc::TIOCGPTPEER, how)
        }
    };
    if inner < 0 {
        return Err(Failure::io("make a terminal from", PLACE, &io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let inner = unsafe { OwnedFd::from_raw_fd(inner) };
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::fchown(&inner, Some(uid), Some(gid)).at("own", "a terminal")?;
    Ok((outer, inner))
}
