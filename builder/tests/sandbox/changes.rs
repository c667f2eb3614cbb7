//! What commands change, as a tree: the same from an overlay and from a plain copy.

use std::path::PathBuf;

use drystone_builder::sandbox::{Change, MAX_LOWERS, Scan, Session, Storage};
use drystone_store::digest::FileHash;
use drystone_store::tree::{Entry, Kind};

use crate::world::{self, path, session, shell};

pub const TESTS: &[(&str, fn())] = &[
    ("a_difference_is_the_same_from_overlay_and_copy", overlay_equals_copy),
    ("hard_links_broken_by_copy_up_are_restored", restores_links),
    ("an_unchanged_root_has_no_difference", nothing),
    ("changes_between_two_looks_are_listed", changed_since_last),
    ("files_are_read_and_written_from_outside", file_operations),
    ("an_upper_directory_on_a_tmpfs_works", on_a_tmpfs),
    ("a_root_can_be_opened_again", reopen),
    ("more_trees_than_an_overlay_takes_are_merged", merged),
];

/// One of each kind of change.
pub const SCRIPT: &str = r#"
cd /etc/dir
echo changed > a
rm b
chmod 600 c; chmod 644 c
touch c
cd /etc
rm link; ln -s elsewhere link
mkdir -m 2750 made; chown 33:44 made; echo x > made/file; chown 1:2 made/file
rm -r kept; mkdir kept; mkdir kept/inner; echo other > kept/other
mkdir gone; echo y > gone/y; rm -r gone
mkfifo fifo
echo temporary > /tmp/t; echo b > /build/b; echo s > /dev/shm/s
ln /etc/dir/a /etc/second
cp -p /usr/share/one /usr/share/copy
mv /usr/bin/head /usr/bin/renamed
mkdir /var; echo v > /var/v
chmod 700 /usr/share
"#;

pub fn difference(script: &str, storage: Storage) -> (Session, Scan) {
    let (session, place) = (session(), world::fresh());
    let lower = [world::world().base.clone()];
    let request = world::request(&place, &[&lower[0]], Some(storage));
    let root = session.open_root(&request).unwrap();
    assert_eq!(root.storage(), storage);
    shell(&root, script);
    root.close().unwrap();
    let scan = session.scan(&place.join("upper"), &lower, storage).unwrap();
    (session, scan)
}

pub fn describe(scan: &Scan) -> Vec<String> {
    let line = |it: &drystone_builder::sandbox::ScanEntry| {
        let entry = &it.entry;
        let kind = match &entry.kind {
            Kind::Directory => "d".to_owned(),
            Kind::File { size } => format!("f{size}"),
            Kind::Symlink { target } => format!("-> {target}"),
            Kind::HardLink { target } => format!("= {target}"),
            Kind::Deletion => "deleted".to_owned(),
        };
        let same = if it.unchanged { " same" } else { "" };
        format!("{} {:o} {}:{} {kind}{same}", entry.path, entry.mode, entry.uid, entry.gid)
    };
    scan.entries().iter().map(line).collect()
}

fn overlay_equals_copy() {
    let (_overlay_session, overlay) = difference(SCRIPT, world::storages()[0]);
    let (_copy_session, copy) = difference(SCRIPT, Storage::Copy);
    let size = std::fs::metadata("/usr/bin/head").unwrap().len();
    let expected = [
        "etc 755 0:0 d same".to_owned(),
        "etc/dir 755 0:0 d same".into(),
        "etc/dir/.wh.b 0 0:0 deleted".into(),
        "etc/dir/a 644 0:0 f8".into(),
        "etc/kept 755 0:0 d same".into(),
        "etc/kept/inner 755 0:0 d same".into(),
        "etc/kept/inner/.wh.file 0 0:0 deleted".into(),
        "etc/kept/other 644 0:0 f6".into(),
        "etc/link 777 0:0 -> elsewhere".into(),
        "etc/made 2750 33:44 d".into(),
        "etc/made/file 644 1:2 f2".into(),
        "etc/second 644 0:0 = etc/dir/a".into(),
        "usr 755 0:0 d same".into(),
        "usr/bin 755 0:0 d same".into(),
        "usr/bin/.wh.head 0 0:0 deleted".into(),
        format!("usr/bin/renamed 755 0:0 f{size}"),
        "usr/share 700 0:0 d".into(),
        "usr/share/copy 644 0:0 f8".into(),
        "var 755 0:0 d".into(),
        "var/v 644 0:0 f2".into(),
    ];
    assert_eq!(describe(&overlay), expected);
    assert_eq!(describe(&copy), expected);
    let tar = overlay.write_tar(Vec::new()).unwrap();
    assert!(tar == copy.write_tar(Vec::new()).unwrap());
    assert_eq!(overlay.unsupported(), copy.unsupported());
    assert_eq!(overlay.unsupported().len(), 1);
    assert_eq!(overlay.unsupported()[0].what, "fifo");
    crate::rootless::report(&FileHash::of(&tar).to_string());
}

