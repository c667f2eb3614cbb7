//! Registries: the OCI distribution specification 1.1 over HTTP.
//!
//! ```text
//! Remote (Repository) ─┬─ manifests, tags, referrers ─┐
//!                      ├─ download  (resumed)          ├─ session ── access ── token server
//!                      └─ upload    (resumed, mounted)─┘  (retries)  (401)
//! ```
//!
//! Nothing that a registry says is believed: digests and sizes are checked, bodies are bounded,
//! silence ends, and credentials go to the registry itself and the token server that it names.

mod access;
mod challenge;
mod download;
mod remote;
mod session;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::credentials::Credentials;
use crate::error::RegistryError;
use crate::folder::Folder;
use crate::reference::{Host, Location};
use crate::repository::Repository;
use crate::traffic::{Counts, Traffic};
pub(crate) use drystone_http::shown;
pub use remote::Remote;
use session::Session;

/// How the client behaves. The default suits interactive use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Transfers at the same time, for each registry and direction; of all other requests, which
    /// are small, there may be four times as many.
    pub parallel: usize,
    /// Attempts in a row that bring nothing before a request has failed.
    pub attempts: u32,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest time in which nothing moves.
    pub idle_timeout: Duration,
    /// The pause after a first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause, and the longest `Retry-After` that is waited for.
    pub longest_pause: Duration,
    /// Whether proxies are taken from the environment.
    pub proxies: bool,
    /// Registries that may be asked over plain HTTP, beside those on this machine.
    pub insecure: BTreeSet<Host>,
    /// User names and passwords.
    pub credentials: Credentials,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parallel: 8,
            attempts: 5,
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            first_pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(60),
            proxies: true,
            insecure: BTreeSet::new(),
            credentials: Credentials::default(),
        }
    }
}

/// All registries, with one set of connections and tokens for each. Clones share them.
#[derive(Clone)]
pub struct Registries {
    settings: Arc<Settings>,
    sessions: Arc<Mutex<BTreeMap<Host, Arc<Session>>>>,
    traffic: Traffic,
}

impl Registries {
    /// A client; nothing is opened or read yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), sessions: Arc::default(), traffic: Traffic::new() }
    }

    /// Opens a repository of any kind; nothing is asked yet.
    pub fn open(&self, location: &Location) -> Arc<dyn Repository> {
        match location {
            Location::Folder(path) => Arc::new(Folder::new(path.clone())),
            Location::Registry { host, name } => {
                Arc::new(Remote::new(self.session(host), host.clone(), name.clone()))
            }
        }
    }

    /// Checks that a registry is there and accepts the credentials.
    ///
    /// # Errors
    /// A registry that cannot be reached, is none, or denies access.
    pub async fn check(&self, host: &Host) -> Result<(), RegistryError> {
        self.session(host).check().await
    }

    /// Requests and bytes so far, of all registries; folders count for themselves.
    pub fn counts(&self) -> Counts {
        self.traffic.counts()
    }

    /// The counters, for progress.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn session(&self, host: &Host) -> Arc<Session> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.entry(host.clone()).or_insert_with(|| {
            let settings = Arc::clone(&self.settings);
            Arc::new(Session::new(host.clone(), settings, self.traffic.clone()))
        });
        Arc::clone(session)
    }
}
