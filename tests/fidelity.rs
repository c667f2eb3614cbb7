//! With the Essential set an image's root equals what mmdebstrap makes of the same packages: every path,
//! its type, content, mode and owner, dpkg's status included. What may differ is listed, with the reason,
//! in `tests/fidelity/volatile.tsv`.
//!
//! Without it, the same packages must make an image whose programs find all their libraries.
//!
//! A usual run compares two sets, `DRYSTONE_ORACLE=all` all of them, and `DRYSTONE_ORACLE_SET` any
//! other: `SUITE PACKAGE,... [recommends]`. Needs root and a Debian mirror.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::image::{self, Content, Node};
use common::repository::{Deb, Repository};
use common::{Project, RootTree, World, can_run, is_long_run, skip, succeed};

/// The one time of all entries; mmdebstrap is told it too.
const TIME: &str = "315532800";
/// How many differences a message shows.
const SHOWN: usize = 60;

macro_rules! sets {
    ($($name:ident: $suite:literal, $packages:literal, $when:ident $(, $recommends:ident)?;)+) => {
        $(#[test] fn $name() {
            let set = Set { name: stringify!($name), suite: $suite, packages: $packages, recommends: false };
            $(let set = Set { $recommends: true, ..set };)?
            compare(&set, When::$when);
        })+
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
    trixie_openssh_server: "trixie", "openssh-server,systemd-sysv,rsyslog", Long;
    daemons: "bookworm", "memcached,haproxy,squid,redis-server,lighttpd", Long;
    lamp: "bookworm", "apache2,libapache2-mod-php,php-mysql,mariadb-client", Long;
    systemd: "bookworm", "systemd-sysv,dbus,rsyslog,logrotate,cron", Long;
    samba: "bookworm", "samba", Long;
    recommends: "bookworm", "nginx-light,cron", Long, recommends;
    dokuwiki: "bookworm", "dokuwiki", Long;
    phpmyadmin: "bookworm", "phpmyadmin", Long;
}

/// Any set, for those who want to know before they rely on it.
#[test]
fn a_set_of_ones_own() {
    let Ok(text) = std::env::var("DRYSTONE_ORACLE_SET") else {
        skip("DRYSTONE_ORACLE_SET names no set");
        return;
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (suite, packages, recommends) = match words[..] {
        [suite, packages] => (suite, packages, false),
        [suite, packages, "recommends"] => (suite, packages, true),
        _ => panic!("DRYSTONE_ORACLE_SET is SUITE PACKAGE,... [recommends]: {text}"),
    };
    compare(&Set { name: "own", suite, packages, recommends }, When::Always);
}

#[derive(PartialEq)]
enum When {
    Always,
    Long,
}

/// What is asked of both.
#[derive(Clone, Copy)]
struct Set<'a> {
    /// As `volatile.tsv` names it.
    name: &'a str,
    suite: &'a str,
    /// Joined by commas, as mmdebstrap takes them.
    packages: &'a str,
    recommends: bool,
}

impl Set<'_> {
    fn project(&self, world: &World, essential: bool) -> Project {
        let names: Vec<&str> = self.packages.split(',').collect();
        world.project(
            &format!("{}-{essential}", self.name),
            &format!(
                "name = \"fidelity\"\n[debian]\nsuite = \"{}\"\nessential = {essential}\n\
                 recommends = {}\npackages = {names:?}\n",
                self.suite, self.recommends
            ),
        )
    }
}

fn compare(set: &Set<'_>, when: When) {
    if when == When::Long && !is_long_run() {
        skip("compared when DRYSTONE_ORACLE=all");
        return;
    }
    if !can_run(&["mmdebstrap"], true) {
        return;
    }
    let Some(world) = World::shared() else { return };
    let start = Instant::now();
    let built = world.build(&set.project(&world, true), &[]);
    let our_time = start.elapsed();
    let start = Instant::now();
    let theirs = mmdebstrap(&world, set, &[]);
    let their_time = start.elapsed();
    let theirs = RootTree::of_tarball(&theirs);
    let set_name = set.name;
    println!(
        "{set_name}: {:.1} s here, {:.1} s there, packages of earlier sets in the store",
        our_time.as_secs_f64(),
        their_time.as_secs_f64()
    );
    let mut problems: Vec<String> = unlike(set_name, &theirs, &built.root()).into_iter().collect();
    problems.extend(programs_start(&world, set));
    assert!(problems.is_empty(), "{set_name}: {}", problems.join("\n"));
}

