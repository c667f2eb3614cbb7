//! Envelopes: a payload and signatures over it, as DSSE v1.0.2 has them.
//!
//! What is signed is not the payload but its pre-authentication encoding, which also holds its
//! type, so bytes that were signed as one thing cannot be shown as another.

use data_encoding::BASE64;
use drystone_store::derivation::canonical_json;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::key::{KeyId, SecretKey};

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The longest envelope that is read, in bytes.
pub const MAX_ENVELOPE: usize = 8 << 20;
/// The most signatures that one envelope may hold.
pub const MAX_SIGNATURES: usize = 100;

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is larger than envelopes may be.
    #[error("the envelope has {size} bytes, more than {MAX_ENVELOPE}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// It is not the JSON of an envelope.
    #[error("not the JSON of an envelope")]
    Json(#[source] serde_json::Error),
    /// The payload or a signature is not base64 as RFC 4648 writes it.
    #[error("the {what} of the envelope is not base64")]
    Base64 {
        /// Which part.
        what: &'static str,
    },
    /// A signature has a wrong length.
    #[error("a signature of the envelope has {length} bytes: ed25519 has 64")]
    SignatureLength {
        /// The number of bytes.
        length: usize,
    },
    /// The id of a key is none.
    #[error("the envelope names a key in another way than by its id")]
    KeyId(#[source] crate::key::ParseKeyIdError),
    /// There are more signatures than envelopes may hold.
    #[error("the envelope has {count} signatures, more than {MAX_SIGNATURES}")]
    TooManySignatures {
        /// Their number.
        count: usize,
    },
    /// Signatures over another payload cannot join this envelope.
    #[error("the envelopes hold different payloads and cannot become one")]
    OtherPayload,
}

/// A signature, and the id of the key that is said to have made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// The key that is said to have made it.
    pub key: KeyId,
    /// The signature's 64 bytes.
    pub bytes: [u8; 64],
}

/// A payload with the signatures over it. That it was read says nothing about who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// The envelope's JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSignature {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Puts a payload into an envelope and signs it.
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &SecretKey) -> Self {
        let mut envelope =
            Self { payload_type: payload_type.to_owned(), payload, signatures: Vec::new() };
        envelope.add_signature(key);
        envelope
    }

    /// Signs with one more key; a key that signed already adds nothing.
    pub fn add_signature(&mut self, key: &SecretKey) {
        let bytes = key.sign(&self.signed_bytes());
        self.insert(Signature { key: key.public().id(), bytes });
    }

    /// Takes over the signatures of an envelope that holds the same payload.
    pub fn merge(&mut self, other: &Self) -> Result<(), EnvelopeError> {
        if self.payload != other.payload || self.payload_type != other.payload_type {
            return Err(EnvelopeError::OtherPayload);
        }
        let mut merged = self.clone();
        other.signatures.iter().cloned().for_each(|signature| merged.insert(signature));
        if merged.signatures.len() > MAX_SIGNATURES {
            let count = merged.signatures.len();
            return Err(EnvelopeError::TooManySignatures { count });
        }
        *self = merged;
        Ok(())
    }

    /// Signatures are kept sorted, so that the order in which they came shapes no bytes.
    fn insert(&mut self, signature: Signature) {
        if let Err(at) = self.signatures.binary_search(&signature) {
            self.signatures.insert(at, signature);
        }
    }

    /// The payload's type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload, which nobody has proved yet.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, which nobody has proved yet.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// What the signatures are over: DSSE's pre-authentication encoding of type and payload.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let (kind, payload) = (&self.payload_type, &self.payload);
        let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The envelope's canonical JSON.
    pub fn to_json(&self) -> String {
        let signatures: Vec<_> = self
            .signatures
            .iter()
            .map(|it| json!({ "keyid": it.key.to_string(), "sig": BASE64.encode(&it.bytes) }))
            .collect();
        canonical_json(&json!({
            "payload": BASE64.encode(&self.payload),
            "payloadType": self.payload_type,
            "signatures": signatures,
        }))
    }

    /// Reads an envelope's JSON. Unlike DSSE's, our envelopes have no members but the known ones:
    /// whatever else they held would be lost when they are copied.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLarge { size: bytes.len() });
        }
        let written: Written = serde_json::from_slice(bytes).map_err(EnvelopeError::Json)?;
        let count = written.signatures.len();
        if count > MAX_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures { count });
        }
        let payload = BASE64
            .decode(written.payload.as_bytes())
            .map_err(|_| EnvelopeError::Base64 { what: "payload" })?;
        let mut envelope =
            Self { payload_type: written.payload_type, payload, signatures: Vec::new() };
        for signature in written.signatures {
            let bytes = BASE64
                .decode(signature.sig.as_bytes())
                .map_err(|_| EnvelopeError::Base64 { what: "signature" })?;
            let bytes = bytes
                .try_into()
                .map_err(|bytes: Vec<u8>| EnvelopeError::SignatureLength { length: bytes.len() })?;
            let key = signature.keyid.parse().map_err(EnvelopeError::KeyId)?;
            envelope.insert(Signature { key, bytes });
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed("test", &[seed; 32]).unwrap()
    }

    #[test]
    fn signed_bytes_are_those_of_the_specification() {
        let envelope =
            Envelope::sign("http://example.com/HelloWorld", b"hello world".to_vec(), &key(1));
        assert_eq!(
            envelope.signed_bytes(),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn signatures_come_together_in_any_order() {
        let sign = |seed| Envelope::sign(IN_TOTO, b"{}".to_vec(), &key(seed));
        let (mut one, mut two) = (sign(1), sign(2));
        one.merge(&sign(2)).unwrap();
        two.merge(&sign(1)).unwrap();
        two.merge(&sign(1)).unwrap();
        assert_eq!(one.to_json(), two.to_json());
        assert_eq!(Envelope::parse(one.to_json().as_bytes()).unwrap(), one);
        let other = Envelope::sign(IN_TOTO, b"[]".to_vec(), &key(1));
        assert!(matches!(one.merge(&other), Err(EnvelopeError::OtherPayload)));
    }

    #[test]
    fn malformed_envelopes_are_refused() {
        let good = Envelope::sign(IN_TOTO, b"{}".to_vec(), &key(1)).to_json();
        let refused = |text: &str| Envelope::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(refused("{"), EnvelopeError::Json(_)));
        let unknown = good.replacen('{', "{\"more\":1,", 1);
        assert!(matches!(refused(&unknown), EnvelopeError::Json(_)));
        let base64 = good.replace("\"e30=\"", "\"e30\"");
        assert!(matches!(refused(&base64), EnvelopeError::Base64 { what: "payload" }));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(refused(&deep), EnvelopeError::Json(_)));
        let large = " ".repeat(MAX_ENVELOPE + 1);
        assert!(matches!(refused(&large), EnvelopeError::TooLarge { .. }));
    }
}
