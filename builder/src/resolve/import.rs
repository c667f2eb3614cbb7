//! Importing what is pinned: downloads and imports overlap, so that neither waits for the other.
//!
//! ```text
//! missing packages, largest first ─ download (bounded by the downloader) ─┐ each as soon as
//!                                   temporary file                        │ it is complete
//! trees in the store <── .deb import (bounded by `jobs`, blocking threads)┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_store::digest::TreeHash;
use drystone_store::layer::Compression;
use drystone_store::store::{Store, StoreError};
use drystone_store::substituter::Wanted;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;
use url::Url;

use super::observe::Transfers;
use super::{ResolveError, Sources};
use crate::lock::{ArchiveKey, Lock, LockedPackage, PackageKey};
use crate::progress::{Event, Progress};
use drystone_source::debian::deb::{self, DebError, ImportedDeb};
use drystone_source::fetch::{Download, Downloader, FetchError};

/// Downloads that are under way or waiting for the downloader; more would only hold files open.
const WAITING_DOWNLOADS: usize = 32;

/// Why packages could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The network may not be used, and the store lacks packages.
    #[error("{} packages are not in the store, and the network may not be used: {}", packages.len(), list(packages))]
    Offline {
        /// The packages, sorted.
        packages: Vec<PackageKey>,
    },
    /// A package that should be imported is not pinned.
    #[error("package {package} is not in the lock")]
    NotLocked {
        /// The package.
        package: PackageKey,
    },
    /// No address is known for a package's repository.
    #[error("package {package} comes from `{archive}`, for which no address is known")]
    NoAddress {
        /// The package.
        package: PackageKey,
        /// Its archive.
        archive: ArchiveKey,
    },
    /// No mirror can be found.
    #[error("no mirror for package {package}")]
    Mirror {
        /// The package.
        package: PackageKey,
        /// Why not.
        source: Box<ResolveError>,
    },
    /// No mirror has the file any more.
    #[error("package {package} is no longer offered")]
    Gone {
        /// The package.
        package: PackageKey,
        /// What was tried.
        source: Box<FetchError>,
    },
    /// A download failed.
    #[error("cannot fetch package {package}")]
    Fetch {
        /// The package.
        package: PackageKey,
        /// Why.
        source: Box<FetchError>,
    },
    /// The file is no package that can be imported.
    #[error("package {package} ({file}) cannot be imported")]
    Deb {
        /// The package.
        package: PackageKey,
        /// The file's path in its repository.
        file: String,
        /// Why.
        source: Box<DebError>,
    },
    /// The import gave other trees than the lock pins.
    #[error(
        "package {package}: its {what} tree is {actual}, but the lock pins {expected}: another \
         version of drystone imported it, or the archive differs"
    )]
    Differs {
        /// The package.
        package: Box<PackageKey>,
        /// Which tree: "data" or "control".
        what: &'static str,
        /// The pinned tree.
        expected: TreeHash,
        /// The imported tree.
        actual: TreeHash,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A downloaded file could not be read back.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A worker thread came to a bad end.
    #[error("a worker thread failed")]
    Worker(#[source] io::Error),
}

impl ImportError {
    /// The exit code of the command: 6 network or mirror, 7 hash, 8 this host, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fetch { source, .. } if source.is_verification_failure() => 7,
            Self::Offline { .. }
            | Self::NoAddress { .. }
            | Self::Gone { .. }
            | Self::Fetch { .. } => 6,
            Self::Mirror { source, .. } => source.exit_code(),
            Self::Differs { .. } => 7,
            Self::Store(_) | Self::Io { .. } => 8,
            Self::Deb { source, .. } if matches!(**source, DebError::Store(_)) => 8,
            Self::NotLocked { .. } | Self::Deb { .. } | Self::Worker(_) => 1,
        }
    }

    /// What the user can do about it, in one line, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Offline { .. } => Some("run it once without --offline".to_owned()),
            Self::Gone { package, .. } => Some(format!(
                "mirrors keep a version for some days only: add a binary cache that has it, or run \
                 `drystone update {}`",
                package.name
            )),
            Self::Differs { package, .. } => Some(format!(
                "`drystone update {}` pins what this version of drystone makes of it",
                package.name
            )),
            _ => None,
        }
    }
}

