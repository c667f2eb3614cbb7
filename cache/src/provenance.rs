//! The provenance of an image: which packages, base and sources its manifest was made of, as a SLSA
//! provenance v1 statement that its builder signs.
//!
//! Like the attestation of a derivation it holds no time, and is a function of its values: who
//! builds the same image from the same lock signs the same bytes.

use drystone_store::digest::BlobDigest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dsse::{Envelope, IN_TOTO};
use crate::key::SecretKey;
use crate::statement::{
    BuildDefinition, Builder, Provenance, Resource, RunDetails, SLSA_PROVENANCE, Statement,
};

/// The build type of images: says what the parameters of their provenance mean.
pub const BUILD_TYPE: &str = "urn:drystone:image:1";
/// The builder of all images. Which one it was, the key says.
pub const BUILDER: &str = "urn:drystone:builder:1";
/// The media type of a signed statement, as a layer of an artifact.
pub const MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The normalised image.toml.
    pub image: Value,
    /// SHA-256 of the lock's part for this image, in lower-case hexadecimal.
    pub lock: String,
}

/// What the builder decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    /// How layers are compressed: a compression id.
    pub compression: String,
    /// The platforms, as `linux/amd64`.
    pub platforms: Vec<String>,
}

/// How an image was made.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProvenance {
    /// The image's name, without a tag.
    pub name: String,
    /// The digest of its manifest, or of its index.
    pub manifest: BlobDigest,
    /// What the user asked for.
    pub asked: Asked,
    /// What the builder decided.
    pub decided: Decided,
    /// Packages, the base image and sources: see [`package`], [`base`] and [`source`].
    pub materials: Vec<Resource>,
}

/// A package that an image was made of: its package URL, and SHA-256 of its archive.
pub fn package(purl: &str, archive: &BlobDigest) -> Resource {
    Resource::default().with_uri(purl).with_digest("sha256", archive.to_hex())
}

/// The image that another one was made from: its reference, and its manifest's digest.
pub fn base(reference: &str, manifest: &BlobDigest) -> Resource {
    Resource::new("base")
        .with_uri(format!("oci://{reference}"))
        .with_digest("sha256", manifest.to_hex())
}

/// A source of files or of a recipe: what image.toml calls it, and SHA-256 of it.
pub fn source(name: &str, digest: &BlobDigest) -> Resource {
    Resource::new(name).with_digest("sha256", digest.to_hex())
}

impl ImageProvenance {
    /// The statement's canonical JSON. Materials are sorted, so their order shapes no bytes.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut materials = self.materials.clone();
        materials.sort_by(|one, two| {
            (&one.uri, &one.name, &one.digest).cmp(&(&two.uri, &two.name, &two.digest))
        });
        materials.dedup();
        let subject =
            Resource::new(self.name.as_str()).with_digest("sha256", self.manifest.to_hex());
        let predicate = Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: self.asked.clone(),
                internal_parameters: self.decided.clone(),
                resolved_dependencies: materials,
            },
            run_details: RunDetails { builder: Builder { id: BUILDER.to_owned() } },
        };
        Statement::new(vec![subject], SLSA_PROVENANCE, predicate).to_json().into_bytes()
    }

    /// Signs the statement.
    pub fn sign(&self, key: &SecretKey) -> Envelope {
        Envelope::sign(IN_TOTO, self.to_payload(), key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provenance(materials: Vec<Resource>) -> ImageProvenance {
        ImageProvenance {
            name: "hello".to_owned(),
            manifest: BlobDigest::from_bytes([1; 32]),
            asked: Asked { image: json!({ "name": "hello" }), lock: "00".repeat(32) },
            decided: Decided {
                compression: "gzip-1".to_owned(),
                platforms: vec!["linux/amd64".to_owned()],
            },
            materials,
        }
    }

    #[test]
    fn materials_have_no_order_and_are_all_there() {
        let digest = BlobDigest::from_bytes([2; 32]);
        let materials = vec![
            package("pkg:deb/debian/nginx@1?arch=amd64", &digest),
            base("registry.example.com/base", &digest),
            source("public/", &digest),
        ];
        let mut reversed = materials.clone();
        reversed.reverse();
        let payload = provenance(materials).to_payload();
        assert_eq!(provenance(reversed).to_payload(), payload);
        let value: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(value["subject"][0]["digest"]["sha256"], "01".repeat(32));
        let definition = &value["predicate"]["buildDefinition"];
        assert_eq!(definition["resolvedDependencies"].as_array().unwrap().len(), 3);
        assert_eq!(definition["buildType"], BUILD_TYPE);
        assert_eq!(definition["externalParameters"]["image"]["name"], "hello");
    }

    #[test]
    fn golden_bytes_are_frozen() {
        let digest = BlobDigest::from_bytes([2; 32]);
        let key = SecretKey::from_seed("builder", &[1; 32]).unwrap();
        let image = provenance(vec![package("pkg:deb/debian/nginx@1?arch=amd64", &digest)]);
        let text = image.sign(&key).to_json();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/provenance.envelope.json");
        if std::env::var_os("DRYSTONE_WRITE_GOLDEN").is_some() {
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert!(golden.trim_end() == text, "it is now:\n{text}");
    }
}
