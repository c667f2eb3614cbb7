//! Shared builds: keys and whom they make trusted, signed attestations of what builds gave, and
//! what is attached to images: provenance and signatures.
//!
//! ```text
//! Realisation + Derivation ──attestation──> in-toto statement ──dsse──> Envelope ──bundle──> blob
//!                                                                          │
//!           Realisation <──agreement── Verified <──attestation, trust──────┘
//! ```
//!
//! Everything here is a function of values: no network, no clock. Only keys touch files.

pub mod agreement;
pub mod attestation;
pub mod bundle;
pub mod cosign;
pub mod dsse;
pub mod key;
pub mod provenance;
pub mod statement;
pub mod trust;
