//! The lock file on disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

#[test]
fn a_missing_file_is_none_and_an_unchanged_one_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.lock");
    assert!(Lock::read(&path).unwrap().is_none());
    let lock = sample("web", "1");
    assert_eq!(lock.write_atomically(&path).unwrap(), Written::Changed);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&path).unwrap().ino();
    assert_eq!(lock.write_atomically(&path).unwrap(), Written::Unchanged);
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    assert_eq!(sample("web", "2").write_atomically(&path).unwrap(), Written::Changed);
    let after = fs::metadata(&path).unwrap();
    assert_ne!(after.ino(), before, "the file is replaced, not written into");
    assert_eq!(after.mode() & 0o777, 0o640, "its mode stays");
    assert_eq!(Lock::read(&path).unwrap(), Some(sample("web", "2")));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays beside it");
}

#[test]
fn a_symbolic_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (link, file) = (folder.path().join("image.lock"), folder.path().join("real.lock"));
    fs::write(&file, "version = 1\n").unwrap();
    std::os::unix::fs::symlink("real.lock", &link).unwrap();
    sample("web", "1").write_atomically(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Lock::read(&file).unwrap(), Some(sample("web", "1")));
}

#[test]
fn images_locked_at_once_all_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.lock");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = &path;
            scope.spawn(move || {
                Lock::edit(path, |lock| lock.merge(sample(&format!("image-{number}"), "1")))
                    .unwrap()
            });
        }
    });
    assert_eq!(Lock::read(&path).unwrap().unwrap().images.len(), 8);
}

#[test]
fn a_failed_change_writes_nothing_and_errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.lock");
    sample("web", "1").write_atomically(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let result = Lock::edit(&path, |lock| {
        lock.images.clear();
        let source = std::io::Error::other("stop");
        Err(LockError::Io { action: "try", path: path.clone(), source })
    });
    assert!(result.is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::write(&path, b"version = 1\n\xff").unwrap();
    assert!(Lock::read(&path).unwrap_err().to_string().contains("image.lock"));
    let missing = folder.path().join("no/such/folder/image.lock");
    let error = sample("web", "1").write_atomically(&missing).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}
