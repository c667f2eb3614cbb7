//! Agreement: what several builders say about one derivation, taken together.
//!
//! Attestations are of one opinion when all outputs are identical: tree, diff_id, size, listing and
//! references. An opinion holds when at least `threshold` different keys share it and no other one
//! has as many. A layer is believed only if that many keys attest the very same layer: its digest
//! enters manifests before anybody has seen its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use drystone_store::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use drystone_store::layer::Layer;
use drystone_store::realisation::Output;

use crate::attestation::{Attestation, Verified};
use crate::key::PublicKey;

/// What some of the builders say.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// What they say; layers are those that enough of them attest.
    pub attestation: Attestation,
    /// The keys that say so.
    pub signers: BTreeSet<PublicKey>,
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.signers.iter().map(PublicKey::name).collect();
        write!(f, "{} built", names.join(", "))?;
        for (name, output) in &self.attestation.realisation.outputs {
            write!(f, " {name} = {}", output.path)?;
        }
        Ok(())
    }
}

/// The opinion that holds, and those that were outvoted.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// What holds.
    pub opinion: Opinion,
    /// What fewer keys say. A build that is reproducible has none; report them.
    pub dissent: Vec<Opinion>,
}

/// Why no opinion holds.
#[derive(Debug, thiserror::Error)]
pub enum AgreementError {
    /// There is no attestation at all.
    #[error("there is no attestation")]
    Nothing,
    /// The attestations are about different derivations, and cannot be weighed together.
    #[error("the attestations are of derivations {one} and {other}")]
    Mixed {
        /// One derivation.
        one: DerivationId,
        /// Another one.
        other: DerivationId,
    },
    /// Fewer keys than needed say so; nobody says anything else.
    #[error("{found} of {threshold} keys attest derivation {derivation}")]
    TooFew {
        /// The derivation.
        derivation: DerivationId,
        /// How many keys must agree.
        threshold: usize,
        /// How many do.
        found: usize,
    },
    /// Builders disagree, and no side has enough keys alone.
    #[error("builders disagree about derivation {derivation}: {}", listed(opinions))]
    Disagreement {
        /// The derivation.
        derivation: DerivationId,
        /// All that is said, most keys first.
        opinions: Vec<Opinion>,
    },
}

fn listed(opinions: &[Opinion]) -> String {
    opinions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What makes two outputs the same. The path's name is for people, and more layers are only more
/// forms of the same tree.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    tree: TreeHash,
    diff_id: DiffId,
    size: u64,
    listing: (BlobDigest, u64),
    references: Vec<TreeHash>,
}

impl Identity {
    fn of(output: &Output) -> Self {
        Self {
            tree: *output.path.hash(),
            diff_id: output.diff_id,
            size: output.size,
            listing: (output.listing.digest, output.listing.size),
            references: output.references.clone(),
        }
    }
}

/// Weighs attestations of one derivation.
pub fn agree(
    attestations: impl IntoIterator<Item = Verified>,
    threshold: usize,
) -> Result<Agreement, AgreementError> {
    let mut groups: BTreeMap<BTreeMap<String, Identity>, Vec<Verified>> = BTreeMap::new();
    let mut derivation = None;
    for verified in attestations {
        let realisation = &verified.attestation.realisation;
        let one = *derivation.get_or_insert(realisation.derivation);
        if one != realisation.derivation {
            return Err(AgreementError::Mixed { one, other: realisation.derivation });
        }
        let outputs = realisation.outputs.iter();
        let identity = outputs.map(|(name, output)| (name.clone(), Identity::of(output)));
        groups.entry(identity.collect()).or_default().push(verified);
    }
    let derivation = derivation.ok_or(AgreementError::Nothing)?;
    let threshold = threshold.max(1);
    let opinions = groups.into_values().filter_map(|group| joined(&group, threshold));
    let mut opinions: Vec<Opinion> = opinions.collect();
    opinions.sort_by_key(|opinion| std::cmp::Reverse(opinion.signers.len()));
    let enough = opinions.iter().filter(|opinion| opinion.signers.len() >= threshold).count();
    match (enough, opinions.len()) {
        (1, _) => {
            let dissent = opinions.split_off(1);
            let opinion = opinions.pop().expect("one opinion has enough keys");
            Ok(Agreement { opinion, dissent })
        }
        (0, 1) => {
            let found = opinions.first().map_or(0, |opinion| opinion.signers.len());
            Err(AgreementError::TooFew { derivation, threshold, found })
        }
        _ => Err(AgreementError::Disagreement { derivation, opinions }),
    }
}

/// Joins attestations of identical outputs.
fn joined(group: &[Verified], threshold: usize) -> Option<Opinion> {
    let mut attestation = group.first()?.attestation.clone();
    let signers = group.iter().flat_map(|verified| verified.signers.iter().cloned()).collect();
    // Emulation anywhere taints what is said together.
    attestation.context.emulation = group.iter().any(|it| it.attestation.context.emulation);
    for (name, output) in &mut attestation.realisation.outputs {
        output.layers = layers(group, name, threshold);
    }
    Some(Opinion { attestation, signers })
}

