//! Binary caches of a build: asked for what the store lacks, given what was built.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use drystone_builder::build::{
    IMAGE_BUILDER, StandsOn, WholeImage, remember_image, remembered_image,
};
use drystone_builder::image::ImageSet;
use drystone_builder::progress::{Event, Progress as _};
use drystone_builder::settings::{Origin, Settings};
use drystone_builder::spec::{Image, Platform};
use drystone_cache::attestation::{Attestation, BuildContext, SandboxMode};
use drystone_cache::binary_cache::{
    Caches, Looked, Share, Shared, Subject, realisation_tag, share,
};
use drystone_cache::dsse::Envelope;
use drystone_cache::key::SecretKey;
use drystone_cache::reference::{Location, RepositoryName, Target};
use drystone_cache::registry::Registries;
use drystone_cache::repository::Repository;
use drystone_store::derivation::Derivation;
use drystone_store::digest::DerivationId;
use drystone_store::layer::Compression;
use drystone_store::realisation::Realisation;
use drystone_store::store::Store;
use drystone_store::substituter::Wanted;
use tokio::runtime::Handle;

use crate::diagnostics::Failure;
use crate::progress::Display;
use crate::wiring::{now, signing_key, trust};

/// The builders that only bring in what a hash names: locks pin what they give.
const PINNED_BUILDERS: [&str; 1] = ["deb"];

/// The caches of one build.
pub struct Caching {
    caches: Option<Arc<Caches>>,
    /// Those that the user named, which may be written.
    own: Vec<Arc<dyn Repository>>,
    key: Option<SecretKey>,
    subjects: Vec<Subject>,
}

/// What caches did for a build, for its report.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CacheReport {
    /// Whether the image came as a whole, and no step of it was looked at.
    pub whole: bool,
    /// What was found, missed and fetched.
    #[serde(flatten)]
    pub looked: Looked,
    /// What was written, by cache.
    pub shared: Vec<SharedTo>,
}

/// What was written to one cache.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SharedTo {
    /// The cache.
    pub cache: String,
    /// What was written.
    #[serde(flatten)]
    pub shared: Shared,
}

impl Caching {
    /// Opens the caches that the settings name. Nothing is asked yet.
    pub fn new(
        settings: &Settings,
        image: &Image,
        platforms: &[Platform],
        registries: &Registries,
        runtime: &Handle,
    ) -> Result<Self, Failure> {
        let (mut all, mut own) = (Vec::new(), Vec::new());
        for setting in &settings.caches {
            let location: Location = setting.value.address.parse().map_err(Failure::of)?;
            let repository = registries.open(&location);
            if !is_of_project(&setting.origin, image) {
                own.push(Arc::clone(&repository));
            }
            all.push(repository);
        }
        let subjects: Vec<Subject> = platforms
            .iter()
            .map(|platform| Subject {
                image: image.name.to_string(),
                platform: platform.as_str().to_owned(),
            })
            .collect();
        let caches = match all.is_empty() {
            true => None,
            false => {
                let trust = trust(settings)?;
                Some(Arc::new(Caches::new(all, trust, now(), subjects.clone(), runtime.clone())))
            }
        };
        Ok(Self { caches, own, key: signing_key(settings)?, subjects })
    }

    /// Lets the store ask the caches.
    pub fn attach(&self, store: &mut Store) {
        if let Some(caches) = &self.caches {
            store.substitute_from(caches.clone());
        }
    }

    /// What trusted builders disagree about, each as one line that names the derivation.
    pub fn disagreements(&self) -> Vec<String> {
        self.caches.as_ref().map(|caches| caches.looked().disagreements).unwrap_or_default()
    }

    /// The caches, if there are any.
    pub fn caches(&self) -> Option<&Arc<Caches>> {
        self.caches.as_ref()
    }

    /// Whether there are a key to sign with and a cache of the user's to write to.
    pub const fn can_share(&self) -> (bool, bool) {
        (self.key.is_some(), !self.own.is_empty())
    }

    /// The caches as repositories, in the order in which they are asked.
    pub fn repositories(&self) -> Vec<Arc<dyn Repository>> {
        self.caches.iter().flat_map(|caches| caches.repositories().cloned()).collect()
    }

