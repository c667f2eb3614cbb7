//! Writing a blob: mounted if possible, sent in one piece, continued where it broke off.
//!
//! ```text
//! POST uploads ──> PUT all ──(broke)──> GET where it is ──> PATCH the rest ──> PUT the digest
//!                     │                        └─ gone: HEAD, then POST again
//!                     └─(413: too large)──> PATCH piece by piece ──> PUT the digest
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{CONTENT_RANGE, LOCATION};
use reqwest::{Method, StatusCode};
use url::Url;

use super::access::Scope;
use super::remote::Remote;
use super::session::{Attempt, Bound, Content, Reply, is_passing};
use super::shown;
use crate::error::RegistryError;
use crate::folder;
use crate::reference::RepositoryName;
use crate::repository::{Source, Stored, Upload};
use crate::stream::{self, BlobStream};
use crate::traffic::Kind;

/// Pieces for registries that refuse large requests.
const PIECE: u64 = 16 << 20;
/// Beginnings of one upload, successful ones included.
const MOST_ATTEMPTS: u32 = 30;
const BLOB: &str = "application/octet-stream";

/// An upload that the registry has opened.
struct Open {
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
}

/// What one attempt to send led to.
enum Sent {
    /// The blob is there.
    Done,
    /// The registry wants smaller pieces.
    TooLarge,
}

impl Remote {
    /// Writes a blob unless it is there.
    pub(super) async fn upload(&self, upload: &Upload) -> Result<Stored, RegistryError> {
        if self.has(&upload.digest).await? {
            return Ok(Stored::Existed);
        }
        let mut open = None;
        for from in upload.mounts.iter().filter(|from| **from != *self.name()) {
            match self.try_mount(&upload.digest, from).await? {
                Mounted::Yes => return Ok(Stored::Mounted { from: from.clone() }),
                // An upload that was opened instead is continued.
                Mounted::Opened(url) => open = Some(Open { url, offset: 0 }),
                Mounted::No => {}
            }
        }
        self.transfer(upload, open).await?;
        Ok(Stored::Pushed)
    }

    /// Asks for a mount, and gives up the upload that the registry may open instead.
    pub(super) async fn mount_only(
        &self,
        digest: &BlobDigest,
        from: &RepositoryName,
    ) -> Result<bool, RegistryError> {
        match self.try_mount(digest, from).await? {
            Mounted::Yes => Ok(true),
            Mounted::No => Ok(false),
            Mounted::Opened(url) => {
                let ask = self.ask(Kind::BlobWrite, Method::DELETE, url, Scope::push(self.name()));
                // The registry forgets it sooner or later, if it does not want to be told.
                let _ = self.session().attempt(&ask).await;
                Ok(false)
            }
        }
    }

