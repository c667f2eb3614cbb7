//! What roots keep stays, the rest goes; whatever interrupts it, the store verifies.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::digest::{BlobDigest, TreeHash};
use crate::realisation::Output;
use crate::store::samples::*;
use crate::store::{Problem, Root, now};

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn run(store: &mut Store, options: &GcOptions<'_>) -> GcReport {
    let report = store.gc(options, now()).unwrap();
    assert_eq!(problems(store), []);
    report
}

fn hashes(store: &Store) -> BTreeSet<TreeHash> {
    store.list().unwrap().iter().map(|info| *info.path.hash()).collect()
}

fn all_files(store: &Store) -> BTreeSet<PathBuf> {
    let walk = walkdir::WalkDir::new(store.root()).into_iter();
    // SQLite's own files come and go as it likes.
    walk.map(|entry| entry.unwrap().into_path())
        .filter(|path| !path.to_string_lossy().contains("db.sqlite"))
        .collect()
}

/// Three realised trees, the second rooted by its derivation; all checked out and with logs.
fn three(store: &Store) -> [Output; 3] {
    let trees = ["one", "two", "three"].map(|text| tree(store, text));
    for output in &trees {
        let id = realise(store, &output.path.to_string(), &[output]).id();
        check_out(store, output);
        std::fs::write(store.log_path(&id), "text").unwrap();
        drop(store.lock_derivation(&id).unwrap());
        if *output == trees[1] {
            store.put_root("r", &Root { derivations: vec![id], ..Root::default() }).unwrap();
        }
    }
    trees
}

#[test]
fn what_is_rooted_stays_and_the_rest_goes() {
    let (_directory, mut store) = open();
    let [one, two, three] = three(&store);
    let archive = store.add_blob(b"an archive").unwrap();
    let kept = store.add_blob(b"a kept archive").unwrap();
    store.put_root("blobs", &Root { blobs: vec![kept], ..Root::default() }).unwrap();
    let before = store.usage().unwrap();
    let report = run(&mut store, &GcOptions::default());
    assert_eq!((report.trees, report.realisations, report.checkouts), (2, 2, 2));
    assert_eq!((report.blobs, report.logs, report.locks), (5, 2, 3));
    assert_eq!((report.kept_trees, report.kept_blobs), (1, 3));
    assert_eq!(report.left, []);
    assert_eq!(hashes(&store), [*two.path.hash()].into());
    assert!(!store.has_blob(&archive) && store.has_blob(&kept));
    for output in [&one, &three] {
        assert!(!store.has_blob(&output.layers[0].digest));
        assert!(!store.checkout_path(&output.path).exists());
    }
    assert!(store.checkout_path(&two.path).exists());
    let after = store.usage().unwrap();
    let bytes = |usage: &crate::store::StoreUsage| usage.total_bytes - usage.database.bytes;
    assert_eq!(bytes(&before) - bytes(&after), report.bytes);
    assert_eq!(bytes(&after), report.kept_bytes);
    let again = run(&mut store, &GcOptions::default());
    assert_eq!((again.bytes, again.blobs, again.trees), (0, 0, 0));
}

#[test]
fn a_dry_run_removes_nothing_and_tells_the_same() {
    let (_directory, mut store) = open();
    three(&store);
    store.add_blob(b"an archive").unwrap();
    let image = store.root().join("gone.toml");
    store.put_root("gone", &Root { image: Some(image), ..Root::default() }).unwrap();
    let files = all_files(&store);
    let _other = Store::open(store.root()).unwrap();
    let dry = run(&mut store, &GcOptions { dry_run: true, ..GcOptions::default() });
    drop(_other);
    assert_eq!(all_files(&store), files, "nothing is removed, and nobody has to wait");
    let mut real = run(&mut store, &GcOptions::default());
    assert_ne!(real.bytes, 0);
    assert_eq!(real.roots, ["gone"]);
    real.dry_run = true;
    assert_eq!(dry, real);
}

#[test]
fn roots_go_with_their_image() {
    let (directory, mut store) = open();
    let output = tree(&store, "one");
    let image = directory.path().join("tmp/image.toml");
    std::fs::write(&image, "").unwrap();
    let root =
        Root { image: Some(image.clone()), trees: vec![*output.path.hash()], ..Root::default() };
    store.put_root("r", &root).unwrap();
    // The file lies in the store's debris: it goes last.
    let report = store.gc(&GcOptions::default(), now()).unwrap();
    assert_eq!((report.trees, report.temporary), (0, 1));
    assert!(!image.exists());
    let report = run(&mut store, &GcOptions::default());
    assert_eq!((report.roots.as_slice(), report.trees), (&["r".to_owned()][..], 1));
    assert_eq!(store.roots().unwrap(), []);
}

