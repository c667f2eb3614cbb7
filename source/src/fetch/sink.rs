//! Where a download's bytes go: hashed and written by a thread of the blocking pool, so that
//! neither SHA-256 nor a slow disk holds up the network.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use sha2::Digest as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::FetchError;

/// Chunks on their way to the disk; more would only hide that it is slower than the network.
const QUEUE: usize = 32;

/// The bytes received so far. It outlives a broken connection, so that the next one can continue.
pub(super) struct Sink {
    target: Target,
    hasher: sha2::Sha256,
    written: u64,
}

enum Target {
    File { file: File, path: PathBuf },
    Memory(Vec<u8>),
}

/// The sending end of a sink whose thread is at work.
pub(super) struct Pump {
    sender: mpsc::Sender<Bytes>,
    writer: JoinHandle<(Sink, Result<(), FetchError>)>,
}

impl Sink {
    /// Writes to a file, which is emptied first.
    pub(super) fn file(path: &Path) -> Result<Self, FetchError> {
        let file = File::create(path).map_err(|source| FetchError::File {
            action: "create",
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self::new(Target::File { file, path: path.to_path_buf() }))
    }

    pub(super) fn memory() -> Self {
        Self::new(Target::Memory(Vec::new()))
    }

    fn new(target: Target) -> Self {
        Self { target, hasher: sha2::Sha256::new(), written: 0 }
    }

    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn digest(&self) -> BlobDigest {
        BlobDigest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// What was received, if it went to memory.
    pub(super) fn into_memory(self) -> Vec<u8> {
        match self.target {
            Target::Memory(bytes) => bytes,
            Target::File { .. } => Vec::new(),
        }
    }

    /// Forgets and removes everything received.
    pub(super) fn reset(&mut self) -> Result<(), FetchError> {
        self.hasher = sha2::Sha256::new();
        self.written = 0;
        match &mut self.target {
            Target::Memory(bytes) => bytes.clear(),
            Target::File { file, path } => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(|source| FetchError::File {
                    action: "empty",
                    path: path.clone(),
                    source,
                })?
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, chunk: &[u8]) -> Result<(), FetchError> {
        match &mut self.target {
            Target::Memory(bytes) => bytes.extend_from_slice(chunk),
            Target::File { file, path } => file.write_all(chunk).map_err(|source| {
                FetchError::File { action: "write", path: path.clone(), source }
            })?,
        }
        self.hasher.update(chunk);
        self.written += chunk.len() as u64;
        Ok(())
    }

    /// Starts the thread that takes chunks.
    pub(super) fn start(mut self) -> Pump {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
        let writer = tokio::task::spawn_blocking(move || {
            let mut result = Ok(());
            while let Some(chunk) = receiver.blocking_recv() {
                result = self.write(&chunk);
                if result.is_err() {
                    break;
                }
            }
            (self, result)
        });
        Pump { sender, writer }
    }
}

impl Pump {
    /// Hands a chunk on; false when the writer has failed and [`Pump::finish`] will say how.
    pub(super) async fn send(&self, chunk: Bytes) -> bool {
        self.sender.send(chunk).await.is_ok()
    }

    /// Waits until all chunks are written.
    pub(super) async fn finish(self) -> Result<(Sink, Result<(), FetchError>), FetchError> {
        drop(self.sender);
        joined(self.writer.await)
    }
}

/// The result of a blocking task; one that was lost with its runtime counts as a failed write.
pub(super) fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, FetchError> {
    result.map_err(|error| FetchError::File {
        action: "write",
        path: PathBuf::new(),
        source: io::Error::other(error),
    })
}
