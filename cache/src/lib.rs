//! Shared builds: registries as binary caches.
//!
//! ```text
//! reference ──> Location ──┬── registry   OCI Distribution over HTTP: auth, retries, resumption
//!                          └── folder     an OCI image layout on disk
//!                                 both are a `Repository`: blobs by digest, manifests by tag
//!
//! Realisation + Derivation ──attestation──> in-toto statement ──dsse──> Envelope ──bundle──> blob
//!                                                                          │
//!           Realisation <──agreement── Verified <──attestation, trust──────┘
//! ```
//!
//! Nothing that comes from a repository is believed before its digest has been checked, and what it
//! says of builds not before trusted keys have signed it. What is below the second arrow is a
//! function of values: no network, no clock.

pub mod agreement;
pub mod attachment;
pub mod attestation;
pub mod binary_cache;
pub mod bundle;
pub mod cosign;
pub mod credentials;
pub mod descriptor;
pub mod dsse;
pub mod error;
pub mod folder;
pub mod key;
pub mod provenance;
pub mod push;
pub mod reference;
pub mod registry;
pub mod repository;
pub mod small_blobs;
pub mod statement;
pub mod stream;
pub mod traffic;
pub mod trust;

mod referrers;
