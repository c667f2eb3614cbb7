//! Repair: what is damaged and can be made from what is whole is made again; the rest is
//! forgotten, so that the next build makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::content::{encode_listing, examine_layer};
use super::{Lost, Problem, Repair};
use crate::digest::{BlobDigest, DerivationId, TreeHash};
use crate::layer::{Compression, Layer};
use crate::realisation::Output;
use crate::store::disk::Disk;
use crate::store::gc::RemoveTree;
use crate::store::inventory::{Inventory, MalformedRow, Removal};
use crate::store::{Store, StoreError, now};

/// What is to be done, told from problems alone.
#[derive(Default)]
pub(super) struct Plan {
    rows: Vec<MalformedRow>,
    /// Files that are damaged.
    blobs: BTreeSet<BlobDigest>,
    /// Layers that are gone, damaged or another tree's.
    layers: BTreeSet<(TreeHash, Compression)>,
    /// Trees whose records or listing are to be made again.
    records: BTreeSet<TreeHash>,
    /// Trees without a whole layer.
    trees: BTreeSet<TreeHash>,
    /// Derivations to forget.
    derivations: BTreeSet<DerivationId>,
    /// Checkouts to remove.
    checkouts: BTreeSet<TreeHash>,
}

impl Plan {
    pub(super) fn new(problems: &[Problem], records: &Inventory) -> Self {
        let mut plan = Self::default();
        problems.iter().for_each(|problem| plan.add(problem));
        for (hash, record) in &records.trees {
            if plan.blobs.contains(&record.output.listing.digest) {
                plan.records.insert(*hash);
            }
            for layer in &record.output.layers {
                if plan.blobs.contains(&layer.digest) {
                    plan.layers.insert((*hash, layer.compression));
                }
            }
            if plan.whole_layers(&record.output).next().is_none() {
                plan.trees.insert(*hash);
                plan.records.remove(hash);
            }
        }
        for (id, record) in &records.derivations {
            if record.outputs.values().any(|tree| plan.trees.contains(tree)) {
                plan.derivations.insert(*id);
            }
        }
        plan
    }

    fn add(&mut self, problem: &Problem) {
        match problem {
            Problem::MalformedRow { row } => self.rows.push(row.clone()),
            Problem::DamagedBlob { digest, .. } | Problem::UnreadableBlob { digest, .. } => {
                self.blobs.insert(*digest);
            }
            Problem::MissingLayer { tree, compression, .. }
            | Problem::WrongLayer { tree, compression, .. } => {
                self.layers.insert((*tree.hash(), *compression));
            }
            Problem::MissingListing { tree, .. } | Problem::WrongRecord { tree, .. } => {
                self.records.insert(*tree.hash());
            }
            Problem::DamagedDerivation { id, .. } | Problem::BrokenRealisation { id, .. } => {
                self.derivations.insert(*id);
            }
            Problem::DamagedCheckout { tree, .. } => {
                self.checkouts.insert(*tree.hash());
            }
            // A tree without a layer is found among the records; the others are for people.
            Problem::NoLayer { .. }
            | Problem::DamagedDatabase { .. }
            | Problem::DamagedRoot { .. }
            | Problem::UnknownFile { .. } => {}
        }
    }

    fn whole_layers<'a>(&'a self, output: &'a Output) -> impl Iterator<Item = &'a Layer> {
        let hash = *output.path.hash();
        output.layers.iter().filter(move |layer| !self.layers.contains(&(hash, layer.compression)))
    }

    /// Trees whose bytes are lost, with what made them.
    pub(super) fn lost(&self, records: &Inventory) -> Vec<Lost> {
        let mut makers: BTreeMap<TreeHash, Vec<DerivationId>> = BTreeMap::new();
        for (id, record) in &records.derivations {
            for tree in record.outputs.values().filter(|tree| self.trees.contains(tree)) {
                makers.entry(*tree).or_default().push(*id);
            }
        }
        let lost = self.trees.iter().filter_map(|hash| records.trees.get_key_value(hash));
        lost.map(|(hash, record)| Lost {
            tree: record.output.path.clone(),
            derivations: makers.remove(hash).unwrap_or_default(),
        })
        .collect()
    }
}

