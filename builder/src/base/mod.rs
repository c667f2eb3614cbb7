//! Base images: what `from` names, read and checked, its layers left where they are.
//!
//! ```text
//! from, digest (image.toml or lock) ── index ── manifest of the platform ── config
//!                                                  └── layers: digest, size, diff_id; no bytes
//! ```
//!
//! Documents are kept in the store as blobs, by their digests, so a base that was read once is
//! known without network. Layers come only when bytes are needed: see [`BaseImages::fetch_layer`].

mod document;
mod error;

use std::io::{self, Write};

use drystone_store::digest::{BlobDigest, DiffId};
use drystone_store::store::Store;
use serde_json::{Map, Value};

use document::{MOST_CONFIG_BYTES, MOST_MANIFEST_BYTES, Reference, Top};
pub use error::{BaseError, SourceError};

use crate::spec::{ImageReference, MOST_LAYERS, Platform};

/// Where base images come from: registries.
///
/// What is missing is `None` or `false`. Bytes need not be checked: callers do that.
pub trait BaseSource: Sync {
    /// The manifest or index that a digest names, else the reference's tag.
    fn manifest(
        &self,
        of: &ImageReference,
        digest: Option<&BlobDigest>,
    ) -> Result<Option<Vec<u8>>, SourceError>;

    /// Copies a blob of the image's repository.
    fn blob(
        &self,
        of: &ImageReference,
        digest: &BlobDigest,
        size: u64,
        writer: &mut dyn Write,
    ) -> Result<bool, SourceError>;
}

/// A base image on one platform.
#[derive(Debug, Clone)]
pub struct Base {
    /// The reference as image.toml has it.
    pub from: ImageReference,
    /// The manifest of the platform.
    pub manifest: BlobDigest,
    /// Its configuration, as it was written.
    pub config: Map<String, Value>,
    /// Its layers, lowest first.
    pub layers: Vec<BaseLayer>,
    /// Its documents, which are blobs of the store.
    pub documents: Vec<BlobDigest>,
}

/// A layer of a base image; its bytes may be anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseLayer {
    /// SHA-256 of the blob.
    pub digest: BlobDigest,
    /// Bytes of the blob.
    pub size: u64,
    /// SHA-256 of the uncompressed blob, as the configuration has it.
    pub diff_id: DiffId,
    /// The blob's type in OCI's words.
    pub media_type: &'static str,
}

impl Base {
    /// When it was made, in seconds since 1970, if it says so.
    pub fn created(&self) -> Option<i64> {
        let text = self.config.get("created")?.as_str()?;
        text.parse::<jiff::Timestamp>().ok().map(|time| time.as_second())
    }

    /// Whether it holds instructions for images that stand on it, which only docker's builder knows.
    pub fn has_triggers(&self) -> bool {
        let triggers = self.config.get("config").and_then(|config| config.get("OnBuild"));
        triggers.and_then(Value::as_array).is_some_and(|triggers| !triggers.is_empty())
    }
}

/// Base images, as the store knows them and as registries have them.
#[derive(Clone, Copy)]
pub struct BaseImages<'a> {
    /// The store.
    pub store: &'a Store,
    /// Registries; `None` when the network may not be used.
    pub source: Option<&'a dyn BaseSource>,
}

