//! `cache pull`: fills the store for an image, without building.

use std::collections::{BTreeMap, BTreeSet};

use drystone_builder::lock::Lock;
use drystone_builder::progress::{Event, Progress as _};
use drystone_builder::resolve::substitutable;
use drystone_store::digest::DerivationId;
use drystone_store::realisation::Output;
use drystone_store::store::{Root, Store, StoreError, root_name};
use drystone_store::substituter::Wanted;
use serde_json::json;

use super::Place;
use crate::answer;
use crate::arguments::CachePullArguments;
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::quantity::counted;
use crate::wiring::{Wiring, absolute};

/// How often it begins anew since a cache has lost something: each time that is forgotten.
const LOSSES: u32 = 10;

/// Fills the store.
pub fn pull(wiring: &Wiring, arguments: &CachePullArguments) -> Result<(), Failure> {
    let place = Place::new(wiring, &arguments.of)?;
    let caching = place.caching()?;
    let mut store = wiring.store(&place.settings)?;
    caching.attach(&mut store);
    let bundled = caching.caches().map(|caches| caches.bundled()).unwrap_or_default();
    let (wanted, needed) = wanted(&place, bundled)?;
    if wanted.is_empty() {
        return Err(Failure::new(Family::Network, "no cache knows this image").hint(
            "trust the key of who builds it (`drystone key trust`), or check the name of the cache",
        ));
    }
    let text = format!("ask for {}", counted(wanted.len() as u64, "realisation"));
    wiring.display.event(Event::Phase { name: "pull".to_owned(), text });
    store.prefetch(wanted.iter().cloned())?;
    interrupt::check().map_err(Failure::of)?;
    let outputs = fetch(&store, &wanted, arguments.layers)?;
    if arguments.layers {
        keep(&store, &place, &outputs)?;
    }
    let missing = needed.iter().filter(|id| !outputs.contains_key(id));
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    let looked = caching.caches().map(|caches| caches.looked()).unwrap_or_default();
    wiring.display.finish();
    if arguments.of.json {
        return answer::json(&json!({
            "known": outputs.len(), "missing": missing, "blobs": looked.blobs,
            "bytes": looked.bytes, "layers": arguments.layers,
        }));
    }
    answer::line(&format!(
        "{} known, {} missing, {} fetched ({})",
        counted(outputs.len() as u64, "realisation"),
        missing.len(),
        counted(looked.blobs, "blob"),
        crate::quantity::Bytes(looked.bytes)
    ))
}

/// What is asked for, and what of it must be known: what bundles name and the image's packages.
/// The lock's other packages may be needed too, where something is configured or built.
fn wanted(
    place: &Place,
    bundled: BTreeSet<DerivationId>,
) -> Result<(Vec<Wanted>, BTreeSet<DerivationId>), Failure> {
    let mut needed = bundled.clone();
    let mut wanted: BTreeMap<DerivationId, Wanted> =
        bundled.into_iter().map(|id| (id, Wanted::from(id))).collect();
    let lock = Lock::read(&place.image.lock_path)?.unwrap_or_default();
    for platform in &place.platforms {
        let Some(locked) = lock.platform(&place.image.name, *platform) else { continue };
        for key in locked.everything() {
            let Some(pin) = lock.packages.get(key) else { continue };
            let one = substitutable(pin);
            if locked.packages.contains(key) {
                needed.insert(one.derivation);
            }
            wanted.insert(one.derivation, one);
        }
    }
    Ok((wanted.into_values().collect(), needed))
}

type Outputs = BTreeMap<DerivationId, Vec<Output>>;

/// Fetches listings, and layers if they are wanted. What a cache has lost is left out.
fn fetch(store: &Store, wanted: &[Wanted], layers: bool) -> Result<Outputs, Failure> {
    let mut lost = 0;
    loop {
        let mut outputs = Outputs::new();
        for one in wanted {
            if let Some(realisation) = store.realisation(&one.derivation)? {
                outputs.insert(one.derivation, realisation.outputs.into_values().collect());
            }
        }
        let all: Vec<&Output> = outputs.values().flatten().collect();
        interrupt::check().map_err(Failure::of)?;
        let mut done = store.fetch_listings(&all);
        if layers && done.is_ok() {
            done = store.fetch_trees(&all);
        }
        match done {
            Ok(()) => return Ok(outputs),
            // It is forgotten now, so the next round knows it no more.
            Err(StoreError::Lost { .. }) if lost < LOSSES => lost += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Keeps what was fetched from garbage collection, until image.toml is gone.
fn keep(store: &Store, place: &Place, outputs: &Outputs) -> Result<(), Failure> {
    let image = absolute(&place.image.path)?;
    let mut trees: Vec<_> = outputs.values().flatten().map(|output| *output.path.hash()).collect();
    trees.sort();
    trees.dedup();
    let platform = place.platforms.first().map(|it| it.as_str().to_owned()).unwrap_or_default();
    let name = format!("{}-pulled", root_name(&image, &platform));
    let root = Root { image: Some(image), platform, trees, ..Root::default() };
    Ok(store.put_root(&name, &root)?)
}
