//! What a tree keeps of a file besides its content.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use drystone_store::tar::keeps_xattr;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::super::identity::ID_COUNT;
use super::descriptor_path;

/// Mode, owner and kept xattrs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

impl Metadata {
    /// Reads what belongs to the entry `path` below `root`, whose `stat` is known.
    pub(super) fn read(root: &OwnedFd, path: &str, stat: &Stat) -> Result<Self, Failure> {
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        if uid >= ID_COUNT || gid >= ID_COUNT {
            return Err(Failure::tree(path, "it belongs to the user who runs the sandbox"));
        }
        let symlink = file_type(stat) == FileType::Symlink;
        let mode = if symlink { 0o777 } else { stat.st_mode & 0o7777 };
        // Links can carry none of the attributes that trees keep.
        let xattrs = if symlink { BTreeMap::new() } else { read_xattrs(root, path)? };
        Ok(Self { mode, uid, gid, xattrs })
    }
}

/// The type of a file.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is an overlay's mark for a deleted path: a character device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn read_xattrs(root: &OwnedFd, path: &str) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let place = below(root, path);
    let names = match read_whole(|buffer| rustix::fs::llistxattr(&place, buffer)) {
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        other => other.at("list the attributes of", path)?,
    };
    let mut xattrs = BTreeMap::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if !keeps_xattr(name) {
            continue;
        }
        let value = read_whole(|buffer| rustix::fs::lgetxattr(&place, name, buffer))
            .at(&format!("read {name} of"), path)?;
        let value = if name == "security.capability" { capability(&value) } else { value };
        xattrs.insert(name.to_owned(), value);
    }
    Ok(xattrs)
}

/// Whether a file has the attribute `name`, and with which value.
pub(super) fn xattr(root: &OwnedFd, path: &str, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let place = below(root, path);
    match read_whole(|buffer| rustix::fs::lgetxattr(&place, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error).at(&format!("read {name} of"), path),
    }
}

/// Attribute calls know no directory descriptors; the kernel's name for one serves.
fn below(root: &impl AsRawFd, path: &str) -> String {
    format!("{}/{}", descriptor_path(root), super::directory::relative(path))
}

fn read_whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for values and lists.
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer = vec![0; 65536],
            Err(error) => return Err(error),
        }
    }
}

/// Rewrites a file capability to version 2, the form without a root id: a user namespace makes
/// version 3 (`struct vfs_ns_cap_data` in linux/capability.h).
fn capability(value: &[u8]) -> Vec<u8> {
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    const REVISION_MASK: u32 = 0xff00_0000;
    match value.first_chunk::<4>().map(|head| u32::from_le_bytes(*head)) {
        Some(magic) if magic & REVISION_MASK == REVISION_3 && value.len() == 24 => {
            let head = (magic & !REVISION_MASK) | REVISION_2;
            [&head.to_le_bytes(), &value[4..20]].concat()
        }
        _ => value.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_their_root_id() {
        let mut three = vec![1, 0, 0, 3];
        three.extend([9; 16]);
        three.extend([0, 0, 0, 0x70]);
        let mut two = vec![1, 0, 0, 2];
        two.extend([9; 16]);
        assert_eq!(capability(&three), two);
        assert_eq!(capability(&two), two);
    }
}