    /// The image as a cache knows it whole: without a step of a build, and believed for all that it
    /// stands on.
    pub fn whole(&self, store: &Store, whole: &WholeImage) -> Result<Option<ImageSet>, Failure> {
        let Some(caches) = &self.caches else { return Ok(None) };
        let id = whole.derivation.id();
        // What is remembered of a cache is not enough: what it lacks would have to be shared.
        if !store.is_known_to_caches(Wanted { is_whole: true, ..Wanted::from(id) }) {
            return Ok(None);
        }
        let Some(output) = store.realised_output(&id, "out")? else { return Ok(None) };
        let Some((set, stands_on)) = remembered_image(store, &output)? else { return Ok(None) };
        let mut signers = stands_on.values().filter(|signers| !signers.is_empty());
        let is_believed = signers.all(|signers| caches.believes(signers));
        Ok(Some(set).filter(|_| is_believed))
    }

    /// Whether every cache of the user's is known to have an image that one of them gave.
    pub async fn all_have(&self, whole: &WholeImage) -> bool {
        let Some(key) = self.key.as_ref().filter(|_| !self.own.is_empty()) else { return true };
        if self.repositories().len() == 1 {
            return true;
        }
        let tag = Target::Tag(realisation_tag(&whole.derivation.id(), Some(key.public().id())));
        for own in &self.own {
            if !own.manifest(&tag).await.is_ok_and(|manifest| manifest.is_some()) {
                return false;
            }
        }
        true
    }

    /// Keeps an image in the store as one realisation, to be shared, with who vouched for what it
    /// stands on.
    pub fn remember_whole(
        &self,
        store: &Store,
        whole: &WholeImage,
        set: &ImageSet,
    ) -> Result<(), Failure> {
        let mut stands_on = StandsOn::new();
        for id in store.used_derivations() {
            let mut signers = BTreeSet::new();
            if let Some(substituted) = store.substituted(&id)? {
                // The lock's hashes, which the image's own id covers, vouch for packages.
                if is_pinned(&substituted.derivation) || is_whole(&substituted.derivation) {
                    continue;
                }
                let Some(caches) = &self.caches else { return Ok(()) };
                signers = caches.signers(&id, &substituted.attestations);
                if signers.is_empty() {
                    return Ok(());
                }
            }
            stands_on.insert(id, signers);
        }
        Ok(remember_image(store, &whole.derivation, set, stands_on)?)
    }

    /// The names of the caches that are on the registry of a target: their blobs can be mounted.
    pub fn mounts(&self, target: &Location) -> Vec<RepositoryName> {
        let Location::Registry { host, .. } = target else { return Vec::new() };
        let of_host = |repository: Arc<dyn Repository>| match repository.location() {
            Location::Registry { host: other, name } if other == host => Some(name.clone()),
            _ => None,
        };
        self.repositories().into_iter().filter_map(of_host).collect()
    }

    /// What looking in caches gave, where nothing is shared.
    pub fn looked(&self) -> CacheReport {
        let looked = self.caches.as_ref().map(|caches| caches.looked()).unwrap_or_default();
        CacheReport { whole: false, looked, shared: Vec::new() }
    }

    /// Signs what was built here and shares it with all that the build stands on. What fails is
    /// told and counted: failing to share never fails a build.
    pub async fn share(&self, store: &Store, display: &Display) -> CacheReport {
        self.share_all(store, &store.used_derivations(), display).await
    }

    /// Shares what some derivations gave.
    pub async fn share_all(
        &self,
        store: &Store,
        derivations: &[DerivationId],
        display: &Display,
    ) -> CacheReport {
        let mut report = self.looked();
        let Some(key) = self.key.as_ref().filter(|_| !self.own.is_empty()) else { return report };
        let mut shares = Vec::new();
        let mut unsigned = Vec::new();
        for id in derivations {
            match to_share(store, id, key) {
                Ok(share) => shares.extend(share),
                Err(error) => unsigned.push(format!("{id}: {error}")),
            }
        }
        let part = |digest: &_| store.has_blob(digest).then(|| store.blob_path(digest));
        let others = self.repositories();
        for to in &self.own {
            let cache = to.location().to_string();
            let text = format!("share {} realisations with {cache}", shares.len());
            display.event(Event::Phase { name: "share".to_owned(), text });
            let writer = key.public();
            let mut shared = share(to, &shares, &part, &others, &self.subjects, &writer).await;
            shared.failed.extend(unsigned.iter().cloned());
            if let Some(first) = shared.failed.first() {
                let count = shared.failed.len();
                display.warn(format!("{count} realisations are not in {cache}: {first}"));
            }
            report.shared.push(SharedTo { cache, shared });
        }
        report
    }
}