/// Each script with the files that its difference holds.
const LINKS: &[(&str, &[&str])] = &[
    // A change through one name changes all.
    (
        "chmod 600 /usr/share/two",
        &[
            "usr/share/one 600 0:0 f8",
            "usr/share/three 600 0:0 = usr/share/one",
            "usr/share/two 600 0:0 = usr/share/one",
        ],
    ),
    ("chmod 600 /usr/share/two; chmod 644 /usr/share/two", &[]),
    // Another file in the place of one name leaves the others alone.
    ("echo n > /usr/share/n; mv /usr/share/n /usr/share/two", &["usr/share/two 644 0:0 f2"]),
    ("rm /usr/share/one", &["usr/share/.wh.one 0 0:0 deleted"]),
    (
        "rm /usr/share/one; chown 5:6 /usr/share/three",
        &[
            "usr/share/.wh.one 0 0:0 deleted",
            "usr/share/three 644 5:6 f8",
            "usr/share/two 644 5:6 = usr/share/three",
        ],
    ),
    // A new name for an unchanged file needs the file.
    (
        "ln /usr/share/two /usr/share/four",
        &[
            "usr/share/four 644 0:0 f8",
            "usr/share/one 644 0:0 = usr/share/four",
            "usr/share/three 644 0:0 = usr/share/four",
            "usr/share/two 644 0:0 = usr/share/four",
        ],
    ),
    (
        "chown -R 9:9 /usr/share",
        &[
            "usr/share/one 644 9:9 f8",
            "usr/share/three 644 9:9 = usr/share/one",
            "usr/share/two 644 9:9 = usr/share/one",
        ],
    ),
];

fn restores_links() {
    for (script, expected) in LINKS {
        for &storage in world::storages() {
            let (_session, scan) = difference(script, storage);
            let mut lines = describe(&scan);
            lines.retain(|line| !line.contains(" d"));
            let deleted = describe(&scan).into_iter().filter(|line| line.ends_with(" deleted"));
            lines.extend(deleted);
            lines.sort();
            assert_eq!(lines, *expected, "{script} in {storage:?}");
            scan.write_tar(std::io::sink()).unwrap();
        }
    }
}

fn nothing() {
    let script = "touch /etc/dir/a; chown 0:0 /etc /usr/share/one; echo > /etc/x; rm /etc/x";
    for &storage in world::storages() {
        let (_session, scan) = difference(script, storage);
        assert_eq!(describe(&scan), Vec::<String>::new(), "{storage:?}");
    }
}

fn changed_since_last() {
    for &storage in world::storages() {
        let (session, place) = (session(), world::fresh());
        let lower = &world::world().base;
        let root = session.open_root(&world::request(&place, &[lower], Some(storage))).unwrap();
        list_changes(&root);
        root.close().unwrap();
    }
}

