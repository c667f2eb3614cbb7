//! `sbom`: a bill of materials from the lock, the packages and `[files]`.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use drystone_builder::build::{LocalFiles, RemoteFile, StoredFile, pinned_packages};
use drystone_builder::lock::{Lock, LockedPlatform, PackageKey};
use drystone_builder::resolve::{Imports, import_packages};
use drystone_builder::sbom::licence::{Licence, MAX_COPYRIGHT};
use drystone_builder::sbom::source::{Source, declared};
use drystone_builder::sbom::{Bill, File, Package, cyclonedx, spdx};
use drystone_builder::settings::Settings;
use drystone_builder::spec::{Image, Name, Platform, RecipeBuilder};
use drystone_source::debian::control::paragraphs;
use drystone_source::debian::deb::ImportedDeb;
use drystone_source::fetch::shown;
use drystone_source::files::ContentSource;
use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath};
use tokio::runtime::Runtime;

use crate::answer;
use crate::arguments::{SbomArguments, SbomFormat};
use crate::commands::build::registries;
use crate::diagnostics::Failure;
use crate::explain::locked::of_image;
use crate::explain::packages::{Node, Packages};
use crate::interrupt;
use crate::locking::{Locking, sources};
use crate::wiring::{Wiring, downloader, image_path, platform, read_buildable, runtime};

/// `created` of an image without packages: the time of all entries.
const NO_DATE: i64 = drystone_store::tar::MTIME as i64;
/// Suites of Ubuntu, whose packages scanners look up in another place than Debian's.
const UBUNTU: [&str; 6] = ["bionic", "focal", "jammy", "noble", "plucky", "questing"];

/// Prints the bill.
pub fn run(wiring: &Wiring, arguments: &SbomArguments) -> Result<(), Failure> {
    let image = read_buildable(&image_path(&arguments.image.path()))?;
    let settings = wiring.settings(&wiring.archive_flags(&arguments.archive), Some(&image))?;
    let runtime = runtime()?;
    let platforms = match &arguments.platform {
        Some(text) => vec![platform(text)?],
        None => image.platforms[..1].to_vec(),
    };
    let registries = registries(&arguments.archive.insecure_registry)?;
    let locking = Locking {
        wiring,
        settings: &settings,
        registries: &registries,
        offline: arguments.archive.offline,
        locked: false,
        display: &wiring.display,
    };
    let lock =
        locking.complete(&runtime, &image, &platforms, Lock::read(&image.lock_path)?, false)?;
    let nothing = LockedPlatform::default();
    let locked = match image.debian {
        Some(_) => of_image(&lock, &image, arguments.platform.as_deref())?.1,
        None => &nothing,
    };
    let gathering = Gathering {
        wiring,
        settings: &settings,
        image: &image,
        lock: &lock,
        locked,
        platform: platforms[0],
        store: OnceCell::new(),
        offline: arguments.archive.offline,
    };
    let bill = gathering.bill(&runtime, None)?;
    let document = match arguments.format {
        SbomFormat::Spdx => spdx::document(&bill),
        SbomFormat::Cyclonedx => cyclonedx::document(&bill),
    };
    wiring.display.finish();
    match &arguments.output {
        Some(path) => std::fs::write(path, format!("{document}\n"))
            .map_err(|error| Failure::path("write", path, error)),
        None => answer::line(&document),
    }
}

/// What a bill is gathered from.
pub struct Gathering<'a> {
    /// Where progress goes.
    pub wiring: &'a Wiring,
    /// The settings.
    pub settings: &'a Settings,
    /// The image.
    pub image: &'a Image,
    /// Its lock.
    pub lock: &'a Lock,
    /// The lock's part for the platform.
    pub locked: &'a LockedPlatform,
    /// The platform.
    pub platform: Platform,
    /// The store, once it is open.
    pub store: OnceCell<Arc<Store>>,
    /// Whether the network may not be used.
    pub offline: bool,
}

