//! From pins to trees.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use drystone_store::digest::{BlobDigest, TreeHash};
use drystone_store::layer::Compression;
use drystone_store::store::Store;
use drystone_store::with_causes;

use super::world::*;
use crate::lock::{Lock, PackageKey};
use crate::resolve::{ImportError, Imports, Sources, import_packages, record_trees};
use drystone_source::fetch::Downloader;

/// The misbehaving server of the downloads' own tests.
#[allow(dead_code, reason = "it is asked for nothing but files here")]
#[path = "../../../../source/src/fetch/testing.rs"]
mod testing;

use testing::TestServer;

struct Kit {
    store: Arc<Store>,
    downloader: Downloader,
    sources: Sources,
}

impl Kit {
    fn new(world: &World, store: &str, sources: Sources) -> Self {
        let store = Arc::new(Store::open(&world.path(store)).unwrap());
        Self { store, downloader: downloader(), sources }
    }

    fn on<'a>(&'a self, world: &'a World) -> Imports<'a> {
        Imports {
            store: &self.store,
            downloader: &self.downloader,
            sources: &self.sources,
            compression: Compression::Gzip1,
            jobs: 2,
            offline: false,
            progress: &world.events,
        }
    }
}

fn from_disk(world: &World) -> Sources {
    Sources::new(Some(world.url("r")), None, "/nonexistent")
}

fn keys(lock: &Lock) -> Vec<PackageKey> {
    lock.packages.keys().cloned().collect()
}

fn leftovers(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(store.temporary_directory()).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("deb-")).collect()
}

fn serve(world: &World) -> TestServer {
    let server = TestServer::start();
    for entry in walkdir::WalkDir::new(world.path("r")).into_iter().flatten() {
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(world.path("r")).unwrap();
            server.put(&format!("/debian/{}", path.display()), fs::read(entry.path()).unwrap());
        }
    }
    server
}

#[tokio::test]
async fn pins_become_trees_once() {
    let Some(world) = World::with(&["web 1:1~x Depends: libc"]) else { return };
    let server = serve(&world);
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let mut resolver = world.resolver();
    let mirror = || Sources::new(Some(server.url("/debian")), None, "/nonexistent");
    resolver.sources = mirror();
    let locked = resolver.lock_image(&image, &image.platforms, None, &crate::resolve::Update::All);
    let mut lock = locked.await.unwrap();
    let before = world.events.bytes();
    let kit = Kit::new(&world, "s", mirror());
    let keys = keys(&lock);
    let imported = import_packages(kit.on(&world), &lock, &keys).await.unwrap();
    assert_eq!(imported.keys().cloned().collect::<Vec<_>>(), keys);
    let (expected, received) = world.events.bytes();
    let total: u64 = lock.packages.values().map(|pin| pin.size).sum();
    assert_eq!((expected - before.0, received - before.1), (total, total));
    let done = world.events.done();
    assert!(keys.iter().all(|key| done.contains(&key.to_string())), "{done:?}");
    assert_eq!(leftovers(&kit.store), [""; 0]);
    let web = imported.iter().find(|(key, _)| key.name.as_str() == "web").unwrap();
    assert_eq!(web.1.data.path.name(), "web-1_x", "no epoch, no odd characters");
    let mut seen = Vec::new();
    kit.store
        .read_tree(&web.1.data, |entry, _| {
            seen.push(entry.path.to_string());
            Ok::<(), drystone_store::store::StoreError>(())
        })
        .unwrap();
    assert!(seen.contains(&"usr/share/doc/web/version".to_owned()), "{seen:?}");
    record_trees(&mut lock, &imported);
    assert!(lock.packages.values().all(|pin| pin.tree.is_some() && pin.control.is_some()));

    // The second time nothing is fetched, and the network may be forbidden.
    let asked = server.requests().len();
    let offline = Imports { offline: true, ..kit.on(&world) };
    let again = import_packages(offline, &lock, &keys).await.unwrap();
    assert_eq!(server.requests().len(), asked);
    assert!(again.iter().all(|(key, deb)| deb.data == imported[key].data));

    // The same trees from another store.
    let other = Kit::new(&world, "other", from_disk(&world));
    let again =
        import_packages(Imports { jobs: 1, ..other.on(&world) }, &lock, &keys).await.unwrap();
    assert!(again.iter().all(|(key, deb)| deb.control.path == imported[key].control.path));
}

#[tokio::test]
async fn offline_names_everything_that_is_missing() {
    let Some(world) = World::with(&["web 1", "more 1"]) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web', 'more']");
    let lock = world.first(&image).await;
    let kit = Kit::new(&world, "s", from_disk(&world));
    let (have, want): (Vec<_>, Vec<_>) =
        keys(&lock).into_iter().partition(|key| !["web", "more"].contains(&key.name.as_str()));
    import_packages(kit.on(&world), &lock, &have).await.unwrap();
    let offline = Imports { offline: true, ..kit.on(&world) };
    let error = import_packages(offline, &lock, &keys(&lock)).await.unwrap_err();
    let ImportError::Offline { packages } = &error else { panic!("{error}") };
    assert_eq!(packages, &want);
    assert!(error.to_string().contains("more 1 all, web 1 all"), "{error}");
    assert_eq!(error.exit_code(), 6);
}

