//! Images on base images that other tools have made and pushed: umoci and skopeo here.
//!
//! Nothing asks a Debian mirror. Without docker-registry, umoci or skopeo every test says so.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::engines::{Docker, Engine, Podman};
use common::registry::Registry;
use common::{RootTree, can_run, expect_failure, run};
use serde_json::{Value, json};

/// Programs of this host with the libraries that they need: enough of a root to run in.
fn make_root(root: &Path) {
    let mut files: Vec<String> = vec!["/bin/sh".into(), "/bin/cat".into(), "/usr/bin/id".into()];
    for program in files.clone() {
        let libraries = run("ldd", &[&program]);
        let words = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(words.map(str::to_owned));
    }
    for file in files {
        let target = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let _ = fs::copy(fs::canonicalize(&file).unwrap(), target);
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("opt/data")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nbin:x:7:8::/:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nbin:x:8:\n").unwrap();
    fs::write(root.join("etc/old"), "of the base\n").unwrap();
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With a base in a layout: two layers, of which the second deletes a file of the first.
    fn new() -> Option<Self> {
        if !can_run(&["umoci", "skopeo", "ldd"], true) {
            return None;
        }
        let place = Self { folder: tempfile::tempdir().unwrap() };
        make_root(&place.path("root"));
        fs::create_dir(place.path("more")).unwrap();
        fs::write(place.path("more/second"), "of the second layer\n").unwrap();
        let image = format!("{}:base", place.path("layout").display());
        run("umoci", &["init", "--layout", &place.path("layout").display().to_string()]);
        run("umoci", &["new", "--image", &image]);
        let insert = |more: &[&str]| run("umoci", &[&["insert", "--image", &image], more].concat());
        insert(&[&place.path("root").display().to_string(), "/"]);
        insert(&[&place.path("more").display().to_string(), "/opt/more"]);
        insert(&["--whiteout", "/etc/old"]);
        let config = [
            "config",
            "--image",
            &image,
            "--config.env",
            "COLOUR=grey",
            "--config.env",
            "PATH=/bin:/usr/bin",
            "--config.entrypoint",
            "/bin/cat",
            "--config.cmd",
            "/opt/more/second",
            "--config.label",
            "maker=other",
            "--config.workingdir",
            "/opt",
            "--architecture",
            "amd64",
            "--os",
            "linux",
        ];
        run("umoci", &config);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pushes the base; its digest there.
    fn push_base(&self, to: &str, docker_types: bool) -> String {
        let from = format!("oci:{}:base", self.path("layout").display());
        let to = format!("docker://{to}");
        let format = if docker_types { "v2s2" } else { "oci" };
        run("skopeo", &["copy", "-q", "--dest-tls-verify=false", "--format", format, &from, &to]);
        let inspected = run("skopeo", &["inspect", "--tls-verify=false", &to]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        inspected["Digest"].as_str().unwrap().to_owned()
    }

    /// Makes the base another one.
    fn change_base(&self) {
        let image = format!("{}:base", self.path("layout").display());
        run("umoci", &["config", "--image", &image, "--config.label", "changed=yes"]);
    }

    fn write(&self, text: &str) {
        fs::write(self.path("image.toml"), text).unwrap();
    }

    fn run(&self, store: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_drystone"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("DRYSTONE_STORE", self.path(store))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn json(&self, store: &str, arguments: &[&str]) -> Value {
        let output = self.run(store, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Which of an image's layers are blobs of a store.
    fn present(&self, store: &str, answer: &Value) -> Vec<bool> {
        let layers = answer["platforms"][0]["layers"].as_array().unwrap();
        let has = |layer: &Value| {
            let hex = &layer["digest"].as_str().unwrap()["sha256:".len()..];
            self.path(store).join("blobs/sha256").join(hex).exists()
        };
        layers.iter().map(has).collect()
    }
}

fn config_of(reference: &str) -> Value {
    let reference = format!("docker://{reference}");
    let text = run("skopeo", &["inspect", "--config", "--raw", "--tls-verify=false", &reference]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn an_image_stands_on_a_base_of_other_tools() {
    let Some(registry) = Registry::start() else { return };
    let Some(place) = Place::new() else { return };
    let base = registry.reference("team/base");
    place.push_base(&format!("{base}:1"), true);
    place.write(&format!(
        "name = \"upon\"\nfrom = \"{base}:1\"\n[files]\n\"/opt/data/page\" = {{ text = \"Mine.\\n\" }}\n\
         [users.app]\nuid = 10001\n[config]\ncmd = [\"/opt/data/page\"]\nuser = \"app\"\n\
         env = {{ SHAPE = \"round\" }}\n"
    ));
    let target = registry.reference("team/upon");
    let answer = place.json("store", &["build", "--json", "--push", &target, "-o", "upon.tar"]);
    assert_eq!(answer["lock"]["changed"], true);
    let lock = fs::read_to_string(place.path("image.lock")).unwrap();
    assert!(lock.contains(&format!("from = \"{base}:1\"\nbase = \"")), "{lock}");
    assert_eq!(answer["outputs"][1]["blobs"]["mounted"], 3, "the base's layers: {answer}");

    let config = config_of(&target);
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/cat"]));
    assert_eq!(config["config"]["Cmd"], json!(["/opt/data/page"]));
    let env = json!(["COLOUR=grey", "PATH=/bin:/usr/bin", "SHAPE=round"]);
    assert_eq!(config["config"]["Env"], env);
    assert_eq!(config["config"]["User"], "10001:10001");
    assert_eq!(config["config"]["Labels"]["maker"], "other");
    let count = |value: &Value| value.as_array().unwrap().len();
    assert_eq!(count(&config["history"]), count(&config["rootfs"]["diff_ids"]));

    let root = RootTree::of_image(&place.path("upon.tar"));
    let passwd = root.at("etc/passwd").text();
    assert!(passwd.starts_with("root:x:0:0") && passwd.contains("app:x:10001:10001"), "{passwd}");
    if can_run(&["podman", "runc"], true) {
        let podman = Podman::new();
        let name = format!("{target}:latest");
        podman.command(&["pull", "--quiet", "--tls-verify=false", &name]);
        assert_eq!(podman.run(&name, &[], &[]), "Mine.\n");
        assert_eq!(podman.run(&name, &[], &["/opt/more/second"]), "of the second layer\n");
    }
    if can_run(&["dockerd", "docker"], true)
        && let Some(docker) = Docker::start()
    {
        docker.command(&["load", "-q", "-i", &place.path("upon.tar").display().to_string()]);
        assert_eq!(docker.run("upon:latest", &[], &[]), "Mine.\n");
    }
    // What is known is enough, without the registry.
    drop(registry);
    let offline = place.json("store", &["build", "--json", "--offline", "-o", "again.tar"]);
    assert_eq!(offline["digest"], answer["digest"]);
    let output = place.run("store", &["store", "verify"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn layers_of_a_base_move_only_where_bytes_are_wanted() {
    let (Some(registry), Some(other)) = (Registry::start(), Registry::start()) else { return };
    let Some(place) = Place::new() else { return };
    let base = registry.reference("team/base");
    let digest = place.push_base(&format!("{base}:1"), false);
    place.write(&format!(
        "name = \"upon\"\nfrom = \"{base}@{digest}\"\n[config]\ncmd = [\"/etc/passwd\"]\n"
    ));
    let target = registry.reference("team/upon");
    let answer = place.json("store", &["push", "--json", &target]);
    assert!(!place.path("image.lock").exists(), "a digest needs no lock");
    assert_eq!(place.present("store", &answer), [false; 3]);
    let reads = &answer["registry"]["blob-read"];
    assert_eq!(reads["requests"], 1, "the base's configuration: {reads}");
    assert_eq!(answer["registry"]["manifest-read"]["requests"], 1);
    // To another registry they stream through.
    let away = other.reference("team/upon");
    let answer = place.json("store", &["push", "--json", &away, "--verify"]);
    assert_eq!(answer["outputs"][0]["blobs"]["pushed"], 4);
    assert_eq!(place.present("store", &answer), [false; 3]);
    // A tarball needs them.
    let answer = place.json("store", &["build", "--json"]);
    assert_eq!(place.present("store", &answer), [true; 3]);
    let root = RootTree::of_image(&place.path("upon.tar"));
    assert!(root.get("etc/old").is_none(), "the base's own deletion holds");
}

#[test]
fn only_update_moves_a_tag() {
    let Some(registry) = Registry::start() else { return };
    let Some(place) = Place::new() else { return };
    let base = format!("{}:1", registry.reference("team/base"));
    place.push_base(&base, false);
    place.write(&format!("name = \"upon\"\nfrom = \"{base}\"\n"));
    expect_failure(&place.run("store", &["build", "--locked"]), 3, &["there is no "]);
    let first = place.json("store", &["build", "--json"]);
    place.change_base();
    let moved = place.push_base(&base, false);
    let again = place.json("other", &["build", "--json", "--locked", "-o", "again.tar"]);
    assert_eq!(again["digest"], first["digest"], "the lock holds the tag");
    let update = place.run("store", &["update"]);
    assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
    let said = String::from_utf8(update.stdout).unwrap();
    assert!(said.starts_with(&format!("~ {base} sha256:")) && said.contains(&moved), "{said}");
    let lock = fs::read_to_string(place.path("image.lock")).unwrap();
    assert!(lock.contains(&moved["sha256:".len()..]), "{lock}");
    let other = place.json("store", &["build", "--json", "--locked"]);
    assert_ne!(other["digest"], first["digest"]);
}

#[test]
fn what_cannot_be_a_base_is_refused_by_name() {
    let Some(registry) = Registry::start() else { return };
    let Some(place) = Place::new() else { return };
    let base = registry.reference("team/base");
    let digest = place.push_base(&format!("{base}:1"), false);
    let fails = |text: &str, code: i32, said: &[&str]| {
        place.write(text);
        expect_failure(&place.run("store", &["build"]), code, said);
    };
    let on = |rest: &str| format!("name = \"upon\"\nfrom = \"{base}@{digest}\"\n{rest}");
    fails(&on("platforms = [\"linux/arm64\"]\n"), 2, &["linux/amd64", "linux/arm64"]);
    fails(
        &on("[debian]\nsuite = \"bookworm\"\npackages = [\"hello\"]\n"),
        2,
        &["over a base image"],
    );
    fails(&format!("name = \"upon\"\nfrom = \"{base}:none\"\n"), 6, &["is not in the registry"]);
    fails("name = \"upon\"\nfrom = \"debian:12\"\n", 2, &["the registry is missing"]);
    let dead = "name = \"upon\"\nfrom = \"127.0.0.1:1/team/base:1\"\n";
    fails(dead, 6, &["127.0.0.1:1"]);
    place.write(&on(""));
    let output = place.run("empty", &["build", "--offline"]);
    expect_failure(&output, 6, &["not in the store", "without `--offline`"]);
}
