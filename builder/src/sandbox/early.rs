//! Work that is begun before it is asked for.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// What a thread makes beside other work, since it will be wanted. What was not taken ends with its
/// owner, and not after it.
#[derive(Debug)]
pub(crate) struct Early<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for Early<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Early<T> {
    /// Begins the work, unless it has begun.
    pub(crate) fn begin(&self, work: impl FnOnce() -> T + Send + 'static)
    where
        T: Send + 'static,
    {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.get_or_insert_with(|| std::thread::spawn(work));
    }

    /// Waits for what was begun and takes it; others who ask meanwhile wait too, for nothing.
    pub(crate) fn take(&self) -> Option<T> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.take()?.join().ok()
    }
}

impl<T> Drop for Early<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
