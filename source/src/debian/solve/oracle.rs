//! The solver against the real apt-get, over the indexes that this host has downloaded.
//!
//! The plain test asks for some sets of many packages each, to stay within seconds. With
//! `DRYSTONE_ORACLE=all` in the environment every package is asked for on its own, and so are sets
//! drawn at random, in three ways: `cargo test -p drystone-source oracle -- --nocapture` then takes
//! some minutes. `DRYSTONE_ORACLE_DRAWS=SETS[,SEED]` draws more or other sets, and
//! `DRYSTONE_ORACLE_LISTS` names another folder of lists, as for another suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use drystone_store::digest::BlobDigest;

use super::*;
use crate::debian::control::paragraphs;
use crate::debian::index::read_packages;
use crate::debian::release::Release;
use crate::debian::universe::Reach;

/// Where apt keeps the indexes that it has downloaded.
fn lists() -> PathBuf {
    std::env::var_os("DRYSTONE_ORACLE_LISTS")
        .map_or_else(|| PathBuf::from("/var/lib/apt/lists"), PathBuf::from)
}

/// Packages of many kinds that can be installed together, a set a line.
const TOGETHER: &[&str] = &[
    "nginx-light redis-server memcached haproxy varnish git curl ca-certificates cron tzdata",
    "python3-flask python3-numpy nodejs golang gcc make libc6-dev cmake ninja-build debhelper",
    "php8.2-mysql w3m-el moreutils parallel original-awk libwww-perl tcl lua5.4 sqlite3 sudo",
    "postgresql mariadb-client openssh-server rsyslog dbus systemd fontconfig imagemagick kmod",
    "default-jre-headless tomcat10 logwatch bsd-mailx mutt squid dnsmasq openmpi-bin gnupg slapd",
];

/// Packages and sets that are compared one by one in the long run.
const ALONE: &str = "nginx-light, nginx-full, redis-server, postgresql, postgresql-15, mariadb-server, openssh-server,
    python3, python3-flask, python3-numpy, python3-django, python3-pip, php-fpm, php8.2-mysql, php-symfony,
    apache2 libapache2-mod-php, nodejs npm, ruby-full, rails, golang, gcc make libc6-dev, build-essential, clang,
    cmake ninja-build, default-jre-headless, openjdk-17-jdk-headless, maven, git, curl ca-certificates, exim4, postfix,
    mailutils, bsd-mailx, w3m-el, emacs-nox, emacs, vim, vim-gtk3, fontconfig, imagemagick, ffmpeg, texlive-latex-base,
    libreoffice-core, gnome-terminal, gnome-core, chromium, xterm, r-base-core, octave, moreutils parallel, cron,
    systemd, systemd-sysv, dbus, rsyslog, haproxy, varnish, memcached, rabbitmq-server, erlang-base, tomcat10, jetty9,
    sendmail, mawk gawk, original-awk, busybox, tzdata locales, perl, libwww-perl, tcl, lua5.4, ghc, cargo, debhelper,
    devscripts, docker.io, podman, qemu-system-x86, wireguard, iptables, nfs-kernel-server, samba, slapd, bind9,
    dnsmasq, squid, mediawiki, wordpress, phpmyadmin, gitweb, no-such-package, logwatch, mutt, mpd, sqlite3, gdal-bin,
    postgis, zabbix-agent, prometheus, libghc-aeson-dev, librust-serde-dev, librust-ahash-0.7-dev, openmpi-bin,
    dovecot-imapd, roundcube-core, cups, gnupg, sudo, kmod, exim4 postfix, mail-transport-agent, kde-standard, lxde,
    python3-all-dev, libopenmpi-dev, phpunit, cl-sql, auctex, tachyon, sbcl, ocaml, mono-complete, sysvinit-core,
    openrc, network-manager, apparmor, flatpak, snapd, ansible, vagrant, libvirt-daemon-system, xfce4, task-web-server,
    dh-make-perl, jenkins-debian-glue, mutter, gimp, inkscape, blender, wine, steam-devices, default-mta, cmus, irssi";

/// The host's indexes in the order that people list suites: release, updates, security.
fn indexes() -> Vec<PathBuf> {
    let entries = fs::read_dir(lists()).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().contains("_Packages"));
    paths.sort_by_cached_key(|path| {
        let text = path.to_string_lossy().into_owned();
        (text.contains("-security_"), text.contains("-updates_"), text)
    });
    paths
}

