//! base-files without its script: what its postinst does at a first installation, as a tree.
//!
//! base-files is in every image, and its postinst only makes directories, links and copies. Doing
//! the same here means that an image whose other packages have no scripts needs no sandbox, and
//! can be built for a foreign architecture. Only scripts that were read are imitated: any other
//! version of the script is run as usual. `tests/cases.rs` compares both ways.

use std::collections::BTreeMap;

use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::{Entry, Kind, TreePath};

use super::{ConfigureError, Package};

/// The postinst of bookworm.
const BOOKWORM: &str = "9d835f80f3815b5e5f49034027e9126e40d74c725e11cd37d4ae95dc490d209f";
/// The postinst of trixie.
const TRIXIE: &str = "c3afcbe1aa12e56b62955e75bbf432f21446c4901e66f19468f68351791b08be";

/// Groups of base-passwd's table.
const MAIL: u32 = 8;
const UTMP: u32 = 43;

/// Files that are copied from `/usr/share/base-files`.
const COPIES: [(&str, &str); 5] = [
    ("dot.bashrc", "root/.bashrc"),
    ("dot.profile", "root/.profile"),
    ("info.dir", "usr/share/info/dir"),
    ("motd", "etc/motd"),
    ("profile", "etc/profile"),
];

/// Directories: path, mode, group.
const DIRECTORIES: [(&str, u32, u32); 19] = [
    ("etc/opt", 0o755, 0),
    ("media", 0o755, 0),
    ("mnt", 0o755, 0),
    ("opt", 0o755, 0),
    ("run/lock", 0o1777, 0),
    ("srv", 0o755, 0),
    ("usr/local", 0o755, 0),
    ("usr/local/bin", 0o755, 0),
    ("usr/local/etc", 0o755, 0),
    ("usr/local/games", 0o755, 0),
    ("usr/local/include", 0o755, 0),
    ("usr/local/lib", 0o755, 0),
    ("usr/local/sbin", 0o755, 0),
    ("usr/local/share", 0o755, 0),
    ("usr/local/share/man", 0o755, 0),
    ("usr/local/src", 0o755, 0),
    ("var/mail", 0o2775, MAIL),
    ("var/opt", 0o755, 0),
    // Only trixie; see `make`.
    ("usr/local/libexec", 0o755, 0),
];

/// Symbolic links: path and target.
const LINKS: [(&str, &str); 5] = [
    ("etc/dpkg/origins/default", "debian"),
    ("usr/local/man", "share/man"),
    ("var/lock", "/run/lock"),
    ("var/run", "/run"),
    ("var/spool/mail", "../mail"),
];

/// Empty files: path, mode, group.
const EMPTY: [(&str, u32, u32); 3] = [
    ("var/log/btmp", 0o660, UTMP),
    ("var/log/lastlog", 0o664, UTMP),
    ("var/log/wtmp", 0o664, UTMP),
];

fn script(package: &Package) -> Option<String> {
    let (_, bytes) = package.control_files.get("postinst")?;
    Some(BlobDigest::of(bytes).to_hex())
}

/// Whether a package is a base-files whose script is imitated here.
pub fn is_known(package: &Package) -> bool {
    package.name == "base-files"
        && script(package).is_some_and(|digest| digest == BOOKWORM || digest == TRIXIE)
}

/// What the script would make, as a tree over the package's own.
pub fn make(store: &Store, package: &Package, listing: &Listing) -> Result<Output, ConfigureError> {
    let is_trixie = script(package).as_deref() == Some(TRIXIE);
    let path = |text: &str| TreePath::new(text).expect("the path is valid");
    let mut spool = store.spool();
    let mut sources: BTreeMap<String, &str> = COPIES
        .iter()
        .map(|(name, target)| (format!("usr/share/base-files/{name}"), *target))
        .collect();
    store.read_tree(&package.data, |entry, content| {
        if let Some(target) = sources.remove(entry.path.as_str())
            && listing.find(&path(target)).is_none()
        {
            spool.add(Entry { path: path(target), ..entry.clone() }, content)?;
        }
        Ok::<(), ConfigureError>(())
    })?;
    for (name, mode, gid) in DIRECTORIES {
        let is_there = listing.find(&path(name)).is_some();
        if is_there || (name == "usr/local/libexec" && !is_trixie) {
            continue;
        }
        spool.add_empty(Entry { mode, gid, ..Entry::directory(path(name)) })?;
    }
    for (name, target) in LINKS {
        spool.add_empty(Entry::symlink(path(name), target))?;
    }
    for (name, mode, gid) in EMPTY {
        spool.add_empty(Entry { gid, ..Entry::file(path(name), mode, 0) })?;
    }
    let parents: Vec<TreePath> = spool.entries().filter_map(|entry| entry.path.parent()).collect();
    for parent in parents {
        let mut next = Some(parent);
        while let Some(directory) = next {
            next = directory.parent();
            if let Some(item) = listing.find(&directory)
                && item.entry.kind == Kind::Directory
            {
                spool.add_empty(item.entry.clone())?;
            }
        }
    }
    Ok(store.add_tree("base-files-configured", Compression::Store1, &mut spool)?)
}
