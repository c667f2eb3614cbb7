//! Blobs on the move: opened from a file, verified, collected, written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use drystone_store::digest::BlobDigest;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use sha2::Digest as _;
use tokio::sync::mpsc;

use crate::error::RegistryError;

/// The bytes of a blob. Unless it ends without an error, none of them may be used.
pub type BlobStream = BoxStream<'static, Result<Bytes, RegistryError>>;

/// Bytes read from a file at once.
const PIECE: usize = 256 << 10;
/// Pieces on their way; more would only hide that one side is slow.
const QUEUE: usize = 8;

/// Whether the digest of what comes is checked on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Size and digest.
    Digest,
    /// The size alone, for those who hash what they write.
    Size,
}

/// Passes bytes on, and ends with an error unless size and digest are as expected.
pub(crate) struct Verified {
    inner: BlobStream,
    /// `None` where the digest is not checked.
    hasher: Option<sha2::Sha256>,
    place: String,
    digest: BlobDigest,
    size: u64,
    seen: u64,
    ended: bool,
}

impl Verified {
    pub(crate) fn new(
        inner: BlobStream,
        place: String,
        digest: BlobDigest,
        size: u64,
        check: Check,
    ) -> Self {
        let hasher = (check == Check::Digest).then(sha2::Sha256::new);
        Self { inner, hasher, place, digest, size, seen: 0, ended: false }
    }

    fn size_error(&self) -> RegistryError {
        RegistryError::Size {
            place: self.place.clone(),
            digest: self.digest,
            expected: self.size,
            actual: self.seen,
        }
    }

    fn end(&self) -> Option<RegistryError> {
        if self.seen != self.size {
            return Some(self.size_error());
        }
        let actual = BlobDigest::from_bytes(self.hasher.clone()?.finalize().into());
        (actual != self.digest).then(|| RegistryError::Mismatch {
            place: self.place.clone(),
            expected: self.digest,
            actual,
        })
    }
}

impl Stream for Verified {
    type Item = Result<Bytes, RegistryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.inner.poll_next_unpin(context));
        Poll::Ready(match next {
            Some(Ok(chunk)) => {
                self.seen += chunk.len() as u64;
                if self.seen > self.size {
                    // An endless body must not be passed on.
                    self.ended = true;
                    return Poll::Ready(Some(Err(self.size_error())));
                }
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&chunk);
                }
                Some(Ok(chunk))
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            None => {
                self.ended = true;
                self.end().map(Err)
            }
        })
    }
}

/// Reads a file from an offset to its end, on a thread of its own.
pub(crate) fn from_file(path: PathBuf, offset: u64) -> BlobStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let read = || -> std::io::Result<()> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            loop {
                let mut piece = BytesMut::zeroed(PIECE);
                let count = file.read(&mut piece)?;
                if count == 0 {
                    return Ok(());
                }
                piece.truncate(count);
                // Whoever listens no longer has lost interest.
                if sender.blocking_send(Ok(piece.freeze())).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(source) = read() {
            let error = RegistryError::File { action: "read", path: path.clone(), source };
            let _ = sender.blocking_send(Err(error));
        }
    });
    from_channel(receiver)
}

/// The pieces that another task sends.
pub(crate) fn from_channel(receiver: mpsc::Receiver<Result<Bytes, RegistryError>>) -> BlobStream {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    })
    .boxed()
}

/// Leaves out the first bytes: how a source that cannot seek is continued.
pub(crate) fn skip(inner: BlobStream, offset: u64) -> BlobStream {
    let mut left = offset;
    inner
        .filter_map(move |piece| {
            let piece = piece.map(|mut piece| {
                let cut = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                left -= cut as u64;
                piece.split_off(cut)
            });
            let keep = piece.as_ref().map_or(true, |piece| !piece.is_empty());
            std::future::ready(keep.then_some(piece))
        })
        .boxed()
}

/// Reads a whole blob into memory.
///
/// # Errors
/// That of the stream.
pub async fn collect(mut blob: BlobStream) -> Result<Bytes, RegistryError> {
    let mut all = BytesMut::new();
    while let Some(piece) = blob.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.freeze())
}

