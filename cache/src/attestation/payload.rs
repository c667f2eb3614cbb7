//! The statement of an attestation, written and read.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::derivation::Derivation;
use drystone_store::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use drystone_store::layer::{Compression, Layer};
use drystone_store::path::StorePath;
use drystone_store::realisation::{ListingRef, Output, Realisation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{PayloadError, SignError};
use super::{Attestation, BuildContext, SandboxMode};
use crate::statement::{
    BuildDefinition, Builder, Provenance, Resource, RunDetails, SLSA_PROVENANCE, STATEMENT,
    Statement,
};

/// The build type of realisations: says what the parameters of their provenance mean.
pub const BUILD_TYPE: &str = "urn:drystone:realisation:1";
/// The builder of all realisations. Which one it was, the key says.
pub const BUILDER: &str = "urn:drystone:builder:1";
/// The part of a subject's name that stands for the listing.
const LISTING: &str = "listing";
/// The longest name of an output, in bytes.
const MAX_NAME: usize = 100;

/// What was asked for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Asked {
    derivation: Derivation,
    derivation_id: DerivationId,
}

type Predicate = Provenance<Asked, BuildContext>;

/// Refuses what could not be read back, or must not be shared.
pub(super) fn check(attestation: &Attestation) -> Result<(), SignError> {
    let Attestation { realisation, derivation, context } = attestation;
    let actual = derivation.id();
    if realisation.derivation != actual {
        return Err(SignError::Derivation { expected: realisation.derivation, actual });
    }
    let declared: BTreeSet<&String> = derivation.outputs.iter().collect();
    let named_once = declared.len() == derivation.outputs.len();
    if !named_once || !declared.into_iter().eq(realisation.outputs.keys()) {
        return Err(SignError::Outputs { derivation: actual });
    }
    for (name, output) in &realisation.outputs {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(legal) {
            return Err(SignError::OutputName { name: name.chars().take(MAX_NAME).collect() });
        }
        let mut seen = BTreeSet::new();
        let fits = |layer: &Layer| layer.diff_id == output.diff_id;
        if !output.layers.iter().all(|layer| fits(layer) && seen.insert(layer.compression)) {
            return Err(SignError::Layers { output: name.clone() });
        }
    }
    let expected = match derivation.sandbox {
        Some(_) => SandboxMode::Namespaces,
        None => SandboxMode::Unused,
    };
    match context.sandbox == expected {
        true => Ok(()),
        false => Err(SignError::Sandbox { derivation: actual }),
    }
}

/// Writes the statement.
pub(super) fn encode(attestation: &Attestation) -> String {
    let Attestation { realisation, derivation, context } = attestation;
    let subjects = realisation.outputs.iter().flat_map(|(name, output)| subjects(name, output));
    let inputs = derivation.inputs.iter().map(|input| {
        Resource::new(format!("input-{}", input.at)).with_digest("blake3", input.tree.to_hex())
    });
    let predicate = Predicate {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.to_owned(),
            external_parameters: Asked {
                derivation: derivation.clone(),
                derivation_id: realisation.derivation,
            },
            internal_parameters: *context,
            resolved_dependencies: inputs.collect(),
        },
        run_details: RunDetails { builder: Builder { id: BUILDER.to_owned() } },
    };
    Statement::new(subjects.collect(), SLSA_PROVENANCE, predicate).to_json()
}

/// An output's subjects: its tree (as canonical tar), its listing, its layers.
fn subjects(name: &str, output: &Output) -> Vec<Resource> {
    let tree = Resource::new(name)
        .with_digest("blake3", output.path.hash().to_hex())
        .with_digest("sha256", output.diff_id.to_hex())
        .with_annotation("path", output.path.to_string())
        .with_annotation("references", json!(output.references))
        .with_annotation("size", output.size);
    let listing = Resource::new(format!("{name}/{LISTING}"))
        .with_digest("sha256", output.listing.digest.to_hex())
        .with_annotation("size", output.listing.size);
    let layers = output.layers.iter().map(|layer| Resource {
        media_type: Some(layer.compression.media_type().to_owned()),
        ..Resource::new(format!("{name}/{}", layer.compression))
            .with_digest("sha256", layer.digest.to_hex())
            .with_annotation("size", layer.size)
    });
    [tree, listing].into_iter().chain(layers).collect()
}

