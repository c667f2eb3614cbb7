//! Trees: how they enter the store, and how they are read back.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use super::{BlobWriter, Store, StoreError, now};
use crate::digest::{BlobDigest, DiffId, FileHash, Sha256Writer, TreeHash};
use crate::layer::{Compression, Layer, LayerWriter};
use crate::listing::Listing;
use crate::path::StorePath;
use crate::realisation::{ListingRef, Output};
use crate::tar::{TreeReader, TreeWriter, WriteError};
use crate::tree::{Entry, EntrySink, Kind, TreeSpool};

/// The largest tree that is decompressed at once, in bytes: a stream's buffers cost more than the
/// control files of a package.
const AT_ONCE: u64 = 1 << 20;

/// Decompresses a zstd file of `size` bytes.
fn decompress_at_once(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: io::Result<RefCell<zstd::bulk::Decompressor<'static>>> =
            zstd::bulk::Decompressor::new().map(RefCell::new);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    DECOMPRESSOR.with(|decompressor| match decompressor {
        Ok(it) => it.borrow_mut().decompress(&bytes, size as usize),
        Err(error) => Err(error.kind().into()),
    })
}

/// Everything that a canonical tar is turned into while it streams by, once.
struct Tee<'a> {
    blake3: blake3::Hasher,
    layer: LayerWriter<BlobWriter<'a>>,
    kept: Option<File>,
    length: u64,
}

impl Write for Tee<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.blake3.update(buffer);
        self.layer.write_all(buffer)?;
        if let Some(kept) = &mut self.kept {
            kept.write_all(buffer)?;
        }
        self.length += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tree on its way into the store: entries come in canonical order.
pub struct TreeIngest<'a> {
    store: &'a Store,
    name: String,
    compression: Compression,
    writer: TreeWriter<Sha256Writer<Tee<'a>>>,
    listing: Listing,
}

struct HashingReader<'a> {
    inner: &'a mut dyn Read,
    hasher: blake3::Hasher,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl EntrySink for TreeIngest<'_> {
    fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), WriteError> {
        let mut reader = HashingReader { inner: content, hasher: blake3::Hasher::new() };
        self.writer.append(entry, &mut reader)?;
        let is_file = matches!(entry.kind, Kind::File { .. });
        let hash = is_file.then(|| FileHash::from_bytes(*reader.hasher.finalize().as_bytes()));
        self.listing.push(entry.clone(), hash);
        Ok(())
    }
}

impl TreeIngest<'_> {
    /// Ends the tree and records it.
    pub fn finish(self) -> Result<Output, StoreError> {
        self.finish_kept().map(|(output, _)| output)
    }

    /// Ends the tree and records it; the canonical tar, rewound, if it was to be kept.
    pub fn finish_kept(self) -> Result<(Output, Option<File>), StoreError> {
        let (tee, diff_id) = self.writer.finish()?.finish();
        let diff_id = DiffId::from_bytes(diff_id);
        let hash = TreeHash::from_bytes(*tee.blake3.finalize().as_bytes());
        let path = StorePath::new(hash, &self.name);
        let blob = tee.layer.finish().map_err(StoreError::io("write the layer of", self.name))?;
        let (digest, size) = blob.finish()?;
        let listing = self.listing.encode().map_err(StoreError::io("list", path.name()))?;
        let listing =
            ListingRef { digest: self.store.add_blob(&listing)?, size: listing.len() as u64 };
        let layer = Layer { compression: self.compression, digest, size, diff_id };
        let output = Output {
            path,
            diff_id,
            size: tee.length,
            layers: vec![layer],
            listing,
            references: Vec::new(),
        };
        self.store.database.put_output(&output, now())?;
        let mut kept = tee.kept;
        if let Some(file) = &mut kept {
            file.rewind().map_err(StoreError::io("rewind", "the kept tree"))?;
        }
        Ok((output, kept))
    }
}

