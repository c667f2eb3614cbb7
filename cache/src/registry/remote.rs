//! A repository of a registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use drystone_store::digest::BlobDigest;
use reqwest::header::{ACCEPT, CONTENT_TYPE, LINK};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::access::Scope;
use super::session::{Ask, Attempt, Content, Session};
use super::{download, shown};
use crate::descriptor::{
    DOCKER_LIST_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, Descriptor, INDEX_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE, MOST_MANIFEST_BYTES, Manifest,
};
use crate::error::RegistryError;
use crate::reference::{Host, Location, RepositoryName, Tag, Target};
use crate::referrers;
use crate::repository::{Pending, Repository, Stored, Upload};
use crate::stream::{BlobStream, Check};
use crate::traffic::{Counts, Kind};

/// The most bytes of one page of a list.
const MOST_PAGE_BYTES: u64 = 16 << 20;
/// The most pages of a list.
const MOST_PAGES: usize = 10_000;
/// Attempts to add to a list of referrers that others change at the same time.
const LIST_ATTEMPTS: usize = 5;

/// A repository of a registry. Clones share connections, tokens and counts.
#[derive(Clone)]
pub struct Remote {
    session: Arc<Session>,
    location: Arc<Location>,
    name: RepositoryName,
    /// Whether the registry was seen to have no referrers API.
    no_referrers: Arc<AtomicBool>,
    /// Held while a list of referrers changes.
    listing: Arc<tokio::sync::Mutex<()>>,
}

impl Remote {
    pub(super) fn new(session: Arc<Session>, host: Host, name: RepositoryName) -> Self {
        Self {
            session,
            location: Arc::new(Location::Registry { host, name: name.clone() }),
            name,
            no_referrers: Arc::default(),
            listing: Arc::default(),
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) const fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// An address below the repository's.
    pub(super) async fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let base = self.session.base().await?;
        base.join(&format!("{}/{path}", self.name)).map_err(|error| RegistryError::Malformed {
            place: self.location.to_string(),
            reason: error.to_string(),
        })
    }

    pub(super) fn ask(&self, kind: Kind, method: Method, url: Url, scope: Scope) -> Ask {
        Ask::new(kind, method, url, scope)
    }

