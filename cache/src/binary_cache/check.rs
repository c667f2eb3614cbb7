//! Checking a cache: everything that its manifests and bundles name is read and hashed again.
//!
//! ```text
//! tags, bundles ──> attestations ──> blobs, each once ──> tree, diff_id, size, listing
//!        │               │                                        │
//!        └───────────────┴── compared ────────────────────────────┘ ──> problems
//! ```
//!
//! A signature can be checked only with its key, so those of keys that the user does not trust are
//! counted and not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use drystone_store::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Examined, examine_layer};
use drystone_store::with_causes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{ENVELOPE_MEDIA_TYPE, HeldRealisation, Inventory, parts_of};
use crate::attestation::Attestation;
use crate::descriptor::Descriptor;
use crate::dsse::Envelope;
use crate::error::RegistryError;
use crate::reference::Target;
use crate::repository::Repository;
use crate::stream::BlobStream;
use crate::trust::Trust;

/// Blobs that are read at once.
const AT_ONCE: usize = 4;
/// Pieces of a blob that wait for the one who hashes them.
const QUEUE: usize = 8;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// An artifact cannot be read.
    Unreadable,
    /// A blob is not there.
    Missing,
    /// A blob is not what its digest says.
    Damaged,
    /// An attestation is none, or of another derivation, or lacks the signature of its tag's key.
    Attestation,
    /// A signature of a trusted key is wrong.
    Signature,
    /// A manifest names other blobs than its attestation.
    Layers,
    /// A layer or a listing is another tree's than the attestation says.
    Content,
    /// A bundle names what no realisation's manifest keeps from the registry's own collection.
    Unheld,
}

/// Something that is wrong in a cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The tag of the artifact.
    pub tag: String,
    /// What kind of thing is wrong.
    pub kind: ProblemKind,
    /// What is wrong, as people read it.
    pub message: String,
    /// The blob that is missing or damaged.
    pub blob: Option<BlobDigest>,
}

/// What a check read and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Realisations that were checked.
    pub realisations: u64,
    /// Bundles that were checked.
    pub bundles: u64,
    /// Blobs that were read, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Signatures that trusted keys made.
    pub signatures: u64,
    /// Signatures of keys that the user does not trust, which nobody here can check.
    pub unchecked_signatures: u64,
    /// All that is wrong, by tag.
    pub problems: Vec<Problem>,
}

/// What a layer's or a listing's blob turned out to be.
enum Found {
    Layer { hash: TreeHash, diff_id: DiffId, size: u64, listing: BlobDigest },
    Whole,
    Wrong(ProblemKind, String),
}

/// An attestation of a tag.
struct Said<'a> {
    tag: &'a str,
    outputs: Vec<Output>,
}

/// A blob to read: its size, and how a layer is compressed.
type Wanted = BTreeMap<BlobDigest, (u64, Option<Compression>)>;