/// Each script, and the paths that it changed; those that are gone have a `-`.
const LOOKS: &[(&str, &[&str])] = &[
    ("true", &[]),
    (
        "echo 1 > /etc/dir/a; rm /etc/dir/b; echo new > /etc/new",
        &["etc/dir/a", "-etc/dir/b", "etc/new"],
    ),
    ("true", &[]),
    (
        "echo 2 > /etc/dir/a; rm /etc/new; echo b > /etc/dir/b",
        &["etc/dir/a", "etc/dir/b", "-etc/new"],
    ),
    // Overlays copy what is opened for writing; copies get new times from what changes nothing.
    (": >> /etc/dir/c; chmod 600 /usr/share/one; chmod 644 /usr/share/one", &[]),
    ("chown -h 0:0 /etc /etc/link; touch /usr/share/x; rm /usr/share/x", &[]),
    ("echo 3 >> /etc/dir/c", &["etc/dir/c"]),
    ("cp -p /etc/kept/inner/file /etc/kept/n; mv /etc/kept/n /etc/kept/inner/file", &[]),
    (
        "chmod 640 /etc/kept/inner/file; ln -sf dir/b /etc/link",
        &["etc/kept/inner/file", "etc/link"],
    ),
    // A directory that another takes the place of is as it was; what was in it is gone.
    (
        "rm -r /etc/kept; mkdir /etc/kept; mkdir /etc/kept/other",
        &["-etc/kept/inner", "etc/kept/other"],
    ),
    ("rm -r /etc/dir", &["-etc/dir"]),
];

fn list_changes(root: &drystone_builder::sandbox::Root) {
    for (script, expected) in LOOKS {
        shell(root, script);
        let changes = root.changed_since_last().unwrap();
        let line = |Change { path, deleted }: Change| match deleted {
            true => format!("-{path}"),
            false => path.to_string(),
        };
        let mut changes: Vec<String> = changes.into_iter().map(line).collect();
        changes
            .sort_by(|left, right| left.trim_start_matches('-').cmp(right.trim_start_matches('-')));
        assert_eq!(changes, *expected, "{script} in {:?}", root.storage());
    }
}

fn file_operations() {
    use drystone_builder::sandbox::{Item, ItemKind};
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    assert_eq!(root.read_file("/etc/dir/a").unwrap().as_deref(), Some(&b"a"[..]));
    assert_eq!(root.read_file("etc/link").unwrap().as_deref(), Some(&b"a"[..]));
    assert_eq!(root.read_file("/etc/none").unwrap(), None);
    assert!(root.read_file("/etc/dir").is_err());
    // A link out of the root stays in the root.
    shell(&root, "ln -s ../../../../../../../../etc /etc/up; ln -s /etc/dir/c /etc/abs");
    assert_eq!(root.read_file("/etc/up/abs").unwrap().as_deref(), Some(&b"c"[..]));
    let big = vec![b'x'; 3_000_000];
    root.write_file("/etc/link", &big, 0o4750, (3, 4)).unwrap();
    assert_eq!(root.read_file("/etc/link").unwrap().unwrap(), big);
    let seen = shell(&root, "stat -c '%F %a %u:%g %s' /etc/link");
    assert_eq!(seen, "regular file 4750 3:4 3000000\n");
    assert_eq!(shell(&root, "cat /etc/dir/a"), "a", "not written through the link");
    root.make_directory("/opt", 0o2711, (5, 6)).unwrap();
    root.make_symlink("/opt/l", "../x", (7, 8)).unwrap();
    let expected = Item {
        name: "l".into(),
        kind: ItemKind::Symlink("../x".into()),
        mode: 0o777,
        uid: 7,
        gid: 8,
        size: 4,
    };
    assert_eq!(root.look("/opt/l").unwrap().as_ref(), Some(&expected));
    assert_eq!(root.list_directory("/opt").unwrap().unwrap(), [expected]);
    assert_eq!(root.look("/opt/none/x").unwrap(), None);
    assert_eq!(root.list_directory("/none").unwrap(), None);
    root.set_attributes("/opt", 0o1750, (9, 10)).unwrap();
    root.set_attributes("/etc/dir/c", 0o6711, (0, 4)).unwrap();
    let seen = shell(&root, "stat -c '%a %u:%g %s' /opt /etc/dir/c");
    assert!(seen.starts_with("1750 9:10 ") && seen.ends_with("\n6711 0:4 1\n"), "{seen}");
    assert!(root.set_attributes("/opt/l", 0o755, (0, 0)).is_err(), "not through a link");
    assert!(root.set_attributes("/opt/none", 0o755, (0, 0)).is_err());
    root.rename("/opt/l", "/opt/m").unwrap();
    root.delete("/opt").unwrap();
    root.delete("/opt").unwrap();
    assert_eq!(root.look("/opt").unwrap(), None);
    assert!(root.write_file("/none/x", b"", 0o644, (0, 0)).is_err());
    assert!(root.delete("/..").is_err());
    let tmp = root.list_directory("/tmp").unwrap().unwrap();
    assert!(tmp.is_empty());
    root.close().unwrap();
}

