//! One entry's header blocks, as bytes and back.

use std::collections::BTreeMap;

use super::{BLOCK, MTIME};
use crate::tree::{DELETION_PREFIX, Entry, Kind, PathError, TreePath};

/// The name that every PAX header carries; readers ignore it.
const PAX_NAME: &str = "././@PaxHeader";
const XATTR_RECORD: &str = "SCHILY.xattr.";
/// The largest number that an octal field of 7 digits holds.
const MAX_SEVEN_DIGITS: u64 = 0o777_7777;
/// The largest number that an octal field of 11 digits holds.
const MAX_ELEVEN_DIGITS: u64 = 0o777_7777_7777;

/// Writes the header blocks of an entry.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut path = entry.path.as_str().to_owned();
    if entry.kind == Kind::Directory {
        path.push('/');
    }
    let link = match &entry.kind {
        Kind::Symlink { target } => target.as_str(),
        Kind::HardLink { target } => target.as_str(),
        _ => "",
    };
    let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let split = split_path(&path);
    if split.is_none() {
        records.insert("path".into(), path.clone().into_bytes());
    }
    if link.len() > 100 {
        records.insert("linkpath".into(), link.as_bytes().to_vec());
    }
    let size = entry.content_size();
    for (key, value, limit) in [
        ("size", size, MAX_ELEVEN_DIGITS),
        ("uid", u64::from(entry.uid), MAX_SEVEN_DIGITS),
        ("gid", u64::from(entry.gid), MAX_SEVEN_DIGITS),
    ] {
        if value > limit {
            records.insert(key.into(), value.to_string().into_bytes());
        }
    }
    for (name, value) in &entry.xattrs {
        records.insert(format!("{XATTR_RECORD}{name}"), value.clone());
    }

    let mut blocks = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        let body = encode_records(&records);
        let fields = Fields { name: PAX_NAME, mode: 0o644, kind: b'x', ..Fields::default() };
        blocks.extend(fields.size(body.len() as u64).block());
        blocks.extend(&body);
        blocks.resize(blocks.len() + super::padding(body.len() as u64), 0);
    }
    let (prefix, name) = split.unwrap_or(("", prefix_of(&path, 100)));
    let fit = |value: u64, limit: u64| if value > limit { 0 } else { value };
    let fields = Fields {
        prefix,
        name,
        mode: u64::from(entry.mode),
        uid: fit(entry.uid.into(), MAX_SEVEN_DIGITS),
        gid: fit(entry.gid.into(), MAX_SEVEN_DIGITS),
        size: fit(size, MAX_ELEVEN_DIGITS),
        kind: match entry.kind {
            Kind::File { .. } | Kind::Deletion => b'0',
            Kind::HardLink { .. } => b'1',
            Kind::Symlink { .. } => b'2',
            Kind::Directory => b'5',
        },
        link: prefix_of(link, 100),
    };
    blocks.extend(fields.block());
    blocks
}

/// Splits a path into ustar's prefix and name at the last possible slash.
fn split_path(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    // A directory's own trailing slash is no place to split: its name would be empty.
    let end = path.len() - 1;
    let at = path.as_bytes()[..end.min(156)].iter().rposition(|&byte| byte == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (name.len() <= 100 && !prefix.is_empty()).then_some((prefix, name))
}

/// The longest part from the start that fits `limit` bytes and ends between characters.
fn prefix_of(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// PAX records: `LENGTH KEY=VALUE\n`, where the length counts itself.
fn encode_records(records: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        if length.to_string().len() + rest != length {
            length += 1;
        }
        body.extend(format!("{length} {key}=").into_bytes());
        body.extend(value);
        body.push(b'\n');
    }
    body
}

/// The values of one ustar block.
#[derive(Default)]
struct Fields<'a> {
    prefix: &'a str,
    name: &'a str,
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    kind: u8,
    link: &'a str,
}

impl Fields<'_> {
    fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name.as_bytes());
        put(100, &octal_field::<8>(self.mode));
        put(108, &octal_field::<8>(self.uid));
        put(116, &octal_field::<8>(self.gid));
        put(124, &octal_field::<12>(self.size));
        put(136, &octal_field::<12>(MTIME));
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, self.link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000000\0");
        put(337, b"0000000\0");
        put(345, self.prefix.as_bytes());
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        // Six digits and a NUL; the blank behind them stays.
        block[148..155].copy_from_slice(&octal_field::<7>(sum));
        block
    }
}

