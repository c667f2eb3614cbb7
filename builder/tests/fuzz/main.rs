//! Hostile bytes for all that the builder reads, briefly; fuzz/README.md says how to go on for longer.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

#[path = "../../../store/tests/fuzz/mutate.rs"]
#[allow(dead_code, reason = "nothing here is a tar whose checksums need mending")]
mod mutate;
mod targets;

use std::path::Path;

use mutate::{Sample, fuzz, iterations, leave, read_corpus};

fn corpus(target: &str) -> Vec<Sample> {
    read_corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target))
}

#[test]
fn control() {
    fuzz(&corpus("control"), iterations(), &targets::control, &leave);
}

#[test]
fn image_toml() {
    fuzz(&corpus("image-toml"), iterations(), &targets::image_toml, &leave);
}

#[test]
fn image_lock() {
    fuzz(&corpus("image-lock"), iterations(), &targets::image_lock, &leave);
}
