//! Statements: in-toto v1, what is said about which artefacts.
//!
//! A statement has one form, the canonical JSON (RFC 8785), so that builders who say the same sign
//! the same bytes.

use std::collections::BTreeMap;

use drystone_store::derivation::canonical_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The type of all in-toto statements, version 1.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate type of SLSA provenance, version 1.
pub const SLSA_PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Something that a statement is about or refers to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    /// Its name; unique among the subjects of a statement.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digests by algorithm, in lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What else is known about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Resource {
    /// A resource with a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a digest in lower-case hexadecimal.
    #[must_use]
    pub fn with_digest(mut self, algorithm: &str, hex: String) -> Self {
        self.digest.insert(algorithm.to_owned(), hex);
        self
    }

    /// Sets where it comes from.
    #[must_use]
    pub fn with_uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn with_annotation(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.annotations.insert(name.to_owned(), value.into());
        self
    }
}

/// A statement: subjects, and a predicate that holds of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement<P> {
    /// Always [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    /// The type of the predicate.
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

impl<P: Serialize> Statement<P> {
    /// Says something about subjects.
    pub fn new(subject: Vec<Resource>, predicate_type: &str, predicate: P) -> Self {
        Self {
            kind: STATEMENT.to_owned(),
            subject,
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    /// The statement's canonical JSON.
    pub fn to_json(&self) -> String {
        let value = serde_json::to_value(self).expect("a statement's maps have text keys");
        canonical_json(&value)
    }
}

/// SLSA provenance, version 1: how something was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance<E, I> {
    /// What was to be built.
    pub build_definition: BuildDefinition<E, I>,
    /// Who built it.
    pub run_details: RunDetails,
}

/// What was to be built, and of what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildDefinition<E, I> {
    /// The kind of build, which says what the parameters mean.
    pub build_type: String,
    /// What the user asked for.
    pub external_parameters: E,
    /// What the builder decided.
    pub internal_parameters: I,
    /// What went into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolved_dependencies: Vec<Resource>,
}

/// Who built it. No times: they would make each build's statement another one, and prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDetails {
    /// The builder.
    pub builder: Builder,
}

/// The platform that built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// Its address.
    pub id: String,
}
