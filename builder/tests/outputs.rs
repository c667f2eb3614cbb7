//! Every output is read by the real programs that users will read it with: skopeo, umoci, podman,
//! containerd and docker. Daemons are started here, in temporary directories with sockets of their
//! own, and only these are ended. A test whose program is missing says so and passes; podman, ctr and docker
//! need root.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and its helpers are no `#[test]` functions"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drystone_builder::image::{self, ImageSet, LayerRef};
use drystone_builder::output::{
    Engine, EngineKind, ImageName, LoadOutcome, Output, load, write_archive_file, write_layout,
};
use serde_json::Value;

#[path = "../src/output/testing.rs"]
mod testing;

use testing::{Blobs, image_set, noise};

/// Whether a test can run; says why when it cannot.
fn can_run(programs: &[&str], needs_root: bool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    if let Some(missing) = programs.iter().find(|program| !found(program)) {
        eprintln!("skipped: {missing} is not installed");
        return false;
    }
    if needs_root && !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {} needs root", programs[0]);
        return false;
    }
    true
}

/// Runs a program to its end; its standard output, or a panic with what it complained about.
fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().display().to_string()).collect();
    assert!(
        output.status.success(),
        "{program} {}: {}\n{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// An image written in both forms.
struct Written {
    blobs: Blobs,
    set: ImageSet,
    name: ImageName,
    directory: tempfile::TempDir,
}

impl Written {
    fn new(platforms: &[&str]) -> Self {
        let blobs = Blobs::new();
        // The first layer comes again: one blob, twice in the image.
        let hello = blobs.layer("hello", b"hello\n");
        let layers: Vec<LayerRef> =
            vec![hello.clone(), blobs.layer("large", &noise(200_000)), hello];
        let set = image_set(platforms, &layers);
        let written = Self {
            blobs,
            set,
            name: "team/hello:1.0".parse().unwrap(),
            directory: tempfile::tempdir().unwrap(),
        };
        write_archive_file(
            &written.output(&|digest| written.blobs.path(digest)),
            &written.tarball(),
        )
        .unwrap();
        write_layout(
            &written.output(&|digest| written.blobs.path(digest)),
            &written.path("layout"),
        )
        .unwrap();
        written
    }

    fn output<'a>(&'a self, blob_path: &'a drystone_builder::output::BlobPath<'a>) -> Output<'a> {
        Output { set: &self.set, name: &self.name, blob_path }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tarball(&self) -> PathBuf {
        self.path("hello.tar")
    }

    fn load(&self, engine: &Engine) -> LoadOutcome {
        load(&self.output(&|digest| self.blobs.path(digest)), engine).unwrap()
    }

    fn config_digest(&self) -> String {
        self.set.images()[0].config.digest.to_string()
    }
}

