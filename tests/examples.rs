//! Every example is built by the real command from the host's Debian mirror, read by skopeo, umoci and
//! containerd, loaded into Docker and Podman, run, and asked over HTTP.
//!
//! Needs a Debian mirror in the host's apt sources. Docker, Podman and containerd need root.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;

use common::engines::{Containerd, Docker, Engine, Podman};
use common::{Built, RootTree, World, can_run, http, run, skip};
use serde_json::Value;

/// Loads an image into each engine of this host and does something with it there.
fn in_every_engine(built: &Built, check: impl Fn(&dyn Engine)) {
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    if can_run(&["dockerd", "docker"], true)
        && let Some(docker) = Docker::start()
    {
        engines.push(Box::new(docker));
    }
    if can_run(&["podman", "runc"], true) {
        engines.push(Box::new(Podman::new()));
    }
    for engine in engines {
        engine.command(&["load", "--input", built.tarball.to_str().unwrap()]);
        println!("in {}", engine.name());
        check(engine.as_ref());
    }
}

/// Programs that read images without running them all find the same one.
fn every_reader_agrees(world: &World, built: &Built) {
    let tarball = built.tarball.display().to_string();
    if can_run(&["skopeo"], false) {
        let raw = run("skopeo", &["inspect", "--raw", &format!("oci-archive:{tarball}")]);
        assert_eq!(digest_of(raw.as_bytes()), built.digest, "the digest is the manifest's");
        let copy = world.path("copy");
        // Copying reads every layer and compares its digest.
        for source in [format!("docker-archive:{tarball}"), format!("oci-archive:{tarball}")] {
            let _ = fs::remove_dir_all(&copy);
            run("skopeo", &["copy", "-q", &source, &format!("dir:{}", copy.display())]);
        }
    }
    if can_run(&["umoci", "tar"], true) {
        let layout = world.path("layout");
        fs::create_dir(&layout).unwrap();
        run("tar", &["-xf", &tarball, "-C", layout.to_str().unwrap()]);
        let bundle = world.path("bundle").display().to_string();
        let image = format!("{}:{}", layout.display(), built.name);
        run("umoci", &["unpack", "--image", &image, &bundle]);
        let root = built.root();
        for path in ["usr/bin", "etc/passwd"] {
            root.at(path);
            assert!(world.path("bundle/rootfs").join(path).exists(), "/{path}");
        }
    }
    if can_run(&["containerd", "ctr"], true)
        && let Some(containerd) = Containerd::start()
    {
        containerd.import(&tarball);
        let list = containerd.images(&["ls"]);
        assert!(list.contains(&built.digest), "{list}");
        let check = containerd.check();
        assert!(check.contains("complete ("), "{check}");
    }
}

