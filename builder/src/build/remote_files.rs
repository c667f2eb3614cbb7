//! Files that `[files]` fetches: downloads that the store keeps as blobs.
//!
//! ```text
//! url, sha256 ── blob of that digest in the store ──────────────────────────┐
//!      └── else download (verified) ── temporary file ── blob writer ───────┴─> `[files]` tree
//! ```
//!
//! A blob's name is its content's digest, which is all that the `fetch` derivation holds, so a blob
//! that is there is the derivation's result: nothing is fetched twice, from whatever address. The
//! image's root names the blob, so garbage collection leaves it for the next build without network.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_store::derivation::Derivation;
use drystone_store::digest::BlobDigest;
use drystone_store::store::{Store, StoreError};
use futures_util::{StreamExt as _, TryStreamExt as _};
use url::Url;

use crate::progress::{Event, Progress};
use crate::spec::{FileSource, Image, Name, Recipe, RecipeSource};
use drystone_source::fetch::{Download, DownloadObserver, Downloader, FetchError, shown};

/// Version of the `fetch` builder: rises whenever its output can change.
const VERSION: u32 = 1;
/// The largest file that is fetched, in bytes: what a plain `ustar` header can hold. Its size is not
/// pinned, and a server that never ends must not fill the disk.
const MOST_BYTES: u64 = 8 << 30;
/// Files that are fetched at once; the downloader bounds transfers again.
const PARALLEL: usize = 8;

/// Why a file of `[files]` could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RemoteFileError {
    /// The network may not be used, and the store lacks files.
    #[error("{} not in the store, and the network may not be used: {}", counted(targets), targets.join(", "))]
    Offline {
        /// Where the files are to stand.
        targets: Vec<String>,
    },
    /// The download failed, or gave something else than is pinned.
    #[error("cannot fetch {target}")]
    Fetch {
        /// Where the file is to stand.
        target: String,
        /// Why.
        source: Box<FetchError>,
    },
    /// The verified file was another one when it was read back.
    #[error("{target} was damaged on this host: expected {expected}, got {actual}")]
    Damaged {
        /// Where the file is to stand.
        target: String,
        /// The digest that was pinned and downloaded.
        expected: BlobDigest,
        /// The digest that was read back.
        actual: BlobDigest,
    },
    /// A temporary file could not be made or read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The download was given up.
    #[error("a worker thread failed")]
    Worker(#[source] io::Error),
}

fn counted(targets: &[String]) -> String {
    match targets.len() {
        1 => "a file of [files] is".to_owned(),
        count => format!("{count} files of [files] are"),
    }
}

/// A file that `[files]` names by address and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it is to stand in the image, for messages.
    pub target: String,
    /// Where it is.
    pub url: Url,
    /// Its digest.
    pub sha256: BlobDigest,
}

impl RemoteFile {
    /// All that an image names, in the order of their places.
    pub fn all(image: &Image) -> Vec<Self> {
        let files = image.files.iter().filter_map(|entry| match &entry.source {
            FileSource::Download { url, sha256 } => {
                let target = entry.target.to_string();
                Some(Self { target, url: url.clone(), sha256: *sha256 })
            }
            _ => None,
        });
        files.collect()
    }

    /// What a recipe starts from, if that is fetched.
    pub fn of_recipe(name: &Name, recipe: &Recipe) -> Option<Self> {
        match &recipe.source {
            Some(RecipeSource::Download { url, sha256, .. }) => Some(Self {
                target: format!("the source of recipe {name}"),
                url: url.clone(),
                sha256: *sha256,
            }),
            _ => None,
        }
    }
}

/// A fetched file, in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// The blob.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// The derivation of a download: the digest is all that matters, not where it is had from.
pub fn derivation(sha256: &BlobDigest) -> Derivation {
    let mut derivation = Derivation::new("fetch", VERSION).with_arg("sha256", sha256.to_hex());
    derivation.output_hash = Some(sha256.to_string());
    derivation
}