    async fn try_mount(
        &self,
        digest: &BlobDigest,
        from: &RepositoryName,
    ) -> Result<Mounted, RegistryError> {
        let mut url = self.url("blobs/uploads/").await?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.as_str());
        let scope = Scope::push(self.name()).reading(from);
        let ask = self.ask(Kind::BlobWrite, Method::POST, url.clone(), scope);
        let reply = match self.session().send(&ask).await {
            Ok(reply) => reply,
            // No right to read the other repository is no reason not to send the bytes.
            Err(RegistryError::Denied { .. }) => return Ok(Mounted::No),
            Err(error) => return Err(error),
        };
        match reply.status() {
            StatusCode::CREATED => {
                check_stored(&url, &reply, digest)?;
                Ok(Mounted::Yes)
            }
            StatusCode::ACCEPTED => Ok(Mounted::Opened(self.location_of(&url, &reply)?)),
            _ => Ok(Mounted::No),
        }
    }

    async fn transfer(&self, upload: &Upload, mut open: Option<Open>) -> Result<(), RegistryError> {
        let (mut vain, mut most) = (0, u64::MAX);
        for _ in 0..MOST_ATTEMPTS {
            let mut present = match open.take() {
                Some(open) => open,
                None => Open { url: self.open().await?, offset: 0 },
            };
            let before = present.offset;
            let failed = match self.send_rest(upload, &mut present, most).await {
                Ok(Sent::Done) => return Ok(()),
                Ok(Sent::TooLarge) if most > PIECE => {
                    most = PIECE;
                    continue;
                }
                Ok(Sent::TooLarge) => {
                    let place = shown(&present.url);
                    let message = "even small pieces are too large".to_owned();
                    return Err(RegistryError::Status { place, status: 413, message });
                }
                Err(failed) => failed,
            };
            tracing::debug!(digest = %upload.digest, error = %failed.error, "upload broke off");
            vain += 1;
            self.session().pause(failed, vain).await?;
            // The answer may have been lost and not the blob.
            if self.has(&upload.digest).await? {
                return Ok(());
            }
            open = self.resume(&present, upload.size).await;
            if open.as_ref().is_some_and(|open| open.offset > before) {
                vain = 0;
            }
        }
        let place = shown(&self.url("blobs/uploads/").await?);
        Err(RegistryError::Truncated { place, expected: upload.size, actual: 0 })
    }

    async fn open(&self) -> Result<Url, RegistryError> {
        let url = self.url("blobs/uploads/").await?;
        let scope = Scope::push(self.name());
        let ask = self.ask(Kind::BlobWrite, Method::POST, url.clone(), scope);
        let reply = self.session().send(&ask).await?;
        match reply.status() {
            StatusCode::ACCEPTED => self.location_of(&url, &reply),
            _ => Err(self.session().refused(&url, reply).await),
        }
    }

    /// Asks how far an upload came; `None` when it must begin anew.
    async fn resume(&self, open: &Open, size: u64) -> Option<Open> {
        let scope = Scope::push(self.name());
        let ask = self.ask(Kind::BlobWrite, Method::GET, open.url.clone(), scope);
        let reply = self.session().send(&ask).await.ok()?;
        if !reply.status().is_success() {
            return None;
        }
        let url = self.location_of(&open.url, &reply).unwrap_or_else(|_| open.url.clone());
        let offset = range_end(&reply).filter(|offset| *offset <= size)?;
        Some(Open { url, offset })
    }

    /// Sends what the registry lacks.
    async fn send_rest(
        &self,
        upload: &Upload,
        open: &mut Open,
        most: u64,
    ) -> Result<Sent, Attempt> {
        if open.offset == 0 && upload.size <= most {
            return self.put_all(upload, open).await;
        }
        while open.offset < upload.size {
            let length = (upload.size - open.offset).min(most);
            if !self.patch(upload, open, length).await? {
                return Ok(Sent::TooLarge);
            }
        }
        let url = with_digest(&open.url, &upload.digest);
        let scope = Scope::push(self.name());
        let ask = self.ask(Kind::BlobWrite, Method::PUT, url, scope);
        let reply = self.session().attempt(&ask).await?;
        self.finished(upload, &open.url, reply).await
    }

    async fn put_all(&self, upload: &Upload, open: &Open) -> Result<Sent, Attempt> {
        let url = with_digest(&open.url, &upload.digest);
        let reply = self.push(Method::PUT, url, upload, 0, upload.size, None).await?;
        self.finished(upload, &open.url, reply).await
    }

    /// Sends one piece; `false` when it is too large for the registry.
    async fn patch(&self, upload: &Upload, open: &mut Open, length: u64) -> Result<bool, Attempt> {
        let range = format!("{}-{}", open.offset, open.offset + length - 1);
        let (url, offset) = (open.url.clone(), open.offset);
        let reply =
            self.push(Method::PATCH, url.clone(), upload, offset, length, Some(range)).await?;
        match reply.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Ok(false),
            status if status.is_success() => {
                open.url = self.location_of(&url, &reply).map_err(failure)?;
                open.offset += length;
                Ok(true)
            }
            _ => Err(self.refusal(&url, reply).await),
        }
    }

    async fn finished(&self, upload: &Upload, url: &Url, reply: Reply) -> Result<Sent, Attempt> {
        match reply.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => {
                check_stored(url, &reply, &upload.digest).map_err(failure)?;
                Ok(Sent::Done)
            }
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Sent::TooLarge),
            StatusCode::BAD_REQUEST => {
                let refusal = self.refusal(url, reply).await;
                // Either the bytes were wrong here, or the registry got others.
                match blame(upload).await {
                    Some(error) => Err(failure(error)),
                    None => Err(refusal),
                }
            }
            _ => Err(self.refusal(url, reply).await),
        }
    }

    /// An upload that the registry knows no more, or thinks is elsewhere, may begin anew.
    async fn refusal(&self, url: &Url, reply: Reply) -> Attempt {
        let again = matches!(
            reply.status(),
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST
        );
        Attempt { error: self.session().refused(url, reply).await, again, wait: None }
    }

    /// Sends a part of a blob with one request.
    async fn push(
        &self,
        method: Method,
        url: Url,
        upload: &Upload,
        offset: u64,
        length: u64,
        range: Option<String>,
    ) -> Result<Reply, Attempt> {
        let scope = Scope::push(self.name());
        let mut ask = self.ask(Kind::BlobWrite, method, url.clone(), scope).bound(Bound::Write);
        if let Some(range) = &range {
            ask = ask.header(CONTENT_RANGE, range);
        }
        let place = shown(&url);
        let source = match self.source(upload, offset, &place).await {
            Ok(source) => source,
            Err(error) => return Err(failure(error)),
        };
        let trouble = Arc::new(Mutex::new(None));
        let (seen, motion) = (Arc::clone(&trouble), ask.motion.clone());
        let traffic = self.session().traffic.clone();
        let pieces = exactly(source, length, place.clone(), upload.digest)
            .inspect_ok(move |piece: &Bytes| {
                motion.moved();
                traffic.sent(Kind::BlobWrite, piece.len() as u64);
            })
            .map_err(move |error| {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                std::io::Error::other("the source failed")
            });
        let body = reqwest::Body::wrap_stream(pieces);
        let ask = ask.content(BLOB, Content::Once(body, length));
        let result = self.session().attempt_once(ask).await;
        // A source that failed explains all that followed.
        let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        match trouble {
            Some(error) => {
                // Another repository may stumble and stand up again; a file does not.
                let again = is_passing(&error);
                let source = Box::new(error);
                Err(Attempt { error: RegistryError::Source { place, source }, again, wait: None })
            }
            None => result,
        }
    }

    /// The blob from an offset.
    async fn source(
        &self,
        upload: &Upload,
        offset: u64,
        place: &str,
    ) -> Result<BlobStream, RegistryError> {
        match &upload.source {
            Source::File(path) => Ok(stream::from_file(path.clone(), offset)),
            source => {
                let whole = folder::open(source, upload.digest, upload.size, place).await?;
                Ok(stream::skip(whole, offset))
            }
        }
    }

    /// The address of an upload, as the registry gives it.
    fn location_of(&self, url: &Url, reply: &Reply) -> Result<Url, RegistryError> {
        let malformed = |reason: &str| RegistryError::Malformed {
            place: shown(url),
            reason: reason.to_owned(),
        };
        let text =
            reply.header(LOCATION.as_str()).ok_or_else(|| malformed("it names no location"))?;
        let mut location = url.join(text).map_err(|_| malformed("its location is no address"))?;
        let same_host = location.host_str() == url.host_str();
        if url.scheme() == "https" && location.scheme() == "http" && same_host {
            // A registry behind a proxy that does not know that it is asked over TLS.
            let _ = location.set_scheme("https");
        }
        match (url.scheme(), location.scheme()) {
            ("http", "http") | (_, "https") => Ok(location),
            _ => Err(RegistryError::Misled {
                place: shown(url),
                address: shown(&location),
                reason: "it is not secure",
            }),
        }
    }
}

