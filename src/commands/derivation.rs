//! `derivation show`, and how commands name a build step.

use drystone_store::digest::DerivationId;
use drystone_store::store::Store;
use serde_json::Value;

use crate::answer;
use crate::arguments::ShowArguments;
use crate::diagnostics::Failure;
use crate::wiring::Wiring;

/// Prints the derivation that an id names, or those that gave a tree.
pub fn show(wiring: &Wiring, arguments: &ShowArguments) -> Result<(), Failure> {
    let settings = wiring.settings(&wiring.flags(), None)?;
    let store = wiring.existing_store(&settings)?;
    let mut objects = Vec::new();
    for id in find(&store, &arguments.subject)? {
        let Some(json) = store.derivation_json(&id)? else { continue };
        let value: Value = serde_json::from_str(&json)
            .map_err(|error| Failure::of(error).hint("run `drystone store verify`"))?;
        objects.push(serde_json::json!({ "id": id, "derivation": value }));
    }
    if objects.is_empty() {
        return Err(unknown(&arguments.subject));
    }
    answer::json(&serde_json::json!({ "derivations": objects }))
}

/// The derivations that a text means: one by its id, or those that gave a tree.
pub fn find(store: &Store, subject: &str) -> Result<Vec<DerivationId>, Failure> {
    if let Ok(id) = subject.parse::<DerivationId>()
        && store.derivation_json(&id)?.is_some()
    {
        return Ok(vec![id]);
    }
    let info = store.path_info(subject)?;
    if info.makers.is_empty() {
        return Err(Failure::usage(format!("no build step of this store gave {}", info.path)));
    }
    Ok(info.makers.into_iter().map(|maker| maker.derivation).collect())
}

fn unknown(subject: &str) -> Failure {
    Failure::usage(format!("no build step {subject} is in the store"))
        .hint("`drystone store path-info PATH` shows which one gave a tree")
}
