//! The hash by which a lockfile pins a file, whichever of the usual algorithms it uses.

use std::fmt;
use std::io::{self, Read};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use sha2::digest::DynDigest;

/// A hash algorithm of lockfiles, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name as lockfiles write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn hasher(self) -> Box<dyn DynDigest + Send> {
        match self {
            Self::Sha256 => Box::new(sha2::Sha256::default()),
            Self::Sha512 => Box::new(sha2::Sha512::default()),
        }
    }
}

/// Why a text is no usable hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    /// It is not written as a hash.
    #[error("{0:?} is no hash")]
    Malformed(String),
    /// Its algorithm proves nothing any more.
    #[error("{0:?} is a hash of a broken kind; only sha256 and sha512 count")]
    Weak(String),
}

/// The hash that a file must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Integrity {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl Integrity {
    /// Reads hexadecimal digits.
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Result<Self, IntegrityError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        Self::new(algorithm, bytes.ok(), text)
    }

    /// Reads the form of W3C's Subresource Integrity, `sha512-BASE64`; of several, separated by
    /// spaces, the strongest counts.
    pub fn from_sri(text: &str) -> Result<Self, IntegrityError> {
        let mut best: Option<Self> = None;
        for word in text.split_whitespace() {
            let (name, rest) = word.split_once('-').unwrap_or_default();
            let Some(algorithm) =
                [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|it| it.as_str() == name)
            else {
                continue;
            };
            let digits = rest.split('?').next().unwrap_or_default();
            let integrity = Self::new(algorithm, BASE64.decode(digits.as_bytes()).ok(), word)?;
            if best.as_ref().is_none_or(|best| best.algorithm < algorithm) {
                best = Some(integrity);
            }
        }
        best.ok_or_else(|| match text.contains('-') {
            true => IntegrityError::Weak(text.to_owned()),
            false => IntegrityError::Malformed(text.to_owned()),
        })
    }

    fn new(
        algorithm: Algorithm,
        bytes: Option<Vec<u8>>,
        text: &str,
    ) -> Result<Self, IntegrityError> {
        let bytes = bytes.filter(|bytes| bytes.len() == algorithm.length());
        let bytes = bytes.ok_or_else(|| IntegrityError::Malformed(text.to_owned()))?;
        Ok(Self { algorithm, bytes })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash in lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.bytes)
    }

    /// The hash as `ALGORITHM-BASE64`.
    pub fn to_sri(&self) -> String {
        format!("{}-{}", self.algorithm.as_str(), BASE64.encode(&self.bytes))
    }

    /// The hash that the bytes of a reader have, by the same algorithm.
    pub fn of_reader(&self, reader: &mut dyn Read) -> io::Result<Self> {
        Hashing::new(reader, self.algorithm).finish()
    }
}

/// Hashes what is read through it.
pub(super) struct Hashing<'a> {
    inner: &'a mut dyn Read,
    algorithm: Algorithm,
    hasher: Box<dyn DynDigest + Send>,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(inner: &'a mut dyn Read, algorithm: Algorithm) -> Self {
        Self { inner, algorithm, hasher: algorithm.hasher() }
    }

    /// Reads what is left, and gives the hash of all of it.
    pub(super) fn finish(mut self) -> io::Result<Integrity> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Integrity { algorithm: self.algorithm, bytes: self.hasher.finalize().into_vec() })
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// `ALGORITHM:HEX`, as all digests are written here.
impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 examples: the hash of "abc".
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn both_forms_mean_the_same_hash() {
        let hex = Integrity::from_hex(Algorithm::Sha256, SHA256).unwrap();
        assert_eq!(Integrity::from_sri(&hex.to_sri()).unwrap(), hex);
        assert_eq!(hex.to_string(), format!("sha256:{SHA256}"));
        assert_eq!(hex.of_reader(&mut &b"abc"[..]).unwrap(), hex);
        assert_ne!(hex.of_reader(&mut &b"abd"[..]).unwrap(), hex);
    }

    #[test]
    fn the_strongest_of_several_counts() {
        let short = Integrity::from_hex(Algorithm::Sha256, SHA256).unwrap();
        let long = Integrity::from_hex(Algorithm::Sha512, &"ab".repeat(64)).unwrap();
        let text =
            format!("sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0= {} {}", short.to_sri(), long.to_sri());
        assert_eq!(Integrity::from_sri(&text).unwrap(), long);
    }

    #[test]
    fn broken_kinds_and_broken_texts_are_refused() {
        let weak = Integrity::from_sri("sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
        assert!(matches!(weak, Err(IntegrityError::Weak(_))), "{weak:?}");
        for text in ["", "nothing", "sha512-abc", "sha256-"] {
            assert!(Integrity::from_sri(text).is_err(), "{text}");
        }
        assert!(Integrity::from_hex(Algorithm::Sha256, &SHA256[1..]).is_err());
        assert!(Integrity::from_hex(Algorithm::Sha512, SHA256).is_err());
    }
}