#[test]
fn what_a_tree_needs_stays_with_it() {
    let (_directory, mut store) = open();
    let needed = tree(&store, "needed");
    let other = tree(&store, "other");
    let mut needs = tree(&store, "needs");
    needs.references = vec![*needed.path.hash()];
    realise(&store, "k", &[&needs]);
    // Recent use of what needs it is use.
    set_used(&store, needed.path.hash(), 5);
    set_used(&store, other.path.hash(), 5);
    let report = run(&mut store, &GcOptions { keep_days: Some(7), ..GcOptions::default() });
    assert_eq!(report.trees, 1);
    assert_eq!(hashes(&store), [*needed.path.hash(), *needs.path.hash()].into());
    let root = Root { trees: vec![*needs.path.hash()], ..Root::default() };
    store.put_root("r", &root).unwrap();
    assert_eq!(run(&mut store, &GcOptions::default()).trees, 0);
    store.remove_root("r").unwrap();
    let root = Root { trees: vec![*needed.path.hash()], ..Root::default() };
    store.put_root("r", &root).unwrap();
    assert_eq!(run(&mut store, &GcOptions::default()).trees, 1);
    assert_eq!(hashes(&store), [*needed.path.hash()].into());
}

#[test]
fn one_lost_output_costs_the_realisation_only() {
    let (_directory, mut store) = open();
    let (one, two) = (tree(&store, "one"), tree(&store, "two"));
    let both = realise(&store, "both", &[&one, &two]);
    let single = realise(&store, "single", &[&one]);
    let root = Root { trees: vec![*one.path.hash()], ..Root::default() };
    store.put_root("r", &root).unwrap();
    let report = run(&mut store, &GcOptions::default());
    assert_eq!((report.trees, report.realisations), (1, 1));
    assert_eq!(store.realisation(&both.id()).unwrap(), None);
    assert!(store.realisation(&single.id()).unwrap().is_some());
}

#[test]
fn recent_things_stay_and_reads_make_them_recent() {
    let (_directory, mut store) = open();
    let trees = three(&store);
    let ids = trees.each_ref().map(|output| {
        let name = output.path.to_string();
        crate::derivation::Derivation {
            outputs: vec!["out0".into()],
            ..crate::derivation::Derivation::new("files", 1)
        }
        .with_arg("key", name)
        .id()
    });
    store.remove_root("r").unwrap();
    store.put_fact("k", "old", "v").unwrap();
    store.put_fact("k", "read", "v").unwrap();
    let old = now() - 30 * DAY;
    for table in ["trees", "derivations", "facts"] {
        sql(&store, &format!("UPDATE {table} SET used = {old}"));
    }
    assert!(store.realisation(&ids[2]).unwrap().is_some());
    assert_eq!(store.fact("k", "read").unwrap().as_deref(), Some("v"));
    let options = GcOptions { keep_days: Some(29), ..GcOptions::default() };
    let report = run(&mut store, &options);
    assert_eq!((report.trees, report.realisations, report.facts), (2, 2, 1));
    assert_eq!(hashes(&store), [*trees[2].path.hash()].into());
    assert_eq!(store.fact("k", "old").unwrap(), None);
    assert!(store.realisation(&ids[2]).unwrap().is_some());
}

#[test]
fn the_least_recently_used_goes_first_until_the_size_fits() {
    let (_directory, mut store) = open();
    let trees = three(&store);
    store.remove_root("r").unwrap();
    sql(&store, "UPDATE derivations SET used = 0");
    for (output, used) in trees.iter().zip([now() - 20, now() - 40, now() - 30]) {
        set_used(&store, output.path.hash(), used);
    }
    let size = |store: &Store| {
        let usage = store.usage().unwrap();
        usage.total_bytes - usage.database.bytes
    };
    let all = size(&store);
    let options = |max: u64| GcOptions { max_size: Some(max), ..GcOptions::default() };
    // Their derivations are as old as can be and go, with their logs; the trees fit.
    let report = run(&mut store, &options(all));
    assert_eq!((report.trees, report.realisations, report.logs), (0, 3, 3));
    let all = size(&store);
    let report = run(&mut store, &options(all - 1));
    assert_eq!(report.trees, 1);
    assert_eq!(hashes(&store), [*trees[0].path.hash(), *trees[2].path.hash()].into());
    assert_eq!(size(&store), report.kept_bytes);
    assert_eq!(run(&mut store, &options(0)).trees, 2);
    assert_eq!(size(&store), 0);
    let again = tree(&store, "one");
    let root = Root { trees: vec![*again.path.hash()], ..Root::default() };
    store.put_root("r", &root).unwrap();
    assert_eq!(run(&mut store, &options(0)).trees, 0, "roots come before sizes");
}

