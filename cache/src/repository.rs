//! The contract of a repository: blobs by digest, manifests by digest or tag.
//!
//! Every implementation runs the suite of `tests/contract.rs`. Implementations may be used by many
//! tasks, and the repository behind them by many processes, at once. All writes are idempotent: the
//! same content again is no error. What is missing is `Ok(None)` or `Ok(false)`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use futures_util::future::BoxFuture;

use crate::descriptor::{Descriptor, Manifest};
use crate::error::RegistryError;
use crate::reference::{Location, RepositoryName, Tag, Target};
use crate::stream::{self, BlobStream, Check};
use crate::traffic::Counts;

/// What a repository will answer.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

/// One repository of blobs and manifests.
pub trait Repository: Send + Sync {
    /// Where it is, for messages.
    fn location(&self) -> &Location;

    /// Requests and bytes so far, of this value and its clones.
    fn counts(&self) -> Counts;

    /// Reads a manifest of at most 4 MiB. Its digest is computed, and checked if asked by digest.
    fn manifest<'a>(&'a self, target: &'a Target) -> Pending<'a, Option<Manifest>>;

    /// Writes a manifest under its digest and all `tags`, which move if they exist.
    ///
    /// What it refers to must be there already. If it has a `subject`, [`Repository::referrers`]
    /// lists it from now on.
    fn put_manifest<'a>(&'a self, manifest: &'a Manifest, tags: &'a [Tag]) -> Pending<'a, ()>;

    /// Removes a tag, or a manifest with all its tags; `false` when it was not there.
    ///
    /// Some registries cannot: [`RegistryError::Unsupported`].
    fn delete_manifest<'a>(&'a self, target: &'a Target) -> Pending<'a, bool>;

    /// The size of a blob in bytes.
    fn blob_size<'a>(&'a self, digest: &'a BlobDigest) -> Pending<'a, Option<u64>>;

    /// Reads a blob whose size is known.
    ///
    /// The stream ends with an error unless size and digest were right: what it gave until then
    /// must not be used before it has ended well. Broken connections are continued within.
    fn blob<'a>(&'a self, digest: &'a BlobDigest, size: u64) -> Pending<'a, Option<BlobStream>> {
        self.blob_checked(digest, size, Check::Digest)
    }

    /// As [`Repository::blob`], but the stream checks the size alone: for those who compute the
    /// digest of what they write, as a store does.
    fn unhashed_blob<'a>(
        &'a self,
        digest: &'a BlobDigest,
        size: u64,
    ) -> Pending<'a, Option<BlobStream>> {
        self.blob_checked(digest, size, Check::Size)
    }

    /// What both are made of.
    fn blob_checked<'a>(
        &'a self,
        digest: &'a BlobDigest,
        size: u64,
        check: Check,
    ) -> Pending<'a, Option<BlobStream>>;

    /// Writes a blob, unless it is there or can be mounted from one of `upload.mounts`.
    fn put_blob<'a>(&'a self, upload: &'a Upload) -> Pending<'a, Stored>;

    /// Makes a blob of another repository of this registry visible in this one; `false` when the
    /// registry does not do it.
    fn mount<'a>(&'a self, digest: &'a BlobDigest, from: &'a RepositoryName) -> Pending<'a, bool>;

    /// Removes a blob; `false` when it was not there.
    ///
    /// Some registries cannot: [`RegistryError::Unsupported`].
    fn delete_blob<'a>(&'a self, digest: &'a BlobDigest) -> Pending<'a, bool>;

    /// All tags, sorted; the ones that stand for a list of referrers included.
    fn tags(&self) -> Pending<'_, Vec<Tag>>;

    /// The manifests whose subject is `subject`, of one type or of all.
    fn referrers<'a>(
        &'a self,
        subject: &'a BlobDigest,
        artifact_type: Option<&'a str>,
    ) -> Pending<'a, Vec<Descriptor>>;

    /// Reads a small blob into memory.
    fn blob_bytes<'a>(&'a self, digest: &'a BlobDigest, size: u64) -> Pending<'a, Option<Bytes>> {
        Box::pin(async move {
            match self.blob(digest, size).await? {
                Some(blob) => Ok(Some(stream::collect(blob).await?)),
                None => Ok(None),
            }
        })
    }

    /// Writes a small blob from memory; its descriptor.
    fn put_bytes<'a>(&'a self, media_type: &'a str, bytes: Bytes) -> Pending<'a, Descriptor> {
        Box::pin(async move {
            let descriptor = Descriptor::of(media_type, &bytes);
            self.put_blob(&Upload::bytes(bytes)).await?;
            Ok(descriptor)
        })
    }
}

/// A blob to write.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Its digest.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub source: Source,
    /// Repositories of the same registry that may have it, most likely first.
    pub mounts: Vec<RepositoryName>,
}

impl Upload {
    /// A blob in memory.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: BlobDigest::of(&bytes),
            size: bytes.len() as u64,
            source: Source::Bytes(bytes),
            mounts: Vec::new(),
        }
    }

    /// A blob in a file whose digest is known.
    pub fn file(digest: BlobDigest, size: u64, path: impl Into<PathBuf>) -> Self {
        Self { digest, size, source: Source::File(path.into()), mounts: Vec::new() }
    }

    /// A blob of another repository; it streams through without touching the disk.
    pub fn copy(digest: BlobDigest, size: u64, from: Arc<dyn Repository>) -> Self {
        Self { digest, size, source: Source::Repository(from), mounts: Vec::new() }
    }

    /// With repositories that may have it already.
    #[must_use]
    pub fn mounted_from(mut self, mounts: Vec<RepositoryName>) -> Self {
        self.mounts = mounts;
        self
    }
}

/// Where a blob's bytes are.
#[derive(Clone)]
pub enum Source {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(PathBuf),
    /// In another repository.
    Repository(Arc<dyn Repository>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes in memory", bytes.len()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Repository(repository) => write!(f, "{}", repository.location()),
        }
    }
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It was there.
    Existed,
    /// It was mounted from another repository.
    Mounted {
        /// That repository.
        from: RepositoryName,
    },
    /// Its bytes were sent.
    Pushed,
}
