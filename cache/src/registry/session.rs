//! One registry: connections, attempts, bounds on how much happens at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use drystone_http::retry::{backoff, is_transient, retry_after};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::access::{Access, Scope};
use super::{Settings, shown};
use crate::error::RegistryError;
use crate::reference::Host;
use crate::traffic::{Kind, Traffic};

/// The most bytes of an answer that only explains a failure.
const MOST_EXPLANATION: u64 = 64 << 10;
/// How many small requests are made in the place of one transfer: they mostly wait for the registry.
const SMALL: usize = 4;

/// A registry and all that is known of it.
pub(super) struct Session {
    pub(super) host: Host,
    pub(super) settings: Arc<Settings>,
    pub(super) traffic: Traffic,
    client: OnceLock<Client>,
    base: OnceCell<Url>,
    access: Access,
    small: Arc<Semaphore>,
    /// Transfers have bounds of their own, one for each direction: a copy within one registry
    /// holds one of each, so one bound for both would let copies wait for each other for ever.
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

/// Which bound a request counts against.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Small,
    Read,
    Write,
}

/// What is sent with a request.
pub(super) enum Content {
    Nothing,
    Bytes(Bytes),
    /// Bytes that can be sent only once, and how many.
    Once(reqwest::Body, u64),
}

/// A request that is to be sent.
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) bound: Bound,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) scope: Scope,
    /// Moves while content is sent.
    pub(super) motion: Motion,
}

impl Ask {
    pub(super) fn new(kind: Kind, method: Method, url: Url, scope: Scope) -> Self {
        Self {
            kind,
            bound: Bound::Small,
            method,
            url,
            headers: HeaderMap::new(),
            content: Content::Nothing,
            scope,
            motion: Motion::new(),
        }
    }

    pub(super) fn header(mut self, name: reqwest::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn content(mut self, media_type: &str, content: Content) -> Self {
        self.content = content;
        self.header(CONTENT_TYPE, media_type)
    }

    pub(super) const fn bound(mut self, bound: Bound) -> Self {
        self.bound = bound;
        self
    }
}

/// When something last moved.
#[derive(Clone)]
pub(super) struct Motion {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Motion {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }

    pub(super) fn moved(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(elapsed, Relaxed);
    }

    fn silence(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }

    /// The result, unless nothing moves for so long.
    async fn watch<T>(&self, idle: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(future);
        loop {
            let left = idle.saturating_sub(self.silence());
            tokio::select! {
                result = &mut future => return Some(result),
                () = tokio::time::sleep(left.max(Duration::from_millis(1))) => {
                    if self.silence() >= idle {
                        return None;
                    }
                }
            }
        }
    }
}

/// An answer, and the place among others that it holds until its body is read.
pub(super) struct Reply {
    pub(super) response: Response,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// An attempt that brought nothing, and whether another one may.
pub(super) struct Attempt {
    pub(super) error: RegistryError,
    pub(super) again: bool,
    pub(super) wait: Option<Duration>,
}

impl Session {
    pub(super) fn new(host: Host, settings: Arc<Settings>, traffic: Traffic) -> Self {
        let parallel = settings.parallel.max(1);
        let bound = |count| Arc::new(Semaphore::new(count));
        let access = Access::new(host.clone(), settings.credentials.clone());
        Self {
            small: bound(parallel * SMALL),
            reads: bound(parallel),
            writes: bound(parallel),
            host,
            settings,
            traffic,
            client: OnceLock::new(),
            base: OnceCell::new(),
            access,
        }
    }

    /// Sends until there is an answer that is not a passing failure. 401 is answered with what the
    /// registry wants; every other status is for the caller.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Reply, RegistryError> {
        let mut vain = 0;
        loop {
            let failed = match self.attempt(ask).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            vain += 1;
            self.pause(failed, vain).await?;
        }
    }

