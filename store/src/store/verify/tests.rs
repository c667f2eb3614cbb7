//! Each kind of damage is found, told with place, and mended as far as it can be.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::layer::Compression;
use crate::store::Root;
use crate::store::samples::*;

/// A store with two trees, one of them in both compressions, realised and checked out.
struct Sample {
    _directory: tempfile::TempDir,
    store: Store,
    one: Output,
    two: Output,
    maker: Derivation,
}

impl Sample {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let (one, two) = (tree(&store, "one"), tree(&store, "two"));
        store.layer(&two, Compression::Zstd1).unwrap();
        let two = store.output(two.path.hash()).unwrap().unwrap();
        let maker = realise(&store, "k", &[&one, &two]);
        check_out(&store, &one);
        store.put_root("r", &Root::default()).unwrap();
        store.add_blob(b"an archive").unwrap();
        std::fs::write(store.log_path(&maker.id()), "built").unwrap();
        assert_eq!(problems(&mut store), []);
        Self { _directory: directory, store, one, two, maker }
    }

    fn layer(&self, output: &Output, compression: Compression) -> PathBuf {
        self.store.blob_path(&output.layer(compression).unwrap().digest)
    }

    /// Looks, repairs, looks again: the problems, the report of the repair, what is left.
    fn mend(&mut self) -> (Vec<Problem>, VerifyReport, Vec<Problem>) {
        let found = problems(&mut self.store);
        let options = VerifyOptions { repair: true, ..VerifyOptions::default() };
        let report = self.store.verify(&options, &mut |_| ()).unwrap();
        (found, report, problems(&mut self.store))
    }

    /// One problem is found, and nothing is left of it; nothing must be built again.
    fn mends_alone(&mut self, is_it: impl Fn(&Problem) -> bool) -> Vec<Repair> {
        let (found, report, left) = self.mend();
        assert!(matches!(found.as_slice(), [problem] if is_it(problem)), "{found:#?}");
        assert_eq!(report.lost, []);
        assert_eq!(left, []);
        assert!(self.store.realisation(&self.maker.id()).unwrap().is_some());
        report.repaired
    }

    /// The problems cost tree `one`, which must be built again, and no other.
    fn costs_one(&mut self, is_it: impl Fn(&Problem) -> bool) {
        let (found, report, left) = self.mend();
        assert!(found.iter().any(is_it), "{found:#?}");
        let lost = Lost { tree: self.one.path.clone(), derivations: vec![self.maker.id()] };
        assert_eq!(report.lost, [lost]);
        assert_eq!(left, []);
        assert_eq!(self.store.realisation(&self.maker.id()).unwrap(), None);
        assert_eq!(self.store.output(self.one.path.hash()).unwrap(), None);
        // The next build makes it again.
        let again = tree(&self.store, "one");
        realise(&self.store, "k", &[&again, &self.two]);
        assert_eq!(again, self.one);
        assert_eq!(problems(&mut self.store), []);
    }
}

