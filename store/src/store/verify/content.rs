//! Blobs against their names, and layers against their trees: one pass over each file.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::Digest as _;

use super::Problem;
use crate::digest::{BlobDigest, DiffId, FileHash, TreeHash};
use crate::layer::{Compression, Layer};
use crate::listing::Listing;
use crate::path::StorePath;
use crate::realisation::{ListingRef, Output};
use crate::store::read_ahead::read_ahead;
use crate::store::{Store, StoreError};
use crate::tar::{ReadError, TreeReader};
use crate::tree::Kind;
use crate::with_causes;

/// What a blob is for a tree.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    Layer(&'a Output, &'a Layer),
    Listing(&'a Output),
}

impl Role<'_> {
    const fn path(&self) -> &StorePath {
        match self {
            Self::Layer(output, _) | Self::Listing(output) => &output.path,
        }
    }
}

/// What a canonical tar is, told from its bytes alone.
pub struct Examined {
    /// The tree's hash.
    pub hash: TreeHash,
    /// SHA-256 of the tar.
    pub diff_id: DiffId,
    /// The tar's size in bytes.
    pub size: u64,
    /// What is in it.
    pub listing: Listing,
}

/// Hashes all that is read through it.
struct Hashing<R> {
    inner: R,
    sha256: sha2::Sha256,
    blake3: blake3::Hasher,
    length: u64,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, sha256: sha2::Sha256::new(), blake3: blake3::Hasher::new(), length: 0 }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..count]);
        self.blake3.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

/// Hashes a blob's bytes while they are read, and counts them for whoever watches.
struct BlobReader<'a> {
    file: File,
    sha256: sha2::Sha256,
    progress: &'a AtomicU64,
    /// The first failure to read the file itself, apart from what decoders make of it.
    failure: Option<io::Error>,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Ok(count) => {
                self.sha256.update(&buffer[..count]);
                self.progress.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::from(error.kind());
                self.failure.get_or_insert(error);
                Err(copy)
            }
        }
    }
}

/// How much is hashed at once, in bytes: BLAKE3 is several times as fast where it has many of its
/// chunks of 1 KiB before it.
const AT_ONCE: usize = 128 << 10;

/// From this size on, in bytes, a tar is decompressed on a thread of its own.
const WORTH_A_THREAD: u64 = 2 << 20;

