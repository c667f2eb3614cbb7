//! The mounts of a root besides its trees.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::super::error::{At, Failure};
use super::super::request::{Profile, RootRequest};
use super::descriptor_path;

/// Directories that the sandbox covers. Where the trees lack one, it must be in no difference.
pub(super) const MOUNT_POINTS: [&str; 5] = ["build", "dev", "proc", "sys", "tmp"];

/// The device nodes that commands see, bound from the host.
pub(super) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

pub(super) const DEVICE_LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Files of `/proc` that tell about the host, how it was started or its kernel's memory; covered
/// by `/dev/null`.
const COVERED_FILES: [&str; 21] = [
    "cmdline",
    "config.gz",
    "diskstats",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "latency_stats",
    "modules",
    "partitions",
    "sched_debug",
    "schedstat",
    "softirqs",
    "swaps",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

/// Directories of `/proc` about the host's devices; covered by an empty read-only tmpfs.
const COVERED_DIRECTORIES: [&str; 5] = ["acpi", "asound", "driver", "pressure", "scsi"];

/// Directories of `/proc` that are made read-only.
const READ_ONLY: [&str; 4] = ["sys", "bus", "fs", "irq"];

const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Puts this process, which must have one thread, into a mount namespace whose changes nobody else
/// sees; what was refused, and how.
pub(super) fn unshare() -> Result<(), (&'static str, Errno)> {
    // SAFETY: this process has one thread and shares no descriptor table.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|error| ("a mount namespace", error))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| ("making mounts private", error))
}

/// Mounts everything but `/proc`, which needs the process namespace.
pub(super) fn furnish(root: &OwnedFd, request: &RootRequest) -> Result<(), Failure> {
    let sys = open_inside(root, "sys")?;
    mount_tmpfs(&sys, NO_DEVICES | MountFlags::NOEXEC | MountFlags::RDONLY, c"mode=0555", "sys")?;
    mount_tmpfs(&open_inside(root, "tmp")?, NO_DEVICES, c"mode=1777", "tmp")?;
    // A recipe's source stands below /build, and what is built there may be large.
    if request.profile == Profile::Configure {
        let options = c"mode=0755,size=25%";
        mount_tmpfs(&open_inside(root, "build")?, NO_DEVICES, options, "build")?;
    }
    for path in &request.tmpfs {
        let path = path.trim_matches('/');
        mount_tmpfs(&open_inside(root, path)?, NO_DEVICES, c"mode=0755", path)?;
    }
    if let Some(path) = &request.disguise.build_folder {
        bind_build_folder(root, path)?;
    }
    furnish_devices(root)
}

/// Lets `/build` stand at another path too. The directory is made in the root, where only outputs
/// are looked at.
fn bind_build_folder(root: &OwnedFd, path: &str) -> Result<(), Failure> {
    match rustix::fs::mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).at("create, inside the root,", path),
    }
    let (build, place) = (open_inside(root, "build")?, open_inside(root, path)?);
    mount(descriptor_path(&build), descriptor_path(&place), "", MountFlags::BIND, None)
        .at("bind, inside the root,", path)
}

fn furnish_devices(root: &OwnedFd) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_tmpfs(&open_inside(root, "dev")?, flags, c"mode=0755,size=64k,nr_inodes=128", "dev")?;
    let devices = open_inside(root, "dev")?;
    for name in DEVICES {
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&devices, name, flags, Mode::from_raw_mode(0o666))
            .at("create, in the sandbox's /dev,", name)?;
        let source = format!("/dev/{name}");
        mount(&*source, descriptor_path(&place), "", MountFlags::BIND, None).at("bind", &source)?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, &devices, name).at("link, in the sandbox's /dev,", name)?;
    }
    for name in ["pts", "shm"] {
        rustix::fs::mkdirat(&devices, name, Mode::from_raw_mode(0o755))
            .at("create, in the sandbox's /dev,", name)?;
    }
    let options = c"mode=1777,size=25%";
    mount_tmpfs(&open_inside(root, "dev/shm")?, NO_DEVICES, options, "dev/shm")?;
    let terminals = open_inside(root, "dev/pts")?;
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount("devpts", descriptor_path(&terminals), "devpts", flags, options).at("mount", "dev/pts")
}

/// Opens a directory of the root as a mount point; a link in its place is refused.
fn open_inside(root: &OwnedFd, path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
        .at("mount over, inside the root,", path)
}

fn mount_tmpfs(
    target: &OwnedFd,
    flags: MountFlags,
    options: &std::ffi::CStr,
    place: &str,
) -> Result<(), Failure> {
    mount("tmpfs", descriptor_path(target), "tmpfs", flags, options).at("mount a tmpfs on", place)
}

/// Makes the current directory, a mount that a more privileged namespace made, the root, and takes
/// everything else out of sight.
pub(super) fn enter_root() -> Result<(), Failure> {
    let step = |what: &str, error: rustix::io::Errno| {
        Failure::host(format!("{what} is refused"), "", Some(error.into()))
    };
    // What came from the other namespace is locked in place; a copy of it is ours to move.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, ".", flags).map_err(|error| step("copying mounts", error))?;
    move_mount(&tree, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| step("moving a mount", error))?;
    rustix::process::fchdir(&tree).map_err(|error| step("entering the root", error))?;
    rustix::process::pivot_root(".", ".").map_err(|error| step("pivot_root", error))?;
    unmount(".", UnmountFlags::DETACH).map_err(|error| step("unmounting the host", error))?;
    rustix::process::chdir("/").map_err(|error| step("entering the root", error))
}

/// Mounts `/proc` of the process namespace that this process is init of. Called before the host's
/// own is out of sight: the kernel only allows a new one beside one that is fully visible.
pub(super) fn mount_proc() -> Result<(), Failure> {
    let flags = NO_DEVICES | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", flags, None).map_err(|error| {
        let mend = "in a container: run it with an unmasked /proc (docker: --security-opt \
                    systempaths=unconfined, podman: --security-opt unmask=ALL)";
        Failure::host("a private /proc is refused", mend, Some(error.into()))
    })
}

/// Covers what `/proc` tells about the host.
pub(super) fn cover_proc() -> Result<(), Failure> {
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at("open", "/dev/null")?;
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at("open", "/proc")?;
    let exists = |name: &str| rustix::fs::statat(&proc, name, AtFlags::empty()).is_ok();
    for name in COVERED_FILES.into_iter().filter(|name| exists(name)) {
        let path = format!("/proc/{name}");
        mount(descriptor_path(&null), &*path, "", MountFlags::BIND, None).at("cover", &path)?;
    }
    for name in COVERED_DIRECTORIES.into_iter().filter(|name| exists(name)) {
        let path = format!("/proc/{name}");
        let flags = NO_DEVICES | MountFlags::NOEXEC | MountFlags::RDONLY;
        mount("tmpfs", &*path, "tmpfs", flags, c"mode=0555,size=0").at("cover", &path)?;
    }
    for name in READ_ONLY.into_iter().filter(|name| exists(name)) {
        let path = format!("/proc/{name}");
        mount(&*path, &*path, "", MountFlags::BIND, None).at("bind", &path)?;
        let flags = NO_DEVICES | MountFlags::NOEXEC | MountFlags::RDONLY | MountFlags::BIND;
        mount_remount(&*path, flags, "").at("make read-only", &path)?;
    }
    Ok(())
}
