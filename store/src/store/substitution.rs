//! What binary caches know, as this store uses it.
//!
//! A realisation of a substituter is remembered beside the store's own (table `substitutes`), so
//! the tables of trees and derivations keep naming only what is there. Its blobs are fetched when
//! bytes are needed, and become trees of the store once they were read to the end: digest, tree
//! hash, `diff_id` and listing must all be what was said.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{OptionalExtension, params};

use super::growing::{GrowingReader, GrowingWriter, Growth};
use super::verify::content::{Examined, encode_listing, examine_layer_beside};
use super::{BlobWriter, Store, StoreError, now};
use crate::derivation::Derivation;
use crate::digest::{BlobDigest, DerivationId};
use crate::layer::Layer;
use crate::path::StorePath;
use crate::realisation::{ListingRef, Output, Realisation};
use crate::substituter::{Substitute, Substituter, Wanted};
use crate::tar::ReadError;
use crate::with_causes;

/// Blobs that are fetched at once: small ones cost a round trip each.
const FETCHES: usize = 8;

/// From this size on, in bytes, a blob is read while it comes; a thread costs more than the rest.
const BESIDE: u64 = 1 << 20;

/// The kind of the store's facts about what caches did not know.
const MISSES: &str = "cache-misses";
/// How long that is believed, in seconds: long enough for the next command, and short enough for
/// whoever waits for another machine to share something.
const MISS_LIFE: i64 = 30;

/// The caches that a store asks, and what it learned of them in this process.
#[derive(Default)]
pub(super) struct Substitution {
    substituter: Option<Arc<dyn Substituter>>,
    learned: Mutex<Learned>,
}

#[derive(Default)]
struct Learned {
    /// Derivations that need not be asked for again: nobody knows them, or not for good.
    asked: HashSet<DerivationId>,
    /// Blobs that caches have.
    remote: HashSet<BlobDigest>,
    /// Derivations whose realisations were looked up or made.
    used: BTreeSet<DerivationId>,
    /// Derivations of whose realisations caches had lost something.
    lost: BTreeSet<DerivationId>,
}

/// A realisation that a substituter gave, with what it was proved by.
#[derive(Debug, Clone, PartialEq)]
pub struct Substituted {
    /// What the derivation gave.
    pub realisation: Realisation,
    /// The derivation.
    pub derivation: Derivation,
    /// The signed statements, each as JSON.
    pub attestations: Vec<String>,
}

impl Substitution {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Asks a substituter from now on for what the store lacks.
    pub fn substitute_from(&mut self, substituter: Arc<dyn Substituter>) {
        self.substitution.substituter = Some(substituter);
    }

    /// Asks for several derivations at once, so that looking each of them up costs no round trip.
    pub fn prefetch(&self, wanted: impl IntoIterator<Item = Wanted>) -> Result<(), StoreError> {
        if self.substitution.substituter.is_none() {
            return Ok(());
        }
        let mut unknown = Vec::new();
        for wanted in wanted {
            let id = &wanted.derivation;
            if self.local_realisation(id)?.is_none() && self.substituted(id)?.is_none() {
                unknown.push(wanted);
            }
        }
        self.ask(unknown);
        Ok(())
    }

    /// Asks for a derivation whatever is remembered of it; whether it is known there now.
    pub fn is_known_to_caches(&self, wanted: Wanted) -> bool {
        !self.ask(vec![wanted]).is_empty()
    }

