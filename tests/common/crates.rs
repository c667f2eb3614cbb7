//! A registry of crates on loopback: a sparse index, archives, and what was asked for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A web server on loopback that remembers what it was asked for.
pub struct Server {
    pub port: u16,
    files: Files,
    asked: Arc<Mutex<Vec<String>>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (files, asked) = (Files::default(), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let server = Self {
            port,
            files: Arc::clone(&files),
            asked: Arc::clone(&asked),
            heard: Arc::clone(&heard),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, asked) = (Arc::clone(&files), Arc::clone(&asked));
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || drop(answer(&stream, &files, &asked, &heard)));
            }
        });
        server
    }

    /// Serves a file.
    pub fn serve(&self, path: &str, content: Vec<u8>) {
        self.files.lock().unwrap().insert(path.to_owned(), content);
    }

    /// Serves nothing any more.
    pub fn forget(&self) {
        self.files.lock().unwrap().clear();
    }

    /// The paths that were asked for since the last time, sorted.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

impl Server {
    /// The credentials that came with requests.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn answer(
    stream: &std::net::TcpStream,
    files: &Files,
    asked: &Mutex<Vec<String>>,
    heard: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            heard.lock().unwrap().push(value.trim().to_owned());
        }
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let content = files.lock().unwrap().get(&path).cloned();
    asked.lock().unwrap().push(path);
    let (status, body) = match content {
        Some(content) => ("200 OK", content),
        None => ("404 Not Found", Vec::new()),
    };
    let mut writer = stream;
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    writer.write_all(&body)
}

/// A registry of crates.
pub struct Crates {
    pub server: Server,
}

impl Crates {
    pub fn start() -> Self {
        let crates = Self { server: Server::start() };
        let port = crates.server.port;
        let config = format!("{{\"dl\":\"http://127.0.0.1:{port}/dl/{{crate}}-{{version}}\"}}");
        crates.server.serve("/index/config.json", config.into_bytes());
        crates
    }

    /// Cargo's configuration that makes it the default registry.
    pub fn configuration(&self) -> String {
        format!(
            "[source.crates-io]\nreplace-with = \"loopback\"\n[source.loopback]\nregistry = \
             \"sparse+http://127.0.0.1:{}/index/\"\n",
            self.server.port
        )
    }

    /// Publishes a crate with these files; the lines that a lockfile has of it.
    pub fn publish(&self, name: &str, version: &str, files: &[(&str, &str)]) -> String {
        let archive = archive(&format!("{name}-{version}"), files);
        let sha256 = hex(&Sha256::digest(&archive));
        self.server.serve(&format!("/dl/{name}-{version}"), archive);
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nchecksum = \"{sha256}\"\n"
        )
    }
}

/// An archive as crates are.
pub fn archive(top: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        let name = format!("{top}/{path}");
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
