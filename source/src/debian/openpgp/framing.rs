//! From bytes to signed text and packets: the clearsign framework and ASCII armor.
//!
//! Stricter than gpg where leniency would let unsigned bytes pass for signed ones: the message must
//! start at the first byte, and only blanks may follow it.

use std::io::Read as _;

use pgp::armor::Dearmor;

use super::SignatureError;

const MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const SIGNATURE_END: &str = "-----END PGP SIGNATURE-----";

/// The parts of a clearsigned message.
pub(super) struct Clearsigned<'a> {
    /// The signed text with a line feed after every line.
    pub text: String,
    /// What the signature is over: the same lines, joined by CR LF (RFC 9580, section 7.2).
    pub hashed: String,
    /// The armored signatures.
    pub signature_block: &'a [u8],
}

fn malformed(reason: &'static str) -> SignatureError {
    SignatureError::Malformed { reason }
}

/// Cuts the first line off; blanks at its end, which are never significant, are removed.
fn next_line<'a>(rest: &mut &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return None;
    }
    let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
    *rest = after;
    Some(line.trim_end_matches([' ', '\t', '\r']))
}

pub(super) fn split_clearsigned(message: &[u8]) -> Result<Clearsigned<'_>, SignatureError> {
    let mut rest =
        std::str::from_utf8(message).map_err(|_| malformed("the message is not UTF-8"))?;
    if next_line(&mut rest) != Some(MESSAGE) {
        return Err(malformed("it does not start with a clearsigned message"));
    }
    loop {
        match next_line(&mut rest) {
            Some("") => break,
            // Which hash counts is what the signature itself says.
            Some(line) if line.starts_with("Hash:") => {}
            Some(_) => return Err(malformed("unexpected header before the signed text")),
            None => return Err(malformed("the message ends within its headers")),
        }
    }
    let (mut text, mut hashed) = (String::with_capacity(rest.len()), String::new());
    hashed.reserve(rest.len() + rest.len() / 32);
    let signature_block = loop {
        let block = rest;
        let line = next_line(&mut rest).ok_or(malformed("the message has no signature"))?;
        if line == SIGNATURE {
            break block;
        }
        let line = match line.strip_prefix('-') {
            Some(escaped) => {
                escaped.strip_prefix(' ').ok_or(malformed("a line with `-` is not escaped"))?
            }
            None => line,
        };
        if !text.is_empty() {
            hashed.push_str("\r\n");
        }
        hashed.push_str(line);
        text.push_str(line);
        text.push('\n');
    };
    let length = armor_length(signature_block)?;
    if !signature_block[length..].trim().is_empty() {
        return Err(malformed("there is text after the signature"));
    }
    Ok(Clearsigned { text, hashed, signature_block: &signature_block.as_bytes()[..length] })
}

/// The length of the armored block at the start of `text`.
fn armor_length(text: &str) -> Result<usize, SignatureError> {
    let mut rest = text;
    while let Some(line) = next_line(&mut rest) {
        if line == SIGNATURE_END {
            return Ok(text.len() - rest.len());
        }
    }
    Err(malformed("the signature block has no end"))
}

/// Decodes one armored block. The checksum is not verified: RFC 9580 makes it meaningless.
pub(super) fn dearmor(block: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let mut packets = Vec::new();
    Dearmor::new(block)
        .read_to_end(&mut packets)
        .map_err(|_| malformed("the armor cannot be decoded"))?;
    Ok(packets)
}

/// The packets of binary data, or of every armored block of `kind` in a text.
pub(super) fn packet_blocks(bytes: &[u8], kind: &str) -> Result<Vec<Vec<u8>>, SignatureError> {
    // Every binary packet starts with the top bit set; armor is ASCII.
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return Ok(vec![bytes.to_vec()]);
    }
    let text = String::from_utf8_lossy(bytes);
    let (begin, end) = (format!("-----BEGIN PGP {kind}-----"), format!("-----END PGP {kind}-----"));
    let mut blocks = Vec::new();
    let mut rest = &*text;
    while let Some(start) = rest.find(&begin) {
        let stop = rest[start..].find(&end).ok_or(malformed("an armored block has no end"))?;
        let stop = start + stop + end.len();
        blocks.push(dearmor(&rest.as_bytes()[start..stop])?);
        rest = &rest[stop..];
    }
    if blocks.is_empty() {
        return Err(malformed("it holds no OpenPGP data"));
    }
    Ok(blocks)
}
