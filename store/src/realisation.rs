//! Realisations: what a derivation gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use crate::layer::{Compression, Layer};
use crate::path::StorePath;

/// Where a listing is: a blob and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListingRef {
    /// The blob.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
}

/// One output of a derivation: a tree, and all that is known about it without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The tree.
    pub path: StorePath,
    /// SHA-256 of the canonical tar.
    pub diff_id: DiffId,
    /// Size of the canonical tar in bytes.
    pub size: u64,
    /// Compressed forms that exist.
    pub layers: Vec<Layer>,
    /// The tree's listing.
    pub listing: ListingRef,
    /// Trees that this one needs at run time.
    pub references: Vec<TreeHash>,
}

impl Output {
    /// The form with this compression.
    pub fn layer(&self, compression: Compression) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.compression == compression)
    }
}

/// What a derivation gave: a tree for each of its outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Realisation {
    /// The derivation.
    pub derivation: DerivationId,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, Output>,
}
