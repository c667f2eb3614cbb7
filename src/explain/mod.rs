//! Answers to "why": from locks, listings and images, never from the network.
//!
//! ```text
//! lock + control files of the store -> packages  (who needs whom)      -> tree, why
//! lock, tarball or OCI layout       -> content   (packages, files, layers)
//! content x content                 -> difference                      -> diff
//! ```

pub mod content;
pub mod difference;
pub mod locked;
pub mod oci;
pub mod packages;
