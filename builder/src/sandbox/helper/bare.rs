//! A root without mounts, for hosts that forbid namespaces: a copy of the trees, which commands are
//! sent into by chroot(2).
//!
//! What mounts would cover is set aside while the root is open and put back when it is closed, so the
//! copy differs from its trees by what commands did elsewhere, as an overlay's upper directory does.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, ResolveFlags};

use super::super::error::{At, Failure};
use super::super::messages::Opened;
use super::super::request::{Profile, RootRequest, Storage};
use super::directory;
use super::mounts::{DEVICE_LINKS, DEVICES, MOUNT_POINTS};
use super::overlay::{ensure_directory, fill_copy};
use super::remove::remove_contents;

/// Copies the trees of a request; the root, the upper directory, and how changes are kept.
pub(super) fn copy_root(request: &RootRequest) -> Result<(OwnedFd, OwnedFd, Opened), Failure> {
    let upper = ensure_directory(&request.upper)?;
    ensure_directory(&request.work)?;
    fill_copy(request, &upper)?;
    let root = upper.try_clone().at("open", &request.upper)?;
    let storage = Storage::Copy;
    let refusal = Some("there is no sandbox".to_owned());
    Ok((root, upper, Opened { storage, refusal, undisguised: None }))
}

/// Directories of a root that commands have an own, passing version of.
pub(super) struct Covered {
    root: OwnedFd,
    aside: OwnedFd,
    paths: Vec<String>,
}

impl Covered {
    /// Puts empty directories in the place of what the sandbox covers, and devices into `/dev`.
    pub(super) fn furnish(root: &OwnedFd, request: &RootRequest) -> Result<Self, Failure> {
        // A recipe's source stands below /build.
        let is_kept = |path: &str| path == "build" && request.profile == Profile::Recipe;
        let own = MOUNT_POINTS.iter().map(|path| (*path).to_owned());
        let asked = request.tmpfs.iter().map(|path| path.trim_matches('/').to_owned());
        let paths = own.filter(|path| !is_kept(path)).chain(asked).collect();
        let aside = ensure_directory(&request.work.join("aside"))?;
        let root = root.try_clone().at("open", &request.upper)?;
        let covered = Self { root, aside, paths };
        for (number, path) in covered.paths.iter().enumerate() {
            covered.cover(number, path)?;
        }
        furnish_devices(&covered.open("dev")?)?;
        Ok(covered)
    }

    /// The covered paths, relative to the root.
    pub(super) fn paths(&self) -> &[String] {
        &self.paths
    }

    fn cover(&self, number: usize, path: &str) -> Result<(), Failure> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::renameat(&parent, name, &self.aside, number.to_string())
            .at("set aside, inside the root,", path)?;
        let mode = Mode::from_raw_mode(if path == "tmp" { 0o1777 } else { 0o755 });
        rustix::fs::mkdirat(&parent, name, mode).at("create, inside the root,", path)
    }

    /// Removes what commands left in covered directories, and puts back what was there.
    pub(super) fn restore(&self) -> Result<(), Failure> {
        for (number, path) in self.paths.iter().enumerate().rev() {
            let (parent, name) = self.parent(path)?;
            remove_contents(&self.open(path)?, path)?;
            // An empty directory gives way.
            rustix::fs::renameat(&self.aside, number.to_string(), &parent, name)
                .at("put back, inside the root,", path)?;
        }
        Ok(())
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Failure> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        Ok((self.open(parent)?, name))
    }

    /// Opens a directory of the root; a link in its place is refused.
    fn open(&self, path: &str) -> Result<OwnedFd, Failure> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path, directory::DIRECTORY, Mode::empty(), resolve)
            .at("cover, inside the root,", path)
    }
}

/// The same devices that a sandbox binds from the host; no umask is in the way of their modes.
fn furnish_devices(devices: &OwnedFd) -> Result<(), Failure> {
    for name in DEVICES {
        let host = format!("/dev/{name}");
        let number = rustix::fs::stat(&*host).at("look at", &host)?.st_rdev;
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(devices, name, kind, mode, number).map_err(|error| {
            let mend = "let this container make devices (docker and podman: --cap-add MKNOD)";
            Failure::host(format!("making {host} is refused"), mend, Some(error.into()))
        })?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, devices, name).at("link, in the root's /dev,", name)?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        rustix::fs::mkdirat(devices, name, Mode::from_raw_mode(mode))
            .at("create, in the root's /dev,", name)?;
    }
    Ok(())
}

/// Makes the current directory the root of this process.
pub(super) fn enter_root() -> Result<(), Failure> {
    rustix::process::chroot(".").map_err(|error| {
        let mend = "give this process CAP_SYS_CHROOT (docker and podman: --cap-add SYS_CHROOT)";
        Failure::host("chroot is refused", mend, Some(error.into()))
    })?;
    rustix::process::chdir("/").at("enter", "/")
}
