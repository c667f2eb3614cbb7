//! Sharing what was built: signed, and with every blob in place before anything refers to it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use drystone_store::realisation::Output;
use drystone_store::with_causes;
use futures_util::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::sync::OnceCell;

use super::{
    BUNDLE_TYPE, ENVELOPE_MEDIA_TYPE, REALISATION_TYPE, Subject, artifact, bundle_at, empty_config,
    layer_of_type, layers_of, parts_of, realisation_tag, small_blob, small_blobs_in,
};
use crate::attestation::{Attestation, claimed_derivation};
use crate::bundle::{self, Bundle};
use crate::descriptor::Descriptor;
use crate::dsse::{Envelope, MAX_ENVELOPE};
use crate::error::RegistryError;
use crate::key::PublicKey;
use crate::reference::{Tag, Target};
use crate::repository::{Repository, Stored, Upload};
use crate::small_blobs::{self, SmallBlobs};

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
    /// Whether it stands for a whole image: then its parts are carried in the manifest, so that one
    /// request brings all.
    pub is_whole: bool,
    /// Whether a cache was found to have lost parts of it: then what is there is not relied on.
    pub is_lost: bool,
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
/// fails is counted and does not keep the others; `key` is the bundle's writer.
pub async fn share(
    to: &Arc<dyn Repository>,
    shares: &[Share],
    part: &Part<'_>,
    others: &[Arc<dyn Repository>],
    subjects: &[Subject],
    key: &PublicKey,
) -> Shared {
    let (_, config) = empty_config();
    let mut shared = Shared::default();
    if let Err(error) = to.put_blob(&Upload::bytes(config)).await {
        shared.failed.push(with_causes(&error));
        return shared;
    }
    let bundles = bundles(to, subjects, key).await;
    let sent = Once::default();
    let one = |share: &Share| {
        let (share, bundles, sent) = (share.clone(), &bundles, &sent);
        async move {
            // A bundle is written last: what it holds was there, and costs no request each.
            let done = match !share.is_lost && holds(bundles, &share) {
                true => Ok(Done::Existed),
                false => share_one(to, &share, part, others, key, sent).await,
            };
            (share, done)
        }
    };
    let results: Vec<_> = futures_util::stream::iter(shares.iter().map(one))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut bundled = Bundle::default();
    let mut failed = BTreeMap::new();
    for (share, result) in results {
        match result {
            Ok(Done::Existed) => shared.existed += 1,
            Ok(Done::Other) => {
                shared.existed += 1;
                // Its layers may not be there, so the bundle must not promise them.
                continue;
            }
            Ok(Done::Written { blobs, bytes }) => {
                shared.written += 1;
                shared.blobs += blobs;
                shared.bytes += bytes;
            }
            Err(error) => {
                failed.insert(share.derivation, with_causes(&error));
                continue;
            }
        }
        // Without room in the bundle it is still found alone.
        let _ = bundled.insert(share.envelope);
    }
    shared.failed.extend(failed.into_iter().map(|(id, why)| format!("{id}: {why}")));
    let here = |digest: &BlobDigest| Some(std::fs::read(part(digest)?).ok()?.into());
    for subject in subjects {
        if let Err(error) = put_bundle(to, &bundled, &here, subject.tag(key.id())).await {
            shared.failed.push(format!("the bundle: {}", with_causes(&error)));
        }
    }
    shared
}

/// The bundles that the key's owner wrote before. One that cannot be read is none.
async fn bundles(to: &Arc<dyn Repository>, subjects: &[Subject], key: &PublicKey) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for subject in subjects {
        bundles.extend(bundle_at(to, subject.tag(key.id())).await);
    }
    bundles
}

/// Whether a bundle has a share's statement with all its signatures.
fn holds(bundles: &[Bundle], share: &Share) -> bool {
    let mut known = bundles.iter().flat_map(|bundle| bundle.of(&share.derivation));
    known.any(|known| {
        let has = |signature| known.signatures().contains(signature);
        known.payload() == share.envelope.payload()
            && known.payload_type() == share.envelope.payload_type()
            && share.envelope.signatures().iter().all(has)
    })
}