/// Reads and hashes everything that is in an inventory, and lists every problem.
///
/// # Errors
/// A cache that cannot be asked.
pub async fn check(
    cache: &Arc<dyn Repository>,
    inventory: &Inventory,
    trust: &Trust,
    tell: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Checked, RegistryError> {
    let mut checked = Checked {
        realisations: inventory.realisations.len() as u64,
        bundles: inventory.bundles.len() as u64,
        ..Checked::default()
    };
    let unreadable = inventory.unreadable.iter().map(|it| Problem {
        tag: it.tag.clone(),
        kind: ProblemKind::Unreadable,
        message: it.reason.clone(),
        blob: None,
    });
    checked.problems.extend(unreadable);
    let mut said = Vec::new();
    for (held, envelope) in envelopes(cache, inventory).await? {
        let envelope = match envelope {
            Ok(envelope) => envelope,
            Err(problem) => {
                checked.problems.push(problem);
                continue;
            }
        };
        let tag = held.tag.as_str();
        signatures(&mut checked, tag, &envelope, trust);
        match attested(held, &envelope) {
            Ok(outputs) => said.push(Said { tag, outputs }),
            Err(problems) => checked.problems.extend(problems),
        }
    }
    bundles(&mut checked, inventory, trust, &mut said);
    let wanted = wanted(&said);
    let found = read_all(cache, &wanted, tell).await?;
    checked.blobs = wanted.len() as u64;
    checked.bytes = wanted.values().map(|(size, _)| size).sum();
    for one in &said {
        let problems = one.outputs.iter().flat_map(|output| compare(one.tag, output, &found));
        checked.problems.extend(problems);
    }
    checked.problems.sort();
    checked.problems.dedup();
    Ok(checked)
}

fn problem(tag: &str, kind: ProblemKind, message: impl Into<String>) -> Problem {
    Problem { tag: tag.to_owned(), kind, message: message.into(), blob: None }
}

/// The attestation of each realisation.
async fn envelopes<'a>(
    cache: &Arc<dyn Repository>,
    inventory: &'a Inventory,
) -> Result<Vec<(&'a HeldRealisation, Result<Envelope, Problem>)>, RegistryError> {
    let read = |held: &'a HeldRealisation| async move {
        let tag = held.tag.as_str();
        let Some((digest, size)) = held.envelope() else {
            let message = "its manifest names no attestation";
            return Ok((held, Err(problem(tag, ProblemKind::Attestation, message))));
        };
        let envelope = match cache.blob_bytes(&digest, size).await {
            Ok(Some(bytes)) => Envelope::parse(&bytes)
                .map_err(|error| problem(tag, ProblemKind::Attestation, with_causes(&error))),
            Ok(None) => Err(missing(tag, &digest)),
            Err(error) if error.is_answer() => Err(damaged(tag, &digest, with_causes(&error))),
            Err(error) => return Err(error),
        };
        Ok((held, envelope))
    };
    futures_util::stream::iter(inventory.realisations.iter().map(read))
        .buffered(AT_ONCE * 4)
        .try_collect()
        .await
}

fn missing(tag: &str, digest: &BlobDigest) -> Problem {
    let message = format!("its blob {digest} is not there");
    Problem { blob: Some(*digest), ..problem(tag, ProblemKind::Missing, message) }
}

fn damaged(tag: &str, digest: &BlobDigest, message: String) -> Problem {
    Problem { blob: Some(*digest), ..problem(tag, ProblemKind::Damaged, message) }
}

/// Judges the signatures of keys that are known.
fn signatures(checked: &mut Checked, tag: &str, envelope: &Envelope, trust: &Trust) {
    let message = envelope.signed_bytes();
    for signature in envelope.signatures() {
        let mut known = trust.find(signature.key).peekable();
        if known.peek().is_none() {
            checked.unchecked_signatures += 1;
            continue;
        }
        match known.any(|trusted| trusted.key.verifies(&message, &signature.bytes)) {
            true => checked.signatures += 1,
            false => {
                let message = format!("the signature of the key {} is wrong", signature.key);
                checked.problems.push(problem(tag, ProblemKind::Signature, message));
            }
        }
    }
}

/// What an artifact's attestation says of outputs, if it is what tag and manifest say.
fn attested(held: &HeldRealisation, envelope: &Envelope) -> Result<Vec<Output>, Vec<Problem>> {
    let tag = held.tag.as_str();
    let wrong = |message: String| vec![problem(tag, ProblemKind::Attestation, message)];
    let attestation = Attestation::from_payload(envelope.payload())
        .map_err(|error| wrong(with_causes(&error)))?;
    let derivation = attestation.realisation.derivation;
    if derivation != held.derivation {
        return Err(wrong(format!("its attestation is of derivation {derivation}")));
    }
    if let Some(key) = held.key
        && !envelope.signatures().iter().any(|signature| signature.key == key)
    {
        return Err(wrong(format!("its attestation is not signed by the key {key}")));
    }
    let outputs: Vec<Output> = attestation.realisation.outputs.into_values().collect();
    let known = |layer: &&Descriptor| layer.media_type != ENVELOPE_MEDIA_TYPE;
    let named: Vec<&Descriptor> = held.layers.iter().filter(known).collect();
    let is_false = |it: &&Descriptor| it.data.is_some() && it.embedded().is_none();
    let falsely = held.layers.iter().filter(is_false);
    let falsely = falsely.map(|it| format!("its manifest carries other bytes for {}", it.digest));
    let expected = parts_of(&outputs);
    let lacks = expected.iter().filter(|part| !named.iter().any(|it| it.is_same(part)));
    let lacks = lacks.map(|part| format!("its manifest does not name {}", part.digest));
    let extra = named.iter().filter(|part| !expected.iter().any(|it| it.is_same(part)));
    let extra = extra.map(|part| format!("nobody attests its {}", part.digest));
    let problems: Vec<Problem> = lacks
        .chain(extra)
        .chain(falsely)
        .map(|text| problem(tag, ProblemKind::Layers, text))
        .collect();
    if problems.is_empty() { Ok(outputs) } else { Err(problems) }
}

