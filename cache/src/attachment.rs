//! Documents about an image, and its signatures, in the repository beside it.
//!
//! ```text
//! manifest or index <──subject── artifact: one document   (listed as a referrer)
//!                   <──subject── artifact: signatures, tagged sha256-HEX.sig as cosign looks for it
//! ```
//!
//! They are never entries of an index, which runtimes would take for platforms. Repositories
//! without an API for referrers list them under the tag `sha256-HEX`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use drystone_store::derivation::canonical_json;
use drystone_store::digest::BlobDigest;
use serde_json::{Value, json};

use crate::attestation;
use crate::binary_cache::empty_config;
use crate::cosign::{self, ImageSignature};
use crate::descriptor::{Descriptor, MANIFEST_MEDIA_TYPE, Manifest};
use crate::dsse::{Envelope, IN_TOTO, MAX_ENVELOPE};
use crate::error::RegistryError;
use crate::key::{PublicKey, SecretKey};
use crate::reference::{Tag, Target};
use crate::repository::{Repository, Upload};
use crate::statement::{SLSA_PROVENANCE, STATEMENT};
use crate::trust::Trust;

/// The type of an artifact of signatures, as cosign names it.
pub const SIGNATURE_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The type of an artifact of signed provenance, as in-toto names it.
pub const PROVENANCE_TYPE: &str = "application/vnd.in-toto.provenance+dsse";
/// The annotation that says what an in-toto statement states.
const PREDICATE_ANNOTATION: &str = "in-toto.io/predicate-type";
/// The most signatures of one image that are read.
const MOST_SIGNATURES: usize = 100;
/// The most provenance documents of one image that are read.
const MOST_DOCUMENTS: usize = 100;
/// Attempts to add a signature while others sign too.
const ATTEMPTS: usize = 5;
/// The media type of an image's config, which cosign gives to its artifacts.
const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// A document about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What kind of artifact it is.
    pub artifact_type: String,
    /// The media type of the document.
    pub media_type: String,
    /// Facts about it.
    pub annotations: Vec<(String, String)>,
    /// The document.
    pub bytes: Bytes,
}

impl Attachment {
    /// A document whose media type says all about it.
    pub fn document(media_type: &str, text: String) -> Self {
        Self {
            artifact_type: media_type.to_owned(),
            media_type: media_type.to_owned(),
            annotations: Vec::new(),
            bytes: Bytes::from(text),
        }
    }

    /// A signed provenance statement.
    pub fn provenance(envelope: &Envelope) -> Self {
        Self {
            artifact_type: PROVENANCE_TYPE.to_owned(),
            media_type: crate::provenance::MEDIA_TYPE.to_owned(),
            annotations: vec![(PREDICATE_ANNOTATION.to_owned(), SLSA_PROVENANCE.to_owned())],
            bytes: Bytes::from(envelope.to_json()),
        }
    }
}

fn described(descriptor: &Descriptor) -> Value {
    json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    })
}

/// Attaches a document to a manifest that is in the repository; the artifact's descriptor.
///
/// The same document again is the same artifact.
///
/// # Errors
/// A repository that refuses it.
pub async fn attach(
    to: &Arc<dyn Repository>,
    subject: &Descriptor,
    attachment: &Attachment,
) -> Result<Descriptor, RegistryError> {
    let (config, bytes) = empty_config();
    to.put_blob(&Upload::bytes(bytes)).await?;
    let layer = to.put_bytes(&attachment.media_type, attachment.bytes.clone()).await?;
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": attachment.artifact_type,
        "config": described(&config),
        "layers": [described(&layer)],
        "subject": described(subject),
    });
    for (name, value) in &attachment.annotations {
        manifest["annotations"][name] = value.as_str().into();
    }
    let manifest = Manifest::new(MANIFEST_MEDIA_TYPE, canonical_json(&manifest));
    to.put_manifest(&manifest, &[]).await?;
    Ok(manifest.descriptor())
}

