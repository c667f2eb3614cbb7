//! `plan`: what a build would do, without doing it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use drystone_builder::build::{LocalFiles, RemoteFile, StoredFile, stored};
use drystone_builder::image::order::FOREIGN_CLASS;
use drystone_builder::image::{OrderTable, PackItem, plan_layers};
use drystone_builder::lock::{Lock, LockedPlatform};
use drystone_builder::spec::{Image, Platform};
use drystone_source::debian::deb::imported;
use drystone_source::fetch::shown;
use drystone_store::digest::BlobDigest;
use drystone_store::store::Store;
use drystone_store::tree::{Kind, TreePath};
use serde::Serialize;
use serde_json::json;

use crate::answer;
use crate::arguments::PlanArguments;
use crate::commands::build::registries;
use crate::diagnostics::Failure;
use crate::locking::{Locking, Moved, moved, moved_text};
use crate::quantity::{Bytes, counted};
use crate::wiring::{Wiring, has_store, image_path, platforms, read_buildable, runtime};

/// A package that the store lacks.
#[derive(Debug, Clone, Serialize)]
struct Fetch {
    package: String,
    version: String,
    size: u64,
}

/// A file of `[files]` that the store lacks.
#[derive(Debug, Clone, Serialize)]
struct FileDownload {
    path: String,
    url: String,
}

/// A layer as planned.
#[derive(Debug, Clone, Serialize)]
struct PlannedLayer {
    members: Vec<String>,
    /// Bytes of its packages' archives: about the layer's own.
    estimated_size: u64,
}

/// A path of `[files]` that something else sets too.
#[derive(Debug, Clone, Serialize)]
struct Override {
    path: String,
    package: String,
    replaces: &'static str,
}

/// The plan for a platform.
#[derive(Debug, Clone, Serialize)]
struct PlatformPlan {
    platform: String,
    packages: usize,
    reused: usize,
    fetch: Vec<Fetch>,
    fetch_size: u64,
    layers: Vec<PlannedLayer>,
    overrides: Vec<Override>,
}

/// State that packages make and that stays out, by image.toml.
#[derive(Debug, Clone, Serialize)]
struct Removal {
    path: String,
    reason: String,
}

fn removals(image: &Image) -> Vec<Removal> {
    let rules = image.debian.iter().flat_map(|debian| &debian.remove_state);
    rules.map(|rule| Removal { path: rule.path.to_string(), reason: rule.reason.clone() }).collect()
}

/// Plans.
pub fn run(wiring: &Wiring, arguments: &PlanArguments) -> Result<(), Failure> {
    let image = read_buildable(&image_path(&arguments.image.path()))?;
    let mut flags = wiring.archive_flags(&arguments.archive);
    flags.compression.clone_from(&arguments.compression);
    let settings = wiring.settings(&flags, Some(&image))?;
    let platforms = platforms(&arguments.platform, &image)?;
    let registries = registries(&arguments.archive.insecure_registry)?;
    let locking = Locking {
        wiring,
        settings: &settings,
        registries: &registries,
        offline: arguments.archive.offline,
        locked: false,
        display: &wiring.display,
    };
    let old = Lock::read(&image.lock_path)?;
    let lock = locking.complete(&runtime()?, &image, &platforms, old.clone(), false)?;
    let old = old.unwrap_or_default();
    let pins = moved(&old, &lock);
    let exists = has_store(&settings);
    let store = if exists { Some(wiring.store(&settings)?) } else { None };
    let (downloads, fetched) = downloads(&image, store.as_ref())?;
    let local = LocalFiles::read(&image, &fetched)?;
    let own: Vec<TreePath> = local
        .sources
        .entries
        .iter()
        .filter(|source| !matches!(source.entry.kind, Kind::Directory))
        .map(|source| source.entry.path.clone())
        .collect();
    let plans = platforms
        .iter()
        .map(|platform| plan(&image, &lock, *platform, store.as_ref(), &own))
        .collect::<Result<Vec<_>, _>>()?;
    wiring.display.finish();
    if arguments.json {
        return answer::json(&json!({
            "name": image.name.as_str(),
            "compression": settings.compression.value.as_str(),
            "lock": { "path": image.lock_path.display().to_string(), "changes": pins },
            "files": own.len(),
            "removes": removals(&image),
            "downloads": downloads,
            "platforms": plans,
        }));
    }
    let mut answer = text(&image, &pins, own.len(), &plans);
    for download in &downloads {
        answer.push_str(&format!("fetch {} from {}\n", download.path, download.url));
    }
    answer::print(&answer)
}

/// Files to fetch, and all fetched files as the walk wants them: what is not here yet has no
/// content, and needs none to be planned.
fn downloads(
    image: &Image,
    store: Option<&Store>,
) -> Result<(Vec<FileDownload>, BTreeMap<BlobDigest, StoredFile>), Failure> {
    let (mut missing, mut fetched) = (Vec::new(), BTreeMap::new());
    for file in RemoteFile::all(image) {
        let found = match store {
            Some(store) => stored(store, &file.sha256)?,
            None => None,
        };
        if found.is_none() {
            missing.push(FileDownload { path: file.target, url: shown(&file.url) });
        }
        let nothing = StoredFile { path: PathBuf::new(), size: 0 };
        fetched.insert(file.sha256, found.unwrap_or(nothing));
    }
    Ok((missing, fetched))
}

