//! The binary cache: realisations as artifacts of a repository (`docs/formats/binary-cache.md`).
//!
//! ```text
//! find:       bundle of the image ──miss──> drv-ID-KEY of each trusted key ──> signatures, agreement
//! share:      what was built here, signed; what came from others, unchanged ──> artifacts, bundle
//! inventory:  tags ──> manifests and bundles ──> check: every byte again
//!                                            ├─> sync:  into another cache, unchanged
//!                                            └─> prune: what no bundle names
//! ```

mod check;
mod find;
mod inventory;
mod prune;
mod share;
mod sync;

use std::sync::Arc;

use bytes::Bytes;
use drystone_store::digest::DerivationId;
use drystone_store::realisation::Output;
use serde_json::{Value, json};

use crate::bundle::{self, Bundle};
use crate::descriptor::{Descriptor, EMPTY_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Manifest};
use crate::error::RegistryError;
use crate::key::KeyId;
use crate::reference::{Tag, Target};
use crate::repository::Repository;
use crate::small_blobs;

pub use check::{Checked, Problem, ProblemKind, Repaired, check, repair};
pub use find::{Caches, Looked};
pub use inventory::{HeldBundle, HeldRealisation, Inventory, Named, Unreadable};
pub use prune::{Prunable, Pruned, prunable, prune};
pub use share::{Part, Share, Shared, share};
pub use sync::{Synced, sync};

/// The type of a realisation's artifact.
pub const REALISATION_TYPE: &str = "application/vnd.drystone.realisation.v1+json";
/// The type of a bundle's artifact.
pub const BUNDLE_TYPE: &str = "application/vnd.drystone.bundle.v1";
/// The media type of an attestation.
pub const ENVELOPE_MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The media type of a listing.
pub const LISTING_MEDIA_TYPE: &str = "application/vnd.drystone.listing.v1+gzip";

/// An image on one platform, whose bundle is asked first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The image's name.
    pub image: String,
    /// `os/architecture`.
    pub platform: String,
}

impl Subject {
    /// The hash that stands for it in tags.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.image.as_bytes());
        hasher.update(&[0]);
        hasher.update(self.platform.as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The tag of the bundle that a key's owner wrote.
    pub fn tag(&self, key: KeyId) -> Tag {
        tag(format!("bundle-{}-{key}", self.hash()))
    }
}

/// The tag of what a key's owner says that a derivation gave; without a key, what anybody says.
pub fn realisation_tag(derivation: &DerivationId, key: Option<KeyId>) -> Tag {
    tag(match key {
        Some(key) => format!("drv-{derivation}-{key}"),
        None => format!("drv-{derivation}"),
    })
}

fn tag(text: String) -> Tag {
    Tag::new(&text).expect("base32, hex and hyphens make a tag of less than 128 characters")
}

/// The config of artifacts: `{}`, as the image specification has it.
pub(crate) fn empty_config() -> (Descriptor, Bytes) {
    let bytes = Bytes::from_static(b"{}");
    (Descriptor::of(EMPTY_MEDIA_TYPE, &bytes), bytes)
}

/// An artifact's manifest.
fn artifact(artifact_type: &str, layers: &[Descriptor]) -> Manifest {
    let descriptor = |it: &Descriptor| {
        let mut value = json!({"digest": it.digest, "mediaType": it.media_type, "size": it.size});
        if let Some(data) = &it.data {
            value["data"] = data.as_str().into();
        }
        value
    };
    let manifest = json!({
        "artifactType": artifact_type,
        "config": descriptor(&empty_config().0),
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
        "mediaType": MANIFEST_MEDIA_TYPE,
        "schemaVersion": 2,
    });
    Manifest::new(MANIFEST_MEDIA_TYPE, manifest.to_string())
}

/// What a realisation's artifact has behind its attestation: each output's listing and layers.
fn parts_of<'a>(outputs: impl IntoIterator<Item = &'a Output>) -> Vec<Descriptor> {
    let mut parts = Vec::new();
    for output in outputs {
        let listing = &output.listing;
        parts.push(Descriptor::new(LISTING_MEDIA_TYPE, listing.digest, listing.size));
        for layer in &output.layers {
            let media_type = layer.compression.media_type();
            parts.push(Descriptor::new(media_type, layer.digest, layer.size));
        }
    }
    parts
}

/// The layers of an artifact of a type; `None` when it is of another one.
fn layers_of(manifest: &Manifest, artifact_type: &str) -> Option<Vec<Descriptor>> {
    let value = manifest.json().ok()?;
    if value.get("artifactType").and_then(Value::as_str) != Some(artifact_type) {
        return None;
    }
    let layers = value.get("layers")?.as_array()?;
    layers.iter().map(|layer| serde_json::from_value(layer.clone()).ok()).collect()
}

/// The first layer of a media type, if it is not larger than `most`.
fn layer_of_type<'a>(
    layers: &'a [Descriptor],
    media_type: &str,
    most: u64,
) -> Option<&'a Descriptor> {
    let layer = layers.iter().find(|layer| layer.media_type == media_type)?;
    (layer.size <= most).then_some(layer)
}

/// Where a bundle's manifest has the attestations.
fn bundle_in(layers: &[Descriptor]) -> Option<&Descriptor> {
    layer_of_type(layers, bundle::MEDIA_TYPE, bundle::MAX_BUNDLE)
}

/// Where a bundle's manifest has the small blobs that come with it.
fn small_blobs_in(layers: &[Descriptor]) -> Option<&Descriptor> {
    layer_of_type(layers, small_blobs::MEDIA_TYPE, small_blobs::MAX_ALL)
}

/// The bundle under a tag; one that cannot be read is none.
async fn bundle_at(repository: &Arc<dyn Repository>, tag: Tag) -> Option<Bundle> {
    let manifest = repository.manifest(&Target::Tag(tag)).await.ok()??;
    let layers = layers_of(&manifest, BUNDLE_TYPE)?;
    let bytes = small_blob(repository, bundle_in(&layers)?).await.ok()??;
    Bundle::decode(&bytes).ok()
}

/// The bytes of a small blob: those that its descriptor carries, else the repository's.
async fn small_blob(
    repository: &Arc<dyn Repository>,
    descriptor: &Descriptor,
) -> Result<Option<Bytes>, RegistryError> {
    match descriptor.embedded() {
        Some(bytes) => Ok(Some(bytes)),
        None => repository.blob_bytes(&descriptor.digest, descriptor.size).await,
    }
}
