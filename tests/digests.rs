//! One project gives one digest, whoever builds it and wherever: all that surrounds a build is changed at
//! once, and if that changes the digest, one by one to name the culprit.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{World, can_run, is_long_run, is_root, run, skip};

/// Scripts, accounts, a service, local files and a last script: every builder takes part.
const IMAGE: &str = r#"
name = "digest"

[debian]
suite    = "bookworm"
packages = ["nginx-light", "dbus"]

[users.app]
uid = 10001

[files]
"/srv"       = "site/"
"/etc/motd"  = { text = "Hello.\n" }
"/srv/state" = { directory = true, uid = 10001, gid = 10001, mode = "0700" }

[finish]
script = "ln -s ../motd /etc/nginx/motd && rm -r /usr/share/doc/dbus && mkdir -p /srv/made && echo made > /srv/made/file"

[config]
cmd = ["nginx", "-g", "daemon off;"]
"#;

/// What surrounds a build.
#[derive(Debug, Clone, Default)]
struct Around {
    folder: &'static str,
    store: &'static str,
    jobs: &'static str,
    umask: &'static str,
    variables: Vec<(&'static str, &'static str)>,
    /// Modes and dates of the sources, as another clone has them.
    other_clone: bool,
}

impl Around {
    fn usual() -> Self {
        Self { folder: "one", store: "store-one", jobs: "2", umask: "022", ..Self::default() }
    }

    /// Everything else than usual.
    fn unusual() -> Self {
        Self {
            folder: "two/deeper and with spaces",
            store: "store-two",
            jobs: "8",
            umask: "077",
            variables: [Self::ZONE, Self::LOCALE, Self::NOISE].concat(),
            other_clone: true,
        }
    }

    const ZONE: &[(&str, &str)] = &[("TZ", "Asia/Kathmandu")];
    const LOCALE: &[(&str, &str)] = &[("LC_ALL", "tr_TR.UTF-8"), ("LANG", "de_DE.UTF-8")];
    const NOISE: &[(&str, &str)] = &[
        ("USER", "somebody"),
        ("LOGNAME", "somebody"),
        ("TERM", "xterm"),
        ("COLUMNS", "40"),
        ("LD_BIND_NOW", "1"),
        ("PERL5LIB", "/nonexistent"),
        ("PYTHONHASHSEED", "7"),
        ("NO_COLOR", "1"),
    ];

    /// The usual with one thing changed, for naming the culprit.
    fn one_by_one() -> Vec<Self> {
        let unusual = Self::unusual();
        let usual = |number| Self { store: number, ..Self::usual() };
        vec![
            Self { folder: unusual.folder, ..usual("s1") },
            Self { jobs: "1", ..usual("s2") },
            Self { jobs: unusual.jobs, ..usual("s3") },
            Self { umask: unusual.umask, ..usual("s4") },
            Self { variables: Self::ZONE.to_vec(), ..usual("s5") },
            Self { variables: Self::LOCALE.to_vec(), ..usual("s6") },
            Self { variables: Self::NOISE.to_vec(), ..usual("s7") },
            Self { other_clone: true, ..usual("s8") },
        ]
    }
}

/// A digest and the tarball's.
#[derive(Debug, PartialEq, Eq)]
struct Digests {
    manifest: String,
    tarball: String,
}

/// Builds from one lock, so that only what surrounds the build differs.
fn build(world: &World, around: &Around, lock: Option<&Path>) -> (Digests, PathBuf) {
    let folder = world.path(around.folder);
    sources(world, around, lock);
    let script = format!("umask {}; exec \"$@\"", around.umask);
    let mut command = Command::new("sh");
    world.environment(&mut command);
    command
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_drystone"), "build", "-j", around.jobs])
        .env("DRYSTONE_STORE", world.path(around.store))
        .envs(around.variables.iter().copied())
        .current_dir(&folder);
    if lock.is_some() {
        command.arg("--locked");
    }
    (digests(&mut command, &folder), folder.join("image.lock"))
}

fn sources(world: &World, around: &Around, lock: Option<&Path>) {
    let project = world.project(around.folder, IMAGE);
    project.write("site/index.html", "hello\n").write("site/bin/run", "#!/bin/sh\n");
    project.make_executable("site/bin/run");
    if let Some(lock) = lock {
        fs::copy(lock, project.folder.join("image.lock")).unwrap();
    }
    if around.other_clone {
        let folder = project.folder.as_os_str();
        run("chmod", &[OsStr::new("-R"), OsStr::new("go-rwx"), folder]);
        run(
            "find",
            &[
                folder,
                OsStr::new("-exec"),
                "touch".as_ref(),
                "-d@1".as_ref(),
                "{}".as_ref(),
                "+".as_ref(),
            ],
        );
    }
}

