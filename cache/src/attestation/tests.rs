//! Attestations: their bytes are frozen, what is altered is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use drystone_store::derivation::canonical_json;
use drystone_store::layer::Compression;

use super::samples::attestation;
use super::*;
use crate::statement::SLSA_PROVENANCE;
use crate::trust::TrustedKey;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed("builder", &[seed; 32]).unwrap()
}

fn trusting(seed: u8, conditions: &str) -> Trust {
    let line = format!("{}{conditions}", key(seed).public());
    Trust::new([line.parse::<TrustedKey>().unwrap()], 1).unwrap()
}

fn id() -> DerivationId {
    attestation().derivation.id()
}

/// Signs whatever payload, as a holder of the key could.
fn forged(change: impl Fn(&mut Value)) -> Envelope {
    let payload = attestation().to_payload().unwrap();
    let mut value: Value = serde_json::from_slice(&payload).unwrap();
    change(&mut value);
    Envelope::sign(IN_TOTO, canonical_json(&value).into_bytes(), &key(1))
}

fn refused(envelope: &Envelope) -> VerifyError {
    verify(envelope, &trusting(1, ""), 0, &id()).unwrap_err()
}

fn payload_error(change: impl Fn(&mut Value)) -> PayloadError {
    match refused(&forged(change)) {
        VerifyError::Payload(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn golden_bytes_are_frozen() {
    let envelope = attestation().sign(&key(1)).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");
    let payload = String::from_utf8(envelope.payload().to_vec()).unwrap();
    for (name, text) in
        [("attestation.statement.json", payload), ("attestation.envelope.json", envelope.to_json())]
    {
        let path = format!("{path}{name}");
        if std::env::var_os("DRYSTONE_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{text}\n")).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden.trim_end() == text, "{name} is now:\n{text}");
    }
}

#[test]
fn what_is_signed_comes_back() {
    let envelope = attestation().sign(&key(1)).unwrap();
    let envelope = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
    assert_eq!(claimed_derivation(&envelope), Some(id()));
    let verified = verify(&envelope, &trusting(1, ""), 0, &id()).unwrap();
    assert_eq!(verified.attestation, attestation());
    assert_eq!(verified.signers, [key(1).public()].into());
}

#[test]
fn only_trusted_keys_count() {
    let reason = |envelope: &Envelope, trust: Trust, now| match verify(envelope, &trust, now, &id())
    {
        Err(VerifyError::Untrusted { refusals }) => refusals[0].reason,
        other => panic!("{other:?}"),
    };
    let envelope = attestation().sign(&key(1)).unwrap();
    assert_eq!(reason(&envelope, trusting(2, ""), 0), RefusalReason::Unknown);
    assert_eq!(reason(&envelope, Trust::nobody(), 0), RefusalReason::Unknown);
    assert_eq!(reason(&envelope, trusting(1, ";revoked"), 0), RefusalReason::Revoked);
    let late = trusting(1, ";not-before=1970-01-02");
    assert_eq!(reason(&envelope, late, 0), RefusalReason::NotYetValid);
    let early = trusting(1, ";not-after=1970-01-02");
    assert_eq!(reason(&envelope, early.clone(), 1_000_000), RefusalReason::Expired);
    assert!(verify(&envelope, &early, 0, &id()).is_ok());
    let unsigned = envelope.to_json();
    let (head, _) = unsigned.split_once("\"signatures\":").unwrap();
    let unsigned = Envelope::parse(format!("{head}\"signatures\":[]}}").as_bytes()).unwrap();
    assert!(matches!(refused(&unsigned), VerifyError::Unsigned));
}

#[test]
fn a_signature_under_a_trusted_name_by_another_key_is_wrong() {
    let envelope = attestation().sign(&key(2)).unwrap();
    let renamed = envelope
        .to_json()
        .replace(&key(2).public().id().to_string(), &key(1).public().id().to_string());
    let renamed = Envelope::parse(renamed.as_bytes()).unwrap();
    match refused(&renamed) {
        VerifyError::Untrusted { refusals } => assert_eq!(refusals[0].reason, RefusalReason::Wrong),
        other => panic!("{other}"),
    }
}

#[test]
fn strangers_beside_a_trusted_key_do_no_harm_and_do_not_count() {
    let mut envelope = attestation().sign(&key(1)).unwrap();
    envelope.add_signature(&key(2));
    let verified = verify(&envelope, &trusting(1, ""), 0, &id()).unwrap();
    assert_eq!(verified.signers.len(), 1);
}

#[test]
fn another_payload_type_is_another_message() {
    let payload = attestation().to_payload().unwrap();
    let envelope = Envelope::sign("application/json", payload, &key(1));
    assert!(matches!(refused(&envelope), VerifyError::PayloadType { .. }));
    let relabelled = envelope.to_json().replace("application/json", IN_TOTO);
    let relabelled = Envelope::parse(relabelled.as_bytes()).unwrap();
    assert!(matches!(refused(&relabelled), VerifyError::Untrusted { .. }));
}

#[test]
fn a_realisation_is_not_replayed_for_another_derivation() {
    let envelope = attestation().sign(&key(1)).unwrap();
    let other = DerivationId::of(b"another");
    let error = verify(&envelope, &trusting(1, ""), 0, &other).unwrap_err();
    assert!(matches!(error, VerifyError::OtherDerivation { found, .. } if found == id()));
    // Nor by writing the other's id into it.
    let pointer = "/predicate/buildDefinition/externalParameters/derivationId";
    let error = payload_error(|value| *value.pointer_mut(pointer).unwrap() = json!(other));
    assert!(matches!(error, PayloadError::DerivationHash { claimed, .. } if claimed == other));
}

#[test]
fn even_a_trusted_key_cannot_sign_nonsense() {
    let error = payload_error(|value| value["predicateType"] = json!("https://example.com/x"));
    assert!(matches!(error, PayloadError::PredicateType { .. }));
    let error = payload_error(|value| value["_type"] = json!("https://in-toto.io/Statement/v0.1"));
    assert!(matches!(error, PayloadError::StatementType { .. }));
    let error = payload_error(|value| {
        value["predicate"]["buildDefinition"]["buildType"] = json!("urn:drystone:realisation:2");
    });
    assert!(matches!(error, PayloadError::BuildType { .. }));
    let error = payload_error(|value| {
        let first = value["subject"][0].clone();
        value["subject"].as_array_mut().unwrap().push(first);
    });
    assert!(matches!(error, PayloadError::DuplicateSubject { .. }));
    let error = payload_error(|value| value["subject"][0]["digest"]["sha256"] = json!("00"));
    assert!(matches!(error, PayloadError::Subject { .. }));
    let error = payload_error(|value| {
        value["predicate"]["buildDefinition"]["internalParameters"]["sandbox"] = json!("none");
    });
    assert!(matches!(error, PayloadError::Contradiction(SignError::Sandbox { .. })));
    let error = payload_error(|value| {
        value["subject"].as_array_mut().unwrap().retain(|it| it["name"] != "dev/listing");
    });
    assert!(matches!(error, PayloadError::NotCanonical));
    let error = payload_error(|value| {
        value["subject"]
            .as_array_mut()
            .unwrap()
            .retain(|it| !it["name"].as_str().unwrap().starts_with("dev"));
    });
    assert!(matches!(error, PayloadError::Contradiction(SignError::Outputs { .. })));
    let error = payload_error(|value| {
        value["predicate"]["buildDefinition"]["resolvedDependencies"] = json!([]);
    });
    assert!(matches!(error, PayloadError::NotCanonical));
    let error = payload_error(|value| value["subject"][0]["digest"]["blake3"] = json!("00"));
    assert!(matches!(error, PayloadError::NotCanonical));
}

#[test]
fn nonsense_is_not_signed() {
    let refused = |change: &dyn Fn(&mut Attestation)| {
        let mut attestation = attestation();
        change(&mut attestation);
        attestation.sign(&key(1)).unwrap_err()
    };
    let error = refused(&|it| it.derivation.v += 1);
    assert!(matches!(error, SignError::Derivation { .. }));
    let error = refused(&|it| {
        it.realisation.outputs.remove("dev");
    });
    assert!(matches!(error, SignError::Outputs { .. }));
    let error = refused(&|it| it.context.sandbox = SandboxMode::None);
    assert!(matches!(error, SignError::Sandbox { .. }));
    let error = refused(&|it| {
        let output = it.realisation.outputs.get_mut("out").unwrap();
        output.layers.push(output.layers[0].clone());
    });
    assert!(matches!(error, SignError::Layers { .. }));
    let error = refused(&|it| {
        it.derivation.outputs = vec!["out/listing".into()];
        it.realisation.derivation = it.derivation.id();
        let output = it.realisation.outputs.remove("out").unwrap();
        it.realisation.outputs = [("out/listing".to_owned(), output)].into();
    });
    assert!(matches!(error, SignError::OutputName { .. }));
}

#[test]
fn statements_have_the_members_that_their_specifications_ask_for() {
    let payload = attestation().to_payload().unwrap();
    let value: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(value["predicateType"], SLSA_PROVENANCE);
    for subject in value["subject"].as_array().unwrap() {
        assert!(!subject["digest"].as_object().unwrap().is_empty(), "{subject}");
    }
    for place in
        ["buildDefinition/buildType", "buildDefinition/externalParameters", "runDetails/builder/id"]
    {
        assert!(value.pointer(&format!("/predicate/{place}")).is_some(), "{place}");
    }
}

fn output_strategy() -> impl Strategy<Value = drystone_store::realisation::Output> {
    use drystone_store::digest::{BlobDigest, DiffId, TreeHash};
    use drystone_store::layer::Layer;
    use drystone_store::path::StorePath;
    use drystone_store::realisation::{ListingRef, Output};
    let compressions = proptest::sample::subsequence(
        vec![Compression::Gzip1, Compression::Zstd1, Compression::Store1],
        0..=3,
    )
    .prop_shuffle();
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    let bytes = proptest::array::uniform4(any::<[u8; 32]>());
    let references = proptest::collection::vec(any::<[u8; 32]>(), 0..4);
    (compressions, numbers, bytes, references, ".{0,20}").prop_map(
        |(compressions, numbers, bytes, references, name)| {
            let diff_id = DiffId::from_bytes(bytes[0]);
            let layer = |compression| Layer {
                compression,
                digest: BlobDigest::from_bytes(bytes[1]),
                size: numbers.0,
                diff_id,
            };
            Output {
                path: StorePath::new(TreeHash::from_bytes(bytes[2]), &name),
                diff_id,
                size: numbers.1,
                layers: compressions.into_iter().map(layer).collect(),
                listing: ListingRef { digest: BlobDigest::from_bytes(bytes[3]), size: numbers.2 },
                references: references.into_iter().map(TreeHash::from_bytes).collect(),
            }
        },
    )
}

fn attestation_strategy() -> impl Strategy<Value = Attestation> {
    let outputs = proptest::collection::btree_map("[A-Za-z0-9+._-]{1,12}", output_strategy(), 1..4);
    let text = any::<(String, String, i64, bool)>();
    (outputs, text, any::<bool>()).prop_map(|(outputs, text, sandboxed)| {
        let mut derivation = Derivation::new("recipe", 1)
            .with_arg(&text.0, text.1.as_str())
            .with_arg("number", text.2);
        derivation.env.insert(text.1, text.0);
        derivation.outputs = outputs.keys().rev().cloned().collect();
        derivation.sandbox = sandboxed.then_some(7);
        let sandbox = if sandboxed { SandboxMode::Namespaces } else { SandboxMode::Unused };
        Attestation {
            realisation: Realisation { derivation: derivation.id(), outputs },
            derivation,
            context: BuildContext { sandbox, emulation: text.3 },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_survives_the_round_trip(attestation in attestation_strategy()) {
        let envelope = attestation.sign(&key(1)).unwrap();
        let envelope = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
        let id = attestation.derivation.id();
        let verified = verify(&envelope, &trusting(1, ""), 0, &id).unwrap();
        prop_assert_eq!(verified.attestation, attestation);
    }

    #[test]
    fn any_flipped_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let envelope = attestation().sign(&key(1)).unwrap();
        let mut payload = envelope.payload().to_vec();
        let index = at.index(payload.len());
        payload[index] ^= 1 << bit;
        let spoiled = with_payload(&envelope, payload);
        prop_assert!(verify(&spoiled, &trusting(1, ""), 0, &id()).is_err());
    }

    #[test]
    fn any_changed_character_of_an_envelope_is_refused(
        at in any::<prop::sample::Index>(),
        character in proptest::sample::select(b"Aa0+/=\"{}[],: z\\".to_vec()),
    ) {
        let mut json = attestation().sign(&key(1)).unwrap().to_json().into_bytes();
        let index = at.index(json.len());
        prop_assume!(json[index] != character);
        json[index] = character;
        if let Ok(envelope) = Envelope::parse(&json) {
            prop_assert!(verify(&envelope, &trusting(1, ""), 0, &id()).is_err());
        }
    }
}

/// The envelope with another payload under the same signatures.
fn with_payload(envelope: &Envelope, payload: Vec<u8>) -> Envelope {
    use data_encoding::BASE64;
    let json =
        envelope.to_json().replace(&BASE64.encode(envelope.payload()), &BASE64.encode(&payload));
    Envelope::parse(json.as_bytes()).unwrap()
}

#[test]
fn every_flipped_bit_of_a_signature_is_refused() {
    use data_encoding::BASE64;
    let envelope = attestation().sign(&key(1)).unwrap();
    let signature = envelope.signatures()[0].bytes;
    for bit in 0..512 {
        let mut spoiled = signature;
        spoiled[bit / 8] ^= 1 << (bit % 8);
        let json = envelope.to_json().replace(&BASE64.encode(&signature), &BASE64.encode(&spoiled));
        let spoiled = Envelope::parse(json.as_bytes()).unwrap();
        assert!(matches!(refused(&spoiled), VerifyError::Untrusted { .. }), "bit {bit}");
    }
}