fn list(packages: &[PackageKey]) -> String {
    packages.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What imports need besides the lock.
#[derive(Clone, Copy)]
pub struct Imports<'a> {
    /// Where the trees go.
    pub store: &'a Arc<Store>,
    /// Fetches packages.
    pub downloader: &'a Downloader,
    /// Where packages are.
    pub sources: &'a Sources,
    /// How layers are compressed.
    pub compression: Compression,
    /// How many packages are imported at once; the number of processors, usually.
    pub jobs: usize,
    /// Whether the network may not be used.
    pub offline: bool,
    /// Hears how it goes.
    pub progress: &'a dyn Progress,
}

/// Brings pinned packages into the store: those that it lacks are fetched, verified and imported.
/// Trees that the lock pins must come out the same.
///
/// # Errors
///
/// [`ImportError`]: the first that occurs; what is under way is then given up.
pub async fn import_packages(
    imports: Imports<'_>,
    lock: &Lock,
    keys: &[PackageKey],
) -> Result<BTreeMap<PackageKey, ImportedDeb>, ImportError> {
    let mut wanted = Vec::new();
    for key in keys.iter().collect::<BTreeSet<_>>() {
        let pin = lock.packages.get(key);
        let pin = pin.ok_or_else(|| ImportError::NotLocked { package: key.clone() })?;
        wanted.push((key.clone(), pin.clone()));
    }
    let (mut imported, mut missing) = present(imports.store, wanted).await?;
    if imports.offline && !missing.is_empty() {
        let packages = missing.into_iter().map(|(key, _)| key).collect();
        return Err(ImportError::Offline { packages });
    }
    // The largest first: what takes longest may not start last.
    missing.sort_by_key(|(key, pin)| (std::cmp::Reverse(pin.size), key.clone()));
    imported.extend(imports.import(missing).await?);
    for (key, deb) in &imported {
        check_trees(key, &lock.packages[key], deb)?;
    }
    Ok(imported)
}

/// What a cache is asked for a package: its derivation, and the trees that the lock pins.
pub fn substitutable(pin: &LockedPackage) -> Wanted {
    let trees = [("data", pin.tree), ("control", pin.control)];
    let pinned = trees.into_iter().filter_map(|(name, tree)| Some((name.to_owned(), tree?)));
    let derivation = deb::derivation(&pin.sha256).id();
    Wanted { pinned: pinned.collect(), ..Wanted::from(derivation) }
}

type Pinned = Vec<(PackageKey, LockedPackage)>;

/// Parts what the store has from what it lacks.
async fn present(
    store: &Arc<Store>,
    wanted: Pinned,
) -> Result<(BTreeMap<PackageKey, ImportedDeb>, Pinned), ImportError> {
    let store = Arc::clone(store);
    blocking(move || {
        let (mut present, mut missing) = (BTreeMap::new(), Vec::new());
        // What the lock pins needs no key: the trees prove themselves.
        store.prefetch(wanted.iter().map(|(_, pin)| substitutable(pin)))?;
        for (key, pin) in wanted {
            match deb::imported(&store, &pin.sha256)? {
                Some(deb) => drop(present.insert(key, deb)),
                None => missing.push((key, pin)),
            }
        }
        Ok((present, missing))
    })
    .await
}