/// How two roots differ beyond what is volatile.
fn unlike(set_name: &str, theirs: &RootTree, ours: &RootTree) -> Option<String> {
    let volatile = Volatile::read(set_name);
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
    println!("{set_name}: {} paths, {} volatile lines used", theirs.0.len(), used.len());
    for line in volatile.lines.iter().filter(|line| line.set != "*") {
        if !used.contains(line.pattern.as_str()) {
            println!("{set_name}: volatile line {} is not needed any more", line.pattern);
        }
    }
    let count = differences.len();
    differences.truncate(SHOWN);
    (count > 0).then(|| format!("{count} differences from mmdebstrap:\n{}", differences.join("\n")))
}

/// Without the Essential set the image must build, and its programs must find their libraries;
/// what is wrong. The loader of the image itself is asked, as ldd does.
fn programs_start(world: &World, set: &Set<'_>) -> Option<String> {
    let built = world.build(&set.project(world, false), &[]);
    for line in built.messages.lines().filter(|line| line.contains("is not in the image")) {
        println!("{}: {line}", set.name);
    }
    let root = world.path("root");
    image::unpack(&built.tarball, &root);
    let table = built.root();
    let loader = LOADERS.iter().find(|loader| table.get(loader).is_some())?;
    let mut asked = 0;
    let mut problems = Vec::new();
    for (path, node) in &table.0 {
        let is_program = ["usr/bin/", "usr/sbin/"].iter().any(|folder| path.starts_with(folder));
        if !is_program || !matches!(node.content, Content::File { .. }) {
            continue;
        }
        asked += 1;
        let mut command = Command::new("chroot");
        command.arg(&root).args([&format!("/{loader}"), "--list", &format!("/{path}")]);
        let output = command.env_clear().env("PATH", "/usr/sbin:/usr/bin").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines =
            said.lines().filter(|line| line.contains("not found") || line.contains("cannot open"));
        problems.extend(lines.map(|line| format!("/{path}: {}", line.trim())));
    }
    println!("{}: {asked} programs asked", set.name);
    (!problems.is_empty()).then(|| format!("libraries are missing:\n{}", problems.join("\n")))
}

/// Program interpreters of amd64, arm64 and i386.
const LOADERS: [&str; 3] = [
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
    "usr/lib/i386-linux-gnu/ld-linux.so.2",
];

/// What mmdebstrap makes, through the same proxy, with the same suites.
fn mmdebstrap(world: &World, set: &Set<'_>, more_sources: &[String]) -> PathBuf {
    let target = world.path("mmdebstrap.tar");
    // Packages write the host's name into their configuration: the sandbox's name is always this one.
    let mut command = Command::new("unshare");
    command
        .args(["--uts", "sh", "-c", "hostname localhost && exec mmdebstrap \"$@\"", "sh"])
        .args(["--quiet", "--variant=essential", &format!("--include={}", set.packages)])
        .arg(format!("--aptopt=APT::Install-Recommends \"{}\"", set.recommends))
        .arg(set.suite)
        .arg(&target)
        .args(world.archive.apt_sources(set.suite))
        .args(more_sources)
        .env("SOURCE_DATE_EPOCH", TIME);
    succeed(&mut command);
    target
}

