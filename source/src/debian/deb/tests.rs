use std::process::Command;

use drystone_store::store::Store;
use proptest::prelude::*;

use super::*;

/// Builds a `.deb` by hand, so that hostile ones can be made.
fn deb(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let header =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", content.len());
        bytes.extend(header.as_bytes());
        bytes.extend(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// A tar whose entries' paths are written as given, whatever they are.
fn tar_of(entries: &[(&str, tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn package(data: Vec<u8>) -> Vec<u8> {
    let control = tar_of(&[("./control", tar::EntryType::Regular, "", "Package: x\n")]);
    deb(&[("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar", data)])
}

fn import_bytes(bytes: &[u8]) -> Result<Vec<(String, Kind)>, DebError> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let digest = BlobDigest::of(bytes);
    let imported = import(&store, &digest, "x-1", bytes.len() as u64, bytes, Compression::Gzip1)?;
    assert!(super::imported(&store, &digest).unwrap().is_some());
    let listing = store.listing(&imported.data).unwrap().unwrap();
    let entries = listing.entries().iter();
    Ok(entries.map(|item| (item.entry.path.to_string(), item.entry.kind.clone())).collect())
}

#[test]
fn paths_are_mapped_to_merged_usr() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let entries = import_bytes(&package(tar_of(&[
        ("./", Directory, "", ""),
        ("./bin/", Directory, "", ""),
        ("./bin/cat", Regular, "", "cat"),
        ("./bin/dog", Link, "./bin/cat", ""),
        ("./lib64", Symlink, "usr/lib64", ""),
        ("./usr/bin/x", Symlink, "../../bin/cat", ""),
    ])))
    .unwrap();
    let paths: Vec<&str> = entries.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["lib64", "usr", "usr/bin", "usr/bin/cat", "usr/bin/dog", "usr/bin/x"]);
    let link = Kind::HardLink { target: TreePath::new("usr/bin/cat").unwrap() };
    assert_eq!(entries[4].1, link);
}

#[test]
fn hostile_packages_are_refused_by_name() {
    use tar::EntryType::{Block, Fifo, Link, Regular, Symlink};
    let case = |entries: &[(&str, tar::EntryType, &str, &str)]| {
        let error = import_bytes(&package(tar_of(entries))).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    assert!(case(&[("../etc/passwd", Regular, "", "")]).contains("bad path"));
    assert!(case(&[("./a/../../b", Regular, "", "")]).contains("bad path"));
    assert!(case(&[("./dev/sda", Block, "", "")]).contains("a device node"));
    assert!(case(&[("./run/p", Fifo, "", "")]).contains("a FIFO"));
    assert!(case(&[("./l", Link, "../../etc/passwd", "")]).contains("bad path"));
    assert!(case(&[("./l", Link, "./missing", "")]).contains("no file of the tree"));
    let twice = [("./a", Regular, "", "1"), ("./a", Regular, "", "2")];
    assert!(case(&twice).contains("twice"));
    // A link that leads out is harmless by itself; a file through it is not.
    let through = [("./out", Symlink, "/etc", ""), ("./out/passwd", Regular, "", "")];
    assert!(case(&through).contains("not a directory"));
}

#[test]
fn malformed_archives_are_refused() {
    let good = package(tar_of(&[("./a", tar::EntryType::Regular, "", "content")]));
    assert!(import_bytes(&good).is_ok());
    assert!(matches!(import_bytes(b"hello"), Err(DebError::Ar(ArError::Magic))));
    assert!(import_bytes(&good[..good.len() - 2000]).is_err());
    assert!(import_bytes(&good[..100]).is_err());
    let no_data = deb(&[("debian-binary", b"2.0\n".to_vec())]);
    assert!(matches!(import_bytes(&no_data), Err(DebError::NoMember("control.tar"))));
    let old = deb(&[("debian-binary", b"0.939\n".to_vec())]);
    assert!(matches!(import_bytes(&old), Err(DebError::Version(_))));
    let odd = deb(&[("debian-binary", b"2.0\n".to_vec()), ("control.tar.rar", vec![1])]);
    assert!(matches!(import_bytes(&odd), Err(DebError::Compression(_))));
}

#[test]
fn each_compression_gives_the_same_tree() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("skipped: dpkg-deb is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("pkg");
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(root.join("usr/share/x")).unwrap();
    let control = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.com>\nDescription: x\n";
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    std::fs::write(root.join("usr/share/x/file"), vec![5; 100_000]).unwrap();
    let mut results = Vec::new();
    for kind in ["none", "gzip", "xz", "zstd"] {
        let file = directory.path().join(format!("{kind}.deb"));
        let status = Command::new("dpkg-deb")
            .args(["--root-owner-group", &format!("-Z{kind}"), "-b"])
            .args([&root, &file])
            .output()
            .unwrap();
        if !status.status.success() && kind == "zstd" {
            eprintln!("skipped for zstd: this dpkg-deb cannot write it");
            continue;
        }
        results.push(import_bytes(&std::fs::read(&file).unwrap()).unwrap());
    }
    assert!(results.len() >= 3 && results.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_control_tree_holds_what_dpkg_learns_from_the_data() {
    use tar::EntryType::{Directory, Regular};
    let control = tar_of(&[
        ("./control", Regular, "", "Package: x\n"),
        ("./conffiles", Regular, "", "/etc/x.conf\n"),
    ]);
    let data = tar_of(&[
        ("./", Directory, "", ""),
        ("./etc/", Directory, "", ""),
        ("./etc/x.conf", Regular, "", "hello"),
        ("./bin/", Directory, "", ""),
    ]);
    let bytes =
        deb(&[("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar", data)]);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let digest = BlobDigest::of(&bytes);
    let imported = import(&store, &digest, "x-1", 1, bytes.as_slice(), Compression::Gzip1).unwrap();
    let mut files = BTreeMap::new();
    store
        .read_tree(&imported.control, |entry, content| {
            let mut text = String::new();
            content.read_to_string(&mut text).unwrap();
            files.insert(entry.path.to_string(), text);
            Ok::<(), StoreError>(())
        })
        .unwrap();
    assert_eq!(files[LIST], "/.\n/etc\n/etc/x.conf\n/bin\n");
    assert_eq!(files[CONFFILE_DIGESTS], "/etc/x.conf 5d41402abc4b2a76b9719d911017c592\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn flipped_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = package(tar_of(&[("./a", tar::EntryType::Regular, "", "content")]));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = import_bytes(&bytes);
    }
}
