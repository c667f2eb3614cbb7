//! Small blobs of an image in one blob, so that one request brings all of them: most listings, and
//! the trees of control files, are a few kilobytes, and a registry answers some hundred requests a
//! second.
//!
//! Format (`docs/formats/binary-cache.md`): the line `{"drystone-blobs":1}`, then each blob behind its
//! length, 4 bytes with the least significant first, in the order of their digests. Digests are not
//! written: the reader computes them, so a blob is never under another one's name.

use std::collections::BTreeMap;

use bytes::Bytes;
use drystone_store::digest::BlobDigest;

const HEADER: &[u8] = b"{\"drystone-blobs\":1}\n";
/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.drystone.blobs.v1";
/// The largest blob that is small, in bytes.
pub const MOST: u64 = 32 << 10;
/// The most bytes that all of them have together, lengths included.
pub const MAX_ALL: u64 = 32 << 20;

/// Why bytes are no small blobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmallBlobsError {
    /// They do not begin as format 1 does.
    #[error("not small blobs of format 1")]
    Header,
    /// A blob is not there to its end, or has a size that small blobs never have.
    #[error("the blob at byte {0} is cut off, empty or too large")]
    Length(usize),
}

/// Blobs by their digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmallBlobs(BTreeMap<BlobDigest, Bytes>);

impl SmallBlobs {
    /// Adds a blob; one that is empty or not small is left out.
    pub fn insert(&mut self, bytes: Bytes) {
        if (1..=MOST).contains(&(bytes.len() as u64)) {
            self.0.insert(BlobDigest::of(&bytes), bytes);
        }
    }

    /// The blob of a digest.
    pub fn get(&self, digest: &BlobDigest) -> Option<&Bytes> {
        self.0.get(digest)
    }

    /// All of them, in the order of their digests.
    pub fn iter(&self) -> impl Iterator<Item = (&BlobDigest, &Bytes)> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all; what has no room is left out.
    pub fn encode(&self) -> Bytes {
        let mut all = HEADER.to_vec();
        for blob in self.0.values() {
            if (all.len() + size_of::<u32>() + blob.len()) as u64 <= MAX_ALL {
                // Small blobs have small lengths.
                all.extend((blob.len() as u32).to_le_bytes());
                all.extend_from_slice(blob);
            }
        }
        all.into()
    }

    /// Reads the bytes of all.
    ///
    /// # Errors
    /// Bytes of another format.
    pub fn decode(bytes: &Bytes) -> Result<Self, SmallBlobsError> {
        if !bytes.starts_with(HEADER) {
            return Err(SmallBlobsError::Header);
        }
        let mut blobs = Self::default();
        let mut at = HEADER.len();
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (length, rest) = rest.split_first_chunk().ok_or(SmallBlobsError::Length(at))?;
            let length = u32::from_le_bytes(*length);
            if !(1..=MOST).contains(&u64::from(length)) || rest.len() < length as usize {
                return Err(SmallBlobsError::Length(at));
            }
            let start = at + size_of::<u32>();
            at = start + length as usize;
            blobs.insert(bytes.slice(start..at));
        }
        Ok(blobs)
    }
}

impl Extend<Bytes> for SmallBlobs {
    fn extend<T: IntoIterator<Item = Bytes>>(&mut self, blobs: T) {
        blobs.into_iter().for_each(|blob| self.insert(blob));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(blobs: &[&'static [u8]]) -> SmallBlobs {
        let mut all = SmallBlobs::default();
        all.extend(blobs.iter().map(|blob| Bytes::from_static(blob)));
        all
    }

    #[test]
    fn the_format_is_frozen() {
        // SHA-256 of "one" begins with 76, that of "two!" with a9.
        let golden = b"{\"drystone-blobs\":1}\n\x03\0\0\0one\x04\0\0\0two!";
        let written = of(&[b"one", b"two!", b"", b"one"]).encode();
        assert_eq!(written, golden.as_slice());
        assert_eq!(SmallBlobs::default().encode(), HEADER);
    }

    #[test]
    fn what_is_cut_off_or_too_large_is_refused() {
        let decode = |bytes: &[u8]| SmallBlobs::decode(&Bytes::copy_from_slice(bytes));
        let whole = of(&[b"one"]).encode();
        for length in 0..whole.len() {
            let expected = match length {
                0..21 => Err(SmallBlobsError::Header),
                21 => Ok(SmallBlobs::default()),
                _ => Err(SmallBlobsError::Length(21)),
            };
            assert_eq!(decode(&whole[..length]), expected, "{length}");
        }
        let with = |length: u32| [HEADER, &length.to_le_bytes(), &[1; 40_000]].concat();
        for length in [0, MOST as u32 + 1, u32::MAX] {
            assert_eq!(decode(&with(length)), Err(SmallBlobsError::Length(21)), "{length}");
        }
    }

    #[test]
    fn there_is_a_most_of_all() {
        let mut all = SmallBlobs::default();
        let blob = |number: u32| {
            let mut bytes = vec![0; MOST as usize];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Bytes::from(bytes)
        };
        all.extend((0..1100).map(blob));
        let bytes = all.encode();
        assert!(bytes.len() as u64 <= MAX_ALL, "{}", bytes.len());
        assert_eq!(SmallBlobs::decode(&bytes).unwrap().iter().count(), 1023);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20)
        ) {
            let mut all = SmallBlobs::default();
            all.extend(blobs.into_iter().map(Bytes::from));
            prop_assert_eq!(SmallBlobs::decode(&all.encode()).unwrap(), all);
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SmallBlobs::decode(&[HEADER, &bytes].concat().into());
            let _ = SmallBlobs::decode(&bytes.into());
        }
    }
}
