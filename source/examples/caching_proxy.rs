//! A caching HTTP mirror on loopback, so that benchmarks and tests ask the real mirror only once.
//!
//! ```text
//! caching_proxy --cache DIR [--listen 127.0.0.1:0] [--suite bookworm] [--mirror URL] [--security-mirror URL]
//! ```
//!
//! It prints its base address (`http://127.0.0.1:PORT`) as one line on stdout when it is ready.
//! `/debian/…` is the main archive and `/debian-security/…` the security archive of the mirrors
//! given (or `DRYSTONE_MIRROR`, `DRYSTONE_SECURITY_MIRROR`), else of the host's apt sources. It may
//! also be set as `http_proxy`; then it serves exactly those two archives and refuses all else.
//!
//! Answers are kept for ever: an archive that changes meanwhile needs a new cache directory. A
//! first answer streams to its client and to disk at once; others that ask for it then wait for it.
//! The response header `X-Cache` says `HIT` or `MISS`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use drystone_source::debian::apt_sources::read_apt_sources;
use drystone_source::debian::mirror::{address_of, find_mirrors, parse_mirror};
use futures_util::StreamExt as _;
use tokio::fs::File;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Proxy {
    cache: PathBuf,
    /// First path part and upstream base.
    archives: [(&'static str, Url); 2],
    client: reqwest::Client,
    /// One lock for each file, so that it is fetched once; the value is true after a 404.
    files: Mutex<HashMap<String, Arc<tokio::sync::Mutex<bool>>>>,
}

struct Request {
    method: String,
    target: String,
    range: Option<(u64, Option<u64>)>,
    keep_alive: bool,
}

fn main() -> Result<(), Failure> {
    let option = |name: &str| {
        let mut arguments = std::env::args().skip_while(move |argument| argument != name);
        arguments.nth(1)
    };
    let address = |name: &str, variable: &str| {
        let text = option(name).or_else(|| std::env::var(variable).ok());
        text.map(|text| parse_mirror(&text)).transpose()
    };
    let cache = PathBuf::from(option("--cache").ok_or("usage: caching_proxy --cache DIR")?);
    let listen: SocketAddr =
        option("--listen").unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    if !listen.ip().is_loopback() {
        return Err("only loopback addresses are served".into());
    }
    let suite = option("--suite").unwrap_or_else(|| "bookworm".to_owned());
    let mirrors = find_mirrors(
        &suite,
        address("--mirror", "DRYSTONE_MIRROR")?.as_ref(),
        address("--security-mirror", "DRYSTONE_SECURITY_MIRROR")?.as_ref(),
        &read_apt_sources(Path::new("/etc/apt"))?,
    )?;
    // An error only says that another provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::fs::create_dir_all(&cache)?;
    let proxy = Arc::new(Proxy {
        cache,
        archives: [
            ("debian-security", mirrors.security[0].clone()),
            ("debian", mirrors.main[0].clone()),
        ],
        client: reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(20))
            .read_timeout(std::time::Duration::from_secs(60))
            .build()?,
        files: Mutex::default(),
    });
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(proxy, listen))
}

async fn serve(proxy: Arc<Proxy>, listen: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        // Running out of descriptors passes; ending the proxy for it would not.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // A client that goes away is no fault of the proxy.
            let _ = connection(&proxy, stream).await;
        });
    }
}

/// Answers the requests of one connection in turn, pipelined ones too.
async fn connection(proxy: &Proxy, stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        let socket = stream.get_mut();
        let complete = answer(proxy, &request, socket).await?;
        if !complete || !request.keep_alive {
            return socket.shutdown().await;
        }
    }
    Ok(())
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut first = String::new();
    if (&mut *stream).take(16384).read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let keep_alive = words.next().as_deref() == Some("HTTP/1.1");
    let mut request = Request { method, target, range: None, keep_alive };
    for _ in 0..200 {
        let mut line = String::new();
        (&mut *stream).take(16384).read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(request));
        };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("connection", value) if value.eq_ignore_ascii_case("close") => {
                request.keep_alive = false;
            }
            ("range", value) => request.range = parse_range(value),
            _ => {}
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    Some((first.parse().ok()?, last))
}

/// Answers one request; false when the connection can carry no further answer.
async fn answer(proxy: &Proxy, request: &Request, socket: &mut TcpStream) -> io::Result<bool> {
    if request.method != "GET" && request.method != "HEAD" {
        return plain(socket, "405 Method Not Allowed").await.map(|()| false);
    }
    let Some((key, upstream)) = proxy.locate(&request.target) else {
        return plain(socket, "403 Forbidden").await.map(|()| true);
    };
    let file = {
        let mut files = proxy.files.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(key.clone()).or_default())
    };
    let path = proxy.cache.join(&key);
    let mut hit = path.is_file();
    if !hit {
        let mut missing = file.lock().await;
        if *missing {
            return plain(socket, "404 Not Found").await.map(|()| true);
        }
        hit = path.is_file();
        if !hit {
            // HEAD and ranges are answered from the whole file, so only plain GETs stream.
            let live = (request.method == "GET" && request.range.is_none()).then_some(&mut *socket);
            match proxy.fetch(&upstream, &path, live).await {
                Ok(Fetched::Streamed { complete }) => return Ok(complete),
                Ok(Fetched::Stored) => {}
                Ok(Fetched::Missing) => {
                    *missing = true;
                    return plain(socket, "404 Not Found").await.map(|()| true);
                }
                Err(error) => {
                    eprintln!("caching_proxy: {key}: {error}");
                    return plain(socket, "502 Bad Gateway").await.map(|()| true);
                }
            }
        }
    }
    send_file(socket, &path, request, hit).await.map(|()| true)
}

