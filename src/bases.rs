//! Base images: registries as the builder asks them, and what a lock pins of them.

use std::io::Write;

use drystone_builder::base::{Base, BaseImages, BaseSource, SourceError};
use drystone_builder::build::Built;
use drystone_builder::lock::{Lock, LockedBase};
use drystone_builder::resolve::Update;
use drystone_builder::spec::{Image, ImageReference};
use drystone_cache::reference::{Location, ReferenceError, Tag, Target};
use drystone_cache::registry::Registries;
use drystone_store::digest::BlobDigest;
use drystone_store::store::Store;
use futures_util::StreamExt as _;
use rayon::prelude::*;
use tokio::runtime::Handle;

use crate::diagnostics::Failure;
use crate::interrupt;

/// Registries as a source of base images.
pub struct RegistryBases {
    registries: Registries,
    runtime: Handle,
}

/// The repository of a base image.
pub fn location(of: &ImageReference) -> Result<Location, ReferenceError> {
    format!("{}/{}", of.registry, of.repository).parse()
}

impl RegistryBases {
    /// With a client whose connections and counters others share.
    pub fn new(registries: &Registries, runtime: &Handle) -> Self {
        Self { registries: registries.clone(), runtime: runtime.clone() }
    }

    /// Waits for the network, or for a signal that ends the command.
    fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        self.runtime.block_on(interrupt::or_cancelled(work))?
    }
}

impl BaseSource for RegistryBases {
    fn manifest(
        &self,
        of: &ImageReference,
        digest: Option<&BlobDigest>,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let target = match (digest, &of.tag) {
            (Some(digest), _) => Target::Digest(*digest),
            (None, Some(tag)) => Target::Tag(Tag::new(tag.as_str())?),
            (None, None) => Target::Tag(Tag::latest()),
        };
        let repository = self.registries.open(&location(of)?);
        self.wait(async {
            Ok(repository.manifest(&target).await?.map(|manifest| manifest.bytes.to_vec()))
        })
    }

    fn blob(
        &self,
        of: &ImageReference,
        digest: &BlobDigest,
        size: u64,
        writer: &mut dyn Write,
    ) -> Result<bool, SourceError> {
        let repository = self.registries.open(&location(of)?);
        self.wait(async {
            let Some(mut blob) = repository.blob(digest, size).await? else { return Ok(false) };
            while let Some(piece) = blob.next().await {
                writer.write_all(&piece?)?;
            }
            Ok(true)
        })
    }
}

/// What the lock pins of an image's base: what it pins now, unless there is nothing or `update`
/// moves everything.
pub fn pin(
    images: BaseImages<'_>,
    image: &Image,
    previous: Option<&Lock>,
    update: &Update,
) -> Result<Option<LockedBase>, Failure> {
    let Some(from) = image.tagged_base() else { return Ok(None) };
    let text = from.to_string();
    let known = previous.and_then(|lock| lock.images.get(&image.name)?.base.clone());
    if let Some(known) = known.filter(|known| known.from == text && *update != Update::All) {
        return Ok(Some(known));
    }
    let digest = images.pin(from).map_err(Failure::of)?;
    Ok(Some(LockedBase { from: text, digest }))
}

/// The base images that were built upon, each once for each platform.
fn bases(built: &Built) -> impl Iterator<Item = &Base> {
    built.platforms.iter().filter_map(|platform| platform.base.as_ref())
}

/// Where a layer is that belongs to a base image.
pub fn source_of(built: &Built, layer: &BlobDigest) -> Option<Location> {
    let base = bases(built).find(|base| base.layers.iter().any(|it| it.digest == *layer))?;
    location(&base.from).ok()
}

/// Brings the layers of all base images here.
pub fn fetch_layers(built: &Built, images: BaseImages<'_>) -> Result<(), Failure> {
    let layers: Vec<_> =
        bases(built).flat_map(|base| base.layers.iter().map(move |layer| (base, layer))).collect();
    let fetched =
        layers.par_iter().with_max_len(1).map(|(base, layer)| images.fetch_layer(base, layer));
    fetched.collect::<Result<(), _>>().map_err(Failure::of)
}

/// What of base images is in the store and must stay: documents, and layers that came.
pub fn kept(built: &Built, store: &Store) -> Vec<BlobDigest> {
    let blobs = bases(built).flat_map(|base| {
        base.documents.iter().copied().chain(base.layers.iter().map(|layer| layer.digest))
    });
    blobs.filter(|digest| store.has_blob(digest)).collect()
}
