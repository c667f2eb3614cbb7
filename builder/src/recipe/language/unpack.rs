//! Archives of dependencies, unpacked by own code: nothing that they say is taken on trust.
//!
//! An archive holds files, directories and links below one folder, whose name does not matter. All
//! else is refused: paths that leave it, links that lead out of it, devices, more than is bearable.

use std::collections::BTreeSet;
use std::io::{self, Read};

use drystone_store::tree::{
    DELETION_PREFIX, Entry, Kind, PathError, SpoolError, TreePath, TreeSpool,
};
use flate2::read::MultiGzDecoder;

use drystone_source::debian::xz::xz;

/// The largest content of one archive, in bytes.
const MOST_BYTES: u64 = 4 << 30;
/// The most entries of all archives of one build.
const MOST_ENTRIES: u64 = 4_000_000;

/// A kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// tar, compressed with gzip.
    TarGzip,
}

impl Format {
    /// The name in identities.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TarGzip => "tar.gz",
        }
    }
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is damaged, or no archive of this kind.
    #[error("the archive cannot be read")]
    Read(#[from] io::Error),
    /// A path leads out of the archive's folder, or is no path.
    #[error("it holds the path {path:?}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it, where that is more than meets the eye.
        source: Option<PathError>,
    },
    /// A link leads out of the archive's folder.
    #[error("its link {path} leads to {target:?}, out of the archive")]
    Link {
        /// The link.
        path: TreePath,
        /// Its target.
        target: String,
    },
    /// It holds a device, a FIFO or something else that no source needs.
    #[error("{path} is neither file, directory nor link")]
    Special {
        /// The path.
        path: String,
    },
    /// It is larger than any source is.
    #[error("it unpacks to more than {limit} {unit}")]
    TooMuch {
        /// The limit.
        limit: u64,
        /// `bytes` or `entries`.
        unit: &'static str,
    },
    /// The entries make no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
}

/// Where an archive's contents go.
pub(super) struct Unpacking<'a> {
    pub directory: &'a TreePath,
    pub executable: &'a BTreeSet<String>,
    /// Whether paths begin with a folder that does not matter.
    pub strips_top: bool,
}

/// Unpacks an archive into a directory of a tree. `entries` counts over several archives.
pub(super) fn unpack(
    archive: &mut dyn Read,
    format: Format,
    target: &Unpacking<'_>,
    spool: &mut TreeSpool,
    entries: &mut u64,
) -> Result<(), UnpackError> {
    let Format::TarGzip = format;
    unpack_tar(&mut MultiGzDecoder::new(archive), target, spool, entries)
}

/// Unpacks a tar, compressed or not, into a directory of a tree: with a single folder at its top it
/// is what that folder holds. `open` opens it, twice.
pub fn unpack_source<R: Read + 'static>(
    open: &dyn Fn() -> io::Result<R>,
    directory: &TreePath,
    spool: &mut TreeSpool,
) -> Result<(), UnpackError> {
    let strips_top = has_one_top(&mut decompressed(open()?)?)?;
    let target = Unpacking { directory, executable: &BTreeSet::new(), strips_top };
    unpack_tar(&mut decompressed(open()?)?, &target, spool, &mut 0)
}

/// The tar in an archive; how it is compressed is told by its first bytes.
fn decompressed<R: Read + 'static>(mut archive: R) -> io::Result<Box<dyn Read>> {
    let mut begin = Vec::new();
    archive.by_ref().take(6).read_to_end(&mut begin)?;
    let kind: [u8; 6] = begin.as_slice().try_into().unwrap_or_default();
    let packed = io::Cursor::new(begin).chain(archive);
    Ok(match kind {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(xz(packed)?),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(packed)?),
        _ => Box::new(packed),
    })
}

/// Whether all that an archive holds is below one folder.
fn has_one_top(archive: &mut dyn Read) -> Result<bool, UnpackError> {
    let mut archive = tar::Archive::new(Limited { inner: archive, left: MOST_BYTES });
    let mut tops = BTreeSet::new();
    for (number, entry) in (0_u64..).zip(archive.entries()?) {
        let entry = entry.map_err(too_much)?;
        if number >= MOST_ENTRIES {
            return Err(UnpackError::TooMuch { limit: MOST_ENTRIES, unit: "entries" });
        }
        let kind = entry.header().entry_type();
        let path = text(entry.path_bytes().into_owned())?;
        if kind.is_pax_global_extensions() {
            continue;
        }
        let Some(path) = inside(&path, false)? else { continue };
        match path.split_once('/') {
            Some((top, _)) => drop(tops.insert(top.to_owned())),
            None if kind.is_dir() => drop(tops.insert(path)),
            None => return Ok(false),
        }
    }
    Ok(tops.len() == 1)
}

