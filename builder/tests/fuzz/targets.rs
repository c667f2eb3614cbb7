//! What is promised of any bytes: one function for each format, for `cargo test` and cargo-fuzz.
//! Each says whether it accepted the bytes.

use std::path::Path;

use drystone_builder::document::{Diagnostics, Style};
use drystone_builder::finish::status::{PackageState, status_paragraph};
use drystone_builder::lock::Lock;
use drystone_builder::source::debian::control::paragraphs;
use drystone_builder::source::debian::deb;
use drystone_builder::source::debian::index::read_packages;
use drystone_builder::source::debian::relation::{RelationField, Relations};
use drystone_builder::source::debian::release::Release;
use drystone_builder::source::debian::version::Version;
use drystone_builder::spec::Image;
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

/// Control files, and all that is made of them: indexes, Release files, dpkg's status.
pub fn control(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut accepted = true;
    for paragraph in paragraphs(&text) {
        let Ok(paragraph) = paragraph else {
            accepted = false;
            break;
        };
        for field in paragraph.fields() {
            assert!(field.line >= paragraph.line);
            let _ = (field.lines().count(), RelationField::new(field.value()));
            let version = Version::new(field.value());
            assert!(version.is_ok() == Version::check(field.value()).is_ok());
        }
    }
    let packages = read_packages("test", &text);
    assert!(accepted || packages.is_err(), "an index was made of no control file");
    let _ = Release::read(&text);
    // What dpkg's status says is stable: written of itself it stays as it is.
    let state = PackageState::installed(Vec::new());
    if let Ok(status) = status_paragraph(&text, &state) {
        assert_eq!(status_paragraph(&status, &state).as_ref(), Ok(&status));
    }
    accepted
}

/// Relations: what is accepted comes back from what is written of it.
pub fn relations(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(relations) = text.parse::<Relations>() else { return false };
    let written = relations.to_string();
    assert_eq!(written.parse::<Relations>().as_ref(), Ok(&relations), "{written:?}");
    true
}

/// image.toml: problems can be shown, and a comment changes nothing.
pub fn image_toml(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("image.toml");
    match Image::parse(path, &text) {
        Ok(image) => {
            let again = Image::parse(path, &format!("{text}\n# a comment\n"));
            let again = again.expect("a comment is no problem");
            assert_eq!(again.normalised(), image.normalised());
            image.unsupported().iter().for_each(shown);
            true
        }
        Err(problems) => {
            shown(&problems);
            false
        }
    }
}

/// image.lock: what is accepted comes back from what is written of it.
pub fn image_lock(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("image.lock");
    match Lock::parse(path, &text) {
        Ok(lock) => {
            let written = lock.to_text();
            let again = Lock::parse(path, &written);
            let again = again.unwrap_or_else(|problems| panic!("{problems}\n{written}"));
            assert_eq!(again, lock);
            assert_eq!(again.to_text(), written);
            true
        }
        Err(problems) => {
            shown(&problems);
            false
        }
    }
}

fn shown(problems: &Diagnostics) {
    assert!(!problems.render(Style::Plain).is_empty());
    assert!(!problems.render(Style::Coloured).is_empty());
}