/// What the next script does is written down, in one file for all packages.
macro_rules! noting {
    ($script:literal) => {
        concat!(
            "#!/bin/sh\nset -e\n",
            "echo $DPKG_MAINTSCRIPT_PACKAGE $DPKG_MAINTSCRIPT_NAME \"$@\" >>/var/lib/odd-log\n",
            // As apache2's helper asks whether apache2 is configured.
            "dpkg-query --show --showformat '${Package} ${Status}\\n' adduser 'odd-*' 2>/dev/null",
            " | grep -e ' installed$' -e ' half-configured$' -e ' triggers-' >>/var/lib/odd-log || true\n",
            $script
        )
    };
}

/// Packages that do all at once what the archive's do here and there: who comes first, who owns what,
/// which triggers run when. Names are such that dpkg's order is not the alphabet's.
const ODD: &[Deb<'_>] = &[
    Deb {
        name: "odd-base",
        fields: "Depends: adduser\n",
        files: &[
            ("usr/share/odd/shared", "base\n"),
            ("usr/share/odd/only-base", "base\n"),
            ("usr/bin/odd-tool", "#!/bin/sh\necho base\n"),
            ("etc/odd/a.conf", "a\n"),
            ("etc/odd/b.conf", "b\n"),
        ],
        control: &[
            ("conffiles", "/etc/odd/b.conf\nremove-on-upgrade /etc/odd/c.conf\n/etc/odd/a.conf\n"),
            (
                "postinst",
                noting!(
                    "adduser --quiet --system --group odd-base\necho local >>/etc/odd/b.conf\n"
                ),
            ),
        ],
        ..NOTHING
    },
    Deb {
        name: "odd-a-user",
        fields: "Depends: adduser\n",
        control: &[(
            "postinst",
            noting!(
                "adduser --quiet --system --group odd-a\n\
                 mkdir -p /run/odd/inner /run/lock/odd; echo x > /run/odd.pid\n"
            ),
        )],
        ..NOTHING
    },
    Deb {
        name: "odd-b-user",
        fields: "Depends: adduser\n",
        control: &[("postinst", noting!("adduser --quiet --system --group odd-b\n"))],
        ..NOTHING
    },
    Deb {
        name: "odd-divert",
        fields: "Depends: odd-base\n",
        files: &[("usr/bin/odd-tool", "#!/bin/sh\necho divert\n")],
        control: &[
            (
                "preinst",
                noting!(
                    "dpkg-divert --package odd-divert --add --rename --divert /usr/bin/odd-tool.real /usr/bin/odd-tool\n"
                ),
            ),
            ("postinst", noting!("")),
        ],
        ..NOTHING
    },
    Deb {
        name: "odd-override",
        files: &[("usr/share/odd-mail/mail", "#!/bin/sh\n")],
        // As redis-server does: the folder keeps the mode that only the script gave it.
        control: &[(
            "postinst",
            noting!(
                "dpkg-statoverride --update --add root mail 2750 /usr/share/odd-mail/mail\n\
                 chmod 2770 /usr/share/odd-mail\n"
            ),
        )],
        ..NOTHING
    },
    Deb {
        name: "odd-replace",
        fields: "Replaces: odd-base\n",
        files: &[("usr/share/odd/shared", "replace\n")],
        control: &[("postinst", noting!(""))],
        ..NOTHING
    },
    Deb {
        name: "odd-look",
        // As libpaper1 runs what texlive-base puts there, which is configured after it.
        control: &[(
            "postinst",
            noting!("mkdir -p /var/lib/odd && ls /etc/odd-late.d > /var/lib/odd/seen\n"),
        )],
        ..NOTHING
    },
    Deb {
        name: "odd-late",
        fields: "Depends: odd-look\n",
        files: &[("etc/odd-late.d/late", "late\n"), ("etc/odd-late.d/plain", "plain\n")],
        control: &[
            ("conffiles", "/etc/odd-late.d/late\n"),
            ("postinst", noting!("ls /etc/odd-late.d > /var/lib/odd/late\n")),
        ],
        ..NOTHING
    },
    Deb {
        name: "odd-watch",
        control: &[
            ("triggers", "interest-noawait /usr/share/odd-watched\ninterest-noawait odd-event\n"),
            ("postinst", noting!("")),
        ],
        ..NOTHING
    },
    Deb {
        name: "odd-event",
        fields: "Depends: odd-watch\n",
        files: &[("usr/share/odd-watched/x", "x\n")],
        control: &[
            ("triggers", "activate-noawait odd-event\n"),
            ("postinst", noting!("dpkg-trigger --no-await odd-event\n")),
        ],
        ..NOTHING
    },
    // Who activates it waits, and so do those that depend on it.
    Deb {
        name: "odd-wait",
        control: &[
            ("triggers", "interest odd-wait\ninterest-await odd-wait-2\n"),
            (
                "postinst",
                noting!("if [ $1 = configure ]; then dpkg-trigger --no-await odd-wait; fi\n"),
            ),
        ],
        ..NOTHING
    },
    Deb {
        name: "odd-wait-a",
        fields: "Depends: odd-wait\n",
        control: &[("triggers", "activate odd-wait\n"), ("postinst", noting!(""))],
        ..NOTHING
    },
    Deb {
        name: "odd-wait-b",
        fields: "Depends: odd-wait-a\n",
        control: &[("postinst", noting!("dpkg-trigger odd-wait-2\n"))],
        ..NOTHING
    },
    Deb {
        name: "odd-wait-c",
        fields: "Depends: odd-wait-b, odd-wait\n",
        control: &[("postinst", noting!(""))],
        ..NOTHING
    },
    Deb {
        name: "odd-wait-d",
        fields: "Depends: odd-wait\n",
        control: &[("triggers", "activate-noawait odd-wait-2\n"), ("postinst", noting!(""))],
        ..NOTHING
    },
    Deb {
        name: "odd-wait-e",
        fields: "Depends: odd-wait-d\n",
        control: &[("postinst", noting!(""))],
        ..NOTHING
    },
    Deb {
        name: "odd-mode",
        files: &[("usr/share/odd-mode/own", "own\n")],
        control: &[
            (
                "preinst",
                noting!("dpkg-statoverride --add root mail 640 /usr/share/odd-mode/own 2>&1\n"),
            ),
            (
                "postinst",
                noting!(
                    "dpkg-statoverride --add root mail 640 /usr/share/odd-mode/later\n\
                     mkdir -p /var/lib/odd-empty/inner\n\
                     dpkg-statoverride --add root mail 2750 /usr/share/odd-mode-later\n"
                ),
            ),
        ],
        ..NOTHING
    },
    Deb {
        name: "odd-mode-later",
        fields: "Pre-Depends: odd-mode\n",
        files: &[("usr/share/odd-mode/later", "later\n"), ("usr/share/odd-mode-later/x", "x\n")],
        control: &[("preinst", noting!("")), ("postinst", noting!(""))],
        ..NOTHING
    },
    // What is unpacked and not configured has its configuration files under other names.
    Deb {
        name: "odd-peek",
        fields: "Pre-Depends: odd-mode\nDepends: odd-late\n",
        control: &[("preinst", noting!("ls /etc/odd-late.d >>/var/lib/odd-log\n"))],
        ..NOTHING
    },
    // Each preinst sees what was unpacked before its own package, and no more.
    Deb {
        name: "odd-seen-a",
        files: &[("usr/share/odd-seen/a", "a\n"), ("usr/bin/odd-seen", "#!/bin/sh\necho seen\n")],
        control: &[(
            "preinst",
            noting!("ls /usr/share/odd-seen >>/var/lib/odd-log 2>&1 || true\n"),
        )],
        ..NOTHING
    },
    Deb { name: "odd-seen-b", files: &[("usr/share/odd-seen/b", "b\n")], ..NOTHING },
    Deb {
        name: "odd-seen-c",
        files: &[("usr/share/odd-seen/c", "c\n")],
        control: &[(
            "preinst",
            noting!(
                "ls /usr/share/odd-seen >>/var/lib/odd-log\n\
                 if command -v odd-seen >/dev/null; then mkdir -p /var/lib/odd-seen; fi\n"
            ),
        )],
        ..NOTHING
    },
    Deb { name: "odd-seen-d", files: &[("usr/share/odd-seen/d", "d\n")], ..NOTHING },
    Deb {
        name: "odd-one",
        fields: "Depends: odd-two\n",
        files: &[("usr/bin/odd1", "#!/bin/sh\n")],
        control: &[(
            "postinst",
            noting!("update-alternatives --install /usr/bin/odd odd /usr/bin/odd1 10\n"),
        )],
        ..NOTHING
    },
    Deb {
        name: "odd-two",
        fields: "Depends: odd-one\n",
        files: &[("usr/bin/odd2", "#!/bin/sh\n")],
        control: &[(
            "postinst",
            noting!("update-alternatives --install /usr/bin/odd odd /usr/bin/odd2 10\n"),
        )],
        ..NOTHING
    },
    Deb {
        name: "odd-pre",
        fields: "Pre-Depends: odd-a-user\n",
        files: &[("usr/share/odd/pre", "pre\n")],
        control: &[
            ("preinst", "#!/bin/sh\ngetent passwd odd-a >/dev/null\n"),
            ("postinst", noting!("chown odd-a:odd-a /usr/share/odd/pre\n")),
        ],
        ..NOTHING
    },
    // A link and a directory at one path, either one first, and against the alphabet.
    Deb { name: "odd-place-z", files: &[("usr/share/odd-a/x", "x\n")], ..NOTHING },
    Deb {
        name: "odd-place-b",
        fields: "Pre-Depends: odd-place-z\n",
        files: &[("usr/share/odd-a", "-> odd-b"), ("usr/share/odd-b/y", "y\n")],
        ..NOTHING
    },
    Deb {
        name: "odd-place-c",
        fields: "Pre-Depends: odd-place-b\n",
        files: &[("usr/share/odd-a/z", "z\n"), ("usr/share/odd-c", "-> odd-b")],
        ..NOTHING
    },
    Deb {
        name: "odd-place-d",
        fields: "Pre-Depends: odd-place-c\n",
        files: &[("usr/share/odd-c/w/v", "w\n")],
        control: &[("postinst", noting!("ls -R /usr/share/odd-[abc] >>/var/lib/odd-log\n"))],
        ..NOTHING
    },
];

