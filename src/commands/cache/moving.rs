//! `cache push`, `cache sync`, `cache prune`: what writes to caches.

use std::time::Duration;

use drystone_builder::progress::{Event, Progress as _};
use drystone_cache::binary_cache::{self, Inventory, prunable};
use drystone_store::digest::DerivationId;
use serde_json::json;

use super::{Place, folder, no_cache, open, subjects_of, unknown, wait};
use crate::answer;
use crate::arguments::{CachePruneArguments, CachePushArguments, CacheSyncArguments};
use crate::commands::build::pushing::registries;
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::quantity::{Bytes, counted};
use crate::wiring::{Wiring, runtime};

/// Blobs younger than this stay when a folder is swept: somebody may be about to name them.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Shares what the store holds.
pub fn push(wiring: &Wiring, arguments: &CachePushArguments) -> Result<(), Failure> {
    let place = Place::new(wiring, &arguments.of)?;
    let caching = place.caching()?;
    match caching.can_share() {
        (false, _) => {
            return Err(Failure::usage("there is no signing key")
                .hint("name one with `--signing-key` or DRYSTONE_SIGNING_KEY"));
        }
        (_, false) => return Err(no_cache()),
        (true, true) => {}
    }
    let store = wiring.existing_store(&place.settings)?;
    let derivations = match arguments.derivation.is_empty() {
        false => named(&arguments.derivation)?,
        true => place.used(&store)?.ok_or_else(|| {
            Failure::usage(format!("{} was not built with this store", place.image.path.display()))
                .hint("run `drystone build`, or name derivations with `--derivation`")
        })?,
    };
    let shared = interrupt::or_cancelled(caching.share_all(&store, &derivations, &wiring.display));
    let report = place.runtime.block_on(shared).map_err(Failure::of)?;
    wiring.display.finish();
    match arguments.of.json {
        true => {
            answer::json(&json!({ "derivations": derivations.len(), "shared": report.shared }))?
        }
        false => {
            let lines = report.shared.iter().map(|to| {
                let shared = &to.shared;
                format!(
                    "{}: {} written, {} there, {} sent ({})\n",
                    to.cache,
                    counted(shared.written, "realisation"),
                    shared.existed,
                    counted(shared.blobs, "blob"),
                    Bytes(shared.bytes)
                )
            });
            answer::print(&lines.collect::<String>())?;
        }
    }
    // The reasons were told as warnings.
    match report.shared.iter().all(|to| to.shared.failed.is_empty()) {
        true => Ok(()),
        false => Err(Failure::new(Family::Network, "not all realisations could be shared")),
    }
}

fn named(typed: &[String]) -> Result<Vec<DerivationId>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            Failure::usage(format!("{text:?} is no derivation's id"))
                .hint("`drystone derivation show` prints them")
        })
    };
    typed.iter().map(parse).collect()
}

/// Copies one cache into another.
pub fn sync(wiring: &Wiring, arguments: &CacheSyncArguments) -> Result<(), Failure> {
    wiring.settings(&wiring.flags(), None)?;
    let registries = registries(&arguments.insecure_registry)?;
    let (from, to) = (open(&registries, &arguments.from)?, open(&registries, &arguments.to)?);
    if from.location() == to.location() {
        return Err(Failure::usage("both are the same cache"));
    }
    let subjects = subjects_of(&arguments.file)?;
    let runtime = runtime()?;
    let tell = |done: u64, total: u64| {
        let text = format!("copy {done} of {}", counted(total, "artifact"));
        wiring.display.event(Event::Phase { name: "sync".to_owned(), text });
    };
    let synced = wait(&runtime, async {
        let chosen = (!subjects.is_empty()).then_some(subjects.as_slice());
        let inventory = Inventory::read(&from, chosen).await?;
        let mut synced = binary_cache::sync(&from, &inventory, &to, &tell).await?;
        let unreadable = inventory.unreadable.iter();
        synced.failed.extend(unreadable.map(|it| format!("{}: {}", it.tag, it.reason)));
        Ok(synced)
    })?;
    for failed in &synced.failed {
        wiring.display.warn(failed);
    }
    wiring.display.finish();
    match arguments.json {
        true => answer::json(&synced)?,
        false => answer::line(&format!(
            "{} written, {} there, {} kept, {} sent ({}), {} mounted",
            counted(synced.written, "realisation"),
            synced.existed,
            synced.kept,
            counted(synced.blobs, "blob"),
            Bytes(synced.bytes),
            synced.mounted
        ))?,
    }
    match synced.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Family::Network, "not everything could be copied")
            .hint("`drystone cache verify` tells what is wrong in a cache")),
    }
}

/// Removes what no image needs.
pub fn prune(wiring: &Wiring, arguments: &CachePruneArguments) -> Result<(), Failure> {
    wiring.settings(&wiring.flags(), None)?;
    let registries = registries(&arguments.insecure_registry)?;
    let cache = open(&registries, &arguments.cache)?;
    let keep = subjects_of(&arguments.keep)?;
    let runtime = runtime()?;
    let plan =
        wait(&runtime, async { Ok(prunable(&Inventory::read(&cache, None).await?, &keep)) })?;
    // Who misspells an image must not lose all of it.
    if let Some(unknown) = unknown(&plan) {
        return Err(Failure::usage(format!("the cache has no bundle of {unknown}"))
            .hint("build it with this cache and a signing key first, or leave it out"));
    }
    if arguments.dry_run {
        let tags = plan.tags();
        return match arguments.json {
            true => answer::json(&json!({ "dry_run": true, "removed": tags, "kept": plan.kept })),
            false => answer::print(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>()),
        };
    }
    let (pruned, swept) = wait(&runtime, async {
        let pruned = binary_cache::prune(&cache, &plan).await?;
        Ok((
            pruned,
            match folder(&cache) {
                Some(folder) => Some(folder.sweep(GRACE).await?),
                None => None,
            },
        ))
    })?;
    wiring.display.finish();
    if arguments.json {
        let (blobs, bytes) = swept.unzip();
        let answer = json!({ "dry_run": false, "removed": pruned.removed, "kept": pruned.kept,
                             "blobs": blobs, "bytes": bytes });
        return answer::json(&answer);
    }
    let gone = counted(pruned.removed.len() as u64, "tag");
    answer::line(&match swept {
        Some((blobs, bytes)) => format!(
            "{gone} removed, {} kept; {} removed ({})",
            pruned.kept,
            counted(blobs, "blob"),
            Bytes(bytes)
        ),
        None => format!(
            "{gone} removed, {} kept; the registry's own garbage collection frees the blobs",
            pruned.kept
        ),
    })
}