fn digest_of(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image without Essential holds no shell and no package manager, and scanners still see its packages.
fn is_small_but_described(root: &RootTree, packages: &[&str]) {
    for path in ["usr/bin/sh", "usr/bin/bash", "usr/bin/dpkg", "usr/bin/apt-get"] {
        assert!(root.get(path).is_none(), "/{path} has no business here");
    }
    for package in packages {
        let path = format!("var/lib/dpkg/status.d/{package}");
        assert!(root.at(&path).text().starts_with(&format!("Package: {package}\n")));
    }
}

fn with_free_port(port: u16, test: impl FnOnce()) {
    if http::is_free(port) {
        test();
    } else {
        skip(&format!("something already listens on port {port}"));
    }
}

#[test]
fn static_site_is_served() {
    let Some(world) = World::shared() else { return };
    let built = world.build(&world.example("static-site"), &[]);
    assert_eq!(built.name, "static-site:latest");
    is_small_but_described(&built.root(), &["nginx-light", "libc6"]);
    every_reader_agrees(&world, &built);
    with_free_port(8080, || {
        in_every_engine(&built, |engine| {
            let container = engine.start("static-site", &[]);
            let page = http::get(8080, "/");
            assert_eq!(page.status, 200, "{}", page.headers);
            assert!(page.body.contains("It stands without mortar"), "{}", page.body);
            for header in ["Last-Modified", "ETag"] {
                assert!(!page.headers.contains(header), "{header} would be the same for ever");
            }
            assert_eq!(http::get(8080, "/missing").status, 404);
            engine.remove(&container);
        });
    });
}

#[test]
fn python_web_is_served_by_its_own_user() {
    let Some(world) = World::shared() else { return };
    let built = world.build(&world.example("python-web"), &[]);
    let root = built.root();
    is_small_but_described(&root, &["python3-flask", "python3-waitress"]);
    let book = root.at("var/lib/guestbook");
    assert_eq!((book.uid, book.gid, book.mode), (10001, 10001, 0o750));
    let config = RootTree::config_of(&built.tarball);
    assert_eq!(config["config"]["User"], "10001:10001", "Kubernetes refuses names");
    assert_eq!(config["config"]["Healthcheck"]["Test"][0], "CMD");
    every_reader_agrees(&world, &built);
    with_free_port(8000, || {
        in_every_engine(&built, |engine| {
            let container = engine.start("python-web", &[]);
            let health: Value = serde_json::from_str(&http::get(8000, "/health").body).unwrap();
            assert_eq!(health["uid"], 10001);
            assert_eq!(http::ask(8000, "POST /", "was here").status, 201);
            assert_eq!(http::get(8000, "/").body, "was here\n");
            engine.command(&["exec", &container, "python3", "/srv/app/health.py"]);
            engine.remove(&container);
        });
    });
}

#[test]
fn tools_run() {
    let Some(world) = World::shared() else { return };
    let built = world.build(&world.example("tools"), &[]);
    let root = built.root();
    assert!(root.at("var/lib/dpkg/status").text().contains("\nPackage: jq\n"));
    assert!(root.at("etc/ssl/certs/ca-certificates.crt").bytes.len() > 100_000);
    every_reader_agrees(&world, &built);
    in_every_engine(&built, |engine| {
        let said = engine.run("tools", &[], &["bash", "-lc", "echo '[1,2]' | jq -c 'map(.+1)'"]);
        assert_eq!(said.trim(), "[2,3]");
        // dpkg itself finds its own database in order.
        let said = engine.run("tools", &[], &["sh", "-c", "dpkg --audit && dpkg -s jq"]);
        assert!(said.contains("Status: install ok installed"), "{said}");
        let said = engine.run("tools", &[], &["status-of", "http://127.0.0.1:9"]);
        assert_eq!(said.trim(), r#"{"url":"http://127.0.0.1:9","status":0}"#);
    });
}

/// What a second command finds: nothing to do, the same answer, the same bytes.
#[test]
fn a_second_build_answers_the_same() {
    let Some(world) = World::shared() else { return };
    let project = world.example("static-site");
    let first = world.build(&project, &[]);
    let bytes = fs::read(&first.tarball).unwrap();
    let lock = fs::read(project.folder.join("image.lock")).unwrap();
    let second = world.build(&project, &["--locked"]);
    assert_eq!(second.digest, first.digest);
    assert_eq!(fs::read(project.folder.join("image.lock")).unwrap(), lock);
    fs::remove_file(&first.tarball).unwrap();
    let third = world.build(&project, &["--offline", "--locked"]);
    assert_eq!(third.digest, first.digest);
    assert!(fs::read(&first.tarball).unwrap() == bytes, "the same tarball, byte by byte");
    // One changed file: another image, of which only the last layer is new.
    project.write("public/index.html", "changed\n");
    let changed = world.build(&project, &["--locked"]);
    assert_ne!(changed.digest, first.digest);
    assert_eq!(changed.root().at("srv/www/index.html").text(), "changed\n");
}

/// `--json`, `--metadata-file`, `--oci-layout` and `-o` all tell of one image.
#[test]
fn every_output_holds_one_image() {
    let Some(world) = World::shared() else { return };
    let project = world.project(
        "outputs",
        "name = \"team/outputs\"\ntag = \"1.0\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"redis-tools\"]\n",
    );
    let layout = world.path("outputs.layout").display().to_string();
    let tarball = world.path("here.tar").display().to_string();
    let metadata = world.path("metadata.json").display().to_string();
    let options = ["--json", "--metadata-file", &metadata, "--oci-layout", &layout, "-o", &tarball];
    let output = world.try_build(&project, &options);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["version"], 1);
    let written: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(written, answer);
    if can_run(&["skopeo"], false) {
        let of = |source: &str| digest_of(run("skopeo", &["inspect", "--raw", source]).as_bytes());
        let digest = of(&format!("oci:{layout}:team/outputs:1.0"));
        assert_eq!(of(&format!("oci-archive:{tarball}")), digest);
        assert!(answer.to_string().contains(&digest), "{answer}");
    }
}
