//! A small image with real layers, for the tests of all outputs.

use std::io::Write;
use std::path::PathBuf;

use drystone_store::digest::{BlobDigest, DiffId, Sha256Writer};

use crate::image::{Compression, Image, ImageConfig, ImageSet, LayerRef};

/// A directory with the blobs of a few layers, by hexadecimal digest.
pub(super) struct Blobs {
    pub directory: tempfile::TempDir,
}

impl Blobs {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.directory.path().join(digest.to_hex())
    }

    /// A layer with one file of this content, which gzip cannot shrink much if it is random.
    pub(super) fn layer(&self, path: &str, content: &[u8]) -> LayerRef {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(315_532_800);
        builder.append_data(&mut header, path, content).unwrap();
        let tar = builder.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let blob = gzip.finish().unwrap();
        let digest = BlobDigest::of(&blob);
        std::fs::write(self.path(&digest), &blob).unwrap();
        let mut hasher = Sha256Writer::new(std::io::sink());
        hasher.write_all(&tar).unwrap();
        LayerRef {
            digest,
            size: blob.len() as u64,
            diff_id: DiffId::from_bytes(hasher.finish().1),
            uncompressed_size: Some(tar.len() as u64),
            media_type: Compression::Gzip1.media_type(),
            title: path.to_owned(),
        }
    }
}

/// Bytes that look random and are always the same.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Images of these layers for each platform.
pub(super) fn image_set(platforms: &[&str], layers: &[LayerRef]) -> ImageSet {
    let image = |platform: &&str| {
        let mut config = ImageConfig::new(platform.parse().unwrap(), 1_686_384_000);
        config.command = Some(vec!["/hello".into()]);
        Image::assemble(&config, &std::collections::BTreeMap::new(), layers.to_vec()).unwrap()
    };
    ImageSet::new(platforms.iter().map(image).collect()).unwrap()
}