impl BaseImages<'_> {
    /// What a tag names now.
    pub fn pin(&self, from: &ImageReference) -> Result<BlobDigest, BaseError> {
        let what = "the manifest";
        let bytes = self.manifest(from, None, what)?;
        document::top(&bytes).map_err(|reason| malformed(from, what, reason))?;
        Ok(self.store.add_blob(&bytes)?)
    }

    /// Reads a base image for a platform: its documents, and none of its layers.
    pub fn open(
        &self,
        from: &ImageReference,
        digest: &BlobDigest,
        platform: Platform,
    ) -> Result<Base, BaseError> {
        let mut documents = vec![*digest];
        let bytes = self.document(from, digest, "the manifest")?;
        let mut top = read(from, &bytes)?;
        let mut manifest = *digest;
        if let Top::Index(manifests) = &top {
            let chosen = document::choose(manifests, platform).map_err(|found| {
                let platform = platform.to_string();
                BaseError::Platform { from: from.to_string(), platform, found }
            })?;
            manifest = chosen.digest;
            documents.push(manifest);
            top = read(from, &self.document(from, &manifest, "the manifest of a platform")?)?;
        }
        let Top::Manifest(found) = top else {
            return Err(unsuitable(from, "its index leads to another index".to_owned()));
        };
        if let Some(reason) = found.refusal() {
            return Err(unsuitable(from, reason));
        }
        documents.push(found.config.digest);
        let bytes = self.config(from, &found.config)?;
        let config = document::configuration(&bytes)
            .map_err(|reason| malformed(from, "the configuration", reason))?;
        if let Some(other) = config.other_platform(platform) {
            let (from, platform) = (from.to_string(), platform.to_string());
            return Err(BaseError::Platform { from, platform, found: vec![other] });
        }
        let layers = layers(from, &found.layers, &config.diff_ids)?;
        Ok(Base { from: from.clone(), manifest, config: config.document, layers, documents })
    }

    /// Brings a layer's bytes into the store, where they are a blob.
    pub fn fetch_layer(&self, base: &Base, layer: &BaseLayer) -> Result<(), BaseError> {
        // A binary cache may be nearer.
        if self.store.fetch_blob(&layer.digest, layer.size)? {
            return Ok(());
        }
        let what = format!("layer {}", layer.digest);
        let mut writer = self.store.blob_writer()?;
        self.blob(&base.from, (&layer.digest, layer.size), &what, &mut writer)?;
        writer.finish_as(&layer.digest)?;
        Ok(())
    }

    fn source(&self, from: &ImageReference, what: &str) -> Result<&dyn BaseSource, BaseError> {
        let (from, what) = (from.to_string(), what.to_owned());
        self.source.ok_or(BaseError::Offline { from, what })
    }

    fn manifest(
        &self,
        from: &ImageReference,
        digest: Option<&BlobDigest>,
        what: &str,
    ) -> Result<Vec<u8>, BaseError> {
        let answer = self.source(from, what)?.manifest(from, digest);
        let (text, what) = (from.to_string(), what.to_owned());
        match answer {
            Ok(Some(bytes)) if bytes.len() as u64 > MOST_MANIFEST_BYTES => {
                Err(malformed(from, &what, "it is too large".to_owned()))
            }
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(BaseError::Missing { from: text, what }),
            Err(source) => Err(BaseError::Source { from: text, what, source }),
        }
    }

    /// A manifest whose digest is known: from the store, else from the registry.
    fn document(
        &self,
        from: &ImageReference,
        digest: &BlobDigest,
        what: &str,
    ) -> Result<Vec<u8>, BaseError> {
        if let Some(bytes) = self.store.read_blob(digest)? {
            return Ok(bytes);
        }
        let bytes = self.manifest(from, Some(digest), what)?;
        self.keep(from, what, digest, &bytes)?;
        Ok(bytes)
    }

    fn config(&self, from: &ImageReference, of: &Reference) -> Result<Vec<u8>, BaseError> {
        let what = "the configuration";
        if let Some(bytes) = self.store.read_blob(&of.digest)? {
            return Ok(bytes);
        }
        if of.size > MOST_CONFIG_BYTES {
            return Err(malformed(from, what, format!("it has {} bytes", of.size)));
        }
        let mut bytes = Vec::new();
        self.blob(from, (&of.digest, of.size), what, &mut bytes)?;
        self.keep(from, what, &of.digest, &bytes)?;
        Ok(bytes)
    }

    fn keep(
        &self,
        from: &ImageReference,
        what: &str,
        digest: &BlobDigest,
        bytes: &[u8],
    ) -> Result<(), BaseError> {
        let actual = BlobDigest::of(bytes);
        if actual != *digest {
            let (from, what) = (from.to_string(), what.to_owned());
            return Err(BaseError::mismatch(from, what, (*digest, actual)));
        }
        self.store.add_blob(bytes)?;
        Ok(())
    }

    fn blob(
        &self,
        from: &ImageReference,
        (digest, size): (&BlobDigest, u64),
        what: &str,
        writer: &mut dyn Write,
    ) -> Result<(), BaseError> {
        let mut bounded = Bounded { writer, left: size };
        let answer = self.source(from, what)?.blob(from, digest, size, &mut bounded);
        let (from, what) = (from.to_string(), what.to_owned());
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(BaseError::Missing { from, what }),
            Err(source) => Err(BaseError::Source { from, what, source }),
        }
    }
}

/// Takes no more than was announced, whatever a source gives.
struct Bounded<'a> {
    writer: &'a mut dyn Write,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more came than was announced"));
        }
        let count = self.writer.write(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn read(from: &ImageReference, bytes: &[u8]) -> Result<Top, BaseError> {
    document::top(bytes).map_err(|reason| malformed(from, "the manifest", reason))
}

fn malformed(from: &ImageReference, what: &str, reason: String) -> BaseError {
    BaseError::Malformed { from: from.to_string(), what: what.to_owned(), reason }
}

fn unsuitable(from: &ImageReference, reason: String) -> BaseError {
    BaseError::Unsuitable { from: from.to_string(), reason }
}

/// Layers of manifest and configuration, which must be as many.
fn layers(
    from: &ImageReference,
    layers: &[Reference],
    diff_ids: &[DiffId],
) -> Result<Vec<BaseLayer>, BaseError> {
    if layers.len() != diff_ids.len() {
        let reason =
            format!("it names {} layers, and the manifest {}", diff_ids.len(), layers.len());
        return Err(malformed(from, "the configuration", reason));
    }
    if layers.len() > MOST_LAYERS as usize {
        let reason = format!("it has {} layers, and an image at most {MOST_LAYERS}", layers.len());
        return Err(unsuitable(from, reason));
    }
    let pairs = layers.iter().zip(diff_ids);
    let layer = |(layer, diff_id): (&Reference, &DiffId)| {
        let media_type = document::layer_media_type(&layer.media_type)
            .map_err(|reason| unsuitable(from, reason))?;
        Ok(BaseLayer { digest: layer.digest, size: layer.size, diff_id: *diff_id, media_type })
    };
    pairs.map(layer).collect()
}
