//! A small HTTP server on loopback that misbehaves to order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use url::Url;

/// How to answer one request. Without one, a path is answered well, ranges included.
#[derive(Debug, Clone)]
pub enum Answer {
    /// All of it, well.
    Whole,
    /// Announces everything, sends so many bytes, closes.
    Truncate(usize),
    /// Announces nothing (close ends the answer), sends so many bytes.
    CloseDelimited(usize),
    /// Announces everything, sends so many bytes, resets the connection.
    Reset(usize),
    /// Announces everything, sends so many bytes, then nothing for a while.
    Stall(usize),
    /// A status without content, with header lines.
    Status(u16, &'static str),
    /// Other bytes than the file's.
    Lie(Vec<u8>),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// A redirect.
    Redirect(String),
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    scripts: BTreeMap<String, VecDeque<Answer>>,
    requests: Vec<Request>,
    now: usize,
    most: usize,
}

/// The server. Its threads end with the test process.
pub struct TestServer {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl TestServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { port, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Offers a file; the path starts with `/`.
    pub fn put(&self, path: &str, content: impl Into<Vec<u8>>) -> Url {
        self.state().files.insert(path.to_owned(), content.into());
        self.url(path)
    }

    /// Sets the next answers for a path.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state().scripts.insert(path.to_owned(), answers.into_iter().collect());
    }

    pub fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The most requests that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.state().most
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        let (content, answer) = {
            let mut state = state.lock().unwrap();
            state.now += 1;
            state.most = state.most.max(state.now);
            let content = state.files.get(&request.path).cloned();
            let script = state.scripts.get_mut(&request.path);
            let answer = script.and_then(VecDeque::pop_front).unwrap_or(Answer::Whole);
            state.requests.push(request.clone());
            (content, answer)
        };
        let kept = respond(&stream, &request, content, &answer);
        state.lock().unwrap().now -= 1;
        if !kept {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Some(Request { path, headers })
}

/// Answers; false when the connection is to be closed.
fn respond(
    mut stream: &TcpStream,
    request: &Request,
    content: Option<Vec<u8>>,
    answer: &Answer,
) -> bool {
    let mut send = |head: &str, body: &[u8]| {
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        sent.and_then(|()| stream.flush()).is_ok()
    };
    let whole = content.clone().unwrap_or_default();
    let announced =
        format!("HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {}\r\n\r\n", whole.len());
    let part = |count: &usize| whole[..(*count).min(whole.len())].to_vec();
    match answer {
        Answer::Status(status, lines) => {
            send(&format!("HTTP/1.1 {status} x\r\n{lines}Content-Length: 0\r\n\r\n"), b"")
        }
        Answer::Redirect(to) => {
            send(&format!("HTTP/1.1 302 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"), b"")
        }
        Answer::Lie(body) => {
            send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()), body)
        }
        Answer::CloseDelimited(count) => {
            send("HTTP/1.0 200 OK\r\n\r\n", &part(count));
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
        Answer::IgnoreRange => send(&announced, &whole),
        Answer::Whole => well(&mut send, request, content),
        Answer::Truncate(count) | Answer::Stall(count) | Answer::Reset(count) => {
            send(&announced, &part(count));
            match answer {
                Answer::Stall(_) => thread::sleep(Duration::from_secs(3)),
                Answer::Reset(_) => {
                    thread::sleep(Duration::from_millis(50));
                    // A zero linger time makes the close a reset.
                    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                }
                _ => {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
            }
            false
        }
    }
}

fn well(
    send: &mut impl FnMut(&str, &[u8]) -> bool,
    request: &Request,
    content: Option<Vec<u8>>,
) -> bool {
    let Some(content) = content else {
        return send("HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", b"");
    };
    let range = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let size = content.len();
    match range {
        Some(first) if first < size => send(
            &format!(
                "HTTP/1.1 206 x\r\nETag: \"one\"\r\nContent-Range: bytes {first}-{}/{size}\r\n\
                 Content-Length: {}\r\n\r\n",
                size - 1,
                size - first
            ),
            &content[first..],
        ),
        Some(_) => send("HTTP/1.1 416 x\r\nContent-Length: 0\r\n\r\n", b""),
        None => send(
            &format!("HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {size}\r\n\r\n"),
            &content,
        ),
    }
}
