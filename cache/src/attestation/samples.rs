//! One attestation that every test of this crate can start from.

use drystone_store::derivation::Derivation;
use drystone_store::digest::{BlobDigest, DiffId, TreeHash};
use drystone_store::layer::{Compression, Layer};
use drystone_store::path::StorePath;
use drystone_store::realisation::{ListingRef, Output, Realisation};

use super::{Attestation, BuildContext, SandboxMode};

fn output(seed: u8, name: &str, compressions: &[Compression]) -> Output {
    let diff_id = DiffId::from_bytes([seed + 1; 32]);
    let layers = compressions.iter().zip(0_u8..).map(|(compression, index)| Layer {
        compression: *compression,
        digest: BlobDigest::from_bytes([seed + 10 + index; 32]),
        size: 1000 + u64::from(index),
        diff_id,
    });
    Output {
        path: StorePath::new(TreeHash::from_bytes([seed; 32]), name),
        diff_id,
        size: 10_240,
        layers: layers.collect(),
        listing: ListingRef { digest: BlobDigest::from_bytes([seed + 2; 32]), size: 99 },
        references: vec![TreeHash::from_bytes([9; 32]), TreeHash::from_bytes([8; 32])],
    }
}

/// A recipe with two outputs, one of them in two forms.
pub fn attestation() -> Attestation {
    let derivation = Derivation {
        platform: Some("linux/amd64".into()),
        sandbox: Some(1),
        outputs: vec!["out".into(), "dev".into()],
        env: [("A".to_owned(), "1".to_owned())].into(),
        ..Derivation::new("recipe", 3)
            .with_inputs([TreeHash::from_bytes([3; 32])])
            .with_arg("script", "make\n\té")
    };
    let outputs = [
        ("out".to_owned(), output(40, "app-1.0", &[Compression::Gzip1, Compression::Zstd1])),
        ("dev".to_owned(), output(60, "app-1.0-dev", &[Compression::Store1])),
    ];
    Attestation {
        realisation: Realisation { derivation: derivation.id(), outputs: outputs.into() },
        derivation,
        context: BuildContext { sandbox: SandboxMode::Namespaces, emulation: false },
    }
}
