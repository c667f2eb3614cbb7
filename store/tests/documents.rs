//! The format documents say what the code does.

use std::io::Write;

use drystone_store::layer::{Compression, LayerWriter};
use drystone_store::store::Store;

const STORE: &str = include_str!("../../docs/formats/store.md");
const TAR: &str = include_str!("../../docs/formats/canonical-tar.md");
const LAYER: &str = include_str!("../../docs/formats/layer.md");
const LISTING: &str = include_str!("../../docs/formats/listing.md");
const DERIVATION: &str = include_str!("../../docs/formats/derivation.md");

/// Text with each run of white space as one space.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn examples_are_the_golden_files() {
    assert!(LISTING.contains(include_str!("golden/listing.jsonl")));
    assert!(DERIVATION.contains(include_str!("golden/derivation.json").trim_end()));
    assert!(DERIVATION.contains(include_str!("golden/derivation.id").trim_end()));
}

#[test]
fn golden_files_are_named() {
    let all = [TAR, LAYER, LISTING, DERIVATION].concat();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(all.contains(&format!("store/tests/golden/{name}")), "{name}");
    }
}

#[test]
fn the_schema_is_the_database() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path()).unwrap());
    let database = rusqlite::Connection::open(directory.path().join("db.sqlite")).unwrap();
    let mut statement =
        database.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").unwrap();
    let all: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(all.len(), 8);
    for sql in all {
        assert!(words(STORE).contains(&words(&sql)), "{sql}");
    }
}

#[test]
fn members_and_frames_are_as_described() {
    let compress = |compression: Compression, data: &[u8]| {
        let mut writer = LayerWriter::new(compression, Vec::new());
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    };
    let gzip = compress(Compression::Gzip1, b"abc");
    assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    assert!(LAYER.contains("1f 8b 08 00 00000000 00 ff"));
    let zstd = compress(Compression::Zstd1, b"abc");
    assert_eq!(zstd[..4], 0xfd2f_b528_u32.to_le_bytes());
    // Frame header descriptor (RFC 8878, 3.1.1.1.1): single segment, so the content size is
    // there; no checksum (bit 2), no dictionary (bits 0 and 1).
    assert_eq!((zstd[4] & 0b0010_0000, zstd[4] & 0b0000_0111), (0b0010_0000, 0));
    for compression in [Compression::Gzip1, Compression::Zstd1] {
        assert!(LAYER.contains(&format!("| `{compression}` |")));
        assert!(LAYER.contains(compression.media_type()));
        assert!(!compress(compression, b"").is_empty());
    }
}

#[test]
fn the_time_of_entries_is_the_documented_one() {
    let octal = format!("{:011o}", drystone_store::tar::MTIME);
    assert!(TAR.contains(&format!("`{octal}` octal digits of {}", drystone_store::tar::MTIME)));
}
