//! A process's own temporary directory inside the store, and what crashed processes left.
//!
//! Each process works in `tmp/<random>/` and holds a lock on `lock` in it. A directory whose lock
//! is free belongs to no living process and is swept by the next one that opens the store.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// The process's own directory; removed when dropped.
#[derive(Debug)]
pub(super) struct Workspace {
    directory: PathBuf,
    _lock: File,
}

impl Workspace {
    pub(super) fn create(store: &Path) -> Result<Self, StoreError> {
        let parent = store.join("tmp");
        let directory = tempfile::Builder::new()
            .prefix("")
            .tempdir_in(&parent)
            .map_err(StoreError::io("create a directory in", &parent))?
            .keep();
        super::spread(&directory);
        // The lock gets its name when it is held: others take one that is free for a dead one's.
        let (new, path) = (directory.join("lock.new"), directory.join("lock"));
        let lock = File::create(&new).map_err(StoreError::io("create", &new))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| StoreError::io("lock", &new)(error.into()))?;
        std::fs::rename(&new, &path).map_err(StoreError::io("rename", &new))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes what dead processes left, as far as this user may.
    pub(super) fn sweep(store: &Path) {
        let Ok(entries) = std::fs::read_dir(store.join("tmp")) else { return };
        for entry in entries.flatten() {
            let directory = entry.path();
            let is_dead = match File::open(directory.join("lock")) {
                Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
                // Between the creation of a directory and that of its lock a process lives;
                // only an old directory without a lock is debris.
                Err(_) => is_old(&directory),
            };
            if is_dead && std::fs::remove_dir_all(&directory).is_err() {
                tracing::debug!(path = %directory.display(), "left for `store gc` to remove");
            }
        }
    }
}

fn is_old(path: &Path) -> bool {
    let age = path.symlink_metadata().and_then(|data| data.modified()).map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age.as_secs() > 3600)
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(path = %self.directory.display(), %error, "left for the next sweep");
        }
    }
}