#[test]
fn a_whole_store_is_counted() {
    let mut sample = Sample::new();
    let report = sample.store.verify(&VerifyOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((report.trees, report.derivations, report.checkouts), (2, 1, 1));
    assert_eq!((report.blobs, report.unreferenced), (6, 1), "three layers, two listings, one more");
    let progress = AtomicU64::new(0);
    let options = VerifyOptions { progress: &progress, ..VerifyOptions::default() };
    let report = sample.store.verify(&options, &mut |_| ()).unwrap();
    assert_eq!(progress.into_inner(), report.bytes);
}

#[test]
fn a_flipped_byte_in_the_only_layer_costs_the_tree() {
    let mut sample = Sample::new();
    flip(&sample.layer(&sample.one, Compression::Gzip1));
    sample.costs_one(|problem| matches!(problem, Problem::DamagedBlob { .. }));
}

#[test]
fn a_truncated_layer_costs_the_tree() {
    for length in [0, 100] {
        let mut sample = Sample::new();
        let file = sample.layer(&sample.one, Compression::Gzip1);
        std::fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap();
        sample.costs_one(|problem| matches!(problem, Problem::DamagedBlob { .. }));
    }
}

#[test]
fn a_missing_layer_costs_the_tree() {
    let mut sample = Sample::new();
    std::fs::remove_file(sample.layer(&sample.one, Compression::Gzip1)).unwrap();
    sample.costs_one(|problem| matches!(problem, Problem::MissingLayer { .. }));
}

#[test]
fn a_layer_is_made_again_from_another_compression() {
    for compression in [Compression::Gzip1, Compression::Zstd1] {
        for damage in [flip as fn(&Path), |path| std::fs::remove_file(path).unwrap()] {
            let mut sample = Sample::new();
            let file = sample.layer(&sample.two, compression);
            let bytes = std::fs::read(&file).unwrap();
            damage(&file);
            let repaired = sample.mends_alone(|problem| {
                matches!(problem, Problem::DamagedBlob { .. } | Problem::MissingLayer { .. })
            });
            let tree = sample.two.path.clone();
            assert_eq!(repaired.last(), Some(&Repair::RemadeLayer { tree, compression }));
            assert_eq!(std::fs::read(&file).unwrap(), bytes);
        }
    }
}

#[test]
fn a_listing_is_made_again_from_the_layer() {
    for damage in [flip as fn(&Path), |path| std::fs::remove_file(path).unwrap()] {
        let mut sample = Sample::new();
        let file = sample.store.blob_path(&sample.one.listing.digest);
        let bytes = std::fs::read(&file).unwrap();
        damage(&file);
        sample.mends_alone(|problem| {
            matches!(problem, Problem::DamagedBlob { .. } | Problem::MissingListing { .. })
        });
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
}

#[test]
fn wrong_rows_are_written_again_from_the_bytes() {
    let zeros = format!("sha256:{}", "0".repeat(64));
    let other = Sample::new().two.listing.digest;
    for (field, set) in [
        ("diff id", format!("diff_id = '{zeros}'")),
        ("size", "size = 5".to_owned()),
        ("listing", format!("listing = '{other}'")),
        ("size of the listing", "listing_size = 5".to_owned()),
    ] {
        let mut sample = Sample::new();
        let hash = sample.one.path.hash().to_string();
        sql(&sample.store, &format!("UPDATE trees SET {set} WHERE hash = '{hash}'"));
        let (found, report, left) = sample.mend();
        assert!(
            found.iter().any(|problem| {
                matches!(problem, Problem::WrongRecord { field: found, .. } if *found == field)
            }),
            "{field}: {found:#?}"
        );
        assert_eq!((report.lost, left), (vec![], vec![]), "{field}");
        assert_eq!(
            sample.store.output(sample.one.path.hash()).unwrap().as_ref(),
            Some(&sample.one),
            "{field}"
        );
    }
    let mut sample = Sample::new();
    sql(&sample.store, "UPDATE layers SET size = 5 WHERE compression = 'zstd-1'");
    sample.mends_alone(|problem| matches!(problem, Problem::WrongRecord { .. }));
}

#[test]
fn a_layer_of_another_tree_is_forgotten() {
    let mut sample = Sample::new();
    let (one, two) = (*sample.one.path.hash(), sample.two.layer(Compression::Gzip1).unwrap());
    let digest = two.digest;
    sql(&sample.store, &format!("UPDATE layers SET digest = '{digest}' WHERE tree = '{one}'"));
    sample.costs_one(|problem| matches!(problem, Problem::WrongLayer { .. }));
}

#[test]
fn a_layer_of_another_compression_is_made_again() {
    let mut sample = Sample::new();
    let digest = sample.two.layer(Compression::Gzip1).unwrap().digest;
    sql(
        &sample.store,
        &format!("UPDATE layers SET digest = '{digest}' WHERE compression = 'zstd-1'"),
    );
    let (found, report, left) = sample.mend();
    assert!(found.iter().any(|p| matches!(p, Problem::WrongLayer { .. })), "{found:#?}");
    assert_eq!((report.lost, left), (vec![], vec![]));
    assert_eq!(sample.store.output(sample.two.path.hash()).unwrap(), Some(sample.two.clone()));
}

#[test]
fn malformed_rows_are_dropped() {
    for (statement, cost) in [
        ("UPDATE trees SET diff_id = 'x' WHERE hash = 'ONE'", true),
        ("UPDATE trees SET size = 'many' WHERE hash = 'ONE'", true),
        ("UPDATE trees SET hash = 'y' WHERE hash = 'ONE'", true),
        ("UPDATE layers SET digest = 'x' WHERE tree = 'ONE'", true),
        ("UPDATE layers SET digest = 'x' WHERE compression = 'zstd-1'", false),
        ("UPDATE outputs SET tree = 'x' WHERE tree = 'ONE'", true),
        ("DELETE FROM trees WHERE hash = 'ONE'", true),
        ("DELETE FROM layers WHERE tree = 'ONE'", true),
        ("DELETE FROM derivations", true),
        ("DELETE FROM outputs WHERE name = 'out1'", true),
        ("INSERT INTO tree_references VALUES ('ONE', 'x')", false),
        ("INSERT INTO layers VALUES ('x', 'gzip-1', 'x', 0)", false),
    ] {
        let mut sample = Sample::new();
        let hash = sample.one.path.hash().to_string();
        sql(&sample.store, &statement.replace("ONE", &hash));
        let (found, _, left) = sample.mend();
        assert_ne!(found, [], "{statement}");
        assert_eq!(left, [], "{statement}");
        let realised = sample.store.realisation(&sample.maker.id()).unwrap();
        assert_eq!(realised.is_none(), cost, "{statement}");
        let again = tree(&sample.store, "one");
        realise(&sample.store, "k", &[&again, &sample.two]);
        assert_eq!(problems(&mut sample.store), [], "{statement}");
    }
}

#[test]
fn damaged_derivations_are_dropped() {
    for json in ["{}", "x", "replace(json, '\"k\"', '\"l\"')", "json || ' '"] {
        let mut sample = Sample::new();
        let value = if json.contains("json") { json.to_owned() } else { format!("'{json}'") };
        sql(&sample.store, &format!("UPDATE derivations SET json = {value}"));
        let (found, report, left) = sample.mend();
        assert!(matches!(found.as_slice(), [Problem::DamagedDerivation { .. }]), "{found:#?}");
        let id = sample.maker.id();
        assert_eq!(report.repaired, [Repair::DroppedRealisation { id }]);
        assert_eq!(left, []);
    }
}

#[test]
fn a_damaged_archive_is_removed() {
    let mut sample = Sample::new();
    let digest = BlobDigest::of(b"an archive");
    flip(&sample.store.blob_path(&digest));
    let repaired = sample.mends_alone(|problem| matches!(problem, Problem::DamagedBlob { .. }));
    assert_eq!(repaired, [Repair::RemovedBlob { digest }]);
}

#[test]
fn damaged_checkouts_are_removed() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 12] = [
        ("content", |root| std::fs::write(root.join("etc/text"), "ONE").unwrap()),
        ("size", |root| std::fs::write(root.join("etc/text"), "longer").unwrap()),
        ("mode", |root| set_mode(&root.join("etc/text"), 0o600)),
        ("presence", |root| std::fs::remove_file(root.join("etc/text")).unwrap()),
        ("presence", |root| std::fs::write(root.join("etc/extra"), "").unwrap()),
        ("presence", |root| std::fs::remove_file(root.join("etc/.wh.motd")).unwrap()),
        ("presence", |root| std::fs::remove_dir_all(root.join("usr")).unwrap()),
        ("target", |root| relink(&root.join("usr/bin/alias"), "twin")),
        ("type", |root| relink(&root.join("usr/bin/tool"), "twin")),
        ("mode", |root| set_mode(&root.join("usr"), 0o700)),
        ("link", |root| {
            let twin = root.join("usr/bin/twin");
            std::fs::remove_file(&twin).unwrap();
            std::fs::copy(root.join("usr/bin/tool"), &twin).unwrap();
        }),
        // Nothing below a link is looked at, whatever it leads to.
        ("type", |root| {
            std::fs::rename(root.join("usr"), root.join("moved")).unwrap();
            relink(&root.join("usr"), "moved");
        }),
    ];
    for (kind, damage) in damages {
        let mut sample = Sample::new();
        let root = sample.store.checkout_path(&sample.one.path);
        damage(&root);
        let (found, report, left) = sample.mend();
        let is_it = |problem: &Problem| match problem {
            Problem::DamagedCheckout { what, .. } => *what == kind,
            _ => false,
        };
        assert!(found.iter().any(is_it), "{kind}: {found:#?}");
        let tree = sample.one.path.clone();
        assert_eq!(report.repaired, [Repair::RemovedCheckout { tree }]);
        assert_eq!(left, []);
        assert!(!root.exists());
    }
}

