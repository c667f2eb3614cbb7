//! Signatures of images in cosign's layout, so that its users can check them with its tools.
//!
//! ```text
//! artifact, tagged sha256-<hex of the image's manifest>.sig
//! └── layer application/vnd.dev.cosign.simplesigning.v1+json: the payload
//!     └── annotation dev.cosignproject.cosign/signature: base64 of the signature over the payload
//! ```
//!
//! The payload is "simple signing" JSON that names the manifest's digest. It is signed as it is,
//! without DSSE; cosign takes the key as PEM ([`public_key_pem`]). Nothing is written to any
//! transparency log.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use drystone_store::derivation::canonical_json;
use drystone_store::digest::BlobDigest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::key::{PublicKey, SecretKey};
use crate::trust::Trust;

/// The media type of the payload, as the artifact's layer.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of that layer that holds the signature.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The type that a payload says it has.
const KIND: &str = "cosign container image signature";
/// The longest payload that is read, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// What stands before the 32 bytes of an ed25519 key in its DER form (RFC 8410).
const DER_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a signature is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CosignError {
    /// The payload is too large to be one.
    #[error("the signature's payload has {size} bytes, more than {MAX_PAYLOAD}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The signature is not base64 of 64 bytes.
    #[error("the signature is not one of ed25519, in base64")]
    Signature,
    /// No trusted key has signed the payload.
    #[error("no trusted key has signed the image")]
    Untrusted,
    /// The payload is no simple signing JSON.
    #[error("what was signed is no simple signing document")]
    Payload(#[source] serde_json::Error),
    /// The payload is of another kind.
    #[error("what was signed is of type {found:?}, not a container image signature")]
    Kind {
        /// The type as written.
        found: String,
    },
    /// The signature is of another image.
    #[error("the signature is of image {found}, not of {expected}")]
    OtherImage {
        /// The image that was asked for.
        expected: BlobDigest,
        /// The image that was signed.
        found: String,
    },
}

/// A signature, ready to be put into an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSignature {
    /// The payload: the layer's bytes.
    pub payload: Vec<u8>,
    /// The value of the layer's annotation.
    pub annotation: String,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The tag under which an image's signatures are looked for.
pub fn tag(manifest: &BlobDigest) -> String {
    format!("sha256-{}.sig", manifest.to_hex())
}

/// Signs an image. `repository` is where it is meant to be, without tag and digest.
pub fn sign(repository: &str, manifest: &BlobDigest, key: &SecretKey) -> ImageSignature {
    let payload = canonical_json(&json!({
        "critical": {
            "identity": { "docker-reference": repository },
            "image": { "docker-manifest-digest": manifest.to_string() },
            "type": KIND,
        },
        "optional": Value::Null,
    }));
    let annotation = BASE64.encode(&key.sign(payload.as_bytes()));
    ImageSignature { payload: payload.into_bytes(), annotation }
}

/// The trusted keys that a signature of an image is by; `now` is in seconds since 1970.
///
/// The repository in the payload is not compared: images are copied between registries, and the
/// digest says which image it is.
pub fn verify(
    signature: &ImageSignature,
    manifest: &BlobDigest,
    trust: &Trust,
    now: i64,
) -> Result<BTreeSet<PublicKey>, CosignError> {
    let size = signature.payload.len();
    if size > MAX_PAYLOAD {
        return Err(CosignError::TooLarge { size });
    }
    let bytes = BASE64.decode(signature.annotation.as_bytes());
    let bytes: [u8; 64] =
        bytes.ok().and_then(|it| it.try_into().ok()).ok_or(CosignError::Signature)?;
    let keys = trust.valid_keys(now).filter(|key| key.verifies(&signature.payload, &bytes));
    let keys: BTreeSet<PublicKey> = keys.cloned().collect();
    if keys.is_empty() {
        return Err(CosignError::Untrusted);
    }
    let payload: Payload =
        serde_json::from_slice(&signature.payload).map_err(CosignError::Payload)?;
    let short = |text: &str| text.chars().take(200).collect::<String>();
    if payload.critical.kind != KIND {
        return Err(CosignError::Kind { found: short(&payload.critical.kind) });
    }
    match payload.critical.image.digest == manifest.to_string() {
        true => Ok(keys),
        false => Err(CosignError::OtherImage {
            expected: *manifest,
            found: short(&payload.critical.image.digest),
        }),
    }
}

/// The public key as PEM, as cosign's `--key` takes it.
pub fn public_key_pem(key: &PublicKey) -> String {
    let der = [DER_PREFIX.as_slice(), key.as_bytes()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;
    use crate::trust::TrustedKey;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed("builder", &[seed; 32]).unwrap()
    }

    fn trust(seed: u8) -> Trust {
        Trust::new([TrustedKey::new(key(seed).public())], 1).unwrap()
    }

    fn image() -> BlobDigest {
        BlobDigest::from_bytes([1; 32])
    }

    fn signature() -> ImageSignature {
        sign("registry.example.com/team/app", &image(), &key(1))
    }

    #[test]
    fn golden_payload_is_frozen() {
        let hex = "01".repeat(32);
        assert_eq!(
            String::from_utf8(signature().payload).unwrap(),
            format!(
                "{{\"critical\":{{\"identity\":{{\"docker-reference\":\
                 \"registry.example.com/team/app\"}},\"image\":{{\"docker-manifest-digest\":\
                 \"sha256:{hex}\"}},\"type\":\"cosign container image signature\"}},\
                 \"optional\":null}}"
            )
        );
        assert_eq!(tag(&image()), format!("sha256-{hex}.sig"));
    }

    #[test]
    fn only_the_image_that_was_signed_by_a_trusted_key_is_believed() {
        let signed = signature();
        assert_eq!(verify(&signed, &image(), &trust(1), 0).unwrap(), [key(1).public()].into());
        let stranger = verify(&signed, &image(), &trust(2), 0);
        assert!(matches!(stranger, Err(CosignError::Untrusted)));
        let other = verify(&signed, &BlobDigest::from_bytes([2; 32]), &trust(1), 0);
        assert!(matches!(other, Err(CosignError::OtherImage { .. })));
        let mut altered = signed.clone();
        altered.payload[40] ^= 1;
        assert!(matches!(verify(&altered, &image(), &trust(1), 0), Err(CosignError::Untrusted)));
        let broken = ImageSignature { annotation: "AAAA".to_owned(), ..signed };
        assert!(matches!(verify(&broken, &image(), &trust(1), 0), Err(CosignError::Signature)));
    }

    #[test]
    fn nonsense_is_not_believed_even_when_signed() {
        let signed = |payload: &str| {
            let annotation = BASE64.encode(&key(1).sign(payload.as_bytes()));
            let signature = ImageSignature { payload: payload.as_bytes().to_vec(), annotation };
            verify(&signature, &image(), &trust(1), 0).unwrap_err()
        };
        assert!(matches!(signed("{}"), CosignError::Payload(_)));
        let text = String::from_utf8(signature().payload).unwrap();
        let other = text.replace("cosign container", "another container");
        assert!(matches!(signed(&other), CosignError::Kind { .. }));
        assert!(matches!(signed(&" ".repeat(MAX_PAYLOAD + 1)), CosignError::TooLarge { .. }));
    }

    /// openssl reads the key and the signature as cosign's users would.
    #[test]
    fn openssl_agrees() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
            path
        };
        let signed = signature();
        let key = write("key.pem", public_key_pem(&key(1).public()).as_bytes());
        let signature = write("signature", &BASE64.decode(signed.annotation.as_bytes()).unwrap());
        let payload = write("payload", &signed.payload);
        let mut command = Command::new("openssl");
        command.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(key);
        command.arg("-sigfile").arg(signature).arg("-in").arg(payload);
        match command.output() {
            Ok(output) => assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => eprintln!("skipped: openssl cannot be run: {error}"),
        }
    }
}
