//! Dependencies as derivations: the lockfile's hash decides, wherever the file comes from.
//!
//! ```text
//! integrity ── `fetch` realised in the store or a cache ──────────────────────┐
//!      └── else the registry ── temporary file ── hash is right ── a tree ────┴─> `file`
//! ```
//!
//! A fetched file is a tree with the one entry `file`, so caches carry it like all else. It is
//! hashed when it comes, before it has a name, and again whenever it is used.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::integrity::Hashing;
use super::registry::{Address, Registries};
use super::{Dependency, Integrity, LanguageError};
use crate::progress::{Event, Progress};
use drystone_source::fetch::{Download, Downloaded, Downloader, FetchError, Silent};
use drystone_store::derivation::Derivation;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::substituter::Wanted;
use drystone_store::tree::{Entry, TreePath};
use futures_util::{StreamExt as _, TryStreamExt as _};

/// Version of the `fetch` builder: rises whenever its output can change.
const VERSION: u32 = 1;
/// The largest file that is fetched, in bytes: a server that never ends must not fill the disk.
const MOST_BYTES: u64 = 4 << 30;
/// Files that are fetched at once; the downloader bounds transfers again.
const PARALLEL: usize = 16;
/// The name of the fetched file in its tree.
const FILE: &str = "file";

/// The derivation of a fetched file: its hash is all that matters.
pub fn derivation(integrity: &Integrity) -> Derivation {
    let mut derivation = Derivation::new("fetch", VERSION)
        .with_arg(integrity.algorithm().as_str(), integrity.to_hex());
    derivation.output_hash = Some(integrity.to_string());
    derivation
}

/// A fetched file's tree, if it is in the store or in a cache.
pub fn fetched(store: &Store, integrity: &Integrity) -> Result<Option<Output>, StoreError> {
    store.realised_output(&derivation(integrity).id(), "out")
}

/// Those that neither the store nor a cache has, each content once. Asks caches for all at once.
pub fn missing(store: &Store, all: &[Dependency]) -> Result<Vec<Dependency>, StoreError> {
    let wanted = all.iter().map(|it| Wanted::from(derivation(&it.integrity).id()));
    store.prefetch(wanted)?;
    let mut seen = BTreeSet::new();
    let mut missing = Vec::new();
    for dependency in all {
        if seen.insert(&dependency.integrity) && fetched(store, &dependency.integrity)?.is_none() {
            missing.push(dependency.clone());
        }
    }
    Ok(missing)
}

/// Reads a fetched file. What `visit` made of it counts only when this succeeds: the hash is known
/// at the end.
pub(super) fn read_fetched(
    store: &Store,
    integrity: &Integrity,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), LanguageError>,
) -> Result<(), LanguageError> {
    let output = fetched(store, integrity)?;
    let output = output.ok_or_else(|| LanguageError::NotFetched(integrity.clone()))?;
    store.read_tree(&output, |entry, content| {
        let mut content = Hashing::new(content, integrity.algorithm());
        visit(entry, &mut content)?;
        let actual = content.finish().map_err(|source| {
            let (action, path) = ("read", store.checkout_path(&output.path));
            LanguageError::Io { action, path, source }
        })?;
        match actual == *integrity {
            true => Ok(()),
            false => {
                let (title, expected) = (output.path.name().to_owned(), integrity.clone());
                Err(LanguageError::Mismatch { title, url: None, expected, actual })
            }
        }
    })
}

/// What fetching needs.
#[derive(Clone, Copy)]
pub struct Fetching<'a> {
    /// Where the files are kept.
    pub store: &'a Arc<Store>,
    /// Fetches them.
    pub downloader: &'a Downloader,
    /// Know further addresses, where the first ones lack a file.
    pub registries: &'a Registries<'a>,
    /// Hears how it goes.
    pub progress: &'a dyn Progress,
}

/// Brings dependencies into the store, each from its addresses, best first.
///
/// # Errors
///
/// [`LanguageError`]: the first that occurs; what is under way is then given up, and nothing of a
/// file that failed is kept.
pub async fn fetch_all(
    context: Fetching<'_>,
    wanted: Vec<(Dependency, Vec<Address>)>,
) -> Result<(), LanguageError> {
    futures_util::stream::iter(wanted.into_iter().map(|(it, places)| context.fetch(it, places)))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

impl Fetching<'_> {
    async fn fetch(&self, wanted: Dependency, places: Vec<Address>) -> Result<(), LanguageError> {
        let title = wanted.to_string();
        self.progress.event(Event::Phase { name: title.clone(), text: "fetch".to_owned() });
        let directory = self.store.temporary_directory();
        let file = tempfile::Builder::new()
            .prefix("dependency-")
            .tempfile_in(directory)
            .map_err(io_error("create a file in", directory))?
            .into_temp_path();
        let failed =
            |source| LanguageError::Fetch { title: title.clone(), source: Box::new(source) };
        let downloaded = match self.download(&title, &places, &file).await {
            Err(error) if error.is_not_found() => {
                let further = self.registries.further(&wanted).await?;
                match further.is_empty() {
                    true => return Err(failed(error)),
                    false => self.download(&title, &further, &file).await.map_err(failed)?,
                }
            }
            result => result.map_err(failed)?,
        };
        let store = Arc::clone(self.store);
        let keep = move || keep(&store, &wanted, &file, downloaded.url);
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(|error| LanguageError::Worker(io::Error::other(error)))??;
        self.progress.event(Event::Done { name: title });
        Ok(())
    }
}

impl Fetching<'_> {
    /// Takes a file from the first of some addresses that has it.
    async fn download(
        &self,
        title: &str,
        places: &[Address],
        file: &Path,
    ) -> Result<Downloaded, FetchError> {
        let mut failures = Vec::new();
        for Address { url, headers } in places {
            let (urls, file) = (vec![url.clone()], file.to_owned());
            let mut download = Download::bounded(title, urls, None, MOST_BYTES, file);
            download.headers = headers.clone();
            match self.downloader.fetch(&download, &Silent).await {
                Ok(downloaded) => return Ok(downloaded),
                Err(error) => failures.push(error),
            }
        }
        let name = title.to_owned();
        match failures.len() {
            0 => Err(FetchError::NoAddress { name }),
            1 => Err(failures.remove(0)),
            _ => Err(FetchError::Exhausted { name, failures }),
        }
    }
}

/// Checks a file's hash, and stores it.
fn keep(store: &Store, wanted: &Dependency, file: &Path, url: String) -> Result<(), LanguageError> {
    let expected = wanted.integrity.clone();
    let derivation = derivation(&expected);
    let mut content = File::open(file).map_err(io_error("open", file))?;
    let actual = expected.of_reader(&mut content).map_err(io_error("read", file))?;
    if actual != expected {
        let title = wanted.to_string();
        return Err(LanguageError::Mismatch { title, url: Some(url), expected, actual });
    }
    let _lock = store.lock_derivation(&derivation.id())?;
    let mut content = File::open(file).map_err(io_error("open", file))?;
    let size = content.metadata().map_err(io_error("look at", file))?.len();
    let mut spool = store.spool();
    let path = TreePath::new(FILE).expect("a valid path");
    spool.add(Entry::file(path, 0o644, size), &mut content)?;
    let output = store.add_tree(&wanted.file_name, Compression::Store1, &mut spool)?;
    store.put_realisation(&derivation, [("out".to_owned(), output)])?;
    Ok(())
}

fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> LanguageError + use<'a> {
    move |source| LanguageError::Io { action, path: path.to_owned(), source }
}