impl Store {
    /// Carries out a plan: rows that go, then files that go, then what is made again. Cut off at
    /// any point, another repair ends it.
    pub(super) fn repair(
        &self,
        plan: &Plan,
        records: &Inventory,
        disk: &Disk,
        remove: &RemoveTree<'_>,
    ) -> Result<Vec<Repair>, StoreError> {
        let mut done: Vec<Repair> =
            plan.rows.iter().map(|row| Repair::DroppedRow { row: row.clone() }).collect();
        self.database.remove(&Removal {
            trees: plan.trees.clone(),
            derivations: plan.derivations.clone(),
            layers: plan.layers.clone(),
            malformed: plan.rows.clone(),
            facts_before: None,
        })?;
        done.extend(plan.derivations.iter().map(|id| Repair::DroppedRealisation { id: *id }));
        for digest in &plan.blobs {
            let path = self.blob_path(digest);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path)(error));
                }
                _ => done.push(Repair::RemovedBlob { digest: *digest }),
            }
        }
        for (hash, record) in &records.trees {
            if !plan.trees.contains(hash) {
                self.repair_tree(plan, &record.output, &mut done)?;
            }
        }
        // A checkout that no listing could vouch for goes too: were its tree made again, it would
        // be taken for whole.
        for hash in &disk.checkouts {
            let record = records.trees.get(hash);
            if record.is_some() && !plan.checkouts.contains(hash) && !plan.trees.contains(hash) {
                continue;
            }
            self.remove_checkout(&self.root().join("trees").join(hash.to_string()), remove)?;
            let tree = record.map(|record| record.output.path.clone());
            done.extend(tree.map(|tree| Repair::RemovedCheckout { tree }));
        }
        Ok(done)
    }

    /// Makes a tree's records, listing and lost layers again from a layer that is whole.
    fn repair_tree(
        &self,
        plan: &Plan,
        output: &Output,
        done: &mut Vec<Repair>,
    ) -> Result<(), StoreError> {
        let tree = *output.path.hash();
        let lost: Vec<&Layer> = output
            .layers
            .iter()
            .filter(|layer| plan.layers.contains(&(tree, layer.compression)))
            .collect();
        if lost.is_empty() && !plan.records.contains(&tree) {
            return Ok(());
        }
        let layers: Vec<Layer> = plan.whole_layers(output).cloned().collect();
        let mut mended = Output { layers, ..output.clone() };
        if plan.records.contains(&tree) {
            mended = self.remake_records(&mended)?;
            done.push(Repair::RemadeRecord { tree: mended.path.clone() });
        }
        for layer in lost {
            let compression = layer.compression;
            mended.layers.push(self.layer(&mended, compression)?);
            done.push(Repair::RemadeLayer { tree: mended.path.clone(), compression });
        }
        Ok(())
    }

    fn remake_records(&self, output: &Output) -> Result<Output, StoreError> {
        let tree = *output.path.hash();
        let layer = output.layers.first().ok_or(StoreError::NoTree(tree))?;
        let file = self.open_blob(&layer.digest)?.ok_or(StoreError::NoBlob(layer.digest))?;
        let examined = examine_layer(file, layer.compression)
            .map_err(|source| StoreError::Read { tree, source })?;
        if examined.hash != tree {
            return Err(StoreError::Mismatch {
                what: format!("the layer {}", layer.digest),
                expected: tree.to_string(),
                actual: examined.hash.to_string(),
            });
        }
        let (bytes, listing) = encode_listing(&examined.listing)?;
        self.add_blob(&bytes)?;
        let mut mended =
            Output { diff_id: examined.diff_id, size: examined.size, listing, ..output.clone() };
        for layer in &mut mended.layers {
            let path = self.blob_path(&layer.digest);
            let data = path.metadata().map_err(StoreError::io("look at", path))?;
            layer.size = data.len();
            layer.diff_id = mended.diff_id;
        }
        self.database.put_output(&mended, now())?;
        Ok(mended)
    }
}