impl Store {
    /// Starts a tree that enters the store; `name` is for people. With `keep` the uncompressed
    /// stream is kept in an unnamed file as well, for a checkout that follows at once.
    pub fn ingest(
        &self,
        name: &str,
        compression: Compression,
        keep: bool,
    ) -> Result<TreeIngest<'_>, StoreError> {
        let directory = self.temporary_directory();
        let kept = match keep {
            true => Some(
                tempfile::tempfile_in(directory)
                    .map_err(StoreError::io("create a file in", directory))?,
            ),
            false => None,
        };
        let layer = LayerWriter::new(compression, self.blob_writer()?);
        let tee = Tee { blake3: blake3::Hasher::new(), layer, kept, length: 0 };
        Ok(TreeIngest {
            store: self,
            name: name.to_owned(),
            compression,
            writer: TreeWriter::new(Sha256Writer::new(tee)),
            listing: Listing::default(),
        })
    }

    /// Stores a collected tree.
    pub fn add_tree(
        &self,
        name: &str,
        compression: Compression,
        spool: &mut TreeSpool,
    ) -> Result<Output, StoreError> {
        let mut ingest = self.ingest(name, compression, false)?;
        spool.write(&mut ingest)?;
        ingest.finish()
    }

    /// Starts to collect a tree.
    pub fn spool(&self) -> TreeSpool {
        TreeSpool::new(self.temporary_directory())
    }

    /// What is known about a tree.
    pub fn output(&self, tree: &TreeHash) -> Result<Option<Output>, StoreError> {
        self.database.output(tree)
    }

    /// A tree's listing; `None` when its blob is neither present nor in a cache.
    pub fn listing(&self, output: &Output) -> Result<Option<Listing>, StoreError> {
        self.fetch_listings(&[output])?;
        let Some(bytes) = self.read_blob(&output.listing.digest)? else { return Ok(None) };
        let tree = *output.path.hash();
        Listing::decode(&bytes).map(Some).map_err(|source| StoreError::Listing { tree, source })
    }

    /// A blob's bytes, checked against its digest; `None` when it is not present.
    pub fn read_blob(&self, digest: &BlobDigest) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut file) = self.open_blob(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(StoreError::io("read", self.blob_path(digest)))?;
        let actual = BlobDigest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::Mismatch {
                what: self.blob_path(digest).display().to_string(),
                expected: digest.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(Some(bytes))
    }

    /// The uncompressed stream of a tree, from whichever layer is present.
    pub fn open_tree(&self, output: &Output) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        for layer in &output.layers {
            if let Some(file) = self.open_blob(&layer.digest)? {
                return self.decompress(layer, output.size, file).map(Some);
            }
        }
        let Some(layer) = self.fetch_missing(output)? else { return Ok(None) };
        let file = self.open_blob(&layer.digest)?.ok_or(StoreError::NoBlob(layer.digest))?;
        self.decompress(&layer, output.size, file).map(Some)
    }

    /// The stream of a tree of `size` bytes, from a layer's file.
    fn decompress(
        &self,
        layer: &Layer,
        size: u64,
        mut file: File,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let error = |source| StoreError::io("read", self.blob_path(&layer.digest))(source);
        if layer.compression != Compression::Gzip1
            && size <= AT_ONCE
            && let Ok(bytes) = decompress_at_once(&mut file, size)
        {
            return Ok(Box::new(io::Cursor::new(bytes)));
        }
        // What is damaged is told where it is read.
        file.rewind().map_err(error)?;
        layer.compression.decompress(file).map_err(error)
    }

    /// Reads every entry of a tree with its content.
    pub fn read_tree<E: From<StoreError>>(
        &self,
        output: &Output,
        mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let tree = *output.path.hash();
        let stream = self.open_tree(output)?.ok_or(StoreError::NoTree(tree))?;
        let mut reader = TreeReader::new(stream);
        let error = |source| StoreError::Read { tree, source };
        while let Some(entry) = reader.next_entry().map_err(error)? {
            visit(&entry, &mut reader.content())?;
        }
        Ok(())
    }

    /// The layer of a tree with this compression, made from the tree when there is none. It may
    /// be one that a cache has: [`Store::fetch_blobs`] brings it here.
    pub fn layer(&self, output: &Output, compression: Compression) -> Result<Layer, StoreError> {
        let known = output.layer(compression);
        let is_there = |l: &&Layer| self.has_blob(&l.digest) || self.is_remote(&l.digest);
        if let Some(layer) = known.filter(is_there) {
            return Ok(layer.clone());
        }
        let tree = *output.path.hash();
        let mut stream = self.open_tree(output)?.ok_or(StoreError::NoTree(tree))?;
        let mut writer = LayerWriter::new(compression, self.blob_writer()?);
        let error = StoreError::io("compress", output.path.name());
        io::copy(&mut stream, &mut writer).map_err(error)?;
        let blob = writer.finish().map_err(StoreError::io("compress", output.path.name()))?;
        let (digest, size) = blob.finish()?;
        let layer = Layer { compression, digest, size, diff_id: output.diff_id };
        let output = Output { layers: vec![layer.clone()], ..output.clone() };
        self.database.put_output(&output, now())?;
        Ok(layer)
    }

    /// Where a tree is checked out, or would be.
    pub fn checkout_path(&self, path: &StorePath) -> PathBuf {
        self.root().join("trees").join(path.hash().to_string())
    }
}
