//! Many handles, threads and processes use one store at once; some of them die.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking; clippy sees helpers as none")]

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drystone_store::derivation::Derivation;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{GcOptions, Problem, Store, VerifyOptions};
use drystone_store::tree::{Entry, TreePath};

/// Tells a process that it is to build, and where; it is this test's own program.
const BUILD_IN: &str = "DRYSTONE_TEST_BUILD_IN";

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Realises derivation number `number` as a build does: looks, locks, looks again, builds.
fn build(store: &Store, number: u32) -> Output {
    let derivation = Derivation::new("files", 1).with_arg("number", number);
    let id = derivation.id();
    let _lock = store.lock_derivation(&id).unwrap();
    if let Some(realisation) = store.realisation(&id).unwrap() {
        return realisation.outputs["out"].clone();
    }
    let mut spool = store.spool();
    spool.add_file(path("etc/number"), 0o644, number.to_string().as_bytes()).unwrap();
    spool.add_file(path("usr/data"), 0o644, &vec![number as u8; 300_000]).unwrap();
    spool.add_empty(Entry::symlink(path("usr/link"), "data")).unwrap();
    let compression = [Compression::Gzip1, Compression::Zstd1][number as usize % 2];
    let output = store.add_tree("sample", compression, &mut spool).unwrap();
    std::fs::write(store.log_path(&id), "built").unwrap();
    store.put_realisation(&derivation, [("out".to_owned(), output.clone())]).unwrap();
    output
}

fn problems(root: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut store = Store::open(root).unwrap();
    store.verify(&VerifyOptions::default(), &mut |p| problems.push(p.clone())).unwrap();
    problems
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

#[test]
fn threads_with_their_own_handles_make_the_same_trees_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let results: Vec<Vec<Output>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|turn| {
                let root = directory.path();
                scope.spawn(move || {
                    let store = Store::open(root).unwrap();
                    let mut outputs: Vec<_> =
                        (0..6).map(|number| build(&store, (number + turn) % 6)).collect();
                    outputs.rotate_right(turn as usize % 6);
                    outputs
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(problems(directory.path()), []);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.list().unwrap().len(), 6);
    let usage = store.usage().unwrap();
    assert_eq!((usage.layers.count, usage.listings.count, usage.archives.count), (6, 6, 0));
}

#[test]
fn one_handle_without_locks_makes_the_same_tree_in_many_threads() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let ingest = || {
        let mut spool = store.spool();
        spool.add_file(path("data"), 0o644, &vec![9; 2_000_000]).unwrap();
        store.add_tree("same", Compression::Gzip1, &mut spool).unwrap()
    };
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ingest)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
    drop(store);
    assert_eq!(problems(directory.path()), []);
}

#[test]
fn collection_between_builds_takes_nothing_that_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let collections = std::thread::scope(|scope| {
        let builders: Vec<_> = (0..3_u32)
            .map(|turn| {
                scope.spawn(move || {
                    for round in 0..6 {
                        let store = Store::open(root).unwrap();
                        let output = build(&store, (turn + round) % 4);
                        // While the handle is open all of it stays, rooted or not.
                        std::thread::sleep(Duration::from_millis(2));
                        assert!(store.listing(&output).unwrap().is_some());
                        assert!(store.open_tree(&output).unwrap().is_some());
                        drop(store);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                })
            })
            .collect();
        let mut collections = 0;
        while builders.iter().any(|builder| !builder.is_finished()) {
            let mut store = Store::open(root).unwrap();
            let options = GcOptions { wait: Duration::from_millis(60), ..GcOptions::default() };
            collections += u32::from(store.gc(&options, now()).is_ok());
        }
        builders.into_iter().for_each(|builder| builder.join().unwrap());
        collections
    });
    println!("{collections} collections ran between builds");
    assert_eq!(problems(root), []);
}

/// Builds until it is killed; run as a process of its own by the test below.
#[test]
fn build_as_a_child() {
    let Ok(root) = std::env::var(BUILD_IN) else { return };
    for number in 0.. {
        let store = Store::open(Path::new(&root)).unwrap();
        build(&store, number % 40);
        if number % 40 == 39 {
            let mut store = store;
            let options = GcOptions { wait: Duration::ZERO, ..GcOptions::default() };
            let _ = store.gc(&options, now());
        }
    }
}

fn spawn_builder(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "build_as_a_child", "--nocapture"])
        .env(BUILD_IN, root)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_processes_leave_a_store_that_verifies() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..6_u64 {
        let mut children = [spawn_builder(directory.path()), spawn_builder(directory.path())];
        for (index, child) in children.iter_mut().enumerate() {
            std::thread::sleep(Duration::from_millis(40 + round * 37 + index as u64 * 13));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(problems(directory.path()), [], "round {round}");
    }
    let mut store = Store::open(directory.path()).unwrap();
    let build_again = build(&store, 7);
    assert!(store.listing(&build_again).unwrap().is_some());
    let report = store.gc(&GcOptions::default(), now()).unwrap();
    assert_eq!((report.kept_trees, report.kept_blobs, report.left.len()), (0, 0, 0));
    let left = std::fs::read_dir(directory.path().join("tmp")).unwrap().count();
    assert_eq!(left, 1, "this process's own directory alone is left");
}

#[test]
fn many_may_open_a_new_store_at_once() {
    const THREADS: usize = 16;
    for _ in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let all_are_there = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    all_are_there.wait();
                    drop(Store::open(directory.path()).unwrap());
                });
            }
        });
    }
}
