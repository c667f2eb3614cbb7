//! Stacking lower trees and an upper directory into one root.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};

use super::super::error::{At, Failure};
use super::super::messages::Opened;
use super::super::request::{RootRequest, Storage};
use super::copy::{copy_lowers, is_empty, keeps_user_xattrs};
use super::directory::open_absolute;
use super::lowers::Lowers;
use super::mounts::MOUNT_POINTS;
use super::{caller, descriptor_path, remove};

/// The directories below a request's work directory.
struct Work {
    /// The overlay's own work directory.
    overlay: OwnedFd,
    /// Where the root is mounted.
    root: OwnedFd,
    /// The lowest layer: mount points that the trees may lack.
    skeleton: OwnedFd,
}

/// Mounts the root of a request; returns the root, the upper directory, and how changes are kept.
pub(super) fn mount_root(request: &RootRequest) -> Result<(OwnedFd, OwnedFd, Opened), Failure> {
    let upper = ensure_directory(&request.upper)?;
    let work = prepare_work(request)?;
    let mut refusal = None;
    if request.storage != Some(Storage::Copy) {
        match mount_overlay(request, &upper, &work) {
            Ok(()) => {
                let opened = Opened { storage: Storage::Overlay, refusal: None, undisguised: None };
                return Ok((open_mounted(request)?, upper, opened));
            }
            Err(Refused::Trees(failure)) => return Err(failure),
            Err(Refused::Overlay(problem)) if request.storage == Some(Storage::Overlay) => {
                let mend = "put the store on a file system that overlays accept (ext4, xfs, \
                            btrfs; not another overlay, as a container's own root is)";
                return Err(Failure::host(format!("no overlay: {problem}"), mend, None));
            }
            Err(Refused::Overlay(problem)) => refusal = Some(problem),
        }
    }
    fill_copy(request, &upper)?;
    let place = descriptor_path(&work.root);
    mount(descriptor_path(&upper), place, "", MountFlags::BIND, None).at("mount", &request.work)?;
    Ok((
        open_mounted(request)?,
        upper,
        Opened { storage: Storage::Copy, refusal, undisguised: None },
    ))
}

/// Fills an upper directory that is a plain copy, with mount points. Re-opened after earlier commands,
/// the copy is already there.
pub(super) fn fill_copy(request: &RootRequest, upper: &OwnedFd) -> Result<(), Failure> {
    if is_empty(upper)? {
        copy_lowers(&Lowers::open(&request.lower)?, upper)?;
    }
    make_mount_points(upper)
}

/// Opens what is mounted, which the descriptor of the mount point does not show.
fn open_mounted(request: &RootRequest) -> Result<OwnedFd, Failure> {
    open_absolute(&request.work.join("root"))
}

/// Makes a directory of root's with mode 0755, if there is none.
pub(super) fn ensure_directory(path: &Path) -> Result<OwnedFd, Failure> {
    let mode = Mode::from_raw_mode(0o755);
    match caller::at_parent(path, |parent, name| rustix::fs::mkdirat(parent, name, mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).at("create", path),
    }
    let directory = open_absolute(path)?;
    rustix::fs::fchown(&directory, Some(Uid::ROOT), Some(Gid::ROOT)).at("own", path)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755)).at("set the mode of", path)?;
    Ok(directory)
}

fn prepare_work(request: &RootRequest) -> Result<Work, Failure> {
    ensure_directory(&request.work)?;
    // A work directory that was used for a volatile mount is refused until it is made anew.
    remove::remove(&request.work.join("overlay"))?;
    let skeleton = ensure_directory(&request.work.join("skeleton"))?;
    make_mount_points(&skeleton)?;
    let root = ensure_directory(&request.work.join("root"))?;
    Ok(Work { overlay: ensure_directory(&request.work.join("overlay"))?, root, skeleton })
}

fn make_mount_points(base: &OwnedFd) -> Result<(), Failure> {
    for path in MOUNT_POINTS {
        match rustix::fs::mkdirat(base, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at("create", path),
        }
    }
    Ok(())
}

/// Why there is no overlay.
enum Refused {
    /// A tree is missing or unreadable: a copy would not help.
    Trees(Failure),
    /// The kernel does not want it.
    Overlay(String),
}

fn mount_overlay(request: &RootRequest, upper: &OwnedFd, work: &Work) -> Result<(), Refused> {
    if !keeps_user_xattrs(upper) {
        return Err(Refused::Overlay("the upper directory keeps no user attributes".to_owned()));
    }
    // Through descriptors no path is too long, or hidden by a parent directory's mode.
    let open = |path: &std::path::PathBuf| open_absolute(path);
    let mut layers: Vec<OwnedFd> =
        request.lower.iter().map(open).collect::<Result<_, _>>().map_err(Refused::Trees)?;
    layers.push(
        work.skeleton
            .try_clone()
            .map_err(|error| Refused::Trees(Failure::io("open", &request.work, &error)))?,
    );
    let layers = Layers { lower: &layers, upper, work: &work.overlay };
    match layers.mount_by_calls(&work.root) {
        // `lowerdir+` came with Linux 6.7.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NODEV) => layers.mount_by_options(&work.root),
        other => other,
    }
    .map_err(|error| Refused::Overlay(error.to_string()))
}

struct Layers<'a> {
    lower: &'a [OwnedFd],
    upper: &'a OwnedFd,
    work: &'a OwnedFd,
}

/// Options besides the layers. `redirect_dir`, `index` and `metacopy` depend on how the kernel was
/// built unless they are given; `userxattr` allows no other values.
const OPTIONS: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off")];

impl Layers<'_> {
    fn mount_by_calls(&self, target: &OwnedFd) -> Result<(), Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        fsconfig_set_string(context, "source", "drystone")?;
        for layer in self.lower {
            fsconfig_set_string(context, "lowerdir+", descriptor_path(layer))?;
        }
        fsconfig_set_string(context, "upperdir", descriptor_path(self.upper))?;
        fsconfig_set_string(context, "workdir", descriptor_path(self.work))?;
        fsconfig_set_flag(context, "userxattr")?;
        fsconfig_set_flag(context, "volatile")?;
        for (name, value) in OPTIONS {
            fsconfig_set_string(context, name, value)?;
        }
        fsconfig_create(context)?;
        let mounted =
            fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mounted, "", target, "", flags)
    }

    /// For older kernels: `mount` takes 4 KiB of options, so layers are given as numbers, relative
    /// to the directory of this process's descriptors.
    fn mount_by_options(&self, target: &OwnedFd) -> Result<(), Errno> {
        let mut options = String::from("userxattr,volatile");
        for (name, value) in OPTIONS {
            let _ = write!(options, ",{name}={value}");
        }
        let numbers: Vec<String> =
            self.lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let (upper, work) = (self.upper.as_raw_fd(), self.work.as_raw_fd());
        let _ = write!(options, ",lowerdir={}", numbers.join(":"));
        let _ = write!(options, ",upperdir={upper},workdir={work}");
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::process::chdir("/proc/self/fd")?;
        let mounted = mount(
            "drystone",
            descriptor_path(target),
            "overlay",
            MountFlags::NODEV,
            options.as_c_str(),
        );
        rustix::process::chdir("/")?;
        mounted
    }
}
