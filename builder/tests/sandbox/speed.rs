//! How long things take: printed, not asserted, since machines differ.

use std::time::{Duration, Instant};

use drystone_store::tree::Entry;

use crate::world::{self, checkout, path, session, shell, spool};

pub const TESTS: &[(&str, fn())] = &[
    ("many_lower_trees_make_one_root", many_lowers),
    ("starting_and_checking_out_are_timed", timing),
];

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = run();
    println!("{what}: {:?}", begin.elapsed());
    result
}

fn many_lowers() {
    let (session, place) = (session(), world::fresh());
    let mut lowers = Vec::new();
    for number in 0..300 {
        // Long names, as in a store.
        let tree = place.join(format!("{number:0>52}-some-package-with-a-name_1.2.3-4"));
        let mut spool = spool();
        spool.add_file(path(&format!("many/f{number}")), 0o644, b"x").unwrap();
        spool.add_file(path("many/all"), 0o644, number.to_string().as_bytes()).unwrap();
        checkout(&session, &mut spool, &tree);
        lowers.push(tree);
    }
    for count in [150, 300] {
        let place = world::fresh();
        let mut lower: Vec<_> = lowers[..count].iter().map(|path| path.as_path()).collect();
        lower.push(&world::world().base);
        let request = world::request(&place, &lower, None);
        let root =
            timed(&format!("a root of {count} trees"), || session.open_root(&request).unwrap());
        assert_eq!(shell(&root, "cat /many/all; ls /many").lines().count(), count + 1);
        shell(&root, "i=0; while [ $i -lt 100 ]; do echo n > /many/f$i; i=$((i+1)); done");
        let storage = root.storage();
        root.close().unwrap();
        let scan = timed("scanning 100 changes over them", || {
            session.scan(&place.join("upper"), &request.lower, storage).unwrap()
        });
        assert_eq!(scan.entries().len(), 101);
    }
}

fn timing() {
    world::world();
    let session = timed("starting a session", session);
    let place = world::fresh();
    let root = timed("opening a root", || world::open(&session, &place));
    timed("100 commands", || {
        for _ in 0..100 {
            root.execute_simple(&["true"]).unwrap();
        }
    });
    timed("closing the root", || root.close().unwrap());
    let mut spool = spool();
    for number in 0..10_000 {
        let name = format!("usr/share/d{}/file{number}", number / 100);
        spool.add_file(path(&name), 0o644, &[7; 2000]).unwrap();
    }
    spool.add_empty(Entry::directory(path("usr/share/empty"))).unwrap();
    let tar = world::tar(&mut spool);
    let tree = place.join("tree");
    timed("checking out 10,000 files of 2 kB", || session.checkout(&tar, &tree).unwrap());
    timed("removing them", || session.remove(&tree).unwrap());
    std::thread::sleep(Duration::from_millis(1));
    timed("ending the session", || drop(session));
}
