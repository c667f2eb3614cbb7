//! The downloader: addresses in order, attempts with pauses, limits, verification.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use drystone_http::retry::backoff;
use drystone_store::digest::BlobDigest;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;
use url::Url;

use super::download::{
    Download, DownloadObserver, Downloaded, Headers, Job, Settings, Silent, Watch,
};
use super::retry::Failure;
use super::sink::Sink;
use super::{FetchError, http, local, shown};

/// Attempts at one address, successful beginnings included: a server that gives a few bytes each
/// time must come to an end.
const MOST_ATTEMPTS: u32 = 30;

/// Fetches files. Clones share one connection pool and one bound on parallel transfers.
#[derive(Clone)]
pub struct Downloader {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    /// Made when first needed: reading the host's certificates takes longer than a build with
    /// nothing to do.
    client: OnceLock<reqwest::Client>,
    transfers: Semaphore,
}

impl Downloader {
    /// A downloader; nothing is opened or read yet.
    pub fn new(settings: Settings) -> Self {
        let transfers = Semaphore::new(settings.parallel.max(1));
        Self { shared: Arc::new(Shared { settings, client: OnceLock::new(), transfers }) }
    }

    /// Fetches one file into its destination.
    ///
    /// # Errors
    ///
    /// [`FetchError`]: that of the only address, or [`FetchError::Exhausted`] with one for each.
    pub async fn fetch(
        &self,
        download: &Download,
        observer: &dyn DownloadObserver,
    ) -> Result<Downloaded, FetchError> {
        let mut job = self.job(&download.name, download.size, download.limit, observer);
        job.headers = download.headers.clone();
        let sink = Sink::file(&download.destination)?;
        observer.started(&download.name, download.size);
        let _watch = Watch { observer, name: &download.name };
        let (sink, url) = self.run(&job, &download.urls, download.sha256, sink).await?;
        Ok(Downloaded { sha256: sink.digest(), size: sink.written(), url })
    }

    /// Fetches many files in parallel; results are in the order of `downloads`.
    ///
    /// # Errors
    ///
    /// The first [`FetchError`]; transfers still under way are then given up.
    pub async fn fetch_all(
        &self,
        downloads: &[Download],
        observer: &dyn DownloadObserver,
    ) -> Result<Vec<Downloaded>, FetchError> {
        let running: Vec<_> = downloads
            .iter()
            .enumerate()
            .map(async |(at, download)| Ok((at, self.fetch(download, observer).await?)))
            .collect();
        // Twice the transfers, so that pauses between attempts leave no gap.
        let width = self.shared.settings.parallel.max(1) * 2;
        let done = futures_util::stream::iter(running).buffer_unordered(width);
        let mut fetched: Vec<(usize, Downloaded)> = done.try_collect().await?;
        fetched.sort_by_key(|(at, _)| *at);
        Ok(fetched.into_iter().map(|(_, downloaded)| downloaded).collect())
    }

    /// Fetches a small file into memory; `None` if the server has none.
    ///
    /// # Errors
    ///
    /// [`FetchError`], among others when it is larger than `limit` bytes.
    pub async fn fetch_bytes(&self, url: &Url, limit: u64) -> Result<Option<Bytes>, FetchError> {
        self.fetch_document(url, limit, &Headers::default()).await
    }