/// A file that this store has already.
///
/// # Errors
///
/// [`StoreError`] when its blob cannot be looked at.
pub fn stored(store: &Store, sha256: &BlobDigest) -> Result<Option<StoredFile>, StoreError> {
    let path = store.blob_path(sha256);
    match path.metadata() {
        Ok(metadata) => Ok(Some(StoredFile { path, size: metadata.len() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Io { action: "look at", path, source }),
    }
}

/// What fetching files needs.
#[derive(Clone, Copy)]
pub struct RemoteFiles<'a> {
    /// Where the files are kept.
    pub store: &'a Arc<Store>,
    /// Fetches them.
    pub downloader: &'a Downloader,
    /// Whether the network may not be used.
    pub offline: bool,
    /// Hears how it goes.
    pub progress: &'a dyn Progress,
}

/// Several entries may name the same content, each with an address of its own.
struct Wanted {
    target: String,
    sha256: BlobDigest,
    urls: Vec<Url>,
}

/// Brings files into the store; what it has already is not fetched.
///
/// # Errors
///
/// [`RemoteFileError`]: the first that occurs; what is under way is then given up, and nothing of a
/// file that failed is kept.
pub async fn fetch_files(
    context: RemoteFiles<'_>,
    files: &[RemoteFile],
) -> Result<BTreeMap<BlobDigest, StoredFile>, RemoteFileError> {
    let mut present = BTreeMap::new();
    let mut missing: BTreeMap<BlobDigest, Wanted> = BTreeMap::new();
    for file in files {
        if let Some(found) = stored(context.store, &file.sha256)? {
            present.insert(file.sha256, found);
            continue;
        }
        let wanted = missing.entry(file.sha256).or_insert_with(|| Wanted {
            target: file.target.clone(),
            sha256: file.sha256,
            urls: Vec::new(),
        });
        if !wanted.urls.contains(&file.url) {
            wanted.urls.push(file.url.clone());
        }
    }
    if context.offline && !missing.is_empty() {
        let mut targets: Vec<String> = missing.into_values().map(|wanted| wanted.target).collect();
        targets.sort();
        return Err(RemoteFileError::Offline { targets });
    }
    let fetched: Vec<(BlobDigest, StoredFile)> =
        futures_util::stream::iter(missing.into_values().map(|wanted| context.fetch(wanted)))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
    present.extend(fetched);
    Ok(present)
}

impl RemoteFiles<'_> {
    async fn fetch(&self, wanted: Wanted) -> Result<(BlobDigest, StoredFile), RemoteFileError> {
        let Wanted { target, sha256, urls } = wanted;
        let from = urls.first().map(shown).unwrap_or_default();
        let text = format!("fetch {from}");
        self.progress.event(Event::Phase { name: target.clone(), text });
        let directory = self.store.temporary_directory();
        let file = tempfile::Builder::new()
            .prefix("file-")
            .tempfile_in(directory)
            .map_err(io_error("create a file in", directory))?
            .into_temp_path();
        let destination = file.to_path_buf();
        let download =
            Download::bounded(target.clone(), urls, Some(sha256), MOST_BYTES, destination);
        let observer = Notes(self.progress);
        self.downloader.fetch(&download, &observer).await.map_err(|source| {
            RemoteFileError::Fetch { target: target.clone(), source: Box::new(source) }
        })?;
        let (store, name) = (Arc::clone(self.store), target.clone());
        let kept = tokio::task::spawn_blocking(move || keep(&store, name, &sha256, &file)).await;
        let kept = kept.map_err(|error| RemoteFileError::Worker(io::Error::other(error)))??;
        self.progress.event(Event::Done { name: target });
        Ok((sha256, kept))
    }
}

/// Copies a verified file into the store, whose writer computes the digest again.
fn keep(
    store: &Store,
    target: String,
    sha256: &BlobDigest,
    file: &Path,
) -> Result<StoredFile, RemoteFileError> {
    let _guard = store.lock_derivation(&derivation(sha256).id())?;
    // Another process may have been faster.
    if let Some(found) = stored(store, sha256)? {
        return Ok(found);
    }
    let mut content = File::open(file).map_err(io_error("open", file))?;
    let mut writer = store.blob_writer()?;
    io::copy(&mut content, &mut writer).map_err(io_error("copy", file))?;
    let (actual, size) = writer.finish()?;
    if actual != *sha256 {
        return Err(RemoteFileError::Damaged { target, expected: *sha256, actual });
    }
    Ok(StoredFile { path: store.blob_path(sha256), size })
}

fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> RemoteFileError + use<'a> {
    move |source| RemoteFileError::Io { action, path: path.to_owned(), source }
}

/// Sizes are not known beforehand, so no bytes are reported, only what goes wrong meanwhile.
struct Notes<'a>(&'a dyn Progress);

impl DownloadObserver for Notes<'_> {
    fn started(&self, _name: &str, _total: Option<u64>) {}

    fn advanced(&self, _name: &str, _bytes: u64) {}

    fn retrying(&self, name: &str, reason: &str) {
        self.0.event(Event::Note { text: format!("{name}: {reason}; trying again") });
    }

    fn finished(&self, _name: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_digest_names_a_download() {
        let sha256 = BlobDigest::of(b"x");
        let derivation = derivation(&sha256);
        let expected = format!(
            "{{\"args\":{{\"sha256\":\"{0}\"}},\"builder\":\"fetch\",\"env\":{{}},\"format\":1,\
             \"inputs\":[],\"output_hash\":\"sha256:{0}\",\"outputs\":[\"out\"],\
             \"platform\":null,\"sandbox\":null,\"tables\":{{}},\"v\":1}}",
            sha256.to_hex()
        );
        assert_eq!(derivation.to_json(), expected);
    }

    #[test]
    fn what_is_missing_offline_is_named() {
        let one = RemoteFileError::Offline { targets: vec!["/a".into()] };
        let two = RemoteFileError::Offline { targets: vec!["/a".into(), "/b".into()] };
        assert!(one.to_string().starts_with("a file of [files] is not in the store"), "{one}");
        assert!(two.to_string().starts_with("2 files of [files] are not"), "{two}");
        assert!(two.to_string().ends_with(": /a, /b"), "{two}");
    }
}