    /// Waits before the next attempt, or gives up: `vain` attempts in a row brought nothing.
    pub(super) async fn pause(&self, failed: Attempt, vain: u32) -> Result<(), RegistryError> {
        let Settings { first_pause, longest_pause, .. } = *self.settings;
        let pause = failed.wait.unwrap_or_default().max(backoff(first_pause, longest_pause, vain));
        if !failed.again
            || vain >= self.settings.attempts
            || failed.wait.is_some_and(|wait| wait > self.settings.longest_pause)
        {
            return Err(failed.error);
        }
        tracing::debug!(error = %failed.error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends once, or twice where the registry first wants credentials.
    pub(super) async fn attempt(&self, ask: &Ask) -> Result<Reply, Attempt> {
        let bound = match ask.bound {
            Bound::Small => &self.small,
            Bound::Read => &self.reads,
            Bound::Write => &self.writes,
        };
        let permit = Arc::clone(bound).acquire_owned().await.expect("it is never closed");
        let mut tried = false;
        loop {
            let (content, replayable) = match &ask.content {
                Content::Nothing => (None, true),
                Content::Bytes(bytes) => (Some((bytes.clone().into(), bytes.len() as u64)), true),
                Content::Once(..) => return Err(final_error(once_only(&ask.url))),
            };
            let response = self.exchange(ask, content).await?;
            match self.judge(ask, response, tried && replayable).await? {
                Some(response) => return Ok(Reply { response, _permit: permit }),
                None => tried = true,
            }
        }
    }

    /// Sends content that can be sent only once.
    pub(super) async fn attempt_once(&self, mut ask: Ask) -> Result<Reply, Attempt> {
        let permit = Arc::clone(&self.writes).acquire_owned().await.expect("it is never closed");
        let Content::Once(body, length) = std::mem::replace(&mut ask.content, Content::Nothing)
        else {
            return Err(final_error(once_only(&ask.url)));
        };
        let response = self.exchange(&ask, Some((body, length))).await?;
        match self.judge(&ask, response, false).await? {
            Some(response) => Ok(Reply { response, _permit: permit }),
            // The access is new; the content has to be opened anew.
            None => Err(Attempt {
                error: denied(&ask.url, 401, String::new()),
                again: true,
                wait: Some(Duration::ZERO),
            }),
        }
    }

    async fn exchange(
        &self,
        ask: &Ask,
        content: Option<(reqwest::Body, u64)>,
    ) -> Result<Response, Attempt> {
        let own = self.is_own(&ask.url).await.map_err(final_error)?;
        let client = self.client().map_err(final_error)?;
        let mut request = client.request(ask.method.clone(), ask.url.clone());
        request = request.headers(ask.headers.clone());
        // Credentials are the registry's own; uploads and redirects may lead elsewhere.
        if own && let Some(header) = self.authorization(&ask.scope).await? {
            request = request.header(reqwest::header::AUTHORIZATION, header);
        }
        match content {
            Some((body, length)) => request = request.header(CONTENT_LENGTH, length).body(body),
            None if matches!(ask.method, Method::POST | Method::PUT | Method::PATCH) => {
                request = request.header(CONTENT_LENGTH, 0);
            }
            None => {}
        }
        self.traffic.request(ask.kind);
        ask.motion.moved();
        let idle = self.settings.idle_timeout;
        match ask.motion.watch(idle, request.send()).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) => Err(transport(&ask.url, error)),
            None => Err(stalled(&ask.url, idle)),
        }
    }

    async fn authorization(&self, scope: &Scope) -> Result<Option<HeaderValue>, Attempt> {
        // Attempts at the token server are counted there.
        let authorization = self.access.authorization(self, scope).await;
        authorization.map_err(final_error)
    }

    /// Sorts an answer: `None` asks for another attempt with new access.
    async fn judge(
        &self,
        ask: &Ask,
        response: Response,
        tried: bool,
    ) -> Result<Option<Response>, Attempt> {
        let status = response.status();
        let code = status.as_u16();
        if status == StatusCode::UNAUTHORIZED {
            // What a host says that a redirect led to must not make us log in anywhere.
            let own = self.is_own(response.url()).await.map_err(final_error)?;
            let renewed = own
                && !tried
                && self
                    .access
                    .renew(self, &ask.scope, response.headers())
                    .await
                    .map_err(final_error)?;
            return match renewed {
                true => Ok(None),
                false => {
                    let message = self.explanation(response).await;
                    Err(final_error(denied(&ask.url, code, message)))
                }
            };
        }
        if is_transient(code) {
            let wait = retry_after(response.headers());
            let message = self.explanation(response).await;
            let error = RegistryError::Status { place: shown(&ask.url), status: code, message };
            return Err(Attempt { error, again: true, wait });
        }
        Ok(Some(response))
    }