/// Checks the attestations of bundles. What they name must be kept by a realisation's manifest.
fn bundles<'a>(
    checked: &mut Checked,
    inventory: &'a Inventory,
    trust: &Trust,
    said: &mut Vec<Said<'a>>,
) {
    let kept = inventory.blobs();
    for held in &inventory.bundles {
        let tag = held.tag.as_str();
        for envelope in held.bundle.envelopes() {
            signatures(checked, tag, envelope, trust);
            let attestation = match Attestation::from_payload(envelope.payload()) {
                Ok(attestation) => attestation,
                Err(error) => {
                    let message = with_causes(&error);
                    checked.problems.push(problem(tag, ProblemKind::Attestation, message));
                    continue;
                }
            };
            let derivation = attestation.realisation.derivation;
            let outputs: Vec<Output> = attestation.realisation.outputs.into_values().collect();
            if parts_of(&outputs).iter().any(|part| !kept.contains_key(&part.digest)) {
                let message = format!("no manifest keeps what it says of derivation {derivation}");
                checked.problems.push(problem(tag, ProblemKind::Unheld, message));
            }
            said.push(Said { tag, outputs });
        }
    }
}

/// All blobs to read.
fn wanted(said: &[Said<'_>]) -> Wanted {
    let mut wanted = Wanted::new();
    for output in said.iter().flat_map(|one| &one.outputs) {
        wanted.entry(output.listing.digest).or_insert((output.listing.size, None));
        for layer in &output.layers {
            wanted.insert(layer.digest, (layer.size, Some(layer.compression)));
        }
    }
    wanted
}

async fn read_all(
    cache: &Arc<dyn Repository>,
    wanted: &Wanted,
    tell: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<BTreeMap<BlobDigest, Found>, RegistryError> {
    let done = std::sync::atomic::AtomicU64::new(0);
    let read = |(digest, (size, compression)): (&BlobDigest, &(u64, Option<Compression>))| {
        let (digest, size, compression, done) = (*digest, *size, *compression, &done);
        async move {
            let found = read_one(cache, &digest, size, compression).await?;
            let count = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            tell(count, wanted.len() as u64);
            Ok::<_, RegistryError>((digest, found))
        }
    };
    futures_util::stream::iter(wanted.iter().map(read))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn read_one(
    cache: &Arc<dyn Repository>,
    digest: &BlobDigest,
    size: u64,
    compression: Option<Compression>,
) -> Result<Found, RegistryError> {
    let wrong = |error: &RegistryError| Found::Wrong(ProblemKind::Damaged, with_causes(error));
    let blob = match cache.blob(digest, size).await {
        Ok(Some(blob)) => blob,
        Ok(None) => {
            return Ok(Found::Wrong(
                ProblemKind::Missing,
                format!("its blob {digest} is not there"),
            ));
        }
        Err(error) if error.is_answer() => return Ok(wrong(&error)),
        Err(error) => return Err(error),
    };
    match examine(blob, compression).await {
        Ok(found) => Ok(found),
        Err(error) if error.is_answer() => Ok(wrong(&error)),
        Err(error) => Err(error),
    }
}

/// Reads a blob to its end, and a layer as the tree that it holds, on a thread of its own.
async fn examine(
    mut blob: BlobStream,
    compression: Option<Compression>,
) -> Result<Found, RegistryError> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader = compression.map(|compression| {
        tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces { receiver, current: Bytes::new() };
            examine_layer(&mut pieces, compression)
        })
    });
    while let Some(piece) = blob.next().await {
        // Whoever listens no longer has seen enough; the digest is still to be known.
        let _ = sender.send(piece?).await;
    }
    drop(sender);
    let Some(reader) = reader else { return Ok(Found::Whole) };
    Ok(match reader.await.map_err(RegistryError::Task)? {
        Ok(examined) => described(&examined),
        Err(error) => Found::Wrong(ProblemKind::Content, with_causes(&error)),
    })
}

