//! Why attestations are not made, not read or not believed.

use std::fmt;

use drystone_store::digest::DerivationId;

use crate::key::KeyId;

/// Why something is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The derivation is not the one that was realised.
    #[error("the realisation is of derivation {expected}, not of {actual}")]
    Derivation {
        /// The derivation that the realisation names.
        expected: DerivationId,
        /// The id of the derivation that was given.
        actual: DerivationId,
    },
    /// The outputs are not those that the derivation names.
    #[error("derivation {derivation} has other outputs than its realisation")]
    Outputs {
        /// The derivation.
        derivation: DerivationId,
    },
    /// An output's name cannot be part of a subject's name.
    #[error("{name:?} is no name of an output: expected 1 to 100 of A-Z a-z 0-9 + . _ -")]
    OutputName {
        /// The name.
        name: String,
    },
    /// An output has two layers of one compression, or one of another tree.
    #[error("the layers of output {output} contradict each other")]
    Layers {
        /// The output.
        output: String,
    },
    /// It was built without a sandbox and needs one, or the other way round.
    #[error(
        "derivation {derivation} was not built in the sandbox that it asks for, and is never \
         shared"
    )]
    Sandbox {
        /// The derivation.
        derivation: DerivationId,
    },
}

/// Why a payload is no attestation.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It is not the JSON of a statement.
    #[error("not the JSON of an in-toto statement")]
    Json(#[source] serde_json::Error),
    /// It is another kind of document.
    #[error("the statement is of type {found:?}, not an in-toto statement v1")]
    StatementType {
        /// The type as written.
        found: String,
    },
    /// It says another kind of thing.
    #[error("the statement's predicate is of type {found:?}, not SLSA provenance v1")]
    PredicateType {
        /// The type as written.
        found: String,
    },
    /// It is about another kind of build.
    #[error("the provenance is of build type {found:?}, not a realisation of format 1")]
    BuildType {
        /// The type as written.
        found: String,
    },
    /// The predicate is not provenance of a derivation.
    #[error("the predicate is no provenance of a derivation")]
    Predicate(#[source] serde_json::Error),
    /// The id is not the hash of the derivation's JSON.
    #[error("the statement names derivation {claimed}, but holds {actual}")]
    DerivationHash {
        /// The id as written.
        claimed: DerivationId,
        /// The id that the JSON has.
        actual: DerivationId,
    },
    /// A subject appears twice.
    #[error("the statement has the subject {name:?} twice")]
    DuplicateSubject {
        /// The subject's name.
        name: String,
    },
    /// A subject is none of an attestation.
    #[error("the subject {name:?} of the statement is malformed")]
    Subject {
        /// The subject's name.
        name: String,
    },
    /// The statement contradicts itself.
    #[error("the statement contradicts itself")]
    Contradiction(#[source] SignError),
    /// The bytes are not the one form that these values have.
    #[error("the statement is not in canonical form")]
    NotCanonical,
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// Its key is not trusted.
    Unknown,
    /// It is not the key's over these bytes.
    Wrong,
    /// Its key is revoked.
    Revoked,
    /// Its key counts only later.
    NotYetValid,
    /// Its key no longer counts.
    Expired,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is not trusted",
            Self::Wrong => "has not signed these bytes",
            Self::Revoked => "is revoked",
            Self::NotYetValid => "is not valid yet",
            Self::Expired => "has expired",
        })
    }
}

/// A signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The key that is said to have made it.
    pub key: KeyId,
    /// The key's name, if the user named it.
    pub name: Option<String>,
    /// Why it does not count.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "key {name} ({}) {}", self.key, self.reason),
            None => write!(f, "key {} {}", self.key, self.reason),
        }
    }
}

/// Why an envelope is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nobody signed it.
    #[error("the attestation is not signed")]
    Unsigned,
    /// No signature counts.
    #[error("no trusted key has signed the attestation: {}", listed(refusals))]
    Untrusted {
        /// Why, for each signature.
        refusals: Vec<Refusal>,
    },
    /// What was signed is no statement.
    #[error("what was signed is of type {found:?}, not an in-toto statement")]
    PayloadType {
        /// The type as written.
        found: String,
    },
    /// What was signed is no attestation.
    #[error("what was signed is no attestation of a build")]
    Payload(#[from] PayloadError),
    /// It is about another derivation than was asked for.
    #[error("the attestation is of derivation {found}, and {expected} was asked for")]
    OtherDerivation {
        /// The derivation that was asked for.
        expected: DerivationId,
        /// The derivation that it is about.
        found: DerivationId,
    },
}

fn listed(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
