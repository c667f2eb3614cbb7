//! Verification: everything in a store against what names it.
//!
//! ```text
//! db.sqlite   SQLite's own check; each row's form; derivations' JSON = id; outputs name trees
//! blobs       SHA-256 = name; a layer decompresses to a canonical tar whose BLAKE3 = the tree,
//!             SHA-256 = diff id, with the recorded size and listing     (one pass, in parallel)
//! trees       every recorded layer and listing is there
//! checkouts   each path, type, mode, owner, size, target and content = the listing
//! ```
//!
//! Files that nothing names yet, or no longer, are no problem: a crash leaves them, `gc` takes
//! them. They are counted.

mod checkout;
pub(super) mod content;
mod problem;
mod repair;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rayon::prelude::*;
use serde::Serialize;

use super::disk::Disk;
use super::gc::{RemoveTree, remove_directory};
use super::inventory::Inventory;
use super::{Store, StoreError};
use crate::derivation::Derivation;
use crate::digest::{BlobDigest, DerivationId, TreeHash};
use crate::listing::Listing;
use crate::realisation::Output;
use crate::with_causes;
use content::Role;
pub use problem::{Lost, Problem, Repair};

/// What verification does beside looking.
pub struct VerifyOptions<'a> {
    /// Mends what can be mended, drops what must be made again.
    pub repair: bool,
    /// With `repair`: how long to wait for others to end their use of the store.
    pub wait: Duration,
    /// With `repair`: removes checkouts, which may belong to subordinate ids.
    pub remove: &'a RemoveTree<'a>,
    /// Rises by each byte of blobs that was hashed, for whoever shows progress.
    pub progress: &'a AtomicU64,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        static UNWATCHED: AtomicU64 = AtomicU64::new(0);
        Self {
            repair: false,
            wait: Duration::from_secs(10),
            remove: &remove_directory,
            progress: &UNWATCHED,
        }
    }
}

/// What verification saw and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Number of blobs that were hashed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of trees that are recorded.
    pub trees: u64,
    /// Number of derivations that are recorded.
    pub derivations: u64,
    /// Number of checkouts that were compared.
    pub checkouts: u64,
    /// Number of blobs and checkouts that nothing names; `gc` removes them.
    pub unreferenced: u64,
    /// Number of paths in checkouts that this user may not look at.
    pub unreadable: u64,
    /// Number of problems.
    pub problems: u64,
    /// Number of problems that repair can do nothing about.
    pub unrepairable: u64,
    /// What repair did.
    pub repaired: Vec<Repair>,
    /// Trees whose bytes are lost; with repair they are forgotten, so that the next build makes
    /// them again.
    pub lost: Vec<Lost>,
}

/// Collects problems and passes them on as they come.
struct Findings<'a> {
    tell: &'a mut dyn FnMut(&Problem),
    all: Vec<Problem>,
}

impl Findings<'_> {
    fn add(&mut self, problem: Problem) {
        (self.tell)(&problem);
        self.all.push(problem);
    }
}

impl Store {
    /// Checks everything in the store and tells every problem; with repair, mends afterwards.
    ///
    /// Others may use the store meanwhile unless something is to be repaired.
    pub fn verify(
        &mut self,
        options: &VerifyOptions<'_>,
        tell: &mut dyn FnMut(&Problem),
    ) -> Result<VerifyReport, StoreError> {
        let _exclusive = match options.repair {
            true => Some(self.exclusive(options.wait)?),
            false => None,
        };
        let mut findings = Findings { tell, all: Vec::new() };
        // Records first: what they name was there before them.
        let records = self.database.inventory()?;
        let disk = self.scan()?;
        let mut report = VerifyReport {
            trees: records.trees.len() as u64,
            derivations: records.derivations.len() as u64,
            unreferenced: unreferenced(&records, &disk),
            ..VerifyReport::default()
        };
        self.check_files(&disk, &mut findings)?;
        self.check_rows(&records, &mut findings)?;
        self.check_derivations(&records, &mut findings)?;
        check_presence(&records, &disk, &mut findings);
        self.check_blobs(&records, &disk, options.progress, &mut report, &mut findings);
        self.check_checkouts(&records, &disk, &mut report, &mut findings);
        let problems = findings.all;
        report.problems = problems.len() as u64;
        report.unrepairable = problems.iter().filter(|p| !p.is_repairable()).count() as u64;
        let plan = repair::Plan::new(&problems, &records);
        report.lost = plan.lost(&records);
        if options.repair {
            report.repaired = self.repair(&plan, &records, &disk, options.remove)?;
        }
        Ok(report)
    }

    fn check_files(&self, disk: &Disk, findings: &mut Findings<'_>) -> Result<(), StoreError> {
        for (name, root) in self.read_roots()? {
            if let Err(error) = root {
                let path = self.root().join("roots").join(format!("{name}.json"));
                let message = match error {
                    StoreError::Root { problem, .. } => problem,
                    other => with_causes(&other),
                };
                findings.add(Problem::DamagedRoot { path, message });
            }
        }
        for path in &disk.unknown {
            findings.add(Problem::UnknownFile { path: path.clone() });
        }
        Ok(())
    }

    fn check_rows(
        &self,
        records: &Inventory,
        findings: &mut Findings<'_>,
    ) -> Result<(), StoreError> {
        for message in self.database.integrity()? {
            findings.add(Problem::DamagedDatabase { message });
        }
        for row in &records.malformed {
            findings.add(Problem::MalformedRow { row: row.clone() });
        }
        Ok(())
    }

