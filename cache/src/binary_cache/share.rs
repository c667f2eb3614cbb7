//! Sharing what was built: signed, and with every blob in place before anything refers to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use drystone_store::realisation::Output;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::{
    BUNDLE_TYPE, ENVELOPE_MEDIA_TYPE, LISTING_MEDIA_TYPE, REALISATION_TYPE, Subject, artifact,
    empty_config, layers_of, realisation_tag,
};
use crate::bundle::{self, Bundle};
use crate::descriptor::Descriptor;
use crate::dsse::Envelope;
use crate::error::RegistryError;
use crate::key::KeyId;
use crate::reference::{Tag, Target};
use crate::repository::{Repository, Stored, Upload};

/// Realisations that are shared at once.
const AT_ONCE: usize = 8;

/// A realisation to share.
#[derive(Debug, Clone)]
pub struct Share {
    /// What is said of it, and by whom.
    pub envelope: Envelope,
    /// The derivation.
    pub derivation: drystone_store::digest::DerivationId,
    /// Its outputs, with the layers that are attested.
    pub outputs: Vec<Output>,
    /// Whether it is found without keys too: its trees are what locks pin.
    pub is_pinned: bool,
}

/// What sharing did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Realisations that were written.
    pub written: u64,
    /// Realisations that were there.
    pub existed: u64,
    /// Blobs that were sent.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Realisations that could not be shared, with the reasons.
    pub failed: Vec<String>,
}

/// Where a blob of the store is: in a file, or still in another cache.
pub type Part<'a> = dyn Fn(&BlobDigest) -> Option<PathBuf> + Send + Sync + 'a;

/// Writes realisations, and the bundle of each subject with all their attestations.
///
/// `others` are asked for blobs that `part` does not know: these stream through. A realisation that
/// fails is counted and does not keep the others; `key` names the bundle's writer.
pub async fn share(
    to: &Arc<dyn Repository>,
    shares: &[Share],
    part: &Part<'_>,
    others: &[Arc<dyn Repository>],
    subjects: &[Subject],
    key: KeyId,
) -> Shared {
    let (_, config) = empty_config();
    let mut shared = Shared::default();
    if let Err(error) = to.put_blob(&Upload::bytes(config)).await {
        shared.failed.push(super::with_causes(&error));
        return shared;
    }
    let one = |share: &Share| {
        let share = share.clone();
        async move { (share.derivation, share_one(to, &share, part, others).await) }
    };
    let results: Vec<_> = futures_util::stream::iter(shares.iter().map(one))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut bundled = Bundle::default();
    let mut failed = BTreeMap::new();
    for (derivation, result) in results {
        match result {
            Ok(None) => shared.existed += 1,
            Ok(Some((blobs, bytes))) => {
                shared.written += 1;
                shared.blobs += blobs;
                shared.bytes += bytes;
            }
            Err(error) => drop(failed.insert(derivation, super::with_causes(&error))),
        }
    }
    for share in shares.iter().filter(|share| !failed.contains_key(&share.derivation)) {
        // Without room in the bundle it is still found alone.
        let _ = bundled.insert(share.envelope.clone());
    }
    shared.failed.extend(failed.into_iter().map(|(id, why)| format!("{id}: {why}")));
    for subject in subjects {
        if let Err(error) = put_bundle(to, &bundled, subject.tag(key)).await {
            shared.failed.push(format!("the bundle: {}", super::with_causes(&error)));
        }
    }
    shared
}

async fn put_bundle(
    to: &Arc<dyn Repository>,
    bundle: &Bundle,
    tag: Tag,
) -> Result<(), RegistryError> {
    let Ok(bytes) = bundle.encode() else { return Ok(()) };
    let bytes = Bytes::from(bytes);
    let manifest = artifact(BUNDLE_TYPE, &[Descriptor::of(bundle::MEDIA_TYPE, &bytes)]);
    let target = Target::Tag(tag.clone());
    if to.manifest(&target).await?.is_some_and(|there| there.digest == manifest.digest) {
        return Ok(());
    }
    to.put_blob(&Upload::bytes(bytes)).await?;
    to.put_manifest(&manifest, &[tag]).await
}

/// Shares one realisation; `None` when it is there with all its layers.
async fn share_one(
    to: &Arc<dyn Repository>,
    share: &Share,
    part: &Part<'_>,
    others: &[Arc<dyn Repository>],
) -> Result<Option<(u64, u64)>, RegistryError> {
    let keys = share.envelope.signatures().iter().map(|signature| Some(signature.key));
    let keyless = share.is_pinned.then_some(None);
    let tags: Vec<Tag> =
        keys.chain(keyless).map(|key| realisation_tag(&share.derivation, key)).collect();
    let envelope = Bytes::from(share.envelope.to_json());
    let mut layers = vec![Descriptor::of(ENVELOPE_MEDIA_TYPE, &envelope)];
    for output in &share.outputs {
        let listing = &output.listing;
        layers.push(Descriptor::new(LISTING_MEDIA_TYPE, listing.digest, listing.size));
        for layer in &output.layers {
            let media_type = layer.compression.media_type();
            layers.push(Descriptor::new(media_type, layer.digest, layer.size));
        }
    }
    let mut missing = Vec::new();
    for tag in tags {
        let there = to.manifest(&Target::Tag(tag.clone())).await?;
        let there = there.and_then(|manifest| layers_of(&manifest, REALISATION_TYPE));
        // A valid tag is rewritten only to add a compression.
        if there.is_none_or(|there| there.len() < layers.len()) {
            missing.push(tag);
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let mut uploads = vec![Upload::bytes(envelope)];
    for layer in &layers[1..] {
        uploads.push(upload(layer, part, others).await?);
    }
    let sent: Vec<(u64, u64)> = futures_util::stream::iter(uploads)
        .map(|upload| async move {
            let size = upload.size;
            let stored = to.put_blob(&upload).await?;
            Ok::<_, RegistryError>(match stored {
                Stored::Pushed => (1, size),
                Stored::Existed | Stored::Mounted { .. } => (0, 0),
            })
        })
        .buffer_unordered(4)
        .try_collect()
        .await?;
    to.put_manifest(&artifact(REALISATION_TYPE, &layers), &missing).await?;
    Ok(Some(sent.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))))
}

/// A blob from wherever it is.
async fn upload(
    layer: &Descriptor,
    part: &Part<'_>,
    others: &[Arc<dyn Repository>],
) -> Result<Upload, RegistryError> {
    if let Some(path) = part(&layer.digest) {
        return Ok(Upload::file(layer.digest, layer.size, path));
    }
    for other in others {
        if other.blob_size(&layer.digest).await?.is_some() {
            return Ok(Upload::copy(layer.digest, layer.size, Arc::clone(other)));
        }
    }
    Err(RegistryError::Missing { place: format!("blob {}", layer.digest) })
}
