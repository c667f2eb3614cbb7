//! Shared builds: registries as binary caches.
//!
//! ```text
//! reference ──> Location ──┬── registry   OCI Distribution over HTTP: auth, retries, resumption
//!                          └── folder     an OCI image layout on disk
//!                                 both are a `Repository`: blobs by digest, manifests by tag
//! ```
//!
//! Nothing that comes from a repository is believed before its digest has been checked.

pub mod credentials;
pub mod descriptor;
pub mod error;
pub mod folder;
pub mod push;
pub mod reference;
pub mod registry;
pub mod repository;
pub mod stream;
pub mod traffic;

mod referrers;
