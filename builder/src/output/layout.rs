//! An OCI layout directory (OCI image specification 1.1, `image-layout.md`), new or grown.
//!
//! Blobs come first, each under a temporary name until it is whole, then the index: whoever reads
//! the layout meanwhile sees the old image or the new one. A lock on the directory keeps two writers
//! from losing each other's entries. Blobs that nothing refers to any more are left to the
//! layout's owner (`umoci gc`), who may have reasons to keep them.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use drystone_store::digest::BlobDigest;
use serde_json::{Value, json};

use super::archive::{BLOB_DIRECTORY, LAYOUT_FILE, REFERENCE_ANNOTATION, temporary_beside};
use super::{Output, OutputError};
use crate::image::manifest::INDEX_MEDIA_TYPE;

/// Writes an image into the layout `directory`, which is made if it is missing.
///
/// An entry of the index with the same reference name (`NAME:TAG`) is replaced, all others stay.
/// Layers are shared with the store by reflink or hard link where possible, else copied.
///
/// # Errors
/// Files that cannot be read or written; a directory that holds something else than a layout.
pub fn write_layout(output: &Output<'_>, directory: &Path) -> Result<(), OutputError> {
    let blobs = directory.join(BLOB_DIRECTORY);
    let is_new = is_new_layout(directory)?;
    fs::create_dir_all(&blobs).map_err(OutputError::io("create", &blobs))?;
    let lock = File::open(directory).map_err(OutputError::io("read", directory))?;
    lock.lock().map_err(OutputError::io("lock", directory))?;

    for layer in output.set.layers() {
        let target = blobs.join(layer.digest.to_hex());
        if !has_size(&target, layer.size) {
            share_layer(output.open_layer(layer)?, &(output.blob_path)(&layer.digest), &target)?;
        }
    }
    for document in output.set.documents() {
        let target = blobs.join(document.digest.to_hex());
        if !holds(&target, &document.digest) {
            write_whole(&target, &document.bytes)?;
        }
    }
    if is_new {
        write_whole(&directory.join("oci-layout"), LAYOUT_FILE)?;
    }
    let path = directory.join("index.json");
    let index =
        merge_index(read_index(&path)?, output).map_err(|reason| not_a_layout(&path, reason))?;
    write_whole(&path, index.to_string().as_bytes())
}

fn not_a_layout(path: &Path, reason: impl Into<String>) -> OutputError {
    OutputError::NotALayout { path: path.to_owned(), reason: reason.into() }
}