fn digests(command: &mut Command, folder: &Path) -> Digests {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = String::from_utf8(output.stdout).unwrap();
    let tarball = folder.join("digest.tar");
    let sum = run("sha256sum", &[tarball.as_os_str()]);
    Digests {
        manifest: answer.trim_end().split_once('@').unwrap().1.to_owned(),
        tarball: sum.split(' ').next().unwrap().to_owned(),
    }
}

#[test]
fn whatever_surrounds_a_build_its_digest_is_one() {
    let Some(world) = World::fresh() else { return };
    let (expected, lock) = build(&world, &Around::usual(), None);
    let (unusual, _) = build(&world, &Around::unusual(), Some(&lock));
    if unusual == expected && !is_long_run() {
        return;
    }
    for around in Around::one_by_one() {
        let (found, _) = build(&world, &around, Some(&lock));
        assert_eq!(found, expected, "{around:?}");
    }
    assert_eq!(unusual, expected);
}

/// The user that builds without root; tests/install-peers.sh makes it.
const USER: &str = "drystone-test";

#[test]
fn an_ordinary_user_gets_roots_digest() {
    if !is_root() {
        skip("this run is an ordinary user's");
        return;
    }
    if !can_run(&["setpriv", "newuidmap", "newgidmap"], true) {
        return;
    }
    let known = Command::new("id").args(["-u", USER]).output().unwrap();
    if !known.status.success() {
        skip(&format!("no user {USER}; tests/install-peers.sh makes it"));
        return;
    }
    let Some(world) = World::fresh() else { return };
    let (expected, lock) = build(&world, &Around::usual(), None);

    // The user gets folders of its own, and a command that it can read.
    let around = Around { folder: "user/project", ..Around::usual() };
    sources(&world, &around, Some(&lock));
    let program = world.path("drystone");
    fs::copy(env!("CARGO_BIN_EXE_drystone"), &program).unwrap();
    let home = world.path("user");
    run("chmod", &[OsStr::new("755"), world.folder.path().as_os_str()]);
    let owner = format!("{USER}:");
    run("chown", &[OsStr::new("-R"), OsStr::new(&owner), home.as_os_str()]);
    let mut command = Command::new("setpriv");
    world.environment(&mut command);
    command
        .args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--init-groups"])
        .arg(&program)
        .args(["build", "--locked"])
        .env("HOME", &home)
        .env("DRYSTONE_STORE", home.join("store"))
        .current_dir(world.path(around.folder));
    let found = digests(&mut command, &world.path(around.folder));
    // What the user built belongs to subordinate ids, which the user alone cannot remove.
    run("rm", &[OsStr::new("-rf"), home.join("store").as_os_str()]);
    assert_eq!(found, expected);
}

/// Trees of local files are remembered with stamps of the files: whatever changes must show, and
/// what was remembered must be what would be made.
#[test]
fn local_files_are_read_again_whenever_they_changed() {
    let Some(world) = World::fresh() else { return };
    let image = "name = \"files\"\n[files]\n\"/srv\" = \"site/\"\n";
    let project = world.project("files", image);
    let layout = world.path("layout").display().to_string();
    // An OCI layout is written each time, so the steps run each time.
    let digest = || world.build(&project, &["--oci-layout", &layout]).digest;
    project.write("site/page", "one");
    project.write("site/other", "x");
    // Stamps count once they are older than the clock's grain.
    let settle = || std::thread::sleep(std::time::Duration::from_millis(80));
    settle();
    let first = digest();
    assert_eq!(digest(), first);
    let page = project.folder.join("site/page");
    let times = fs::metadata(&page).unwrap();
    // The same size and date of modification, as a careless copy leaves them.
    project.write("site/page", "two");
    let file = fs::File::options().write(true).open(&page).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    drop(file);
    settle();
    let second = digest();
    assert_ne!(second, first);
    project.make_executable("site/other");
    settle();
    let third = digest();
    assert!(third != second && third != first);
    fs::remove_file(project.folder.join("site/other")).unwrap();
    settle();
    let fourth = digest();
    project.write("site/other", "x");
    project.write("site/page", "one");
    settle();
    assert_eq!(digest(), first, "what stood before gives what it gave");
    assert!(fourth != third && fourth != first);
    let store = world.path("store-without-memory").display().to_string();
    let again = world.build(&project, &["--oci-layout", &layout, "--store", &store]).digest;
    assert_eq!(again, first);
}
