//! Pushing an image: only what the target lacks, and nothing that would refer to what is not there.
//!
//! ```text
//! layers and configs, side by side: exists | mounted | pushed ──> manifests ──> the tagged one
//! ```

use std::sync::Arc;

use drystone_store::digest::BlobDigest;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::descriptor::Manifest;
use crate::error::RegistryError;
use crate::reference::{Tag, Target};
use crate::repository::{Repository, Stored, Upload};

/// Blobs that are asked after or under way at once; a registry's transfers are bounded below that.
pub const PARALLEL: usize = 16;

/// An image as it is pushed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Layers and configs, each once.
    pub blobs: Vec<Piece>,
    /// The manifests that the top one refers to.
    pub manifests: Vec<Manifest>,
    /// The manifest or index that the tag will name.
    pub top: Manifest,
}

/// A blob of an image.
#[derive(Debug, Clone)]
pub struct Piece {
    /// What people call it.
    pub title: String,
    /// The blob.
    pub upload: Upload,
    /// Whether the target was seen to have it.
    pub is_there: bool,
}

/// What became of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// What people call it.
    pub title: String,
    /// The blob.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
    /// How it came to be there.
    pub stored: Stored,
}

/// Pushes an image under a tag, and tells of each blob when it is there.
///
/// # Errors
/// The first failure; then the tag is what it was before.
pub async fn push(
    image: &Image,
    to: &Arc<dyn Repository>,
    tag: &Tag,
    tell: &(dyn Fn(&Arrived) + Send + Sync),
) -> Result<Vec<Arrived>, RegistryError> {
    let send = |piece: &Piece| {
        let (piece, to) = (piece.clone(), Arc::clone(to));
        async move {
            let stored = match piece.is_there {
                true => Stored::Existed,
                false => to.put_blob(&piece.upload).await?,
            };
            let Upload { digest, size, .. } = piece.upload;
            let arrived = Arrived { title: piece.title, digest, size, stored };
            tell(&arrived);
            Ok::<_, RegistryError>(arrived)
        }
    };
    let sent: Vec<_> = image.blobs.iter().map(send).collect();
    let arrived = futures_util::stream::iter(sent).buffered(PARALLEL).try_collect().await?;
    for manifest in &image.manifests {
        to.put_manifest(manifest, &[]).await?;
    }
    to.put_manifest(&image.top, std::slice::from_ref(tag)).await?;
    Ok(arrived)
}

/// Reads everything back that a push wrote, and hashes it.
///
/// # Errors
/// What is not there, or is something else.
pub async fn verify(
    image: &Image,
    from: &Arc<dyn Repository>,
    tag: &Tag,
) -> Result<(), RegistryError> {
    let place = |what: &dyn std::fmt::Display| format!("{what} in {}", from.location());
    let tagged = (Target::Tag(tag.clone()), &image.top);
    let others = image.manifests.iter().map(|manifest| (manifest.digest.into(), manifest));
    for (target, expected) in std::iter::once(tagged).chain(others) {
        let found = from.manifest(&target).await?;
        let found = found.ok_or_else(|| RegistryError::Missing { place: place(&target) })?;
        if found.digest != expected.digest {
            return Err(RegistryError::Mismatch {
                place: place(&target),
                expected: expected.digest,
                actual: found.digest,
            });
        }
    }
    let read = |piece: &Piece| {
        let (digest, size, from) = (piece.upload.digest, piece.upload.size, Arc::clone(from));
        let place = place(&digest);
        async move {
            let blob = from.blob(&digest, size).await?;
            let mut blob = blob.ok_or(RegistryError::Missing { place })?;
            while let Some(piece) = blob.next().await {
                piece?;
            }
            Ok::<_, RegistryError>(())
        }
    };
    let all: Vec<_> = image.blobs.iter().map(read).collect();
    futures_util::stream::iter(all).buffered(PARALLEL).try_collect().await
}
