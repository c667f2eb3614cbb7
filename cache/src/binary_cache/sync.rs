//! Copying a cache into another one: artifacts byte for byte, bundles joined.
//!
//! Nobody's word is judged here: attestations arrive as they were signed, and whoever reads them
//! decides whom to believe. Blobs stream through, or are mounted within one registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::with_causes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::share::{Once, put_bundle};
use super::{
    HeldRealisation, Inventory, REALISATION_TYPE, bundle_at, empty_config, layer_of_type,
    layers_of, small_blob,
};
use crate::attestation::claimed_derivation;
use crate::dsse::{Envelope, MAX_ENVELOPE};
use crate::error::RegistryError;
use crate::reference::{Location, RepositoryName, Tag, Target};
use crate::repository::{Repository, Stored, Upload};

/// Realisations that are copied at once.
const AT_ONCE: usize = 8;

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Synced {
    /// Tags of realisations that were written.
    pub written: u64,
    /// Tags that were there already.
    pub existed: u64,
    /// Tags that stay as they are there, since what is there has as many layers.
    pub kept: u64,
    /// Bundles that were written.
    pub bundles: u64,
    /// Blobs that were sent.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were mounted.
    pub mounted: u64,
    /// What could not be copied, with the reasons.
    pub failed: Vec<String>,
}

impl Synced {
    fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.existed += other.existed;
        self.kept += other.kept;
        self.blobs += other.blobs;
        self.bytes += other.bytes;
        self.mounted += other.mounted;
    }
}

