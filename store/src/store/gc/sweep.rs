//! What goes and what stays.

use std::collections::{BTreeMap, BTreeSet};

use super::{GcOptions, days};
use crate::digest::{BlobDigest, DerivationId, TreeHash};
use crate::store::Store;
use crate::store::disk::{Disk, FileFacts, directory_bytes};
use crate::store::inventory::{Inventory, Removal};
use crate::store::roots::Reach;

/// What goes, as it is being decided.
pub(super) struct Sweep<'a> {
    records: &'a Inventory,
    disk: &'a Disk,
    reach: &'a Reach,
    /// Checkouts and the bytes that they occupy.
    pub(super) checkouts: BTreeMap<TreeHash, u64>,
    /// Which trees need this one at run time.
    referrers: BTreeMap<TreeHash, Vec<TreeHash>>,
    /// How many recorded trees, and roots, name a blob.
    holders: BTreeMap<BlobDigest, usize>,
    /// Trees that go.
    pub(super) trees: BTreeSet<TreeHash>,
    /// Blobs that go, with their bytes.
    pub(super) blobs: BTreeMap<BlobDigest, u64>,
    /// Bytes that stay.
    pub(super) size: u64,
}

/// What can go alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate {
    Tree(TreeHash),
    Blob(BlobDigest),
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        store: &Store,
        records: &'a Inventory,
        disk: &'a Disk,
        reach: &'a Reach,
    ) -> Self {
        let checkouts: BTreeMap<_, _> = disk
            .checkouts
            .iter()
            .map(|hash| (*hash, directory_bytes(&store.root.join("trees").join(hash.to_string()))))
            .collect();
        let mut referrers: BTreeMap<TreeHash, Vec<TreeHash>> = BTreeMap::new();
        let mut holders: BTreeMap<BlobDigest, usize> = BTreeMap::new();
        for (hash, record) in &records.trees {
            for reference in &record.output.references {
                referrers.entry(*reference).or_default().push(*hash);
            }
            for digest in record.blobs() {
                *holders.entry(digest).or_default() += 1;
            }
        }
        for digest in &reach.blobs {
            *holders.entry(*digest).or_default() += 1;
        }
        let files = disk.blobs.values().chain(disk.logs.values());
        let known = checkouts.iter().filter(|(hash, _)| records.trees.contains_key(*hash));
        let size = files.map(|facts| facts.bytes).sum::<u64>()
            + known.map(|(_, bytes)| bytes).sum::<u64>();
        let (trees, blobs) = (BTreeSet::new(), BTreeMap::new());
        Self { records, disk, reach, checkouts, referrers, holders, trees, blobs, size }
    }

    pub(super) fn choose(&mut self, options: &GcOptions<'_>, now: i64) {
        let candidates = self.candidates();
        let before = match (days(options.keep_days), options.max_size) {
            (Some(kept), _) => now.saturating_sub(kept),
            (None, Some(_)) => i64::MIN,
            (None, None) => i64::MAX,
        };
        for (used, candidate) in &candidates {
            if *used < before {
                self.remove(*candidate);
            }
        }
        for (_, candidate) in &candidates {
            if options.max_size.is_none_or(|size| self.size <= size) {
                break;
            }
            self.remove(*candidate);
        }
    }

    /// What no root keeps, the least recently used first.
    fn candidates(&self) -> Vec<(i64, Candidate)> {
        let used = self.last_uses();
        let trees = used.into_iter().filter(|(hash, _)| !self.reach.trees.contains(hash));
        let trees = trees.map(|(hash, used)| (used, Candidate::Tree(hash)));
        // Blobs that belong to no tree have no record of their use but their age.
        let blobs = self.disk.blobs.iter().filter(|(digest, _)| !self.holders.contains_key(digest));
        let blobs = blobs.map(|(digest, facts)| (facts.modified, Candidate::Blob(*digest)));
        let mut candidates: Vec<_> = trees.chain(blobs).collect();
        candidates.sort_unstable();
        candidates
    }

    /// When each tree was last used: itself, or through a derivation or a tree that needs it.
    fn last_uses(&self) -> BTreeMap<TreeHash, i64> {
        let mut first: BTreeMap<TreeHash, i64> =
            self.records.trees.iter().map(|(hash, record)| (*hash, record.used)).collect();
        for record in self.records.derivations.values() {
            for tree in record.outputs.values() {
                first.entry(*tree).and_modify(|used| *used = (*used).max(record.used));
            }
        }
        // From the latest on: the first time that a tree is reached is its latest use.
        let mut order: Vec<(i64, TreeHash)> =
            first.into_iter().map(|(h, used)| (used, h)).collect();
        order.sort_unstable();
        let mut uses = BTreeMap::new();
        for (used, hash) in order.into_iter().rev() {
            let mut pending = vec![hash];
            while let Some(hash) = pending.pop() {
                let Some(record) = self.records.trees.get(&hash) else { continue };
                if uses.contains_key(&hash) {
                    continue;
                }
                uses.insert(hash, used);
                pending.extend(&record.output.references);
            }
        }
        uses
    }

    /// Decides that something goes, and with a tree the trees that need it.
    fn remove(&mut self, candidate: Candidate) {
        let mut pending = match candidate {
            Candidate::Blob(digest) => return self.remove_blob(digest),
            Candidate::Tree(hash) => vec![hash],
        };
        while let Some(hash) = pending.pop() {
            let Some(record) = self.records.trees.get(&hash) else { continue };
            if !self.trees.insert(hash) {
                continue;
            }
            self.size -= self.checkouts.get(&hash).unwrap_or(&0);
            for digest in record.blobs() {
                let holders = self.holders.entry(digest).or_insert(1);
                *holders -= 1;
                if *holders == 0 {
                    self.remove_blob(digest);
                }
            }
            pending.extend(self.referrers.get(&hash).into_iter().flatten());
        }
    }

    fn remove_blob(&mut self, digest: BlobDigest) {
        let Some(FileFacts { bytes, .. }) = self.disk.blobs.get(&digest) else { return };
        if self.blobs.insert(digest, *bytes).is_none() {
            self.size -= bytes;
        }
    }

    /// Whether a checkout's tree goes, or is gone.
    pub(super) fn is_gone(&self, hash: &TreeHash) -> bool {
        self.trees.contains(hash) || !self.records.trees.contains_key(hash)
    }

    /// The rows that go: a realisation goes with any of its trees, and when it is old.
    pub(super) fn rows(&self, small_before: i64) -> Removal {
        let derivations = self.records.derivations.iter().filter(|(id, record)| {
            let is_lost = record.outputs.values().any(|tree| self.is_gone(tree));
            let is_old = record.used < small_before || record.outputs.is_empty();
            !self.reach.derivations.contains(id) && (is_lost || is_old)
        });
        Removal {
            trees: self.trees.clone(),
            derivations: derivations.map(|(id, _)| *id).collect(),
            facts_before: Some(small_before),
            ..Removal::default()
        }
    }

    /// The logs that go: with their realisations, and those of failed builds when they are old.
    pub(super) fn logs(&self, rows: &Removal, before: i64) -> Vec<(DerivationId, FileFacts)> {
        let goes = |id: &DerivationId, facts: &FileFacts| match id {
            id if self.reach.derivations.contains(id) => false,
            id if self.records.derivations.contains_key(id) => rows.derivations.contains(id),
            _ => facts.modified < before,
        };
        let logs = self.disk.logs.iter().filter(|(id, facts)| goes(id, facts));
        logs.map(|(id, facts)| (*id, *facts)).collect()
    }
}
