//! Hostile bytes for all that the cache reads, briefly; fuzz/README.md says how to go on for longer.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

#[path = "../../../store/tests/fuzz/mutate.rs"]
#[allow(dead_code, reason = "nothing here is a tar whose checksums need mending")]
mod mutate;
mod targets;

use mutate::{fuzz, iterations, leave, read_corpus};

fn run(target: &str, promise: &dyn Fn(&[u8]) -> bool) {
    fuzz(&read_corpus(target), iterations(), promise, &leave);
}

#[test]
fn envelope() {
    run("envelope", &targets::envelope);
}

#[test]
fn statement() {
    run("statement", &targets::statement);
}

#[test]
fn bundle() {
    run("bundle", &targets::bundle);
}

#[test]
fn trusted_key() {
    run("trusted-key", &targets::trusted_key);
}