fn relink(path: &Path, target: &str) {
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink(target, path).unwrap();
}

#[test]
fn owners_of_a_checkout_are_compared_as_a_mapping() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may give files away");
        return;
    }
    let mut sample = Sample::new();
    let root = sample.store.checkout_path(&sample.one.path);
    let everything = || walkdir::WalkDir::new(&root).into_iter().map(|entry| entry.unwrap());
    for entry in everything() {
        std::os::unix::fs::lchown(entry.path(), Some(100_000), Some(100_000)).unwrap();
        if entry.file_type().is_file() {
            let mode = if entry.path().ends_with("text") { 0o640 } else { 0o755 };
            let is_deletion = entry.file_name().to_string_lossy().starts_with(".wh.");
            set_mode(entry.path(), if is_deletion { 0 } else { mode });
        }
    }
    assert_eq!(problems(&mut sample.store), []);
    std::os::unix::fs::lchown(root.join("usr/bin/alias"), Some(0), Some(100_000)).unwrap();
    let found = problems(&mut sample.store);
    assert!(
        matches!(found.as_slice(), [Problem::DamagedCheckout { what: "owner", .. }]),
        "{found:#?}"
    );
}

#[test]
fn deletions_may_stand_as_overlayfs_has_them() {
    let mut sample = Sample::new();
    let root = sample.store.checkout_path(&sample.one.path);
    std::fs::remove_file(root.join("etc/.wh.motd")).unwrap();
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
    let whiteout = root.join("etc/motd");
    if rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, mode, 0).is_err() {
        println!("skipped: this user may not make whiteouts here");
        return;
    }
    assert_eq!(problems(&mut sample.store), []);
    std::fs::remove_file(&whiteout).unwrap();
    std::fs::write(&whiteout, "").unwrap();
    let found = problems(&mut sample.store);
    assert!(matches!(found.as_slice(), [Problem::DamagedCheckout { what: "type", .. }]));
}

