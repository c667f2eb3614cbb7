//! Asking binary caches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use data_encoding::BASE64;
use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::substituter::{Substitute, Substituter, Wanted};
use drystone_store::with_causes;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::{
    BUNDLE_TYPE, ENVELOPE_MEDIA_TYPE, REALISATION_TYPE, Subject, layer_of_type, layers_of,
    realisation_tag, small_blob, small_blobs_in,
};
use crate::agreement::{self, AgreementError, Opinion};
use crate::attestation::{Attestation, verify};
use crate::bundle::{self, Bundle};
use crate::descriptor::Descriptor;
use crate::dsse::{Envelope, MAX_ENVELOPE};
use crate::error::RegistryError;
use crate::key::{KeyId, PublicKey};
use crate::reference::{Tag, Target};
use crate::repository::Repository;
use crate::small_blobs::{self, SmallBlobs};
use crate::trust::Trust;

/// Look-ups that are under way at once, in each cache.
const LOOKUPS: usize = 32;
/// Failures in a row after which a cache is not asked any more.
const PATIENCE: u32 = 3;

/// Binary caches in the order in which they are asked, and whom to believe.
pub struct Caches {
    caches: Vec<Cache>,
    trust: Trust,
    now: i64,
    subjects: Vec<Subject>,
    runtime: Handle,
    looked: Mutex<Looked>,
}

/// One cache, and what is known of it.
struct Cache {
    repository: Arc<dyn Repository>,
    state: Mutex<State>,
    /// What the image's bundles bring beside attestations, fetched when the first of them is wanted.
    small: OnceCell<Vec<SmallBlobs>>,
}

#[derive(Default)]
struct State {
    /// The attestations of the image's bundles; `None` before they were asked for.
    bundle: Option<Arc<Bundle>>,
    /// Blobs that manifests carried along.
    carried: HashMap<BlobDigest, Bytes>,
    /// Where the bundles' small blobs are.
    small: Vec<Descriptor>,
    failures: u32,
}

