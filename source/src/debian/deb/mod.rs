//! Importing a `.deb`: an `ar` archive (deb(5)) -> a data tree and a control tree.
//!
//! The archive streams: `ar` member -> decompression -> tar -> [`TreeSpool`] -> canonical tar. It
//! is never unpacked to disk. Paths are mapped to merged `/usr` on the way.

mod ar;
mod members;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use data_encoding::HEXLOWER;
use drystone_store::derivation::Derivation;
use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, PathError, SpoolError, TreePath, TreeSpool};

pub use ar::ArError;
use ar::ArReader;
use md5::Digest;

/// Version of the `deb` builder: rises whenever its output can change.
const VERSION: u32 = 1;
/// Bytes that a package may unpack to whatever its archive's size.
const FREE_CONTENT: u64 = 4 << 30;
/// Beyond [`FREE_CONTENT`], how many times larger than its archive a package may be: more is a
/// decompression bomb.
const MAX_RATIO: u64 = 200;

const CONTROL: &str = "control.tar";
const DATA: &str = "data.tar";
/// The control tree's file list, as dpkg keeps it in `info/PACKAGE.list`: the archive's own paths
/// in the archive's own order.
pub const LIST: &str = "list";
/// The control tree's digests of configuration files: `PATH MD5` lines, as dpkg's status has them.
pub const CONFFILE_DIGESTS: &str = "conffiles.md5";

