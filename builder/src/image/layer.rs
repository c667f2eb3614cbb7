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
    /// SHA-256 of the canonical tar.
    pub diff_id: DiffId,
    /// Bytes of the canonical tar.
    pub uncompressed_size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
    /// What the layer holds, for people: it becomes the layer's history entry.
    pub title: String,
}
