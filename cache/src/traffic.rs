//! Counts of requests and bytes, by kind: what `--json` reports and tests hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Asks for access: pings, tokens.
    Authentication,
    /// Reads a manifest.
    ManifestRead,
    /// Writes a manifest.
    ManifestWrite,
    /// Asks whether a blob is there.
    BlobCheck,
    /// Reads a blob.
    BlobRead,
    /// Writes a blob, or asks for it to be mounted.
    BlobWrite,
    /// Lists tags.
    Tags,
    /// Lists referrers.
    Referrers,
    /// Deletes something.
    Delete,
}

const KINDS: [Kind; 9] = [
    Kind::Authentication,
    Kind::ManifestRead,
    Kind::ManifestWrite,
    Kind::BlobCheck,
    Kind::BlobRead,
    Kind::BlobWrite,
    Kind::Tags,
    Kind::Referrers,
    Kind::Delete,
];

/// How many requests, and how many bytes of content they moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Requests, repeated ones each time. For a folder: calls.
    pub requests: u64,
    /// Bytes of bodies received.
    pub received: u64,
    /// Bytes of bodies sent.
    pub sent: u64,
}

/// Counts as they were at one moment; kinds that did not occur are left out.
pub type Counts = BTreeMap<Kind, Count>;

/// Counts requests. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    cells: Arc<[Cell; KINDS.len()]>,
}

#[derive(Debug, Default)]
struct Cell {
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Counts nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more request.
    pub fn request(&self, kind: Kind) {
        self.cells[kind as usize].requests.fetch_add(1, Relaxed);
    }

    /// Content has come.
    pub fn received(&self, kind: Kind, bytes: u64) {
        self.cells[kind as usize].received.fetch_add(bytes, Relaxed);
    }

    /// Content was sent.
    pub fn sent(&self, kind: Kind, bytes: u64) {
        self.cells[kind as usize].sent.fetch_add(bytes, Relaxed);
    }

    /// All bytes sent so far, for progress.
    pub fn bytes_sent(&self) -> u64 {
        self.cells.iter().map(|cell| cell.sent.load(Relaxed)).sum()
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        let count = |kind: Kind| {
            let cell = &self.cells[kind as usize];
            Count {
                requests: cell.requests.load(Relaxed),
                received: cell.received.load(Relaxed),
                sent: cell.sent.load(Relaxed),
            }
        };
        let all = KINDS.into_iter().map(|kind| (kind, count(kind)));
        all.filter(|(_, count)| *count != Count::default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_kinds_apart() {
        let traffic = Traffic::new();
        traffic.clone().request(Kind::Delete);
        traffic.sent(Kind::BlobWrite, 7);
        assert_eq!(traffic.counts()[&Kind::Delete].requests, 1);
        assert_eq!(traffic.bytes_sent(), 7);
        let json = serde_json::to_string(&traffic.counts()).unwrap();
        assert_eq!(
            json,
            r#"{"blob-write":{"requests":0,"received":0,"sent":7},"delete":{"requests":1,"received":0,"sent":0}}"#
        );
        for (place, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