    fn check_derivations(
        &self,
        records: &Inventory,
        findings: &mut Findings<'_>,
    ) -> Result<(), StoreError> {
        let mut problems = Vec::new();
        self.database.each_derivation(|id, json| {
            // Another process may have added it since the records were read.
            let Some((id, record)) =
                id.parse().ok().and_then(|id| records.derivations.get_key_value(&id))
            else {
                return;
            };
            problems.extend(match check_derivation(id, json) {
                Ok(derivation) => check_outputs(id, &derivation, &record.outputs, records),
                Err(actual) => Some(Problem::DamagedDerivation { id: *id, actual }),
            });
        })?;
        problems.into_iter().for_each(|problem| findings.add(problem));
        Ok(())
    }

    fn check_blobs(
        &self,
        records: &Inventory,
        disk: &Disk,
        progress: &AtomicU64,
        report: &mut VerifyReport,
        findings: &mut Findings<'_>,
    ) {
        let mut roles: BTreeMap<BlobDigest, Vec<Role<'_>>> = BTreeMap::new();
        for record in records.trees.values() {
            let output = &record.output;
            roles.entry(output.listing.digest).or_default().push(Role::Listing(output));
            for layer in &output.layers {
                roles.entry(layer.digest).or_default().push(Role::Layer(output, layer));
            }
        }
        // The largest first, so that no thread starts a long one last.
        let mut blobs: Vec<_> = disk.blobs.iter().collect();
        blobs.sort_by_key(|(digest, facts)| (std::cmp::Reverse(facts.length), **digest));
        let problems: Vec<Vec<Problem>> = blobs
            .par_iter()
            // Otherwise one thread gets all the large ones, in one piece that no other may share.
            .with_max_len(1)
            .map(|(digest, facts)| {
                let roles = roles.get(*digest).map_or(&[][..], Vec::as_slice);
                content::check_blob(self, digest, facts.length, roles, progress)
            })
            .collect();
        report.blobs = blobs.len() as u64;
        report.bytes = blobs.iter().map(|(_, facts)| facts.length).sum();
        problems.into_iter().flatten().for_each(|problem| findings.add(problem));
    }

    fn check_checkouts(
        &self,
        records: &Inventory,
        disk: &Disk,
        report: &mut VerifyReport,
        findings: &mut Findings<'_>,
    ) {
        for hash in &disk.checkouts {
            let Some(record) = records.trees.get(hash) else { continue };
            // Without a listing its loss is told already, and that of the layers.
            let Some(listing) = self.readable_listing(&record.output) else { continue };
            let tree = &record.output.path;
            let comparison = checkout::compare(&self.checkout_path(tree), &listing);
            report.checkouts += 1;
            report.unreadable += comparison.unreadable;
            for checkout::Difference { path, what, expected, actual } in comparison.differences {
                let tree = tree.clone();
                findings.add(Problem::DamagedCheckout { tree, path, what, expected, actual });
            }
        }
    }

    /// A tree's listing, or one made from a layer.
    fn readable_listing(&self, output: &Output) -> Option<Listing> {
        if let Ok(Some(listing)) = self.listing(output) {
            return Some(listing);
        }
        output.layers.iter().find_map(|layer| {
            let file = self.open_blob(&layer.digest).ok()??;
            let examined = content::examine_layer(file, layer.compression).ok()?;
            (examined.hash == *output.path.hash()).then_some(examined.listing)
        })
    }
}

/// The derivation, or what its JSON is instead.
fn check_derivation(id: &DerivationId, json: &str) -> Result<Derivation, String> {
    let actual = DerivationId::of(json.as_bytes());
    if actual != *id {
        return Err(actual.to_string());
    }
    let derivation: Derivation =
        serde_json::from_str(json).map_err(|error| format!("no derivation: {error}"))?;
    match derivation.to_json() == json {
        true => Ok(derivation),
        false => Err("not in canonical form".into()),
    }
}

fn check_outputs(
    id: &DerivationId,
    derivation: &Derivation,
    outputs: &BTreeMap<String, TreeHash>,
    records: &Inventory,
) -> Option<Problem> {
    let is_there = |tree: &TreeHash| records.trees.contains_key(tree);
    let declared: BTreeSet<&String> = derivation.outputs.iter().collect();
    let recorded: BTreeSet<&String> = outputs.keys().collect();
    let actual = if let Some((name, tree)) = outputs.iter().find(|(_, tree)| !is_there(tree)) {
        format!("{name} is tree {tree}, which is not in the store")
    } else if declared != recorded {
        format!("{recorded:?}")
    } else {
        return None;
    };
    Some(Problem::BrokenRealisation { id: *id, expected: format!("{declared:?}"), actual })
}

/// Tells which recorded blobs are not there.
fn check_presence(records: &Inventory, disk: &Disk, findings: &mut Findings<'_>) {
    for record in records.trees.values() {
        let Output { path, layers, listing, .. } = &record.output;
        if !disk.blobs.contains_key(&listing.digest) {
            let digest = listing.digest;
            findings.add(Problem::MissingListing { tree: path.clone(), digest });
        }
        if layers.is_empty() {
            findings.add(Problem::NoLayer { tree: path.clone() });
        }
        for layer in layers.iter().filter(|layer| !disk.blobs.contains_key(&layer.digest)) {
            let (compression, digest) = (layer.compression, layer.digest);
            findings.add(Problem::MissingLayer { tree: path.clone(), compression, digest });
        }
    }
}

fn unreferenced(records: &Inventory, disk: &Disk) -> u64 {
    let named: BTreeSet<BlobDigest> =
        records.trees.values().flat_map(|record| record.blobs()).collect();
    let blobs = disk.blobs.keys().filter(|digest| !named.contains(digest)).count();
    let checkouts = disk.checkouts.iter().filter(|hash| !records.trees.contains_key(hash)).count();
    (blobs + checkouts + disk.debris.len()) as u64
}