#[test]
fn opaque_directories_are_marked() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let mut spool = store.spool();
    spool.add_empty(crate::tree::Entry::opaque(&path("etc")).unwrap()).unwrap();
    let output = store.add_tree("opaque", Compression::Gzip1, &mut spool).unwrap();
    let etc = store.checkout_path(&output.path).join("etc");
    std::fs::create_dir_all(&etc).unwrap();
    assert_eq!(problems(&mut store).len(), 1);
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&etc, "user.overlay.opaque", b"y", flags).is_err() {
        println!("skipped: no attributes on this file system");
        return;
    }
    assert_eq!(problems(&mut store), []);
}

#[test]
fn unknown_files_and_damaged_roots_are_told_and_left() {
    let mut sample = Sample::new();
    let root = sample.store.root().to_owned();
    let unknown =
        ["blobs/other", "blobs/sha256/x", "extra", "locks/x", "logs/x", "roots/x", "trees/x"];
    for name in unknown {
        std::fs::write(root.join(name), "").unwrap();
    }
    std::fs::write(root.join("roots/r.json"), "{").unwrap();
    let (found, report, left) = sample.mend();
    let paths: BTreeSet<PathBuf> = found
        .iter()
        .filter_map(|problem| match problem {
            Problem::UnknownFile { path } => Some(path.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(paths, unknown.iter().map(|name| root.join(name)).collect());
    assert!(found.iter().any(|p| matches!(p, Problem::DamagedRoot { .. })));
    assert_eq!((report.problems, report.unrepairable), (8, 8));
    assert_eq!(found, left);
}

#[test]
fn a_checkout_is_not_taken_for_whole_when_its_tree_is_made_again() {
    let mut sample = Sample::new();
    let tool = sample.store.checkout_path(&sample.one.path).join("usr/bin/tool");
    std::fs::write(tool, "x").unwrap();
    // Without listing and layer nothing can tell that the checkout is damaged.
    std::fs::remove_file(sample.store.blob_path(&sample.one.listing.digest)).unwrap();
    std::fs::remove_file(sample.layer(&sample.one, Compression::Gzip1)).unwrap();
    sample.costs_one(|problem| matches!(problem, Problem::MissingLayer { .. }));
    assert!(!sample.store.checkout_path(&sample.one.path).exists());
}

#[test]
fn every_problem_is_told_at_once() {
    let mut sample = Sample::new();
    flip(&sample.layer(&sample.one, Compression::Gzip1));
    std::fs::remove_file(sample.store.blob_path(&sample.two.listing.digest)).unwrap();
    flip(&sample.layer(&sample.two, Compression::Zstd1));
    std::fs::write(sample.store.root().join("extra"), "").unwrap();
    let (found, report, left) = sample.mend();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert_eq!(report.lost.len(), 1);
    assert!(matches!(left.as_slice(), [Problem::UnknownFile { .. }]));
    for problem in found {
        assert!(!problem.to_string().is_empty() && !problem.mend().is_empty());
    }
}

#[test]
fn problems_read_well() {
    let mut sample = Sample::new();
    flip(&sample.store.blob_path(&sample.one.listing.digest));
    let found = problems(&mut sample.store);
    let text = found[0].to_string();
    let digest = sample.one.listing.digest;
    let start = format!("blob {} is damaged (of {})", digest.to_hex(), sample.one.path);
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains(&format!(": expected {digest}, actual sha256:")), "{text}");
    let json = serde_json::to_value(&found[0]).unwrap();
    assert_eq!(json["problem"], "damaged-blob");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_is_damaged_repair_leaves_a_store_that_builds_again(
        damages in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4), 1..4),
    ) {
        let mut sample = Sample::new();
        for (index, kind) in damages {
            let files: Vec<PathBuf> = ["blobs", "trees"]
                .iter()
                .flat_map(|name| {
                    walkdir::WalkDir::new(sample.store.root().join(name)).sort_by_file_name()
                })
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.file_type().is_file())
                .map(walkdir::DirEntry::into_path)
                .collect();
            let file = &files[index.index(files.len())];
            match kind {
                0 if file.metadata().unwrap().len() > 0 => flip(file),
                1 => std::fs::write(file, "x").unwrap(),
                2 => std::fs::write(file, "").unwrap(),
                _ => std::fs::remove_file(file).unwrap(),
            }
        }
        let (_, _, left) = sample.mend();
        prop_assert_eq!(left, vec![]);
        let (one, two) = (tree(&sample.store, "one"), tree(&sample.store, "two"));
        prop_assert_eq!(&one, &sample.one);
        prop_assert_eq!(two.diff_id, sample.two.diff_id);
        realise(&sample.store, "k", &[&one, &two]);
        prop_assert_eq!(problems(&mut sample.store), vec![]);
    }
}
