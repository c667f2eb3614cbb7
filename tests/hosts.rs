//! Hosts that forbid what the sandbox needs: the exact cause, the mend, and exit code 8.
//!
//! Needs root, unshare and bubblewrap; the last part also a user with subordinate ids.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::process::{Command, Output};

use common::is_root;
use common::refusing::refusing;

const DRYSTONE: &str = env!("CARGO_BIN_EXE_drystone");

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn expect(output: &Output, said: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{text}");
    for wanted in said {
        assert!(text.contains(wanted), "{wanted} is missing: {text}");
    }
}

#[test]
fn a_system_call_filter_is_named() {
    if !is_root() || !has("bwrap") {
        println!("skipped: this needs root and bubblewrap");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (mut command, _filter) = refusing(&[libc::SYS_unshare]);
    let output = command
        .args([DRYSTONE, "doctor"])
        .env("DRYSTONE_STORE", place.path().join("store"))
        .output()
        .unwrap();
    expect(&output, &["user namespaces are refused", "seccomp", "seccomp=unconfined"]);
}

#[test]
fn a_setting_that_forbids_user_namespaces_is_named() {
    if !is_root() || !has("unshare") {
        println!("skipped: this needs root and unshare");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    // The setting is that of the new user namespace alone.
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces && exec {DRYSTONE} doctor");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .env("DRYSTONE_STORE", place.path().join("store"))
        .output()
        .unwrap();
    expect(
        &output,
        &["user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000"],
    );
}

#[test]
fn a_user_without_subordinate_ids_is_told_the_command() {
    if !is_root() || !has("setpriv") {
        println!("skipped: this needs root and setpriv");
        return;
    }
    let folder = tempfile::Builder::new().prefix("drystone-hosts-").tempdir().unwrap();
    let program = folder.path().join("drystone");
    std::fs::copy(DRYSTONE, &program).unwrap();
    let run = |words: &[&str]| {
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    };
    let place = folder.path().display().to_string();
    run(&["chmod", "755", &place]);
    // Nobody has subordinate ids.
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("doctor")
        .env("HOME", "/nonexistent")
        .env("DRYSTONE_STORE", "/tmp/drystone-hosts-nowhere")
        .output()
        .unwrap();
    expect(&output, &["has no 65536 subordinate ids in /etc/subuid", "sudo usermod --add-subuids"]);
}
