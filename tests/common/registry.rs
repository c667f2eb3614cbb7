//! Debian's docker-registry on loopback, with a configuration and a folder of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::can_run;

/// A registry that ends with the test.
pub struct Registry {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

/// `ann` with the password `hunter2`, as htpasswd writes it.
const PASSWORDS: &str = "ann:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

impl Registry {
    /// One that everybody may use; `None`, said aloud, where it is not installed.
    pub fn start() -> Option<Self> {
        Self::with(false, None)
    }

    /// One that wants `ann` and `hunter2`.
    pub fn with_password() -> Option<Self> {
        Self::with(true, None)
    }

    /// One that speaks TLS with a certificate and a key.
    pub fn with_tls(certificate: &Path, key: &Path) -> Option<Self> {
        Self::with(false, Some((certificate, key)))
    }

    fn with(password: bool, tls: Option<(&Path, &Path)>) -> Option<Self> {
        if !can_run(&["docker-registry"], false) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (data, users) = (folder.path().join("data"), folder.path().join("users"));
        fs::write(&users, PASSWORDS).unwrap();
        let auth = match password {
            true => format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display()),
            false => String::new(),
        };
        let tls = tls.map_or_else(String::new, |(certificate, key)| {
            format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display())
        });
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"127.0.0.1:{port}\"{tls}}}\n{auth}",
            data.display()
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, configuration).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(fs::File::create(folder.path().join("access")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, port, folder };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "docker-registry has ended");
            assert!(Instant::now() < end, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its log of requests, a line each.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access")).unwrap()
    }

    /// A reference in it.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