/// The tag of an image's signatures.
fn signature_tag(image: &BlobDigest) -> Tag {
    Tag::new(&cosign::tag(image)).expect("letters, hexadecimal digits, a hyphen and a dot")
}

/// Signs a manifest that is in the repository, as cosign does. Others' signatures stay; whether
/// this one is new.
///
/// # Errors
/// A repository that refuses it, or others who sign without end.
pub async fn sign(
    to: &Arc<dyn Repository>,
    subject: &Descriptor,
    key: &SecretKey,
) -> Result<bool, RegistryError> {
    let image = subject.digest;
    let signature = cosign::sign(&to.location().to_string(), &image, key);
    let tag = signature_tag(&image);
    let payload = Bytes::from(signature.payload.clone());
    let layer = to.put_bytes(cosign::MEDIA_TYPE, payload).await?;
    let mut entry = described(&layer);
    entry["annotations"][cosign::ANNOTATION] = signature.annotation.as_str().into();
    for attempt in 0..ATTEMPTS {
        let there = to.manifest(&Target::Tag(tag.clone())).await?;
        let mut layers = there.as_ref().map(entries).unwrap_or_default();
        if layers.iter().any(|layer| is_same(layer, &entry)) {
            return Ok(attempt > 0);
        }
        layers.push(entry.clone());
        let manifest = signatures_manifest(to, subject, layers).await?;
        to.put_manifest(&manifest, std::slice::from_ref(&tag)).await?;
        if let Some(old) = there {
            // What is replaced would stay in the list of referrers. Where nothing can be deleted
            // it does, and does no harm.
            let _ = to.delete_manifest(&Target::Digest(old.digest)).await;
        }
    }
    let reason = "others sign it at the same time".to_owned();
    Err(RegistryError::Malformed { place: format!("{}:{tag}", to.location()), reason })
}

fn entries(manifest: &Manifest) -> Vec<Value> {
    match manifest.json().ok().and_then(|mut json| Some(json.get_mut("layers")?.take())) {
        Some(Value::Array(layers)) => layers,
        _ => Vec::new(),
    }
}

fn is_same(one: &Value, other: &Value) -> bool {
    let signature = |entry: &Value| entry["annotations"][cosign::ANNOTATION].clone();
    one["digest"] == other["digest"] && signature(one) == signature(other)
}

/// The artifact of all signatures: an image without files, as cosign writes it.
async fn signatures_manifest(
    to: &Arc<dyn Repository>,
    subject: &Descriptor,
    layers: Vec<Value>,
) -> Result<Manifest, RegistryError> {
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let nothing = json!({ "created": "0001-01-01T00:00:00Z", "empty_layer": false });
    let config = json!({
        "architecture": "", "os": "", "created": "0001-01-01T00:00:00Z", "config": {},
        "history": vec![nothing; layers.len()],
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = to.put_bytes(CONFIG_MEDIA_TYPE, canonical_json(&config).into()).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": SIGNATURE_TYPE,
        "config": described(&config),
        "layers": layers,
        "subject": described(subject),
    });
    Ok(Manifest::new(MANIFEST_MEDIA_TYPE, canonical_json(&manifest)))
}

/// What is known of who stands for an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vouched {
    /// The trusted keys that signed it.
    pub signers: BTreeSet<PublicKey>,
    /// How many signatures there are, of whomever.
    pub signatures: usize,
    /// Why signatures do not count.
    pub refused: Vec<String>,
}

