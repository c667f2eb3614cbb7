//! What is promised of any bytes: one function for each format, for `cargo test` and cargo-fuzz.

use std::io::{Read as _, Write as _};

use drystone_store::layer::{Compression, LayerWriter};
use drystone_store::listing::Listing;
use drystone_store::tar::{ReadError, TreeReader, TreeWriter};

/// The canonical tar: what is accepted is exactly what the writer makes of it.
pub fn tar(bytes: &[u8]) -> bool {
    match rewritten(bytes) {
        Ok(again) => {
            assert!(again == bytes, "a stream was accepted that is not canonical");
            true
        }
        Err(_) => false,
    }
}

fn rewritten(bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
    let mut reader = TreeReader::new(bytes);
    let mut writer = TreeWriter::new(Vec::new());
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content)?;
        writer.append(&entry, &mut content.as_slice()).expect("what was read can be written");
    }
    reader.finish()?;
    Ok(writer.finish().expect("a vector takes everything"))
}

/// Listings, by their text: what is accepted comes back from what is written of it.
pub fn listing(text: &[u8]) -> bool {
    // As it stands, for the decompressor; then as the text of a stream.
    let _ = Listing::decode(text);
    let mut writer = LayerWriter::new(Compression::Gzip1, Vec::new());
    writer.write_all(text).expect("a vector takes everything");
    let bytes = writer.finish().expect("a vector takes everything");
    let Ok(listing) = Listing::decode(&bytes) else { return false };
    let again = listing.encode().expect("a vector takes everything");
    let read = Listing::decode(&again).expect("what was written can be read");
    assert_eq!(read, listing);
    true
}
