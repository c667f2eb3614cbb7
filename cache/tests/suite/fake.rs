//! A registry on loopback that misbehaves to order, and in the ways that known registries do.
//!
//! One thread a connection; all repositories are in memory and share nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use drystone_store::digest::BlobDigest;
use serde_json::{Value, json};

/// What to do with a request instead of answering it well.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A status, header lines, and a body.
    Answer(u16, String, String),
    /// Answers well, but ends the connection after so many bytes of the body.
    Truncate(usize),
    /// Answers well, but is silent after so many bytes of the body.
    Stall(usize),
    /// Answers the whole content whatever part was asked for.
    IgnoreRange,
    /// Other content of the same length.
    Lie,
    /// Content that never ends, of unknown length.
    Endless,
    /// Takes so many bytes of what is sent, and hangs up.
    HangUp(usize),
    /// Does what is asked, and hangs up without saying so.
    LoseAnswer,
    /// Forgets the upload.
    Forget,
}

/// A fault for the next requests that it fits.
#[derive(Debug, Clone)]
struct Rule {
    method: &'static str,
    path: String,
    times: usize,
    fault: Fault,
}

/// How a known registry differs. From their documentation; none of them was asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profile {
    /// There is a referrers API, and pages of this many entries.
    pub referrers: Option<usize>,
    /// Mounts are made; else every one is answered 202, with an upload.
    pub mounts: bool,
    /// The location of an upload is relative.
    pub relative_location: bool,
    /// The most bytes of one request.
    pub most: Option<usize>,
    /// Deletes are allowed.
    pub deletes: bool,
    /// Every so many requests are answered 429.
    pub limit: Option<usize>,
    /// The entries of a page of tags.
    pub page: usize,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: usize,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    profile: Profile,
    repositories: BTreeMap<String, Repository>,
    uploads: BTreeMap<String, Vec<u8>>,
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    number: usize,
    /// User and password, if any are wanted: `Basic` of them, in base64.
    password: Option<String>,
    identity: Option<String>,
    tokens: BTreeSet<String>,
    token_life: u64,
}

/// The registry. Its threads end with the test process.
#[derive(Clone)]
pub struct Fake {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

enum Answer {
    Content { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    Fault(Fault, u16, Vec<(String, String)>, Vec<u8>),
    Close,
}

fn plain(status: u16) -> Answer {
    Answer::Content { status, headers: Vec::new(), body: Vec::new() }
}

fn with(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    Answer::Content { status, headers: headers.iter().map(own).collect(), body }
}

impl Fake {
    pub fn start(profile: Profile) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { profile, token_life: 300, ..State::default() };
        let fake = Self { port, state: Arc::new(Mutex::new(state)) };
        let shared = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = shared.clone();
                thread::spawn(move || fake.serve(stream));
            }
        });
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Wants tokens, given for a user and a password: `ann:hunter2` in base64, or an identity token.
    pub fn want_tokens(&self, life: u64) {
        let mut state = self.state();
        state.password = Some("YW5uOmh1bnRlcjI=".to_owned());
        state.identity = Some("long-lived".to_owned());
        state.token_life = life;
    }

    /// All tokens that were given are void.
    pub fn expire(&self) {
        self.state().tokens.clear();
    }

    /// Misbehaves at the next requests of this method whose path has this in it.
    pub fn fault(&self, method: &'static str, path: &str, times: usize, fault: Fault) {
        self.state().rules.push(Rule { method, path: path.to_owned(), times, fault });
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    pub fn put(&self, repository: &str, content: &[u8]) -> BlobDigest {
        let digest = BlobDigest::of(content);
        let mut state = self.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(digest.to_string(), content.to_vec());
        digest
    }

    pub fn blob(&self, repository: &str, digest: &BlobDigest) -> Option<Vec<u8>> {
        self.state().repositories.get(repository)?.blobs.get(&digest.to_string()).cloned()
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, content: &[u8]) {
        let digest = BlobDigest::of(content).to_string();
        let mut state = self.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        repository.manifests.insert(digest.clone(), (media_type, content.to_vec()));
        repository.tags.insert(tag.to_owned(), digest);
    }

    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some((seen, length)) = head(&mut reader) {
            let hang_up = self.state().take(&seen, |fault| matches!(fault, Fault::HangUp(_)));
            let most = match hang_up {
                Some(Fault::HangUp(most)) => most.min(length),
                _ => length,
            };
            let mut body = vec![0; most];
            if reader.read_exact(&mut body).is_err() {
                // The client went away: what came is gone.
                return;
            }
            let mut state = self.state();
            state.seen.push(Seen { body: most, ..seen.clone() });
            if hang_up.is_some() {
                state.partial(&seen, &body);
                return;
            }
            let answer = state.answer(&seen, body, self.port);
            drop(state);
            if !write(&mut stream, &seen, answer) {
                return;
            }
        }
    }
}

