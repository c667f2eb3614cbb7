//! Hostile bytes for the store's formats, briefly; fuzz/README.md says how to go on for longer.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod mutate;
mod samples;
mod targets;

use mutate::{corpus, fuzz, iterations, leave, mend_tar, read_corpus};

#[test]
fn canonical_tar() {
    fuzz(&read_corpus("tar"), iterations(), &targets::tar, &mend_tar);
}

#[test]
fn listing() {
    fuzz(&read_corpus("listing"), iterations(), &targets::listing, &leave);
}

/// The corpus of tars is what these samples are: made by the writer, then spoiled by hand.
#[test]
fn the_corpus_is_made_by_the_writer() {
    for (name, bytes) in samples::tars() {
        let path = corpus("tar").join(name);
        if std::env::var_os("DRYSTONE_WRITE_CORPUS").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{name} differs");
    }
}