/// Writes a whole blob through `write`, called on a thread of its own, which may block; what
/// `finish` then makes of it is returned only if the blob was right.
///
/// # Errors
/// That of the stream, else that of `sink`.
pub async fn pump<S, E>(blob: BlobStream, sink: S) -> Result<S, E>
where
    S: std::io::Write + Send + 'static,
    E: From<RegistryError> + From<std::io::Error>,
{
    let mut blob = blob;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE * 4);
    let writer = tokio::task::spawn_blocking(move || -> std::io::Result<S> {
        let mut sink = sink;
        while let Some(piece) = receiver.blocking_recv() {
            sink.write_all(&piece)?;
        }
        Ok(sink)
    });
    let mut failure = None;
    while let Some(piece) = blob.next().await {
        match piece {
            Ok(piece) => {
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let sink = writer.await.map_err(|error| E::from(RegistryError::Task(error)))?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(sink?),
    }
}

/// Writes a whole blob into a file, which appears only if the blob was right, and is then on disk.
///
/// # Errors
/// That of the stream; files that cannot be written.
pub async fn write_file(blob: BlobStream, path: &Path) -> Result<(), RegistryError> {
    let temporary = temporary_beside(path)?;
    let failed = path.to_owned();
    let temporary = pump::<_, Failure>(blob, temporary).await.map_err(|failure| match failure {
        Failure::Stream(error) => error,
        Failure::Sink(source) => RegistryError::File { action: "write", path: failed, source },
    })?;
    persist(temporary, path.to_owned()).await
}

enum Failure {
    Stream(RegistryError),
    Sink(std::io::Error),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Stream(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Sink(error)
    }
}

/// A file in the directory of `path` with the usual permissions; it goes away unless persisted.
pub(crate) fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile, RegistryError> {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".drystone-").suffix(".tmp").permissions(std::fs::Permissions::from_mode(0o666));
    builder.tempfile_in(directory).map_err(RegistryError::file("create", path))
}

/// Syncs a file and gives it its name.
pub(crate) fn persist_now(
    temporary: tempfile::NamedTempFile,
    path: &Path,
) -> Result<(), RegistryError> {
    temporary.as_file().sync_all().map_err(RegistryError::file("write", path))?;
    temporary.persist(path).map_err(|error| RegistryError::file("rename", path)(error.error))?;
    Ok(())
}

async fn persist(temporary: tempfile::NamedTempFile, path: PathBuf) -> Result<(), RegistryError> {
    let persisted = tokio::task::spawn_blocking(move || persist_now(temporary, &path));
    persisted.await.map_err(RegistryError::Task)?
}

/// Writes a small file, which appears whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    let mut temporary = temporary_beside(path)?;
    temporary.write_all(bytes).map_err(RegistryError::file("write", path))?;
    persist_now(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: &[&'static [u8]]) -> BlobStream {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        futures_util::stream::iter(pieces).boxed()
    }

    async fn verified(
        given: &[&'static [u8]],
        expected: &[u8],
        size: u64,
    ) -> Result<Bytes, RegistryError> {
        let stream = Verified::new(
            pieces(given),
            "here".into(),
            BlobDigest::of(expected),
            size,
            Check::Digest,
        )
        .boxed();
        collect(stream).await
    }

    #[tokio::test]
    async fn only_the_right_bytes_end_well() {
        assert_eq!(&verified(&[b"he", b"", b"llo"], b"hello", 5).await.unwrap()[..], b"hello");
        assert_eq!(&verified(&[], b"", 0).await.unwrap()[..], b"");
        let lie = verified(&[b"jello"], b"hello", 5).await.unwrap_err();
        assert!(matches!(lie, RegistryError::Mismatch { .. }), "{lie}");
        let wrongs: [&[&'static [u8]]; 3] = [&[b"hell"], &[b"hello", b"!"], &[]];
        for wrong in wrongs {
            let error = verified(wrong, b"hello", 5).await.unwrap_err();
            assert!(matches!(error, RegistryError::Size { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_off() {
        let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(b"more"))).boxed();
        let mut stream =
            Verified::new(endless, "here".into(), BlobDigest::of(b"x"), 10, Check::Size);
        let mut passed = 0;
        while let Some(Ok(piece)) = stream.next().await {
            passed += piece.len();
        }
        assert_eq!(passed, 8);
        assert!(stream.next().await.is_none(), "an ended stream stays ended");
    }

    #[tokio::test]
    async fn a_wrong_blob_never_gets_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        let stream = |expected: &[u8]| {
            let digest = BlobDigest::of(expected);
            Verified::new(pieces(&[b"hello"]), "here".into(), digest, 5, Check::Digest).boxed()
        };
        assert!(write_file(stream(b"jello"), &path).await.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        write_file(stream(b"hello"), &path).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    }

    #[tokio::test]
    async fn files_are_read_from_an_offset_and_streams_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
        std::fs::write(&path, &content).unwrap();
        for offset in [0, 1, PIECE, 999_999, 1_000_000, 2_000_000] {
            let expected = content.get(offset..).unwrap_or_default();
            let read = collect(from_file(path.clone(), offset as u64)).await.unwrap();
            assert_eq!(read, expected);
            let skipped = skip(from_file(path.clone(), 0), offset as u64);
            assert_eq!(collect(skipped).await.unwrap(), expected);
        }
        assert!(collect(from_file(folder.path().join("none"), 0)).await.is_err());
    }
}
