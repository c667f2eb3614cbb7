//! A small world of signed repositories on disk, and an image.toml that draws from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use url::Url;

use crate::lock::{Lock, LockedPlatform, PackageKey};
use crate::progress::{Event, Progress};
use crate::resolve::{ResolveError, Resolver, Sources, Update};
use crate::spec::{Image, PackageName, Platform};
use drystone_source::fetch::{Downloader, Settings};
use drystone_store::with_causes;

/// What every suite has: the Essential set of a tiny distribution.
pub const BASE: &[&str] = &[
    "base-files 12 Essential: yes|Pre-Depends: awk",
    "base-passwd 3 Essential: yes|Depends: libc",
    "dpkg 1 Essential: yes|Depends: libc",
    "mawk 1 Provides: awk",
    "libc 1",
    "debconf 1 Depends: dpkg",
];

/// Repositories below one folder.
pub struct World {
    directory: tempfile::TempDir,
    pub events: Events,
}

/// Keeps what was reported.
#[derive(Default)]
pub struct Events(Mutex<Vec<Event>>);

impl Progress for Events {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Events {
    /// What was noted and warned of.
    pub fn texts(&self) -> String {
        let events = self.0.lock().unwrap();
        let texts = events.iter().filter_map(|event| match event {
            Event::Note { text } | Event::Warning { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// Bytes that were expected and received.
    pub fn bytes(&self) -> (u64, u64) {
        let events = self.0.lock().unwrap();
        events.iter().fold((0, 0), |(expected, received), event| match event {
            Event::Expected { bytes } => (expected + bytes, received),
            Event::Received { bytes } => (expected, received + bytes),
            _ => (expected, received),
        })
    }

    /// Names of work that ended.
    pub fn done(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let names = events.iter().filter_map(|event| match event {
            Event::Done { name } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }
}

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

impl World {
    /// None, with a line that says so, when a tool is missing.
    pub fn new() -> Option<Self> {
        for tool in ["gpg", "apt-ftparchive", "dpkg-deb"] {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
                println!("skipped: {tool} is not installed");
                return None;
            }
        }
        // gpg's agent needs a short path.
        let directory = tempfile::Builder::new().prefix("world").tempdir_in("/tmp").unwrap();
        Some(Self { directory, events: Events::default() })
    }

    /// A world whose main repository `r` has the base and more in suite `rock`.
    pub fn with(packages: &[&str]) -> Option<Self> {
        let world = Self::new()?;
        world.publish("r", "rock", &[BASE, packages].concat(), &[]);
        Some(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn url(&self, name: &str) -> Url {
        Url::from_directory_path(self.path(name)).unwrap()
    }

    /// The public key that signs repository `name`; repositories whose names start alike share it.
    pub fn key(&self, name: &str) -> PathBuf {
        let group = name.split('-').next().unwrap();
        self.path(&format!("k-{group}")).join("repository.asc")
    }

    /// Makes a suite of a repository anew, out of packages `NAME[:ARCHITECTURE] VERSION FIELDS`;
    /// fields are parted by `|`. Packages of earlier suites stay where they are.
    pub fn publish(
        &self,
        repository: &str,
        suite: &str,
        packages: &[&str],
        options: &[(&str, &str)],
    ) {
        let stage = tempfile::tempdir_in(self.directory.path()).unwrap();
        let pool = format!("pool/{suite}");
        fs::create_dir_all(stage.path().join(&pool)).unwrap();
        for package in packages {
            build(&stage.path().join(&pool), package);
        }
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/signed_repository.sh");
        let mut command = Command::new("sh");
        command.arg(script).arg(stage.path()).arg(self.key(repository).parent().unwrap());
        command.env("SUITE", suite).envs(options.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for folder in ["pool", "dists"] {
            let target = self.path(repository).join(folder);
            fs::create_dir_all(&target).unwrap();
            let target = target.join(suite);
            if target.exists() {
                fs::remove_dir_all(&target).unwrap();
            }
            fs::rename(stage.path().join(folder).join(suite), target).unwrap();
        }
    }

    /// Checks an image.toml; `debian` is what stands in its `[debian]` table.
    pub fn image(&self, debian: &str) -> Image {
        let text = format!("name = \"web\"\n[debian]\n{debian}\n");
        let path = self.path("image.toml");
        Image::parse(&path, &text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// A resolver that draws from repository `r`.
    pub fn resolver(&self) -> Resolver<'_> {
        Resolver {
            downloader: downloader(),
            sources: Sources::new(Some(self.url("r")), None, "/nonexistent"),
            keyring: Some(self.key("r")),
            now: now(),
            progress: &self.events,
        }
    }

    pub async fn lock(
        &self,
        image: &Image,
        previous: Option<&Lock>,
        update: Update,
    ) -> Result<Lock, ResolveError> {
        self.resolver().lock_image(image, &image.platforms, previous, &update).await
    }

    /// Locks for the first time.
    pub async fn first(&self, image: &Image) -> Lock {
        let lock = self.lock(image, None, Update::Missing).await;
        let lock = lock.unwrap_or_else(|error| panic!("{}", with_causes(&error)));
        assert!(super::super::is_complete(&lock, image, &image.platforms));
        // What was chosen can be written down and read again.
        assert_eq!(Lock::parse(Path::new("image.lock"), &lock.to_text()).unwrap(), lock);
        lock
    }
}

pub fn downloader() -> Downloader {
    Downloader::new(Settings { attempts: 1, proxies: false, ..Settings::default() })
}

fn build(pool: &Path, package: &str) {
    let mut words = package.splitn(3, ' ');
    let (name, version) = (words.next().unwrap(), words.next().unwrap());
    let (name, architecture) = name.split_once(':').unwrap_or((name, "all"));
    let fields: String =
        words.next().map(|text| text.replace('|', "\n") + "\n").unwrap_or_default();
    let tree = tempfile::tempdir_in(pool.parent().unwrap()).unwrap();
    let control = tree.path().join("DEBIAN");
    let docs = tree.path().join("usr/share/doc").join(name);
    fs::create_dir_all(&control).unwrap();
    fs::create_dir_all(&docs).unwrap();
    fs::write(docs.join("version"), format!("{name} {version} {architecture}\n")).unwrap();
    let text = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: Nobody <nobody@example.com>\nDescription: a test\n{fields}"
    );
    fs::write(control.join("control"), text).unwrap();
    let file = pool.join(format!("{name}_{version}_{architecture}.deb"));
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zgzip", "--build"])
        .args([tree.path(), &file])
        .env("SOURCE_DATE_EPOCH", "1")
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

pub fn content<'a>(lock: &'a Lock, image: &Image) -> &'a LockedPlatform {
    lock.platform(&image.name, Platform::default_platform()).unwrap()
}

/// `name version` of the packages in a set.
pub fn texts<'a>(keys: impl IntoIterator<Item = &'a PackageKey>) -> Vec<String> {
    keys.into_iter().map(|key| format!("{} {}", key.name, key.version)).collect()
}

/// The version that a lock has of a package.
pub fn version<'a>(lock: &'a Lock, name: &str) -> &'a str {
    let mut keys = lock.packages.keys().filter(|key| key.name.as_str() == name);
    let version = keys.next().map_or("none", |key| key.version.as_str());
    assert!(keys.next().is_none(), "{name} is locked twice");
    version
}

pub fn only(names: &[&str]) -> Update {
    Update::Packages(names.iter().map(|name| PackageName::new(name).unwrap()).collect())
}
