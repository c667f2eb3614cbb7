//! Attestations: a realisation as a signed statement of who built it.
//!
//! ```text
//! Realisation, Derivation, BuildContext <──> in-toto statement (SLSA provenance v1) ──> Envelope
//!                                                     docs/formats/attestation.md
//! ```
//!
//! The statement is a function of these values, and reading one makes it again and compares the
//! bytes. So nothing is said twice in different ways, nothing is ignored, and builders that agree
//! sign the same bytes. Signatures are checked before anything else is looked at.

mod error;
mod payload;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use drystone_store::derivation::Derivation;
use drystone_store::digest::DerivationId;
use drystone_store::realisation::Realisation;
use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, IN_TOTO};
use crate::key::{PublicKey, SecretKey};
use crate::trust::{Standing, Trust};

pub use error::{PayloadError, Refusal, RefusalReason, SignError, VerifyError};
pub use payload::{BUILD_TYPE, BUILDER};

/// What kept the build from its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// The builder runs no foreign code, and needs no sandbox.
    Unused,
    /// The sandbox of namespaces.
    Namespaces,
    /// Nothing, as `--sandbox=none` asks for. Such results are never shared.
    None,
}

/// How a derivation was built: what could have mattered and is not in its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildContext {
    /// What kept the build from its surroundings.
    pub sandbox: SandboxMode,
    /// Whether programs for another processor ran by user-mode emulation.
    pub emulation: bool,
}

/// What an attestation says.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// What the derivation gave.
    pub realisation: Realisation,
    /// The derivation.
    pub derivation: Derivation,
    /// How it was built.
    pub context: BuildContext,
}

impl Attestation {
    /// The statement's canonical JSON.
    ///
    /// Refused is what could not be read back: a derivation that is not the realisation's, outputs
    /// that are not the derivation's, a build without the sandbox that it needs.
    pub fn to_payload(&self) -> Result<Vec<u8>, SignError> {
        payload::check(self)?;
        Ok(payload::encode(self).into_bytes())
    }

    /// Signs the attestation. A builder signs only what it built itself.
    pub fn sign(&self, key: &SecretKey) -> Result<Envelope, SignError> {
        Ok(Envelope::sign(IN_TOTO, self.to_payload()?, key))
    }

    /// Reads a payload that says something about itself only: nobody has vouched for it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, PayloadError> {
        payload::decode(payload)
    }
}

/// The derivation that an envelope claims to be about, for finding it among others. Only
/// [`verify`] proves it.
pub fn claimed_derivation(envelope: &Envelope) -> Option<DerivationId> {
    payload::claimed(envelope.payload())
}

/// An attestation that trusted keys have signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it says.
    pub attestation: Attestation,
    /// The trusted keys that say so: at least one. [`crate::agreement`] asks for more.
    pub signers: BTreeSet<PublicKey>,
}

/// Checks an envelope that should hold an attestation of the derivation `expected`.
///
/// `now`, in seconds since 1970, judges the time limits of keys. One trusted signature is enough
/// here; whether enough keys agree is decided over all attestations together by
/// [`crate::agreement::agree`].
pub fn verify(
    envelope: &Envelope,
    trust: &Trust,
    now: i64,
    expected: &DerivationId,
) -> Result<Verified, VerifyError> {
    let signers = signers(envelope, trust, now)?;
    if envelope.payload_type() != IN_TOTO {
        return Err(VerifyError::PayloadType { found: envelope.payload_type().to_owned() });
    }
    let attestation = Attestation::from_payload(envelope.payload())?;
    let found = attestation.realisation.derivation;
    if found != *expected {
        return Err(VerifyError::OtherDerivation { expected: *expected, found });
    }
    Ok(Verified { attestation, signers })
}

/// The trusted keys that signed an envelope, whatever it holds.
pub fn signers(
    envelope: &Envelope,
    trust: &Trust,
    now: i64,
) -> Result<BTreeSet<PublicKey>, VerifyError> {
    if envelope.signatures().is_empty() {
        return Err(VerifyError::Unsigned);
    }
    let message = envelope.signed_bytes();
    let (mut signers, mut refusals) = (BTreeSet::new(), Vec::new());
    for signature in envelope.signatures() {
        let mut reason = RefusalReason::Unknown;
        let mut name = None;
        for trusted in trust.find(signature.key) {
            name = Some(trusted.key.name().to_owned());
            reason = match trusted.standing(now) {
                Standing::Revoked => RefusalReason::Revoked,
                Standing::NotYetValid => RefusalReason::NotYetValid,
                Standing::Expired => RefusalReason::Expired,
                Standing::Valid if trusted.key.verifies(&message, &signature.bytes) => {
                    signers.insert(trusted.key.clone());
                    continue;
                }
                Standing::Valid => RefusalReason::Wrong,
            };
        }
        refusals.push(Refusal { key: signature.key, name, reason });
    }
    match signers.is_empty() {
        true => Err(VerifyError::Untrusted { refusals }),
        false => Ok(signers),
    }
}
