//! The helper processes: see the diagram in [`super`].

mod bare;
mod caller;
mod checkout;
mod confine;
mod copy;
mod difference;
mod directory;
mod disguise;
mod disk;
mod emulate;
mod execute;
mod files;
mod filter;
mod init;
mod links;
mod lowers;
mod metadata;
mod mounts;
mod network;
mod overlay;
mod processes;
mod remove;
mod session;
mod snapshot;
mod spawner;
mod supervisor;
mod terminal;
mod watch;

pub(super) use processes::adopt_orphans;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::Isolation;
use super::messages::{ROOT_NAME, SESSION_NAME};
use super::wire::Connection;

/// Takes over, and never returns, in a process that was started as a helper of the sandbox;
/// returns at once in any other. Call it first in `main`, before threads, logging and arguments.
pub fn helper_main_if_requested() {
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next() else { return };
    let main: fn(Connection, Isolation) -> i32 = match name.as_bytes() {
        name if name == SESSION_NAME.as_bytes() => session::main,
        name if name == ROOT_NAME.as_bytes() => supervisor::main,
        _ => return,
    };
    let status = match take_socket() {
        Ok(connection) => {
            let word = arguments.next().unwrap_or_default();
            main(connection, Isolation::from_word(word.as_bytes()))
        }
        Err(error) => {
            eprintln!("{}: {error}", name.display());
            1
        }
    };
    std::process::exit(status);
}

/// Moves the socket that came as standard input out of the way and closes everything else that
/// was inherited by accident.
fn take_socket() -> io::Result<Connection> {
    // SAFETY: nothing in this process has opened a descriptor yet that anyone would still use.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // SAFETY: descriptor 0 is this process's own; it is replaced below.
    let stdin = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(0) });
    let socket = rustix::io::fcntl_dupfd_cloexec(&*stdin, 3)?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    // SAFETY: both descriptors are open and owned by this process.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Connection::from(socket))
}

/// The path of an open descriptor, for calls that only take paths: no directory above it needs to
/// be readable, and none can be exchanged meanwhile.
fn descriptor_path(descriptor: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// The number of an [`rustix::io::Errno`], for messages.
fn errno(error: rustix::io::Errno) -> i32 {
    error.raw_os_error()
}