fn unpack_tar(
    archive: &mut dyn Read,
    target: &Unpacking<'_>,
    spool: &mut TreeSpool,
    entries: &mut u64,
) -> Result<(), UnpackError> {
    let limited = Limited { inner: archive, left: MOST_BYTES };
    let mut archive = tar::Archive::new(limited);
    for entry in archive.entries()? {
        let mut entry = entry.map_err(too_much)?;
        *entries += 1;
        if *entries > MOST_ENTRIES {
            return Err(UnpackError::TooMuch { limit: MOST_ENTRIES, unit: "entries" });
        }
        take(&mut entry, target, spool)?;
    }
    Ok(())
}

fn take<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    target: &Unpacking<'_>,
    spool: &mut TreeSpool,
) -> Result<(), UnpackError> {
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    let written = text(entry.path_bytes().into_owned())?;
    let Some(inner) = inside(&written, target.strips_top)? else { return Ok(()) };
    let path = place(target, &inner, &written)?;
    if kind.is_dir() {
        spool.add_empty(Entry::directory(path))?;
    } else if kind.is_file() {
        let mode = entry.header().mode().unwrap_or(0o644);
        let is_executable = mode & 0o111 != 0 || target.executable.contains(&inner);
        let mode = if is_executable { 0o755 } else { 0o644 };
        let (size, file) = (entry.size(), path);
        // An archive may hold a path twice; the later one counts, as for tar.
        spool.replace(Entry::file(file, mode, size), entry).map_err(spool_error)?;
    } else if kind.is_symlink() {
        let link = text(entry.link_name_bytes().unwrap_or_default().into_owned())?;
        if !stays_inside(&inner, &link) {
            return Err(UnpackError::Link { path, target: link });
        }
        spool.replace(Entry::symlink(path, link), &mut io::empty())?;
    } else if kind.is_hard_link() {
        let link = text(entry.link_name_bytes().unwrap_or_default().into_owned())?;
        let first = inside(&link, target.strips_top)?
            .ok_or_else(|| UnpackError::Path { path: link.clone(), source: None })?;
        let first = place(target, &first, &link)?;
        let mode = spool.entry(&first).map_or(0o644, |entry| entry.mode);
        let kind = Kind::HardLink { target: first };
        let link = Entry { kind, ..Entry::file(path, mode, 0) };
        spool.replace(link, &mut io::empty())?;
    } else {
        return Err(UnpackError::Special { path: written });
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> Result<String, UnpackError> {
    String::from_utf8(bytes).map_err(|error| UnpackError::Path {
        path: String::from_utf8_lossy(error.as_bytes()).into_owned(),
        source: None,
    })
}

/// A path of the archive, without its first part if that is stripped; `None` for the folder itself.
fn inside(path: &str, strips_top: bool) -> Result<Option<String>, UnpackError> {
    let refused = || UnpackError::Path { path: path.to_owned(), source: None };
    if path.starts_with('/') {
        return Err(refused());
    }
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    let mut inner = Vec::new();
    if strips_top && parts.next() == Some("..") {
        return Err(refused());
    }
    for part in parts.by_ref() {
        if part == ".." || part.starts_with(DELETION_PREFIX) {
            return Err(refused());
        }
        inner.push(part);
    }
    Ok((!inner.is_empty()).then(|| inner.join("/")))
}

fn place(target: &Unpacking<'_>, inner: &str, written: &str) -> Result<TreePath, UnpackError> {
    TreePath::new(format!("{}/{inner}", target.directory))
        .map_err(|error| UnpackError::Path { path: written.to_owned(), source: Some(error) })
}

/// Whether a link at `path` leads to something below the same folder.
fn stays_inside(path: &str, link: &str) -> bool {
    if link.is_empty() || link.starts_with('/') {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

/// A reader that fails beyond a limit.
struct Limited<R> {
    inner: R,
    left: u64,
}

/// What [`Limited`] fails with.
#[derive(Debug, thiserror::Error)]
#[error("too much")]
struct Exceeded;

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(Exceeded))?;
        Ok(count)
    }
}

fn too_much(error: io::Error) -> UnpackError {
    let is_limit =
        std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        })
        .any(|error| {
            error.is::<Exceeded>() || error.downcast_ref::<io::Error>().is_some_and(is_exceeded)
        });
    match is_limit {
        true => UnpackError::TooMuch { limit: MOST_BYTES, unit: "bytes" },
        false => UnpackError::Read(error),
    }
}

fn is_exceeded(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Exceeded>())
}

