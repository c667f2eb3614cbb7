//! Bundles: all attestations of an image in one blob, so that one request asks for all of them.
//!
//! Format (`docs/formats/attestation.md`): a zstd-1 stream of lines. The first is
//! `{"drystone-bundle":1}`; each other one is an envelope's canonical JSON. A bundle is not signed
//! itself: every envelope in it is judged alone.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};

use drystone_store::digest::DerivationId;
use drystone_store::layer::{Compression, LayerWriter};

use crate::attestation::claimed_derivation;
use crate::dsse::{Envelope, EnvelopeError};

const HEADER: &str = r#"{"drystone-bundle":1}"#;
/// The media type of bundles.
pub const MEDIA_TYPE: &str = "application/vnd.drystone.bundle.v1+zstd";
/// The largest bundle that is read, uncompressed.
pub const MAX_BUNDLE: u64 = 128 << 20;
/// The most envelopes that one bundle may hold.
pub const MAX_ENVELOPES: usize = 20_000;

/// Why bytes are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The compressed stream is damaged.
    #[error("the bundle cannot be decompressed")]
    Compression(#[source] io::Error),
    /// It is larger than bundles may be.
    #[error("the bundle has more than {MAX_BUNDLE} bytes")]
    TooLarge,
    /// It is no bundle of a version that this program knows.
    #[error("not a bundle of format 1")]
    Header,
    /// It holds more envelopes than bundles may.
    #[error("the bundle has more than {MAX_ENVELOPES} envelopes")]
    TooMany,
    /// A line is no envelope.
    #[error("line {line} of the bundle is no envelope")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: EnvelopeError,
    },
}

/// Envelopes by the derivation that they claim to be about. Nobody has vouched for any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    envelopes: BTreeMap<Option<DerivationId>, Vec<Envelope>>,
}

impl Bundle {
    /// Adds an envelope; signatures over a payload that is there already join it.
    pub fn insert(&mut self, envelope: Envelope) -> Result<(), EnvelopeError> {
        let same = self.envelopes.entry(claimed_derivation(&envelope)).or_default();
        let known = same.iter_mut().find(|known| {
            known.payload() == envelope.payload() && known.payload_type() == envelope.payload_type()
        });
        match known {
            Some(known) => known.merge(&envelope),
            None => {
                let at = same.partition_point(|known| known.payload() < envelope.payload());
                same.insert(at, envelope);
                Ok(())
            }
        }
    }

    /// All envelopes, in the order in which they are written.
    pub fn envelopes(&self) -> impl Iterator<Item = &Envelope> {
        self.envelopes.values().flatten()
    }

    /// The envelopes that claim to be about a derivation.
    pub fn of(&self, derivation: &DerivationId) -> &[Envelope] {
        self.envelopes.get(&Some(*derivation)).map_or(&[], Vec::as_slice)
    }

    /// The derivations that the envelopes claim to be about.
    pub fn derivations(&self) -> impl Iterator<Item = &DerivationId> {
        self.envelopes.keys().flatten()
    }

    /// The bundle's bytes; the same envelopes give the same bytes, in whatever order they came.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut writer = LayerWriter::new(Compression::Zstd1, Vec::new());
        writeln!(writer, "{HEADER}")?;
        for envelope in self.envelopes() {
            writeln!(writer, "{}", envelope.to_json())?;
        }
        writer.finish()
    }

    /// Reads a bundle's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        let mut text = Vec::new();
        Compression::Zstd1
            .decompress(bytes)
            .and_then(|reader| reader.take(MAX_BUNDLE + 1).read_to_end(&mut text))
            .map_err(BundleError::Compression)?;
        if text.len() as u64 > MAX_BUNDLE {
            return Err(BundleError::TooLarge);
        }
        let text = text.strip_suffix(b"\n").ok_or(BundleError::Header)?;
        let mut lines = text.split(|byte| *byte == b'\n');
        if lines.next() != Some(HEADER.as_bytes()) {
            return Err(BundleError::Header);
        }
        let mut bundle = Self::default();
        for (index, line) in lines.enumerate() {
            if index == MAX_ENVELOPES {
                return Err(BundleError::TooMany);
            }
            let wrong = |source| BundleError::Line { line: index + 2, source };
            bundle.insert(Envelope::parse(line).map_err(wrong)?).map_err(wrong)?;
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::samples;
    use crate::key::SecretKey;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed("test", &[seed; 32]).unwrap()
    }

    #[test]
    fn the_order_of_envelopes_shapes_nothing() {
        let mut other = samples::attestation();
        other.derivation.v += 1;
        other.realisation.derivation = other.derivation.id();
        let envelopes = [
            samples::attestation().sign(&key(1)).unwrap(),
            samples::attestation().sign(&key(2)).unwrap(),
            other.sign(&key(1)).unwrap(),
        ];
        let bundle = |order: [usize; 3]| {
            let mut bundle = Bundle::default();
            order.iter().for_each(|at| bundle.insert(envelopes[*at].clone()).unwrap());
            bundle
        };
        let bytes = bundle([0, 1, 2]).encode().unwrap();
        assert_eq!(bundle([2, 1, 0]).encode().unwrap(), bytes);
        let read = Bundle::decode(&bytes).unwrap();
        assert_eq!(read, bundle([1, 0, 2]));
        let id = samples::attestation().derivation.id();
        assert_eq!(read.of(&id).len(), 1, "two signatures over one payload are one envelope");
        assert_eq!(read.of(&id)[0].signatures().len(), 2);
        assert_eq!(read.derivations().count(), 2);
    }

    #[test]
    fn damaged_bundles_are_refused() {
        let text = |text: &[u8]| {
            let mut writer = LayerWriter::new(Compression::Zstd1, Vec::new());
            writer.write_all(text).unwrap();
            Bundle::decode(&writer.finish().unwrap()).unwrap_err()
        };
        assert!(matches!(Bundle::decode(b"zstd"), Err(BundleError::Compression(_))));
        assert!(matches!(text(b""), BundleError::Header));
        assert!(matches!(text(b"{\"drystone-bundle\":2}\n"), BundleError::Header));
        assert!(matches!(text(b"{\"drystone-bundle\":1}\n\n"), BundleError::Line { line: 2, .. }));
        let empty = Bundle::default().encode().unwrap();
        assert_eq!(Bundle::decode(&empty).unwrap(), Bundle::default());
        let cut = Bundle::decode(&empty[..empty.len() - 3]);
        assert!(matches!(cut, Err(BundleError::Compression(_))));
    }

    #[test]
    fn a_bomb_is_not_unpacked_whole() {
        let mut writer = LayerWriter::new(Compression::Zstd1, Vec::new());
        let zeros = vec![b' '; 4 << 20];
        for _ in 0..=(MAX_BUNDLE >> 22) {
            writer.write_all(&zeros).unwrap();
        }
        let bomb = writer.finish().unwrap();
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        assert!(matches!(Bundle::decode(&bomb), Err(BundleError::TooLarge)));
    }
}