/// Reads a canonical tar to its end.
fn examine(stream: impl Read) -> Result<Examined, ReadError> {
    let mut reader = TreeReader::new(BufReader::with_capacity(AT_ONCE, Hashing::new(stream)));
    let mut listing = Listing::default();
    let mut buffer = vec![0; AT_ONCE];
    while let Some(entry) = reader.next_entry()? {
        let hash = match entry.kind {
            Kind::File { .. } => {
                let mut hasher = blake3::Hasher::new();
                let mut content = reader.content();
                loop {
                    match content.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => {
                            hasher.update(&buffer[..count]);
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Some(FileHash::from_bytes(*hasher.finalize().as_bytes()))
            }
            _ => None,
        };
        listing.push(entry, hash);
    }
    let hashing = reader.finish()?.into_inner();
    Ok(Examined {
        hash: TreeHash::from_bytes(*hashing.blake3.finalize().as_bytes()),
        diff_id: DiffId::from_bytes(hashing.sha256.finalize().into()),
        size: hashing.length,
        listing,
    })
}

/// Reads a layer's blob as the tree that it holds.
///
/// # Errors
/// What is no layer of that compression, or no canonical tar.
pub fn examine_layer(
    stream: impl Read + Send,
    compression: Compression,
) -> Result<Examined, ReadError> {
    examine(compression.decompress(stream)?)
}

/// As [`examine_layer`], on two threads where that is worth one: to decompress takes as long as to
/// hash. What would be more than `most` bytes as a tar is no such layer.
pub(in super::super) fn examine_layer_beside(
    stream: impl Read + Send,
    compression: Compression,
    most: u64,
) -> Result<Examined, ReadError> {
    let stream = compression.decompress(stream)?.take(most);
    match most < WORTH_A_THREAD {
        true => examine(stream),
        false => read_ahead(stream, |stream| examine(stream)),
    }
}

/// Checks one blob's file: its bytes against its name and, for what it is to trees, against their
/// records.
pub(super) fn check_blob(
    store: &Store,
    digest: &BlobDigest,
    length: u64,
    roles: &[Role<'_>],
    progress: &AtomicU64,
) -> Vec<Problem> {
    let trees = || roles.iter().map(|role| role.path().clone()).collect();
    let unreadable = |error: &dyn std::error::Error| {
        let message = with_causes(error);
        vec![Problem::UnreadableBlob { digest: *digest, message, trees: trees() }]
    };
    let file = match store.open_blob(digest) {
        Ok(Some(file)) => file,
        // It was there a moment ago; whoever needs it finds it missing.
        Ok(None) => return Vec::new(),
        Err(error) => return unreadable(&error),
    };
    let sha256 = sha2::Sha256::new();
    let mut reader = BlobReader { file, sha256, progress, failure: None };
    let compression = roles.iter().find_map(|role| match role {
        Role::Layer(_, layer) => Some(layer.compression),
        Role::Listing(_) => None,
    });
    let examined = compression.map(|compression| examine_layer(&mut reader, compression));
    // A decoder may stop before the end of the file.
    let rest = io::copy(&mut reader, &mut io::sink());
    if let Some(error) = reader.failure.or(rest.err()) {
        return unreadable(&error);
    }
    let actual = BlobDigest::from_bytes(reader.sha256.finalize().into());
    if actual != *digest {
        return vec![Problem::DamagedBlob { digest: *digest, actual, trees: trees() }];
    }
    let mut problems = Vec::new();
    for role in roles {
        match role {
            Role::Layer(output, layer) => match &examined {
                Some(examined) if Some(layer.compression) == compression => {
                    problems.extend(check_layer(output, layer, length, examined));
                }
                // Two compressions cannot give the same bytes: one of the records is wrong.
                _ => problems.push(Problem::WrongLayer {
                    tree: output.path.clone(),
                    compression: layer.compression,
                    digest: *digest,
                    actual: "the layer of another compression".into(),
                }),
            },
            Role::Listing(output) => {
                problems.extend(wrong(output, "size of the listing", length, output.listing.size))
            }
        }
    }
    problems
}

fn check_layer(
    output: &Output,
    layer: &Layer,
    length: u64,
    examined: &Result<Examined, ReadError>,
) -> Vec<Problem> {
    let wrong_layer = |actual: String| Problem::WrongLayer {
        tree: output.path.clone(),
        compression: layer.compression,
        digest: layer.digest,
        actual,
    };
    let examined = match examined {
        Ok(examined) if examined.hash == *output.path.hash() => examined,
        Ok(other) => return vec![wrong_layer(other.hash.to_string())],
        Err(error) => return vec![wrong_layer(with_causes(error))],
    };
    let listing = match encode_listing(&examined.listing) {
        Ok((_, listing)) => listing.digest.to_string(),
        Err(error) => error.to_string(),
    };
    [
        wrong(output, "diff id", examined.diff_id, output.diff_id),
        wrong(output, "size", examined.size, output.size),
        wrong(output, "listing", listing, output.listing.digest),
        wrong(output, "size of the layer", length, layer.size),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A listing's bytes, and what they are called.
pub(in crate::store) fn encode_listing(
    listing: &Listing,
) -> Result<(Vec<u8>, ListingRef), StoreError> {
    let bytes = listing.encode().map_err(StoreError::io("encode", "a listing"))?;
    let reference = ListingRef { digest: BlobDigest::of(&bytes), size: bytes.len() as u64 };
    Ok((bytes, reference))
}

fn wrong(
    output: &Output,
    field: &'static str,
    expected: impl ToString,
    actual: impl ToString,
) -> Option<Problem> {
    let (expected, actual) = (expected.to_string(), actual.to_string());
    let tree = output.path.clone();
    (expected != actual).then_some(Problem::WrongRecord { tree, field, expected, actual })
}