/// Copies an inventory's realisations and bundles from one cache into another.
///
/// # Errors
/// A target that cannot be asked at all. What fails for one realisation is counted.
pub async fn sync(
    from: &Arc<dyn Repository>,
    inventory: &Inventory,
    to: &Arc<dyn Repository>,
    tell: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Synced, RegistryError> {
    to.put_blob(&Upload::bytes(empty_config().1)).await?;
    // One request instead of one for each tag that is new.
    let there: BTreeSet<Tag> = to.tags().await?.into_iter().collect();
    let mut groups: BTreeMap<BlobDigest, Vec<&HeldRealisation>> = BTreeMap::new();
    for held in &inventory.realisations {
        groups.entry(held.manifest.digest).or_default().push(held);
    }
    let (total, done) = (groups.len() as u64, std::sync::atomic::AtomicU64::new(0));
    let sent = Once::default();
    let copy = |group: Vec<&HeldRealisation>| {
        let derivation = group[0].derivation;
        let (there, done, sent) = (&there, &done, &sent);
        let owned: Vec<HeldRealisation> = group.into_iter().cloned().collect();
        async move {
            let result = copy_one(from, &owned, to, there, sent).await;
            tell(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total);
            (derivation, result)
        }
    };
    let copies: Vec<_> = groups.into_values().map(copy).collect();
    let results: Vec<_> =
        futures_util::stream::iter(copies).buffer_unordered(AT_ONCE).collect().await;
    let (mut synced, mut failed) = (Synced::default(), BTreeMap::new());
    for (derivation, result) in results {
        match result {
            Ok(one) => synced.add(&one),
            Err(error) => drop(failed.insert(derivation, with_causes(&error))),
        }
    }
    copy_bundles(inventory, to, &failed, &mut synced).await;
    synced.failed.extend(failed.into_iter().map(|(id, why)| format!("{id}: {why}")));
    Ok(synced)
}

/// Copies one artifact under all its tags.
async fn copy_one(
    from: &Arc<dyn Repository>,
    group: &[HeldRealisation],
    to: &Arc<dyn Repository>,
    there: &BTreeSet<Tag>,
    sent: &Once,
) -> Result<Synced, RegistryError> {
    let mut synced = Synced::default();
    let mut missing = Vec::new();
    for held in group {
        match there.contains(&held.tag) {
            true => match standing(to, held).await? {
                Standing::Same => synced.existed += 1,
                Standing::Other => synced.kept += 1,
                Standing::Replaceable => missing.push(held.tag.clone()),
            },
            false => missing.push(held.tag.clone()),
        }
    }
    let Some(held) = group.first().filter(|_| !missing.is_empty()) else { return Ok(synced) };
    let mounts = mounts(from.location(), to.location());
    let uploads = held.layers.iter().map(|layer| {
        let upload = Upload::copy(layer.digest, layer.size, Arc::clone(from));
        let upload = upload.mounted_from(mounts.clone());
        async move {
            let stored = sent.send(&upload.digest, async || to.put_blob(&upload).await).await?;
            Ok::<_, RegistryError>((stored.unwrap_or(Stored::Existed), upload.size))
        }
    });
    let uploads: Vec<_> = uploads.collect();
    let stored: Vec<(Stored, u64)> =
        futures_util::stream::iter(uploads).buffer_unordered(4).try_collect().await?;
    for (stored, size) in stored {
        match stored {
            Stored::Pushed => {
                synced.blobs += 1;
                synced.bytes += size;
            }
            Stored::Mounted { .. } => synced.mounted += 1,
            Stored::Existed => {}
        }
    }
    to.put_manifest(&held.manifest, &missing).await?;
    synced.written += missing.len() as u64;
    Ok(synced)
}

/// What is under a tag of the target.
enum Standing {
    Same,
    Other,
    Replaceable,
}

/// A tag is rewritten only by an artifact with more layers, or where it holds something else than
/// an attestation of its derivation.
async fn standing(
    to: &Arc<dyn Repository>,
    held: &HeldRealisation,
) -> Result<Standing, RegistryError> {
    let manifest = match to.manifest(&Target::Tag(held.tag.clone())).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(Standing::Replaceable),
        Err(error) if error.is_answer() => return Ok(Standing::Replaceable),
        Err(error) => return Err(error),
    };
    if manifest.digest == held.manifest.digest {
        return Ok(Standing::Same);
    }
    let Some(layers) = layers_of(&manifest, REALISATION_TYPE) else {
        return Ok(Standing::Replaceable);
    };
    let found = layer_of_type(&layers, super::ENVELOPE_MEDIA_TYPE, MAX_ENVELOPE as u64);
    let Some(layer) = found.filter(|_| layers.len() >= held.layers.len()) else {
        return Ok(Standing::Replaceable);
    };
    let Ok(Some(bytes)) = small_blob(to, layer).await else {
        return Ok(Standing::Replaceable);
    };
    let claimed = Envelope::parse(&bytes).ok().and_then(|envelope| claimed_derivation(&envelope));
    match claimed == Some(held.derivation) {
        true => Ok(Standing::Other),
        false => Ok(Standing::Replaceable),
    }
}

/// Where blobs may be mounted from.
fn mounts(from: &Location, to: &Location) -> Vec<RepositoryName> {
    match (from, to) {
        (Location::Registry { host, name }, Location::Registry { host: other, .. })
            if host == other =>
        {
            vec![name.clone()]
        }
        _ => Vec::new(),
    }
}

/// Joins bundles with those that are there. What was not copied is not promised.
async fn copy_bundles(
    inventory: &Inventory,
    to: &Arc<dyn Repository>,
    failed: &BTreeMap<DerivationId, String>,
    synced: &mut Synced,
) {
    let held = inventory.derivations();
    for bundle in &inventory.bundles {
        let mut all = bundle_at(to, bundle.tag.clone()).await.unwrap_or_default();
        let before = all.clone();
        for envelope in bundle.bundle.envelopes() {
            let id = claimed_derivation(envelope);
            if id.is_some_and(|id| held.contains(&id) && !failed.contains_key(&id)) {
                // Without room it is still found alone.
                let _ = all.insert(envelope.clone());
            }
        }
        if all == before {
            continue;
        }
        let here = |digest: &BlobDigest| bundle.small.get(digest).cloned();
        match put_bundle(to, &all, &here, bundle.tag.clone()).await {
            Ok(()) => synced.bundles += 1,
            Err(error) => synced.failed.push(format!("{}: {}", bundle.tag, with_causes(&error))),
        }
    }
}