/// Whether the layout has to be made; anything but a layout or an empty directory is refused.
fn is_new_layout(directory: &Path) -> Result<bool, OutputError> {
    match fs::read(directory.join("oci-layout")) {
        Ok(text) => {
            let layout: Value = serde_json::from_slice(&text)
                .map_err(|error| not_a_layout(directory, error.to_string()))?;
            match layout["imageLayoutVersion"].as_str() {
                Some("1.0.0") => Ok(false),
                version => Err(not_a_layout(directory, format!("its version is {version:?}"))),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::read_dir(directory) {
            Ok(entries) => {
                // What a run that was killed left behind does not make a directory foreign.
                let is_ours = |name: &str| name == "blobs" || name.starts_with(".drystone-");
                let names = entries.flatten().map(|entry| entry.file_name());
                match names.into_iter().find(|name| !name.to_str().is_some_and(is_ours)) {
                    Some(name) => {
                        Err(not_a_layout(directory, format!("it holds {}", name.display())))
                    }
                    None => Ok(true),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(OutputError::io("read", directory)(error)),
        },
        Err(error) => Err(OutputError::io("read", directory)(error)),
    }
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// Whether a small blob is there and intact.
fn holds(path: &Path, digest: &BlobDigest) -> bool {
    fs::read(path).is_ok_and(|bytes| BlobDigest::of(&bytes) == *digest)
}

/// Puts a layer's blob into the layout by the cheapest means that works.
fn share_layer(file: File, source: &Path, target: &Path) -> Result<(), OutputError> {
    let mut temporary = temporary_beside(target)?;
    if rustix::fs::ioctl_ficlone(temporary.as_file(), &file).is_err() {
        match link_over(source, target) {
            Ok(()) => return Ok(()),
            // Another file system, a foreign owner or too many links: copy.
            Err(_) => io::copy(&mut &file, temporary.as_file_mut())
                .map_err(OutputError::io("write", target))?,
        };
    }
    persist(temporary, target)
}

/// Hard-links `source` under a temporary name and moves it over `target`.
fn link_over(source: &Path, target: &Path) -> io::Result<()> {
    let name = format!(
        ".drystone-{}-{}.link",
        std::process::id(),
        target.file_name().unwrap_or_default().display()
    );
    let temporary: PathBuf = target.with_file_name(name);
    // A link to a symlink would leave the layout with a path into the store.
    fs::hard_link(fs::canonicalize(source)?, &temporary)?;
    fs::rename(&temporary, target).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    // Renaming one link of a file over another does nothing and leaves both.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let mut temporary = temporary_beside(path)?;
    temporary.write_all(bytes).map_err(OutputError::io("write", path))?;
    persist(temporary, path)
}

fn persist(temporary: tempfile::NamedTempFile, path: &Path) -> Result<(), OutputError> {
    temporary.persist(path).map_err(|error| OutputError::io("rename", path)(error.error))?;
    Ok(())
}

fn read_index(path: &Path) -> Result<Option<Value>, OutputError> {
    match fs::read(path) {
        Ok(text) => {
            let index = serde_json::from_slice(&text)
                .map_err(|error| not_a_layout(path, error.to_string()))?;
            Ok(Some(index))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OutputError::io("read", path)(error)),
    }
}

/// The index with this image in it. What Drystone does not know is kept as it is.
fn merge_index(existing: Option<Value>, output: &Output<'_>) -> Result<Value, &'static str> {
    let entry = serde_json::to_value(output.named_descriptor())
        .expect("strings and numbers always serialise");
    let mut index = existing.unwrap_or_else(
        || json!({"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": []}),
    );
    let manifests = index
        .get_mut("manifests")
        .and_then(Value::as_array_mut)
        .ok_or("it has no list of manifests")?;
    let reference = Value::from(output.name.to_string());
    manifests.retain(|manifest| manifest["annotations"][REFERENCE_ANNOTATION] != reference);
    manifests.push(entry);
    Ok(index)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::testing::{Blobs, image_set, noise};
    use super::*;
    use crate::image::ImageSet;

    fn write(
        blobs: &Blobs,
        set: &ImageSet,
        name: &str,
        directory: &Path,
    ) -> Result<(), OutputError> {
        let name = name.parse().unwrap();
        write_layout(
            &Output { set, name: &name, blob_path: &|digest| blobs.path(digest) },
            directory,
        )
    }

    fn references(directory: &Path) -> Vec<(String, String)> {
        let index: Value =
            serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entry = |entry: &Value| {
            (text(&entry["annotations"][REFERENCE_ANNOTATION]), text(&entry["digest"]))
        };
        index["manifests"].as_array().unwrap().iter().map(entry).collect()
    }

    #[test]
    fn images_gather_in_one_layout_and_a_name_is_replaced() {
        let blobs = Blobs::new();
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/layout");
        let layer = blobs.layer("large", &noise(100_000));
        let one = image_set(&["linux/amd64"], std::slice::from_ref(&layer));
        let two = image_set(
            &["linux/amd64", "linux/arm64"],
            &[layer.clone(), blobs.layer("hello", b"hello")],
        );
        write(&blobs, &one, "one", &directory).unwrap();
        write(&blobs, &one, "two", &directory).unwrap();
        write(&blobs, &two, "two", &directory).unwrap();
        let pair = |name: &str, set: &ImageSet| (name.to_owned(), set.digest().to_string());
        assert_eq!(references(&directory), [pair("one:latest", &one), pair("two:latest", &two)]);
        let blob = directory.join(BLOB_DIRECTORY).join(layer.digest.to_hex());
        assert_eq!(BlobDigest::of(&fs::read(blob).unwrap()), layer.digest);
        let temporary = walkdir::WalkDir::new(&directory).into_iter().flatten();
        assert!(
            temporary
                .into_iter()
                .all(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        );
    }

    /// As after a crash without a sync: names are there, contents are not.
    #[test]
    fn broken_blobs_are_replaced() {
        let blobs = Blobs::new();
        let directory = tempfile::tempdir().unwrap();
        let layer = blobs.layer("hello", b"hello");
        let set = image_set(&["linux/amd64"], std::slice::from_ref(&layer));
        write(&blobs, &set, "one", directory.path()).unwrap();
        for digest in [layer.digest, set.images()[0].config.digest] {
            let path = directory.path().join(BLOB_DIRECTORY).join(digest.to_hex());
            fs::remove_file(&path).unwrap();
            fs::write(&path, "").unwrap();
        }
        write(&blobs, &set, "one", directory.path()).unwrap();
        for digest in [layer.digest, set.images()[0].config.digest] {
            let path = directory.path().join(BLOB_DIRECTORY).join(digest.to_hex());
            assert_eq!(BlobDigest::of(&fs::read(&path).unwrap()), digest);
        }
    }

    #[test]
    fn hard_links_share_the_blob_and_repeat_without_harm() {
        let blobs = Blobs::new();
        let layer = blobs.layer("hello", b"hello");
        let source = blobs.path(&layer.digest);
        let target = blobs.directory.path().join("target");
        for _ in 0..2 {
            link_over(&source, &target).unwrap();
            assert_eq!(fs::metadata(&target).unwrap().ino(), fs::metadata(&source).unwrap().ino());
            assert_eq!(fs::metadata(&source).unwrap().nlink(), 2, "no temporary link stays");
        }
    }

    #[test]
    fn foreign_directories_and_broken_layouts_are_refused_untouched() {
        let blobs = Blobs::new();
        let set = image_set(&["linux/amd64"], &[blobs.layer("hello", b"hello")]);
        for (name, content) in [
            ("notes.txt", "mine"),
            ("oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}"),
            ("oci-layout", "not json"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(name), content).unwrap();
            let error = write(&blobs, &set, "one", directory.path()).unwrap_err();
            assert!(matches!(error, OutputError::NotALayout { .. }), "{error}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
        for index in ["[]", "{", "{\"manifests\":7}"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("oci-layout"), LAYOUT_FILE).unwrap();
            fs::write(directory.path().join("index.json"), index).unwrap();
            let error = write(&blobs, &set, "one", directory.path()).unwrap_err();
            assert!(matches!(error, OutputError::NotALayout { .. }), "{error}");
            assert_eq!(fs::read_to_string(directory.path().join("index.json")).unwrap(), index);
        }
    }

    #[test]
    fn what_others_wrote_into_the_index_stays() {
        let blobs = Blobs::new();
        let set = image_set(&["linux/amd64"], &[blobs.layer("hello", b"hello")]);
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("oci-layout"), LAYOUT_FILE).unwrap();
        let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"x/y","size":1,"digest":"sha256:0","data":"aa"}],"extra":1}"#;
        fs::write(directory.path().join("index.json"), index).unwrap();
        write(&blobs, &set, "one", directory.path()).unwrap();
        let merged: Value =
            serde_json::from_slice(&fs::read(directory.path().join("index.json")).unwrap())
                .unwrap();
        assert_eq!(merged["extra"], 1);
        assert_eq!(merged["manifests"][0]["data"], "aa");
        assert_eq!(merged["manifests"].as_array().unwrap().len(), 2);
    }
}
