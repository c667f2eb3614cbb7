//! Small stores for tests.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Problem, Store, StoreError, VerifyOptions};
use crate::derivation::Derivation;
use crate::digest::TreeHash;
use crate::layer::Compression;
use crate::realisation::Output;
use crate::tree::{Entry, Kind, TreePath};

pub(super) fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// A tree that has an entry of each kind; `text` makes it another tree.
pub(super) fn tree(store: &Store, text: &str) -> Output {
    let mut spool = store.spool();
    spool.add_file(path("etc/text"), 0o640, text.as_bytes()).unwrap();
    spool.add_file(path("usr/bin/tool"), 0o755, &vec![7; 50_000]).unwrap();
    spool.add_empty(Entry::symlink(path("usr/bin/alias"), "tool")).unwrap();
    let link = Kind::HardLink { target: path("usr/bin/tool") };
    spool.add_empty(Entry { kind: link, ..Entry::file(path("usr/bin/twin"), 0o755, 0) }).unwrap();
    spool.add_empty(Entry::deletion(&path("etc/motd")).unwrap()).unwrap();
    store.add_tree("sample-1", Compression::Gzip1, &mut spool).unwrap()
}

/// A derivation with these trees as its outputs `out0`, `out1`, ..., realised.
pub(super) fn realise(store: &Store, key: &str, trees: &[&Output]) -> Derivation {
    let outputs: Vec<(String, Output)> = trees
        .iter()
        .enumerate()
        .map(|(index, output)| (format!("out{index}"), (*output).clone()))
        .collect();
    let names = outputs.iter().map(|(name, _)| name.clone()).collect();
    let derivation =
        Derivation { outputs: names, ..Derivation::new("files", 1) }.with_arg("key", key);
    store.put_realisation(&derivation, outputs).unwrap();
    derivation
}

/// Checks a tree out, as a sandbox would, with deletions as their `.wh.` files.
pub(super) fn check_out(store: &Store, output: &Output) {
    let root = store.checkout_path(&output.path);
    std::fs::create_dir(&root).unwrap();
    store
        .read_tree(output, |entry, content| {
            let at = root.join(entry.path.as_str());
            match &entry.kind {
                Kind::Directory => std::fs::create_dir(&at).unwrap(),
                Kind::Symlink { target } => std::os::unix::fs::symlink(target, &at).unwrap(),
                Kind::HardLink { target } => {
                    std::fs::hard_link(root.join(target.as_str()), &at).unwrap();
                }
                Kind::File { .. } | Kind::Deletion => {
                    let mut bytes = Vec::new();
                    content.read_to_end(&mut bytes).unwrap();
                    std::fs::write(&at, bytes).unwrap();
                }
            }
            if !matches!(entry.kind, Kind::Symlink { .. }) {
                set_mode(&at, entry.mode);
            }
            Ok::<(), StoreError>(())
        })
        .unwrap();
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes one bit in the middle of a file.
pub(super) fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// Changes the database behind the store's back.
pub(super) fn sql(store: &Store, statement: &str) {
    let database = rusqlite::Connection::open(store.root().join("db.sqlite")).unwrap();
    assert!(database.execute(statement, []).unwrap() > 0, "{statement}");
}

/// Sets when a tree, or all derivations, were last used.
pub(super) fn set_used(store: &Store, tree: &TreeHash, used: i64) {
    sql(store, &format!("UPDATE trees SET used = {used} WHERE hash = '{tree}'"));
}

/// All problems of a store.
pub(super) fn problems(store: &mut Store) -> Vec<Problem> {
    let mut problems = Vec::new();
    store.verify(&VerifyOptions::default(), &mut |p| problems.push(p.clone())).unwrap();
    problems
}
