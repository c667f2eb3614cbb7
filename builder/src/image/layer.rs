//! A layer as manifests and configurations need it: digests, sizes and a title, never its bytes.

use drystone_store::digest::{BlobDigest, DiffId};

pub use drystone_store::layer::Compression;

/// One layer of an image, known by its digests; its bytes may be anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// SHA-256 of the compressed blob.
    pub digest: BlobDigest,
    /// Bytes of the compressed blob.
    pub size: u64,
    /// SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar, where that is known: a base image does not tell.
    pub uncompressed_size: Option<u64>,
    /// What the blob is: a tar, and how it is compressed.
    pub media_type: &'static str,
    /// What the layer holds, for people: it becomes the layer's history entry.
    pub title: String,
}
