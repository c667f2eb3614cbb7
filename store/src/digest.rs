//! Digests: one type for each kind of thing that is named by a hash, so that they cannot be mixed.
//!
//! BLAKE3 names what Drystone itself looks up (trees, files, derivations); SHA-256 names what the
//! OCI specifications look up (blobs and diff_ids). Base32 is RFC 4648's alphabet in lower case
//! without padding: 52 characters for 256 bits, legal in file names, tags and host names.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A digest that could not be read from its text form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: expected {expected}")]
pub struct ParseDigestError {
    kind: &'static str,
    expected: &'static str,
    text: String,
}

fn base32_encode(bytes: &[u8; 32]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn base32_decode(text: &str) -> Option<[u8; 32]> {
    if text.len() != 52 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?;
    bytes.try_into().ok()
}

fn hex_decode(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn sha256_decode(text: &str) -> Option<[u8; 32]> {
    hex_decode(text.strip_prefix("sha256:")?)
}

fn sha256_encode(bytes: &[u8; 32]) -> String {
    format!("sha256:{}", HEXLOWER.encode(bytes))
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $encode:path, $decode:path) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the 32 bytes of a digest that was computed or checked elsewhere.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The digest in lower-case hexadecimal, without an algorithm prefix.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $decode(text).map(Self).ok_or_else(|| ParseDigestError {
                    kind: $kind,
                    expected: $expected,
                    text: text.chars().take(100).collect(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type!(
    /// BLAKE3 of a canonical tar: the identity of a tree, and the hash part of a store path.
    TreeHash, "tree hash", "52 lower-case base32 characters", base32_encode, base32_decode
);
digest_type!(
    /// BLAKE3 of one file's content, as listings record it.
    FileHash, "file hash", "52 lower-case base32 characters", base32_encode, base32_decode
);
digest_type!(
    /// BLAKE3 of a derivation's canonical JSON: what caches are asked for.
    DerivationId, "derivation id", "52 lower-case base32 characters", base32_encode, base32_decode
);
digest_type!(
    /// SHA-256 of a blob as stored and transferred (OCI `digest`): a compressed layer, a listing,
    /// a config, a manifest, a downloaded archive.
    BlobDigest, "blob digest", "sha256:<64 hex digits>", sha256_encode, sha256_decode
);
digest_type!(
    /// SHA-256 of an uncompressed canonical tar (OCI `diff_id`).
    DiffId, "diff id", "sha256:<64 hex digits>", sha256_encode, sha256_decode
);

impl FileHash {
    /// Hashes one file's content.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl DerivationId {
    /// Hashes a derivation's canonical JSON.
    pub fn of(json: &[u8]) -> Self {
        Self(*blake3::hash(json).as_bytes())
    }

    /// Reads an id from 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex_decode(text).map(Self)
    }
}

impl BlobDigest {
    /// Hashes a blob that is in memory.
    pub fn of(content: &[u8]) -> Self {
        Self(sha2::Sha256::digest(content).into())
    }

    /// Reads a digest from 64 hexadecimal digits, as Debian's indexes write it.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex_decode(text).map(Self)
    }

    /// Hashes everything that `reader` gives; returns the digest and the number of bytes.
    pub fn of_reader(reader: &mut dyn Read) -> io::Result<(Self, u64)> {
        let (size, digest) = Sha256Reader::new(reader).finish()?;
        Ok((Self(digest), size))
    }
}

/// Passes bytes on and hashes them with SHA-256 on the way.
pub struct Sha256Writer<W> {
    inner: W,
    hasher: sha2::Sha256,
    written: u64,
}

impl<W: Write> Sha256Writer<W> {
    /// Starts a hash over what will be written to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), written: 0 }
    }

    /// The number of bytes written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The hash of what was written so far.
    pub fn digest(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }

    /// Where it writes to.
    pub const fn inner(&self) -> &W {
        &self.inner
    }

    /// Ends the hash: the inner writer, and the 32 bytes of SHA-256.
    pub fn finish(self) -> (W, [u8; 32]) {
        (self.inner, self.hasher.finalize().into())
    }
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes with SHA-256 what is read through it.
pub struct Sha256Reader<R> {
    inner: R,
    hasher: sha2::Sha256,
    read: u64,
}

impl<R: Read> Sha256Reader<R> {
    /// Starts a hash over what will be read from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), read: 0 }
    }

    /// Reads what is left; the number of bytes in all, and their hash.
    pub fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.read, self.hasher.finalize().into()))
    }
}

impl<R: Read> Read for Sha256Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip_and_reject_other_forms() {
        let tree = TreeHash::from_bytes([7; 32]);
        assert_eq!(tree.to_string().len(), 52);
        assert_eq!(tree.to_string().parse(), Ok(tree));
        assert!(tree.to_string().to_uppercase().parse::<TreeHash>().is_err());
        let blob = BlobDigest::of(b"abc");
        assert_eq!(
            blob.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(blob.to_string().parse(), Ok(blob));
        assert!(blob.to_hex().parse::<BlobDigest>().is_err(), "the prefix is required");
        assert_eq!(BlobDigest::from_hex(&blob.to_hex()), Some(blob));
    }
}
