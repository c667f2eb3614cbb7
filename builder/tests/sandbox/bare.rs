//! Without namespaces: the same changes, nothing left behind, no network.

use std::path::PathBuf;
use std::time::Duration;

use drystone_builder::sandbox::{Command, Ending, IdMap, Limit, Resources, Session, Storage};

use crate::changes::{SCRIPT, describe, difference};
use crate::limits::{ends_with_session, runs};
use crate::world::{self, shell};

pub const TESTS: &[(&str, fn())] = &[
    ("without_namespaces_a_difference_is_the_same", same_difference),
    ("without_namespaces_what_is_covered_comes_back", covered),
    ("without_namespaces_looks_see_no_covered_directories", looks),
    ("without_namespaces_nothing_is_left_running", survivors),
    ("without_namespaces_limits_hold", limits),
    ("without_namespaces_the_end_of_a_session_ends_all", ending),
    ("without_namespaces_there_is_no_network", network),
];

/// A session, and the base tree as its ids have it; `None`, said aloud, for ordinary users.
fn begin() -> Option<(Session, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        let refusal = IdMap::without_namespaces().unwrap_err().to_string();
        assert!(refusal.contains("only root"), "{refusal}");
        println!("skipped: only root can do without namespaces");
        return None;
    }
    let session = Session::start(&IdMap::without_namespaces().unwrap()).unwrap();
    let base = world::fresh().join("base");
    session.checkout(world::tar(&mut world::base_tree(&std::env::temp_dir())), &base).unwrap();
    Some((session, base))
}

fn same_difference() {
    let Some((session, base)) = begin() else { return };
    let place = world::fresh();
    // A storage that was asked for is none that could be had.
    let request = world::request(&place, &[&base], None);
    let root = session.open_root(&request).unwrap();
    assert_eq!(root.storage(), Storage::Copy);
    shell(&root, SCRIPT);
    root.close().unwrap();
    let bare = session.scan(&place.join("upper"), &[base], Storage::Copy).unwrap();
    let (_session, sandboxed) = difference(SCRIPT, Storage::Copy);
    assert_eq!(describe(&bare), describe(&sandboxed));
    assert!(bare.write_tar(Vec::new()).unwrap() == sandboxed.write_tar(Vec::new()).unwrap());
    assert_eq!(bare.unsupported(), sandboxed.unsupported());
    // Its owners are the host's, which no other session may touch.
    drop(bare);
    session.remove(&place).unwrap();
}

fn covered() {
    let Some((session, base)) = begin() else { return };
    let place = world::fresh();
    let mut request = world::request(&place, &[&base], None);
    request.tmpfs = vec!["/etc/kept/inner".to_owned()];
    let script = "test ! -e /etc/kept/inner/file; echo x > /etc/kept/inner/file; chmod 700 /tmp
                  mkdir -p /tmp/a/b /proc/1; echo y > /dev/null; echo z > /dev/shm/z; rm -r /sys";
    // The copy is entered again, as the stages of packages do.
    for _ in 0..2 {
        let root = session.open_root(&request).unwrap();
        let finished = root.execute(&Command::new(["sh", "-e", "-c", script]), None).unwrap();
        assert!(finished.success(), "{}", String::from_utf8_lossy(&finished.tail));
        shell(&root, "mkdir /sys");
        root.close().unwrap();
    }
    let scan = session.scan(&place.join("upper"), &[base], Storage::Copy).unwrap();
    assert_eq!(describe(&scan), Vec::<String>::new());
}

fn looks() {
    let Some((session, base)) = begin() else { return };
    let root = world::open_over(&session, &world::fresh(), &base);
    assert_eq!(root.changed_since_last().unwrap(), []);
    shell(&root, "echo x > /tmp/x; echo y > /dev/y; echo z > /etc/z");
    let changes = root.changed_since_last().unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].path.as_str(), "etc/z");
}

fn survivors() {
    let Some((session, base)) = begin() else { return };
    let seconds = format!("7{:06}", std::process::id());
    let root = world::open_over(&session, &world::fresh(), &base);
    let finished = root.execute(&Command::new(["/probe", "daemon"]), None).unwrap();
    assert!(finished.success());
    // A child of a child, in the background, without a parent.
    shell(&root, &format!("(sh -c 'sleep {seconds} & sleep {seconds}' &) ; sleep 0.1"));
    assert!(!runs(&seconds));
    assert_eq!(shell(&root, "echo works"), "works\n", "others still run");
    root.close().unwrap();
}

fn limits() {
    let Some((session, base)) = begin() else { return };
    let root = world::open_over(&session, &world::fresh(), &base);
    let mut command = Command::new(["sh", "-c", "sleep 100 & sleep 100"]);
    command.time_limit = Some(Duration::from_millis(200));
    assert_eq!(root.execute(&command, None).unwrap().ending, Ending::Limit(Limit::Time));
    let mut command = Command::new(["/probe", "spin"]);
    command.resources =
        Resources { cpu_time: Some(Duration::from_millis(300)), ..Resources::default() };
    assert_eq!(root.execute(&command, None).unwrap().ending, Ending::Limit(Limit::CpuTime));
}

fn ending() {
    let Some((session, base)) = begin() else { return };
    let seconds = format!("6{:06}", std::process::id());
    let root = world::open_over(&session, &world::fresh(), &base);
    ends_with_session(session, &root, &seconds, &format!("(sleep {seconds} &); sleep {seconds}"));
}

fn network() {
    let Some((session, base)) = begin() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let root = world::open_over(&session, &world::fresh(), &base);
    let finished = root.execute(&Command::new(["/probe", "network"]), None).unwrap();
    let said = String::from_utf8(finished.tail).unwrap();
    let no_family = format!("Some({})", libc::EAFNOSUPPORT);
    for address in ["127.0.0.1:80", "192.0.2.1:80", "[::1]:80"] {
        assert!(said.contains(&format!("{address} {no_family}")), "{said}");
    }
    assert!(said.contains("loopback false"), "{said}");
    drop(listener);
}
