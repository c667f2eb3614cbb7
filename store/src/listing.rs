//! Listings: a tree's index, from which conflicts, owners and differences are known without bytes.
//!
//! Format (`docs/formats/listing.md`): a gzip-1 stream of lines. The first is
//! `{"drystone-listing":1}`; each other one is a JSON array for an entry, in canonical order:
//! `[path, type, mode, uid, gid, size, hash or target, xattrs]`, with trailing parts left out
//! where they are empty.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Write};

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::FileHash;
use crate::layer::{Compression, LayerWriter};
use crate::tree::{Entry, Kind, TreePath};

const HEADER: &str = r#"{"drystone-listing":1}"#;
/// The largest listing that is read, uncompressed: some ten million entries.
const MAX_LISTING: u64 = 2 << 30;

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListingEntry {
    /// The entry.
    pub entry: Entry,
    /// BLAKE3 of the content, for files.
    pub hash: Option<FileHash>,
}

/// Why a listing cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The compressed stream is damaged.
    #[error("the listing cannot be decompressed")]
    Compression(#[source] std::io::Error),
    /// It is no listing of a version that this program knows.
    #[error("not a listing of format 1")]
    Header,
    /// A line is not an entry.
    #[error("line {0} of the listing is malformed")]
    Line(usize),
    /// An entry does not follow the one before it.
    #[error("line {0} of the listing is out of order")]
    Order(usize),
}

/// A tree's index: every entry in canonical order, files with their hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    entries: Vec<ListingEntry>,
}

impl Listing {
    /// Takes the next entry; entries come in canonical order.
    pub fn push(&mut self, entry: Entry, hash: Option<FileHash>) {
        self.entries.push(ListingEntry { entry, hash });
    }

    /// The entries in canonical order.
    pub fn entries(&self) -> &[ListingEntry] {
        &self.entries
    }

    /// The entry at `path`.
    pub fn find(&self, path: &TreePath) -> Option<&ListingEntry> {
        let at = self.entries.binary_search_by(|entry| entry.entry.path.cmp(path)).ok()?;
        self.entries.get(at)
    }

    /// Sum of all files' sizes in bytes.
    pub fn content_size(&self) -> u64 {
        self.entries.iter().map(|entry| entry.entry.content_size()).sum()
    }

    /// The listing's bytes, as stored and transferred.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut writer = LayerWriter::new(Compression::Gzip1, Vec::new());
        writer.write_all(HEADER.as_bytes())?;
        writer.write_all(b"\n")?;
        for entry in &self.entries {
            writer.write_all(encode_line(entry).to_string().as_bytes())?;
            writer.write_all(b"\n")?;
        }
        writer.finish()
    }

    /// Reads a listing's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListingError> {
        let mut text = String::new();
        Compression::Gzip1
            .decompress(bytes)
            .and_then(|reader| reader.take(MAX_LISTING).read_to_string(&mut text))
            .map_err(ListingError::Compression)?;
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(ListingError::Header);
        }
        let mut listing = Self::default();
        for (index, line) in lines.enumerate() {
            let entry = decode_line(line).ok_or(ListingError::Line(index + 2))?;
            // Searches rely on the order.
            if listing.entries.last().is_some_and(|last| last.entry.path >= entry.entry.path) {
                return Err(ListingError::Order(index + 2));
            }
            listing.entries.push(entry);
        }
        Ok(listing)
    }
}

fn encode_line(item: &ListingEntry) -> Value {
    let entry = &item.entry;
    let (kind, last) = match &entry.kind {
        Kind::Directory => ("d", json!("")),
        Kind::File { .. } => ("f", json!(item.hash)),
        Kind::Symlink { target } => ("l", json!(target)),
        Kind::HardLink { target } => ("h", json!(target.as_str())),
        Kind::Deletion => ("w", json!("")),
    };
    let xattrs: BTreeMap<&str, String> =
        entry.xattrs.iter().map(|(name, value)| (name.as_str(), BASE64.encode(value))).collect();
    let mut parts = vec![
        json!(entry.path.as_str()),
        json!(kind),
        json!(entry.mode),
        json!(entry.uid),
        json!(entry.gid),
        json!(entry.content_size()),
        last,
        json!(xattrs),
    ];
    if xattrs.is_empty() {
        parts.pop();
        if parts[6] == "" {
            parts.pop();
        }
    }
    Value::Array(parts)
}

/// A line as it is written: `[path, type, mode, uid, gid, size, hash or target, xattrs]`.
#[derive(Deserialize)]
struct Line<'a>(
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    u32,
    u32,
    u32,
    u64,
    #[serde(borrow, default)] Cow<'a, str>,
    #[serde(default)] BTreeMap<String, String>,
);

fn decode_line(line: &str) -> Option<ListingEntry> {
    let Line(path, kind, mode, uid, gid, size, last, encoded) = serde_json::from_str(line).ok()?;
    let mut hash = None;
    let kind = match &*kind {
        "d" => Kind::Directory,
        "f" => {
            hash = Some(last.parse().ok()?);
            Kind::File { size }
        }
        // No tree holds an empty link, and written again it would be cut off as a trailing part.
        "l" if last.is_empty() => return None,
        "l" => Kind::Symlink { target: last.into_owned() },
        "h" => Kind::HardLink { target: TreePath::new(last).ok()? },
        "w" => Kind::Deletion,
        _ => return None,
    };
    let mut xattrs = BTreeMap::new();
    for (name, value) in encoded {
        xattrs.insert(name, BASE64.decode(value.as_bytes()).ok()?);
    }
    let path = TreePath::new(path).ok()?;
    Some(ListingEntry { entry: Entry { path, mode, uid, gid, xattrs, kind }, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Listing {
        let path = |text: &str| TreePath::new(text).unwrap();
        let mut listing = Listing::default();
        listing.push(Entry::directory(path("etc")), None);
        listing.push(Entry::deletion(&path("etc/motd")).unwrap(), None);
        let mut file = Entry::file(path("etc/tab\tand\nline \"é\""), 0o4755, 12);
        file.xattrs.insert("user.a".into(), vec![0, 255]);
        listing.push(file, Some(FileHash::of(b"hello, world")));
        listing.push(Entry::symlink(path("link"), "etc/../x"), None);
        listing
    }

    #[test]
    fn golden_bytes_are_frozen() {
        let bytes = sample().encode().unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, include_str!("../tests/golden/listing.jsonl"));
    }

    #[test]
    fn parse_of_encode_is_identity() {
        let listing = sample();
        assert_eq!(Listing::decode(&listing.encode().unwrap()).unwrap(), listing);
        let found = listing.find(&TreePath::new("link").unwrap()).unwrap();
        assert_eq!(found.entry.mode, 0o777);
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let path = |text: &str| TreePath::new(text).unwrap();
        for names in [["b", "a"], ["a", "a"]] {
            let mut listing = Listing::default();
            for name in names {
                listing.push(Entry::directory(path(name)), None);
            }
            let bytes = listing.encode().unwrap();
            assert!(matches!(Listing::decode(&bytes), Err(ListingError::Order(3))));
        }
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(line in "\\PC*") {
            let _ = decode_line(&line);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Listing::decode(&bytes);
        }
    }
}