/// Checks the signatures of a manifest.
///
/// # Errors
/// A repository that cannot be asked. A signature that is wrong is none.
pub async fn signers(
    from: &Arc<dyn Repository>,
    image: &BlobDigest,
    trust: &Trust,
    now: i64,
) -> Result<Vouched, RegistryError> {
    let mut vouched = Vouched::default();
    let Some(manifest) = from.manifest(&Target::Tag(signature_tag(image))).await? else {
        return Ok(vouched);
    };
    for layer in entries(&manifest).iter().take(MOST_SIGNATURES) {
        let Some(annotation) = layer["annotations"][cosign::ANNOTATION].as_str() else { continue };
        let Ok(descriptor) = serde_json::from_value::<Descriptor>(layer.clone()) else { continue };
        vouched.signatures += 1;
        if descriptor.size > cosign::MAX_PAYLOAD as u64 {
            vouched.refused.push(format!("a payload has {} bytes", descriptor.size));
            continue;
        }
        let payload = match from.blob_bytes(&descriptor.digest, descriptor.size).await {
            Ok(Some(payload)) => payload.to_vec(),
            Ok(None) => {
                vouched.refused.push(format!("payload {} is not there", descriptor.digest));
                continue;
            }
            Err(error) if error.is_answer() => {
                vouched.refused.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        let signature = ImageSignature { payload, annotation: annotation.to_owned() };
        match cosign::verify(&signature, image, trust, now) {
            Ok(keys) => vouched.signers.extend(keys),
            Err(error) => vouched.refused.push(error.to_string()),
        }
    }
    Ok(vouched)
}

/// A document that is attached to a manifest, and who stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The artifact.
    pub descriptor: Descriptor,
    /// The trusted keys that signed the document; `None` for documents that are not signed
    /// themselves, or not in a way that is known here.
    pub signers: Option<BTreeSet<PublicKey>>,
}

/// Lists what is attached to a manifest, signatures apart, and checks signed provenance.
///
/// # Errors
/// A repository that cannot be asked.
pub async fn attached(
    from: &Arc<dyn Repository>,
    image: &BlobDigest,
    trust: &Trust,
    now: i64,
) -> Result<Vec<Attached>, RegistryError> {
    let mut all = Vec::new();
    for descriptor in from.referrers(image, None).await? {
        let signers = match descriptor.artifact_type.as_deref() {
            Some(SIGNATURE_TYPE) => continue,
            Some(PROVENANCE_TYPE) if all.len() < MOST_DOCUMENTS => {
                Some(provenance_signers(from, &descriptor, image, trust, now).await?)
            }
            _ => None,
        };
        all.push(Attached { descriptor, signers });
    }
    Ok(all)
}

/// The trusted keys that signed a provenance document, if it is about this image.
async fn provenance_signers(
    from: &Arc<dyn Repository>,
    artifact: &Descriptor,
    image: &BlobDigest,
    trust: &Trust,
    now: i64,
) -> Result<BTreeSet<PublicKey>, RegistryError> {
    let nobody = Ok(BTreeSet::new());
    let Some(manifest) = from.manifest(&Target::Digest(artifact.digest)).await? else {
        return nobody;
    };
    let layers = entries(&manifest);
    let layer = layers.first().and_then(|layer| serde_json::from_value(layer.clone()).ok());
    let Some(Descriptor { digest, size, .. }) = layer else { return nobody };
    if size > MAX_ENVELOPE as u64 {
        return nobody;
    }
    let Some(bytes) = from.blob_bytes(&digest, size).await? else { return nobody };
    let Ok(envelope) = Envelope::parse(&bytes) else { return nobody };
    let Ok(signers) = attestation::signers(&envelope, trust, now) else { return nobody };
    match is_provenance_of(&envelope, image) {
        true => Ok(signers),
        false => nobody,
    }
}

fn is_provenance_of(envelope: &Envelope, image: &BlobDigest) -> bool {
    let Ok(statement) = serde_json::from_slice::<Value>(envelope.payload()) else { return false };
    let subjects = statement["subject"].as_array().map_or(&[][..], Vec::as_slice);
    envelope.payload_type() == IN_TOTO
        && statement["_type"] == STATEMENT
        && statement["predicateType"] == SLSA_PROVENANCE
        && subjects.iter().any(|subject| subject["digest"]["sha256"] == image.to_hex())
}