/// The layers of an output that enough keys attest. Two of one compression contradict each other,
/// so neither is believed.
fn layers(group: &[Verified], name: &str, threshold: usize) -> Vec<Layer> {
    let mut claims: Vec<(&Layer, BTreeSet<&PublicKey>)> = Vec::new();
    for verified in group {
        let output = verified.attestation.realisation.outputs.get(name);
        for layer in output.iter().flat_map(|output| &output.layers) {
            match claims.iter_mut().find(|(known, _)| *known == layer) {
                Some((_, keys)) => keys.extend(&verified.signers),
                None => claims.push((layer, verified.signers.iter().collect())),
            }
        }
    }
    claims.retain(|(_, keys)| keys.len() >= threshold);
    let rivals = |layer: &Layer| {
        claims.iter().filter(|(other, _)| other.compression == layer.compression).count()
    };
    let believed = claims.iter().filter(|(layer, _)| rivals(layer) == 1);
    believed.map(|(layer, _)| (*layer).clone()).collect()
}

#[cfg(test)]
mod tests {
    use drystone_store::layer::Compression;

    use super::*;
    use crate::attestation::samples;
    use crate::key::SecretKey;

    fn says(seeds: &[u8], attestation: Attestation) -> Verified {
        let key = |seed: &u8| {
            SecretKey::from_seed(&format!("builder-{seed}"), &[*seed; 32]).unwrap().public()
        };
        Verified { attestation, signers: seeds.iter().map(key).collect() }
    }

    /// The sample, but with another tree.
    fn other() -> Attestation {
        let mut other = samples::attestation();
        let output = other.realisation.outputs.get_mut("out").unwrap();
        output.size += 512;
        other
    }

    #[test]
    fn different_keys_are_counted_and_not_attestations() {
        let sample = samples::attestation;
        let twice = [says(&[1], sample()), says(&[1], sample())];
        let error = agree(twice, 2).unwrap_err();
        assert!(matches!(error, AgreementError::TooFew { threshold: 2, found: 1, .. }));
        let two = [says(&[1], sample()), says(&[2], sample())];
        let agreement = agree(two, 2).unwrap();
        assert_eq!(agreement.opinion.attestation, sample());
        assert_eq!(agreement.opinion.signers.len(), 2);
        assert!(agreement.dissent.is_empty());
        assert!(agree([says(&[1, 2], sample())], 2).is_ok(), "one envelope, two signatures");
        assert!(matches!(agree([], 1), Err(AgreementError::Nothing)));
    }

    #[test]
    fn builders_that_disagree_are_all_named() {
        let error = agree([says(&[1], samples::attestation()), says(&[2], other())], 1);
        let error = error.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("builder-1") && text.contains("builder-2"), "{text}");
        let AgreementError::Disagreement { opinions, .. } = error else { panic!("{error}") };
        assert_eq!(opinions.len(), 2);
    }

    #[test]
    fn a_minority_is_reported_and_does_not_win() {
        let votes = [
            says(&[3], other()),
            says(&[1], samples::attestation()),
            says(&[2], samples::attestation()),
        ];
        let agreement = agree(votes.clone(), 2).unwrap();
        assert_eq!(agreement.opinion.attestation, samples::attestation());
        assert_eq!(agreement.dissent.len(), 1);
        assert!(matches!(agree(votes, 3), Err(AgreementError::Disagreement { .. })));
    }

    #[test]
    fn a_key_that_contradicts_itself_helps_no_side() {
        let votes = [says(&[1], samples::attestation()), says(&[1], other())];
        assert!(matches!(agree(votes, 1), Err(AgreementError::Disagreement { .. })));
    }

    #[test]
    fn a_layer_needs_as_many_keys_as_a_tree() {
        let mut more = samples::attestation();
        let output = more.realisation.outputs.get_mut("out").unwrap();
        let mut layer = output.layers[0].clone();
        layer.compression = Compression::Store1;
        layer.digest = BlobDigest::of(b"slipped in by one");
        output.layers.push(layer);
        let votes = [says(&[1], samples::attestation()), says(&[2], more.clone())];
        let opinion = agree(votes, 2).unwrap().opinion;
        assert_eq!(opinion.attestation, samples::attestation());
        let both = [says(&[1], more.clone()), says(&[2], more.clone())];
        assert_eq!(agree(both, 2).unwrap().opinion.attestation, more);
    }

    #[test]
    fn rival_layers_of_one_compression_are_dropped() {
        let mut rival = samples::attestation();
        let output = rival.realisation.outputs.get_mut("out").unwrap();
        output.layers[0].digest = BlobDigest::of(b"another");
        let votes = [says(&[1], samples::attestation()), says(&[2], rival)];
        let opinion = agree(votes, 1).unwrap().opinion;
        let kept = &opinion.attestation.realisation.outputs["out"].layers;
        assert!(kept.iter().all(|layer| layer.compression != Compression::Gzip1), "{kept:?}");
    }

    #[test]
    fn derivations_are_not_mixed() {
        let mut mixed = samples::attestation();
        mixed.derivation.v += 1;
        mixed.realisation.derivation = mixed.derivation.id();
        let votes = [says(&[1], samples::attestation()), says(&[2], mixed)];
        assert!(matches!(agree(votes, 1), Err(AgreementError::Mixed { .. })));
    }
}
