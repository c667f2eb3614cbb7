//! Hostile bytes for what packages are made of, briefly; fuzz/README.md says how to go on for longer.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

#[path = "../../../store/tests/fuzz/mutate.rs"]
mod mutate;
mod targets;

use std::path::Path;

use drystone_store::store::Store;
use mutate::{fuzz, iterations, leave, mend_tar, read_corpus};

/// Packages that are accepted are written and synced, so a store in memory is wanted, and fewer runs.
fn with_store(target: &str, run: &dyn Fn(&Store, &[u8]) -> bool) {
    let memory = Path::new("/dev/shm");
    let folder = match tempfile::tempdir_in(memory) {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().unwrap(),
    };
    let store = Store::open(folder.path()).unwrap();
    fuzz(&read_corpus(target), iterations() / 2, &|bytes| run(&store, bytes), &mend_tar);
}

#[test]
fn deb() {
    with_store("deb", &targets::deb);
}

#[test]
fn data_tar() {
    with_store("data-tar", &targets::data_tar);
}

#[test]
fn relations() {
    fuzz(&read_corpus("relations"), iterations() * 5, &targets::relations, &leave);
}
