//! What is promised of any bytes: one function for each format, for `cargo test` and cargo-fuzz.
//! Each says whether it accepted the bytes.

use drystone_source::debian::deb;
use drystone_source::debian::relation::Relations;
use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::store::Store;

/// A package: what is accepted can be listed and is found again.
pub fn deb(store: &Store, bytes: &[u8]) -> bool {
    let digest = BlobDigest::of(bytes);
    let size = bytes.len() as u64;
    let Ok(deb) = deb::import(store, &digest, "x-1", size, bytes, Compression::Store1) else {
        return false;
    };
    for output in [&deb.data, &deb.control] {
        let listing = store.listing(output).expect("the store works");
        assert!(listing.is_some(), "an imported tree has a listing");
    }
    let again = deb::imported(store, &digest).expect("the store works");
    assert_eq!(again.map(|deb| deb.data), Some(deb.data));
    true
}

/// A package whose data member these bytes are.
pub fn data_tar(store: &Store, bytes: &[u8]) -> bool {
    // One empty tar is a control archive too.
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar", &[0; 1024]), ("data.tar", bytes)];
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let length = content.len();
        let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{length:<10}`\n", 0, 0, 0, "100644");
        archive.extend(header.as_bytes());
        archive.extend(content);
        archive.extend(std::iter::repeat_n(b'\n', length % 2));
    }
    deb(store, &archive)
}

/// Relations: what is accepted comes back from what is written of it.
pub fn relations(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(relations) = text.parse::<Relations>() else { return false };
    let written = relations.to_string();
    assert_eq!(written.parse::<Relations>().as_ref(), Ok(&relations), "{written:?}");
    true
}
