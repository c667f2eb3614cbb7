//! The lock's text, merging and file.

mod disk;
mod properties;
mod wrong;

use std::path::Path;

use drystone_store::digest::{BlobDigest, TreeHash};
use drystone_store::tree::TreePath;

use super::*;
use crate::spec::{Architecture, Component, ImageName, Name, PackageName, PackageVersion};
use crate::spec::{Platform, Suite};

pub(super) fn archive(repository: &str, suite: &str) -> ArchiveKey {
    ArchiveKey { repository: Name::new(repository).unwrap(), suite: Suite::new(suite).unwrap() }
}

pub(super) fn key(name: &str, version: &str, architecture: &str) -> PackageKey {
    PackageKey {
        name: PackageName::new(name).unwrap(),
        version: PackageVersion::new(version).unwrap(),
        architecture: Architecture::new(architecture).unwrap(),
    }
}

/// Adds a pin whose digests follow from its key.
pub(super) fn pin(lock: &mut Lock, key: &PackageKey, archive: &ArchiveKey) {
    let sha256 = BlobDigest::of(key.to_string().as_bytes());
    let package = LockedPackage {
        archive: archive.clone(),
        source: key.name.clone(),
        path: TreePath::new(format!("pool/{}_{}.deb", key.name, key.architecture)).unwrap(),
        size: 1234,
        sha256,
        tree: Some(TreeHash::from_bytes(*sha256.as_bytes())),
        control: None,
    };
    lock.packages.insert(key.clone(), package);
}

pub(super) fn index(lock: &mut Lock, archive: &ArchiveKey, architecture: &str, date: &str) {
    let key = IndexKey {
        archive: archive.clone(),
        architecture: Architecture::new(architecture).unwrap(),
    };
    let index = Index {
        components: [Component::new("main").unwrap()].into(),
        release: BlobDigest::of(date.as_bytes()),
        date: date.parse().unwrap(),
        valid_until: None,
        signer: Fingerprint::new(&"0123456789abcdef".repeat(4)[..40]).unwrap(),
    };
    lock.indexes.insert(key, index);
}

/// A lock of one image, as `build` would make it.
pub(super) fn sample(image: &str, version: &str) -> Lock {
    let mut lock = Lock::default();
    let (main, security) = (archive("debian", "bookworm"), archive("debian", "bookworm-security"));
    index(&mut lock, &main, "amd64", "2026-10-03T09:12:00Z");
    index(&mut lock, &security, "amd64", "2026-11-20T18:00:01Z");
    let libc = key("libc6", "2.36-9+deb12u13", "amd64");
    let redis = key("redis-tools", version, "amd64");
    let debconf = key("debconf", "1.5.82", "all");
    for package in [&libc, &debconf] {
        pin(&mut lock, package, &main);
    }
    pin(&mut lock, &redis, &security);
    lock.packages.get_mut(&libc).unwrap().source = PackageName::new("glibc").unwrap();
    let package = |name| LayerMember::Package(PackageName::new(name).unwrap());
    let content = LockedPlatform {
        packages: [libc.clone(), redis].into(),
        essential: [libc].into(),
        configure: [debconf.clone()].into(),
        recipes: [(Name::new("app").unwrap(), [debconf].into())].into(),
        found_by: [(PackageName::new("libc6").unwrap(), Name::new("app").unwrap())].into(),
        order: Some("bookworm-1".to_owned()),
        layers: vec![
            vec![package("libc6")],
            vec![package("redis-tools"), LayerMember::Special("recipe:app".to_owned())],
            vec![LayerMember::Special("files".to_owned())],
        ],
    };
    let sources = [("app/Cargo.lock".to_owned(), BlobDigest::of(b"x"))].into();
    let locked = LockedImage {
        date: Some("2026-11-20T18:00:01Z".parse().unwrap()),
        base: None,
        suite: Some(Suite::new("bookworm").unwrap()),
        request: Some(LockedRequest {
            suite: Suite::new("stable").unwrap(),
            components: [Component::new("main").unwrap()].into(),
            packages: [RequestedPackage::new("redis-tools 5:7.*").unwrap()].into(),
            essential: false,
            recommends: true,
            exclude: [PackageName::new("mawk").unwrap()].into(),
            repositories: Default::default(),
            recipes: [RequestedRecipe::new("app debconf").unwrap()].into(),
        }),
        archives: [main, security].into(),
        users: [("redis".to_owned(), 101)].into(),
        groups: [("redis".to_owned(), 102)].into(),
        recipes: [(Name::new("app").unwrap(), LockedRecipe { sources })].into(),
        platforms: [(Platform::default_platform(), content)].into(),
    };
    lock.images.insert(ImageName::new(image).unwrap(), locked);
    lock
}