enum Fetched {
    /// The client has its answer; an incomplete one must end the connection.
    Streamed {
        complete: bool,
    },
    Stored,
    Missing,
}

impl Proxy {
    /// The cache key and upstream address of a request target, in either form.
    fn locate(&self, target: &str) -> Option<(String, Url)> {
        let path = if let Some(path) = target.strip_prefix('/') {
            let (first, rest) = path.split_once('/')?;
            let (name, base) = self.archives.iter().find(|(name, _)| *name == first)?;
            (*name, base, rest.to_owned())
        } else {
            let url = Url::parse(target).ok()?;
            self.archives.iter().find_map(|(name, base)| {
                let same = url.host_str() == base.host_str()
                    && url.port_or_known_default() == base.port_or_known_default();
                let rest = url.path().strip_prefix(base.path())?.strip_prefix('/')?;
                same.then(|| (*name, base, rest.to_owned()))
            })?
        };
        let (name, base, rest) = path;
        // The base joins with the decoded path; this also drops `.` and `..`.
        let upstream = address_of(base, &percent_decoded(&rest)?);
        let below = upstream.path().strip_prefix(base.path())?.trim_start_matches('/');
        (!below.is_empty()).then(|| (format!("{name}/{below}"), upstream.clone()))
    }

    /// Fetches a file into the cache, and to `live` on the way when its size is known.
    async fn fetch(
        &self,
        upstream: &Url,
        path: &Path,
        mut live: Option<&mut TcpStream>,
    ) -> Result<Fetched, Failure> {
        let parent = path.parent().ok_or("no parent")?;
        tokio::fs::create_dir_all(parent).await?;
        let temporary = tempfile::NamedTempFile::new_in(parent)?;
        // The scheme is asked first, because any URL of host `localhost` makes a file path.
        if upstream.scheme() == "file"
            && let Ok(local) = upstream.to_file_path()
        {
            if !local.is_file() {
                return Ok(Fetched::Missing);
            }
            tokio::fs::copy(local, temporary.path()).await?;
            temporary.persist(path)?;
            return Ok(Fetched::Stored);
        }
        let response = self.client.get(upstream.clone()).send().await?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Fetched::Missing);
        }
        let response = response.error_for_status()?;
        let size = response.content_length();
        if let (Some(size), Some(socket)) = (size, live.as_mut()) {
            socket.write_all(head("200 OK", size, "", "MISS").as_bytes()).await?;
        } else {
            live = None;
        }
        let streaming = live.is_some();
        let stored = store(response, temporary.reopen()?.into(), &mut live, size).await;
        match stored {
            Ok(()) => {
                temporary.persist(path)?;
                Ok(if streaming {
                    Fetched::Streamed { complete: live.is_some() }
                } else {
                    Fetched::Stored
                })
            }
            // The answer has begun: cutting it short is the only honest way to report.
            Err(error) if streaming => {
                eprintln!("caching_proxy: {}: {error}", path.display());
                Ok(Fetched::Streamed { complete: false })
            }
            Err(error) => Err(error),
        }
    }
}

/// Writes a response to disk and to the live client; a client that is gone becomes `None`.
async fn store(
    response: reqwest::Response,
    mut file: File,
    live: &mut Option<&mut TcpStream>,
    size: Option<u64>,
) -> Result<(), Failure> {
    let mut received = 0;
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        received += chunk.len() as u64;
        file.write_all(&chunk).await?;
        if let Some(socket) = live
            && socket.write_all(&chunk).await.is_err()
        {
            *live = None;
        }
    }
    file.flush().await?;
    match size {
        Some(size) if size != received => Err(format!("{received} of {size} bytes came").into()),
        _ => Ok(()),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.split('?').next()?.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

fn head(status: &str, size: u64, extra: &str, cache: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {size}\r\nContent-Type: application/octet-stream\r\n\
         Accept-Ranges: bytes\r\nX-Cache: {cache}\r\n{extra}\r\n"
    )
}

async fn plain(socket: &mut TcpStream, status: &str) -> io::Result<()> {
    let body = format!("{status}\n");
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(text.as_bytes()).await
}

async fn send_file(
    socket: &mut TcpStream,
    path: &Path,
    request: &Request,
    hit: bool,
) -> io::Result<()> {
    let mut file = File::open(path).await?;
    let size = file.metadata().await?.len();
    let cache = if hit { "HIT" } else { "MISS" };
    let (first, last) = match request.range {
        Some((first, last)) if first < size => {
            (first, last.map_or(size - 1, |last| last.min(size - 1)))
        }
        Some(_) => {
            let extra = format!("Content-Range: bytes */{size}\r\n");
            let text = head("416 Range Not Satisfiable", 0, &extra, cache);
            return socket.write_all(text.as_bytes()).await;
        }
        None => (0, size.saturating_sub(1)),
    };
    let length = if size == 0 { 0 } else { (last + 1).saturating_sub(first) };
    let text = if request.range.is_some() {
        let extra = format!("Content-Range: bytes {first}-{last}/{size}\r\n");
        head("206 Partial Content", length, &extra, cache)
    } else {
        head("200 OK", length, "", cache)
    };
    socket.write_all(text.as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(());
    }
    file.seek(io::SeekFrom::Start(first)).await?;
    let mut body = BufReader::with_capacity(1 << 17, file.take(length));
    tokio::io::copy_buf(&mut body, socket).await?;
    Ok(())
}
