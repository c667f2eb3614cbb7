//! Whole commands as scripts and people see them: exit code, standard output, standard error.
//!
//! Nothing here asks a mirror on the network: images of local files, and a repository that the test
//! makes, signs and serves on loopback.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A folder with a store of its own, and the command in a clean environment.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("drystone-cli-").tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("DRYSTONE_STORE", self.path("store"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// All that a command shows, with this place's folder written as `[DIR]`.
    fn shown(&self, arguments: &[&str]) -> String {
        self.show(&self.run(arguments))
    }

    fn show(&self, output: &Output) -> String {
        let text = format!(
            "exit code: {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().map_or_else(|| "none".to_owned(), |code| code.to_string()),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        text.replace(self.folder.path().to_str().unwrap(), "[DIR]")
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", self.show(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.succeed(arguments);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1, "{text}");
        value
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, said: &[&str]) {
        let output = self.run(arguments);
        let text = self.show(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        said.iter().for_each(|words| assert!(stderr.contains(words), "{words:?} in\n{text}"));
    }
}

#[test]
fn help_is_short_and_complete() {
    let place = Place::new();
    insta::assert_snapshot!("help", place.shown(&["--help"]));
    insta::assert_snapshot!("help_build", place.shown(&["build", "--help"]));
    insta::assert_snapshot!("help_store", place.shown(&["store", "--help"]));
}

#[test]
fn slips_on_the_command_line_are_told() {
    let place = Place::new();
    insta::assert_snapshot!("usage_unknown_flag", place.shown(&["build", "--ofline"]));
    insta::assert_snapshot!("usage_unknown_command", place.shown(&["biuld"]));
    insta::assert_snapshot!("usage_two_files", place.shown(&["build", "a.toml", "-f", "b.toml"]));
    assert_eq!(place.run(&[]).status.code(), Some(2));
    assert!(place.succeed(&["--version"]).starts_with("drystone "));
}

#[test]
fn a_bad_image_file_is_told_with_place_and_mend() {
    let place = Place::new();
    place.write("image.toml", "name = \"x\"\n[debian]\nsuite = \"bookworm\"\npakages = [\"jq\"]\n");
    insta::assert_snapshot!("bad_image_file", place.shown(&["build"]));
    place.write("other.toml", "name = \"x\"\n[files]\n\"/srv\" = \"missing/\"\n");
    insta::assert_snapshot!("missing_local_file", place.shown(&["build", "other.toml"]));
    place.write("later.toml", "name = \"x\"\n[recipe.app]\nbuilder = \"cargo\"\nsource = \".\"\n");
    assert_eq!(place.run(&["build", "later.toml"]).status.code(), Some(2));
}

#[test]
fn a_missing_image_file_is_told() {
    let place = Place::new();
    insta::assert_snapshot!("no_image_file", place.shown(&["build"]));
    fs::create_dir(place.path("web")).unwrap();
    place.fails(&["plan", "web"], 2, &["web/image.toml", "drystone init"]);
}

#[test]
fn wrong_settings_are_told_with_who_set_them() {
    let place = Place::new();
    place.write("image.toml", "name = \"x\"\n[files]\n\"/x\" = { text = \"x\" }\n");
    let with = |name, value| place.command(&["build"]).env(name, value).output().unwrap();
    for (name, value) in [("DRYSTONE_JOBS", "many"), ("SOURCE_DATE_EPOCH", "yesterday")] {
        let output = with(name, value);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(name));
    }
    place.write("config.toml", "job = 3\n");
    let output = with("DRYSTONE_CONFIG", place.path("config.toml").to_str().unwrap());
    insta::assert_snapshot!("bad_config", place.show(&output));
    place.fails(&["build", "--log", "a=b=c"], 2, &["--log"]);
}

#[test]
fn init_writes_once() {
    let place = Place::new();
    assert_eq!(place.succeed(&["init", "My App"]), "My App/image.toml\n");
    let text = fs::read_to_string(place.path("My App/image.toml")).unwrap();
    assert!(text.contains("name = \"my-app\""), "{text}");
    fs::write(place.path("My App/image.toml"), "mine").unwrap();
    insta::assert_snapshot!("init_again", place.shown(&["init", "My App"]));
    assert_eq!(fs::read_to_string(place.path("My App/image.toml")).unwrap(), "mine");
    place.fails(&["init", "b", "--name", "NO"], 2, &["--name"]);
}

