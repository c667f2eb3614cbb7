//! Secret keys of OpenPGP: RFC 9580, sections 4.2 (packets), 5.5 (keys) and 3.2 (numbers).
//!
//! Binary data has no magic number, and a few fixed bytes would take one file of noise in some
//! thousands for a key. So the public half, which is never encrypted, is read whole.

use super::binary::Reader;

/// Whether data starts with a whole secret key packet of version 4 to 6.
pub fn starts_with_secret_key(data: &[u8]) -> bool {
    let mut reader = Reader(data);
    let is_key = packet(&mut reader).is_some_and(|body| is_secret_key(body).unwrap_or(false));
    // Behind it is nothing or a packet: the user's name, a signature, a subkey.
    is_key && reader.0.first().is_none_or(|next| next & 0x80 != 0)
}

/// The body of a secret key packet.
fn packet<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    const SECRET_KEY: u8 = 5;
    let first = reader.u8()?;
    let (tag, length) = match first >> 6 {
        0b11 => {
            let length = match reader.u8()? {
                short @ 0..=191 => u32::from(short),
                high @ 192..=223 => ((u32::from(high) - 192) << 8) + u32::from(reader.u8()?) + 192,
                255 => reader.u32()?,
                // Only data may come in parts.
                224..=254 => return None,
            };
            (first & 0x3f, length)
        }
        0b10 => {
            let length = match first & 3 {
                0 => u32::from(reader.u8()?),
                1 => u32::from(reader.u16()?),
                2 => reader.u32()?,
                // The rest of the file.
                _ => u32::try_from(reader.0.len()).ok()?,
            };
            (first >> 2 & 0x0f, length)
        }
        _ => return None,
    };
    let body = reader.take(usize::try_from(length).ok()?)?;
    (tag == SECRET_KEY).then_some(body)
}

/// Whether a packet's body is the public half of a key and then a secret one, encrypted or not.
fn is_secret_key(body: &[u8]) -> Option<bool> {
    let mut reader = Reader(body);
    let version = reader.u8()?;
    let _created = reader.u32()?;
    let algorithm = reader.u8()?;
    match version {
        4 => {}
        // The octets of the public half.
        5 | 6 => _ = reader.u32()?,
        _ => return Some(false),
    }
    match algorithm {
        // RSA: modulus, exponent.
        1..=3 => numbers(&mut reader, 2)?,
        // Elgamal and DSA.
        16 | 20 => numbers(&mut reader, 3)?,
        17 => numbers(&mut reader, 4)?,
        // ECDH, ECDSA and EdDSA: the curve's identifier, a point; ECDH says how keys are wrapped.
        18 | 19 | 22 => {
            let length = reader.u8()?;
            reader.take(usize::from(length))?;
            numbers(&mut reader, 1)?;
            if algorithm == 18 {
                let length = reader.u8()?;
                reader.take(usize::from(length))?;
            }
        }
        // X25519, X448, Ed25519, Ed448: points of one size.
        25 | 27 => _ = reader.take(32)?,
        26 => _ = reader.take(56)?,
        28 => _ = reader.take(57)?,
        _ => return Some(false),
    }
    // How the secret half is protected: not, by a cipher of that number, or as 253 to 255 say.
    let is_protection = matches!(reader.u8()?, 0..=13 | 253..=255);
    Some(is_protection && !reader.0.is_empty())
}

/// Reads numbers, each with its exact length in bits in front.
fn numbers(reader: &mut Reader<'_>, count: usize) -> Option<()> {
    for _ in 0..count {
        let bits = u32::from(reader.u16()?);
        let bytes = reader.take(usize::try_from(bits.div_ceil(8)).ok()?)?;
        let top = bytes.first()?;
        (8 - top.leading_zeros() == (bits - 1) % 8 + 1).then_some(())?;
    }
    Some(())
}
