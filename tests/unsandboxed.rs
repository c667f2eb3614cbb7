//! Hosts that forbid namespaces: root builds with `--sandbox=none`, loudly, and gets the same image.
//!
//! Needs root and bubblewrap, which puts the command behind a filter that refuses namespaces, as
//! container engines have it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::process::Output;

use common::refusing::refusing;
use common::repository::{Deb, Repository};
use common::{Project, World, can_run, expect_failure};

/// `drystone build` where new namespaces and mounts are refused.
fn build(world: &World, project: &Project, arguments: &[&str]) -> Output {
    let calls = [libc::SYS_unshare, libc::SYS_mount, libc::SYS_fsopen, libc::SYS_umount2];
    let (mut command, _filter) = refusing(&calls);
    world.environment(&mut command);
    command
        .args([env!("CARGO_BIN_EXE_drystone"), "build"])
        .arg(project.folder.join("image.toml"))
        .args(arguments)
        .output()
        .unwrap()
}

fn digest(answer: &[u8]) -> String {
    let answer = String::from_utf8_lossy(answer);
    answer.trim_end().split_once('@').unwrap().1.to_owned()
}

/// Two rounds: what the first's script deletes must not come back in the second's, and trees that
/// are equal stand there once.
const LOCAL: [Deb<'_>; 3] = [
    Deb {
        name: "first",
        version: "1",
        fields: "",
        files: &[
            ("etc/first.conf", "configured\n"),
            ("usr/share/first/gone", "gone\n"),
            ("usr/share/first/kept", "kept\n"),
        ],
        control: &[
            ("conffiles", "/etc/first.conf\n"),
            ("postinst", "#!/bin/sh\nset -e\nrm /usr/share/first/gone\n"),
        ],
    },
    Deb { name: "nothing", version: "1", fields: "", files: &[], control: &[] },
    Deb {
        name: "second",
        version: "1",
        fields: "Pre-Depends: first\nDepends: nothing\n",
        files: &[],
        control: &[
            ("preinst", "#!/bin/sh\nset -e\nls /usr/share/first > /usr/share/first/seen\n"),
            (
                "postinst",
                "#!/bin/sh\nset -e\nls /usr/share/first /etc/first* >> /usr/share/first/seen\n",
            ),
        ],
    },
];

#[test]
fn root_builds_the_same_image_without_a_sandbox() {
    if !can_run(&["bwrap"], true) {
        return;
    }
    let Some(world) = World::shared() else { return };
    let Some(repository) = Repository::new(&world.path("repository")) else { return };
    for deb in &LOCAL {
        repository.add(deb);
    }
    repository.publish(&[]);
    let text = r#"
name = "bare"
[debian]
suite = "bookworm"
packages = ["dbus", "cron", { name = "second", from = "local" }]
[recipe.hello]
source = "hello"
script = 'mkdir -p "$out/srv" && cat word > "$out/srv/word"'
[image]
recipes = ["hello"]
[finish]
script = "echo done > /etc/finished"
"#;
    let table = repository.table(&repository.serve());
    let project = world.project("bare", &format!("{text}{table}"));
    // No earlier run has built it.
    project.write("hello/word", &world.path("").display().to_string());

    let refused = build(&world, &project, &[]);
    expect_failure(&refused, 8, &["user namespaces are refused", "--sandbox=none"]);

    let bare = build(&world, &project, &["--sandbox=none"]);
    let said = String::from_utf8_lossy(&bare.stderr);
    assert!(bare.status.success(), "{said}");
    assert!(said.contains("--sandbox=none: scripts run as this machine's root"), "{said}");
    let sandboxed = world.build(&project, &[]);
    assert_eq!(digest(&bare.stdout), sandboxed.digest, "{said}");
    let root = sandboxed.root();
    let seen = root.at("usr/share/first/seen").text();
    assert_eq!(seen, "kept\nseen\n/etc/first.conf\n\n/usr/share/first:\nkept\nseen\n");
    assert!(root.get("usr/share/first/gone").is_none());
    // The store of the other builds has nothing of it.
    assert!(world.store.join("unsandboxed/db.sqlite").exists());
    let again = build(&world, &project, &[]);
    assert!(again.status.success(), "what a sandbox made needs none: it is in the store");
    world.verify();
}

#[test]
fn nothing_of_it_is_shared_or_signed() {
    if !can_run(&["bwrap"], true) {
        return;
    }
    let Some(world) = World::fresh() else { return };
    let cache = world.path("cache");
    let project = world.project(
        "alone",
        "name = \"alone\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"busybox-static\"]\n\
         [finish]\nscript = \"touch /etc/finished\"\n",
    );
    let key = world.path("ci.key");
    common::succeed(world.drystone(&["key", "generate", "ci", "--output"]).arg(&key));
    let (key, cache_name) = (key.display().to_string(), format!("file:{}", cache.display()));
    let share = ["--signing-key", &key, "--cache", &cache_name];
    let bare = build(&world, &project, &[&share[..], &["--sandbox=none"]].concat());
    assert!(bare.status.success(), "{}", String::from_utf8_lossy(&bare.stderr));
    let is_empty = !cache.exists() || std::fs::read_dir(&cache).unwrap().next().is_none();
    assert!(is_empty, "the cache was written");

    let target = format!("file:{}", world.path("pushed").display());
    let signing = [&share[..], &["--sandbox=none", "--push", &target, "--sign"]].concat();
    let refused = build(&world, &project, &signing);
    expect_failure(&refused, 2, &["what was built without a sandbox is not signed"]);
}
