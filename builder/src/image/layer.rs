//! A layer as manifests and configurations need it: digests, sizes and a title, never its bytes.

use drystone_store::digest::{BlobDigest, DiffId};
use serde::{Deserialize, Serialize};

/// How a layer's canonical tar is compressed; the number is the compressor's frozen version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// Gzip in independent members, readable by every container engine.
    #[serde(rename = "gzip-1")]
    Gzip1,
    /// Zstandard; docker 20.10 and umoci 0.4 cannot read it.
    #[serde(rename = "zstd-1")]
    Zstd1,
}

impl Compression {
    /// The OCI media type of a layer that is compressed so.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Gzip1 => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd1 => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

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
