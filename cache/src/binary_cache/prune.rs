//! Pruning: a cache grows with every build, and only its owner knows which images still count.
//!
//! What no bundle of the images that are kept names is removed: its tags and manifests. Blobs go
//! when the registry collects what no manifest names; a folder sweeps them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_store::digest::{BlobDigest, DerivationId};
use serde::Serialize;

use super::{Inventory, Subject};
use crate::error::RegistryError;
use crate::reference::{Tag, Target};
use crate::repository::Repository;

/// What may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prunable {
    /// Tags by manifest.
    manifests: BTreeMap<BlobDigest, Vec<Tag>>,
    /// Manifests that a tag which is kept names too.
    shared: BTreeSet<BlobDigest>,
    /// How many tags stay.
    pub kept: u64,
    /// Images whose bundles were looked for and are not there.
    pub unknown: Vec<Subject>,
}

impl Prunable {
    /// The tags that may go, sorted.
    pub fn tags(&self) -> Vec<String> {
        let mut tags: Vec<String> =
            self.manifests.values().flatten().map(ToString::to_string).collect();
        tags.sort();
        tags
    }
}

/// What pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Tags that were removed.
    pub removed: Vec<String>,
    /// Tags that stay.
    pub kept: u64,
}

/// Tells what of a cache no bundle of the images in `keep` names.
pub fn prunable(inventory: &Inventory, keep: &[Subject]) -> Prunable {
    let hashes: BTreeMap<String, &Subject> = keep.iter().map(|it| (it.hash(), it)).collect();
    let (kept, gone): (Vec<_>, Vec<_>) =
        inventory.bundles.iter().partition(|held| hashes.contains_key(&held.image));
    let known: BTreeSet<&String> = kept.iter().map(|held| &held.image).collect();
    let wanted: BTreeSet<DerivationId> =
        kept.iter().flat_map(|held| held.bundle.derivations().copied()).collect();
    let mut prunable = Prunable::default();
    for held in gone {
        prunable.manifests.entry(held.manifest.digest).or_default().push(held.tag.clone());
    }
    let mut staying: BTreeSet<BlobDigest> = kept.iter().map(|held| held.manifest.digest).collect();
    prunable.kept = kept.len() as u64;
    for held in &inventory.realisations {
        if wanted.contains(&held.derivation) {
            staying.insert(held.manifest.digest);
            prunable.kept += 1;
        } else {
            prunable.manifests.entry(held.manifest.digest).or_default().push(held.tag.clone());
        }
    }
    prunable.shared =
        prunable.manifests.keys().filter(|digest| staying.contains(digest)).copied().collect();
    let unknown = hashes.iter().filter(|(hash, _)| !known.contains(hash));
    prunable.unknown = unknown.map(|(_, subject)| (*subject).clone()).collect();
    prunable
}

/// Removes what may go.
///
/// # Errors
/// A registry that does not allow it ([`RegistryError::Unsupported`]), or cannot be asked.
pub async fn prune(
    cache: &Arc<dyn Repository>,
    prunable: &Prunable,
) -> Result<Pruned, RegistryError> {
    let mut pruned = Pruned { removed: Vec::new(), kept: prunable.kept };
    for (manifest, tags) in &prunable.manifests {
        // Registries delete by digest; few know how to delete a tag alone.
        if prunable.shared.contains(manifest) {
            for tag in tags {
                match cache.delete_manifest(&Target::Tag(tag.clone())).await {
                    Ok(_) => pruned.removed.push(tag.to_string()),
                    Err(RegistryError::Unsupported { .. }) => pruned.kept += 1,
                    Err(error) => return Err(error),
                }
            }
            continue;
        }
        cache.delete_manifest(&Target::Digest(*manifest)).await?;
        pruned.removed.extend(tags.iter().map(ToString::to_string));
    }
    pruned.removed.sort();
    Ok(pruned)
}
