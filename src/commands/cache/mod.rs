//! `cache`: what a team's binary caches hold, and looking after it.

mod moving;
mod pulling;
mod showing;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_builder::settings::Settings;
use drystone_builder::spec::{Image, Platform};
use drystone_cache::binary_cache::{Prunable, Subject};
use drystone_cache::error::RegistryError;
use drystone_cache::folder::Folder;
use drystone_cache::reference::Location;
use drystone_cache::registry::Registries;
use drystone_cache::repository::Repository;
use drystone_store::digest::DerivationId;
use drystone_store::store::Store;
use tokio::runtime::Runtime;

use crate::arguments::{CacheCommand, CacheImage};
use crate::caching::{self, Caching};
use crate::commands::build::pushing::registries;
use crate::diagnostics::Failure;
use crate::interrupt;
use crate::wiring::{Wiring, absolute, image_path, platforms, read_image, runtime};

/// Runs one of the caches' commands.
pub fn run(wiring: &Wiring, command: &CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Push(arguments) => moving::push(wiring, arguments),
        CacheCommand::Pull(arguments) => pulling::pull(wiring, arguments),
        CacheCommand::Info(arguments) => showing::info(wiring, arguments),
        CacheCommand::Verify(arguments) => showing::verify(wiring, arguments),
        CacheCommand::Sync(arguments) => moving::sync(wiring, arguments),
        CacheCommand::Prune(arguments) => moving::prune(wiring, arguments),
    }
}

/// An image, and the caches that know it.
struct Place {
    image: Image,
    platforms: Vec<Platform>,
    settings: Settings,
    registries: Registries,
    runtime: Runtime,
}

impl Place {
    fn new(wiring: &Wiring, arguments: &CacheImage) -> Result<Self, Failure> {
        let image = read_image(&image_path(&arguments.image.path()))?;
        let settings = settings(wiring, arguments, Some(&image))?;
        let platforms = platforms(&arguments.platform, &image)?;
        let registries = registries(&arguments.insecure_registry)?;
        Ok(Self { image, platforms, settings, registries, runtime: runtime()? })
    }

    fn caching(&self) -> Result<Caching, Failure> {
        let handle = self.runtime.handle();
        let caching =
            Caching::new(&self.settings, &self.image, &self.platforms, &self.registries, handle)?;
        match caching.caches() {
            Some(_) => Ok(caching),
            None => Err(no_cache()),
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        subjects(&self.image, &self.platforms)
    }

    /// The derivations that the image stands on; `None` where it was never built with this store.
    fn used(&self, store: &Store) -> Result<Option<Vec<DerivationId>>, Failure> {
        let path = absolute(&self.image.path)?;
        let mut all = Vec::new();
        for platform in &self.platforms {
            match caching::used(store, &path, platform.as_str())? {
                Some(used) => all.extend(used),
                None => return Ok(None),
            }
        }
        all.sort();
        all.dedup();
        Ok(Some(all))
    }
}

fn no_cache() -> Failure {
    Failure::usage("no binary cache is named")
        .hint("name one with `--cache`, DRYSTONE_CACHE, or `cache` in config.toml")
}

fn settings(
    wiring: &Wiring,
    arguments: &CacheImage,
    image: Option<&Image>,
) -> Result<Settings, Failure> {
    let mut flags = wiring.flags();
    arguments.caches.add_to(&mut flags);
    wiring.settings(&flags, image)
}

fn subjects(image: &Image, platforms: &[Platform]) -> Vec<Subject> {
    let subject = |platform: &Platform| Subject {
        image: image.name.to_string(),
        platform: platform.as_str().to_owned(),
    };
    platforms.iter().map(subject).collect()
}

/// The subjects of image.toml files.
fn subjects_of(files: &[PathBuf]) -> Result<Vec<Subject>, Failure> {
    let mut all = Vec::new();
    for file in files {
        let image = read_image(&image_path(file))?;
        all.extend(subjects(&image, &image.platforms));
    }
    Ok(all)
}

/// Waits for something that a signal ends.
fn wait<T>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, Failure> {
    runtime.block_on(interrupt::or_cancelled(work)).map_err(Failure::of)?.map_err(Failure::of)
}

fn open(registries: &Registries, text: &str) -> Result<Arc<dyn Repository>, Failure> {
    let location: Location = text.parse().map_err(Failure::of)?;
    Ok(registries.open(&location))
}

/// The folder of a cache, if it is one.
fn folder(cache: &Arc<dyn Repository>) -> Option<Folder> {
    match cache.location() {
        Location::Folder(path) => Some(Folder::new(Path::new(path))),
        Location::Registry { .. } => None,
    }
}

/// Images without a bundle in a cache.
fn unknown(prunable: &Prunable) -> Option<String> {
    let names: Vec<String> =
        prunable.unknown.iter().map(|it| format!("{} ({})", it.image, it.platform)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