enum Mounted {
    Yes,
    No,
    Opened(Url),
}

fn failure(error: RegistryError) -> Attempt {
    let again = is_passing(&error);
    Attempt { error, again, wait: None }
}

fn with_digest(url: &Url, digest: &BlobDigest) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

/// The registry says what it stored; another digest than was sent would be a lie.
fn check_stored(url: &Url, reply: &Reply, digest: &BlobDigest) -> Result<(), RegistryError> {
    let stated = reply.header("docker-content-digest").and_then(|text| text.parse().ok());
    match stated {
        Some(actual) if actual != *digest => {
            Err(RegistryError::Mismatch { place: shown(url), expected: *digest, actual })
        }
        _ => Ok(()),
    }
}

/// `Range: 0-N`: the registry has N + 1 bytes. Some write `0-0` for none, so that is no byte.
fn range_end(reply: &Reply) -> Option<u64> {
    let range = reply.header("range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.split_once('-')? {
        ("0", "0" | "-1") => Some(0),
        ("0", end) => Some(end.parse::<u64>().ok()?.checked_add(1)?),
        _ => None,
    }
}

/// Cuts a stream to a length, which it must have.
fn exactly(source: BlobStream, length: u64, place: String, digest: BlobDigest) -> BlobStream {
    let wrong = move |actual| {
        let place = place.clone();
        RegistryError::Size { place, digest, expected: length, actual }
    };
    futures_util::stream::try_unfold((source, 0u64), move |(mut source, sent)| {
        let wrong = wrong.clone();
        async move {
            if sent == length {
                return Ok(None);
            }
            match source.next().await {
                Some(Ok(mut piece)) => {
                    let left = usize::try_from(length - sent).unwrap_or(usize::MAX);
                    piece.truncate(left);
                    let sent = sent + piece.len() as u64;
                    Ok(Some((piece, (source, sent))))
                }
                Some(Err(error)) => Err(error),
                None => Err(wrong(sent)),
            }
        }
    })
    .boxed()
}

/// Whether what was sent was wrong already here.
async fn blame(upload: &Upload) -> Option<RegistryError> {
    let (digest, place) = match &upload.source {
        Source::Bytes(bytes) => (BlobDigest::of(bytes), "a blob in memory".to_owned()),
        Source::File(path) => {
            let place = path.display().to_string();
            let path = path.clone();
            let hashed = tokio::task::spawn_blocking(move || {
                BlobDigest::of_reader(&mut std::fs::File::open(path)?)
            });
            (hashed.await.ok()?.ok()?.0, place)
        }
        Source::Repository(_) => return None,
    };
    (digest != upload.digest).then_some(RegistryError::Mismatch {
        place,
        expected: upload.digest,
        actual: digest,
    })
}
