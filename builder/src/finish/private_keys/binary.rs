//! Keys in binary files: DER, keystores, Dropbear.

use memchr::memmem;

use super::{PrivateKey, openpgp};

/// DER of the object identifiers keyBag and pkcs8ShroudedKeyBag (RFC 7292, section 4.2), without
/// the last number.
const KEY_BAGS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01";
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

pub fn detect(content: &[u8]) -> Option<PrivateKey> {
    match *content.first()? {
        SEQUENCE => der(content),
        0xfe | 0xce => java_key_store(content).then_some(PrivateKey::JavaKeyStore),
        0 => dropbear(content).then_some(PrivateKey::Dropbear),
        // Old and new packet formats of tag 5, secret key.
        0x94..=0x97 | 0xc5 => {
            openpgp::starts_with_secret_key(content).then_some(PrivateKey::OpenPgp)
        }
        _ => None,
    }
}

/// One DER element: tag, content, and what follows it.
fn element(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = data.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let length = rest[..count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (length, &rest[count..])
    };
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// The elements of a sequence. `None` when its content is no row of whole elements.
fn elements(mut data: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let (tag, content, rest) = element(data)?;
        found.push((tag, content));
        data = rest;
    }
    Some(found)
}

/// Whether `data` is one DER sequence of whole elements and nothing behind it.
pub fn is_one_sequence(data: &[u8]) -> bool {
    matches!(element(data), Some((SEQUENCE, content, [])) if elements(content).is_some())
}

fn der(content: &[u8]) -> Option<PrivateKey> {
    if is_pkcs12_with_key(content) {
        return Some(PrivateKey::Pkcs12);
    }
    let (_, inside, rest) = element(content)?;
    if !rest.is_empty() {
        return None;
    }
    let parts = elements(inside)?;
    let tags: Vec<u8> = parts.iter().map(|(tag, _)| *tag).collect();
    let version = parts.first().filter(|(tag, _)| *tag == INTEGER).map(|(_, value)| *value);
    let is_key = match (tags.as_slice(), version) {
        // PKCS#8: version 0 or 1, algorithm, key.
        ([INTEGER, SEQUENCE, OCTETS, ..], Some([0 | 1])) => names_algorithm(parts[1].1),
        // PKCS#1: version, modulus and the seven other numbers of an RSA key.
        ([INTEGER, rest @ ..], Some([0])) if rest.len() >= 8 => {
            rest[..8].iter().all(|tag| *tag == INTEGER) && parts[1].1.len() >= 64
        }
        // SEC 1: version 1, key, curve.
        ([INTEGER, OCTETS, 0xa0, ..], Some([1])) => parts[1].1.len() >= 16,
        // Encrypted PKCS#8: algorithm, noise.
        ([SEQUENCE, OCTETS], None) => is_password_encryption(parts[0].1),
        _ => false,
    };
    is_key.then_some(PrivateKey::Der)
}

fn names_algorithm(sequence: &[u8]) -> bool {
    matches!(element(sequence), Some((IDENTIFIER, _, _)))
}

/// Whether an algorithm is one of PKCS#5's or PKCS#12's password encryptions.
fn is_password_encryption(sequence: &[u8]) -> bool {
    const PKCS5: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05";
    const PKCS12: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01";
    matches!(element(sequence), Some((IDENTIFIER, name, _))
        if name.starts_with(PKCS5) || name.starts_with(PKCS12))
}

/// Whether a PKCS#12 store shows a key. Stores that hold certificates alone (Java's `cacerts`) have
/// no key bag; keys are commonly shrouded one by one, in a bag that is readable.
fn is_pkcs12_with_key(content: &[u8]) -> bool {
    // PFX: version 3, then the authenticated safe. Its length may be indefinite (BER).
    let start = &content[..content.len().min(16)];
    memmem::find(start, b"\x02\x01\x03\x30").is_some()
        && memmem::find_iter(content, KEY_BAGS)
            .any(|at| matches!(content.get(at + KEY_BAGS.len()), Some(1 | 2)))
}

/// Reads big-endian numbers and strings off the front of a file.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A string with its length, in 32 bits, in front.
    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }
}

/// Whether a JKS or JCEKS store holds a private or secret key.
fn java_key_store(content: &[u8]) -> bool {
    let mut reader = Reader(content);
    has_key_entry(&mut reader).unwrap_or(false)
}

fn has_key_entry(reader: &mut Reader<'_>) -> Option<bool> {
    const JKS: u32 = 0xfeed_feed;
    const JCEKS: u32 = 0xcece_cece;
    const CERTIFICATE: u32 = 2;
    if !matches!(reader.u32()?, JKS | JCEKS) {
        return Some(false);
    }
    let version = reader.u32()?;
    if !matches!(version, 1 | 2) {
        return Some(false);
    }
    for _ in 0..reader.u32()? {
        if reader.u32()? != CERTIFICATE {
            return Some(true);
        }
        let alias = reader.u16()?;
        reader.take(usize::from(alias))?;
        reader.take(8)?;
        if version == 2 {
            let kind = reader.u16()?;
            reader.take(usize::from(kind))?;
        }
        reader.string()?;
    }
    Some(false)
}

/// Whether a file is a row of SSH strings with more numbers than a public key has.
fn dropbear(content: &[u8]) -> bool {
    let mut reader = Reader(content);
    let Some(name) = reader.string() else { return false };
    let mut strings = Vec::new();
    while let Some(string) = reader.string() {
        strings.push(string.len());
    }
    if !reader.0.is_empty() {
        return false;
    }
    match name {
        b"ssh-rsa" => strings.len() > 2,
        b"ssh-dss" => strings.len() > 4,
        b"ssh-ed25519" => strings.first() == Some(&64),
        _ => name.starts_with(b"ecdsa-sha2-nistp") && strings.len() > 2,
    }
}
