//! What the end-to-end tests share: the real command, one caching proxy before the host's Debian
//! mirror, images read by independent code, and peers that are ended by their id.
//!
//! Everything that may be kept between runs is below `$DRYSTONE_TEST_DIR`, else cargo's directory for
//! tests: the proxy's cache (`archive/`) and one store (`store/`), so packages are fetched and the
//! Essential set is configured once for all tests. Tests about identity make stores of their own.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "helpers of tests may panic")]

pub mod archive;
pub mod crates;
pub mod engines;
pub mod http;
pub mod image;
pub mod refusing;
pub mod registry;
pub mod repository;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub use archive::Archive;
pub use image::RootTree;

/// Whether a test can run; says why when it cannot.
pub fn can_run(programs: &[&str], needs_root: bool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let found = |program: &&str| {
        std::env::split_paths(&path)
            .chain(sbin.clone())
            .any(|folder| folder.join(program).is_file())
    };
    if let Some(missing) = programs.iter().find(|program| !found(program)) {
        return skip(&format!("{missing} is not installed"));
    }
    if needs_root && !is_root() {
        return skip("it needs root");
    }
    true
}

/// Says why a test does nothing.
pub fn skip(reason: &str) -> bool {
    println!("skipped: {reason}");
    false
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this run compares everything (`DRYSTONE_ORACLE=all`).
pub fn is_long_run() -> bool {
    std::env::var("DRYSTONE_ORACLE").is_ok_and(|value| value == "all")
}

/// The folder of what is kept between tests and runs.
pub fn kept() -> PathBuf {
    let folder = std::env::var_os("DRYSTONE_TEST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("proof"), PathBuf::from);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The repository's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end; its standard output, or a panic with what it complained about.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    succeed(&mut command)
}

/// Runs a command that must succeed; its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A place for one test: a folder for projects, and a store.
pub struct World {
    pub folder: tempfile::TempDir,
    pub store: PathBuf,
    pub archive: Archive,
    variables: BTreeMap<String, String>,
}

impl World {
    /// With the store that all tests share; `None`, said aloud, when no mirror can be asked.
    pub fn shared() -> Option<Self> {
        Self::with_store(kept().join("store"))
    }

    /// With a store that these tests share: one that is verified often should hold little.
    pub fn shared_by(tests: &str) -> Option<Self> {
        Self::with_store(kept().join("store-of").join(tests))
    }

    /// With an empty store.
    pub fn fresh() -> Option<Self> {
        let mut world = Self::with_store(PathBuf::new())?;
        world.store = world.path("store");
        Some(world)
    }

    fn with_store(store: PathBuf) -> Option<Self> {
        let archive = Archive::start()?;
        let folder = tempfile::Builder::new().prefix("drystone-proof-").tempdir().unwrap();
        Some(Self { folder, store, archive, variables: BTreeMap::new() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A variable for all further commands.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Writes an image.toml into a folder of this name.
    pub fn project(&self, name: &str, image: &str) -> Project {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("image.toml"), image).unwrap();
        Project { folder }
    }

    /// An example, copied, so that nothing is written beside the original.
    pub fn example(&self, name: &str) -> Project {
        let folder = self.path(name);
        let from = project().join("examples").join(name);
        run("cp", &[OsStr::new("-r"), from.as_os_str(), folder.as_os_str()]);
        let _ = fs::remove_file(folder.join("image.lock"));
        Project { folder }
    }

    /// The command in a clean environment, with this world's store and mirror.
    pub fn drystone(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        self.environment(&mut command);
        command.args(arguments);
        command
    }

    /// The environment of the command, and nothing else of the caller's.
    pub fn environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("DRYSTONE_STORE", &self.store)
            .env("DRYSTONE_MIRROR", self.archive.main())
            .env("DRYSTONE_SECURITY_MIRROR", self.archive.security())
            .envs(&self.variables)
            .stdin(Stdio::null());
    }

    /// Builds a project, which must succeed.
    pub fn build(&self, project: &Project, arguments: &[&str]) -> Built {
        let output = self.try_build(project, arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "drystone build of {}: {}\n{complaint}",
            project.folder.display(),
            output.status
        );
        let answer = String::from_utf8(output.stdout).unwrap();
        let (name, digest) = answer.trim_end().split_once('@').expect("NAME:TAG@sha256:...");
        assert!(digest.starts_with("sha256:") && !digest.contains('\n'), "{answer}");
        Built {
            tarball: project.tarball(name),
            name: name.to_owned(),
            digest: digest.to_owned(),
            messages: complaint.into_owned(),
        }
    }

    /// Builds a project, whatever comes of it.
    pub fn try_build(&self, project: &Project, arguments: &[&str]) -> Output {
        let mut command = self.drystone(&["build"]);
        command.arg(project.folder.join("image.toml")).args(arguments);
        command.output().unwrap()
    }

    /// What `drystone build` says when it fails with a code.
    #[track_caller]
    pub fn fails(&self, project: &Project, code: i32, said: &[&str]) -> String {
        let output = self.try_build(project, &[]);
        expect_failure(&output, code, said)
    }

    /// `store verify` must find nothing wrong.
    #[track_caller]
    pub fn verify(&self) {
        succeed(&mut self.drystone(&["store", "verify"]));
    }
}

/// A command must have failed with this code, saying all of this; what it said.
#[track_caller]
pub fn expect_failure(output: &Output, code: i32, said: &[&str]) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    assert!(output.stdout.is_empty(), "stdout is for answers only");
    for words in said {
        assert!(complaint.contains(words), "{words:?} is missing in:\n{complaint}");
    }
    complaint
}

/// A folder with an image.toml.
pub struct Project {
    pub folder: PathBuf,
}

impl Project {
    pub fn write(&self, name: &str, content: &str) -> &Self {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn make_executable(&self, name: &str) {
        fs::set_permissions(self.folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn tarball(&self, name: &str) -> PathBuf {
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        self.folder.join(format!("{name}.tar"))
    }
}

/// What `drystone build` said it built.
pub struct Built {
    /// The default output; it exists unless the image went elsewhere.
    pub tarball: PathBuf,
    pub name: String,
    pub digest: String,
    pub messages: String,
}

impl Built {
    /// The image's root, read from the tarball by code that shares nothing with the product.
    pub fn root(&self) -> RootTree {
        RootTree::of_image(&self.tarball)
    }
}
