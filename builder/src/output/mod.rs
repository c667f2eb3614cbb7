//! Where an image goes: one tarball, an OCI layout, a container engine.
//!
//! All three hold the same blobs under the same digests. The tarball is an OCI layout and a
//! `docker save` archive at once: `index.json` and `manifest.json` both point into `blobs/sha256/`.

mod archive;
mod error;
mod layout;
mod load;
mod name;
mod tarball;
#[cfg(test)]
mod testing;

use std::path::PathBuf;

use drystone_store::digest::BlobDigest;

pub use archive::{write_archive, write_archive_file};
pub use error::OutputError;
pub use layout::write_layout;
pub use load::{Engine, EngineKind, LoadOutcome, load};
pub use name::ImageName;

use crate::image::ImageSet;

/// Says in which local file a layer's blob is; only asked for layers of the image.
pub type BlobPath<'a> = dyn Fn(&BlobDigest) -> PathBuf + 'a;

/// An image, its name and where its layers are: what every output needs.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// The images of all platforms.
    pub set: &'a ImageSet,
    /// What the image is called where it arrives.
    pub name: &'a ImageName,
    /// Where the layers' blobs are.
    pub blob_path: &'a BlobPath<'a>,
}