impl Gathering<'_> {
    /// The bill of an image, whose manifest may be known already.
    pub fn bill(&self, runtime: &Runtime, manifest: Option<BlobDigest>) -> Result<Bill, Failure> {
        let image = self.image;
        let date = self.lock.images.get(&image.name).and_then(|image| image.date);
        let mut sources = declared(image);
        sources.extend(self.dependencies()?);
        sources.sort();
        sources.dedup();
        Ok(Bill {
            name: image.name.to_string(),
            tag: image.tag.to_string(),
            platform: self.platform.to_string(),
            manifest,
            created: match &self.settings.source_date_epoch {
                Some(epoch) => epoch.value,
                None => date.map_or(NO_DATE, |date| date.as_second()),
            },
            packages: self.packages(runtime)?,
            files: self.files()?,
            sources,
        })
    }

    /// What lockfiles pin.
    fn dependencies(&self) -> Result<Vec<Source>, Failure> {
        if self.image.recipes.values().all(|recipe| recipe.builder == RecipeBuilder::Script) {
            return Ok(Vec::new());
        }
        let pinned = pinned_packages(self.store()?, self.image, self.platform, self.locked)?;
        let of_recipe = |(name, packages): &(Name, Vec<_>)| -> Vec<Source> {
            packages.iter().map(|package| Source::of_dependency(name.as_str(), package)).collect()
        };
        Ok(pinned.iter().flat_map(of_recipe).collect())
    }

    fn store(&self) -> Result<&Arc<Store>, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Arc::new(self.wiring.store(self.settings)?);
        Ok(self.store.get_or_init(|| store))
    }

    fn packages(&self, runtime: &Runtime) -> Result<Vec<Package>, Failure> {
        if self.locked.packages.is_empty() {
            return Ok(Vec::new());
        }
        let store = self.store()?;
        let imported = self.import(runtime, store)?;
        let graph = Packages::read(store, self.lock, self.locked, self.image)?;
        let licences = licences(store, &imported)?;
        let packages = self.locked.packages.iter().filter_map(|key| {
            let node = graph.nodes.get(key.name.as_str())?;
            let licence = licences.get(key).cloned().unwrap_or_default();
            Some(self.package(key, node, licence))
        });
        Ok(packages.collect())
    }

    /// Brings packages that the store lacks into it, as a build does.
    fn import(
        &self,
        runtime: &Runtime,
        store: &Arc<Store>,
    ) -> Result<BTreeMap<PackageKey, ImportedDeb>, Failure> {
        let keys: Vec<PackageKey> = self.locked.packages.iter().cloned().collect();
        let imports = Imports {
            store,
            downloader: &downloader(self.settings),
            sources: &sources(self.settings, self.image),
            compression: Compression::Store1,
            jobs: self.settings.jobs.value,
            offline: self.offline,
            progress: &self.wiring.display,
        };
        let imported = interrupt::or_cancelled(import_packages(imports, self.lock, &keys));
        runtime.block_on(imported).map_err(Failure::of)?.map_err(Failure::of)
    }

    fn package(&self, key: &PackageKey, node: &Node, licence: Licence) -> Package {
        let pin = &self.lock.packages[key];
        let paragraph = paragraphs(&node.control).next().and_then(Result::ok);
        let value = |name| paragraph.as_ref().and_then(|it| it.value(name)).map(str::trim);
        let version = key.version.as_str();
        let (source, source_version) = match value("Source") {
            Some(text) => match text.split_once(" (") {
                Some((name, version)) => (name, version.trim_end_matches(')')),
                None => (text, version),
            },
            None => (key.name.as_str(), version),
        };
        let first_line = |name| value(name).and_then(|text: &str| text.lines().next());
        let suite = self.lock.images.get(&self.image.name).and_then(|it| it.suite.as_ref());
        let suite = suite.map(ToString::to_string);
        let is_main = pin.archive.repository.as_str() == "debian";
        let vendor = match &suite {
            Some(suite) if is_main && UBUNTU.contains(&suite.as_str()) => "ubuntu",
            _ => pin.archive.repository.as_str(),
        };
        let needs: BTreeSet<&str> = node.needs.iter().map(|need| need.target.as_str()).collect();
        Package {
            name: key.name.to_string(),
            version: version.to_owned(),
            architecture: key.architecture.to_string(),
            source: source.to_owned(),
            source_version: source_version.to_owned(),
            vendor: vendor.to_owned(),
            distribution: suite.filter(|_| is_main),
            sha256: pin.sha256,
            maintainer: first_line("Maintainer").map(str::to_owned),
            homepage: first_line("Homepage").map(str::to_owned),
            summary: first_line("Description").map(str::to_owned),
            licence,
            needs: needs.into_iter().map(str::to_owned).collect(),
        }
    }

    /// The files of `[files]`: local ones are hashed, those of an address are pinned by image.toml.
    fn files(&self) -> Result<Vec<File>, Failure> {
        let remote = RemoteFile::all(self.image);
        // What was not fetched has no content here, and needs none.
        let nothing = StoredFile { path: PathBuf::new(), size: 0 };
        let fetched = remote.iter().map(|file| (file.sha256, nothing.clone())).collect();
        let local = LocalFiles::read(self.image, &fetched)?;
        let mut files = Vec::new();
        for source in &local.sources.entries {
            let sha256 = match &source.content {
                ContentSource::Inline(bytes) => BlobDigest::of(bytes),
                ContentSource::Path(path) if !path.as_os_str().is_empty() => {
                    let failed = |error| Failure::path("read", path, error);
                    let mut file = std::fs::File::open(path).map_err(failed)?;
                    BlobDigest::of_reader(&mut file).map_err(failed)?.0
                }
                _ => continue,
            };
            files.push(File { path: format!("/{}", source.entry.path), sha256, url: None });
        }
        files.extend(remote.into_iter().map(|file| File {
            path: file.target,
            sha256: file.sha256,
            url: Some(shown(&file.url)),
        }));
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(files)
    }
}