const NOTHING: Deb<'_> = Deb { name: "", version: "1", fields: "", files: &[], control: &[] };

/// The same, of packages made here.
#[test]
fn odd_packages_are_as_dpkg_has_them() {
    if !can_run(&["mmdebstrap"], true) {
        return;
    }
    let Some(world) = World::shared() else { return };
    let Some(repository) = Repository::new(&world.path("repository")) else { return };
    for deb in ODD {
        repository.add(deb);
    }
    repository.publish(&[]);
    let address = repository.serve();
    let names: Vec<&str> = ODD.iter().map(|deb| deb.name).collect();
    let wanted: Vec<String> =
        names.iter().map(|name| format!("{{ name = {name:?}, from = \"local\" }}")).collect();
    let project = world.project(
        "odd",
        &format!(
            "name = \"odd\"\n[debian]\nsuite = \"bookworm\"\nessential = true\npackages = [{}]\n{}",
            wanted.join(", "),
            repository.table(&address)
        ),
    );
    let ours = world.build(&project, &[]).root();
    let set = Set { name: "odd", suite: "bookworm", packages: &names.join(","), recommends: false };
    let source = format!("deb [trusted=yes] {address} test main");
    let theirs = RootTree::of_tarball(&mmdebstrap(&world, &set, &[source]));
    println!("{}", theirs.at("var/lib/odd-log").text());
    let unlike = unlike("odd", &theirs, &ours);
    assert_eq!(
        theirs.at("var/lib/odd-log").text(),
        ours.at("var/lib/odd-log").text(),
        "{}",
        unlike.unwrap_or_default()
    );
    assert_eq!(unlike, None);
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