    /// Whether a blob is there.
    pub(super) async fn has(&self, digest: &BlobDigest) -> Result<bool, RegistryError> {
        let (url, reply) = self.head(digest).await?;
        match reply.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.session.refused(&url, reply).await),
        }
    }

    async fn head(
        &self,
        digest: &BlobDigest,
    ) -> Result<(Url, super::session::Reply), RegistryError> {
        let url = self.url(&format!("blobs/{digest}")).await?;
        let scope = Scope::pull(&self.name);
        let ask = self.ask(Kind::BlobCheck, Method::HEAD, url.clone(), scope);
        Ok((url, self.session.send(&ask).await?))
    }

    async fn size(&self, digest: &BlobDigest) -> Result<Option<u64>, RegistryError> {
        let (url, reply) = self.head(digest).await?;
        match reply.status() {
            StatusCode::OK => {
                // The client itself counts the bytes of the body, and HEAD has none.
                let length = reply.header("content-length").and_then(|text| text.parse().ok());
                length.map(Some).ok_or_else(|| RegistryError::Malformed {
                    place: shown(&url),
                    reason: "it does not say how large the blob is".to_owned(),
                })
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.session.refused(&url, reply).await),
        }
    }

    async fn get_manifest(&self, target: &Target) -> Result<Option<Manifest>, RegistryError> {
        let url = self.url(&format!("manifests/{target}")).await?;
        let accepted = [
            MANIFEST_MEDIA_TYPE,
            INDEX_MEDIA_TYPE,
            DOCKER_MANIFEST_MEDIA_TYPE,
            DOCKER_LIST_MEDIA_TYPE,
        ];
        let scope = Scope::pull(&self.name);
        let ask = self.ask(Kind::ManifestRead, Method::GET, url.clone(), scope);
        let ask = ask.header(ACCEPT, &accepted.join(", "));
        let Some((headers, bytes)) = self.session.fetch(&ask, MOST_MANIFEST_BYTES).await? else {
            return Ok(None);
        };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = text(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let manifest = Manifest::new(media_type, bytes);
        let stated = text("docker-content-digest").and_then(|text| text.parse().ok());
        let expected = match target {
            Target::Digest(digest) => Some(*digest),
            Target::Tag(_) => stated,
        };
        match expected {
            Some(expected) if expected != manifest.digest => {
                let (place, actual) = (shown(&url), manifest.digest);
                Err(RegistryError::Mismatch { place, expected, actual })
            }
            _ => Ok(Some(manifest)),
        }
    }

    async fn write_manifest(&self, manifest: &Manifest, tags: &[Tag]) -> Result<(), RegistryError> {
        let targets: Vec<Target> = match tags {
            [] => vec![Target::Digest(manifest.digest)],
            tags => tags.iter().cloned().map(Target::Tag).collect(),
        };
        let mut listed = false;
        for target in &targets {
            listed |= self.put(manifest, target).await?;
        }
        match manifest.subject() {
            Some(subject) if !listed => self.list(&subject, manifest).await,
            _ => Ok(()),
        }
    }

    /// Writes a manifest under one name; whether the registry lists it as a referrer itself.
    async fn put(&self, manifest: &Manifest, target: &Target) -> Result<bool, RegistryError> {
        let url = self.url(&format!("manifests/{target}")).await?;
        if manifest.bytes.len() as u64 > MOST_MANIFEST_BYTES {
            return Err(RegistryError::TooLarge { place: shown(&url), limit: MOST_MANIFEST_BYTES });
        }
        let scope = Scope::push(&self.name);
        let ask = self
            .ask(Kind::ManifestWrite, Method::PUT, url.clone(), scope)
            .content(&manifest.media_type, Content::Bytes(manifest.bytes.clone()));
        let mut vain = 0;
        let reply = loop {
            let reply = self.session.send(&ask).await?;
            if reply.status().is_success() {
                break reply;
            }
            let error = self.session.refused(&url, reply).await;
            vain += 1;
            let again = is_race(&error);
            self.session.pause(Attempt { error, again, wait: None }, vain).await?;
        };
        self.session.traffic.sent(Kind::ManifestWrite, manifest.bytes.len() as u64);
        match reply.header("docker-content-digest").and_then(|text| text.parse().ok()) {
            Some(actual) if actual != manifest.digest => Err(RegistryError::Mismatch {
                place: shown(&url),
                expected: manifest.digest,
                actual,
            }),
            _ => Ok(reply.header("oci-subject").is_some()),
        }
    }

    /// Adds a referrer to its subject's list. Others may do so at the same time, and the protocol
    /// has no lock, so the list is read again until it holds what was added.
    async fn list(&self, subject: &BlobDigest, referrer: &Manifest) -> Result<(), RegistryError> {
        let _alone = self.listing.lock().await;
        let tag = Target::Tag(Tag::of_referrers(subject));
        for _ in 0..LIST_ATTEMPTS {
            let list = self.get_manifest(&tag).await?;
            let Some(list) = referrers::with(list.as_ref(), referrer) else { return Ok(()) };
            self.put(&list, &tag).await?;
        }
        Ok(())
    }

    async fn unlist(
        &self,
        subject: &BlobDigest,
        referrer: &BlobDigest,
    ) -> Result<(), RegistryError> {
        let _alone = self.listing.lock().await;
        let tag = Target::Tag(Tag::of_referrers(subject));
        let list = self.get_manifest(&tag).await?;
        match referrers::without(list.as_ref(), referrer) {
            Some(list) => self.put(&list, &tag).await.map(drop),
            None => Ok(()),
        }
    }

    async fn get_referrers(
        &self,
        subject: &BlobDigest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        if !self.no_referrers.load(Relaxed)
            && let Some(found) = self.ask_referrers(subject, artifact_type).await?
        {
            return Ok(found);
        }
        let target = Target::Tag(Tag::of_referrers(subject));
        match self.get_manifest(&target).await? {
            Some(list) => {
                let place = format!("{}:{target}", self.location);
                referrers::read(&list.bytes, &place, artifact_type)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Asks the API; `None` where there is none.
    async fn ask_referrers(
        &self,
        subject: &BlobDigest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let mut url = self.url(&format!("referrers/{subject}")).await?;
        if let Some(kind) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", kind);
        }
        let scope = Scope::pull(&self.name);
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut next = Some(url);
        while let Some(url) = next.take() {
            let ask = self.ask(Kind::Referrers, Method::GET, url.clone(), scope.clone());
            let ask = ask.header(ACCEPT, INDEX_MEDIA_TYPE);
            let page = match self.session.fetch(&ask, MOST_PAGE_BYTES).await {
                Ok(page) => page,
                // What a registry answers that does not know the path.
                Err(RegistryError::Status { status: 400 | 405 | 406 | 415 | 501, .. }) => None,
                Err(error) => return Err(error),
            };
            let Some((headers, bytes)) = page else {
                self.no_referrers.store(true, Relaxed);
                return Ok(None);
            };
            found.extend(referrers::read(&bytes, &shown(&url), artifact_type)?);
            pages += 1;
            next = self.next_page(&url, &headers, pages)?;
        }
        Ok(Some(found))
    }

    async fn get_tags(&self) -> Result<Vec<Tag>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = self.url("tags/list").await?;
        url.query_pairs_mut().append_pair("n", "1000");
        let scope = Scope::pull(&self.name);
        let (mut tags, mut pages) = (Vec::new(), 0);
        let mut next = Some(url);
        while let Some(url) = next.take() {
            let ask = self.ask(Kind::Tags, Method::GET, url.clone(), scope.clone());
            let Some((headers, bytes)) = self.session.fetch(&ask, MOST_PAGE_BYTES).await? else {
                break;
            };
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| {
                RegistryError::Malformed { place: shown(&url), reason: error.to_string() }
            })?;
            let known = page.tags.unwrap_or_default();
            tags.extend(known.iter().filter_map(|tag| Tag::new(tag).ok()));
            pages += 1;
            next = self.next_page(&url, &headers, pages)?;
        }
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// The address of a list's next page: only one of the same registry is followed.
    fn next_page(
        &self,
        url: &Url,
        headers: &reqwest::header::HeaderMap,
        pages: usize,
    ) -> Result<Option<Url>, RegistryError> {
        let link = headers.get(LINK).and_then(|link| link.to_str().ok());
        let Some(path) = link.and_then(next_link) else { return Ok(None) };
        let malformed = |reason: &str| RegistryError::Malformed {
            place: shown(url),
            reason: reason.to_owned(),
        };
        if pages >= MOST_PAGES {
            return Err(malformed("its list has no end"));
        }
        let next = url.join(path).map_err(|_| malformed("its next page is no address"))?;
        match next.origin() == url.origin() && next != *url {
            true => Ok(Some(next)),
            false => Err(malformed("its next page is not its own")),
        }
    }

    async fn remove_manifest(&self, target: &Target) -> Result<bool, RegistryError> {
        let Some(manifest) = self.get_manifest(target).await? else { return Ok(false) };
        let url = self.url(&format!("manifests/{target}")).await?;
        let removed = self.delete(url).await?;
        if let (true, Target::Digest(digest), Some(subject)) = (removed, target, manifest.subject())
        {
            self.unlist(&subject, digest).await?;
        }
        Ok(removed)
    }

    async fn delete(&self, url: Url) -> Result<bool, RegistryError> {
        let scope = Scope::delete(&self.name);
        let ask = self.ask(Kind::Delete, Method::DELETE, url.clone(), scope);
        let reply = self.session.send(&ask).await?;
        match reply.status() {
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {
                let place = self.location.to_string();
                Err(RegistryError::Unsupported { place, action: "delete" })
            }
            status if status.is_success() => Ok(true),
            _ => Err(self.session.refused(&url, reply).await),
        }
    }

    async fn remove_blob(&self, digest: &BlobDigest) -> Result<bool, RegistryError> {
        let url = self.url(&format!("blobs/{digest}")).await?;
        self.delete(url).await
    }

    async fn open_blob(
        &self,
        digest: BlobDigest,
        size: u64,
        check: Check,
    ) -> Result<Option<BlobStream>, RegistryError> {
        let url = self.url(&format!("blobs/{digest}")).await?;
        let scope = Scope::pull(&self.name);
        download::open(Arc::clone(&self.session), url, scope, digest, size, check).await
    }
}

impl Repository for Remote {
    fn location(&self) -> &Location {
        &self.location
    }

    fn counts(&self) -> Counts {
        self.session.traffic.counts()
    }

    fn manifest<'a>(&'a self, target: &'a Target) -> Pending<'a, Option<Manifest>> {
        Box::pin(self.get_manifest(target))
    }

    fn put_manifest<'a>(&'a self, manifest: &'a Manifest, tags: &'a [Tag]) -> Pending<'a, ()> {
        Box::pin(self.write_manifest(manifest, tags))
    }

    fn delete_manifest<'a>(&'a self, target: &'a Target) -> Pending<'a, bool> {
        Box::pin(self.remove_manifest(target))
    }

    fn blob_size<'a>(&'a self, digest: &'a BlobDigest) -> Pending<'a, Option<u64>> {
        Box::pin(self.size(digest))
    }

    fn blob_checked<'a>(
        &'a self,
        digest: &'a BlobDigest,
        size: u64,
        check: Check,
    ) -> Pending<'a, Option<BlobStream>> {
        Box::pin(self.open_blob(*digest, size, check))
    }

    fn put_blob<'a>(&'a self, upload: &'a Upload) -> Pending<'a, Stored> {
        Box::pin(self.upload(upload))
    }

    fn mount<'a>(&'a self, digest: &'a BlobDigest, from: &'a RepositoryName) -> Pending<'a, bool> {
        Box::pin(self.mount_only(digest, from))
    }

    fn delete_blob<'a>(&'a self, digest: &'a BlobDigest) -> Pending<'a, bool> {
        Box::pin(self.remove_blob(digest))
    }

    fn tags(&self) -> Pending<'_, Vec<Tag>> {
        Box::pin(self.get_tags())
    }

    fn referrers<'a>(
        &'a self,
        subject: &'a BlobDigest,
        artifact_type: Option<&'a str>,
    ) -> Pending<'a, Vec<Descriptor>> {
        Box::pin(self.get_referrers(subject, artifact_type))
    }
}

/// Whether a manifest was refused because a blob of it was being written once more by somebody else:
/// docker-registry reads the blob's link half-written, and calls the manifest's digest invalid.
fn is_race(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { status: 400, message, .. } if message.contains("digest"))
}

/// The address in `<…>; rel="next"`.
fn next_link(link: &str) -> Option<&str> {
    let mut parts = link.split(',');
    let next = parts.find(|part| part.contains("rel=\"next\"") || part.contains("rel=next"))?;
    Some(next.trim_start().strip_prefix('<')?.split_once('>')?.0)
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn the_next_page_is_found() {
        let link = r#"</v2/a/tags/list?last=x&n=5>; rel="next""#;
        assert_eq!(next_link(link), Some("/v2/a/tags/list?last=x&n=5"));
        assert_eq!(next_link("<a>; rel=\"prev\", <b>; rel=next"), Some("b"));
        for none in ["", "<a>", "a; rel=\"next\"", "<a; rel=\"next\""] {
            assert_eq!(next_link(none), None);
        }
    }
}
