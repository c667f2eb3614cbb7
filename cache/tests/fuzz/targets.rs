//! What is promised of any bytes: one function for each format, for `cargo test` and cargo-fuzz.

use std::io::Write as _;

use drystone_cache::attestation::{Attestation, claimed_derivation, verify};
use drystone_cache::bundle::Bundle;
use drystone_cache::dsse::Envelope;
use drystone_cache::key::{PublicKey, SecretKey};
use drystone_cache::trust::{Trust, TrustedKey};
use drystone_store::digest::DerivationId;
use drystone_store::layer::{Compression, LayerWriter};

/// Envelopes: what is accepted comes back from what is written of it, and is never believed unless
/// the trusted key signed it.
pub fn envelope(bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(bytes) else { return false };
    let again = Envelope::parse(envelope.to_json().as_bytes()).expect("what was written is read");
    assert_eq!(again, envelope);
    let expected = claimed_derivation(&envelope).unwrap_or(DerivationId::of(b""));
    // Nobody has this key, so nothing may be signed by it.
    let stranger = SecretKey::from_seed("stranger", &[0xa5; 32]).expect("the name is good");
    let trust = Trust::new([TrustedKey::new(stranger.public())], 1).expect("one key is enough");
    assert!(verify(&envelope, &trust, 0, &expected).is_err());
    true
}

/// Statements: what is accepted is exactly what is written of it.
pub fn statement(bytes: &[u8]) -> bool {
    let Ok(attestation) = Attestation::from_payload(bytes) else { return false };
    let again = attestation.to_payload().expect("what was read can be written");
    assert!(again == bytes, "a statement was accepted that is not canonical");
    true
}

/// Bundles, by their text: what is accepted comes back from what is written of it.
pub fn bundle(text: &[u8]) -> bool {
    // As it stands, for the decompressor; then as the text of a stream.
    let _ = Bundle::decode(text);
    let mut writer = LayerWriter::new(Compression::Zstd1, Vec::new());
    writer.write_all(text).expect("a vector takes everything");
    let bytes = writer.finish().expect("a vector takes everything");
    let Ok(bundle) = Bundle::decode(&bytes) else { return false };
    let again = bundle.encode().expect("a vector takes everything");
    assert_eq!(Bundle::decode(&again).expect("what was written is read"), bundle);
    true
}

/// Lines of trusted keys, and of secret ones.
pub fn trusted_key(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = text.parse::<SecretKey>();
    let Ok(trusted) = text.trim().parse::<TrustedKey>() else { return false };
    let line = trusted.key.to_string();
    assert_eq!(line.parse::<PublicKey>().expect("what was written is read"), trusted.key);
    let _ = trusted.standing(i64::MAX);
    true
}