#[test]
fn a_store_in_use_is_left_alone() {
    let (_directory, mut store) = open();
    let output = tree(&store, "one");
    let other = Store::open(store.root()).unwrap();
    let options = GcOptions { wait: Duration::from_millis(120), ..GcOptions::default() };
    let error = store.gc(&options, now()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    assert!(store.has_blob(&output.layers[0].digest));
    let root = store.root().to_owned();
    // The failed try has not cost the store its own lock.
    let mut third = Store::open(&root).unwrap();
    drop(other);
    assert!(matches!(third.gc(&options, now()), Err(StoreError::InUse { .. })));
    drop(third);
    assert_eq!(run(&mut store, &options).trees, 1);
}

#[test]
fn gc_waits_for_builds_that_end() {
    let (_directory, mut store) = open();
    let other = Store::open(store.root()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            drop(other);
        });
        store.gc(&GcOptions::default(), now()).unwrap();
    });
}

#[test]
fn doubt_stops_it() {
    let (_directory, mut store) = open();
    tree(&store, "one");
    let files = all_files(&store);
    let path = store.root().join("roots/r.json");
    std::fs::write(&path, "{").unwrap();
    let error = store.gc(&GcOptions::default(), now()).unwrap_err();
    assert!(error.to_string().contains("r.json"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(all_files(&store), files);
    sql(&store, "UPDATE trees SET diff_id = 'x'");
    assert!(matches!(store.gc(&GcOptions::default(), now()), Err(StoreError::Corrupt { .. })));
    assert_eq!(all_files(&store), files);
}

#[test]
fn the_caller_removes_checkouts_and_debris() {
    let (_directory, mut store) = open();
    let output = tree(&store, "one");
    check_out(&store, &output);
    let debris = store.root().join("tmp/dead");
    std::fs::create_dir(&debris).unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    let refuse = |path: &Path| {
        seen.lock().unwrap().push(path.to_owned());
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    };
    let report = run(&mut store, &GcOptions { remove: &refuse, ..GcOptions::default() });
    let aside = store.root().join(format!("trees/{REMOVED}{}", output.path.hash()));
    let paths: Vec<_> = report.left.iter().map(|left| left.path.clone()).collect();
    assert_eq!(paths, [debris.clone(), store.checkout_path(&output.path)]);
    assert_eq!(seen.into_inner().unwrap(), [debris.clone(), aside.clone()]);
    assert!(report.left[1].problem.contains("permission denied"), "{report:?}");
    assert_eq!(report.checkouts, 0);
    assert!(aside.exists(), "half a checkout is never under its own name");
    let report = run(&mut store, &GcOptions::default());
    assert_eq!(report.temporary, 2);
    assert!(!aside.exists() && !debris.exists());
}

/// Takes the first `count` steps of a collection, as if the process died then.
fn crash_after(store: &mut Store, count: usize) -> usize {
    let options = GcOptions::default();
    let (steps, _) = store.plan(&options, now()).unwrap();
    for step in steps.iter().take(count) {
        store.take(step, options.remove).unwrap();
    }
    steps.len()
}

#[test]
fn a_crash_at_any_step_leaves_a_store_that_verifies() {
    let mut count = 0;
    loop {
        let (directory, mut store) = open();
        let [one, two, _] = three(&store);
        store.add_blob(b"an archive").unwrap();
        let image = directory.path().join("gone.toml");
        store.put_root("gone", &Root { image: Some(image), ..Root::default() }).unwrap();
        let total = crash_after(&mut store, count);
        drop(store);
        let mut store = Store::open(directory.path()).unwrap();
        assert_eq!(problems(&mut store), [], "after {count} steps");
        assert!(store.has_blob(&two.layers[0].digest));
        // The next build goes on from there, and so does the next collection.
        let again = tree(&store, "one");
        assert_eq!(again, one);
        realise(&store, "again", &[&again]);
        assert_eq!(problems(&mut store), [], "after {count} steps and a build");
        run(&mut store, &GcOptions::default());
        assert_eq!(hashes(&store), [*two.path.hash()].into());
        if count == total {
            assert!(total > 12, "{total}");
            break;
        }
        count += 1;
    }
}

/// One thing that happens to a store.
#[derive(Debug, Clone)]
enum Event {
    Tree { text: u8, needs: Option<u8>, age: i64 },
    Realise { key: u8, trees: Vec<u8> },
    Root { name: u8, trees: Vec<u8> },
    Blob(u8),
    CheckOut(u8),
    LoseRoot(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let text = 0u8..6;
    let many = proptest::collection::vec(text.clone(), 1..3);
    prop_oneof![
        3 => (text.clone(), proptest::option::of(text.clone()), 0i64..50)
            .prop_map(|(text, needs, age)| Event::Tree { text, needs, age }),
        2 => (0u8..4, many.clone()).prop_map(|(key, trees)| Event::Realise { key, trees }),
        2 => (0u8..3, many).prop_map(|(name, trees)| Event::Root { name, trees }),
        1 => text.clone().prop_map(Event::Blob),
        1 => text.prop_map(Event::CheckOut),
        1 => (0u8..3).prop_map(Event::LoseRoot),
    ]
}

fn happen(store: &Store, event: &Event) {
    let tree = |text: &u8| tree(store, &text.to_string());
    match event {
        Event::Tree { text, needs, age } => {
            let mut output = tree(text);
            output.references =
                needs.iter().filter(|other| *other < text).map(|t| *tree(t).path.hash()).collect();
            store.database.put_output(&output, now() - age * DAY).unwrap();
        }
        Event::Realise { key, trees } => {
            let trees: Vec<Output> = trees.iter().map(tree).collect();
            realise(store, &key.to_string(), &trees.iter().collect::<Vec<_>>());
        }
        Event::Root { name, trees } => {
            let trees = trees.iter().map(|text| *tree(text).path.hash()).collect();
            let root = Root { trees, ..Root::default() };
            store.put_root(&name.to_string(), &root).unwrap();
        }
        Event::Blob(text) => drop(store.add_blob(&[*text]).unwrap()),
        Event::CheckOut(text) => {
            let output = tree(text);
            if !store.checkout_path(&output.path).exists() {
                check_out(store, &output);
            }
        }
        Event::LoseRoot(name) => drop(store.remove_root(&name.to_string()).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_happened_a_collected_store_verifies(
        events in proptest::collection::vec(event(), 0..14),
        keep_days in proptest::option::of(0u64..50),
        max_size in proptest::option::of(0u64..100_000),
        repeat in 0usize..2,
    ) {
        let (_directory, mut store) = open();
        for _ in 0..=repeat {
            events.iter().for_each(|event| happen(&store, event));
            let options = GcOptions { keep_days, max_size, ..GcOptions::default() };
            let report = store.gc(&options, now()).unwrap();
            prop_assert_eq!(problems(&mut store), Vec::<Problem>::new());
            prop_assert_eq!(&report.left, &[]);
            let trees = hashes(&store);
            prop_assert_eq!(trees.len() as u64, report.kept_trees);
            for (name, root) in store.roots().unwrap() {
                prop_assert!(root.trees.iter().all(|tree| trees.contains(tree)), "{}", name);
            }
            for tree in &trees {
                let output = store.output(tree).unwrap().unwrap();
                prop_assert!(output.references.iter().all(|needed| trees.contains(needed)));
            }
            // Nothing is left that nothing names, but what is young enough.
            if keep_days.is_none() && max_size.is_none() {
                let records = store.database.inventory().unwrap();
                let named: BTreeSet<BlobDigest> =
                    records.trees.values().flat_map(|record| record.blobs()).collect();
                let disk = store.scan().unwrap();
                prop_assert!(disk.blobs.keys().all(|digest| named.contains(digest)));
            }
            // A second collection finds nothing more to take.
            let again = store.gc(&options, now()).unwrap();
            prop_assert_eq!((again.trees, again.blobs, again.checkouts), (0, 0, 0));
        }
    }
}