/// The text of an index, however apt keeps it.
fn text_of(path: &Path) -> String {
    let output = Command::new("/usr/lib/apt/apt-helper").arg("cat-file").arg(path).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The host's universe, and the texts that it was read from; `None`, with a reason, without apt.
fn host() -> Option<(Universe, Vec<String>)> {
    let architecture = Command::new("dpkg").arg("--print-architecture").output().ok();
    let paths = indexes();
    let (Some(architecture), false) = (architecture, paths.is_empty()) else {
        println!(
            "skipped: this host has no apt, or no indexes in {} (run apt-get update)",
            lists().display()
        );
        return None;
    };
    let mut universe = Universe::new(String::from_utf8(architecture.stdout).unwrap().trim());
    let texts: Vec<String> = paths.iter().map(|path| text_of(path)).collect();
    for text in &texts {
        universe.add(Reach::Default, read_packages("debian", text).unwrap());
    }
    Some((universe, texts))
}

/// A throw-away apt root over the host's lists.
struct Apt {
    directory: tempfile::TempDir,
    options: Vec<String>,
}

impl Apt {
    fn new(architecture: &str, status: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display().to_string();
        for directory in ["cache/archives/partial", "preferences.d"] {
            fs::create_dir_all(Path::new(&root).join(directory)).unwrap();
        }
        fs::write(format!("{root}/status"), status).unwrap();
        let options = [
            format!("Dir::State={root}"),
            format!("Dir::State::lists={}", lists().display()),
            format!("Dir::State::status={root}/status"),
            format!("Dir::Cache={root}/cache"),
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            format!("Dir::Etc::preferences={root}/preferences"),
            format!("Dir::Etc::preferencesparts={root}/preferences.d"),
            format!("Dir::Log={root}"),
            format!("APT::Architecture={architecture}"),
            "Debug::NoLocking=1".to_owned(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        let apt = Self { directory, options };
        // One cache for all runs: reading the indexes is most of the time.
        apt.command("apt-cache").arg("gencaches").output().unwrap();
        apt
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C").current_dir(self.directory.path());
        command
    }

    /// What `apt-get install` would install: sorted `name version` pairs, or `None`.
    fn install(&self, recommends: bool, names: &[&str]) -> Option<Vec<String>> {
        let mut command = self.command("apt-get");
        command.args([
            "-qq",
            "--print-uris",
            "-o",
            &format!("APT::Install-Recommends={recommends}"),
        ]);
        let output = command.arg("install").args(names).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // 'address' name_version_architecture.deb size hash
        let read = |line: &str| {
            let mut parts = line.split_whitespace().nth(1)?.split('_');
            Some(format!("{} {}", parts.next()?, parts.next()?.replace("%3a", ":")))
        };
        let mut installed: Vec<String> = text.lines().filter_map(read).collect();
        installed.sort();
        output.status.success().then_some(installed)
    }
}

/// What this solver would install, without what is installed.
fn ours(
    universe: &Universe,
    essential: bool,
    recommends: bool,
    names: &[&str],
) -> Result<Vec<String>, String> {
    let roots = names.iter().map(|name| PackageRequest::named(name)).collect();
    let request = SolveRequest { roots, essential, recommends, ..SolveRequest::default() };
    let solution = solve(universe, &request).map_err(|unsolvable| unsolvable.to_string())?;
    let pair = |record: &&PackageRecord| format!("{} {}", record.name, record.version);
    let mut names: Vec<String> = solution.packages.iter().map(pair).collect();
    names.sort();
    Ok(names)
}

/// What differs, for people; `None` if nothing does.
fn difference(theirs: Option<Vec<String>>, ours: Result<Vec<String>, String>) -> Option<String> {
    let (theirs, ours) = match (theirs, ours) {
        (None, Err(_)) => return None,
        (None, Ok(_)) => return Some("only we find a solution".to_owned()),
        (Some(_), Err(text)) => return Some(format!("only apt finds a solution; {text}")),
        (Some(theirs), Ok(ours)) => (theirs, ours),
    };
    let missing: Vec<_> = theirs.iter().filter(|name| !ours.contains(name)).collect();
    let extra: Vec<_> = ours.iter().filter(|name| !theirs.contains(name)).collect();
    (theirs != ours).then(|| format!("only apt: {missing:?}, only we: {extra:?}"))
}

/// dpkg's status file of a system on which the named packages are installed.
fn status(texts: &[String], installed: &[String]) -> String {
    let mut status = String::new();
    for paragraph in texts.iter().flat_map(|text| paragraphs(text)).map(Result::unwrap) {
        let value = |name| paragraph.value(name).unwrap_or_default();
        if installed.contains(&format!("{} {}", value("Package"), value("Version"))) {
            status += "Status: install ok installed\n";
            for field in paragraph.fields() {
                status += &format!("{}: {}\n", field.name, field.value());
            }
            status.push('\n');
        }
    }
    status
}

/// The hash chain from a Release file to an index holds when both are read by this module.
#[test]
fn release_files_vouch_for_indexes() {
    let mut compared = 0;
    for path in indexes() {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some((suite, index)) = file.split_once("_main_binary-") else { continue };
        let release = path.with_file_name(format!("{suite}_InRelease"));
        let Ok(signed) = fs::read_to_string(release) else { continue };
        let body = signed.split_once("\n\n").unwrap().1;
        let body = body.split_once("-----BEGIN PGP SIGNATURE").unwrap().0;
        let release = Release::read(body).unwrap();
        let (architecture, _) = index.split_once('_').unwrap();
        assert!(release.architectures.iter().any(|known| known == architecture));
        let entry = release.files[&format!("main/binary-{architecture}/Packages")];
        let text = text_of(&path);
        assert_eq!(
            (entry.size, entry.digest),
            (text.len() as u64, BlobDigest::of(text.as_bytes()))
        );
        compared += 1;
    }
    if compared == 0 {
        println!("skipped: no signed indexes in {} (run apt-get update)", lists().display());
    }
}

/// How many sets are drawn at random in a long run, unless the environment says.
const DRAWS: usize = 40;

/// Sets of one to six packages, drawn from all names of the indexes: the same for one seed.
fn drawn(universe: &Universe, sets: usize, seed: u64) -> Vec<Vec<&str>> {
    let mut names: Vec<&str> =
        universe.packages().iter().map(|record| record.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut state = seed;
    // splitmix64
    let mut next = move |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    };
    (0..sets)
        .map(|_| {
            let count = 1 + next(6);
            (0..count).map(|_| names[next(names.len())]).collect()
        })
        .collect()
}

/// How many sets to draw, and with which seed.
fn draws(is_long: bool) -> (usize, u64) {
    let Ok(text) = std::env::var("DRYSTONE_ORACLE_DRAWS") else {
        return (if is_long { DRAWS } else { 0 }, 1);
    };
    let (sets, seed) = text.split_once(',').unwrap_or((&text, "1"));
    (sets.parse().unwrap(), seed.parse().unwrap())
}

#[test]
fn solutions_equal_those_of_apt() {
    let Some((universe, texts)) = host() else { return };
    let long = std::env::var_os("DRYSTONE_ORACLE").is_some_and(|value| value == "all");
    let mut sets: Vec<Vec<&str>> = if long {
        ALONE.split(',').map(|set| set.split_whitespace().collect()).collect()
    } else {
        TOGETHER.iter().map(|set| set.split_whitespace().collect()).collect()
    };
    let (count, seed) = draws(long);
    if count > 0 && !long {
        // Asked for by number, the drawn ones are all that is wanted.
        sets.clear();
    }
    sets.extend(drawn(&universe, count, seed));
    let long = long || count > 0;

    let empty = Apt::new(universe.architecture(), "");
    let essential = ours(&universe, true, false, &[]).unwrap();
    let theirs = empty.install(false, &universe.essential());
    assert_eq!(difference(theirs, Ok(essential.clone())), None, "the Essential set");
    let ways = [(false, false), (true, false), (false, true)];
    let ways = if long { &ways[..] } else { &ways[..1] };
    let mut work: Vec<(&[&str], bool, bool)> = Vec::new();
    for &(essential, recommends) in ways {
        work.extend(sets.iter().map(|set| (set.as_slice(), essential, recommends)));
    }
    let installed = long.then(|| Apt::new(universe.architecture(), &status(&texts, &essential)));
    let next = AtomicUsize::new(0);
    let (packages, unsolvable) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let compare = || {
        let mut failures = Vec::new();
        while let Some(&(set, with_essential, recommends)) =
            work.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let apt = installed.as_ref().filter(|_| with_essential).unwrap_or(&empty);
            let mut ours = ours(&universe, with_essential, recommends, set);
            if let (true, Ok(ours)) = (with_essential, &mut ours) {
                ours.retain(|name| !essential.contains(name));
            }
            let theirs = apt.install(recommends, set);
            assert!(long || theirs.is_some(), "apt cannot install {set:?}: nothing is compared");
            match &theirs {
                Some(theirs) => packages.fetch_add(theirs.len(), Ordering::Relaxed),
                None => unsolvable.fetch_add(1, Ordering::Relaxed),
            };
            if let Some(difference) = difference(theirs, ours) {
                failures.push(format!("{set:?} {with_essential} {recommends}: {difference}"));
            }
        }
        failures
    };
    let failures = std::thread::scope(|scope| {
        let other = scope.spawn(compare);
        let mut failures = compare();
        failures.extend(other.join().unwrap());
        failures
    });
    println!(
        "{} of {} solutions equal apt's: {packages:?} packages, {unsolvable:?} sets without a solution",
        work.len() - failures.len(),
        work.len(),
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
