//! The host's Debian mirror through the caching proxy of the builder's examples.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{kept, skip};

/// How long an archive's indexes are used again, before the mirror is asked for newer ones.
const INDEXES_ARE_FRESH: Duration = Duration::from_secs(6 * 3600);

/// A caching mirror on loopback; ended when it is dropped.
pub struct Archive {
    process: Child,
    address: String,
}

impl Archive {
    /// Starts it; `None`, said aloud, when this host knows no mirror.
    pub fn start() -> Option<Self> {
        let cache = kept().join("archive");
        forget_old_indexes(&cache);
        let log = fs::File::create(kept().join("archive.log")).unwrap();
        let mut process = Command::new(program("caching_proxy"))
            .arg("--cache")
            .arg(&cache)
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        if address.is_empty() {
            let _ = process.wait();
            let said = fs::read_to_string(kept().join("archive.log")).unwrap_or_default();
            skip(&format!("no Debian mirror: {}", said.trim()));
            return None;
        }
        Some(Self { process, address })
    }

    /// The main archive's address.
    pub fn main(&self) -> String {
        format!("{}/debian", self.address)
    }

    /// The security archive's address.
    pub fn security(&self) -> String {
        format!("{}/debian-security", self.address)
    }

    /// The same archives, as apt wants to be told.
    pub fn apt_sources(&self, suite: &str) -> [String; 3] {
        let (main, security) = (self.main(), self.security());
        [
            format!("deb {main} {suite} main"),
            format!("deb {main} {suite}-updates main"),
            format!("deb {security} {suite}-security main"),
        ]
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Packages never change under their name; indexes do.
fn forget_old_indexes(cache: &Path) {
    for archive in ["debian", "debian-security"] {
        let indexes = cache.join(archive).join("dists");
        let age = fs::metadata(&indexes).and_then(|found| found.created()).ok();
        if age.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > INDEXES_ARE_FRESH) {
            fs::remove_dir_all(&indexes).unwrap();
        }
    }
}

/// An example program of the builder; built when only the tests were.
fn program(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_drystone")).parent().unwrap();
    let path = built.join("examples").join(name);
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--example", name]);
        assert!(build.current_dir(super::project()).status().unwrap().success());
    }
    path
}