/// What looking in caches gave, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Looked {
    /// Derivations that a cache knew.
    pub found: u64,
    /// Derivations that no cache knew, or nobody trusted.
    pub missed: u64,
    /// Blobs that were fetched.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Derivations about which trusted builders disagree, each as one line.
    pub disagreements: Vec<String>,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it still answers.
    fn is_alive(&self) -> bool {
        self.state().failures < PATIENCE
    }

    /// Notes how a request went; a failure is told and is no failure of the build.
    fn noted<T>(&self, answer: Result<Option<T>, RegistryError>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.state().failures = 0;
                value
            }
            Err(error) => {
                let mut state = self.state();
                state.failures += 1;
                let more =
                    if state.failures == PATIENCE { "; it is not asked any more" } else { "" };
                tracing::warn!(
                    "the cache {}: {}{more}",
                    self.repository.location(),
                    with_causes(&error)
                );
                None
            }
        }
    }

    /// The one blob of interest of a tagged artifact.
    async fn artifact_blob(
        &self,
        tag: Tag,
        artifact_type: &str,
        media_type: &str,
        most: u64,
    ) -> Option<Bytes> {
        let target = Target::Tag(tag);
        let manifest = self.noted(self.repository.manifest(&target).await)?;
        let layers = layers_of(&manifest, artifact_type)?;
        let layer = layer_of_type(&layers, media_type, most)?;
        let bytes = self.noted(small_blob(&self.repository, layer).await)?;
        let others = layers.iter().filter(|other| other.digest != layer.digest);
        let carried = others.filter_map(|other| Some((other.digest, other.embedded()?)));
        let mut state = self.state();
        state.carried.extend(carried);
        // Bundles are few; whatever else a cache holds must not make its readers fetch so much.
        let small = small_blobs_in(&layers).filter(|_| artifact_type == BUNDLE_TYPE);
        state.small.extend(small.cloned());
        Some(bytes)
    }

    /// A blob that the image's bundles bring.
    async fn small(&self, digest: &BlobDigest, size: u64) -> Option<Bytes> {
        if size > small_blobs::MOST {
            return None;
        }
        let all = self.small.get_or_init(async || {
            let mut all = Vec::new();
            let places = std::mem::take(&mut self.state().small);
            for place in places {
                let Some(bytes) = self.noted(small_blob(&self.repository, &place).await) else {
                    continue;
                };
                match SmallBlobs::decode(&bytes) {
                    Ok(blobs) => all.push(blobs),
                    Err(error) => {
                        let location = self.repository.location();
                        tracing::warn!("small blobs of {location} ({}): {error}", place.digest);
                    }
                }
            }
            all
        });
        all.await.iter().find_map(|blobs| blobs.get(digest)).cloned()
    }

    /// All attestations of the bundles that the keys' owners wrote, asked for once.
    async fn bundle(&self, subjects: &[Subject], keys: &[KeyId]) -> Arc<Bundle> {
        if let Some(bundle) = &self.state().bundle {
            return Arc::clone(bundle);
        }
        let mut all = Bundle::default();
        for (subject, key) in subjects.iter().flat_map(|it| keys.iter().map(move |key| (it, key))) {
            let found = self.artifact_blob(
                subject.tag(*key),
                BUNDLE_TYPE,
                bundle::MEDIA_TYPE,
                bundle::MAX_BUNDLE,
            );
            let Some(bytes) = found.await else { continue };
            match Bundle::decode(&bytes) {
                Ok(bundle) => {
                    for envelope in bundle.envelopes() {
                        // What cannot be joined is an attestation less, and asked for alone.
                        let _ = all.insert(envelope.clone());
                    }
                }
                Err(error) => {
                    tracing::warn!("a bundle of {}: {error}", self.repository.location());
                }
            }
        }
        let all = Arc::new(all);
        self.state().bundle = Some(Arc::clone(&all));
        all
    }

    /// What one key's owner, or anybody, says of a derivation.
    async fn envelope(&self, derivation: DerivationId, key: Option<KeyId>) -> Option<Envelope> {
        let bytes = self
            .artifact_blob(
                realisation_tag(&derivation, key),
                REALISATION_TYPE,
                ENVELOPE_MEDIA_TYPE,
                MAX_ENVELOPE as u64,
            )
            .await?;
        match Envelope::parse(&bytes) {
            Ok(envelope) => Some(envelope),
            Err(error) => {
                let place = self.repository.location();
                tracing::warn!("an attestation of {place} ({derivation}): {error}");
                None
            }
        }
    }
}

impl Caches {
    /// Caches that will be asked in this order for what `subjects` are made of.
    pub fn new(
        repositories: Vec<Arc<dyn Repository>>,
        trust: Trust,
        now: i64,
        subjects: Vec<Subject>,
        runtime: Handle,
    ) -> Self {
        let cache =
            |repository| Cache { repository, state: Mutex::default(), small: OnceCell::new() };
        let caches = repositories.into_iter().map(cache).collect();
        Self { caches, trust, now, subjects, runtime, looked: Mutex::default() }
    }

    /// What looking in them gave so far.
    pub fn looked(&self) -> Looked {
        self.lock().clone()
    }

    /// The repositories, in the order in which they are asked.
    pub fn repositories(&self) -> impl Iterator<Item = &Arc<dyn Repository>> {
        self.caches.iter().map(|cache| &cache.repository)
    }

    /// The derivations that the images' bundles hold attestations of, of keys that are trusted.
    pub fn bundled(&self) -> BTreeSet<DerivationId> {
        let keys: Vec<KeyId> = self.trust.valid_keys(self.now).map(|key| key.id()).collect();
        self.runtime.block_on(async {
            let mut all = BTreeSet::new();
            for cache in self.caches.iter().filter(|cache| cache.is_alive()) {
                all.extend(cache.bundle(&self.subjects, &keys).await.derivations().copied());
            }
            all
        })
    }

