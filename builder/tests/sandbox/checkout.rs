//! Laying out trees.

use std::io::Read;
use std::path::Path;

use drystone_builder::sandbox::{Command, SandboxError, Storage};
use drystone_store::tree::{Entry, Kind};

use crate::world::{self, checkout, path, session, shell, spool};

pub const TESTS: &[(&str, fn())] = &[
    ("checkout_keeps_owners_modes_links_and_attributes", keeps_metadata),
    ("checkout_refuses_a_damaged_tree_and_leaves_nothing", refuses_damage),
    ("checkout_refuses_owners_beyond_the_range", refuses_high_owner),
    ("deletions_hide_lower_trees", deletions_hide),
    ("removal_copes_with_absurd_depth", removes_deep_trees),
];

/// `cap_net_bind_service=ep` in version 2 (linux/capability.h).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn special_tree() -> drystone_store::tree::TreeSpool {
    let mut spool = spool();
    let mut directory = Entry::directory(path("srv"));
    (directory.mode, directory.uid, directory.gid) = (0o2775, 33, 44);
    directory.xattrs.insert("user.note".into(), b"a\nb".to_vec());
    spool.add_empty(directory).unwrap();
    let mut tool = Entry::file(path("srv/tool"), 0o4755, 4);
    tool.uid = 65533;
    tool.xattrs.insert("security.capability".into(), CAPABILITY.to_vec());
    spool.add(tool, &mut &b"tool"[..]).unwrap();
    let mut link = Entry::symlink(path("srv/link"), "../nowhere");
    link.gid = 7;
    spool.add_empty(link).unwrap();
    let mut again = Entry::file(path("srv/zzz"), 0o4755, 0);
    (again.uid, again.kind) = (65533, Kind::HardLink { target: path("srv/tool") });
    spool.add_empty(again).unwrap();
    spool
}

fn keeps_metadata() {
    let (session, place) = (session(), world::fresh());
    let tree = place.join("tree");
    checkout(&session, &mut special_tree(), &tree);
    // A scan without lower trees reads the tree back; links of absent metadata would show.
    let scan = session.scan(&tree, &[], Storage::Copy).unwrap();
    let mut expected = Vec::new();
    world::tar(&mut special_tree()).read_to_end(&mut expected).unwrap();
    assert_eq!(scan.write_tar(Vec::new()).unwrap(), expected);

    let request = world::request(&place, &[&tree, &world::world().base], None);
    let root = session.open_root(&request).unwrap();
    let seen = shell(&root, "stat -c '%a %u:%g %Y' /srv /srv/tool /srv/link /srv/zzz /");
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[0], "2775 33:44 315532800");
    assert_eq!(lines[1], "4755 65533:0 315532800");
    assert!(lines[2].starts_with("777 0:7 315532800"), "{}", lines[2]);
    assert_eq!(lines[3], lines[1]);
    assert_eq!(shell(&root, "stat -c %h /srv/zzz"), "2\n");
    assert!(lines[4].starts_with("755 0:0"), "{}", lines[4]);
    root.close().unwrap();
}

fn refuses_damage() {
    let (session, place) = (session(), world::fresh());
    let tree = place.join("tree");
    let good = world::tar(&mut special_tree());
    let length = good.metadata().unwrap().len();
    for cut in [length - 1, length / 2, 100, 0] {
        let short = world::tar(&mut special_tree());
        short.set_len(cut).unwrap();
        let error = session.checkout(&short, &tree).unwrap_err();
        assert!(matches!(error, SandboxError::Tree { .. }), "{error}");
        assert!(!tree.exists());
    }
    session.checkout(&good, &tree).unwrap();
    let again = session.checkout(world::tar(&mut special_tree()), &tree).unwrap_err();
    assert!(matches!(again, SandboxError::Io { .. }), "{again}");
    session.remove(&tree).unwrap();
    assert!(!tree.exists());
    session.remove(&tree).unwrap();
}

fn refuses_high_owner() {
    let (session, place) = (session(), world::fresh());
    let mut spool = spool();
    let mut entry = Entry::file(path("x"), 0o644, 0);
    entry.uid = 65536;
    spool.add_empty(entry).unwrap();
    let error = session.checkout(world::tar(&mut spool), &place.join("tree")).unwrap_err();
    assert!(error.to_string().contains("65536"), "{error}");
}

fn deletions_hide() {
    if world::storages() == [Storage::Copy] {
        return;
    }
    let (session, place) = (session(), world::fresh());
    let tree = place.join("tree");
    let mut spool = spool();
    spool.add_empty(Entry::directory(path("etc/dir"))).unwrap();
    spool.add_empty(Entry::opaque(&path("etc/dir")).unwrap()).unwrap();
    spool.add_file(path("etc/dir/new"), 0o644, b"new").unwrap();
    spool.add_empty(Entry::deletion(&path("usr/share/two")).unwrap()).unwrap();
    checkout(&session, &mut spool, &tree);
    for storage in [Storage::Overlay, Storage::Copy] {
        let place = world::fresh();
        let request = world::request(&place, &[&tree, &world::world().base], Some(storage));
        let root = session.open_root(&request).unwrap();
        assert_eq!(shell(&root, "ls /etc/dir"), "new\n");
        assert_eq!(shell(&root, "ls /usr/share"), "one\nthree\n");
        root.close().unwrap();
    }
}

fn removes_deep_trees() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    // Longer than any path may be.
    assert!(root.execute(&Command::new(["/probe", "deep"]), None).unwrap().success());
    root.close().unwrap();
    let error = session.scan(
        &place.join("upper"),
        std::slice::from_ref(&world::world().base),
        Storage::Overlay,
    );
    assert!(matches!(error, Err(SandboxError::Tree { .. } | SandboxError::Io { .. })));
    session.remove(&place.join("upper")).unwrap();
    assert!(!Path::new(&place.join("upper")).exists());
}
