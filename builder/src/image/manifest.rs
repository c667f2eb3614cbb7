//! The image manifest and index of the OCI image specification 1.1, and a whole image as a value.
//!
//! Serialised like the configuration: fixed field order, sorted maps, no white space.

use std::collections::BTreeMap;

use drystone_store::digest::BlobDigest;
use serde::Serialize;
use serde_json::{Map, Value};

use super::config::rfc3339;
use super::inherit::inherited_json;
use super::{ImageConfig, ImageError, LayerRef, Platform};

/// The media type of an image configuration.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of the manifest of one platform's image.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index of manifests.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The annotation that holds an image's creation time, written unless the user sets it.
pub const CREATED_ANNOTATION: &str = "org.opencontainers.image.created";
/// The annotation that holds the digest of the manifest of the base image.
pub const BASE_ANNOTATION: &str = "org.opencontainers.image.base.digest";

/// A JSON document that is stored as a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonBlob {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub digest: BlobDigest,
}

impl JsonBlob {
    /// Names these bytes by their digest.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: BlobDigest::of(&bytes), bytes }
    }

    /// The number of bytes.
    pub const fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// A reference to a blob, as manifests and indexes hold them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// The blob's media type.
    #[serde(rename = "mediaType")]
    pub media_type: &'static str,
    /// The blob's digest.
    pub digest: BlobDigest,
    /// The blob's size in bytes.
    pub size: u64,
    /// Facts about the blob.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform that a manifest is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    const fn new(media_type: &'static str, digest: BlobDigest, size: u64) -> Self {
        Self { media_type, digest, size, annotations: BTreeMap::new(), platform: None }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument<'a> {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// Serialises an index of manifests.
pub(crate) fn index_json(
    manifests: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Vec<u8> {
    let media_type = INDEX_MEDIA_TYPE;
    let document = IndexDocument { schema_version: 2, media_type, manifests, annotations };
    serde_json::to_vec(&document).expect("strings, numbers and string keys always serialise")
}

/// The image of one platform: its two documents and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The platform that the image is for.
    pub platform: Platform,
    /// The configuration, whose digest older engines show as the image's id.
    pub config: JsonBlob,
    /// The manifest, whose digest names the image.
    pub manifest: JsonBlob,
    /// The layers, lowest first.
    pub layers: Vec<LayerRef>,
}

impl Image {
    /// Describes the image of `config` over `layers` (lowest first).
    ///
    /// `annotations` go into the manifest; the creation time is added unless it is among them.
    /// Names and tags belong nowhere in here: they never change an image's digest.
    ///
    /// # Errors
    /// What [`ImageConfig::to_json`] refuses; layers that contradict each other.
    pub fn assemble(
        config: &ImageConfig,
        annotations: &BTreeMap<String, String>,
        layers: Vec<LayerRef>,
    ) -> Result<Self, ImageError> {
        let document = config.to_json(&layers)?;
        Self::of_config(config, document, annotations.clone(), layers)
    }

    /// Describes the image of `config` over a base image: the first `below` of `layers` are the
    /// base's, whose configuration is `base` and whose manifest has the digest `digest`.
    ///
    /// # Errors
    /// As [`Self::assemble`].
    pub fn assemble_over(
        (base, digest, below): (&Map<String, Value>, &BlobDigest, usize),
        config: &ImageConfig,
        annotations: &BTreeMap<String, String>,
        layers: Vec<LayerRef>,
    ) -> Result<Self, ImageError> {
        let document = inherited_json(base, below, config, &layers)?;
        let mut annotations = annotations.clone();
        let named = annotations.entry(BASE_ANNOTATION.to_owned());
        named.or_insert_with(|| digest.to_string());
        Self::of_config(config, document, annotations, layers)
    }

    fn of_config(
        config: &ImageConfig,
        document: Vec<u8>,
        mut annotations: BTreeMap<String, String>,
        layers: Vec<LayerRef>,
    ) -> Result<Self, ImageError> {
        check_layers(&layers)?;
        let config_blob = JsonBlob::new(document);
        if !annotations.contains_key(CREATED_ANNOTATION) {
            annotations.insert(CREATED_ANNOTATION.to_owned(), rfc3339(config.created)?);
        }
        let describe =
            |layer: &LayerRef| Descriptor::new(layer.media_type, layer.digest, layer.size);
        let document = ManifestDocument {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE,
            config: Descriptor::new(CONFIG_MEDIA_TYPE, config_blob.digest, config_blob.size()),
            layers: layers.iter().map(describe).collect(),
            annotations: &annotations,
        };
        let bytes = serde_json::to_vec(&document)
            .expect("strings, numbers and string keys always serialise");
        Ok(Self {
            platform: config.platform.clone(),
            config: config_blob,
            manifest: JsonBlob::new(bytes),
            layers,
        })
    }

    /// The manifest's descriptor, as an index holds it.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor =
            Descriptor::new(MANIFEST_MEDIA_TYPE, self.manifest.digest, self.manifest.size());
        descriptor.platform = Some(self.platform.clone());
        descriptor
    }
}

/// One digest must mean one layer: a caller's mistake here would surface in some engine, much later.
fn check_layers(layers: &[LayerRef]) -> Result<(), ImageError> {
    let mut known = BTreeMap::new();
    for layer in layers {
        let facts = (layer.size, layer.diff_id, layer.media_type);
        if *known.entry(layer.digest).or_insert(facts) != facts {
            return Err(ImageError::LayerMismatch { digest: layer.digest });
        }
    }
    Ok(())
}