    /// An error for an answer that means failure.
    pub(super) async fn refused(&self, url: &Url, reply: Reply) -> RegistryError {
        let status = reply.status().as_u16();
        let message = self.explanation(reply.response).await;
        match status {
            401 | 403 => denied(url, status, message),
            _ => RegistryError::Status { place: shown(url), status, message },
        }
    }

    async fn explanation(&self, response: Response) -> String {
        let read = self.read(response, MOST_EXPLANATION, Kind::Authentication);
        explain(&read.await.unwrap_or_default())
    }

    /// Reads a small answer.
    pub(super) async fn read(
        &self,
        mut response: Response,
        limit: u64,
        kind: Kind,
    ) -> Result<Bytes, RegistryError> {
        let url = response.url().clone();
        let too_large = || RegistryError::TooLarge { place: shown(&url), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let idle = self.settings.idle_timeout;
        let mut all = BytesMut::new();
        loop {
            match tokio::time::timeout(idle, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    if (all.len() + chunk.len()) as u64 > limit {
                        return Err(too_large());
                    }
                    self.traffic.received(kind, chunk.len() as u64);
                    all.extend_from_slice(&chunk);
                }
                Ok(Ok(None)) => return Ok(all.freeze()),
                Ok(Err(error)) => return Err(transport(&url, error).error),
                Err(_) => return Err(stalled(&url, idle).error),
            }
        }
    }

    /// Sends and reads a small answer, both again if the connection breaks; `None` for 404.
    pub(super) async fn fetch(
        &self,
        ask: &Ask,
        limit: u64,
    ) -> Result<Option<(HeaderMap, Bytes)>, RegistryError> {
        let mut vain = 0;
        loop {
            let reply = self.send(ask).await?;
            match reply.status() {
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::OK => {}
                _ => return Err(self.refused(&ask.url, reply).await),
            }
            let headers = reply.response.headers().clone();
            let error = match self.read(reply.response, limit, ask.kind).await {
                Ok(bytes) => return Ok(Some((headers, bytes))),
                Err(error) => error,
            };
            vain += 1;
            let again = is_passing(&error);
            self.pause(Attempt { error, again, wait: None }, vain).await?;
        }
    }

    /// The address that all paths are joined to. On this machine, and where the user allows it,
    /// plain HTTP is tried first.
    pub(super) async fn base(&self) -> Result<&Url, RegistryError> {
        self.base.get_or_try_init(|| self.find_base()).await
    }

    async fn find_base(&self) -> Result<Url, RegistryError> {
        let secure = self.address("https")?;
        if !self.may_be_plain() {
            return Ok(secure);
        }
        let plain = self.address("http")?;
        match self.ping(&plain).await {
            // How servers with TLS answer plain requests; others hang up.
            Ok(StatusCode::BAD_REQUEST) => Ok(secure),
            Ok(_) => Ok(plain),
            Err(_) => match self.ping(&secure).await {
                Ok(_) => Ok(secure),
                Err(_) => Ok(plain),
            },
        }
    }

    fn address(&self, scheme: &str) -> Result<Url, RegistryError> {
        let text = format!("{scheme}://{}/v2/", self.host.server());
        Url::parse(&text).map_err(|error| RegistryError::Malformed {
            place: self.host.to_string(),
            reason: error.to_string(),
        })
    }

    async fn ping(&self, url: &Url) -> Result<StatusCode, reqwest::Error> {
        let Ok(client) = self.client() else { return Ok(StatusCode::OK) };
        self.traffic.request(Kind::Authentication);
        let timeout = self.settings.connect_timeout;
        let response = client.get(url.clone()).timeout(timeout).send().await?;
        self.access.learn(response.headers(), response.status());
        Ok(response.status())
    }

