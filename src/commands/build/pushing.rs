//! Pushing what was built.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use drystone_builder::build::Built;
use drystone_builder::image::{self, ImageSet};
use drystone_builder::progress::{Event, Progress as _};
use drystone_cache::credentials::Credentials;
use drystone_cache::descriptor::{INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Manifest};
use drystone_cache::push::{Arrived, Image, PARALLEL, Piece, push, verify};
use drystone_cache::reference::{Host, Location, Reference, RepositoryName, Tag};
use drystone_cache::registry::{self, Registries};
use drystone_cache::repository::{Repository, Source, Stored, Upload};
use drystone_cache::traffic::Counts;
use drystone_store::digest::BlobDigest;
use drystone_store::store::Store;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::outputs::Written;
use crate::bases;
use crate::caching::Caching;
use crate::diagnostics::Failure;
use crate::progress::Display;
use crate::quantity::Bytes as Quantity;
use crate::wiring::environment;

const PHASE: &str = "push";

/// Where the image is pushed to.
pub struct Pushing {
    targets: Vec<Reference>,
    verify: bool,
    registries: Registries,
}

/// What was sent and what was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Blobs that were there.
    pub existed: u64,
    /// Blobs that were mounted from another repository.
    pub mounted: u64,
    /// Blobs that were sent.
    pub pushed: u64,
    /// Bytes of the blobs that were sent.
    pub pushed_bytes: u64,
}

impl Pushing {
    /// Reads the references. One without a tag gets the image's.
    pub fn new(
        references: &[String],
        verify: bool,
        registries: Registries,
        tag: &str,
    ) -> Result<Self, Failure> {
        let mut targets = Vec::new();
        for text in references {
            let mut target: Reference = text.parse().map_err(Failure::of)?;
            if target.digest.is_some() {
                return Err(Failure::usage(format!("{text}: a digest cannot be pushed to"))
                    .hint("name a tag: the digest is printed when the image is there"));
            }
            if target.tag.is_none() {
                target.tag = Some(Tag::new(tag).map_err(Failure::of)?);
            }
            targets.push(target);
        }
        Ok(Self { targets, verify, registries })
    }

    /// Whether there is anything to do.
    pub const fn is_wanted(&self) -> bool {
        !self.targets.is_empty()
    }

    /// The client, with its connections.
    pub const fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Where it goes.
    pub fn targets(&self) -> &[Reference] {
        &self.targets
    }

    /// Requests and bytes so far.
    pub fn counts(&self) -> Counts {
        self.registries.counts()
    }

    /// Pushes to all targets in turn. Blobs are mounted from where they were pushed before, now or
    /// by another build with this store.
    pub async fn run(
        &self,
        built: &Built,
        store: &Store,
        caching: &Caching,
        display: &Display,
    ) -> Result<Vec<Written>, Failure> {
        let mut written = Vec::new();
        for target in &self.targets {
            let place = match &target.location {
                Location::Registry { host, .. } => Some(host),
                Location::Folder(_) => None,
            };
            let mounts = |digest: &BlobDigest| match place {
                Some(host) => {
                    let base = bases::source_of(built, digest);
                    let base = base.and_then(|location| match location {
                        Location::Registry { host: other, name } => {
                            (other == *host).then_some(name)
                        }
                        Location::Folder(_) => None,
                    });
                    let mut known: Vec<_> = base.into_iter().collect();
                    known.extend(whereabouts(store, host, digest));
                    known.extend(caching.mounts(&target.location));
                    known
                }
                None => Vec::new(),
            };
            let mut image = image(&built.set, store, &mounts);
            self.stream_from_bases(&mut image, built, store);
            let repository = self.registries.open(&target.location);
            stream_from_caches(&mut image, &repository, store, caching).await?;
            written.push(self.push_one(&image, target, &repository, display).await?);
            if let Location::Registry { host, name } = &target.location {
                for piece in &image.blobs {
                    remember(store, host, &piece.upload.digest, name)?;
                }
            }
        }
        display.event(Event::Done { name: PHASE.to_owned() });
        Ok(written)
    }

    /// Layers of base images that the store lacks go from registry to registry.
    fn stream_from_bases(&self, image: &mut Image, built: &Built, store: &Store) {
        for piece in &mut image.blobs {
            let digest = piece.upload.digest;
            if let Some(location) = bases::source_of(built, &digest)
                && !store.has_blob(&digest)
            {
                piece.upload.source = Source::Repository(self.registries.open(&location));
            }
        }
    }

    async fn push_one(
        &self,
        image: &Image,
        target: &Reference,
        repository: &Arc<dyn Repository>,
        display: &Display,
    ) -> Result<Written, Failure> {
        let tag = target.tag.clone().unwrap_or_else(Tag::latest);
        phase(display, target.to_string());
        let tell = |arrived: &Arrived| {
            let what = match &arrived.stored {
                Stored::Existed => "exists".to_owned(),
                Stored::Mounted { from } => format!("mounted from {from}"),
                Stored::Pushed => "pushed".to_owned(),
            };
            phase(display, format!("{} ({}): {what}", arrived.title, Quantity(arrived.size)));
        };
        let arrived = push(image, repository, &tag, &tell).await.map_err(Failure::of)?;
        if self.verify {
            phase(display, format!("read back {target}"));
            verify(image, repository, &tag).await.map_err(Failure::of)?;
        }
        let reference = Reference { digest: Some(image.top.digest), ..target.clone() };
        Ok(Written::Registry { reference: reference.to_string(), blobs: moved(&arrived) })
    }
}