/// What one image.toml makes: an image for each platform, under an index when there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    images: Vec<Image>,
    index: Option<JsonBlob>,
}

impl ImageSet {
    /// Gathers the images of all platforms, in the order that the user gave the platforms in.
    ///
    /// A single image stands alone; several come under an index, which is then what the name means.
    ///
    /// # Errors
    /// No image, or two for one platform.
    pub fn new(images: Vec<Image>) -> Result<Self, ImageError> {
        for (position, image) in images.iter().enumerate() {
            if images[..position].iter().any(|earlier| earlier.platform == image.platform) {
                return Err(ImageError::DuplicatePlatform { platform: image.platform.to_string() });
            }
        }
        let index = match images.len() {
            0 => return Err(ImageError::EmptySet),
            1 => None,
            _ => {
                let descriptors: Vec<_> = images.iter().map(Image::descriptor).collect();
                Some(JsonBlob::new(index_json(&descriptors, &BTreeMap::new())))
            }
        };
        Ok(Self { images, index })
    }

    /// The images, in the order of the platforms; never empty.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The index over the images, when there are several.
    pub const fn index(&self) -> Option<&JsonBlob> {
        self.index.as_ref()
    }

    /// The document that the image's name means: the index, or the only image's manifest.
    pub fn top(&self) -> &JsonBlob {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }

    /// The digest that `NAME:TAG@DIGEST` shows.
    pub fn digest(&self) -> BlobDigest {
        self.top().digest
    }

    /// The descriptor of [`Self::top`].
    pub fn descriptor(&self) -> Descriptor {
        match &self.index {
            Some(index) => Descriptor::new(INDEX_MEDIA_TYPE, index.digest, index.size()),
            None => self.images[0].descriptor(),
        }
    }

    /// All JSON blobs, each once: configurations and manifests by platform, then the index.
    pub fn documents(&self) -> Vec<&JsonBlob> {
        let mut seen = std::collections::BTreeSet::new();
        let of_images = self.images.iter().flat_map(|image| [&image.config, &image.manifest]);
        of_images.chain(&self.index).filter(|blob| seen.insert(blob.digest)).collect()
    }

    /// All layers, each once, in order of first use.
    pub fn layers(&self) -> Vec<&LayerRef> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.images.iter().flat_map(|image| &image.layers);
        all.filter(|layer| seen.insert(layer.digest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use drystone_store::digest::DiffId;

    use super::*;
    use crate::image::Compression;

    fn layer(number: u8) -> LayerRef {
        LayerRef {
            digest: BlobDigest::from_bytes([number; 32]),
            size: 1000 + u64::from(number),
            diff_id: DiffId::from_bytes([number + 100; 32]),
            uncompressed_size: Some(4096),
            media_type: match number % 2 {
                1 => Compression::Gzip1.media_type(),
                _ => Compression::Zstd1.media_type(),
            },
            title: format!("layer {number}"),
        }
    }

    fn image(platform: &str) -> Image {
        let config = ImageConfig::new(platform.parse().unwrap(), 1_686_384_000);
        let annotations = [
            ("org.opencontainers.image.source", "https://example.com/app"),
            ("org.opencontainers.image.licenses", "MIT"),
        ];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Image::assemble(&config, &annotations, vec![layer(1), layer(2), layer(1)]).unwrap()
    }

    fn text(blob: &JsonBlob) -> &str {
        std::str::from_utf8(&blob.bytes).unwrap()
    }

    /// Freezes the bytes that name every image. A change here changes every image's digest.
    #[test]
    fn golden_manifest() {
        insta::assert_snapshot!(text(&image("linux/amd64").manifest));
    }

    #[test]
    fn golden_index() {
        let set = ImageSet::new(vec![image("linux/amd64"), image("linux/arm64")]).unwrap();
        insta::assert_snapshot!(text(set.top()));
        assert_eq!(set.documents().len(), 5);
        assert_eq!(set.layers().len(), 2, "each layer is listed once");
    }

    #[test]
    fn a_single_image_stands_without_an_index() {
        let set = ImageSet::new(vec![image("linux/amd64")]).unwrap();
        assert_eq!(set.digest(), set.images()[0].manifest.digest);
        assert_eq!(set.descriptor().media_type, MANIFEST_MEDIA_TYPE);
    }

    #[test]
    fn the_users_creation_time_wins() {
        let config = ImageConfig::new("linux/amd64".parse().unwrap(), 0);
        let annotations = [(CREATED_ANNOTATION.to_owned(), "2020-01-01T00:00:00Z".to_owned())];
        let image = Image::assemble(&config, &annotations.into(), vec![]).unwrap();
        assert!(text(&image.manifest).contains("2020-01-01"));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(matches!(ImageSet::new(vec![]), Err(ImageError::EmptySet)));
        let twice = vec![image("linux/amd64"), image("linux/amd64")];
        assert!(matches!(ImageSet::new(twice), Err(ImageError::DuplicatePlatform { .. })));
        let config = ImageConfig::new("linux/amd64".parse().unwrap(), 0);
        let mut other = layer(1);
        other.size += 1;
        let result = Image::assemble(&config, &BTreeMap::new(), vec![layer(1), other]);
        assert!(matches!(result, Err(ImageError::LayerMismatch { .. })));
    }
}
