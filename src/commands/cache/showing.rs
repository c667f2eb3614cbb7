//! `cache info`, `cache verify`: what reads caches.

use std::collections::BTreeSet;
use std::sync::Arc;

use drystone_builder::progress::{Event, Progress as _};
use drystone_builder::settings::Settings;
use drystone_cache::binary_cache::{Checked, Inventory, Repaired, Subject, check, repair};
use drystone_cache::registry::Registries;
use drystone_cache::repository::Repository;
use drystone_cache::trust::Trust;
use drystone_store::digest::DerivationId;
use serde::Serialize;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{Place, no_cache, open, settings, wait};
use crate::answer;
use crate::arguments::{CacheImage, CacheInfoArguments, CacheVerifyArguments};
use crate::commands::build::pushing::registries;
use crate::diagnostics::{Failure, Family};
use crate::quantity::{Bytes, counted};
use crate::wiring::{Wiring, has_store, runtime, trust};

/// Caches to read, of one image or whole.
struct Reading {
    caches: Vec<Arc<dyn Repository>>,
    subjects: Option<Vec<Subject>>,
    /// The derivations that the image stands on, where the store knows them.
    used: Option<Vec<DerivationId>>,
    trust: Trust,
    runtime: Runtime,
}

impl Reading {
    fn new(wiring: &Wiring, arguments: &CacheImage, all: bool) -> Result<Self, Failure> {
        if all {
            let settings = settings(wiring, arguments, None)?;
            let registries = registries(&arguments.insecure_registry)?;
            return Self::of(&settings, &registries, None, None, runtime()?);
        }
        let place = Place::new(wiring, arguments)?;
        let used = match has_store(&place.settings) {
            true => place.used(&wiring.store(&place.settings)?)?,
            false => None,
        };
        let subjects = place.subjects();
        Self::of(&place.settings, &place.registries, Some(subjects), used, place.runtime)
    }

    fn of(
        settings: &Settings,
        registries: &Registries,
        subjects: Option<Vec<Subject>>,
        used: Option<Vec<DerivationId>>,
        runtime: Runtime,
    ) -> Result<Self, Failure> {
        let caches = settings.caches.iter().map(|cache| open(registries, &cache.value.address));
        let caches = caches.collect::<Result<Vec<_>, _>>()?;
        if caches.is_empty() {
            return Err(no_cache());
        }
        let trust = trust(settings)?;
        Ok(Self { caches, subjects, used, trust, runtime })
    }

    fn inventory(&self, cache: &Arc<dyn Repository>) -> Result<Inventory, Failure> {
        wait(&self.runtime, Inventory::read(cache, self.subjects.as_deref()))
    }
}

/// What is told of one cache.
#[derive(Serialize)]
struct Info {
    cache: String,
    derivations: u64,
    realisations: u64,
    bundles: u64,
    blobs: u64,
    bytes: u64,
    signers: Vec<Signer>,
    /// Derivations that the image stands on and the cache lacks.
    missing: Option<Vec<String>>,
    unreadable: u64,
    other_tags: u64,
}

#[derive(Serialize)]
struct Signer {
    key: String,
    name: Option<String>,
}

/// Shows what caches hold.
pub fn info(wiring: &Wiring, arguments: &CacheInfoArguments) -> Result<(), Failure> {
    let reading = Reading::new(wiring, &arguments.of, arguments.all)?;
    let mut infos = Vec::new();
    for cache in &reading.caches {
        let inventory = reading.inventory(cache)?;
        infos.push(told(&reading, cache, &inventory));
    }
    wiring.display.finish();
    if arguments.of.json {
        return answer::json(&json!({ "caches": infos }));
    }
    answer::print(&infos.iter().map(shown).collect::<String>())
}

fn told(reading: &Reading, cache: &Arc<dyn Repository>, inventory: &Inventory) -> Info {
    let held = inventory.derivations();
    let blobs = inventory.blobs();
    let lacks = |used: &Vec<DerivationId>| {
        used.iter().filter(|id| !held.contains(id)).map(ToString::to_string).collect()
    };
    let signer = |key| Signer {
        key: format!("{key}"),
        name: reading.trust.find(key).next().map(|trusted| trusted.key.name().to_owned()),
    };
    Info {
        cache: cache.location().to_string(),
        derivations: held.len() as u64,
        realisations: inventory.realisations.len() as u64,
        bundles: inventory.bundles.len() as u64,
        blobs: blobs.len() as u64,
        bytes: blobs.values().sum(),
        signers: inventory.keys().into_iter().map(signer).collect(),
        missing: reading.used.as_ref().map(lacks),
        unreadable: inventory.unreadable.len() as u64,
        other_tags: inventory.others as u64,
    }
}

