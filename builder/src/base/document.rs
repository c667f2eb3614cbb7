//! Manifests, indexes and configurations as other tools write them, in OCI's form or docker's.
//!
//! Only what is needed is read, and nothing is written again: raw bytes are kept by their digest.

use drystone_store::digest::{BlobDigest, DiffId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::spec::Platform;

/// The largest configuration that is read, in bytes.
pub(super) const MOST_CONFIG_BYTES: u64 = 8 << 20;
/// The largest manifest, in bytes: what registries accept.
pub(super) const MOST_MANIFEST_BYTES: u64 = 4 << 20;

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A reference to a document or a layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reference {
    pub(super) media_type: String,
    pub(super) digest: BlobDigest,
    pub(super) size: u64,
    platform: Option<DocumentPlatform>,
}

#[derive(Debug, Clone, Deserialize)]
struct DocumentPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

/// A manifest or an index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    config: Option<Reference>,
    layers: Option<Vec<Reference>>,
    manifests: Option<Vec<Reference>>,
}

/// What a digest or a tag names.
#[derive(Debug)]
pub(super) enum Top {
    /// Images for several platforms.
    Index(Vec<Reference>),
    /// An image.
    Manifest(ImageManifest),
}

/// The manifest of an image.
#[derive(Debug)]
pub(super) struct ImageManifest {
    pub(super) config: Reference,
    pub(super) layers: Vec<Reference>,
}

/// Reads a manifest or an index; what it is shows in its members, whatever type was announced.
pub(super) fn top(bytes: &[u8]) -> Result<Top, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match document {
        Document { schema_version: 1, .. } => {
            Err("it is in docker's old form, schema 1".to_owned())
        }
        Document { manifests: Some(manifests), .. } => Ok(Top::Index(manifests)),
        Document { config: Some(config), layers: Some(layers), .. } => {
            Ok(Top::Manifest(ImageManifest { config, layers }))
        }
        _ => Err("it is neither an image's manifest nor an index".to_owned()),
    }
}

impl ImageManifest {
    /// Why this is no image, if it is none.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.config.media_type.as_str() {
            OCI_CONFIG | DOCKER_CONFIG => None,
            other => Some(format!("it is no image, but an artifact whose config is {other}")),
        }
    }
}

/// The media type that a layer of a base has in our manifests: docker's types name the same bytes
/// as OCI's, and one manifest speaks one language.
pub(super) fn layer_media_type(text: &str) -> Result<&'static str, String> {
    const FOREIGN: &str = "which only its own server may hand out, so that it cannot be copied";
    match text {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => {
            Ok("application/vnd.oci.image.layer.v1.tar")
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Ok("application/vnd.oci.image.layer.v1.tar+gzip")
        }
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            Ok("application/vnd.oci.image.layer.v1.tar+zstd")
        }
        _ if text.contains("foreign") || text.contains("nondistributable") => {
            Err(format!("a layer is of the type {text}, {FOREIGN}"))
        }
        _ => Err(format!("a layer is of the unknown type {text}")),
    }
}

impl DocumentPlatform {
    fn name(&self) -> String {
        let variant = self.variant.as_deref().map_or_else(String::new, |it| format!("/{it}"));
        format!("{}/{}{variant}", self.os, self.architecture)
    }

    /// How well it fits: 0 is best.
    fn fitness(&self, wanted: Platform) -> Option<u8> {
        if self.os != wanted.operating_system() || self.architecture != wanted.architecture() {
            return None;
        }
        let own = self.variant.as_deref().filter(|variant| !variant.is_empty());
        match (own, wanted.variant()) {
            (own, wanted) if own == wanted => Some(0),
            // The oldest processors of a kind go by both names.
            (Some("v8"), None) if self.architecture == "arm64" => Some(1),
            (Some("v1"), None) if self.architecture == "amd64" => Some(1),
            (None, Some(_)) => Some(2),
            _ => None,
        }
    }
}