fn head(reader: &mut BufReader<TcpStream>) -> Option<(Seen, usize)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    Some((Seen { method, path, headers, body: 0 }, length))
}

/// Writes an answer; false when the connection has ended.
fn write(stream: &mut TcpStream, seen: &Seen, answer: Answer) -> bool {
    let (status, headers, body, fault) = match answer {
        Answer::Close => return false,
        Answer::Content { status, headers, body } => (status, headers, body, None),
        Answer::Fault(fault, status, headers, body) => (status, headers, body, Some(fault)),
    };
    let mut text = format!("HTTP/1.1 {status} X\r\n");
    let endless = matches!(fault, Some(Fault::Endless));
    if !headers.iter().any(|(name, _)| name == "Content-Length") && !endless {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in &headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    if stream.write_all(text.as_bytes()).is_err() {
        return false;
    }
    if seen.method == "HEAD" {
        return true;
    }
    match fault {
        Some(Fault::Truncate(most)) => {
            let _ = stream.write_all(&body[..most.min(body.len())]);
            false
        }
        Some(Fault::Stall(most)) => {
            let _ = stream.write_all(&body[..most.min(body.len())]);
            thread::sleep(Duration::from_secs(5));
            false
        }
        Some(Fault::Endless) => {
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
            false
        }
        _ => stream.write_all(&body).is_ok(),
    }
}

impl State {
    /// The first rule that fits, used up by one.
    fn take(&mut self, seen: &Seen, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let fits = |rule: &Rule| {
            rule.times > 0
                && rule.method == seen.method
                && seen.path.contains(&rule.path)
                && wanted(&rule.fault)
        };
        let rule = self.rules.iter_mut().find(|rule| fits(rule))?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    /// What came of an upload before the connection broke.
    fn partial(&mut self, seen: &Seen, body: &[u8]) {
        let path = seen.path.split('?').next().unwrap();
        let id = path.rsplit('/').next().unwrap();
        if let Some(upload) = self.uploads.get_mut(id) {
            upload.extend_from_slice(body);
        }
    }

    fn answer(&mut self, seen: &Seen, body: Vec<u8>, port: u16) -> Answer {
        self.number += 1;
        if seen.path.starts_with("/token") {
            return self.token(seen, &body);
        }
        let fault = self.take(seen, |_| true);
        if let Some(Fault::Answer(status, headers, text)) = fault {
            let lines = headers.lines().filter_map(|line| line.split_once(": "));
            return with(status, &lines.collect::<Vec<_>>(), text.into_bytes());
        }
        if let Some(every) = self.profile.limit
            && self.number.is_multiple_of(every)
        {
            return with(429, &[("Retry-After", "0")], Vec::new());
        }
        if self.password.is_some() {
            let token =
                seen.headers.get("authorization").and_then(|text| text.strip_prefix("Bearer "));
            if !token.is_some_and(|token| self.tokens.contains(token)) {
                let how = format!(
                    "Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"fake\",scope=\"x\""
                );
                return with(401, &[("WWW-Authenticate", &how)], Vec::new());
            }
        }
        if matches!(fault, Some(Fault::Forget)) {
            self.uploads.clear();
        }
        let ignores = matches!(fault, Some(Fault::IgnoreRange));
        let answer = self.well(seen, body, port, ignores);
        match (fault, answer) {
            (Some(Fault::LoseAnswer), _) => Answer::Close,
            (Some(Fault::Lie), Answer::Content { status, headers, mut body }) => {
                body.reverse();
                Answer::Content { status, headers, body }
            }
            (Some(fault), Answer::Content { status, headers, body }) => {
                Answer::Fault(fault, status, headers, body)
            }
            (_, answer) => answer,
        }
    }

    fn token(&mut self, seen: &Seen, body: &[u8]) -> Answer {
        let basic = self.password.as_ref().map(|password| format!("Basic {password}"));
        let good = match seen.method.as_str() {
            "POST" => {
                let text = String::from_utf8_lossy(body);
                text.contains("grant_type=refresh_token")
                    && text.contains(&format!("refresh_token={}", self.identity.as_ref().unwrap()))
            }
            _ => seen.headers.get("authorization") == basic.as_ref(),
        };
        if !good {
            let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]});
            return with(401, &[], body.to_string().into_bytes());
        }
        let token = format!("token-{}", self.number);
        self.tokens.insert(token.clone());
        let body = json!({"token": token, "expires_in": self.token_life});
        with(200, &[], body.to_string().into_bytes())
    }

    fn well(&mut self, seen: &Seen, body: Vec<u8>, port: u16, ignores_range: bool) -> Answer {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let Some(path) = path.strip_prefix("/v2/") else { return plain(404) };
        if path.is_empty() {
            return plain(200);
        }
        for (part, number) in [
            ("/blobs/uploads/", 0),
            ("/blobs/", 1),
            ("/manifests/", 2),
            ("/referrers/", 3),
            ("/tags/list", 4),
        ] {
            if let Some((name, rest)) = path.split_once(part) {
                let (name, rest) = (name.to_owned(), rest.to_owned());
                return match number {
                    0 => self.upload(seen, &name, &rest, &query, body, port),
                    1 => self.blobs(seen, &name, &rest, ignores_range),
                    2 => self.manifest(seen, &name, &rest, body),
                    3 => self.referrers(&name, &rest, &query),
                    _ => self.tags(&name, &query),
                };
            }
        }
        plain(404)
    }

    fn location(&self, name: &str, id: &str, port: u16) -> String {
        match self.profile.relative_location {
            true => format!("/v2/{name}/blobs/uploads/{id}?state=a%3Db"),
            false => format!("http://127.0.0.1:{port}/v2/{name}/blobs/uploads/{id}"),
        }
    }

    fn upload(
        &mut self,
        seen: &Seen,
        name: &str,
        id: &str,
        query: &BTreeMap<String, String>,
        body: Vec<u8>,
        port: u16,
    ) -> Answer {
        if seen.method == "POST" {
            if let (Some(digest), Some(from), true) =
                (query.get("mount"), query.get("from"), self.profile.mounts)
                && let Some(blob) =
                    self.repositories.get(from).and_then(|from| from.blobs.get(digest)).cloned()
            {
                let to = self.repositories.entry(name.to_owned()).or_default();
                to.blobs.insert(digest.clone(), blob);
                return with(201, &[("Docker-Content-Digest", digest)], Vec::new());
            }
            let id = format!("u{}", self.number);
            self.uploads.insert(id.clone(), Vec::new());
            return with(202, &[("Location", &self.location(name, &id, port))], Vec::new());
        }
        let location = self.location(name, id, port);
        let too_large = self.profile.most.is_some_and(|most| body.len() > most);
        let Some(upload) = self.uploads.get_mut(id) else { return plain(404) };
        if too_large {
            return plain(413);
        }
        match seen.method.as_str() {
            "GET" => {
                let range = format!("0-{}", upload.len().saturating_sub(1));
                with(204, &[("Location", &location), ("Range", &range)], Vec::new())
            }
            "PATCH" => {
                let start =
                    seen.headers.get("content-range").and_then(|range| range.split_once('-'));
                if start.is_some_and(|(start, _)| start != upload.len().to_string()) {
                    return plain(416);
                }
                upload.extend(body);
                with(202, &[("Location", &location)], Vec::new())
            }
            "PUT" => {
                upload.extend(body);
                let content = self.uploads.remove(id).unwrap();
                let digest = BlobDigest::of(&content).to_string();
                if query.get("digest") != Some(&digest) {
                    return plain(400);
                }
                let repository = self.repositories.entry(name.to_owned()).or_default();
                repository.blobs.insert(digest.clone(), content);
                with(201, &[("Docker-Content-Digest", &digest)], Vec::new())
            }
            "DELETE" => {
                self.uploads.remove(id);
                plain(204)
            }
            _ => plain(405),
        }
    }

    fn blobs(&mut self, seen: &Seen, name: &str, digest: &str, ignores_range: bool) -> Answer {
        let deletes = self.profile.deletes;
        let repository = self.repositories.entry(name.to_owned()).or_default();
        if seen.method == "DELETE" {
            return match (deletes, repository.blobs.remove(digest)) {
                (false, _) => plain(405),
                (true, Some(_)) => plain(202),
                (true, None) => plain(404),
            };
        }
        let Some(blob) = repository.blobs.get(digest) else { return plain(404) };
        if seen.method == "HEAD" {
            return with(200, &[("Content-Length", &blob.len().to_string())], Vec::new());
        }
        let range = seen.headers.get("range").and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        match range.filter(|start| *start < blob.len() && !ignores_range) {
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
                with(206, &[("Content-Range", &range)], blob[start..].to_vec())
            }
            None => with(200, &[], blob.clone()),
        }
    }

    fn manifest(&mut self, seen: &Seen, name: &str, target: &str, body: Vec<u8>) -> Answer {
        let profile = self.profile;
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let named = repository.tags.get(target).cloned();
        let digest = named.unwrap_or_else(|| target.to_owned());
        match seen.method.as_str() {
            "PUT" => {
                let digest = BlobDigest::of(&body).to_string();
                let media_type = seen.headers["content-type"].clone();
                let subject: Option<Value> = serde_json::from_slice(&body).ok();
                let subject =
                    subject.and_then(|one| Some(one["subject"]["digest"].as_str()?.to_owned()));
                repository.manifests.insert(digest.clone(), (media_type, body));
                if !target.starts_with("sha256:") {
                    repository.tags.insert(target.to_owned(), digest.clone());
                }
                let mut headers = vec![("Docker-Content-Digest", digest.as_str())];
                if let (Some(subject), Some(_)) = (&subject, profile.referrers) {
                    headers.push(("OCI-Subject", subject));
                }
                with(201, &headers, Vec::new())
            }
            "DELETE" if !profile.deletes => plain(405),
            "DELETE" => match repository.manifests.remove(&digest) {
                Some(_) => {
                    repository.tags.retain(|_, tagged| *tagged != digest);
                    plain(202)
                }
                None => plain(404),
            },
            _ => match repository.manifests.get(&digest) {
                Some((media_type, bytes)) => {
                    let headers =
                        [("Content-Type", media_type.as_str()), ("Docker-Content-Digest", &digest)];
                    with(200, &headers, bytes.clone())
                }
                None => plain(404),
            },
        }
    }

    fn referrers(&mut self, name: &str, subject: &str, query: &BTreeMap<String, String>) -> Answer {
        let Some(page) = self.profile.referrers else { return plain(404) };
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let all = repository.manifests.iter().filter_map(|(digest, (media_type, bytes))| {
            let manifest: Value = serde_json::from_slice(bytes).ok()?;
            (manifest["subject"]["digest"] == subject).then(|| {
                json!({"mediaType": media_type, "digest": digest, "size": bytes.len(),
                       "artifactType": manifest["artifactType"],
                       "annotations": manifest["annotations"]})
            })
        });
        let all: Vec<Value> = all.collect();
        let start: usize = query.get("start").map_or(0, |start| start.parse().unwrap());
        let end = (start + page).min(all.len());
        let list = json!({"schemaVersion": 2, "manifests": all[start..end]});
        let next = format!("</v2/{name}/referrers/{subject}?start={end}>; rel=\"next\"");
        let headers = [("Link", next.as_str())];
        let headers = if end < all.len() { &headers[..] } else { &[] };
        with(200, headers, list.to_string().into_bytes())
    }

    fn tags(&mut self, name: &str, query: &BTreeMap<String, String>) -> Answer {
        let page = self.profile.page.max(1);
        let Some(repository) = self.repositories.get(name) else { return plain(404) };
        let last = query.get("last").cloned().unwrap_or_default();
        let rest: Vec<&String> = repository.tags.keys().filter(|tag| **tag > last).collect();
        let shown = &rest[..page.min(rest.len())];
        let list = json!({"name": name, "tags": shown});
        let next = shown
            .last()
            .map(|last| format!("</v2/{name}/tags/list?last={last}&n={page}>; rel=\"next\""));
        let headers = next.as_deref().map(|next| [("Link", next)]);
        let headers = headers.as_ref().filter(|_| shown.len() < rest.len());
        with(200, headers.map_or(&[], |headers| &headers[..]), list.to_string().into_bytes())
    }
}
