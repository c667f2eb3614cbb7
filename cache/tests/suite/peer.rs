//! Debian's docker-registry on loopback, with a configuration and a folder of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry that ends with the test.
pub struct DockerRegistry {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts it; `None`, said aloud, where it is not installed. `more` is added to its
    /// configuration.
    pub fn start(more: &str) -> Option<Self> {
        let program = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"];
        let Some(program) = program.iter().find(|path| fs::exists(path).unwrap()) else {
            println!("skipped: docker-registry is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = folder.path().join("data");
        let configuration = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n{more}",
            data.display()
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, configuration).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, port, _folder: folder };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "docker-registry has ended");
            assert!(Instant::now() < end, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