fn on_a_tmpfs() {
    let session = session();
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let place = place.path();
    let lower: [PathBuf; 1] = [world::world().base.clone()];
    let root = session.open_root(&world::request(place, &[&lower[0]], None)).unwrap();
    shell(&root, "echo x > /etc/dir/a; rm -r /etc/kept; mkdir /etc/kept");
    let storage = root.storage();
    root.close().unwrap();
    let scan = session.scan(&place.join("upper"), &lower, storage).unwrap();
    let paths: Vec<_> = scan.entries().iter().map(|it| it.entry.path.clone()).collect();
    let expected =
        ["etc", "etc/dir", "etc/dir/a", "etc/kept", "etc/kept/.wh.inner"].map(path).to_vec();
    assert_eq!(paths, expected);
    session.remove(&place.join("upper")).unwrap();
    session.remove(&place.join("work")).unwrap();
}

fn merged() {
    let (session, place) = (session(), world::fresh());
    let mut lower = vec![world::world().base.clone()];
    for number in 0..MAX_LOWERS + 20 {
        let mut spool = world::spool();
        let directory = Entry { mode: 0o2750, uid: 3, gid: 4, ..Entry::directory(path("many")) };
        spool.add_empty(directory).unwrap();
        let name = path(&format!("many/{number}"));
        spool.add_file(name.clone(), 0o640, b"x").unwrap();
        if number % 4 == 1 {
            let again = Entry::file(path(&format!("many/{number}-again")), 0o640, 1);
            spool.add_empty(Entry { kind: Kind::HardLink { target: name }, ..again }).unwrap();
        }
        if number % 2 == 1 {
            let gone = Entry::deletion(&path(&format!("many/{}", number - 1))).unwrap();
            spool.add_empty(gone).unwrap();
        }
        let destination = place.join(format!("tree-{number}"));
        world::checkout(&session, &mut spool, &destination);
        lower.insert(0, destination);
    }
    let lowest = lower.split_off(MAX_LOWERS - 1);
    session.merge(&lowest, &place.join("merged")).unwrap();
    lower.push(place.join("merged"));
    let mut request = world::request(&place, &[], None);
    request.lower.clone_from(&lower);
    let root = session.open_root(&request).unwrap();
    let (storage, count) = (root.storage(), MAX_LOWERS + 20);
    let script = "cd /many; set -- *[0-9]; echo $#; set -- *-again; echo $#; stat -c '%a %u:%g' .; \
                  cat 1; [ 1 -ef 1-again ]; echo y > 3; rm 5";
    let seen = shell(&root, script);
    assert_eq!(seen, format!("{}\n{}\n2750 3:4\nx", count - count / 2, (count + 2) / 4));
    root.close().unwrap();
    let scan = session.scan(&place.join("upper"), &lower, storage).unwrap();
    let changed = describe(&scan);
    let changed: Vec<&str> = changed.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(changed, ["many", "many/.wh.5", "many/3"]);
}

fn reopen() {
    let (session, place) = (session(), world::fresh());
    let lower = [world::world().base.clone()];
    let mut storage = Storage::Overlay;
    for round in 0..3 {
        let root = world::open(&session, &place);
        storage = root.storage();
        shell(&root, &format!("echo {round} > /etc/r{round}; cat /etc/r0"));
        if round == 1 {
            drop(root);
        } else {
            root.close().unwrap();
        }
    }
    let scan = session.scan(&place.join("upper"), &lower, storage).unwrap();
    let files = scan.entries().iter().filter(|it| matches!(it.entry.kind, Kind::File { .. }));
    assert_eq!(files.count(), 3);
}
