//! OpenPGP signatures over Release files: clearsigned (`InRelease`) and detached (`Release.gpg`).
//!
//! Formats: RFC 9580 (section 7 for clearsigned text), and the archive's use of it in
//! Debian's repository format. The `pgp` crate parses packets and does the arithmetic; what it
//! leaves to its callers is decided here: whether a key may sign, whether it or the signature has
//! expired, whether it is revoked, which hashes and key sizes count, and that no byte outside the
//! signed text is ever used.
//!
//! One acceptable signature by a trusted key suffices, as for apt. Nothing reads the clock: the
//! caller says what time it is.

mod certificate;
mod framing;
mod keyring;

pub use keyring::{Keyring, KeyringError};

use std::fmt;

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};

/// How far a signature may lie in the future before the clocks are said to disagree, in seconds.
const CLOCK_TOLERANCE: i64 = 600;

/// More signatures than any archive makes; each costs a public key operation.
const MAX_SIGNATURES: usize = 32;

/// A text that a trusted key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The signed text and nothing else: dash escapes undone and, for clearsigned text, trailing
    /// blanks removed (they are not signed) and every line ended by a line feed.
    pub text: String,
    /// Fingerprints of the keys or subkeys with a good signature, upper-case hexadecimal, in the
    /// order of the signatures, without repetition.
    pub signers: Vec<String>,
}

/// Why a signed text was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The bytes are not framed as a signed text.
    #[error("malformed signed text: {reason}")]
    Malformed {
        /// What is wrong with the framing.
        reason: &'static str,
    },
    /// The signature block cannot be decoded.
    #[error("malformed signature block")]
    Packets {
        /// The parser's complaint.
        source: Box<pgp::errors::Error>,
    },
    /// No signature is acceptable.
    #[error("no acceptable signature: {}", list(rejected))]
    Unacceptable {
        /// Every signature, with the reason for its rejection; empty when there is none at all.
        rejected: Vec<Rejected>,
    },
}

/// One signature that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The fingerprint or key id that the signature claims, upper-case hexadecimal.
    pub signer: String,
    /// Why it does not count.
    pub reason: Rejection,
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The key is not in the key ring.
    #[error("the key is not among the trusted keys")]
    UnknownKey,
    /// The signature does not match the text.
    #[error("the signature does not match the text")]
    Mismatch,
    /// The signature is of a kind or version that cannot sign a document.
    #[error("the signature is of an unsupported kind")]
    Unsupported,
    /// The hash algorithm is too weak; SHA-256 is the least.
    #[error("its hash algorithm {0} is too weak")]
    WeakHash(String),
    /// The key is too weak: RSA below 2048 bits, or DSA.
    #[error("the key is too weak")]
    WeakKey,
    /// The signature was made later than now.
    #[error("it was made in the future, at {}: is this host's clock right?", date(*.0))]
    Future(i64),
    /// The signature has expired.
    #[error("the signature expired at {}", date(*.0))]
    SignatureExpired(i64),
    /// The key has expired, now or when the signature was made.
    #[error("the key expired at {}", date(*.0))]
    KeyExpired(i64),
    /// The signature claims to be older than its key.
    #[error("it is older than its key")]
    OlderThanKey,
    /// The key or subkey was revoked by its owner.
    #[error("the key is revoked")]
    KeyRevoked,
    /// The key's owner did not permit it to sign documents.
    #[error("the key is not meant for signing")]
    NotForSigning,
    /// No valid self-signature or binding signature speaks for the key.
    #[error("the key has no valid binding signature")]
    Unbound,
}

fn list(rejected: &[Rejected]) -> String {
    if rejected.is_empty() {
        return "there is none".to_owned();
    }
    let texts: Vec<String> = rejected.iter().map(Rejected::to_string).collect();
    texts.join("; ")
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}: {}", self.signer, self.reason)
    }
}

/// Seconds since 1970 as a UTC date, for messages.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}

/// Verifies a clearsigned message, as `InRelease` is one.
///
/// `now` is the time in seconds since 1970. Text before or after the signed message, more than one
/// message, and armor headers other than `Hash` are refused.
///
/// # Errors
///
/// [`SignatureError`] when the framing is malformed or no signature by a key of `keyring` is
/// acceptable.
pub fn verify_clearsigned(
    message: &[u8],
    keyring: &Keyring,
    now: i64,
) -> Result<Verified, SignatureError> {
    let parts = framing::split_clearsigned(message)?;
    let signatures = read_signatures(&[framing::dearmor(parts.signature_block)?])?;
    let signers = accept(&signatures, parts.hashed.as_bytes(), keyring, now)?;
    Ok(Verified { text: parts.text, signers })
}