    /// Asks the substituter, each derivation once, and remembers the answers that may be used; what
    /// these are about.
    fn ask(&self, mut unknown: Vec<Wanted>) -> Vec<DerivationId> {
        let mut known = Vec::new();
        let Some(substituter) = &self.substitution.substituter else { return known };
        unknown.retain(|wanted| self.substitution.learned().asked.insert(wanted.derivation));
        let mut misses = substituter.identity().map(|name| self.misses(&name)).unwrap_or_default();
        unknown.retain(|wanted| wanted.is_whole || !misses.contains_key(&wanted.derivation));
        if unknown.is_empty() {
            return known;
        }
        for substitute in substituter.find(&unknown) {
            let id = substitute.realisation.derivation;
            let Some(wanted) = unknown.iter().find(|wanted| wanted.derivation == id) else {
                continue;
            };
            match self.accept(substitute, wanted) {
                Ok(()) => known.push(id),
                Err(error) => {
                    tracing::warn!("a substitute of {id} is not used: {}", with_causes(&error));
                }
            }
        }
        let missed =
            unknown.iter().map(|wanted| wanted.derivation).filter(|id| !known.contains(id));
        let before = misses.len();
        misses.extend(missed.map(|id| (id, now())));
        if misses.len() > before
            && let Some(name) = substituter.identity()
            && let Ok(text) = serde_json::to_string(&misses)
        {
            // Without it the next command asks again.
            let _ = self.put_fact(MISSES, &name, &text);
        }
        known
    }

    /// What caches did not know a moment ago, and when they were asked.
    fn misses(&self, identity: &str) -> BTreeMap<DerivationId, i64> {
        let text = self.fact(MISSES, identity).ok().flatten().unwrap_or_default();
        let mut misses: BTreeMap<DerivationId, i64> =
            serde_json::from_str(&text).unwrap_or_default();
        let now = now();
        misses.retain(|_, asked| (now - MISS_LIFE..=now).contains(asked));
        misses
    }

    /// Notes that something stands on a realisation.
    pub(super) fn note_used(&self, id: &DerivationId) {
        self.substitution.learned().used.insert(*id);
    }

    /// The derivations whose realisations were looked up or made through this handle: what a build
    /// stands on, for sharing it.
    pub fn used_derivations(&self) -> Vec<DerivationId> {
        self.substitution.learned().used.iter().copied().collect()
    }

    /// Whether caches were found, through this handle, to have lost parts of a realisation.
    pub fn is_lost(&self, id: &DerivationId) -> bool {
        self.substitution.learned().lost.contains(id)
    }