/// Top-level directories that merged `/usr` moves below `/usr`
/// (Debian's usrmerge, `/usr/share/doc/usrmerge`).
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Why a `.deb` cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The outer archive is malformed.
    #[error(transparent)]
    Ar(#[from] ArError),
    /// The archive's format is none that dpkg 1.x writes.
    #[error("debian-binary says {0:?}, expected version 2.x")]
    Version(String),
    /// A member is missing.
    #[error("it has no {0} member")]
    NoMember(&'static str),
    /// A member is compressed in an unknown way.
    #[error("its member {0:?} is compressed in a way that this version cannot read")]
    Compression(String),
    /// A member's tar stream is damaged.
    #[error("its {member} is damaged")]
    Tar {
        /// The member.
        member: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A path leaves the tree or is malformed.
    #[error("its {member} holds a bad path")]
    Path {
        /// The member.
        member: &'static str,
        /// The cause.
        source: PathError,
    },
    /// An entry that a tree cannot hold.
    #[error("its {member} holds {path}, which is {what}")]
    Entry {
        /// The member.
        member: &'static str,
        /// The entry's path.
        path: String,
        /// What it is.
        what: String,
    },
    /// It unpacks to more than any honest package.
    #[error("it unpacks to more than {limit} bytes from an archive of {size}")]
    Bomb {
        /// The limit in bytes.
        limit: u64,
        /// The archive's size in bytes.
        size: u64,
    },
    /// The entries make no tree.
    #[error("its {member} makes no tree")]
    Tree {
        /// The member.
        member: &'static str,
        /// The cause.
        source: SpoolError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A package as two trees.
#[derive(Debug, Clone)]
pub struct ImportedDeb {
    /// What the package installs: the layer.
    pub data: Output,
    /// The control archive (`control`, maintainer scripts, `md5sums`, ...): never in an image.
    pub control: Output,
}

/// The derivation of an import: the archive's digest is all that matters.
pub fn derivation(archive: &BlobDigest) -> Derivation {
    let mut derivation = Derivation::new("deb", VERSION).with_arg("sha256", archive.to_hex());
    derivation.outputs = vec!["data".to_owned(), "control".to_owned()];
    derivation
}

/// The import of an archive, if this store has it.
pub fn imported(store: &Store, archive: &BlobDigest) -> Result<Option<ImportedDeb>, StoreError> {
    let Some(mut realisation) = store.realisation(&derivation(archive).id())? else {
        return Ok(None);
    };
    let (data, control) =
        (realisation.outputs.remove("data"), realisation.outputs.remove("control"));
    Ok(data.zip(control).map(|(data, control)| ImportedDeb { data, control }))
}

/// Imports an archive whose digest was checked, and records the realisation.
///
/// `name` (package and version) is for people; `size` is the archive's size in bytes.
pub fn import(
    store: &Store,
    archive: &BlobDigest,
    name: &str,
    size: u64,
    reader: impl Read,
    compression: Compression,
) -> Result<ImportedDeb, DebError> {
    let mut ar = ArReader::new(BufReader::with_capacity(1 << 18, reader))?;
    check_version(&mut ar)?;
    let limit = FREE_CONTENT.max(size.saturating_mul(MAX_RATIO));
    let budget = Budget { limit, size };
    let mut control = None;
    let mut data = None;
    while let Some(member) = ar.next_member()? {
        // deb(5) fixes the order: control before data. Members that it does not name are ignored.
        if member.starts_with(CONTROL) && control.is_none() {
            let stream = members::decompress(&member, CONTROL, ar.content())?;
            control = Some(ControlArchive::read(store, stream, budget)?);
        } else if member.starts_with(DATA) && data.is_none() {
            let control = control.as_mut().ok_or(DebError::NoMember(CONTROL))?;
            let stream = members::decompress(&member, DATA, ar.content())?;
            let mut spool = read_data(store, stream, control, budget)?;
            data = Some(add_tree(store, DATA, name, compression, &mut spool)?);
        }
    }
    let mut control = control.ok_or(DebError::NoMember(CONTROL))?;
    let data = data.ok_or(DebError::NoMember(DATA))?;
    control.add_derived()?;
    let label = format!("{name}-control");
    let control = add_tree(store, CONTROL, &label, compression, &mut control.spool)?;
    let outputs = [("data".to_owned(), data.clone()), ("control".to_owned(), control.clone())];
    store.put_realisation(&derivation(archive), outputs)?;
    Ok(ImportedDeb { data, control })
}

fn add_tree(
    store: &Store,
    member: &'static str,
    name: &str,
    compression: Compression,
    spool: &mut TreeSpool,
) -> Result<Output, DebError> {
    store.add_tree(name, compression, spool).map_err(|error| match error {
        StoreError::Spool(source) => DebError::Tree { member, source },
        other => DebError::Store(other),
    })
}

/// The control archive while the data goes by: dpkg learns two more facts from the data, and keeps
/// them beside the control files, so the control tree does too.
struct ControlArchive {
    spool: TreeSpool,
    conffiles: BTreeMap<String, Option<String>>,
    list: String,
}

impl ControlArchive {
    fn read(store: &Store, stream: impl Read, budget: Budget) -> Result<Self, DebError> {
        let mut spool = store.spool();
        let mut conffiles = BTreeMap::new();
        read_tar(CONTROL, stream, false, budget, |_, entry, content| {
            if let LIST | CONFFILE_DIGESTS = entry.path.as_str() {
                let path = entry.path.to_string();
                let what = "a name that is kept for what the import finds out".to_owned();
                return Err(DebError::Entry { member: CONTROL, path, what });
            }
            if entry.path.as_str() != "conffiles" {
                return add(CONTROL, &mut spool, entry, content);
            }
            let mut text = Vec::new();
            content
                .read_to_end(&mut text)
                .map_err(|source| DebError::Tar { member: CONTROL, source })?;
            for line in String::from_utf8_lossy(&text).lines() {
                if let Some(path) = line.split_whitespace().last() {
                    conffiles.insert(path.to_owned(), None);
                }
            }
            add(CONTROL, &mut spool, entry, &mut text.as_slice())
        })?;
        Ok(Self { spool, conffiles, list: String::new() })
    }

    /// Adds dpkg's file list, and the digests of configuration files that its status names.
    fn add_derived(&mut self) -> Result<(), DebError> {
        let digests: String = self
            .conffiles
            .iter()
            .filter_map(|(path, digest)| Some(format!("{path} {}\n", digest.as_ref()?)))
            .collect();
        for (name, text) in [(LIST, &self.list), (CONFFILE_DIGESTS, &digests)] {
            let path = TreePath::new(name).expect("the name is a valid path");
            self.spool
                .add_file(path, 0o644, text.as_bytes())
                .map_err(|source| DebError::Tree { member: CONTROL, source })?;
        }
        Ok(())
    }
}

fn read_data(
    store: &Store,
    stream: impl Read,
    control: &mut ControlArchive,
    budget: Budget,
) -> Result<TreeSpool, DebError> {
    let mut spool = store.spool();
    // dpkg names the root first, whether or not the archive has it.
    control.list.push_str("/.\n");
    read_tar(DATA, stream, true, budget, |raw, entry, content| {
        let name = format!("/{raw}");
        control.list.push_str(&name);
        control.list.push('\n');
        match control.conffiles.get_mut(&name) {
            Some(digest) if matches!(entry.kind, Kind::File { .. }) => {
                let mut hashing = Md5Reader::new(content);
                add(DATA, &mut spool, entry, &mut hashing)?;
                *digest = Some(hashing.finish());
                Ok(())
            }
            _ => add(DATA, &mut spool, entry, content),
        }
    })?;
    Ok(spool)
}

fn add(
    member: &'static str,
    spool: &mut TreeSpool,
    entry: Entry,
    content: &mut dyn Read,
) -> Result<(), DebError> {
    spool.add(entry, content).map_err(|source| match source {
        SpoolError::Io { source, .. } => DebError::Tar { member, source },
        source => DebError::Tree { member, source },
    })
}

/// Hashes what is read through it, as dpkg does for its lists.
pub struct Md5Reader<'a> {
    inner: &'a mut dyn Read,
    hasher: md5::Md5,
}

impl<'a> Md5Reader<'a> {
    /// Reads through `inner`, from where it stands.
    pub fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, hasher: md5::Md5::new() }
    }

    /// The hash of what was read, in hexadecimal.
    pub fn finish(self) -> String {
        HEXLOWER.encode(&self.hasher.finalize())
    }
}

impl Read for Md5Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn check_version(ar: &mut ArReader<impl Read>) -> Result<(), DebError> {
    if ar.next_member()?.as_deref() != Some("debian-binary") {
        return Err(DebError::NoMember("debian-binary"));
    }
    let mut text = String::new();
    ar.content()
        .take(100)
        .read_to_string(&mut text)
        .map_err(|source| DebError::Tar { member: "debian-binary", source })?;
    match text.starts_with("2.") {
        true => Ok(()),
        false => Err(DebError::Version(text.trim().to_owned())),
    }
}

#[derive(Clone, Copy)]
struct Budget {
    limit: u64,
    size: u64,
}

/// Reads a tar of any dialect; `visit` gets each entry's path as the archive has it (without the
/// leading `./`), the entry and its content.
fn read_tar(
    member: &'static str,
    stream: impl Read,
    merge: bool,
    budget: Budget,
    mut visit: impl FnMut(&str, Entry, &mut dyn Read) -> Result<(), DebError>,
) -> Result<(), DebError> {
    let damaged = |source| DebError::Tar { member, source };
    let mut archive = tar::Archive::new(stream);
    let mut total = 0u64;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        total = total.saturating_add(entry.size());
        if total > budget.limit {
            return Err(DebError::Bomb { limit: budget.limit, size: budget.size });
        }
        let Some((raw, converted)) = convert(member, &entry, merge)? else { continue };
        visit(&raw, converted, &mut entry)?;
    }
    Ok(())
}