/// The small blobs that a bundle's attestations name.
fn small_parts(bundle: &Bundle) -> Vec<BlobDigest> {
    let attestations = bundle
        .envelopes()
        .filter_map(|envelope| Attestation::from_payload(envelope.payload()).ok());
    let parts = attestations.flat_map(|it| parts_of(it.realisation.outputs.values()));
    parts.filter(|part| part.size <= small_blobs::MOST).map(|part| part.digest).collect()
}

/// Writes a bundle with the small blobs that it names, unless it is there. Those that are not `here`
/// are taken over from what is there.
pub(super) async fn put_bundle(
    to: &Arc<dyn Repository>,
    bundle: &Bundle,
    here: &(dyn Fn(&BlobDigest) -> Option<Bytes> + Send + Sync),
    tag: Tag,
) -> Result<(), RegistryError> {
    let Ok(bytes) = bundle.encode() else { return Ok(()) };
    let bytes = Bytes::from(bytes);
    let mut layers = vec![Descriptor::of(bundle::MEDIA_TYPE, &bytes)];
    let there = to.manifest(&Target::Tag(tag.clone())).await?;
    let there = there.and_then(|manifest| layers_of(&manifest, BUNDLE_TYPE)).unwrap_or_default();
    let known = small_blobs_in(&there);
    let is_there = there.first().is_some_and(|there| there.is_same(&layers[0]));
    if is_there && known.is_some() {
        return Ok(());
    }
    let wanted = small_parts(bundle);
    if is_there && wanted.is_empty() {
        return Ok(());
    }
    let mut blobs = SmallBlobs::default();
    blobs.extend(wanted.iter().filter_map(here));
    let lacking: Vec<&BlobDigest> = wanted.iter().filter(|it| blobs.get(it).is_none()).collect();
    if let Some(known) = known.filter(|_| !lacking.is_empty())
        && let Ok(Some(known)) = small_blob(to, known).await
        && let Ok(known) = SmallBlobs::decode(&known)
    {
        blobs.extend(lacking.into_iter().filter_map(|digest| known.get(digest).cloned()));
    }
    if !blobs.is_empty() {
        let bytes = blobs.encode();
        layers.push(Descriptor::of(small_blobs::MEDIA_TYPE, &bytes));
        to.put_blob(&Upload::bytes(bytes)).await?;
    }
    to.put_blob(&Upload::bytes(bytes)).await?;
    to.put_manifest(&artifact(BUNDLE_TYPE, &layers), &[tag]).await
}

/// What sharing one realisation did.
enum Done {
    /// It is there with all its layers.
    Existed,
    /// Its writer says it there with other layers.
    Other,
    /// It was written, and so many blobs and bytes were sent.
    Written { blobs: u64, bytes: u64 },
}

