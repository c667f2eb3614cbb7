//! Turns what the downloader tells into progress.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::progress::{Event, Progress};
use drystone_source::fetch::DownloadObserver;

/// Hears downloads and reports bytes.
pub(super) struct Transfers<'a> {
    progress: &'a dyn Progress,
    /// Whether sizes are reported as downloads begin, or were all reported before.
    announce: bool,
    received: Mutex<HashMap<String, u64>>,
}

impl<'a> Transfers<'a> {
    /// Reports each download's size when it begins.
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, announce: true, received: Mutex::default() }
    }

    /// For downloads that come to `total` bytes in all, which is reported at once.
    pub(super) fn of_total(progress: &'a dyn Progress, total: u64) -> Self {
        progress.event(Event::Expected { bytes: total });
        Self { progress, announce: false, received: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, u64>) -> T) -> T {
        work(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl DownloadObserver for Transfers<'_> {
    fn started(&self, _name: &str, total: Option<u64>) {
        if let Some(bytes) = total.filter(|_| self.announce) {
            self.progress.event(Event::Expected { bytes });
        }
    }

    fn advanced(&self, name: &str, bytes: u64) {
        self.with(|received| *received.entry(name.to_owned()).or_default() += bytes);
        self.progress.event(Event::Received { bytes });
    }

    fn restarted(&self, name: &str) {
        // What came is void and will come again, so that much more is expected in all.
        let bytes = self.with(|received| received.remove(name)).unwrap_or_default();
        self.progress.event(Event::Expected { bytes });
    }

    fn retrying(&self, name: &str, reason: &str) {
        self.progress.event(Event::Note { text: format!("{name}: {reason}; trying again") });
    }

    fn finished(&self, name: &str) {
        self.with(|received| received.remove(name));
    }
}