/// A tar entry as its plain path and an entry of a tree; `None` for the root.
fn convert<R: Read>(
    member: &'static str,
    entry: &tar::Entry<'_, R>,
    merge: bool,
) -> Result<Option<(String, Entry)>, DebError> {
    let bad_path = |source| DebError::Path { member, source };
    let raw = entry.path_bytes();
    let text = std::str::from_utf8(&raw)
        .map_err(|_| bad_path(PathError::NotUtf8(String::from_utf8_lossy(&raw).into_owned())))?;
    let Some(path) = TreePath::from_rooted(text).map_err(bad_path)? else { return Ok(None) };
    let header = entry.header();
    let damaged = |source| DebError::Tar { member, source };
    let link = || -> Result<String, DebError> {
        let link = entry.link_name_bytes().unwrap_or_default();
        String::from_utf8(link.into_owned()).map_err(|error| {
            bad_path(PathError::NotUtf8(String::from_utf8_lossy(error.as_bytes()).into_owned()))
        })
    };
    let map = |path: TreePath, is_link: bool| if merge { merge_usr(path, is_link) } else { path };
    let refuse =
        |what: &str| Err(DebError::Entry { member, path: path.to_string(), what: what.to_owned() });
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File { size: entry.size() },
        tar::EntryType::Symlink => Kind::Symlink { target: link()? },
        tar::EntryType::Link => {
            let target = TreePath::from_rooted(&link()?).map_err(bad_path)?;
            let Some(target) = target else { return refuse("a hard link to the root") };
            Kind::HardLink { target: map(target, false) }
        }
        tar::EntryType::Char | tar::EntryType::Block => return refuse("a device node"),
        tar::EntryType::Fifo => return refuse("a FIFO"),
        other => return refuse(&format!("of the unknown type {other:?}")),
    };
    let id = |value: u64, what: &str| {
        u32::try_from(value).map_err(|_| DebError::Entry {
            member,
            path: path.to_string(),
            what: format!("owned by {what} {value}, which is no id"),
        })
    };
    let is_symlink = matches!(kind, Kind::Symlink { .. });
    let mode = if is_symlink { 0o777 } else { header.mode().map_err(damaged)? & 0o7777 };
    let entry = Entry {
        mode,
        uid: id(header.uid().map_err(damaged)?, "user")?,
        gid: id(header.gid().map_err(damaged)?, "group")?,
        xattrs: BTreeMap::new(),
        path: map(path.clone(), is_symlink),
        kind,
    };
    Ok(Some((path.to_string(), entry)))
}

/// Maps a path to merged `/usr`: `bin/x` is `usr/bin/x`. A symbolic link at `bin` itself is the
/// merge, as trixie's base-files ships it, and stays.
pub fn merge_usr(path: TreePath, is_symlink: bool) -> TreePath {
    let first = path.components().next().unwrap_or_default();
    if !MERGED.contains(&first) || (is_symlink && path.as_str() == first) {
        return path;
    }
    TreePath::new(format!("usr/{path}")).unwrap_or(path)
}

#[cfg(test)]
mod tests;
