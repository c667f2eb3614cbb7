//! Images are pushed to Debian's docker-registry by the real command, counted, inspected by skopeo,
//! pulled and run by Podman and Docker.
//!
//! Without docker-registry every test says so and passes. Only the last one needs a Debian mirror.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::engines::{Docker, Engine, Podman};
use common::registry::Registry;
use common::{World, can_run, expect_failure, run};
use serde_json::Value;

/// A folder with an image of local files, and a store of its own: nothing here asks a mirror.
struct Place {
    folder: tempfile::TempDir,
}

const IMAGE: &str = "name = \"team/local\"\ntag = \"v1\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n\n\
                     [files]\n\"/srv\" = \"site/\"\n";

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("site")).unwrap();
        fs::write(place.path("site/page"), "It stands without mortar.\n".repeat(20_000)).unwrap();
        fs::write(place.path("image.toml"), IMAGE).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    fn login(&self, registry: &Registry, password: &str) -> Output {
        let arguments = ["login", &registry.host(), "-u", "ann", "--password-stdin"];
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

/// Existed, mounted, pushed.
fn blobs(answer: &Value, output: usize) -> [u64; 3] {
    let blobs = &answer["outputs"][output]["blobs"];
    ["existed", "mounted", "pushed"].map(|name| blobs[name].as_u64().unwrap())
}

fn requests(answer: &Value, kind: &str) -> u64 {
    answer["registry"][kind]["requests"].as_u64().unwrap_or(0)
}

#[test]
fn only_what_a_registry_lacks_is_sent() {
    let Some(registry) = Registry::start() else { return };
    let place = Place::new();
    let (one, two) = (registry.reference("team/one"), registry.reference("team/two:x"));
    let answer = place.json(&["push", &one, &two, "--json", "--verify"]);
    // The two layers are those of both platforms; each has a config.
    assert_eq!(blobs(&answer, 0), [0, 0, 4]);
    assert_eq!(blobs(&answer, 1), [0, 4, 0], "the second repository mounts from the first");
    let digest = answer["digest"].as_str().unwrap();
    assert_eq!(answer["outputs"][0]["reference"], format!("{one}:v1@{digest}"));
    assert!(!place.path("local.tar").exists(), "no tarball is written for a push");

    let again = place.json(&["build", "--push", &one, "--push", &two, "--json"]);
    assert_eq!((blobs(&again, 0), blobs(&again, 1)), ([4, 0, 0], [4, 0, 0]));
    assert_eq!(requests(&again, "blob-write"), 0, "no upload is even begun");
    assert_eq!(requests(&again, "blob-check"), 8);
    assert_eq!(requests(&again, "manifest-write"), 6);

    // A push of its own remembers where the blobs went.
    let three = registry.reference("team/three");
    assert_eq!(blobs(&place.json(&["push", &three, "--json"]), 0), [0, 4, 0]);

    let lines = place.succeed(&["push", &one, &two]);
    assert_eq!(lines, format!("{one}:v1@{digest}\n{two}@{digest}\n"));
    if can_run(&["skopeo"], false) {
        let image = format!("docker://{one}:v1");
        let raw = run("skopeo", &["inspect", "--tls-verify=false", "--raw", &image]);
        let index: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        let copy = format!("dir:{}", place.path("copy").display());
        run("skopeo", &["copy", "-q", "--all", "--src-tls-verify=false", &image, &copy]);
    }

    // One file more: one layer more, and new configs.
    fs::write(
        place.path("image.toml"),
        format!("{IMAGE}\"/etc/motd\" = {{ text = \"Hi.\\n\" }}\n"),
    )
    .unwrap();
    let changed = place.json(&["push", &one, "--json"]);
    assert_eq!(blobs(&changed, 0)[1], 0);
    assert!(blobs(&changed, 0)[2] >= 2);
    assert_ne!(changed["digest"], answer["digest"]);
}

#[test]
fn a_folder_is_pushed_to_as_a_registry_is() {
    let place = Place::new();
    let answer = place.json(&["push", "file:layout:v2", "--json", "--verify"]);
    assert_eq!(blobs(&answer, 0), [0, 0, 4]);
    assert_eq!(blobs(&place.json(&["push", "file:layout:v2", "--json"]), 0), [4, 0, 0]);
    if can_run(&["skopeo"], false) {
        let image = format!("oci:{}:v2", place.path("layout").display());
        let raw = run("skopeo", &["inspect", "--raw", &image]);
        assert!(raw.contains("linux"), "{raw}");
    }
}

#[test]
fn failures_have_their_codes_and_mends() {
    let place = Place::new();
    let digest = format!("localhost/x@sha256:{}", "0".repeat(64));
    expect_failure(&place.run(&["push", &digest]), 2, &["digest", "hint:"]);
    expect_failure(&place.run(&["push", "localhost/X"]), 2, &["localhost/X", "hint:"]);
    expect_failure(&place.run(&["push"]), 2, &["REFERENCE"]);
    // Nobody listens on port 1.
    expect_failure(&place.run(&["push", "127.0.0.1:1/x"]), 6, &["127.0.0.1:1", "hint:"]);
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/notes"), "mine").unwrap();
    expect_failure(&place.run(&["push", "file:mine"]), 2, &["mine", "notes"]);
}

#[test]
fn credentials_are_checked_kept_used_and_forgotten() {
    let Some(registry) = Registry::with_password() else { return };
    let place = Place::new();
    let reference = registry.reference("team/private");
    expect_failure(&place.run(&["push", &reference]), 6, &["access denied", "drystone login"]);
    let wrong = place.login(&registry, "wrong");
    let said = expect_failure(&wrong, 6, &["access denied"]);
    assert!(!said.contains("wrong"), "a password is never shown: {said}");
    let file = place.path(".docker/config.json");
    assert!(!file.exists(), "what is wrong is not kept");

    let right = place.login(&registry, "hunter2\n");
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    place.succeed(&["push", &reference, "--verify"]);
    if can_run(&["skopeo"], false) {
        // The file is one that other programs read.
        let mut command = Command::new("skopeo");
        command.env("REGISTRY_AUTH_FILE", &file).args(["inspect", "--tls-verify=false", "--raw"]);
        common::succeed(command.arg(format!("docker://{reference}:v1")));
    }
    let debug = place.run(&["push", &reference, "-vvv"]);
    let log = String::from_utf8_lossy(&debug.stderr).into_owned();
    // base64 of `ann:hunter2`.
    for secret in ["hunter2", "YW5uOmh1bnRlcjI"] {
        assert!(!log.contains(secret), "the log shows {secret}");
    }
    place.succeed(&["logout", &registry.host()]);
    expect_failure(&place.run(&["push", &reference]), 6, &["access denied"]);
}

#[test]
fn credential_helpers_are_asked_and_may_fail() {
    let Some(registry) = Registry::with_password() else { return };
    let Some(open) = Registry::start() else { return };
    let place = Place::new();
    fs::create_dir_all(place.path("bin")).unwrap();
    fs::create_dir_all(place.path(".docker")).unwrap();
    let helper = |name: &str, script: &str| {
        let path = place.path(&format!("bin/docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let run = |arguments: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
        place.command(arguments).env("PATH", path).output().unwrap()
    };
    helper("good", "cat >/dev/null; echo '{\"Username\":\"ann\",\"Secret\":\"hunter2\"}'");
    helper("bad", "echo 'the keychain is locked'; exit 1");
    fs::write(place.path(".docker/config.json"), r#"{"credsStore":"good"}"#).unwrap();
    let private = registry.reference("team/private");
    let pushed = run(&["push", &private]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    fs::write(place.path(".docker/config.json"), r#"{"credsStore":"bad"}"#).unwrap();
    expect_failure(&run(&["push", &private]), 6, &["access denied", "the keychain is locked"]);
    // What everybody may do needs no helper.
    let pushed = run(&["push", &open.reference("team/open")]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
}

#[test]
fn certificates_of_ones_own_are_trusted_when_named() {
    if !can_run(&["openssl"], false) {
        return;
    }
    let place = Place::new();
    let (certificate, key) = (place.path("certificate.pem"), place.path("key.pem"));
    let (certificate_text, key_text) =
        (certificate.display().to_string(), key.display().to_string());
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        &key_text,
        "-out",
        &certificate_text,
    ];
    run("openssl", &arguments);
    let Some(registry) = Registry::with_tls(&certificate, &key) else { return };
    let reference = registry.reference("team/secure");
    let mut command = place.command(&["push", "--verify", &reference]);
    let output = command.env("SSL_CERT_FILE", &certificate).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Over TLS all requests share connections of HTTP/2.
    let log = registry.access_log();
    assert!(log.contains("HTTP/2.0\" 201"), "{log}");
    assert!(!log.contains("HTTP/1"), "{log}");
    expect_failure(&place.run(&["push", &reference]), 6, &["certificate"]);
}

#[test]
fn engines_pull_and_run_what_was_pushed() {
    let Some(registry) = Registry::start() else { return };
    let Some(world) = World::shared() else { return };
    let image = "name = \"pushed\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"hello\"]\n\
                 [config]\nentrypoint = [\"/usr/bin/hello\", \"-g\", \"no mortar\"]\n";
    let project = world.project("pushed", image);
    let reference = registry.reference("pushed");
    let mut command = world.drystone(&["push", "--verify", &reference, "-f"]);
    let answer = common::succeed(command.arg(project.folder.join("image.toml")));
    let answer = answer.trim_end();
    let digest = answer.split_once('@').unwrap().1;
    assert_eq!(answer, format!("{reference}:latest@{digest}"));
    let by_digest = format!("{reference}@{digest}");
    if can_run(&["dockerd", "docker"], true)
        && let Some(docker) = Docker::start()
    {
        docker.command(&["pull", "--quiet", &by_digest]);
        assert_eq!(docker.run(&by_digest, &[], &[]).trim(), "no mortar");
    }
    if can_run(&["podman", "runc"], true) {
        let podman = Podman::new();
        podman.command(&["pull", "--quiet", "--tls-verify=false", &by_digest]);
        assert_eq!(podman.run(&by_digest, &[], &[]).trim(), "no mortar");
    }
}
