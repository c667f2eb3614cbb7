//! What a cache holds, read from its tags and manifests. Nobody has vouched for any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::with_causes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::{
    BUNDLE_TYPE, ENVELOPE_MEDIA_TYPE, REALISATION_TYPE, Subject, bundle_in, layer_of_type,
    layers_of, small_blobs_in,
};
use crate::bundle::Bundle;
use crate::descriptor::{Descriptor, Manifest};
use crate::error::RegistryError;
use crate::key::KeyId;
use crate::reference::{Tag, Target};
use crate::repository::Repository;
use crate::small_blobs::SmallBlobs;

/// Manifests that are read at once.
const AT_ONCE: usize = 32;

/// What a tag of a cache stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// What a key's owner, or without a key anybody, says that a derivation gave.
    Realisation {
        /// The derivation.
        derivation: DerivationId,
        /// The key.
        key: Option<KeyId>,
    },
    /// The attestations of an image.
    Bundle {
        /// The hash of the image's name and platform: [`Subject::hash`].
        image: String,
        /// The key of whoever wrote it.
        key: KeyId,
    },
}

impl Named {
    /// Reads a tag; `None` for tags that are no cache's.
    pub fn of(tag: &Tag) -> Option<Self> {
        let mut parts = tag.as_str().split('-');
        let (kind, name, key) = (parts.next()?, parts.next()?, parts.next());
        let key = match key {
            Some(text) => Some(text.parse::<KeyId>().ok()?),
            None => None,
        };
        if parts.next().is_some() {
            return None;
        }
        match kind {
            "drv" => Some(Self::Realisation { derivation: name.parse().ok()?, key }),
            "bundle" if name.len() == 32 => {
                Some(Self::Bundle { image: name.to_owned(), key: key? })
            }
            _ => None,
        }
    }
}

/// The artifact of a realisation.
#[derive(Debug, Clone)]
pub struct HeldRealisation {
    /// Its tag.
    pub tag: Tag,
    /// The derivation that the tag names.
    pub derivation: DerivationId,
    /// The key that the tag names.
    pub key: Option<KeyId>,
    /// The artifact's manifest.
    pub manifest: Manifest,
    /// Its layers: the attestation, listings, layers.
    pub layers: Vec<Descriptor>,
}

impl HeldRealisation {
    /// Where the attestation is.
    pub fn envelope(&self) -> Option<(BlobDigest, u64)> {
        let most = crate::dsse::MAX_ENVELOPE as u64;
        let layer = layer_of_type(&self.layers, ENVELOPE_MEDIA_TYPE, most)?;
        Some((layer.digest, layer.size))
    }
}

/// The artifact of a bundle.
#[derive(Debug, Clone)]
pub struct HeldBundle {
    /// Its tag.
    pub tag: Tag,
    /// The hash of the image.
    pub image: String,
    /// The key of whoever wrote it.
    pub key: KeyId,
    /// The artifact's manifest.
    pub manifest: Manifest,
    /// The attestations.
    pub bundle: Bundle,
    /// The blobs that come with them.
    pub small: SmallBlobs,
}

/// A tag whose artifact cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The tag.
    pub tag: String,
    /// The manifest, where there is one.
    pub manifest: Option<BlobDigest>,
    /// Why.
    pub reason: String,
}

/// What a cache holds.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Realisations, by tag.
    pub realisations: Vec<HeldRealisation>,
    /// Bundles, by tag.
    pub bundles: Vec<HeldBundle>,
    /// Tags whose artifacts cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Tags that are no cache's, such as those of images.
    pub others: usize,
}

/// One artifact as it was read.
enum Read {
    Realisation(HeldRealisation),
    Bundle(HeldBundle),
    Unreadable(Unreadable),
}

impl Inventory {
    /// Reads what a cache holds: all of it, or what some images' bundles name.
    ///
    /// # Errors
    /// A cache that cannot be asked. What it answers wrongly is in [`Inventory::unreadable`].
    pub async fn read(
        cache: &Arc<dyn Repository>,
        subjects: Option<&[Subject]>,
    ) -> Result<Self, RegistryError> {
        let mut inventory = Self::default();
        let (mut realisations, mut bundles) = (Vec::new(), Vec::new());
        let images: Option<BTreeSet<String>> =
            subjects.map(|subjects| subjects.iter().map(Subject::hash).collect());
        for tag in cache.tags().await? {
            match Named::of(&tag) {
                Some(Named::Realisation { derivation, key }) => {
                    realisations.push((tag, derivation, key));
                }
                Some(Named::Bundle { image, key }) => {
                    if images.as_ref().is_none_or(|images| images.contains(&image)) {
                        bundles.push((tag, image, key));
                    }
                }
                None => inventory.others += 1,
            }
        }
        let asked =
            bundles.into_iter().map(|(tag, image, key)| read_bundle(cache, tag, image, key));
        inventory.add(futures_util::stream::iter(asked).buffered(AT_ONCE).try_collect().await?);
        if subjects.is_some() {
            let wanted: BTreeSet<DerivationId> = inventory.bundled().collect();
            realisations.retain(|(_, derivation, _)| wanted.contains(derivation));
        }
        let asked = realisations
            .into_iter()
            .map(|(tag, derivation, key)| read_realisation(cache, tag, derivation, key));
        inventory.add(futures_util::stream::iter(asked).buffered(AT_ONCE).try_collect().await?);
        Ok(inventory)
    }

    fn add(&mut self, read: Vec<Read>) {
        for one in read {
            match one {
                Read::Realisation(realisation) => self.realisations.push(realisation),
                Read::Bundle(bundle) => self.bundles.push(bundle),
                Read::Unreadable(unreadable) => self.unreadable.push(unreadable),
            }
        }
    }

