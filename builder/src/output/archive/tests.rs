use std::collections::BTreeMap;

use serde_json::Value;

use super::super::testing::{Blobs, image_set, noise};
use super::super::{ImageName, Output};
use super::*;

fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        found.push((entry.path().unwrap().display().to_string(), content));
    }
    found
}

#[test]
fn every_reference_leads_to_a_blob_of_that_digest() {
    let blobs = Blobs::new();
    let layers = [
        blobs.layer("hello", b"hello"),
        blobs.layer("large", &noise(300_000)),
        blobs.layer("hello", b"hello"),
    ];
    let set = image_set(&["linux/amd64", "linux/arm64"], &layers);
    let name: ImageName = "team/hello:1".parse().unwrap();
    let output = Output { set: &set, name: &name, blob_path: &|digest| blobs.path(digest) };
    let bytes = write_archive(&output, Vec::new()).unwrap();
    assert_eq!(bytes, write_archive(&output, Vec::new()).unwrap(), "the same twice");

    let list = entries(&bytes);
    let files: BTreeMap<_, _> = list.iter().cloned().collect();
    assert_eq!(files.len(), list.len(), "nothing is there twice");
    assert_eq!(list[0].0, "oci-layout");
    for (path, content) in &files {
        if let Some(hex) = path.strip_prefix(BLOB_DIRECTORY).filter(|hex| !hex.is_empty()) {
            assert_eq!(drystone_store::digest::BlobDigest::of(content).to_hex(), hex);
        }
    }
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let top = &index["manifests"][0];
    assert_eq!(top["digest"], set.digest().to_string());
    assert_eq!(top["annotations"][REFERENCE_ANNOTATION], "team/hello:1");
    assert_eq!(top["annotations"][ENGINE_NAME_ANNOTATION], "docker.io/team/hello:1");
    let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(docker[0]["RepoTags"][0], "team/hello:1");
    assert_eq!(docker[0]["Layers"].as_array().unwrap().len(), 3);
    for path in docker[0]["Layers"].as_array().unwrap().iter().chain([&docker[0]["Config"]]) {
        assert!(files.contains_key(path.as_str().unwrap()), "{path}");
    }
}

#[test]
fn files_appear_whole_with_usual_permissions_and_equal_streams() {
    let blobs = Blobs::new();
    let set = image_set(&["linux/amd64"], &[blobs.layer("large", &noise(300_000))]);
    let name: ImageName = "hello".parse().unwrap();
    let output = Output { set: &set, name: &name, blob_path: &|digest| blobs.path(digest) };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hello.tar");
    std::fs::write(&path, "old").unwrap();
    let size = write_archive_file(&output, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(bytes, write_archive(&output, Vec::new()).unwrap());
    let other = File::create(directory.path().join("other")).unwrap();
    let usual = other.metadata().unwrap().permissions().mode();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode(), usual, "umask counts");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file stays");
    write_archive_file(&output, Path::new("/dev/null")).unwrap();
}

#[test]
fn a_wrong_or_missing_blob_leaves_the_old_file() {
    let blobs = Blobs::new();
    let layer = blobs.layer("hello", b"hello");
    let set = image_set(&["linux/amd64"], std::slice::from_ref(&layer));
    let name: ImageName = "hello".parse().unwrap();
    let output = Output { set: &set, name: &name, blob_path: &|digest| blobs.path(digest) };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hello.tar");
    std::fs::write(&path, "old").unwrap();

    std::fs::write(blobs.path(&layer.digest), "cut").unwrap();
    let error = write_archive_file(&output, &path).unwrap_err();
    assert!(matches!(error, OutputError::BlobSize { actual: 3, .. }), "{error}");
    std::fs::remove_file(blobs.path(&layer.digest)).unwrap();
    let error = write_archive_file(&output, &path).unwrap_err();
    assert!(matches!(error, OutputError::Io { action: "read", .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