#[tokio::test]
async fn trees_that_differ_from_the_locks_are_refused() {
    let Some(world) = World::with(&[]) else { return };
    let image = world.image("suite = 'rock'\npackages = ['mawk']");
    let mut lock = world.first(&image).await;
    let key = keys(&lock).into_iter().find(|key| key.name.as_str() == "mawk").unwrap();
    lock.packages.get_mut(&key).unwrap().control = Some(TreeHash::from_bytes([1; 32]));
    let kit = Kit::new(&world, "s", from_disk(&world));
    let error = import_packages(kit.on(&world), &lock, &[key]).await.unwrap_err();
    assert!(matches!(error, ImportError::Differs { what: "control", .. }), "{error}");
    assert_eq!(error.exit_code(), 7);
    assert!(error.to_string().contains("mawk 1 all"), "{error}");
}

#[tokio::test]
async fn bad_and_vanished_files_are_named() {
    let Some(world) = World::with(&["web 1", "gone 1"]) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web', 'gone']");
    let mut lock = world.first(&image).await;
    let kit = Kit::new(&world, "s", from_disk(&world));
    let find = |lock: &Lock, name: &str| {
        keys(lock).into_iter().find(|key| key.name.as_str() == name).unwrap()
    };
    let (web, gone) = (find(&lock, "web"), find(&lock, "gone"));
    let file =
        |lock: &Lock, key: &PackageKey| world.path("r").join(lock.packages[key].path.as_str());
    let import = async |lock: &Lock, key: &PackageKey| {
        let result = import_packages(kit.on(&world), lock, std::slice::from_ref(key)).await;
        let error = result.unwrap_err();
        assert_eq!(leftovers(&kit.store), [""; 0]);
        error
    };
    fs::remove_file(file(&lock, &gone)).unwrap();
    let error = import(&lock, &gone).await;
    assert!(matches!(error, ImportError::Gone { .. }), "{error}");
    assert!(error.hint().unwrap().contains("drystone update gone"));
    // Another content of the same size.
    let path = file(&lock, &web);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = import(&lock, &web).await;
    assert_eq!(error.exit_code(), 7, "{}", with_causes(&error));
    // What the lock pins, but no package.
    let pin = lock.packages.get_mut(&web).unwrap();
    (pin.sha256, pin.size) = (BlobDigest::of(b"!<arch>\nnonsense"), 16);
    fs::write(&path, b"!<arch>\nnonsense").unwrap();
    let error = import(&lock, &web).await;
    let ImportError::Deb { file, .. } = &error else { panic!("{error}") };
    assert!(file.ends_with("web_1_all.deb"));
    assert_eq!(error.exit_code(), 1);
    let error = import(&Lock::default(), &web).await;
    assert!(matches!(error, ImportError::NotLocked { .. }), "{error}");
}

#[tokio::test]
async fn a_repository_without_address_is_named() {
    let Some(world) = World::with(&[]) else { return };
    world.publish("node", "x", &["node 1"], &[]);
    let image = world.image(&format!(
        "suite = 'rock'\npackages = [{{ name = 'node', from = 'node' }}]\n\
         [debian.repository.node]\nurl = '{}'\nsuite = 'x'\nkey = '{}'",
        world.url("node"),
        world.key("node").display()
    ));
    let lock = world.first(&image).await;
    let without = Kit::new(&world, "s", from_disk(&world));
    let error = import_packages(without.on(&world), &lock, &keys(&lock)).await.unwrap_err();
    assert!(matches!(error, ImportError::NoAddress { .. }), "{error}");
    let sources = from_disk(&world).with_repositories(&image.repositories);
    let with = Kit::new(&world, "s", sources);
    import_packages(with.on(&world), &lock, &keys(&lock)).await.unwrap();
}

#[tokio::test]
async fn a_lock_is_proved_against_what_is_signed_today() {
    let Some(world) = World::with(&["web 1 Depends: libc"]) else { return };
    let image = world.image("suite = 'rock'\npackages = ['web']");
    let lock = world.first(&image).await;
    let unproved = async |lock: &Lock| {
        let unproved = world.resolver().verify_lock(&image, lock).await.unwrap();
        unproved.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(unproved(&lock).await, [""; 0]);
    let mut forged = lock.clone();
    let web = forged.packages.iter_mut().find(|(key, _)| key.name.as_str() == "web").unwrap().1;
    web.sha256 = BlobDigest::of(b"evil");
    let found = unproved(&forged).await;
    assert!(
        found.len() == 1 && found[0].contains("web 1 all") && found[0].contains("another digest"),
        "{found:?}"
    );
    world.publish("r", "rock", &[BASE, &["web 2"]].concat(), &[]);
    let found = unproved(&lock).await;
    assert!(found.len() == 1 && found[0].contains("no longer listed"), "{found:?}");
    assert!(Path::new(&world.path("r")).exists());
}
