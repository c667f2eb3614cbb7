//! What is promised of any bytes: one function for each format, for `cargo test` and cargo-fuzz.
//! Each says whether it accepted the bytes.

use std::path::Path;

use drystone_builder::document::{Diagnostics, Style};
use drystone_builder::finish::status::{PackageState, status_paragraph};
use drystone_builder::lock::Lock;
use drystone_builder::spec::Image;
use drystone_source::debian::control::paragraphs;
use drystone_source::debian::index::read_packages;
use drystone_source::debian::relation::RelationField;
use drystone_source::debian::release::Release;
use drystone_source::debian::version::Version;

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
