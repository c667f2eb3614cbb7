//! Keys in text: PEM blocks anywhere in a file, also inside JSON, YAML and environment files.

use data_encoding::BASE64;
use memchr::memmem;

use super::{PrivateKey, binary, openpgp};

/// The longest body that is decoded; an RSA key of 16384 bits needs 12,800 characters.
const BODY_LIMIT: usize = 64 * 1024;
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";

pub fn detect(content: &[u8]) -> Option<PrivateKey> {
    if content.starts_with(b"PuTTY-User-Key-File-")
        && memmem::find(content, b"\nPrivate-Lines:").is_some()
    {
        return Some(PrivateKey::Putty);
    }
    if [&b"Key: (private-key"[..], b"(11:private-key", b"(21:protected-private-key"]
        .iter()
        .any(|start| content.starts_with(start) || is_named_key(content, start))
    {
        return Some(PrivateKey::GnuPgAgent);
    }
    memmem::find_iter(content, b"-----BEGIN ").find_map(|at| block(&content[at + 11..]))
}

/// GnuPG 2.2.12 and newer write name-value lines with the key among them.
fn is_named_key(content: &[u8], start: &[u8]) -> bool {
    content.starts_with(b"Created: ")
        && start.starts_with(b"Key: ")
        && memmem::find(content, start).is_some()
}

/// One PEM block, from behind `-----BEGIN `.
fn block(rest: &[u8]) -> Option<PrivateKey> {
    let label_end = memmem::find(&rest[..rest.len().min(64)], b"-----")?;
    let label = std::str::from_utf8(&rest[..label_end]).ok()?;
    let is_pgp = label == "PGP PRIVATE KEY BLOCK";
    if !is_pgp && label != "PRIVATE KEY" && !label.ends_with(" PRIVATE KEY") {
        return None;
    }
    let rest = &rest[label_end + 5..];
    let rest = &rest[..rest.len().min(BODY_LIMIT)];
    let end = memmem::find(rest, format!("-----END {label}-----").as_bytes())?;
    let (body, encrypted) = body(&rest[..end], is_pgp)?;
    match label {
        "PGP PRIVATE KEY BLOCK" => {
            openpgp::starts_with_secret_key(&body).then_some(PrivateKey::OpenPgp)
        }
        "OPENSSH PRIVATE KEY" => body.starts_with(OPENSSH_MAGIC).then_some(PrivateKey::OpenSsh),
        // The body of a key that is encrypted the old way is noise, in whole cipher blocks.
        _ if encrypted => (body.len() >= 32 && body.len() % 8 == 0).then_some(PrivateKey::Pem),
        _ => binary::is_one_sequence(&body).then_some(PrivateKey::Pem),
    }
}

/// The decoded body of a block, and whether its header says that it is encrypted.
fn body(text: &[u8], is_pgp: bool) -> Option<(Vec<u8>, bool)> {
    let text = std::str::from_utf8(text).ok()?;
    // JSON and environment files write the ends of lines as two characters.
    let text = text.replace("\\r", "\n").replace("\\n", "\n");
    let mut encoded = String::new();
    let mut encrypted = false;
    for line in text.lines() {
        let line = unquoted(line);
        // `Proc-Type: 4,ENCRYPTED`, `DEK-Info: …`, `Version: …`; a value may go on in a new line.
        if line.contains(':') || line.ends_with('\\') {
            encrypted |= line.contains("ENCRYPTED");
        } else if is_pgp && line.starts_with('=') {
            // The checksum ends the body of an OpenPGP block.
            break;
        } else {
            encoded.extend(line.split_whitespace());
        }
    }
    let body = BASE64.decode(encoded.as_bytes()).ok()?;
    // The smallest real key, Ed25519 in PKCS#8, has 48 bytes; EC keys without parameters, 39.
    (body.len() >= 32).then_some((body, encrypted))
}

/// A line without what string literals of programming languages put around it.
fn unquoted(line: &str) -> &str {
    const QUOTES: [char; 2] = ['"', '\''];
    let line = line.trim();
    match (line.strip_prefix(QUOTES), line.rfind(QUOTES)) {
        (Some(rest), Some(0)) if matches!(rest.trim(), "+" | "," | ";" | "") => "",
        (Some(rest), Some(0)) => rest,
        (Some(rest), Some(end)) => &rest[..end - 1],
        (None, Some(end)) => &line[..end],
        _ => line,
    }
}