fn spool_error(error: SpoolError) -> UnpackError {
    match error {
        SpoolError::Io { source, .. } => too_much(source),
        other => UnpackError::Tree(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::EntryType;

    /// A tar of entries of (path, kind, link or content).
    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            let content = if *kind == EntryType::Regular { *text } else { "" };
            if content.is_empty() {
                header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut packed, bytes).unwrap();
        packed.finish().unwrap()
    }

    fn shown(spool: &TreeSpool) -> Vec<String> {
        spool.entries().map(|entry| format!("{} {:o}", entry.path, entry.mode)).collect()
    }

    /// Unpacks an archive of such entries; the paths that came of it.
    fn unpacked(entries: &[(&str, EntryType, &str)]) -> Result<Vec<String>, UnpackError> {
        let archive = gzip(&tar(entries));
        let mut spool = TreeSpool::new(&std::env::temp_dir());
        let directory = TreePath::new("d").unwrap();
        let executable = BTreeSet::from(["run".to_owned()]);
        let target = Unpacking { directory: &directory, executable: &executable, strips_top: true };
        unpack(&mut archive.as_slice(), Format::TarGzip, &target, &mut spool, &mut 0)?;
        Ok(shown(&spool))
    }

    #[test]
    fn a_source_is_read_however_it_is_packed() {
        let source = |archive: Vec<u8>| {
            let mut spool = TreeSpool::new(&std::env::temp_dir());
            let directory = TreePath::new("s").unwrap();
            let open = || Ok(io::Cursor::new(archive.clone()));
            unpack_source(&open, &directory, &mut spool).map(|()| shown(&spool))
        };
        let one_top = tar(&[
            ("top/", EntryType::Directory, ""),
            ("top/Cargo.lock", EntryType::Regular, "x"),
            ("top/src/a", EntryType::Regular, "x"),
        ]);
        let xz = {
            let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 1);
            io::Write::write_all(&mut packed, &one_top).unwrap();
            packed.finish().unwrap()
        };
        let zstd = zstd::encode_all(one_top.as_slice(), 1).unwrap();
        for archive in [one_top.clone(), gzip(&one_top), xz, zstd] {
            assert_eq!(source(archive).unwrap(), ["s/Cargo.lock 644", "s/src/a 644"]);
        }
        let flat =
            tar(&[("./src/a", EntryType::Regular, "x"), ("./Cargo.lock", EntryType::Regular, "x")]);
        assert_eq!(source(flat).unwrap(), ["s/Cargo.lock 644", "s/src/a 644"]);
        assert!(source(tar(&[("../x", EntryType::Regular, "x")])).is_err());
        assert!(source(gzip(&one_top)[..40].to_vec()).is_err());
        assert!(source(b"neither tar nor anything that is packed".to_vec()).is_err());
    }

    #[test]
    fn the_folder_at_the_top_is_left_away_and_modes_are_plain() {
        let entries = [
            ("top/", EntryType::Directory, ""),
            ("top/a", EntryType::Regular, "x"),
            ("./top/run", EntryType::Regular, "x"),
            ("top/sub/link", EntryType::Symlink, "../a"),
            ("top/same", EntryType::Link, "top/a"),
        ];
        let expected = ["d/a 644", "d/run 755", "d/same 644", "d/sub/link 777"];
        assert_eq!(unpacked(&entries).unwrap(), expected);
    }

    #[test]
    fn what_leads_elsewhere_or_is_no_file_is_refused() {
        for (path, kind, text) in [
            ("/etc/passwd", EntryType::Regular, "x"),
            ("top/../../x", EntryType::Regular, "x"),
            ("top/.wh.x", EntryType::Regular, "x"),
            ("top/x", EntryType::Symlink, "/etc"),
            ("top/x", EntryType::Symlink, "../x"),
            ("top/x", EntryType::Link, "top/../../x"),
            ("top/x", EntryType::Char, ""),
            ("top/x", EntryType::Fifo, ""),
        ] {
            assert!(unpacked(&[(path, kind, text)]).is_err(), "{path} {kind:?}");
        }
    }

    #[test]
    fn more_than_is_bearable_is_refused() {
        let mut reader = Limited { inner: io::repeat(0), left: 100 };
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(matches!(too_much(error), UnpackError::TooMuch { unit: "bytes", .. }));
        let mut noise: &[u8] = b"no archive";
        let mut spool = TreeSpool::new(&std::env::temp_dir());
        let directory = TreePath::new("d").unwrap();
        let executable = BTreeSet::new();
        let target = Unpacking { directory: &directory, executable: &executable, strips_top: true };
        assert!(unpack(&mut noise, Format::TarGzip, &target, &mut spool, &mut 0).is_err());
    }
}