/// The derivation that a payload says it is about.
pub(super) fn claimed(payload: &[u8]) -> Option<DerivationId> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    let place = "/predicate/buildDefinition/externalParameters/derivationId";
    value.pointer(place)?.as_str()?.parse().ok()
}

/// Reads a statement, and makes sure that it is the one form of what was read.
pub(super) fn decode(payload: &[u8]) -> Result<Attestation, PayloadError> {
    let statement: Statement<Value> =
        serde_json::from_slice(payload).map_err(PayloadError::Json)?;
    let short = |text: &str| text.chars().take(200).collect::<String>();
    if statement.kind != STATEMENT {
        return Err(PayloadError::StatementType { found: short(&statement.kind) });
    }
    if statement.predicate_type != SLSA_PROVENANCE {
        return Err(PayloadError::PredicateType { found: short(&statement.predicate_type) });
    }
    let build_type = statement.predicate.pointer("/buildDefinition/buildType");
    match build_type.and_then(Value::as_str) {
        Some(BUILD_TYPE) => {}
        other => {
            let found = short(other.unwrap_or_default());
            return Err(PayloadError::BuildType { found });
        }
    }
    let predicate: Predicate =
        serde_json::from_value(statement.predicate).map_err(PayloadError::Predicate)?;
    let Asked { derivation, derivation_id } = predicate.build_definition.external_parameters;
    let actual = derivation.id();
    if actual != derivation_id {
        return Err(PayloadError::DerivationHash { claimed: derivation_id, actual });
    }
    let outputs = outputs(&statement.subject)?;
    let attestation = Attestation {
        realisation: Realisation { derivation: actual, outputs },
        derivation,
        context: predicate.build_definition.internal_parameters,
    };
    check(&attestation).map_err(PayloadError::Contradiction)?;
    match encode(&attestation).as_bytes() == payload {
        true => Ok(attestation),
        false => Err(PayloadError::NotCanonical),
    }
}

/// The outputs that subjects describe. Whatever is overlooked here, the comparison of the whole
/// statement finds.
fn outputs(subjects: &[Resource]) -> Result<BTreeMap<String, Output>, PayloadError> {
    let mut seen = BTreeSet::new();
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    for subject in subjects {
        let name = &subject.name;
        if !seen.insert(name) {
            return Err(PayloadError::DuplicateSubject { name: name.clone() });
        }
        let wrong = || PayloadError::Subject { name: name.chars().take(200).collect() };
        match name.split_once('/') {
            None => {
                // The listing has a subject of its own, which must follow.
                let output = tree(subject).ok_or_else(wrong)?;
                outputs.insert(name.clone(), output);
            }
            Some((output, part)) => {
                let output = outputs.get_mut(output).ok_or_else(wrong)?;
                add_blob(output, part, subject).ok_or_else(wrong)?;
            }
        }
    }
    Ok(outputs)
}

fn tree(subject: &Resource) -> Option<Output> {
    let path: StorePath = subject.annotations.get("path")?.as_str()?.parse().ok()?;
    let references = subject.annotations.get("references")?.as_array()?;
    let references = references.iter().map(|it| it.as_str()?.parse::<TreeHash>().ok());
    Some(Output {
        path,
        diff_id: DiffId::from_bytes(*sha256(subject)?.as_bytes()),
        size: size(subject)?,
        layers: Vec::new(),
        listing: ListingRef { digest: BlobDigest::from_bytes([0; 32]), size: 0 },
        references: references.collect::<Option<_>>()?,
    })
}

fn add_blob(output: &mut Output, part: &str, subject: &Resource) -> Option<()> {
    let (digest, size) = (sha256(subject)?, size(subject)?);
    if part == LISTING {
        output.listing = ListingRef { digest, size };
        return Some(());
    }
    let compression: Compression = part.parse().ok()?;
    output.layers.push(Layer { compression, digest, size, diff_id: output.diff_id });
    Some(())
}

fn sha256(subject: &Resource) -> Option<BlobDigest> {
    BlobDigest::from_hex(subject.digest.get("sha256")?)
}

fn size(subject: &Resource) -> Option<u64> {
    subject.annotations.get("size")?.as_u64()
}
