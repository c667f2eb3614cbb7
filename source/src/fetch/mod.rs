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
pub use drystone_http::shown;
pub use error::FetchError;

#[cfg(test)]
mod tests;
