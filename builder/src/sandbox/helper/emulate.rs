//! Emulators of a session: a `binfmt_misc` of its user namespace.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::super::error::{At, Failure};

/// The namespace's registrations live as long as this mount, which stands nowhere.
static MOUNT: OnceLock<OwnedFd> = OnceLock::new();

/// Registers an emulator for all that this session's roots run.
pub(super) fn register(line: &str) -> Result<(), Failure> {
    let refused = |error: rustix::io::Errno| {
        Failure::host(
            "registering an emulator in a user namespace is refused",
            "",
            Some(error.into()),
        )
    };
    let mount = match MOUNT.get() {
        Some(mount) => mount,
        None => {
            let made = mount_registrations().map_err(refused)?;
            MOUNT.get_or_init(|| made)
        }
    };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let register = rustix::fs::openat(mount, "register", flags, Mode::empty())
        .at("open, in binfmt_misc,", "register")?;
    match std::fs::File::from(register).write_all(line.as_bytes()) {
        // A thread before this one registered the same.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Failure::io("write, in binfmt_misc,", "register", &error)),
        Ok(()) => Ok(()),
    }
}

fn mount_registrations() -> Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
