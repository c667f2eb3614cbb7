//! Descriptors and manifests, as far as a repository must understand them.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use drystone_store::digest::BlobDigest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The media type of an image manifest, which artifacts use too.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index of manifests.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's media type of an image manifest.
pub const DOCKER_MANIFEST_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's media type of an index of manifests.
pub const DOCKER_LIST_MEDIA_TYPE: &str =
    "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of a config that says nothing, as artifacts have it.
pub const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The most bytes of a manifest that are read or written: what registries accept.
pub const MOST_MANIFEST_BYTES: u64 = 4 << 20;

/// A reference to a blob or a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// SHA-256 of the content.
    pub digest: BlobDigest,
    /// The content's size in bytes.
    pub size: u64,
    /// For manifests of artifacts: what kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Facts about the content.
    #[serde(
        default,
        deserialize_with = "null_is_none",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64, where it is small: it saves a request (the image
    /// specification's embedded content). What it says it is must be checked as any other bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The platform that a manifest is for, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Value>,
}

/// Some registries write null where there are no annotations.
fn null_is_none<'de, D: serde::Deserializer<'de>>(
    value: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Descriptor {
    /// Describes content that is in memory.
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self::new(media_type, BlobDigest::of(content), content.len() as u64)
    }

    /// Describes content by what is known of it.
    pub fn new(media_type: &str, digest: BlobDigest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
        }
    }

    /// Describes content that is carried along.
    pub fn embedding(media_type: &str, content: &[u8]) -> Self {
        let data = Some(BASE64.encode(content));
        Self { data, ..Self::of(media_type, content) }
    }

    /// The content that is carried along, if it is what it says it is.
    pub fn embedded(&self) -> Option<Bytes> {
        let content = BASE64.decode(self.data.as_ref()?.as_bytes()).ok()?;
        let is_right = content.len() as u64 == self.size && BlobDigest::of(&content) == self.digest;
        is_right.then(|| content.into())
    }

    /// Whether both mean the same bytes as the same thing.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.media_type, self.digest, self.size) == (&other.media_type, other.digest, other.size)
    }
}

/// A manifest: its exact bytes, which are its identity, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: BlobDigest,
    /// The bytes.
    pub bytes: Bytes,
}

impl Manifest {
    /// Names bytes by their digest.
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.into(), digest: BlobDigest::of(&bytes), bytes }
    }

    /// Reads the bytes as JSON.
    ///
    /// # Errors
    /// Bytes that are no JSON, or nested too deep.
    pub fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }

    /// The descriptor of this manifest, with artifact type and annotations as a list of referrers
    /// holds them: the artifact's own type, else the type of its config.
    pub(crate) fn descriptor(&self) -> Descriptor {
        let mut descriptor =
            Descriptor::new(&self.media_type, self.digest, self.bytes.len() as u64);
        let Ok(Shape { artifact_type, config, annotations, .. }) = self.shape() else {
            return descriptor;
        };
        let own = artifact_type.filter(|kind| !kind.is_empty());
        descriptor.artifact_type = own.or_else(|| Some(config?.media_type));
        descriptor.annotations = annotations.unwrap_or_default();
        descriptor
    }

    /// The manifest that this one is about, if it is.
    pub(crate) fn subject(&self) -> Option<BlobDigest> {
        Some(self.shape().ok()?.subject?.digest)
    }

    pub(crate) fn shape(&self) -> Result<Shape, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }
}

/// What a repository reads of a manifest; all else is for its readers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shape {
    pub(crate) media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Kind>,
    subject: Option<Subject>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: BlobDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referrer_is_described_by_its_own_type_or_its_configs() {
        let subject = BlobDigest::of(b"subject");
        let with = |own: &str| {
            let text = format!(
                r#"{{"schemaVersion":2{own},"config":{{"mediaType":"a/config","size":2,"digest":"{subject}"}},
                "subject":{{"mediaType":"x/y","digest":"{subject}","size":1}},"annotations":{{"k":"v"}}}}"#
            );
            Manifest::new(MANIFEST_MEDIA_TYPE, text)
        };
        let plain = with("");
        assert_eq!(plain.subject(), Some(subject));
        assert_eq!(plain.descriptor().artifact_type.as_deref(), Some("a/config"));
        assert_eq!(plain.descriptor().annotations["k"], "v");
        let own = with(r#","artifactType":"a/own""#);
        assert_eq!(own.descriptor().artifact_type.as_deref(), Some("a/own"));
        assert_eq!(own.descriptor().size, own.bytes.len() as u64);
    }

    #[test]
    fn what_is_no_manifest_has_no_subject() {
        let deep = "[".repeat(100_000);
        for text in ["", "[]", "{\"subject\":7}", "\"x\"", "{\"subject\":{}}", &deep] {
            assert_eq!(Manifest::new("x/y", text.to_owned()).subject(), None);
        }
    }
}