#[test]
fn skopeo_reads_the_tarball_both_ways_and_the_layout() {
    if !can_run(&["skopeo"], false) {
        return;
    }
    let written = Written::new(&["linux/amd64"]);
    let (tarball, layout) = (written.tarball(), written.path("layout"));
    for reference in [
        format!("oci-archive:{}", tarball.display()),
        format!("oci-archive:{}:team/hello:1.0", tarball.display()),
        format!("oci:{}:team/hello:1.0", layout.display()),
    ] {
        let found = run("skopeo", &["inspect", "--raw", &reference]);
        assert_eq!(found.as_bytes(), written.set.top().bytes, "{reference}");
    }
    let docker = format!("docker-archive:{}:team/hello:1.0", tarball.display());
    let found: Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--config", &docker])).unwrap();
    assert_eq!(found["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);

    // Copying reads every layer and compares its digest.
    for (number, source) in
        [docker, format!("oci-archive:{}", tarball.display())].iter().enumerate()
    {
        let target = written.path(&format!("copy{number}"));
        run("skopeo", &["copy", "-q", source, &format!("dir:{}", target.display())]);
        let manifest: Value =
            serde_json::from_slice(&fs::read(target.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["config"]["digest"], written.config_digest(), "{source}");
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn skopeo_finds_each_platform_under_the_index() {
    if !can_run(&["skopeo"], false) {
        return;
    }
    let written = Written::new(&["linux/amd64", "linux/arm64"]);
    for (number, architecture) in ["amd64", "arm64"].iter().enumerate() {
        let source = format!("oci-archive:{}", written.tarball().display());
        let config = run(
            "skopeo",
            &["--override-arch", architecture, "inspect", "--config", "--raw", &source],
        );
        assert_eq!(config.as_bytes(), written.set.images()[number].config.bytes);
    }
    let target = format!("dir:{}", written.path("copy").display());
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--all",
            &format!("oci:{}:team/hello:1.0", written.path("layout").display()),
            &target,
        ],
    );
}

/// Of single images only: umoci 0.4 cannot choose a platform under an index.
#[test]
fn umoci_unpacks_the_layout_and_the_unpacked_tarball() {
    if !can_run(&["umoci", "tar"], false) {
        return;
    }
    let written = Written::new(&["linux/amd64"]);
    let unpacked = written.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run(
        "tar",
        &[OsStr::new("-xf"), written.tarball().as_os_str(), OsStr::new("-C"), unpacked.as_os_str()],
    );
    for (number, layout) in [written.path("layout"), unpacked].iter().enumerate() {
        let image = format!("{}:team/hello:1.0", layout.display());
        let bundle = written.path(&format!("bundle{number}"));
        let mut arguments = vec![OsString::from("unpack")];
        if !rustix::process::geteuid().is_root() {
            arguments.push("--rootless".into());
        }
        arguments.extend(["--image".into(), image.into(), bundle.clone().into()]);
        run("umoci", &arguments);
        assert_eq!(fs::read(bundle.join("rootfs/hello")).unwrap(), b"hello\n");
        assert_eq!(fs::read(bundle.join("rootfs/large")).unwrap(), noise(200_000));
    }
}

#[test]
fn podman_loads_the_tarball_and_the_stream() {
    if can_run(&["podman"], true) {
        podman_loads(&["linux/amd64"]);
        podman_loads(&["linux/amd64", "linux/arm64"]);
    }
}

fn podman_loads(platforms: &[&str]) {
    let written = Written::new(platforms);
    let mut options: Vec<OsString> = Vec::new();
    for (option, value) in
        [("--root", written.path("root")), ("--runroot", written.path("runroot"))]
    {
        options.extend([option.into(), value.into()]);
    }
    options.extend(
        ["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--storage-driver", "vfs"]
            .map(Into::into),
    );
    let podman = |words: &[&str]| {
        let words = words.iter().map(OsString::from);
        run("podman", &options.iter().cloned().chain(words).collect::<Vec<_>>())
    };

    let tarball = written.tarball().display().to_string();
    podman(&["load", "-q", "-i", &tarball]);
    let id = podman(&["image", "inspect", "--format", "{{.Id}}", "team/hello:1.0"]);
    assert_eq!(format!("sha256:{}", id.trim()), written.config_digest());

    let engine = Engine { arguments: options.clone(), ..Engine::new(EngineKind::Podman) };
    assert_eq!(written.load(&engine), LoadOutcome::AlreadyThere);
    podman(&["image", "rm", "team/hello:1.0"]);
    assert_eq!(written.load(&engine), LoadOutcome::Loaded);
    assert_eq!(written.load(&engine), LoadOutcome::AlreadyThere);
}

/// A daemon that a test started; it ends with the test.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(program: &str, arguments: &[String], directory: &Path) -> Self {
        let log = directory.join(format!("{program}.log"));
        let output = fs::File::create(&log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Waits until the daemon answers; false, with its log's end, if it cannot run here.
    fn is_up(&mut self, answers: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if answers() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let end: Vec<_> = log.lines().rev().take(5).collect();
        eprintln!("skipped: the daemon does not start here: {end:#?}");
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let command = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    command.is_ok_and(|output| output.status.success())
}

#[test]
fn containerd_imports_the_tarball() {
    if !can_run(&["containerd", "ctr"], true) {
        return;
    }
    let written = Written::new(&["linux/amd64"]);
    // Unix sockets have short paths only.
    let directory = tempfile::Builder::new().prefix("ctrd").tempdir_in("/tmp").unwrap();
    let socket = directory.path().join("s").display().to_string();
    let state = directory.path().display();
    let config = directory.path().join("config.toml");
    let disabled =
        "disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]";
    fs::write(&config, format!("version = 2\n{disabled}\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n"))
        .unwrap();
    let arguments = [
        "--config".to_owned(),
        config.display().to_string(),
        "--address".to_owned(),
        socket.clone(),
        "--root".to_owned(),
        format!("{state}/root"),
        "--state".to_owned(),
        format!("{state}/state"),
    ];
    let mut daemon = Daemon::start("containerd", &arguments, directory.path());
    if !daemon.is_up(|| succeeds("ctr", &["--address", &socket, "version"])) {
        return;
    }
    // The second image takes the name over from the first.
    for written in [written, Written::new(&["linux/amd64", "linux/arm64"])] {
        let tarball = written.tarball().display().to_string();
        let ctr = |words: &[&str]| run("ctr", &[&["--address", &socket, "images"], words].concat());
        ctr(&["import", "--snapshotter", "native", &tarball]);
        let list = ctr(&["ls"]);
        let line = list.lines().find(|line| line.starts_with("docker.io/team/hello:1.0 "));
        assert!(
            line.is_some_and(|line| line.contains(&written.set.digest().to_string())),
            "{list}"
        );
        // The check looks for every blob of the host's platform.
        let check = ctr(&["check", "--snapshotter", "native"]);
        assert!(check.contains("complete ("), "{check}");
    }
}

#[test]
fn docker_loads_the_tarball_and_the_stream() {
    if !can_run(&["dockerd", "docker"], true) {
        return;
    }
    let written = Written::new(&["linux/amd64", "linux/arm64"]);
    let directory = tempfile::Builder::new().prefix("dkr").tempdir_in("/tmp").unwrap();
    let state = directory.path().display();
    let host = format!("unix://{state}/s");
    let arguments = [
        format!("--data-root={state}/data"),
        format!("--exec-root={state}/exec"),
        format!("--pidfile={state}/pid"),
        format!("--host={host}"),
        "--storage-driver=vfs".to_owned(),
        "--iptables=false".to_owned(),
        "--bridge=none".to_owned(),
    ];
    let mut daemon = Daemon::start("dockerd", &arguments, directory.path());
    if !daemon.is_up(|| succeeds("docker", &["-H", &host, "version"])) {
        return;
    }
    let docker = |words: &[&str]| run("docker", &[&["-H", &host], words].concat());
    let tarball = written.tarball().display().to_string();
    docker(&["load", "-q", "-i", &tarball]);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", "team/hello:1.0"]);
    assert_eq!(id.trim(), written.config_digest());
    let layers =
        docker(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "team/hello:1.0"]);
    assert_eq!(layers.trim(), "3");
    let history =
        docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "team/hello:1.0"]);
    assert_eq!(history.lines().next(), Some("drystone: hello"));

    let engine = Engine {
        arguments: vec!["-H".into(), host.clone().into()],
        ..Engine::new(EngineKind::Docker)
    };
    assert_eq!(written.load(&engine), LoadOutcome::AlreadyThere);
    docker(&["image", "rm", "team/hello:1.0"]);
    assert_eq!(written.load(&engine), LoadOutcome::Loaded);
    assert_eq!(written.load(&engine), LoadOutcome::AlreadyThere);
}