/// Where a package's copyright file is: in its own tree, or in that of another package whose
/// folder of documentation its own is a link to.
fn copyright_owner(
    store: &Store,
    imported: &BTreeMap<PackageKey, ImportedDeb>,
    key: &PackageKey,
) -> Result<Option<(PackageKey, TreePath)>, Failure> {
    let (mut owner, mut folder) = (key.clone(), key.name.to_string());
    // Links of links do not occur; two steps bound what a hostile package could ask for.
    for _ in 0..2 {
        let Some(deb) = imported.get(&owner) else { return Ok(None) };
        let Some(listing) = store.listing(&deb.data)? else { return Ok(None) };
        let path = |text: String| TreePath::new(text).ok();
        let file = path(format!("usr/share/doc/{folder}/copyright"));
        if let Some(file) = file
            && let Some(found) = listing.find(&file)
            && matches!(found.entry.kind, Kind::File { .. })
        {
            return Ok(Some((owner, file)));
        }
        let link = path(format!("usr/share/doc/{folder}"));
        let Some(found) = link.and_then(|link| listing.find(&link)) else { return Ok(None) };
        let Kind::Symlink { target } = &found.entry.kind else { return Ok(None) };
        let name = target.rsplit('/').next().unwrap_or_default().to_owned();
        let Some(other) = imported.keys().find(|other| other.name.as_str() == name) else {
            return Ok(None);
        };
        (owner, folder) = (other.clone(), name);
    }
    Ok(None)
}

/// What the copyright files of all packages say. Each tree is read once, and only if it has one.
fn licences(
    store: &Store,
    imported: &BTreeMap<PackageKey, ImportedDeb>,
) -> Result<BTreeMap<PackageKey, Licence>, Failure> {
    let mut wanted: BTreeMap<(PackageKey, TreePath), Vec<&PackageKey>> = BTreeMap::new();
    for key in imported.keys() {
        if let Some(place) = copyright_owner(store, imported, key)? {
            wanted.entry(place).or_default().push(key);
        }
    }
    let mut licences = BTreeMap::new();
    for ((owner, path), keys) in wanted {
        interrupt::check().map_err(Failure::of)?;
        let text = read_file(store, &imported[&owner], &path)?;
        let licence = Licence::from_copyright(&text);
        licences.extend(keys.into_iter().map(|key| (key.clone(), licence.clone())));
    }
    Ok(licences)
}

fn read_file(store: &Store, deb: &ImportedDeb, path: &TreePath) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = store.read_tree(&deb.data, |entry: &Entry, content: &mut dyn Read| {
        if entry.path == *path {
            content.take(MAX_COPYRIGHT).read_to_end(&mut bytes).map_err(Unread::Io)?;
        }
        Ok::<(), Unread>(())
    });
    match read {
        Ok(()) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(Unread::Store(error)) => Err(error.into()),
        Err(Unread::Io(error)) => Err(Failure::io(&format!("read {}", deb.data.path), error)),
    }
}

enum Unread {
    Store(StoreError),
    Io(std::io::Error),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
