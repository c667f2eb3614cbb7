//! Hosts that forbid what the sandbox needs: the exact cause, the mend, and exit code 8.
//!
//! Needs root, unshare and bubblewrap; the last part also a user with subordinate ids.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};

const DRYSTONE: &str = env!("CARGO_BIN_EXE_drystone");

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn expect(output: &Output, said: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{text}");
    for wanted in said {
        assert!(text.contains(wanted), "{wanted} is missing: {text}");
    }
}

/// A system call filter that refuses `unshare`, as engines of containers have it (seccomp(2)).
fn filter() -> std::fs::File {
    let step = |code: u16, jt: u8, jf: u8, k: u32| {
        [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat()
    };
    let unshare = u32::try_from(libc::SYS_unshare).unwrap();
    let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let program = [
        step(0x20, 0, 0, 0),
        step(0x15, 0, 1, unshare),
        step(0x06, 0, 0, denied),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&program.concat()).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_system_call_filter_is_named() {
    if !is_root() || !has("bwrap") {
        println!("skipped: this needs root and bubblewrap");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let filter = filter();
    // SAFETY: the descriptor is open; without its flag the program below inherits it.
    unsafe { libc::fcntl(filter.as_raw_fd(), libc::F_SETFD, 0) };
    let number = filter.as_raw_fd().to_string();
    let output = Command::new("bwrap")
        .args(["--dev-bind", "/", "/", "--seccomp", &number, DRYSTONE, "doctor"])
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