/// A client for registries, as the arguments and the environment have it.
pub fn registries(insecure: &[String]) -> Result<Registries, Failure> {
    let insecure = insecure.iter().map(|text| Host::new(text));
    let insecure = insecure.collect::<Result<_, _>>().map_err(|error| {
        Failure::of(error).hint("`--insecure-registry` takes HOST or HOST:PORT, without a path")
    })?;
    let credentials = Credentials::from_environment(&environment);
    Ok(Registries::new(registry::Settings {
        insecure,
        credentials,
        ..registry::Settings::default()
    }))
}

/// The kind of the store's facts about where blobs were pushed to. Such a fact is a guess: the
/// registry decides.
const FACT: &str = "pushed";
/// How many repositories are remembered, and asked, for a blob.
const MOST_MOUNTS: usize = 2;

fn fact_key(host: &Host, digest: &BlobDigest) -> String {
    format!("{host} {digest}")
}

/// The repositories of a registry that a blob was pushed to, the last one first.
fn whereabouts(store: &Store, host: &Host, digest: &BlobDigest) -> Vec<RepositoryName> {
    // Without the fact the blob is sent; that is no reason to fail.
    let fact = store.fact(FACT, &fact_key(host, digest)).ok().flatten().unwrap_or_default();
    fact.lines().filter_map(|line| RepositoryName::new(line).ok()).take(MOST_MOUNTS).collect()
}

fn remember(
    store: &Store,
    host: &Host,
    digest: &BlobDigest,
    name: &RepositoryName,
) -> Result<(), Failure> {
    let known = whereabouts(store, host, digest);
    if known.first() == Some(name) {
        return Ok(());
    }
    let others = known.iter().filter(|other| *other != name);
    let names: Vec<&str> =
        std::iter::once(name).chain(others).take(MOST_MOUNTS).map(RepositoryName::as_str).collect();
    Ok(store.put_fact(FACT, &fact_key(host, digest), &names.join("\n"))?)
}

fn phase(display: &Display, text: String) {
    display.event(Event::Phase { name: PHASE.to_owned(), text });
}

fn moved(arrived: &[Arrived]) -> Moved {
    let mut moved = Moved::default();
    for one in arrived {
        match one.stored {
            Stored::Existed => moved.existed += 1,
            Stored::Mounted { .. } => moved.mounted += 1,
            Stored::Pushed => {
                moved.pushed += 1;
                moved.pushed_bytes += one.size;
            }
        }
    }
    moved
}

/// Blobs that neither the store nor the target has go from a cache to the target without touching
/// the disk.
async fn stream_from_caches(
    image: &mut Image,
    target: &Arc<dyn Repository>,
    store: &Store,
    caching: &Caching,
) -> Result<(), Failure> {
    let caches = caching.repositories();
    let is_elsewhere = |piece: &&mut Piece| {
        matches!(piece.upload.source, Source::File(_)) && !store.has_blob(&piece.upload.digest)
    };
    let found = image.blobs.iter_mut().filter(is_elsewhere);
    let found: Vec<_> = found.map(|piece| find(piece, target, &caches, store)).collect();
    futures_util::stream::iter(found).buffer_unordered(PARALLEL).try_collect().await
}

/// Finds out where a blob is that the store lacks.
async fn find(
    piece: &mut Piece,
    target: &Arc<dyn Repository>,
    caches: &[Arc<dyn Repository>],
    store: &Store,
) -> Result<(), Failure> {
    let Upload { digest, size, .. } = piece.upload;
    if target.blob_size(&digest).await.is_ok_and(|found| found == Some(size)) {
        piece.is_there = true;
        return Ok(());
    }
    for cache in caches {
        match cache.blob_size(&digest).await {
            Ok(Some(found)) if found == size => {
                piece.upload.source = Source::Repository(Arc::clone(cache));
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("blob {digest} is not taken from a cache: {error}"),
        }
    }
    // What relied on it is forgotten, and the next attempt builds it.
    Err(Failure::from(store.lost(&digest)))
}

/// The image as it is pushed: layers from the store's files, documents from memory.
fn image(
    set: &ImageSet,
    store: &Store,
    mounts: &dyn Fn(&BlobDigest) -> Vec<RepositoryName>,
) -> Image {
    let layer = |layer: &&image::LayerRef| Piece {
        title: layer.title.clone(),
        upload: Upload::file(layer.digest, layer.size, store.blob_path(&layer.digest))
            .mounted_from(mounts(&layer.digest)),
        is_there: false,
    };
    let mut blobs: Vec<Piece> = set.layers().iter().map(layer).collect();
    let mut seen: BTreeSet<BlobDigest> = BTreeSet::new();
    for one in set.images() {
        if seen.insert(one.config.digest) {
            blobs.push(Piece {
                title: format!("config of {}", one.platform),
                upload: Upload::bytes(Bytes::copy_from_slice(&one.config.bytes))
                    .mounted_from(mounts(&one.config.digest)),
                is_there: false,
            });
        }
    }
    let manifest = |media_type: &str, blob: &image::JsonBlob| {
        Manifest::new(media_type, Bytes::copy_from_slice(&blob.bytes))
    };
    let of_platforms = set.images().iter().map(|one| manifest(MANIFEST_MEDIA_TYPE, &one.manifest));
    let mut manifests: Vec<Manifest> = of_platforms.collect();
    let top = match set.index() {
        Some(index) => manifest(INDEX_MEDIA_TYPE, index),
        None => manifests.remove(0),
    };
    Image { blobs, manifests, top }
}