fn shown(info: &Info) -> String {
    let signers: BTreeSet<String> = info
        .signers
        .iter()
        .map(|it| format!("{} ({})", it.name.as_deref().unwrap_or("not trusted"), it.key))
        .collect();
    let signers = match signers.is_empty() {
        true => "nobody".to_owned(),
        false => signers.into_iter().collect::<Vec<_>>().join(", "),
    };
    let missing = match &info.missing {
        None => String::new(),
        Some(missing) if missing.is_empty() => {
            "  missing: nothing that the image stands on\n".to_owned()
        }
        Some(missing) => format!("  missing: {}\n", counted(missing.len() as u64, "derivation")),
    };
    format!(
        "{}\n  {} in {}, {} in {}\n  signed by: {signers}\n{missing}{}",
        info.cache,
        counted(info.derivations, "derivation"),
        counted(info.realisations, "artifact"),
        Bytes(info.bytes),
        counted(info.blobs, "blob"),
        match info.unreadable {
            0 => String::new(),
            count =>
                format!("  unreadable: {} (see `drystone cache verify`)\n", counted(count, "tag")),
        }
    )
}

/// What is told of one cache that was checked.
#[derive(Serialize)]
struct Report {
    cache: String,
    #[serde(flatten)]
    checked: Checked,
    repaired: Option<Repaired>,
}

/// Checks caches.
pub fn verify(wiring: &Wiring, arguments: &CacheVerifyArguments) -> Result<(), Failure> {
    let reading = Reading::new(wiring, &arguments.of, arguments.all)?;
    let tell = |done: u64, total: u64| {
        let text = format!("read {done} of {}", counted(total, "blob"));
        wiring.display.event(Event::Phase { name: "verify".to_owned(), text });
    };
    let mut reports = Vec::new();
    for cache in &reading.caches {
        let inventory = reading.inventory(cache)?;
        let checked = wait(&reading.runtime, check(cache, &inventory, &reading.trust, &tell))?;
        let repaired = match arguments.repair && !checked.problems.is_empty() {
            true => Some(wait(&reading.runtime, repair(cache, &inventory, &checked))?),
            false => None,
        };
        reports.push(Report { cache: cache.location().to_string(), checked, repaired });
    }
    wiring.display.finish();
    match arguments.of.json {
        true => answer::json(&json!({ "caches": reports }))?,
        false => answer::print(&reports.iter().map(listed).collect::<String>())?,
    }
    let is_well = |report: &Report| {
        let repaired = report.repaired.as_ref().is_some_and(|repaired| repaired.failed.is_empty());
        report.checked.problems.is_empty() || repaired
    };
    match reports.iter().all(is_well) {
        true => Ok(()),
        false if arguments.repair => {
            Err(Failure::new(Family::Integrity, "not everything could be removed"))
        }
        false => Err(Failure::new(Family::Integrity, "the cache has problems").hint(
            "`--repair` removes what is wrong; the next build with a signing key shares it again",
        )),
    }
}

fn listed(report: &Report) -> String {
    let Report { cache, checked, repaired } = report;
    let mut text = format!(
        "{cache}: {}, {}, {} ({}), {} by trusted keys, {} by others\n",
        counted(checked.realisations, "artifact"),
        counted(checked.bundles, "bundle"),
        counted(checked.blobs, "blob"),
        Bytes(checked.bytes),
        counted(checked.signatures, "signature"),
        checked.unchecked_signatures
    );
    for problem in &checked.problems {
        text.push_str(&format!("problem: {}: {}\n", problem.tag, problem.message));
    }
    for repaired in repaired.iter() {
        for tag in &repaired.tags {
            text.push_str(&format!("removed: {tag}\n"));
        }
        for failed in &repaired.failed {
            text.push_str(&format!("not removed: {failed}\n"));
        }
    }
    text
}