impl Imports<'_> {
    async fn import(
        &self,
        missing: Pinned,
    ) -> Result<BTreeMap<PackageKey, ImportedDeb>, ImportError> {
        if missing.is_empty() {
            return Ok(BTreeMap::new());
        }
        let total = missing.iter().map(|(_, pin)| pin.size).sum();
        let transfers = Transfers::of_total(self.progress, total);
        let workers = Arc::new(Semaphore::new(self.jobs.max(1)));
        let downloads = missing.into_iter().map(|(key, pin)| self.download(key, pin, &transfers));
        futures_util::stream::iter(downloads)
            .buffer_unordered(WAITING_DOWNLOADS)
            .map_ok(|file| self.unpack(file, &workers))
            // Every complete download becomes an import at once; the workers bound those.
            .try_buffer_unordered(usize::MAX)
            .try_collect()
            .await
    }

    async fn download(
        &self,
        key: PackageKey,
        pin: LockedPackage,
        transfers: &Transfers<'_>,
    ) -> Result<Fetched, ImportError> {
        let addresses = self.addresses(&key, &pin)?;
        let directory = self.store.temporary_directory();
        let file = tempfile::Builder::new()
            .prefix("deb-")
            .tempfile_in(directory)
            .map_err(|source| ImportError::Io { path: directory.to_owned(), source })?
            .into_temp_path();
        let name = key.to_string();
        let download = Download::exact(name, addresses, pin.sha256, pin.size, file.to_path_buf());
        match self.downloader.fetch(&download, transfers).await {
            Ok(_) => Ok(Fetched { key, pin, file }),
            Err(source) if source.is_not_found() => {
                Err(ImportError::Gone { package: key, source: Box::new(source) })
            }
            Err(source) => Err(ImportError::Fetch { package: key, source: Box::new(source) }),
        }
    }

    fn addresses(&self, key: &PackageKey, pin: &LockedPackage) -> Result<Vec<Url>, ImportError> {
        let addresses = self.sources.addresses(pin).map_err(|source| ImportError::Mirror {
            package: key.clone(),
            source: Box::new(source),
        })?;
        match addresses.is_empty() {
            true => {
                Err(ImportError::NoAddress { package: key.clone(), archive: pin.archive.clone() })
            }
            false => Ok(addresses),
        }
    }

    async fn unpack(
        &self,
        fetched: Fetched,
        workers: &Arc<Semaphore>,
    ) -> Result<(PackageKey, ImportedDeb), ImportError> {
        let permit = Arc::clone(workers).acquire_owned().await.map_err(closed)?;
        let name = fetched.key.to_string();
        self.progress.event(Event::Phase { name: name.clone(), text: "import".to_owned() });
        let (store, compression) = (Arc::clone(self.store), self.compression);
        let done = blocking(move || {
            // Held by the work itself: it goes on when the future is dropped.
            let _permit = permit;
            fetched.import(&store, compression)
        });
        let done = done.await?;
        self.progress.event(Event::Done { name });
        Ok(done)
    }
}

/// A package's file, complete and verified.
struct Fetched {
    key: PackageKey,
    pin: LockedPackage,
    /// Removed when dropped.
    file: tempfile::TempPath,
}

impl Fetched {
    fn import(
        self,
        store: &Store,
        compression: Compression,
    ) -> Result<(PackageKey, ImportedDeb), ImportError> {
        let Self { key, pin, file } = self;
        let guard = store.lock_derivation(&deb::derivation(&pin.sha256).id())?;
        // Another process may have been faster.
        if let Some(deb) = deb::imported(store, &pin.sha256)? {
            return Ok((key, deb));
        }
        let path: &Path = &file;
        let reader =
            File::open(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })?;
        let version = key.version.as_str();
        let version = version.split_once(':').map_or(version, |(_, bare)| bare);
        let name = format!("{}-{version}", key.name);
        let imported = deb::import(store, &pin.sha256, &name, pin.size, reader, compression);
        drop(guard);
        match imported {
            Ok(deb) => Ok((key, deb)),
            Err(source) => Err(ImportError::Deb {
                package: key,
                file: pin.path.to_string(),
                source: Box::new(source),
            }),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImportError> + Send + 'static,
) -> Result<T, ImportError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| ImportError::Worker(io::Error::other(error)))?
}

fn closed(error: tokio::sync::AcquireError) -> ImportError {
    ImportError::Worker(io::Error::other(error))
}

fn check_trees(
    key: &PackageKey,
    pin: &LockedPackage,
    deb: &ImportedDeb,
) -> Result<(), ImportError> {
    let trees = [("data", pin.tree, &deb.data), ("control", pin.control, &deb.control)];
    for (what, pinned, output) in trees {
        let actual = *output.path.hash();
        if let Some(expected) = pinned.filter(|expected| *expected != actual) {
            return Err(ImportError::Differs {
                package: Box::new(key.clone()),
                what,
                expected,
                actual,
            });
        }
    }
    Ok(())
}

/// Pins the trees that imports gave, so that any cache can be believed from then on.
pub fn record_trees(lock: &mut Lock, imported: &BTreeMap<PackageKey, ImportedDeb>) {
    for (key, deb) in imported {
        if let Some(pin) = lock.packages.get_mut(key) {
            pin.tree = Some(*deb.data.path.hash());
            pin.control = Some(*deb.control.path.hash());
        }
    }
}