/// A number in octal digits that fill a field up to its closing NUL.
fn octal_field<const LENGTH: usize>(mut value: u64) -> [u8; LENGTH] {
    let mut field = [0; LENGTH];
    for digit in field[..LENGTH - 1].iter_mut().rev() {
        *digit = b'0' + (value % 8) as u8;
        value /= 8;
    }
    field
}

/// Why header blocks cannot be read as an entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("a number field is not octal")]
    Number,
    #[error("a PAX record is malformed")]
    Record,
    #[error("a text field is not UTF-8")]
    Text,
    #[error("entry type {0:?} has no place in a tree")]
    Type(char),
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The size that a header block claims; used before anything else is known about the block.
pub(super) fn claimed_size(block: &[u8; BLOCK]) -> Result<u64, HeaderError> {
    octal(&block[124..136])
}

/// Whether a block is the header of PAX records.
pub(super) fn is_pax(block: &[u8; BLOCK]) -> bool {
    block[156] == b'x'
}

/// Reads PAX records from the body of a PAX header.
pub(super) fn decode_records(mut body: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, HeaderError> {
    let mut records = BTreeMap::new();
    while !body.is_empty() {
        let space = body.iter().position(|&byte| byte == b' ').ok_or(HeaderError::Record)?;
        let length: usize = std::str::from_utf8(&body[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(HeaderError::Record)?;
        let record = body.get(space + 1..length).ok_or(HeaderError::Record)?;
        let record = record.strip_suffix(b"\n").ok_or(HeaderError::Record)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or(HeaderError::Record)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| HeaderError::Text)?;
        records.insert(key.to_owned(), record[equals + 1..].to_vec());
        body = &body[length..];
    }
    Ok(records)
}

/// Reads an entry from its ustar block and the PAX records before it.
///
/// Lenient by design: the reader encodes the result again and compares, so that only the
/// canonical form passes.
pub(super) fn decode(
    block: &[u8; BLOCK],
    records: &BTreeMap<String, Vec<u8>>,
) -> Result<Entry, HeaderError> {
    let record_text = |key: &str| -> Result<Option<String>, HeaderError> {
        let Some(value) = records.get(key) else { return Ok(None) };
        String::from_utf8(value.clone()).map(Some).map_err(|_| HeaderError::Text)
    };
    let number = |key: &str, at: std::ops::Range<usize>| -> Result<u64, HeaderError> {
        match record_text(key)? {
            Some(text) => text.parse().map_err(|_| HeaderError::Number),
            None => octal(&block[at]),
        }
    };
    let path = match record_text("path")? {
        Some(path) => path,
        None => {
            let (prefix, name) = (text(&block[345..500])?, text(&block[..100])?);
            if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
        }
    };
    let path = TreePath::new(path.strip_suffix('/').unwrap_or(&path))?;
    let link = match record_text("linkpath")? {
        Some(link) => link,
        None => text(&block[157..257])?.to_owned(),
    };
    let size = number("size", 124..136)?;
    let kind = match block[156] {
        b'0' if path.name().starts_with(DELETION_PREFIX) => Kind::Deletion,
        b'0' => Kind::File { size },
        b'1' => Kind::HardLink { target: TreePath::new(link)? },
        b'2' => Kind::Symlink { target: link },
        b'5' => Kind::Directory,
        other => return Err(HeaderError::Type(char::from(other))),
    };
    let id = |value: u64| u32::try_from(value).map_err(|_| HeaderError::Number);
    Ok(Entry {
        mode: id(octal(&block[100..108])?)?,
        uid: id(number("uid", 108..116)?)?,
        gid: id(number("gid", 116..124)?)?,
        xattrs: records
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(XATTR_RECORD)?.to_owned(), value.clone()))
            })
            .collect(),
        path,
        kind,
    })
}

fn text(field: &[u8]) -> Result<&str, HeaderError> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).map_err(|_| HeaderError::Text)
}

fn octal(field: &[u8]) -> Result<u64, HeaderError> {
    let digits = field.strip_suffix(b"\0").ok_or(HeaderError::Number)?;
    let digits = std::str::from_utf8(digits).map_err(|_| HeaderError::Number)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeaderError::Number);
    }
    u64::from_str_radix(digits, 8).map_err(|_| HeaderError::Number)
}
