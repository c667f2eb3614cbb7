//! Docker, Podman and containerd, each with state of its own and ended by its id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{run, skip};

/// A daemon that a test started; it ends with the test.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(program: &str, arguments: &[String], folder: &Path) -> Self {
        let log = folder.join(format!("{program}.log"));
        let output = File::create(&log).unwrap();
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
        while start.elapsed() < Duration::from_secs(30) {
            if answers() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let end: Vec<_> = log.lines().rev().take(5).collect();
        skip(&format!("the daemon does not start here: {end:#?}"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(15) {
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

/// Whether layers can be stacked below this folder without copying all of the lower ones for each:
/// not on every file system (inside a container, say), and then the same tests take much longer.
fn can_stack(folder: &Path) -> bool {
    let script = "mkdir lower upper work merged && \
                  mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && \
                  umount merged";
    let attempt = tempfile::tempdir_in(folder).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(attempt.path()).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

/// What loads and runs images.
pub trait Engine {
    /// Its name in messages.
    fn name(&self) -> &'static str;
    /// Runs the engine's command; its standard output, or a panic.
    fn command(&self, words: &[&str]) -> String;
    /// What `run` needs on this kind of machine: no bridge, and for Podman explicit limits.
    fn run_options(&self) -> &'static [&'static str];

    /// Starts a container in the background, on the host's network.
    fn start(&self, image: &str, more: &[&str]) -> String {
        let words = [&["run", "--detach"], self.run_options(), more, &[image]].concat();
        self.command(&words).trim().to_owned()
    }

    /// Runs a command in a container to its end; what it printed.
    fn run(&self, image: &str, more: &[&str], words: &[&str]) -> String {
        let all = [&["run", "--rm"], self.run_options(), more, &[image], words].concat();
        self.command(&all)
    }

    /// Ends a container.
    fn remove(&self, container: &str) {
        self.command(&["rm", "--force", container]);
    }
}

/// A docker daemon.
pub struct Docker {
    host: String,
    _daemon: Daemon,
    /// Outlives the daemon that writes into it.
    _folder: tempfile::TempDir,
}

impl Docker {
    /// Starts one; `None`, said aloud, where that cannot be.
    pub fn start() -> Option<Self> {
        // Unix sockets have short paths only.
        let folder = tempfile::Builder::new().prefix("dkr").tempdir_in("/tmp").unwrap();
        let state = folder.path().display();
        let host = format!("unix://{state}/s");
        let arguments = [
            format!("--data-root={state}/data"),
            format!("--exec-root={state}/exec"),
            format!("--pidfile={state}/pid"),
            format!("--host={host}"),
            "--iptables=false".to_owned(),
            "--bridge=none".to_owned(),
        ];
        let mut daemon = Daemon::start("dockerd", &arguments, folder.path());
        daemon.is_up(|| succeeds("docker", &["-H", &host, "version"])).then_some(Self {
            host,
            _daemon: daemon,
            _folder: folder,
        })
    }
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn command(&self, words: &[&str]) -> String {
        run("docker", &[&["-H", &self.host], words].concat())
    }

    fn run_options(&self) -> &'static [&'static str] {
        &["--network", "host"]
    }
}

/// Podman with storage of its own.
pub struct Podman {
    folder: tempfile::TempDir,
    driver: &'static str,
}

impl Podman {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pod").tempdir_in("/tmp").unwrap();
        let driver = if can_stack(folder.path()) { "overlay" } else { "vfs" };
        Self { folder, driver }
    }

    fn options(&self) -> Vec<String> {
        let state = self.folder.path().display();
        let mut options = vec![format!("--root={state}/root"), format!("--runroot={state}/run")];
        options.push(format!("--storage-driver={}", self.driver));
        options.extend(["--cgroup-manager=cgroupfs", "--runtime=runc"].map(str::to_owned));
        options
    }
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn command(&self, words: &[&str]) -> String {
        let options = self.options();
        let all: Vec<&str> =
            options.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run("podman", &all)
    }

    fn run_options(&self) -> &'static [&'static str] {
        &["--network", "host", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
    }
}

/// A containerd.
pub struct Containerd {
    socket: String,
    snapshotter: &'static str,
    _daemon: Daemon,
    _folder: tempfile::TempDir,
}

impl Containerd {
    /// Starts one; `None`, said aloud, where that cannot be.
    pub fn start() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("ctrd").tempdir_in("/tmp").unwrap();
        let state = folder.path().display();
        let socket = format!("{state}/s");
        let config = folder.path().join("config.toml");
        let disabled = "disabled_plugins = [\"io.containerd.grpc.v1.cri\", \
                        \"io.containerd.internal.v1.opt\"]";
        let text = format!("version = 2\n{disabled}\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n");
        fs::write(&config, text).unwrap();
        let arguments = [
            format!("--config={}", config.display()),
            format!("--address={socket}"),
            format!("--root={state}/root"),
            format!("--state={state}/state"),
        ];
        let mut daemon = Daemon::start("containerd", &arguments, folder.path());
        daemon.is_up(|| succeeds("ctr", &["--address", &socket, "version"])).then_some(Self {
            socket,
            snapshotter: if can_stack(folder.path()) { "overlayfs" } else { "native" },
            _daemon: daemon,
            _folder: folder,
        })
    }

    /// Reads an image tarball, and unpacks its image.
    pub fn import(&self, tarball: &str) {
        self.images(&["import", "--snapshotter", self.snapshotter, tarball]);
    }

    /// What it says of the images it has, and of what of them is unpacked.
    pub fn check(&self) -> String {
        self.images(&["check", "--snapshotter", self.snapshotter])
    }

    pub fn images(&self, words: &[&str]) -> String {
        run("ctr", &[&["--address", &self.socket, "images"], words].concat())
    }
}
