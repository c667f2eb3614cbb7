//! What is asked of the downloader, and what it tells while it works.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use drystone_store::digest::BlobDigest;
use url::Url;

use super::sink::Sink;
use super::{Credentials, FetchError, shown};

/// How the downloader behaves. The default suits interactive use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Transfers at the same time.
    pub parallel: usize,
    /// Attempts at one address in a row that bring nothing, before the next address is tried.
    pub attempts: u32,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest silence of a server.
    pub idle_timeout: Duration,
    /// The pause after a first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause, and the longest `Retry-After` that is waited for.
    pub longest_pause: Duration,
    /// Whether proxies are taken from the environment.
    pub proxies: bool,
    /// Credentials for addresses that hold none.
    pub credentials: Credentials,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parallel: 8,
            attempts: 5,
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            first_pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(30),
            proxies: true,
            credentials: Credentials::default(),
        }
    }
}

/// What is sent beside what all requests have.
#[derive(Clone, Default)]
pub struct Headers {
    /// The forms that are understood.
    pub accept: Option<&'static str>,
    /// Who asks, as the header `Authorization` has it. It is sent to the addresses that it came
    /// with, and follows no redirect to another host.
    pub authorization: Option<String>,
}

/// Without the secret.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accept, authorization } = self;
        let authorization = authorization.as_ref().map(|_| "…");
        let mut debug = f.debug_struct("Headers");
        debug.field("accept", accept).field("authorization", &authorization).finish()
    }
}

/// One file to fetch.
#[derive(Debug, Clone)]
pub struct Download {
    /// What people call it, for progress and messages.
    pub name: String,
    /// Where it is, best first.
    pub urls: Vec<Url>,
    /// Its digest, if known.
    pub sha256: Option<BlobDigest>,
    /// Its size in bytes, if known.
    pub size: Option<u64>,
    /// The most bytes that are accepted.
    pub limit: u64,
    /// The caller's file (usually temporary); it is created or emptied. After a failure it is
    /// empty, after an interruption its content means nothing.
    pub destination: PathBuf,
    /// What is sent to every address.
    pub headers: Headers,
}

impl Download {
    /// A file whose digest and size are known.
    pub fn exact(
        name: impl Into<String>,
        urls: Vec<Url>,
        sha256: BlobDigest,
        size: u64,
        destination: PathBuf,
    ) -> Self {
        let name = name.into();
        Self {
            name,
            urls,
            sha256: Some(sha256),
            size: Some(size),
            limit: size,
            destination,
            headers: Headers::default(),
        }
    }

    /// A file whose size is not known but bounded; `sha256` may be known.
    pub fn bounded(
        name: impl Into<String>,
        urls: Vec<Url>,
        sha256: Option<BlobDigest>,
        limit: u64,
        destination: PathBuf,
    ) -> Self {
        let (name, headers) = (name.into(), Headers::default());
        Self { name, urls, sha256, size: None, limit, destination, headers }
    }
}

/// A file that was fetched and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Its digest.
    pub sha256: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
    /// The address that served it, without credentials.
    pub url: String,
}

/// Hears how downloads get on. Calls come from several tasks and must return quickly.
pub trait DownloadObserver: Send + Sync {
    /// A download begins; `total` is its size in bytes, if known.
    fn started(&self, name: &str, total: Option<u64>);
    /// Further bytes have come.
    fn advanced(&self, name: &str, bytes: u64);
    /// All bytes so far are void: the download starts over.
    fn restarted(&self, _name: &str) {}
    /// An attempt failed and will be repeated; `reason` holds no credentials.
    fn retrying(&self, _name: &str, _reason: &str) {}
    /// The download has ended, well or not.
    fn finished(&self, name: &str);
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl DownloadObserver for Silent {
    fn started(&self, _name: &str, _total: Option<u64>) {}
    fn advanced(&self, _name: &str, _bytes: u64) {}
    fn finished(&self, _name: &str) {}
}

/// Says that a download has ended even when its future is dropped.
pub(super) struct Watch<'a> {
    pub observer: &'a dyn DownloadObserver,
    pub name: &'a str,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.observer.finished(self.name);
    }
}

/// What an attempt needs to know.
pub(super) struct Job<'a> {
    pub name: &'a str,
    pub size: Option<u64>,
    pub limit: u64,
    pub credentials: &'a Credentials,
    pub headers: Headers,
    pub observer: &'a dyn DownloadObserver,
}

impl Job<'_> {
    pub(super) fn largest(&self) -> u64 {
        self.size.unwrap_or(self.limit)
    }

    /// Checks a size that was announced (`whole`), or that has come so far.
    pub(super) fn check_size(&self, url: &Url, actual: u64, whole: bool) -> Result<(), FetchError> {
        match self.size {
            Some(expected) if actual > expected || (whole && actual != expected) => {
                Err(FetchError::SizeMismatch { url: shown(url), expected, actual })
            }
            _ if actual > self.limit => {
                Err(FetchError::TooLarge { url: shown(url), limit: self.limit })
            }
            _ => Ok(()),
        }
    }

    /// Empties the sink and tells the observer, if there is anything to forget.
    pub(super) fn restart(&self, sink: &mut Sink) -> Result<(), FetchError> {
        if sink.written() > 0 {
            self.observer.restarted(self.name);
            sink.reset()?;
        }
        Ok(())
    }
}