/// Verifies detached signatures over a text, as `Release.gpg` holds them for `Release`.
///
/// `signatures` is binary, or one or more armored blocks; `now` is in seconds since 1970.
///
/// # Errors
///
/// [`SignatureError`] when the signatures cannot be read, none by a key of `keyring` is acceptable,
/// or the text is not UTF-8.
pub fn verify_detached(
    text: &[u8],
    signatures: &[u8],
    keyring: &Keyring,
    now: i64,
) -> Result<Verified, SignatureError> {
    let blocks = framing::packet_blocks(signatures, "SIGNATURE")?;
    let signatures = read_signatures(&blocks)?;
    let signers = accept(&signatures, text, keyring, now)?;
    let text = std::str::from_utf8(text)
        .map_err(|_| SignatureError::Malformed { reason: "the text is not UTF-8" })?;
    Ok(Verified { text: text.to_owned(), signers })
}

fn read_signatures(blocks: &[Vec<u8>]) -> Result<Vec<Signature>, SignatureError> {
    let mut signatures = Vec::new();
    for packet in blocks.iter().flat_map(|block| pgp::packet::PacketParser::new(&block[..])) {
        match packet {
            Ok(pgp::packet::Packet::Signature(signature)) => signatures.push(signature),
            Ok(_) => {
                return Err(SignatureError::Malformed {
                    reason: "the signature block holds something else than signatures",
                });
            }
            Err(source) => return Err(SignatureError::Packets { source: Box::new(source) }),
        }
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(SignatureError::Malformed { reason: "there are too many signatures" });
    }
    Ok(signatures)
}

/// The signers of all acceptable signatures; an error when there is none.
fn accept(
    signatures: &[Signature],
    data: &[u8],
    keyring: &Keyring,
    now: i64,
) -> Result<Vec<String>, SignatureError> {
    let (mut signers, mut rejected) = (Vec::new(), Vec::new());
    for signature in signatures {
        match check(signature, data, keyring, now) {
            Ok(signer) if !signers.contains(&signer) => signers.push(signer),
            Ok(_) => {}
            Err(reason) => rejected.push(Rejected { signer: claimed_signer(signature), reason }),
        }
    }
    if signers.is_empty() { Err(SignatureError::Unacceptable { rejected }) } else { Ok(signers) }
}

fn check(
    signature: &Signature,
    data: &[u8],
    keyring: &Keyring,
    now: i64,
) -> Result<String, Rejection> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err(Rejection::Unsupported);
    }
    let made = sound(signature, now)?;
    let mut verdict = Err(Rejection::UnknownKey);
    for (certificate, component) in keyring.find(signature) {
        // Whether the bytes match comes first: all else is said about a real signature only.
        let outcome = certificate
            .verify_data(component, signature, data)
            .and_then(|()| certificate.may_sign(component, made, now))
            .map(|()| certificate.fingerprint(component));
        match outcome {
            // One copy of a certificate may know of a revocation that another does not.
            Err(Rejection::KeyRevoked) => return Err(Rejection::KeyRevoked),
            _ if verdict.is_ok() => {}
            outcome => verdict = outcome,
        }
    }
    verdict
}

/// Checks what a signature says of itself; the time at which it was made.
///
/// Self-signatures within certificates are held to the same rules, SHA-1 included: apt's
/// verifier has refused it there as well since 2026.
fn sound(signature: &Signature, now: i64) -> Result<i64, Rejection> {
    let config = signature.config().ok_or(Rejection::Unsupported)?;
    if !matches!(signature.version(), SignatureVersion::V4 | SignatureVersion::V6) {
        return Err(Rejection::Unsupported);
    }
    match config.hash_alg {
        HashAlgorithm::Sha256
        | HashAlgorithm::Sha384
        | HashAlgorithm::Sha512
        | HashAlgorithm::Sha3_256
        | HashAlgorithm::Sha3_512 => {}
        weak => return Err(Rejection::WeakHash(weak.to_string())),
    }
    // A critical subpacket that is not understood must void the signature (RFC 9580, 5.2.3.7).
    let unknown = config.hashed_subpackets().any(|subpacket| {
        let known = !matches!(
            subpacket.data,
            SubpacketData::Experimental(..) | SubpacketData::Other(..) | SubpacketData::Notation(_)
        );
        subpacket.is_critical && !known
    });
    if unknown {
        return Err(Rejection::Unsupported);
    }
    let made = i64::from(signature.created().ok_or(Rejection::Unsupported)?.as_secs());
    if made > now.saturating_add(CLOCK_TOLERANCE) {
        return Err(Rejection::Future(made));
    }
    match signature.signature_expiration_time().map(|lifetime| i64::from(lifetime.as_secs())) {
        Some(lifetime) if lifetime != 0 && made + lifetime <= now => {
            Err(Rejection::SignatureExpired(made + lifetime))
        }
        _ => Ok(made),
    }
}

fn claimed_signer(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|print| format!("{print:X}"));
    let key_id = || signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase());
    fingerprint.or_else(key_id).unwrap_or_else(|| "an unnamed key".to_owned())
}

#[cfg(test)]
mod tests;
