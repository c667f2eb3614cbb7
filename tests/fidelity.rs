//! With the Essential set an image's root equals what mmdebstrap makes of the same packages: every path,
//! its type, content, mode and owner, dpkg's status included. What may differ is listed, with the reason,
//! in `tests/fidelity/volatile.tsv`.
//!
//! A usual run compares two sets, `DRYSTONE_ORACLE=all` all of them. Needs root and a Debian mirror.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::image::Node;
use common::{RootTree, World, can_run, is_long_run, skip, succeed};

/// The one time of all entries; mmdebstrap is told it too.
const TIME: &str = "315532800";
/// How many differences a message shows.
const SHOWN: usize = 60;

macro_rules! sets {
    ($($name:ident: $suite:literal, $packages:literal, $when:ident;)+) => {
        $(#[test] fn $name() { compare(stringify!($name), $suite, $packages, When::$when); })+
    };
}

sets! {
    nginx_light: "bookworm", "nginx-light", Always;
    dbus: "bookworm", "dbus", Always;
    redis_server: "bookworm", "redis-server", Long;
    php_fpm: "bookworm", "php8.2-fpm", Long;
    apache2: "bookworm", "apache2", Long;
    python3_flask: "bookworm", "python3-flask", Long;
    fontconfig: "bookworm", "fontconfig", Long;
    exim4: "bookworm", "exim4-daemon-light", Long;
    postgresql: "bookworm", "postgresql-15", Long;
    openssh_server: "bookworm", "openssh-server", Long;
    trixie_nginx_light: "trixie", "nginx-light", Long;
}

#[derive(PartialEq)]
enum When {
    Always,
    Long,
}

fn compare(set: &str, suite: &str, packages: &str, when: When) {
    if when == When::Long && !is_long_run() {
        skip("compared when DRYSTONE_ORACLE=all");
        return;
    }
    if !can_run(&["mmdebstrap"], true) {
        return;
    }
    let Some(world) = World::shared() else { return };
    let names: Vec<String> = packages.split(',').map(|name| format!("{name:?}")).collect();
    let project = world.project(
        set,
        &format!(
            "name = \"fidelity\"\n[debian]\nsuite = \"{suite}\"\nessential = true\npackages = [{}]\n",
            names.join(", ")
        ),
    );
    let ours = world.build(&project, &[]).root();
    let theirs = RootTree::of_tarball(&mmdebstrap(&world, suite, packages));
    let volatile = Volatile::read(set);
    let mut used = BTreeSet::new();
    let mut differences = Vec::new();
    for (path, problem) in differing(&theirs.0, &ours.0) {
        match volatile.allows(&path) {
            Some(line) => {
                used.insert(line);
            }
            None => differences.push(format!("/{path}: {problem}")),
        }
    }
    println!("{set}: {} paths, {} volatile lines used", theirs.0.len(), used.len());
    for line in volatile.lines.iter().filter(|line| line.set != "*") {
        if !used.contains(line.pattern.as_str()) {
            println!("{set}: volatile line {} is not needed any more", line.pattern);
        }
    }
    let count = differences.len();
    differences.truncate(SHOWN);
    assert!(count == 0, "{set}: {count} differences from mmdebstrap:\n{}", differences.join("\n"));
}

/// What mmdebstrap makes, through the same proxy, with the same suites.
fn mmdebstrap(world: &World, suite: &str, packages: &str) -> PathBuf {
    let target = world.path("mmdebstrap.tar");
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=essential", &format!("--include={packages}"), suite])
        .arg(&target)
        .args(world.archive.apt_sources(suite))
        .env("SOURCE_DATE_EPOCH", TIME);
    succeed(&mut command);
    target
}

/// Paths that are not the same on both sides.
fn differing(
    theirs: &BTreeMap<String, Node>,
    ours: &BTreeMap<String, Node>,
) -> Vec<(String, String)> {
    let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let problem = match (theirs.get(path), ours.get(path)) {
                (Some(one), Some(two)) if one.looks_like(two) => return None,
                (Some(one), Some(two)) => {
                    format!("{one} there, {two} here{}", first_line(one, two))
                }
                (Some(one), None) => format!("{one} there, missing here"),
                (None, Some(two)) => format!("missing there, {two} here"),
                (None, None) => return None,
            };
            Some((path.clone(), problem))
        })
        .collect()
}

/// The first lines in which two small texts differ.
fn first_line(theirs: &Node, ours: &Node) -> String {
    let (Ok(one), Ok(two)) = (std::str::from_utf8(&theirs.bytes), std::str::from_utf8(&ours.bytes))
    else {
        return String::new();
    };
    let mut lines = one.lines().zip(two.lines()).filter(|(one, two)| one != two);
    lines.next().map_or_else(String::new, |(one, two)| format!("\n    - {one}\n    + {two}"))
}

/// Paths that may differ, of one set of packages.
struct Volatile {
    lines: Vec<Line>,
}

struct Line {
    set: String,
    pattern: String,
}

impl Volatile {
    fn read(set: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity/volatile.tsv");
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                let [set, pattern, reason] = fields[..] else { panic!("three fields: {line}") };
                assert!(reason.len() > 10, "{pattern} needs a justification");
                Line { set: set.to_owned(), pattern: pattern.to_owned() }
            })
            .filter(|line| line.set == "*" || line.set == set)
            .collect();
        Self { lines }
    }

    fn allows(&self, path: &str) -> Option<&str> {
        let parts: Vec<&str> = path.split('/').collect();
        self.lines.iter().map(|line| line.pattern.as_str()).find(|pattern| {
            let pattern: Vec<&str> = pattern.split('/').collect();
            matches(&pattern, &parts)
        })
    }
}

/// `*` is any text in one name, `**` any number of names, none included.
fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..])),
        ([first, rest @ ..], [name, names @ ..]) => {
            let fits = match first.split_once('*') {
                None => first == name,
                Some((start, end)) => {
                    name.len() >= start.len() + end.len()
                        && name.starts_with(start)
                        && name.ends_with(end)
                }
            };
            fits && matches(rest, names)
        }
        _ => false,
    }
}

#[test]
fn patterns_match_whole_paths() {
    let fits = |pattern: &str, path: &str| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        matches(&pattern, &path)
    };
    assert!(fits("dev/**", "dev/null") && fits("dev/**", "dev"));
    assert!(!fits("dev", "dev/null"));
    assert!(fits("var/*/x-*", "var/a/x-1") && !fits("var/*/x-*", "var/a/b/x-1"));
}