/// Shares one realisation.
async fn share_one(
    to: &Arc<dyn Repository>,
    share: &Share,
    part: &Part<'_>,
    others: &[Arc<dyn Repository>],
    key: &PublicKey,
    sent: &Once,
) -> Result<Done, RegistryError> {
    let keys = share.envelope.signatures().iter().map(|signature| Some(signature.key));
    let keyless = share.is_pinned.then_some(None);
    let tags: Vec<Tag> =
        keys.chain(keyless).map(|key| realisation_tag(&share.derivation, key)).collect();
    let envelope = Bytes::from(share.envelope.to_json());
    let mut layers = vec![Descriptor::embedding(ENVELOPE_MEDIA_TYPE, &envelope)];
    layers.extend(parts_of(&share.outputs).into_iter().map(|layer| match share.is_whole {
        true => embedded(layer, part),
        false => layer,
    }));
    let mut missing = Vec::new();
    let mut has_others = false;
    for tag in tags {
        let there = match share.is_lost {
            true => None,
            false => to.manifest(&Target::Tag(tag.clone())).await?,
        };
        let there = there.and_then(|manifest| layers_of(&manifest, REALISATION_TYPE));
        // A valid tag is rewritten only to add a compression.
        match there {
            Some(there) if are_same(&there, &layers) => {}
            Some(there)
                if there.len() >= layers.len() && is_valid(to, &there, share, key).await? =>
            {
                let has = |layer: &Descriptor| there.iter().any(|it| it.is_same(layer));
                has_others |= !layers[1..].iter().all(has);
            }
            _ => missing.push(tag),
        }
    }
    if missing.is_empty() {
        return Ok(if has_others { Done::Other } else { Done::Existed });
    }
    let pushed: Vec<u64> = futures_util::stream::iter(&layers)
        .map(|layer| {
            let envelope = envelope.clone();
            sent.send(&layer.digest, async move || {
                let upload = match layer.media_type == ENVELOPE_MEDIA_TYPE {
                    true => Upload::bytes(envelope),
                    false => upload(layer, part, others).await?,
                };
                to.put_blob(&upload).await
            })
            .map_ok(|stored| if stored == Some(Stored::Pushed) { layer.size } else { 0 })
        })
        .buffer_unordered(4)
        .try_collect()
        .await?;
    to.put_manifest(&artifact(REALISATION_TYPE, &layers), &missing).await?;
    let blobs = pushed.iter().filter(|size| **size > 0).count() as u64;
    Ok(Done::Written { blobs, bytes: pushed.iter().sum() })
}

/// The blobs that were sent. Realisations have parts in common, and a registry may refuse a manifest
/// whose blob is at that moment written again.
#[derive(Default)]
pub(super) struct Once(Mutex<HashMap<BlobDigest, Arc<OnceCell<()>>>>);

impl Once {
    /// Sends a blob, waits for who sends it, or does nothing because it was sent; `None` unless it
    /// was sent now. A failure is the caller's own: who waited tries in its turn.
    pub(super) async fn send(
        &self,
        digest: &BlobDigest,
        send: impl AsyncFnOnce() -> Result<Stored, RegistryError>,
    ) -> Result<Option<Stored>, RegistryError> {
        let cell = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(*digest).or_default())
        };
        let mut done = None;
        cell.get_or_try_init(async || {
            done = Some(send().await?);
            Ok(())
        })
        .await?;
        Ok(done)
    }
}

/// The most bytes of a part that a manifest carries along: well below what registries accept.
const MOST_EMBEDDED: u64 = 256 << 10;

/// A part with its bytes, if these are here and few.
fn embedded(layer: Descriptor, part: &Part<'_>) -> Descriptor {
    let path = part(&layer.digest).filter(|_| layer.size <= MOST_EMBEDDED);
    match path.and_then(|path| std::fs::read(path).ok()) {
        Some(bytes) => Descriptor::embedding(&layer.media_type, &bytes),
        None => layer,
    }
}

fn are_same(there: &[Descriptor], layers: &[Descriptor]) -> bool {
    there.len() == layers.len()
        && there.iter().zip(layers).all(|(there, layer)| there.is_same(layer))
}

/// Whether an artifact under a realisation's tag is about that realisation, and signed if it should
/// be by `key`. What others signed is for those to judge who know their keys.
async fn is_valid(
    to: &Arc<dyn Repository>,
    layers: &[Descriptor],
    share: &Share,
    key: &PublicKey,
) -> Result<bool, RegistryError> {
    let most = MAX_ENVELOPE as u64;
    let Some(layer) = layer_of_type(layers, ENVELOPE_MEDIA_TYPE, most) else {
        return Ok(false);
    };
    // What cannot be read is worth as little as what is not there.
    let Ok(Some(bytes)) = small_blob(to, layer).await else { return Ok(false) };
    let Ok(envelope) = Envelope::parse(&bytes) else { return Ok(false) };
    if claimed_derivation(&envelope) != Some(share.derivation) {
        return Ok(false);
    }
    let message = envelope.signed_bytes();
    let mut own = envelope.signatures().iter().filter(|signature| signature.key == key.id());
    Ok(own.all(|signature| key.verifies(&message, &signature.bytes)))
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