    /// The derivations that bundles hold attestations of.
    pub fn bundled(&self) -> impl Iterator<Item = DerivationId> {
        self.bundles.iter().flat_map(|held| held.bundle.derivations().copied())
    }

    /// The derivations that realisations have tags for.
    pub fn derivations(&self) -> BTreeSet<DerivationId> {
        self.realisations.iter().map(|held| held.derivation).collect()
    }

    /// The keys that tags name.
    pub fn keys(&self) -> BTreeSet<KeyId> {
        let of_bundles = self.bundles.iter().map(|held| held.key);
        self.realisations.iter().filter_map(|held| held.key).chain(of_bundles).collect()
    }

    /// All blobs that manifests name, each once, with their sizes.
    pub fn blobs(&self) -> BTreeMap<BlobDigest, u64> {
        let layers = self.realisations.iter().flat_map(|held| &held.layers);
        layers.map(|layer| (layer.digest, layer.size)).collect()
    }
}

fn unreadable(tag: &Tag, manifest: Option<BlobDigest>, reason: impl Into<String>) -> Read {
    Read::Unreadable(Unreadable { tag: tag.to_string(), manifest, reason: reason.into() })
}

/// The manifest of a tag; what is wrong with it is an answer, what keeps from asking an error.
async fn manifest_of(
    cache: &Arc<dyn Repository>,
    tag: &Tag,
) -> Result<Result<Manifest, Read>, RegistryError> {
    match cache.manifest(&Target::Tag(tag.clone())).await {
        Ok(Some(manifest)) => Ok(Ok(manifest)),
        Ok(None) => Ok(Err(unreadable(tag, None, "its manifest is not there"))),
        Err(error) if error.is_answer() => Ok(Err(unreadable(tag, None, with_causes(&error)))),
        Err(error) => Err(error),
    }
}

async fn read_realisation(
    cache: &Arc<dyn Repository>,
    tag: Tag,
    derivation: DerivationId,
    key: Option<KeyId>,
) -> Result<Read, RegistryError> {
    let manifest = match manifest_of(cache, &tag).await? {
        Ok(manifest) => manifest,
        Err(unreadable) => return Ok(unreadable),
    };
    match layers_of(&manifest, REALISATION_TYPE) {
        Some(layers) => {
            Ok(Read::Realisation(HeldRealisation { tag, derivation, key, manifest, layers }))
        }
        None => {
            Ok(unreadable(&tag, Some(manifest.digest), "its manifest is not one of a realisation"))
        }
    }
}

async fn read_bundle(
    cache: &Arc<dyn Repository>,
    tag: Tag,
    image: String,
    key: KeyId,
) -> Result<Read, RegistryError> {
    let manifest = match manifest_of(cache, &tag).await? {
        Ok(manifest) => manifest,
        Err(unreadable) => return Ok(unreadable),
    };
    let digest = Some(manifest.digest);
    let layers = layers_of(&manifest, BUNDLE_TYPE).unwrap_or_default();
    let Some(layer) = bundle_in(&layers) else {
        return Ok(unreadable(&tag, digest, "its manifest is not one of a bundle"));
    };
    let bytes = match part_of_bundle(cache, layer).await? {
        Ok(bytes) => bytes,
        Err(reason) => return Ok(unreadable(&tag, digest, reason)),
    };
    let bundle = match Bundle::decode(&bytes) {
        Ok(bundle) => bundle,
        Err(error) => return Ok(unreadable(&tag, digest, with_causes(&error))),
    };
    let mut small = SmallBlobs::default();
    if let Some(layer) = small_blobs_in(&layers) {
        let bytes = part_of_bundle(cache, layer).await?;
        let read =
            bytes.and_then(|bytes| SmallBlobs::decode(&bytes).map_err(|error| with_causes(&error)));
        match read {
            Ok(blobs) => small = blobs,
            Err(reason) => return Ok(unreadable(&tag, digest, reason)),
        }
    }
    Ok(Read::Bundle(HeldBundle { tag, image, key, manifest, bundle, small }))
}

/// A blob that a bundle's manifest names, or why it cannot be had.
async fn part_of_bundle(
    cache: &Arc<dyn Repository>,
    layer: &Descriptor,
) -> Result<Result<Bytes, String>, RegistryError> {
    match cache.blob_bytes(&layer.digest, layer.size).await {
        Ok(Some(bytes)) => Ok(Ok(bytes)),
        Ok(None) => Ok(Err(format!("its blob {} is not there", layer.digest))),
        Err(error) if error.is_answer() => Ok(Err(with_causes(&error))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::realisation_tag;
    use super::*;
    use crate::key::SecretKey;

    #[test]
    fn tags_are_read_as_they_are_written() {
        let key = SecretKey::from_seed("ci", &[1; 32]).unwrap().public().id();
        let derivation = DerivationId::of(b"{}");
        for key in [None, Some(key)] {
            let named = Named::of(&realisation_tag(&derivation, key));
            assert_eq!(named, Some(Named::Realisation { derivation, key }));
        }
        let subject = Subject { image: "shop".into(), platform: "linux/amd64".into() };
        let named = Named::of(&subject.tag(key));
        assert_eq!(named, Some(Named::Bundle { image: subject.hash(), key }));
        for other in ["latest", "drv-x", "drv", "1.0-2", "bundle-00-11", "sha256-00"] {
            assert_eq!(Named::of(&Tag::new(other).unwrap()), None, "{other}");
        }
        let longer = format!("{}-more", realisation_tag(&derivation, Some(key)));
        assert_eq!(Named::of(&Tag::new(&longer).unwrap()), None);
    }
}
