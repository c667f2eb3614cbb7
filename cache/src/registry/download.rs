//! Reading a blob: continued where a broken connection left off.

use std::sync::Arc;

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use futures_util::StreamExt as _;
use futures_util::stream::try_unfold;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use super::access::Scope;
use super::session::{Ask, Attempt, Bound, Reply, Session, stalled, transport};
use super::shown;
use crate::error::RegistryError;
use crate::stream::{BlobStream, Check, Verified};
use crate::traffic::Kind;

/// Attempts at one blob, successful beginnings included: a server that gives a few bytes each time
/// must come to an end.
const MOST_ATTEMPTS: u32 = 30;

struct Download {
    session: Arc<Session>,
    url: Url,
    scope: Scope,
    digest: BlobDigest,
    size: u64,
    /// Bytes that were passed on.
    offset: u64,
    /// Bytes of the present answer that were passed on before it began.
    skip: u64,
    reply: Option<Reply>,
    vain: u32,
    attempts: u32,
}

/// Opens a blob; `None` when the registry has none.
pub(super) async fn open(
    session: Arc<Session>,
    url: Url,
    scope: Scope,
    digest: BlobDigest,
    size: u64,
    check: Check,
) -> Result<Option<BlobStream>, RegistryError> {
    let place = shown(&url);
    let mut download = Download {
        session,
        url,
        scope,
        digest,
        size,
        offset: 0,
        skip: 0,
        reply: None,
        vain: 0,
        attempts: 0,
    };
    match download.request().await {
        Ok(()) => {}
        Err(RegistryError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let pieces = try_unfold(download, |mut download| async move {
        Ok(download.next().await?.map(|piece| (piece, download)))
    });
    Ok(Some(Verified::new(pieces.boxed(), place, digest, size, check).boxed()))
}

impl Download {
    /// Asks for what is lacking.
    async fn request(&mut self) -> Result<(), RegistryError> {
        let (url, scope) = (self.url.clone(), self.scope.clone());
        let mut ask = Ask::new(Kind::BlobRead, Method::GET, url, scope).bound(Bound::Read);
        // Bytes are hashed as they come: no coding may stand between.
        ask = ask.header(ACCEPT_ENCODING, "identity");
        if self.offset > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", self.offset));
        }
        let reply = self.session.send(&ask).await?;
        let rest = match reply.status() {
            StatusCode::OK => {
                self.skip = self.offset;
                self.size
            }
            StatusCode::PARTIAL_CONTENT if self.continues(reply.response.headers()) => {
                self.skip = 0;
                self.size - self.offset
            }
            StatusCode::PARTIAL_CONTENT => {
                let reason = "another part was asked for".to_owned();
                return Err(RegistryError::Malformed { place: shown(&self.url), reason });
            }
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::Missing { place: shown(&self.url) });
            }
            _ => return Err(self.session.refused(&self.url, reply).await),
        };
        match reply.response.content_length() {
            Some(length) if length != rest => Err(RegistryError::Size {
                place: shown(&self.url),
                digest: self.digest,
                expected: rest,
                actual: length,
            }),
            _ => {
                self.reply = Some(reply);
                Ok(())
            }
        }
    }

    fn continues(&self, headers: &HeaderMap) -> bool {
        let start = headers.get(CONTENT_RANGE).and_then(|range| {
            let range = range.to_str().ok()?.strip_prefix("bytes ")?;
            range.split_once('-')?.0.trim().parse::<u64>().ok()
        });
        self.offset > 0 && self.offset < self.size && start == Some(self.offset)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let Some(reply) = &mut self.reply else {
                self.request().await?;
                continue;
            };
            let idle = self.session.settings.idle_timeout;
            let failed = match tokio::time::timeout(idle, reply.response.chunk()).await {
                Ok(Ok(Some(piece))) => match self.passed_on(piece) {
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                },
                Ok(Ok(None)) if self.offset >= self.size => return Ok(None),
                Ok(Ok(None)) => {
                    let (expected, actual) = (self.size, self.offset);
                    let place = shown(&self.url);
                    let error = RegistryError::Truncated { place, expected, actual };
                    Attempt { error, again: true, wait: None }
                }
                Ok(Err(error)) => transport(&self.url, error),
                Err(_) => stalled(&self.url, idle),
            };
            self.reply = None;
            self.vain += 1;
            self.attempts += 1;
            if self.attempts >= MOST_ATTEMPTS {
                return Err(failed.error);
            }
            self.session.pause(failed, self.vain).await?;
        }
    }

    /// What of a piece is new.
    fn passed_on(&mut self, mut piece: Bytes) -> Option<Bytes> {
        self.session.traffic.received(Kind::BlobRead, piece.len() as u64);
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
        self.skip -= known as u64;
        let piece = piece.split_off(known);
        if piece.is_empty() {
            return None;
        }
        self.offset += piece.len() as u64;
        self.vain = 0;
        Some(piece)
    }
}
