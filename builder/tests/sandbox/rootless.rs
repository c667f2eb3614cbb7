//! The same tests as an ordinary user, and the same digests.

use std::path::Path;
use std::process::Command;

pub const TESTS: &[(&str, fn())] = &[("an_ordinary_user_gets_the_same", as_user)];

/// Where a run as another user writes the digest of its difference.
const REPORT: &str = "DRYSTONE_TEST_REPORT";
/// The user for that run.
const USER: &str = "DRYSTONE_TEST_USER";
const DEFAULT_USER: &str = "drystone-test";

/// Tells the digest of the difference that must be the same for everyone.
pub fn report(digest: &str) {
    println!("difference {digest}");
    if let Some(path) = std::env::var_os(REPORT) {
        std::fs::write(path, digest).unwrap();
    }
}

fn as_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this run is the ordinary user's");
        return;
    }
    let user = std::env::var(USER).unwrap_or_else(|_| DEFAULT_USER.to_owned());
    let known = Command::new("id").arg("-u").arg(&user).output().unwrap();
    if !known.status.success() {
        println!(
            "skipped: no user {user}; make one with: useradd --create-home {user} && usermod \
             --add-subuids 300000-365535 --add-subgids 300000-365535 {user}"
        );
        return;
    }
    let place = tempfile::Builder::new().prefix("drystone-rootless-").tempdir().unwrap();
    let program = place.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    // The user's own directory closes to others, as a home does.
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let run = |program: &str, arguments: &[&Path]| {
        assert!(Command::new(program).args(arguments).status().unwrap().success());
    };
    run("chmod", &["755".as_ref(), place.path()]);
    run("chmod", &["700".as_ref(), &home]);
    run("chown", &[user.as_ref(), &home]);
    let mine = digest(Command::new("/proc/self/exe"), &place.path().join("mine"));
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--init-groups");
    command.arg(&program).arg("--test-threads=2").env("TMPDIR", &home).env("HOME", &home);
    command.env_remove("NEXTEST_RUN_ID");
    let theirs = digest(command, &home.join("theirs"));
    assert_eq!(mine, theirs, "root and {user} get the same tree");
}

fn digest(mut command: Command, path: &Path) -> String {
    if command.get_args().next().is_none() {
        command.arg("a_difference_is_the_same");
    }
    let output = command.env(REPORT, path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    std::fs::read_to_string(path).unwrap()
}