fn plan(
    image: &Image,
    lock: &Lock,
    platform: Platform,
    store: Option<&Store>,
    own: &[TreePath],
) -> Result<PlatformPlan, Failure> {
    let nothing = LockedPlatform::default();
    let locked = lock.platform(&image.name, platform).unwrap_or(&nothing);
    let mut fetch = Vec::new();
    let mut overrides = Vec::new();
    let mut reused = 0;
    let all: std::collections::BTreeSet<_> = locked.everything().collect();
    for key in all {
        let Some(pin) = lock.packages.get(key) else { continue };
        let deb = match store {
            Some(store) => imported(store, &pin.sha256)?.map(|deb| (store, deb)),
            None => None,
        };
        let Some((store, deb)) = deb else {
            fetch.push(Fetch {
                package: key.name.to_string(),
                version: key.version.to_string(),
                size: pin.size,
            });
            continue;
        };
        reused += 1;
        if !own.is_empty()
            && locked.packages.contains(key)
            && let Some(listing) = store.listing(&deb.data)?
        {
            let found = own.iter().filter_map(|path| Some((path, listing.find(path)?)));
            overrides.extend(found.map(|(path, found)| Override {
                path: format!("/{path}"),
                package: key.name.to_string(),
                replaces: match found.entry.kind {
                    Kind::Directory => "directory",
                    Kind::Symlink { .. } => "symbolic link",
                    _ => "file",
                },
            }));
        }
    }
    Ok(PlatformPlan {
        platform: platform.to_string(),
        packages: locked.packages.len(),
        reused,
        fetch_size: fetch.iter().map(|fetch| fetch.size).sum(),
        fetch,
        layers: layers(image, lock, locked, own)?,
        overrides,
    })
}

/// The layers as the last build recorded them, else as the packages alone would be divided.
fn layers(
    image: &Image,
    lock: &Lock,
    locked: &LockedPlatform,
    own: &[TreePath],
) -> Result<Vec<PlannedLayer>, Failure> {
    let size = |name: &str| {
        let key = locked.packages.iter().find(|key| key.name.as_str() == name);
        key.and_then(|key| lock.packages.get(key)).map_or(0, |pin| pin.size)
    };
    let members: Vec<Vec<String>> = match locked.layers.is_empty() {
        false => {
            let names = |layer: &Vec<_>| layer.iter().map(ToString::to_string).collect();
            locked.layers.iter().map(names).collect()
        }
        true => divided(image, lock, locked, own)?,
    };
    let layers = members.into_iter().map(|members| {
        let estimated_size = members.iter().map(|name| size(name)).sum();
        PlannedLayer { members, estimated_size }
    });
    Ok(layers.collect())
}

fn divided(
    image: &Image,
    lock: &Lock,
    locked: &LockedPlatform,
    own: &[TreePath],
) -> Result<Vec<Vec<String>>, Failure> {
    let suite = lock.images.get(&image.name).and_then(|image| image.suite.as_ref());
    let table =
        suite.map_or_else(|| OrderTable::parse(""), |it| OrderTable::for_suite(it.as_str()));
    let table = table.map_err(Failure::of)?;
    let mut items: Vec<PackItem> = Vec::new();
    for key in &locked.packages {
        let Some(pin) = lock.packages.get(key) else { continue };
        let is_foreign = pin.archive.repository.as_str() != "debian";
        let class = table.class(pin.source.as_str(), key.name.as_str());
        items.push(PackItem {
            name: key.name.to_string(),
            source: pin.source.to_string(),
            class: if is_foreign { FOREIGN_CLASS } else { class },
            compressed_size: pin.size,
            is_own: false,
        });
    }
    if !own.is_empty() {
        items.push(PackItem {
            name: "@files".to_owned(),
            source: "files".to_owned(),
            class: FOREIGN_CLASS,
            compressed_size: 0,
            is_own: true,
        });
    }
    let plans = plan_layers(&items, (&image.image.layers).into(), 0).map_err(Failure::of)?;
    let names = |at: &usize| items[*at].name.clone();
    Ok(plans.iter().map(|plan| plan.members.iter().map(names).collect()).collect())
}

fn text(image: &Image, pins: &[Moved], files: usize, plans: &[PlatformPlan]) -> String {
    let mut text = String::new();
    if !pins.is_empty() {
        text.push_str(&format!("{}: to be pinned\n", image.lock_path.display()));
        moved_text(pins).lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    if let Some((from, _)) = &image.from {
        text.push_str(&format!("on the layers of {from}\n"));
    }
    for removal in removals(image) {
        text.push_str(&format!("{} stays out: {}\n", removal.path, removal.reason));
    }
    for plan in plans {
        text.push_str(&format!(
            "{}: {}, {} reused, {} to fetch ({})\n",
            plan.platform,
            counted(plan.packages as u64, "package"),
            plan.reused,
            plan.fetch.len(),
            Bytes(plan.fetch_size),
        ));
        for fetch in &plan.fetch {
            let size = Bytes(fetch.size);
            text.push_str(&format!("  fetch {} {} ({size})\n", fetch.package, fetch.version));
        }
        if files > 0 {
            text.push_str(&format!("  [files] sets {}\n", counted(files as u64, "path")));
        }
        for it in &plan.overrides {
            let line = format!("  {} replaces the {} of {}\n", it.path, it.replaces, it.package);
            text.push_str(&line);
        }
        text.push_str(&format!("  {}\n", counted(plan.layers.len() as u64, "layer")));
        for (at, layer) in plan.layers.iter().enumerate() {
            let size = Bytes(layer.estimated_size);
            text.push_str(&format!("{:>5}. about {size}: {}\n", at + 1, layer.members.join(" ")));
        }
    }
    text
}
