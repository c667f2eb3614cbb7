//! Downloads: parallel, resumed, retried, hashed while they stream.
//!
//! ```text
//! Download (URLs, expected digest and size, destination)
//!    └─ for each URL ─ attempts ─┬─ http(s): request ─ chunks ─┐
//!                                └─ file: read ────────────────┴─ sink (hash + write, own thread)
//! ```
//!
//! Nothing is reported as fetched before its size and digest have been checked; what does not match
//! is removed from the destination. Dropping a future ends its transfer. No message holds
//! credentials: addresses are shown through [`shown`].

mod credentials;
mod download;
mod downloader;
mod error;
mod http;
mod local;
mod retry;
mod sink;
#[cfg(test)]
pub(crate) mod testing;

pub use credentials::Credentials;
pub use download::{Download, DownloadObserver, Downloaded, Headers, Settings, Silent};
pub use downloader::Downloader;
pub use error::FetchError;

use url::Url;

/// An address as messages may show it: without user name, password, query and fragment, any of
/// which may be secret.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests;
