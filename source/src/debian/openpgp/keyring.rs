//! Trusted certificates: read from key files, found by what a signature names as its issuer.

use std::sync::LazyLock;

use pgp::packet::{Packet, PacketParser, Signature};

use super::SignatureError;
use super::certificate::{Certificate, Component};
use super::framing::packet_blocks;

/// Debian's archive keys; `keys/README.md` says where they come from.
static DEBIAN: &[u8] = include_bytes!("../keys/debian-archive.gpg");

/// A key file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file is neither a binary nor an armored key file.
    #[error("cannot read the key file")]
    Malformed {
        /// What is wrong with it.
        source: Box<SignatureError>,
    },
    /// The file holds no usable public key.
    #[error("the key file holds no usable public key")]
    Empty,
}

/// A set of certificates whose signatures are accepted.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    certificates: Vec<Certificate>,
}

impl Keyring {
    /// Reads a key file: binary or armored, with one or more certificates.
    ///
    /// Certifications by others are kept out; packets that are not understood are passed over, as
    /// one key of a new kind must not make the others of its file useless.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] when the file cannot be decoded or holds no certificate.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        let blocks = packet_blocks(bytes, "PUBLIC KEY BLOCK")
            .map_err(|source| KeyringError::Malformed { source: Box::new(source) })?;
        let mut certificates: Vec<Certificate> = Vec::new();
        for block in &blocks {
            read_certificates(block, &mut certificates);
        }
        if certificates.is_empty() { Err(KeyringError::Empty) } else { Ok(Self { certificates }) }
    }

    /// Debian's own archive keys, which are part of this program.
    pub fn debian() -> &'static Self {
        static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
            Keyring::from_bytes(DEBIAN).expect("the embedded keys are read by a test")
        });
        &KEYRING
    }

    /// Adds all certificates of `other`.
    pub fn extend(&mut self, other: Self) {
        self.certificates.extend(other.certificates);
    }

    /// Fingerprints of the primary keys, upper-case hexadecimal, in the order of the key files.
    pub fn fingerprints(&self) -> Vec<String> {
        let primary = |certificate: &Certificate| certificate.fingerprint(Component::Primary);
        self.certificates.iter().map(primary).collect()
    }

    /// Keeps only certificates of which a key or subkey has one of `fingerprints`, as
    /// `Signed-By` may demand; spaces, case and a final `!` in these do not matter.
    #[must_use]
    pub fn restricted_to(&self, fingerprints: &[String]) -> Self {
        let clean = |text: &String| text.replace([' ', '!'], "").to_uppercase();
        let wanted: Vec<String> = fingerprints.iter().map(clean).collect();
        let matches = |certificate: &&Certificate| {
            certificate.components().any(|part| wanted.contains(&certificate.fingerprint(part)))
        };
        Self { certificates: self.certificates.iter().filter(matches).cloned().collect() }
    }

    /// The keys that a signature claims as its issuer; several when key files overlap.
    pub(super) fn find(
        &self,
        signature: &Signature,
    ) -> impl Iterator<Item = (&Certificate, Component)> {
        self.certificates.iter().filter_map(|certificate| {
            let mut components = certificate.components();
            let component = components.find(|part| certificate.is_issuer(*part, signature))?;
            Some((certificate, component))
        })
    }
}

fn read_certificates(packets: &[u8], certificates: &mut Vec<Certificate>) {
    let mut current: Option<Certificate> = None;
    for packet in PacketParser::new(packets).flatten() {
        if let Packet::PublicKey(key) = packet {
            certificates.extend(current.replace(Certificate::new(key)));
            continue;
        }
        let Some(certificate) = &mut current else { continue };
        match packet {
            Packet::UserId(id) => certificate.add_user(id),
            Packet::PublicSubkey(key) => certificate.add_subkey(key),
            Packet::Signature(signature) => certificate.add_signature(signature),
            _ => {}
        }
    }
    certificates.extend(current);
}
