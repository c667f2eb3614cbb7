//! Blobs: files named by the SHA-256 of their bytes.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use tempfile::NamedTempFile;

use super::{Store, StoreError};
use crate::digest::{BlobDigest, Sha256Writer};

impl Store {
    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.to_hex())
    }

    /// Whether a blob is present.
    pub fn has_blob(&self, digest: &BlobDigest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Opens a blob; `None` when it is not present. The bytes are not checked: they were when
    /// they entered, and `store verify` checks them on demand.
    pub fn open_blob(&self, digest: &BlobDigest) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", path)(error)),
        }
    }

    /// Starts a blob. Nothing is visible until [`BlobWriter::finish`].
    pub fn blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let file = self.temporary_file()?;
        Ok(BlobWriter { store: self, writer: Sha256Writer::new(file), is_synced: false })
    }

    /// Stores a blob from memory.
    pub fn add_blob(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError> {
        let digest = BlobDigest::of(bytes);
        if self.has_blob(&digest) {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        let path = self.blob_path(&digest);
        writer.write_all(bytes).map_err(StoreError::io("write", path))?;
        Ok(writer.finish()?.0)
    }

    /// An unnamed-to-others file in this process's own directory.
    pub(super) fn temporary_file(&self) -> Result<NamedTempFile, StoreError> {
        let directory = self.temporary_directory();
        NamedTempFile::new_in(directory).map_err(StoreError::io("create a file in", directory))
    }
}

/// Writes one blob; the writer computes the digest, callers cannot claim one.
pub struct BlobWriter<'a> {
    store: &'a Store,
    writer: Sha256Writer<NamedTempFile>,
    /// Whether all that was written is on disk.
    is_synced: bool,
}

impl BlobWriter<'_> {
    /// Ends the blob and makes it visible; its digest and size in bytes.
    pub fn finish(mut self) -> Result<(BlobDigest, u64), StoreError> {
        let size = self.writer.written();
        let digest = BlobDigest::from_bytes(self.writer.digest());
        let path = self.store.blob_path(&digest);
        if path.exists() {
            return Ok((digest, size));
        }
        self.sync()?;
        let (file, _) = self.writer.finish();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(StoreError::io("open up", file.path()))?;
        file.persist(&path).map_err(|error| StoreError::io("rename to", &path)(error.error))?;
        Ok((digest, size))
    }
}

impl BlobWriter<'_> {
    /// Has on disk what was written so far. A failure must be told: the kernel tells it once, and
    /// takes the file for written then.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        if !self.is_synced {
            let file = self.writer.inner();
            file.as_file().sync_data().map_err(StoreError::io("sync", file.path()))?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// Ends a blob that must have this digest, and makes it visible; its size in bytes. With
    /// another digest nothing becomes visible.
    pub fn finish_as(self, digest: &BlobDigest) -> Result<u64, StoreError> {
        let actual = BlobDigest::from_bytes(self.writer.digest());
        if actual != *digest {
            return Err(StoreError::Mismatch {
                what: format!("blob {digest} from a cache"),
                expected: digest.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(self.finish()?.1)
    }

    /// Another handle of the unfinished blob, to read what was written.
    pub(super) fn reopen(&self) -> Result<File, StoreError> {
        let file = self.writer.inner();
        file.reopen().map_err(StoreError::io("open", file.path()))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.is_synced = false;
        self.writer.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
