//! Hostile bytes for all that the builder reads, briefly; fuzz/README.md says how to go on for longer.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

#[path = "../../../store/tests/fuzz/mutate.rs"]
#[allow(dead_code, reason = "nothing here is a tar whose checksums need mending")]
mod mutate;
mod targets;

use mutate::{fuzz, iterations, leave, read_corpus};

#[test]
fn control() {
    fuzz(&read_corpus("control"), iterations(), &targets::control, &leave);
}

#[test]
fn image_toml() {
    fuzz(&read_corpus("image-toml"), iterations(), &targets::image_toml, &leave);
}

#[test]
fn image_lock() {
    fuzz(&read_corpus("image-lock"), iterations(), &targets::image_lock, &leave);
}