    pub(super) fn may_be_plain(&self) -> bool {
        self.host.is_loopback() || self.settings.insecure.contains(&self.host)
    }

    /// Whether an address is the registry's own: credentials are sent to no other.
    async fn is_own(&self, url: &Url) -> Result<bool, RegistryError> {
        Ok(self.base().await?.origin() == url.origin())
    }

    /// Asks whether the registry accepts us.
    pub(super) async fn check(&self) -> Result<(), RegistryError> {
        let url = self.base().await?.clone();
        let ask = Ask::new(Kind::Authentication, Method::GET, url.clone(), Scope::default());
        let reply = self.send(&ask).await?;
        match reply.status() {
            StatusCode::OK => self.access.prove(self).await,
            _ => Err(self.refused(&url, reply).await),
        }
    }

    /// A client for the registry and its token server. Its TLS uses ring, and the host's
    /// certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` included).
    pub(super) fn client(&self) -> Result<Client, RegistryError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = client(&self.settings)?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

fn client(settings: &Settings) -> Result<Client, RegistryError> {
    let options = drystone_http::Options {
        connect_timeout: settings.connect_timeout,
        // What bounds a request is the time in which nothing moves in either direction.
        read_timeout: None,
        proxies: settings.proxies,
    };
    drystone_http::client(options).map_err(|source| RegistryError::Client { source })
}

/// Whether another attempt may go better.
pub(super) fn is_passing(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Transport { .. }
            | RegistryError::Stalled { .. }
            | RegistryError::Truncated { .. }
    )
}

pub(super) fn transport(url: &Url, error: reqwest::Error) -> Attempt {
    let hopeless = error.is_redirect() || error.is_builder();
    let source = error.without_url();
    let error = RegistryError::Transport { place: shown(url), source };
    Attempt { error, again: !hopeless, wait: None }
}

pub(super) fn stalled(url: &Url, idle: Duration) -> Attempt {
    let error = RegistryError::Stalled { place: shown(url), seconds: idle.as_secs() };
    Attempt { error, again: true, wait: None }
}

fn final_error(error: RegistryError) -> Attempt {
    Attempt { error, again: false, wait: None }
}

fn denied(url: &Url, status: u16, message: String) -> RegistryError {
    RegistryError::Denied { place: shown(url), status, message }
}

fn once_only(url: &Url) -> RegistryError {
    let reason = "content that can be sent once was to be repeated".to_owned();
    RegistryError::Malformed { place: shown(url), reason }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words, in one short line.
pub(super) fn explain(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => match errors.first() {
            Some(error) if error.message.is_empty() => error.code.clone(),
            Some(error) => error.message.clone(),
            None => String::new(),
        },
        Err(_) => match std::str::from_utf8(body) {
            // A page of HTML explains nothing here.
            Ok(text) if !text.trim_start().starts_with('<') => {
                text.lines().next().unwrap_or_default().to_owned()
            }
            _ => String::new(),
        },
    };
    text.chars().filter(|character| !character.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_are_one_short_line() {
        let json = br#"{"errors":[{"code":"DENIED","message":"not\u001b[31m yours"}]}"#;
        assert_eq!(explain(json), "not[31m yours");
        assert_eq!(explain(br#"{"errors":[{"code":"DENIED"}]}"#), "DENIED");
        assert_eq!(explain(b"404 page not found\nmore"), "404 page not found");
        assert_eq!(explain(b"<html>"), "");
        assert_eq!(explain(&[0xff]), "");
        assert_eq!(explain("x".repeat(1000).as_bytes()).len(), 300);
    }

    #[tokio::test]
    async fn silence_ends_and_motion_does_not() {
        let idle = Duration::from_millis(60);
        let motion = Motion::new();
        assert!(motion.watch(idle, std::future::pending::<()>()).await.is_none());
        let motion = Motion::new();
        let moving = motion.clone();
        let work = async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                moving.moved();
            }
        };
        assert!(motion.watch(idle, work).await.is_some());
    }
}