    /// What a substituter gave for a derivation, and who signed it; `None` for what was built here.
    pub fn substituted(&self, id: &DerivationId) -> Result<Option<Substituted>, StoreError> {
        let row: Option<(String, String, String)> = self.database.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT realisation, json, attestations FROM substitutes WHERE derivation = ?1",
                )?
                .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        let Some((realisation, derivation, attestations)) = row else { return Ok(None) };
        let corrupt = |_| StoreError::Corrupt { what: format!("the substitute of {id}") };
        Ok(Some(Substituted {
            realisation: serde_json::from_str(&realisation).map_err(corrupt)?,
            derivation: serde_json::from_str(&derivation).map_err(corrupt)?,
            attestations: serde_json::from_str(&attestations).map_err(corrupt)?,
        }))
    }

    /// The realisation of a derivation as caches know it, if its bytes are here or can be fetched.
    pub(super) fn remote_realisation(
        &self,
        id: &DerivationId,
    ) -> Result<Option<Realisation>, StoreError> {
        let mut known = self.substituted(id)?;
        if known.is_none() && self.substitution.substituter.is_some() {
            self.ask(vec![Wanted::from(*id)]);
            known = self.substituted(id)?;
        }
        let Some(Substituted { mut realisation, .. }) = known else { return Ok(None) };
        let mut learned = Vec::new();
        for output in realisation.outputs.values_mut() {
            learned.extend(output.layers.iter().map(|layer| layer.digest));
            learned.push(output.listing.digest);
            // Forms that were made here meanwhile.
            if let Some(local) = self.database.output(output.path.hash())? {
                for layer in local.layers {
                    if output.layer(layer.compression).is_none() {
                        output.layers.push(layer);
                    }
                }
            }
        }
        if self.substitution.substituter.is_some() {
            self.substitution.learned().remote.extend(learned);
            return Ok(Some(realisation));
        }
        let is_here = realisation.outputs.values().all(|output| self.is_present(output));
        Ok(is_here.then_some(realisation))
    }

    /// Whether a tree's listing and one of its layers are here.
    pub fn is_present(&self, output: &Output) -> bool {
        self.has_blob(&output.listing.digest)
            && output.layers.iter().any(|layer| self.has_blob(&layer.digest))
    }

    /// Whether a cache has this blob, as far as was learned.
    pub(super) fn is_remote(&self, digest: &BlobDigest) -> bool {
        self.substitution.substituter.is_some()
            && self.substitution.learned().remote.contains(digest)
    }

    fn is_tree_remote(&self, output: &Output) -> bool {
        output.layers.iter().any(|layer| self.is_remote(&layer.digest))
    }

    /// Looks an answer over and remembers it.
    fn accept(&self, substitute: Substitute, wanted: &Wanted) -> Result<(), StoreError> {
        let Substitute { mut realisation, derivation, attestations, is_trusted } = substitute;
        let id = derivation.id();
        let mismatch = |what: &str, expected: &dyn ToString, actual: &dyn ToString| {
            Err(StoreError::Mismatch {
                what: what.to_owned(),
                expected: expected.to_string(),
                actual: actual.to_string(),
            })
        };
        if id != wanted.derivation || realisation.derivation != id {
            return mismatch("the substitute's derivation", &wanted.derivation, &id);
        }
        let declared: BTreeSet<&String> = derivation.outputs.iter().collect();
        if declared != realisation.outputs.keys().collect() {
            let outputs: Vec<&String> = realisation.outputs.keys().collect();
            return mismatch("its outputs", &derivation.outputs.join(" "), &format!("{outputs:?}"));
        }
        for (name, tree) in &wanted.pinned {
            let output = realisation.outputs.get(name).map(|output| *output.path.hash());
            if output != Some(*tree) {
                let actual = output.map_or_else(|| "nothing".to_owned(), |tree| tree.to_string());
                return mismatch(&format!("its output {name}"), tree, &actual);
            }
        }
        if !is_trusted {
            if !realisation.outputs.keys().all(|name| wanted.pinned.contains_key(name)) {
                return mismatch("its signatures", &"trusted ones", &"none");
            }
            // Nobody vouches for what is said beside the trees' hashes: only bytes prove them.
            for output in realisation.outputs.values_mut() {
                *output = self.fetch_tree(output, false)?;
            }
        }
        let text = |value: Result<String, serde_json::Error>| {
            value.map_err(|error| StoreError::Corrupt { what: error.to_string() })
        };
        let realisation = text(serde_json::to_string(&realisation))?;
        let attestations = text(serde_json::to_string(&attestations))?;
        self.database.write(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO substitutes VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    id.to_string(),
                    realisation,
                    derivation.to_json(),
                    attestations,
                    now()
                ])
                .map(drop)
        })
    }

    /// Brings a blob here whose digest and size are known; `false` when no cache has it.
    pub fn fetch_blob(&self, digest: &BlobDigest, size: u64) -> Result<bool, StoreError> {
        if self.has_blob(digest) {
            return Ok(true);
        }
        let check = |writer: BlobWriter<'_>, ()| writer.finish_as(digest);
        let fetched = self.fetch_checked(digest, size, |_| (), check)?;
        Ok(fetched.is_some())
    }

    /// Asks one cache after another for a blob until `check` takes what came, and what `beside` made
    /// of it while it came. What a cache sends wrongly, or not at all, is told and no reason to
    /// fail: another one may have it.
    fn fetch_checked<B: Send, T>(
        &self,
        digest: &BlobDigest,
        size: u64,
        beside: impl Fn(GrowingReader<'_>) -> B + Sync,
        check: impl Fn(BlobWriter<'_>, B) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let Some(substituter) = &self.substitution.substituter else { return Ok(None) };
        for source in 0..substituter.sources() {
            let mut writer = self.blob_writer()?;
            let growth = Growth::default();
            let reader = GrowingReader::new(writer.reopen()?, &growth);
            let fetch = |writer: &mut BlobWriter<'_>| {
                let mut growing = GrowingWriter::new(writer, &growth);
                let fetched = substituter.fetch(source, digest, size, &mut growing);
                if matches!(fetched, Ok(true)) {
                    growing.complete();
                }
                fetched
            };
            let (fetched, made, synced) = if size < BESIDE {
                let fetched = fetch(&mut writer);
                let made = matches!(fetched, Ok(true)).then(|| beside(reader));
                (fetched, made, Ok(()))
            } else {
                std::thread::scope(|scope| {
                    let made = scope.spawn(|| beside(reader));
                    let fetched = fetch(&mut writer);
                    // There is time for the disk while the rest is read.
                    let synced = match fetched {
                        Ok(true) => writer.sync(),
                        _ => Ok(()),
                    };
                    let made = made.join();
                    let made = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    (fetched, Some(made), synced)
                })
            };
            synced?;
            let problem = match (fetched, made) {
                (Ok(true), Some(made)) => match check(writer, made) {
                    Ok(checked) => return Ok(Some(checked)),
                    // A full disk is no fault of the cache.
                    Err(error @ (StoreError::Io { .. } | StoreError::Database { .. })) => {
                        return Err(error);
                    }
                    Err(error) => with_causes(&error),
                },
                (Ok(_), _) => continue,
                (Err(error), _) if error.kind() == std::io::ErrorKind::StorageFull => {
                    return Err(StoreError::io("fetch", self.blob_path(digest))(error));
                }
                (Err(error), _) => with_causes(&error),
            };
            tracing::warn!("blob {digest} is not taken from a cache: {problem}");
        }
        Ok(None)
    }

    /// Brings blobs here, several at once; the first that cannot be had is an error.
    pub fn fetch_blobs(
        &self,
        blobs: impl IntoIterator<Item = (BlobDigest, u64)>,
    ) -> Result<(), StoreError> {
        let blobs: BTreeMap<BlobDigest, u64> =
            blobs.into_iter().filter(|(digest, _)| !self.has_blob(digest)).collect();
        let blobs: Vec<(BlobDigest, u64)> = blobs.into_iter().collect();
        at_once(&blobs, |(digest, size)| match self.fetch_blob(digest, *size)? {
            true => Ok(()),
            false => Err(self.lost(digest)),
        })
    }

    /// Brings the bytes of trees here, several at once; what is here already costs nothing.
    pub fn fetch_trees(&self, outputs: &[&Output]) -> Result<(), StoreError> {
        let missing: Vec<&Output> = outputs
            .iter()
            .copied()
            .filter(|output| !output.layers.iter().any(|layer| self.has_blob(&layer.digest)))
            .filter(|output| self.is_tree_remote(output))
            .collect();
        at_once(&missing, |output| self.fetch_tree(output, true).map(drop))
    }

    /// Brings the listings of trees here, several at once.
    pub fn fetch_listings(&self, outputs: &[&Output]) -> Result<(), StoreError> {
        let listings = outputs.iter().map(|output| (output.listing.digest, output.listing.size));
        self.fetch_blobs(listings.filter(|(digest, _)| self.is_remote(digest)))
    }

    /// Fetches a tree's layer and reads it to the end while it comes; the output as its bytes prove
    /// it. With `is_trusted` all that was said of it must be so, else only the tree's hash.
    fn fetch_tree(&self, claimed: &Output, is_trusted: bool) -> Result<Output, StoreError> {
        let tree = *claimed.path.hash();
        let layer = claimed.layers.iter().min_by_key(|layer| layer.size);
        let layer = layer.ok_or(StoreError::NoTree(tree))?;
        // Enough to see that there is more.
        let most = claimed.size.saturating_add(1);
        let beside =
            |reader: GrowingReader<'_>| examine_layer_beside(reader, layer.compression, most);
        let check = |writer: BlobWriter<'_>, examined: Result<Examined, ReadError>| {
            let examined = examined.map_err(|source| StoreError::Read { tree, source })?;
            self.take_tree(writer, claimed, layer, is_trusted, examined)
        };
        match self.fetch_checked(&layer.digest, layer.size, beside, check)? {
            Some(output) => Ok(output),
            None => Err(self.lost(&layer.digest)),
        }
    }

    /// Names a fetched layer once all that was read of it is right: a blob that is no such tree
    /// never becomes visible.
    fn take_tree(
        &self,
        writer: BlobWriter<'_>,
        claimed: &Output,
        layer: &Layer,
        is_trusted: bool,
        examined: Examined,
    ) -> Result<Output, StoreError> {
        let tree = *claimed.path.hash();
        let (bytes, listing) = encode_listing(&examined.listing)?;
        let what = |what: &str| format!("the {what} of {} from a cache", claimed.path);
        let check = |part: &str, expected: &dyn ToString, actual: &dyn ToString| {
            let (expected, actual) = (expected.to_string(), actual.to_string());
            match expected == actual {
                true => Ok(()),
                false => Err(StoreError::Mismatch { what: what(part), expected, actual }),
            }
        };
        check("tree", &tree, &examined.hash)?;
        if is_trusted {
            check("diff_id", &claimed.diff_id, &examined.diff_id)?;
            check("size", &claimed.size, &examined.size)?;
            check("listing", &claimed.listing.digest, &listing.digest)?;
        }
        let size = writer.finish_as(&layer.digest)?;
        self.add_blob(&bytes)?;
        let output = Output {
            path: StorePath::new(tree, claimed.path.name()),
            diff_id: examined.diff_id,
            size: examined.size,
            layers: vec![Layer { size, diff_id: examined.diff_id, ..layer.clone() }],
            listing: ListingRef { digest: listing.digest, size: bytes.len() as u64 },
            references: if is_trusted { claimed.references.clone() } else { Vec::new() },
        };
        self.database.put_output(&output, now())?;
        Ok(output)
    }

    /// Fetches a tree whose layers are not here, if caches have it.
    pub(super) fn fetch_missing(&self, output: &Output) -> Result<Option<Layer>, StoreError> {
        if !self.is_tree_remote(output) {
            return Ok(None);
        }
        Ok(self.fetch_tree(output, true)?.layers.pop())
    }

    /// Forgets every substitute that names a blob which no cache has any more, so that the next
    /// attempt builds what needed it.
    pub fn lost(&self, digest: &BlobDigest) -> StoreError {
        let text = digest.to_string();
        let forgotten: Result<Vec<String>, StoreError> = self.database.write(|connection| {
            let condition = "instr(realisation, ?1) > 0";
            let sql = format!("SELECT derivation FROM substitutes WHERE {condition}");
            let ids = connection
                .prepare(&sql)?
                .query_map([&text], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()?;
            connection.execute(&format!("DELETE FROM substitutes WHERE {condition}"), [&text])?;
            Ok(ids)
        });
        match forgotten {
            Err(error) => error,
            Ok(ids) => {
                let mut learned = self.substitution.learned();
                learned.remote.remove(digest);
                let ids = ids.iter().filter_map(|id| id.parse::<DerivationId>().ok());
                for id in ids {
                    learned.asked.insert(id);
                    learned.lost.insert(id);
                }
                StoreError::Lost { digest: *digest }
            }
        }
    }
}

/// Does work on several threads: it waits for the network and not for processors.
fn at_once<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let is_failed = || failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    std::thread::scope(|scope| {
        for _ in 0..FETCHES.min(items.len()) {
            scope.spawn(|| {
                while !is_failed() {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    if let Err(error) = work(item) {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
