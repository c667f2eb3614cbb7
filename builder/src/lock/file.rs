//! The lock file on disk: replaced whole, by one process at a time.
//!
//! Writers hold `flock` on the *folder* of the lock file. A lock on the file itself would be lost
//! when it is replaced, and a file of its own would stay behind, to be committed by accident.
//! Where a file system has no such locks (some network ones), writers go on without: replacing is
//! still atomic, only two processes that lock different images at once may then undo each other,
//! which the next build sees and mends.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::model::{Lock, LockError};

/// Whether writing changed the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The file has new content.
    Changed,
    /// The file had this content already and was not touched.
    Unchanged,
}

impl Lock {
    /// Reads a lock file; `None` when there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", path)(source)),
        };
        let text = String::from_utf8(bytes).map_err(|_| {
            failed("read", path)(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
        })?;
        Self::parse(path, &text).map(Some).map_err(|problems| LockError::Text(Box::new(problems)))
    }

    /// Replaces a lock file by this lock. A file that has this content already is not touched.
    ///
    /// A crash leaves the old file or the new one. Use [`Lock::edit`] when other processes may
    /// write their images into the same file.
    pub fn write_atomically(&self, path: &Path) -> Result<Written, LockError> {
        let path = followed(path)?;
        let _guard = FolderLock::take(folder(&path))?;
        replace(&path, &self.to_text())
    }

    /// Reads a lock file (none is an empty lock), lets `change` work on it, and replaces it, while
    /// no other process does the same. Nothing is written when `change` fails.
    pub fn edit<E: From<LockError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(Self, Written), E> {
        let path = followed(path)?;
        let _guard = FolderLock::take(folder(&path))?;
        let mut lock = Self::read(&path)?.unwrap_or_default();
        change(&mut lock)?;
        let written = replace(&path, &lock.to_text())?;
        Ok((lock, written))
    }
}

fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> LockError + use<'a> {
    move |source| LockError::Io { action, path: path.to_owned(), source }
}

/// The file behind a symbolic link: replacing the link itself would cut it.
fn followed(path: &Path) -> Result<PathBuf, LockError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            fs::canonicalize(path).map_err(failed("follow", path))
        }
        _ => Ok(path.to_owned()),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn replace(path: &Path, text: &str) -> Result<Written, LockError> {
    let old = match fs::read(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(failed("read", path)(source)),
    };
    if old.as_deref() == Some(text.as_bytes()) {
        return Ok(Written::Unchanged);
    }
    // The umask applies to a new file; an old one keeps its mode.
    let mode = fs::metadata(path).map_or(0o666, |metadata| metadata.permissions().mode() & 0o777);
    let mut file = tempfile::Builder::new()
        .prefix(".image.lock.")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder(path))
        .map_err(failed("write beside", path))?;
    file.write_all(text.as_bytes()).map_err(failed("write", path))?;
    if old.is_some() {
        let permissions = Permissions::from_mode(mode);
        file.as_file().set_permissions(permissions).map_err(failed("write", path))?;
    }
    file.as_file().sync_all().map_err(failed("write", path))?;
    file.persist(path).map_err(|error| failed("replace", path)(error.error))?;
    // The new name is lasting only once the folder is; some file systems cannot promise that.
    let _ = File::open(folder(path)).and_then(|folder| folder.sync_all());
    Ok(Written::Changed)
}

/// Holds the folder's lock until dropped.
struct FolderLock {
    _folder: File,
}

impl FolderLock {
    fn take(path: &Path) -> Result<Self, LockError> {
        let folder = File::open(path).map_err(failed("open the folder", path))?;
        loop {
            match flock(&folder, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::BADF | Errno::NOLCK | Errno::NOTSUP | Errno::INVAL) => break,
                Err(error) => return Err(failed("lock the folder", path)(error.into())),
            }
        }
        Ok(Self { _folder: folder })
    }
}