/// The manifest of an index that is for a platform; else the platforms that there are.
pub(super) fn choose(manifests: &[Reference], wanted: Platform) -> Result<Reference, Vec<String>> {
    let fitting = manifests.iter().filter_map(|manifest| {
        let fitness = manifest.platform.as_ref()?.fitness(wanted)?;
        Some((fitness, manifest))
    });
    let best = fitting.min_by_key(|(fitness, _)| *fitness).map(|(_, manifest)| manifest.clone());
    best.ok_or_else(|| {
        let platforms = manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
        // What BuildKit attaches is for no platform.
        platforms.map(DocumentPlatform::name).filter(|name| !name.contains("unknown")).collect()
    })
}

/// An image's configuration: what is needed of it, and all of it as it was written.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    pub(super) document: Map<String, Value>,
    pub(super) diff_ids: Vec<DiffId>,
}

/// Reads a configuration.
pub(super) fn configuration(bytes: &[u8]) -> Result<Configuration, String> {
    #[derive(Deserialize)]
    struct Shape {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Option<Vec<DiffId>>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Configuration { document, diff_ids: shape.rootfs.diff_ids.unwrap_or_default() })
}

impl Configuration {
    /// Why this is not for a platform: the one that it is for.
    pub(super) fn other_platform(&self, wanted: Platform) -> Option<String> {
        let text = |key: &str| self.document.get(key).and_then(Value::as_str).unwrap_or_default();
        let variant = text("variant");
        let own = DocumentPlatform {
            os: text("os").to_owned(),
            architecture: text("architecture").to_owned(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
        };
        own.fitness(wanted).is_none().then(|| own.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::new(text).unwrap()
    }

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Vec<Reference> {
        let reference = |(at, (os, architecture, variant)): (
            usize,
            &(&str, &str, Option<&str>),
        )| {
            let digest = BlobDigest::from_bytes([u8::try_from(at).unwrap(); 32]);
            let mut platform = serde_json::json!({ "os": os, "architecture": architecture });
            if let Some(variant) = variant {
                platform["variant"] = (*variant).into();
            }
            serde_json::json!({ "mediaType": "x", "digest": digest, "size": 1, "platform": platform })
        };
        let manifests: Vec<_> = platforms.iter().enumerate().map(reference).collect();
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        match top(text.as_bytes()).unwrap() {
            Top::Index(manifests) => manifests,
            Top::Manifest(_) => panic!("an index was written"),
        }
    }

    #[test]
    fn the_best_manifest_of_an_index_is_chosen() {
        let manifests = index(&[
            ("unknown", "unknown", None),
            ("linux", "arm", Some("v6")),
            ("linux", "arm", Some("v7")),
            ("linux", "arm64", Some("v8")),
            ("linux", "amd64", None),
            ("windows", "386", None),
        ]);
        let chosen = |text: &str| choose(&manifests, platform(text)).map(|it| it.digest);
        let at = |number: u8| Ok(BlobDigest::from_bytes([number; 32]));
        assert_eq!(chosen("linux/arm/v7"), at(2));
        assert_eq!(chosen("linux/arm64"), at(3), "v8 is what arm64 begins with");
        assert_eq!(chosen("linux/amd64"), at(4));
        let others = chosen("linux/386").unwrap_err();
        assert_eq!(others.len(), 5, "attachments are no platform: {others:?}");
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        for text in ["", "[]", "{}", "{\"schemaVersion\":2}", "{\"schemaVersion\":1}"] {
            assert!(top(text.as_bytes()).is_err(), "{text}");
        }
        let digest = BlobDigest::of(b"x");
        let artifact = format!(
            r#"{{"schemaVersion":2,"layers":[],"config":{{"mediaType":"a/b","digest":"{digest}","size":2}}}}"#
        );
        let Top::Manifest(manifest) = top(artifact.as_bytes()).unwrap() else { panic!() };
        assert!(manifest.refusal().unwrap().contains("a/b"));
        for refused in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "",
        ] {
            assert!(layer_media_type(refused).is_err(), "{refused}");
        }
        for bad in ["", "{}", r#"{"rootfs":{"diff_ids":["sha256:1"]}}"#, "7"] {
            assert!(configuration(bad.as_bytes()).is_err(), "{bad}");
        }
        let none = configuration(br#"{"rootfs":{"diff_ids":null},"os":"linux"}"#).unwrap();
        assert_eq!(none.other_platform(platform("linux/amd64")).unwrap(), "linux/");
    }
}
