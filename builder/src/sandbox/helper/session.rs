//! The session's process: enters a user namespace and serves requests, a thread for each.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid};
use rustix::thread::UnshareFlags;

use super::super::Isolation;
use super::super::error::{At, Failure};
use super::super::messages::{ROOT_NAME, Service, Work};
use super::super::wire::Connection;
use super::processes::Processes;
use super::{caller, checkout, copy, difference, directory, emulate, mounts, remove};

/// Stack of a request's thread: scans descend as deep as trees do.
const STACK: usize = 16 << 20;

/// Runs until the control connection closes.
pub(super) fn main(control: Connection, isolation: Isolation) -> i32 {
    // Ctrl-C at a terminal is the program's to handle.
    let _ = rustix::process::setsid();
    let entered = match isolation {
        Isolation::Namespaces => enter_user_namespace().map(|()| None),
        // What orphans leave behind when the program dies has no namespace to end with.
        Isolation::None => Processes::of_descendants().map(Some),
    };
    let (entered, descendants) = match entered {
        Ok(descendants) => (Ok(()), descendants),
        Err(failure) => (Err(failure), None),
    };
    if !answer(&control, entered) {
        return 1;
    }
    if !matches!(control.receive::<()>(), Ok(Some(_))) {
        return 1;
    }
    if !answer(&control, settle(isolation)) {
        return 1;
    }
    while let Ok(Some(frame)) = control.receive::<Service>() {
        let Some(descriptor) = frame.descriptors.into_iter().next() else { continue };
        let serve = move || match frame.message {
            Service::Work => serve_work(descriptor),
            Service::Root => serve_root(descriptor, isolation),
        };
        // Without a thread the connection closes, and the caller is told by that.
        let _ = std::thread::Builder::new().stack_size(STACK).spawn(serve);
    }
    if let Some(descendants) = descendants {
        descendants.end();
    }
    0
}

/// Sends a result; returns whether it was a success that arrived.
fn answer(connection: &Connection, result: Result<(), Failure>) -> bool {
    let good = result.is_ok();
    connection.send(&result).is_ok() && good
}

fn enter_user_namespace() -> Result<(), Failure> {
    // SAFETY: this process has one thread and shares no descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|error| Failure::namespace("user namespaces are refused", error.into()))
}

/// Becomes root inside, with an own mount namespace.
fn settle(isolation: Isolation) -> Result<(), Failure> {
    if isolation == Isolation::Namespaces {
        become_root()?;
    }
    rustix::process::umask(Mode::empty());
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: limit.maximum, maximum: limit.maximum },
    );
    new_keyring();
    Ok(())
}

fn become_root() -> Result<(), Failure> {
    let refused = |what: &str, error: rustix::io::Errno| {
        Failure::namespace(&format!("{what} is refused inside a user namespace"), error.into())
    };
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group)
        .map_err(|error| refused("changing the group", error))?;
    rustix::thread::set_thread_res_uid(user, user, user)
        .map_err(|error| refused("changing the user", error))?;
    // A change of ids takes /proc/self away from the process; the roots' helpers need it.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    mounts::unshare().map_err(|(what, error)| refused(what, error))
}

/// Leaves the caller's session keyring behind.
fn new_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the call takes a number and a null pointer. A kernel without keyrings refuses it,
    // and then there is nothing to leave.
    unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
}

fn serve_root(descriptor: OwnedFd, isolation: Isolation) {
    let started = Command::new("/proc/self/exe")
        .arg0(ROOT_NAME)
        .arg(isolation.word())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(descriptor))
        .stdout(Stdio::null())
        .spawn();
    // This thread must outlive the supervisor, which dies with its parent thread.
    if let Ok(mut child) = started {
        let _ = child.wait();
    }
}

fn serve_work(descriptor: OwnedFd) {
    let connection = Connection::from(descriptor);
    let Ok(Some(frame)) = connection.receive::<Work>() else { return };
    let result = match frame.message {
        Work::Scan { upper, lower, storage } => {
            difference::serve(&connection, &upper, &lower, storage);
            return;
        }
        Work::Checkout { destination } => match frame.descriptors.into_iter().next() {
            Some(tar) => checkout::checkout(File::from(tar), &destination),
            None => Err(Failure::request("a checkout without a tree")),
        },
        Work::Merge { lower, destination } => copy::merge(&lower, &destination),
        Work::Remove { path } => remove::remove(&path),
        Work::Rename { from, to, sync } => rename(&from, &to, sync),
        Work::CreateDirectory { path } => create_directory(&path),
        Work::Emulate { line } => emulate::register(&line),
    };
    let _ = connection.send(&result);
}

fn create_directory(path: &Path) -> Result<(), Failure> {
    let mode = Mode::from_raw_mode(0o755);
    caller::at_parent(path, |parent, name| rustix::fs::mkdirat(parent, name, mode))
        .at("create", path)?;
    let made = directory::open_absolute(path)?;
    rustix::fs::fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT)).at("own", path)?;
    rustix::fs::fchmod(&made, mode).at("set the mode of", path)
}

fn rename(from: &Path, to: &Path, sync: bool) -> Result<(), Failure> {
    if sync {
        rustix::fs::syncfs(directory::open_absolute(from)?).at("write to disk", from)?;
    }
    caller::at_parent(from, |parent, name| {
        caller::at_parent(to, |new_parent, new_name| {
            rustix::fs::renameat(parent, name, new_parent, new_name)
        })
    })
    .at("rename", from)
}
