//! Having a store to oneself: what deletes waits until no other process uses the store.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Store, StoreError};

/// How often a store that is in use is tried again.
const POLL: Duration = Duration::from_millis(50);

/// Exclusive use of a store; back to shared use when dropped.
pub(super) struct Exclusive {
    file: File,
}

impl Store {
    /// Waits, but not longer than `wait`, until this is the only handle that is open.
    ///
    /// While it waits it holds no lock, so that two that wait for each other both go on.
    pub(super) fn exclusive(&self, wait: Duration) -> Result<Exclusive, StoreError> {
        let path = self.root.join("locks/store");
        // The clone shares the lock of the handle that the store holds.
        let file = self.in_use.try_clone().map_err(StoreError::io("lock", &path))?;
        let guard = Exclusive { file };
        let start = Instant::now();
        loop {
            match flock(&guard.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(guard),
                Err(Errno::WOULDBLOCK) if start.elapsed() < wait => std::thread::sleep(POLL),
                Err(Errno::WOULDBLOCK) => {
                    let path = self.root.clone();
                    return Err(StoreError::InUse { path, seconds: wait.as_secs() });
                }
                Err(error) => return Err(StoreError::io("lock", path)(error.into())),
            }
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // A failed try has given up the shared lock as well: it is taken again in any case.
        if let Err(error) = flock(&self.file, FlockOperation::LockShared) {
            tracing::warn!(%error, "the store is no longer locked by this process");
        }
    }
}