/// A realisation to share: as others signed it, else signed now.
fn to_share(
    store: &Store,
    id: &DerivationId,
    key: &SecretKey,
) -> Result<Vec<Share>, Box<dyn std::error::Error + Send + Sync>> {
    // A builder signs only what it built itself.
    if let Some(substituted) = store.substituted(id)? {
        let is_pinned = is_pinned(&substituted.derivation);
        let mut shares = Vec::new();
        for text in &substituted.attestations {
            let envelope = Envelope::parse(text.as_bytes())?;
            let attested = Attestation::from_payload(envelope.payload())?;
            let outputs = attested.realisation.outputs.into_values().collect();
            let (is_whole, is_lost) = (is_whole(&substituted.derivation), store.is_lost(id));
            shares.push(Share { envelope, derivation: *id, outputs, is_pinned, is_whole, is_lost });
        }
        return Ok(shares);
    }
    let Some(mut realisation) = store.realisation(id)? else { return Ok(Vec::new()) };
    let Some(json) = store.derivation_json(id)? else { return Ok(Vec::new()) };
    let derivation: Derivation = serde_json::from_str(&json)?;
    keep_useful_layers(&mut realisation, store);
    let context = context(&derivation);
    let is_pinned = is_pinned(&derivation);
    let attestation = Attestation { realisation, derivation, context };
    let envelope = attestation.sign(key)?;
    let outputs = attestation.realisation.outputs.into_values().collect();
    let is_whole = is_whole(&attestation.derivation);
    let is_lost = store.is_lost(id);
    Ok(vec![Share { envelope, derivation: *id, outputs, is_pinned, is_whole, is_lost }])
}

/// What an image uses is enough to make the store's own form from.
fn keep_useful_layers(realisation: &mut Realisation, store: &Store) {
    for output in realisation.outputs.values_mut() {
        output.layers.retain(|layer| store.has_blob(&layer.digest));
        if output.layers.iter().any(|layer| layer.compression != Compression::Store1) {
            output.layers.retain(|layer| layer.compression != Compression::Store1);
        }
    }
}

fn is_whole(derivation: &Derivation) -> bool {
    derivation.builder == IMAGE_BUILDER
}

fn is_pinned(derivation: &Derivation) -> bool {
    PINNED_BUILDERS.contains(&derivation.builder.as_str())
}

fn context(derivation: &Derivation) -> BuildContext {
    let sandbox = match derivation.sandbox {
        Some(_) => SandboxMode::Namespaces,
        None => SandboxMode::Unused,
    };
    // Derivations name Debian's architecture.
    let host = Platform::host().map(|host| format!("linux/{}", host.debian_name()));
    let is_foreign = derivation.platform.is_some() && derivation.platform != host;
    BuildContext { sandbox, emulation: derivation.sandbox.is_some() && is_foreign }
}

/// The kind of the store's facts about which derivations an image stands on. A build writes it, and
/// what is lost of it costs nothing but a build.
const FACT: &str = "stands-on";

fn fact_key(image: &Path, platform: &str) -> String {
    format!("{platform} {}", image.display())
}

/// Remembers all derivations that a build asked for.
pub fn remember_used(store: &Store, image: &Path, platform: &str) -> Result<(), Failure> {
    let ids: Vec<String> = store.used_derivations().iter().map(ToString::to_string).collect();
    Ok(store.put_fact(FACT, &fact_key(image, platform), &ids.join(" "))?)
}

/// The derivations that the last build of an image asked for; `None` before the first one.
pub fn used(
    store: &Store,
    image: &Path,
    platform: &str,
) -> Result<Option<Vec<DerivationId>>, Failure> {
    let fact = store.fact(FACT, &fact_key(image, platform))?;
    let read = |text: String| text.split(' ').filter_map(|id| id.parse().ok()).collect();
    Ok(fact.map(read))
}

/// Whether image.toml named a cache: a project's cache is read only.
fn is_of_project(origin: &Origin, image: &Image) -> bool {
    matches!(origin, Origin::File { file, .. } if file == image.text.name())
}