    /// Whether enough of the trusted keys are among those that vouched for something.
    pub fn believes(&self, signers: &BTreeSet<String>) -> bool {
        let known = self.trust.valid_keys(self.now).filter(|key| signers.contains(&spelled(key)));
        known.count() >= self.trust.threshold()
    }

    /// The trusted keys that a statement about a derivation is signed with.
    pub fn signers(&self, derivation: &DerivationId, attestations: &[String]) -> BTreeSet<String> {
        let envelopes = attestations.iter().filter_map(|it| Envelope::parse(it.as_bytes()).ok());
        let verified = envelopes
            .filter_map(|envelope| verify(&envelope, &self.trust, self.now, derivation).ok());
        verified.flat_map(|it| it.signers).map(|key| spelled(&key)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_all(&self, wanted: &[Wanted]) -> Vec<Substitute> {
        let keys: Vec<KeyId> = self.trust.valid_keys(self.now).map(|key| key.id()).collect();
        let mut envelopes: BTreeMap<DerivationId, Vec<Envelope>> = BTreeMap::new();
        let mut found: BTreeMap<DerivationId, Substitute> = BTreeMap::new();
        for cache in &self.caches {
            let open: Vec<&Wanted> = wanted
                .iter()
                .filter(|wanted| {
                    let known = found.get(&wanted.derivation);
                    known.is_none_or(|substitute| !substitute.is_trusted)
                })
                .collect();
            if open.is_empty() || !cache.is_alive() {
                continue;
            }
            let bundle = match open.iter().all(|wanted| wanted.is_whole) {
                true => Arc::default(),
                false => cache.bundle(&self.subjects, &keys).await,
            };
            let ask = |wanted: &Wanted| {
                let id = wanted.derivation;
                let known = bundle.of(&id);
                let signed: BTreeSet<KeyId> = known
                    .iter()
                    .flat_map(|envelope| envelope.signatures().iter().map(|it| it.key))
                    .collect();
                let mut questions = Vec::new();
                // One key of several is enough unless more must agree.
                if known.is_empty() || signed.len() < self.trust.threshold() {
                    let missing = keys.iter().filter(|key| !signed.contains(key));
                    questions.extend(missing.map(|key| Some(*key)));
                }
                let is_pinned = !wanted.pinned.is_empty();
                if known.is_empty() && is_pinned {
                    questions.push(None);
                }
                let before = envelopes.get(&id).cloned().unwrap_or_default();
                let mut new = known.to_vec();
                async move {
                    let ask = async |key| match cache.is_alive() {
                        true => cache.envelope(id, key).await,
                        false => None,
                    };
                    let answers = futures_util::future::join_all(questions.into_iter().map(ask));
                    new.extend(answers.await.into_iter().flatten());
                    if new.is_empty() {
                        return None;
                    }
                    let all = [before, new].concat();
                    // Signatures are verified while others' answers are on their way.
                    let substitute = self.judge(&id, &all, is_pinned);
                    Some((id, all, substitute))
                }
            };
            let asked: Vec<_> = open.into_iter().map(ask).collect();
            let answers: Vec<_> = futures_util::stream::iter(asked)
                .buffer_unordered(LOOKUPS)
                .filter_map(std::future::ready)
                .collect()
                .await;
            for (id, all, substitute) in answers {
                envelopes.insert(id, all);
                found.extend(substitute.map(|substitute| (id, substitute)));
            }
        }
        let mut looked = self.lock();
        // Without the whole its parts are asked for, and these count.
        for part in wanted.iter().filter(|wanted| !wanted.is_whole) {
            match found.contains_key(&part.derivation) {
                true => looked.found += 1,
                false => looked.missed += 1,
            }
        }
        drop(looked);
        found.into_values().collect()
    }

    /// What holds of all that is said about a derivation.
    fn judge(
        &self,
        id: &DerivationId,
        envelopes: &[Envelope],
        is_pinned: bool,
    ) -> Option<Substitute> {
        let text = |envelope: &Envelope| envelope.to_json();
        let verified = envelopes.iter().filter_map(|envelope| {
            match verify(envelope, &self.trust, self.now, id) {
                Ok(verified) => Some(verified),
                Err(error) => {
                    tracing::debug!("an attestation of {id} is not believed: {error}");
                    None
                }
            }
        });
        match agreement::agree(verified, self.trust.threshold()) {
            Ok(agreement) => {
                for dissent in &agreement.dissent {
                    self.disagree(&[agreement.opinion.clone(), dissent.clone()], id);
                }
                let Attestation { realisation, derivation, .. } = agreement.opinion.attestation;
                return Some(Substitute {
                    realisation,
                    derivation,
                    attestations: envelopes.iter().map(text).collect(),
                    is_trusted: true,
                });
            }
            Err(AgreementError::Disagreement { opinions, .. }) => {
                self.disagree(&opinions, id);
                return None;
            }
            Err(_) => {}
        }
        if !is_pinned {
            return None;
        }
        // The lock pins the trees, so whoever says where their bytes are is as good as any other.
        let attestation = envelopes.iter().find_map(|envelope| {
            let attestation = Attestation::from_payload(envelope.payload()).ok()?;
            (attestation.realisation.derivation == *id).then_some((attestation, text(envelope)))
        });
        let (Attestation { realisation, derivation, .. }, envelope) = attestation?;
        let attestations = vec![envelope];
        Some(Substitute { realisation, derivation, attestations, is_trusted: false })
    }

    fn disagree(&self, opinions: &[Opinion], id: &DerivationId) {
        let said: Vec<String> = opinions.iter().map(ToString::to_string).collect();
        let line = format!("builders disagree about derivation {id}: {}", said.join("; "));
        let mut looked = self.lock();
        if !looked.disagreements.contains(&line) {
            tracing::warn!("{line}");
            looked.disagreements.push(line);
        }
    }

    async fn copy(
        &self,
        cache: &Cache,
        digest: &BlobDigest,
        size: u64,
        writer: &mut dyn Write,
    ) -> io::Result<bool> {
        let carried = cache.state().carried.remove(digest);
        if let Some(bytes) = carried {
            writer.write_all(&bytes)?;
            return Ok(true);
        }
        if let Some(bytes) = cache.small(digest, size).await {
            writer.write_all(&bytes)?;
        } else {
            // The store hashes what it writes, and takes nothing else.
            let answer = cache.repository.unhashed_blob(digest, size).await;
            let Some(mut blob) = answer.map_err(io::Error::other)? else { return Ok(false) };
            while let Some(piece) = blob.next().await {
                writer.write_all(&piece.map_err(io::Error::other)?)?;
            }
        }
        let mut looked = self.lock();
        looked.blobs += 1;
        looked.bytes += size;
        Ok(true)
    }
}

/// A key without its name, which is everybody's own.
fn spelled(key: &PublicKey) -> String {
    BASE64.encode(key.as_bytes())
}

impl Substituter for Caches {
    fn find(&self, wanted: &[Wanted]) -> Vec<Substitute> {
        self.runtime.block_on(self.find_all(wanted))
    }

    fn identity(&self) -> Option<String> {
        let failed = self.caches.iter().any(|cache| cache.state().failures > 0);
        if failed || !self.lock().disagreements.is_empty() {
            return None;
        }
        let caches = self.caches.iter().map(|cache| cache.repository.location().to_string());
        let keys = self.trust.valid_keys(self.now).map(spelled);
        let parts: Vec<String> = caches.chain(keys).collect();
        Some(format!("{} {}", self.trust.threshold(), parts.join(" ")))
    }

    fn sources(&self) -> usize {
        self.caches.len()
    }

    fn fetch(
        &self,
        source: usize,
        digest: &BlobDigest,
        size: u64,
        writer: &mut dyn Write,
    ) -> io::Result<bool> {
        let Some(cache) = self.caches.get(source) else { return Ok(false) };
        self.runtime.block_on(self.copy(cache, digest, size, writer))
    }
}