fn parse(text: &str) -> Lock {
    Lock::parse(Path::new("image.lock"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_text_is_made_for_review() {
    let lock = sample("web", "5:7.0.15-1~deb12u5");
    assert_eq!(parse(&lock.to_text()), lock);
    insta::assert_snapshot!("text", lock.to_text());
}

#[test]
fn an_empty_lock_round_trips() {
    assert_eq!(parse(&Lock::default().to_text()), Lock::default());
}

#[test]
fn a_shared_lock_names_versions_only_where_there_are_two() {
    let mut lock = sample("web", "5:7.0.15-1~deb12u5");
    lock.merge(sample("team/worker", "5:7.0.15-1~deb12u6")).unwrap();
    let text = lock.to_text();
    assert_eq!(parse(&text), lock);
    assert!(text.contains("    \"redis-tools 5:7.0.15-1~deb12u5\",\n"), "{text}");
    assert!(text.contains("    \"libc6\",\n"), "one version needs no number:\n{text}");
    assert!(text.contains("[image.\"team/worker\".platform.\"linux/amd64\"]"), "{text}");
}

#[test]
fn merging_replaces_an_image_and_drops_its_old_pins() {
    let mut lock = sample("web", "5:7.0.15-1~deb12u5");
    let newer = sample("web", "5:7.0.15-1~deb12u6");
    lock.merge(newer.clone()).unwrap();
    assert_eq!(lock, newer);
    let moved = sample("web", "1").moved(&newer);
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0].0.as_ref().unwrap().version.as_str(), "1");
}

#[test]
fn merging_keeps_what_only_one_side_knows_and_refuses_what_differs() {
    let old = sample("web", "1");
    let mut fresh = sample("web", "1");
    for package in fresh.packages.values_mut() {
        package.tree = None;
    }
    let mut merged = old.clone();
    merged.merge(fresh.clone()).unwrap();
    assert_eq!(merged, old, "an imported tree's hash is not forgotten");

    let libc = key("libc6", "2.36-9+deb12u13", "amd64");
    fresh.packages.get_mut(&libc).unwrap().sha256 = BlobDigest::of(b"other");
    let mut merged = old.clone();
    let error = merged.merge(fresh).unwrap_err();
    assert!(matches!(error, LockError::Conflict { .. }));
    assert!(error.to_string().contains("libc6 2.36-9+deb12u13 amd64"), "{error}");
    assert_eq!(merged, old, "a refused merge changes nothing");
}

#[test]
fn an_older_release_does_not_replace_a_newer_one() {
    let mut lock = sample("web", "1");
    let mut older = sample("other", "1");
    index(&mut older, &archive("debian", "bookworm"), "amd64", "2025-01-01T00:00:00Z");
    lock.merge(older).unwrap();
    assert!(lock.indexes.values().all(|index| index.date.to_string().starts_with("2026")));
}

#[test]
fn the_canonical_part_of_an_image_ignores_its_neighbours() {
    let (web, platform) = (ImageName::new("web").unwrap(), Platform::default_platform());
    let alone = sample("web", "1");
    let mut shared = alone.clone();
    shared.merge(sample("worker", "2")).unwrap();
    assert!(alone.canonical(&web, platform).is_some());
    assert_eq!(alone.canonical(&web, platform), shared.canonical(&web, platform));
    assert_ne!(alone.canonical(&web, platform), sample("web", "2").canonical(&web, platform));
    let arm = Platform::new("linux/arm64").unwrap();
    assert_eq!(alone.canonical(&web, arm), None);
}

#[test]
fn the_published_example_is_what_the_writer_writes() {
    let documentation = include_str!("../../../../docs/lock.md");
    let example = documentation.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(parse(example).to_text(), example);
    for schema in super::read::all() {
        for key in schema.keys {
            let name = format!("`{}`", key.name);
            assert!(documentation.contains(&name), "{name} of {:?} is not described", schema.title);
        }
    }
}
