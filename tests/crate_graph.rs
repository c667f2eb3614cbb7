//! The arrows between the workspace's crates: a new one is a decision, and is made here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom. `builder` and `cache` meet only in traits that `store` defines.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("drystone", &["drystone-builder", "drystone-cache", "drystone-source", "drystone-store"]),
    ("drystone-builder", &["drystone-source", "drystone-store"]),
    ("drystone-cache", &["drystone-http", "drystone-store"]),
    ("drystone-http", &[]),
    ("drystone-source", &["drystone-http", "drystone-store"]),
    ("drystone-store", &[]),
];

#[test]
fn crates_depend_on_each_other_only_as_decided() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let found: BTreeMap<&str, BTreeSet<&str>> = packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let ours = dependencies
                .map(|dependency| dependency["name"].as_str().unwrap())
                .filter(|name| names.contains(name));
            (package["name"].as_str().unwrap(), ours.collect())
        })
        .collect();
    for (name, dependencies) in &found {
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(allowed, _)| allowed == name)
            .unwrap_or_else(|| panic!("{name} is a new crate: decide what it may depend on"));
        for dependency in dependencies {
            assert!(allowed.contains(dependency), "{name} must not depend on {dependency}");
        }
    }
}