fn described(examined: &Examined) -> Found {
    match examined.listing.encode() {
        Ok(listing) => Found::Layer {
            hash: examined.hash,
            diff_id: examined.diff_id,
            size: examined.size,
            listing: BlobDigest::of(&listing),
        },
        Err(error) => Found::Wrong(ProblemKind::Content, with_causes(&error)),
    }
}

/// The pieces of a blob, as something to read.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// What is wrong with an output's blobs.
fn compare(tag: &str, output: &Output, found: &BTreeMap<BlobDigest, Found>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |digest: &BlobDigest, kind: ProblemKind, message: String| {
        problems.push(Problem { blob: Some(*digest), ..problem(tag, kind, message) });
    };
    if let Some(Found::Wrong(kind, message)) = found.get(&output.listing.digest) {
        wrong(&output.listing.digest, *kind, message.clone());
    }
    for layer in &output.layers {
        match found.get(&layer.digest) {
            Some(Found::Wrong(kind, message)) => wrong(&layer.digest, *kind, message.clone()),
            Some(Found::Layer { hash, diff_id, size, listing }) => {
                let path = &output.path;
                let facts = [
                    ("tree", path.hash().to_string(), hash.to_string()),
                    ("diff_id", output.diff_id.to_string(), diff_id.to_string()),
                    ("size", output.size.to_string(), size.to_string()),
                    ("listing", output.listing.digest.to_string(), listing.to_string()),
                ];
                for (what, expected, actual) in facts {
                    if expected != actual {
                        let message = format!("the {what} of {path} is {actual}, not {expected}");
                        wrong(&layer.digest, ProblemKind::Content, message);
                    }
                }
            }
            _ => {}
        }
    }
    problems
}

/// What a repair removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Tags that were removed, with the artifacts that they named.
    pub tags: Vec<String>,
    /// Damaged blobs that were removed.
    pub blobs: u64,
    /// What the cache did not let go, with the reasons.
    pub failed: Vec<String>,
}

/// Removes what is wrong, so that whoever builds it next with a key shares it anew: the artifacts
/// with problems, the bundles that promise what they hold, and blobs that are damaged.
///
/// # Errors
/// A cache that cannot be asked.
pub async fn repair(
    cache: &Arc<dyn Repository>,
    inventory: &Inventory,
    checked: &Checked,
) -> Result<Repaired, RegistryError> {
    let bad: BTreeSet<&str> = checked.problems.iter().map(|it| it.tag.as_str()).collect();
    let realisations = inventory.realisations.iter().filter(|it| bad.contains(it.tag.as_str()));
    let derivations: BTreeSet<DerivationId> = realisations.map(|it| it.derivation).collect();
    let mut doomed: BTreeMap<BlobDigest, Vec<String>> = BTreeMap::new();
    for held in inventory.realisations.iter().filter(|it| derivations.contains(&it.derivation)) {
        doomed.entry(held.manifest.digest).or_default().push(held.tag.to_string());
    }
    for held in &inventory.bundles {
        let is_bad = bad.contains(held.tag.as_str());
        if is_bad || held.bundle.derivations().any(|id| derivations.contains(id)) {
            doomed.entry(held.manifest.digest).or_default().push(held.tag.to_string());
        }
    }
    for it in &inventory.unreadable {
        if let Some(manifest) = it.manifest {
            doomed.entry(manifest).or_default().push(it.tag.clone());
        }
    }
    let mut repaired = Repaired::default();
    for (manifest, tags) in doomed {
        match cache.delete_manifest(&Target::Digest(manifest)).await {
            Ok(_) => repaired.tags.extend(tags),
            Err(error) => {
                repaired.failed.push(format!("{}: {}", tags.join(" "), with_causes(&error)))
            }
        }
    }
    let damaged = checked.problems.iter().filter(|it| it.kind == ProblemKind::Damaged);
    let blobs: BTreeSet<BlobDigest> = damaged.filter_map(|it| it.blob).collect();
    for blob in blobs {
        match cache.delete_blob(&blob).await {
            Ok(_) => repaired.blobs += 1,
            Err(error) => repaired.failed.push(format!("{blob}: {}", with_causes(&error))),
        }
    }
    repaired.tags.sort();
    Ok(repaired)
}