#[test]
fn packages_are_added_and_removed_in_place() {
    let place = Place::new();
    place.succeed(&["init", "--name", "x"]);
    let before = fs::read_to_string(place.path("image.toml")).unwrap();
    place.succeed(&["add", "jq", "nodejs=22.*"]);
    let added = fs::read_to_string(place.path("image.toml")).unwrap();
    assert!(added.contains("\"jq\""), "{added}");
    assert!(added.contains(r#"{ name = "nodejs", version = "22.*" }"#), "{added}");
    place.fails(&["add", "jq", "--from", "node"], 2, &["jq"]);
    place.fails(&["add", "curl", "--from", "nowhere"], 2, &["nowhere"]);
    place.fails(&["add", "No_Package!"], 2, &["image.toml"]);
    place.fails(&["remove", "jq", "absent"], 2, &["absent"]);
    assert_eq!(fs::read_to_string(place.path("image.toml")).unwrap(), added, "nothing by halves");
    place.succeed(&["remove", "jq", "nodejs"]);
    assert_eq!(fs::read_to_string(place.path("image.toml")).unwrap(), before);
}

#[test]
fn shells_and_manuals_are_served() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(place.succeed(&["completions", shell]).contains("drystone"));
    }
    place.succeed(&["man", "pages"]);
    for page in ["drystone.1", "drystone-build.1", "drystone-store-gc.1"] {
        assert!(fs::read_to_string(place.path("pages").join(page)).unwrap().contains(".TH"));
    }
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let place = Place::new();
    let mut child = place.command(&["completions", "zsh"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_doctor_looks_at_everything_and_makes_no_store() {
    let place = Place::new();
    let output = place.run(&["doctor", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        value["checks"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    for name in ["store", "user namespaces", "disk space", "mirror", "docker", "podman"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let code = if value["ok"] == true { 0 } else { 8 };
    assert_eq!(output.status.code(), Some(code));
    for check in value["checks"].as_array().unwrap() {
        assert!(check["state"] == "ok" || check["mend"].is_string(), "{check}");
    }
    assert!(!place.path("store").exists());
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0, "no trace of the trials");
}

#[test]
fn a_store_that_is_not_there_is_an_empty_one() {
    let place = Place::new();
    assert_eq!(place.json(&["store", "verify", "--json"])["report"]["problems"], 0);
    assert_eq!(place.json(&["gc", "--json", "--dry-run"])["dry_run"], true);
    assert_eq!(place.json(&["store", "du", "--json"])["total_bytes"], 0);
    assert_eq!(place.json(&["store", "ls", "--json"])["trees"], serde_json::json!([]));
    place.fails(&["store", "path-info", "x"], 2, &["there is no store"]);
    place.fails(&["gc", "--max-size", "much"], 2, &["--max-size"]);
    assert!(!place.path("store").exists());
}

const LOCAL: &str = "name = \"team/local\"\n\n[files]\n\"/srv\" = \"site/\"\n\"/etc/motd\" = { text = \"Hi.\\n\" }\n";

/// A project of local files that were there for a while.
fn local() -> Place {
    let place = Place::new();
    place.write("image.toml", LOCAL).write("site/index.html", "hello\n");
    settle();
    place
}

/// Files that are younger than a clock's tick are never taken for unchanged.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

#[test]
fn the_answer_is_one_line_on_standard_output() {
    let place = local();
    let output = place.run(&["-q", "build"]);
    assert_eq!(output.stderr, b"", "{}", place.show(&output));
    let reference = String::from_utf8(output.stdout).unwrap();
    assert!(reference.starts_with("team/local:latest@sha256:"), "{reference}");
    assert!(place.path("local.tar").exists());
    assert!(!place.path("image.lock").exists(), "there is nothing to lock");
    let digest = reference.trim().split_once('@').unwrap().1;
    let object = place.json(&["build", "--json", "-t", "other:1", "--metadata-file", "meta.json"]);
    assert_eq!(object["reference"], format!("other:1@{digest}"), "a name changes no digest");
    assert_eq!(object["platforms"][0]["layers"].as_array().map(Vec::is_empty), Some(false));
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("meta.json")).unwrap()).unwrap();
    assert_eq!(written, object);
    place.fails(&["build", "--push", "registry.example.com/X"], 2, &["no reference"]);
    place.fails(&["build", "-t", "NO"], 2, &["NO"]);
    place.fails(&["build", "--platform", "amd64"], 2, &["linux/amd64"]);
    place.fails(&["build", "-o", "site"], 2, &["is a folder"]);
}

#[test]
fn outputs_agree_and_are_compared() {
    let place = local();
    place.succeed(&["build"]);
    place.succeed(&["build", "--oci-layout", "layout"]);
    insta::assert_snapshot!("diff_same", place.shown(&["diff", "local.tar", "layout"]));
    fs::rename(place.path("local.tar"), place.path("old.tar")).unwrap();
    place.write("site/index.html", "good bye\n").write("site/new", "new\n");
    place.succeed(&["build"]);
    let object = place.json(&["diff", "old.tar", "local.tar", "--json"]);
    let names: Vec<_> = object["files"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["srv/index.html", "srv/new"]);
    assert_eq!(object["packages"], serde_json::json!([]));
    let text = place.succeed(&["diff", "old.tar", "local.tar"]);
    assert!(text.contains("  ~ srv/index.html 6 -> 9 bytes\n  + srv/new\n"), "{text}");
    place.write("text", "no image");
    place.fails(&["diff", "text", "local.tar"], 2, &["no image that this command can read"]);
    place.fails(&["diff", "absent", "local.tar"], 2, &["absent"]);
    damage(&place.path("local.tar"));
    place.fails(&["diff", "old.tar", "local.tar"], 7, &["local.tar"]);
    let text = place.succeed(&["why", "/srv/index.html"]);
    assert!(text.contains("files /srv (image.toml:4)"), "{text}");
    place.fails(&["why", "/absent"], 2, &["/absent"]);
}

/// Changes one byte of the last layer's blob.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let at = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.size() > 0)
        .map(|entry| entry.raw_file_position() + entry.size() / 2)
        .last()
        .unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn nothing_changed_is_seen_at_once_and_a_change_at_once_too() {
    let place = local();
    let unchanged = || place.json(&["build", "--json"])["unchanged"].clone();
    let first = place.json(&["build", "--json"]);
    assert_eq!(first["unchanged"], false);
    let tarball = fs::metadata(place.path("local.tar")).unwrap().modified().unwrap();
    let again = place.json(&["build", "--json"]);
    assert_eq!(again["unchanged"], true);
    assert_eq!(again["reference"], first["reference"]);
    let now = fs::metadata(place.path("local.tar")).unwrap().modified().unwrap();
    assert_eq!(tarball, now, "the tarball is left alone");
    // Another question is another build.
    assert_eq!(place.json(&["build", "--json", "-t", "x:2"])["unchanged"], false);
    let epoch = place.command(&["build"]).env("SOURCE_DATE_EPOCH", "1").output().unwrap();
    assert_ne!(String::from_utf8(epoch.stdout).unwrap().trim(), first["reference"]);
    assert!(String::from_utf8_lossy(&epoch.stderr).contains("SOURCE_DATE_EPOCH"));
    // The build before has written another tarball over this one.
    assert_eq!(unchanged(), false);
    assert_eq!(unchanged(), true);
    place.write("site/index.html", "olleh\n");
    assert_eq!(unchanged(), false, "same size, other content");
    settle();
    place.write("site/.gitignore", "*.tmp\n");
    assert_eq!(unchanged(), false, "a new file");
    settle();
    unchanged();
    assert_eq!(unchanged(), true);
    fs::remove_file(place.path("local.tar")).unwrap();
    assert_eq!(unchanged(), false);
    assert!(place.path("local.tar").exists());
    place.succeed(&["store", "verify"]);
}

#[test]
fn progress_comes_in_the_form_that_was_asked_for() {
    let place = local();
    let output = place.run(&["build", "--progress", "json"]);
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string(), "{line}");
    }
    let output = place.run(&["build", "absent.toml", "--progress", "json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &2.into()));
    let coloured = place.run(&["build", "absent.toml", "--color", "always"]);
    assert!(String::from_utf8(coloured.stderr).unwrap().contains("\u{1b}[1;31merror:"));
}

/// A mirror that takes connections and never answers.
fn silent_mirror() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", listener.local_addr().unwrap());
    (listener, address)
}

#[test]
fn a_signal_ends_a_command_that_waits_and_leaves_nothing() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::new();
        let text = "name = \"x\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"jq\"]\n";
        place.write("image.toml", text);
        let (listener, address) = silent_mirror();
        let child = place
            .command(&["build", "--mirror", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _connection = listener.accept().unwrap();
        let start = Instant::now();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", place.show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let left = fs::read_dir(place.path("store/tmp")).unwrap().count();
        assert_eq!(left, 0, "the process's own folder is left");
        assert!(!place.path("image.lock").exists() && !place.path("x.tar").exists());
    }
}

#[test]
fn without_network_what_is_missing_is_named() {
    let place = Place::new();
    let text = "name = \"x\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"jq\"]\n";
    place.write("image.toml", text);
    place.fails(&["build", "--offline"], 6, &["image.lock", "--offline"]);
    place.fails(&["build", "--locked"], 3, &["image.lock", "drystone lock"]);
    place.fails(&["update", "--offline"], 6, &["--offline"]);
    place.fails(&["why", "jq"], 2, &["there is no"]);
    place.fails(&["tree"], 2, &["drystone lock"]);
    // The port was free a moment ago, and nobody listens there.
    let (listener, address) = silent_mirror();
    drop(listener);
    place.fails(&["lock", "--mirror", &address], 6, &["cannot fetch", "hint:"]);
}