    /// As [`Downloader::fetch_bytes`], with headers of one's own.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn fetch_document(
        &self,
        url: &Url,
        limit: u64,
        headers: &Headers,
    ) -> Result<Option<Bytes>, FetchError> {
        let name = shown(url);
        let mut job = self.job(&name, None, limit, &Silent);
        job.headers = headers.clone();
        let outcome = self.run(&job, std::slice::from_ref(url), None, Sink::memory()).await;
        match outcome {
            Ok((sink, _)) => Ok(Some(sink.into_memory().into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a file of known digest and size into memory.
    ///
    /// # Errors
    ///
    /// As [`Downloader::fetch`].
    pub async fn fetch_verified(
        &self,
        name: &str,
        urls: &[Url],
        sha256: BlobDigest,
        size: u64,
        observer: &dyn DownloadObserver,
    ) -> Result<Bytes, FetchError> {
        let job = self.job(name, Some(size), size, observer);
        observer.started(name, Some(size));
        let _watch = Watch { observer, name };
        let (sink, _) = self.run(&job, urls, Some(sha256), Sink::memory()).await?;
        Ok(sink.into_memory().into())
    }

    fn job<'a>(
        &'a self,
        name: &'a str,
        size: Option<u64>,
        limit: u64,
        observer: &'a dyn DownloadObserver,
    ) -> Job<'a> {
        let credentials = &self.shared.settings.credentials;
        Job { name, size, limit, credentials, headers: Headers::default(), observer }
    }

    /// Tries the addresses in order; the full sink and the address that filled it.
    async fn run(
        &self,
        job: &Job<'_>,
        urls: &[Url],
        sha256: Option<BlobDigest>,
        mut sink: Sink,
    ) -> Result<(Sink, String), FetchError> {
        let mut failures = Vec::new();
        for url in urls {
            // Bytes from one address may be continued from the next only if the digest decides.
            if sha256.is_none() {
                job.restart(&mut sink)?;
            }
            let (returned, result) = self.try_address(job, url, sha256, sink).await?;
            sink = returned;
            match result {
                Ok(()) => return Ok((sink, shown(url))),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Next(error) | Failure::Again { error, .. }) => failures.push(error),
            }
        }
        job.restart(&mut sink)?;
        let name = job.name.to_owned();
        match failures.len() {
            0 => Err(FetchError::NoAddress { name }),
            1 => Err(failures.remove(0)),
            _ => Err(FetchError::Exhausted { name, failures }),
        }
    }

    /// Tries one address until it has given everything, or has failed too often.
    async fn try_address(
        &self,
        job: &Job<'_>,
        url: &Url,
        sha256: Option<BlobDigest>,
        mut sink: Sink,
    ) -> Result<(Sink, Result<(), Failure>), FetchError> {
        let settings = &self.shared.settings;
        let (mut validator, mut vain) = (None, 0);
        let mut continued = sink.written() > 0;
        for _ in 0..MOST_ATTEMPTS {
            let before = sink.written();
            let permit = self.shared.transfers.acquire().await;
            let (returned, result) = self.attempt(job, url, sink, &mut validator).await?;
            drop(permit);
            sink = returned;
            let result = result.and_then(|()| verify(job, url, sha256, &sink));
            let (error, wait) = match result {
                // The pieces may be of different files: one more try gets it in one piece.
                Err(Failure::Next(FetchError::HashMismatch { .. })) if continued => {
                    continued = false;
                    job.restart(&mut sink)?;
                    continue;
                }
                Err(Failure::Next(error)) if error.is_verification_failure() => {
                    job.restart(&mut sink)?;
                    return Ok((sink, Err(Failure::Next(error))));
                }
                Err(Failure::Again { error, wait }) => (error, wait),
                result => return Ok((sink, result)),
            };
            vain = if sink.written() > before { 1 } else { vain + 1 };
            let pause = wait.unwrap_or_default().max(backoff(
                settings.first_pause,
                settings.longest_pause,
                vain,
            ));
            if vain >= settings.attempts || pause > settings.longest_pause {
                return Ok((sink, Err(Failure::Next(error))));
            }
            if sha256.is_none() && validator.is_none() {
                job.restart(&mut sink)?;
            }
            continued |= sink.written() > 0;
            job.observer.retrying(job.name, &error.to_string());
            tracing::debug!(name = job.name, %error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
        let error = FetchError::Truncated {
            url: shown(url),
            expected: job.largest(),
            actual: sink.written(),
        };
        Ok((sink, Err(Failure::Next(error))))
    }

    async fn attempt(
        &self,
        job: &Job<'_>,
        url: &Url,
        sink: Sink,
        validator: &mut http::Validator,
    ) -> Result<(Sink, Result<(), Failure>), FetchError> {
        match url.scheme() {
            "http" | "https" => {
                let client = self.client()?;
                http::attempt(&client, job, url, sink, validator).await
            }
            "file" => local::attempt(job, url, sink).await,
            _ => {
                let error = FetchError::Scheme { url: shown(url) };
                Ok((sink, Err(Failure::Next(error))))
            }
        }
    }

    fn client(&self) -> Result<reqwest::Client, FetchError> {
        if let Some(client) = self.shared.client.get() {
            return Ok(client.clone());
        }
        let client = http::client(&self.shared.settings)?;
        Ok(self.shared.client.get_or_init(|| client).clone())
    }
}

/// Checks size and digest of what came as a whole.
fn verify(
    job: &Job<'_>,
    url: &Url,
    sha256: Option<BlobDigest>,
    sink: &Sink,
) -> Result<(), Failure> {
    match job.size {
        // A server may have broken off without saying so; a local file is what it is.
        Some(expected) if sink.written() < expected && url.scheme() != "file" => {
            let (url, actual) = (shown(url), sink.written());
            let error = FetchError::Truncated { url, expected, actual };
            return Err(Failure::Again { error, wait: None });
        }
        _ => job.check_size(url, sink.written(), true).map_err(Failure::Next)?,
    }
    let actual = sink.digest();
    match sha256 {
        Some(expected) if expected != actual => {
            let url = shown(url);
            Err(Failure::Next(FetchError::HashMismatch { url, expected, actual }))
        }
        _ => Ok(()),
    }
}
