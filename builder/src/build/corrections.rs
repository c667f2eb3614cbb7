//! Who owns paths that several packages claim, above plain trees and below configuration.

use std::collections::BTreeSet;

use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::{TreePath, TreeSpool};

use super::BuildError;
use crate::configure::{self, Package};
use crate::stack::Diversion;

/// Adds what corrects the stacked trees of `packages`, in the order of unpacking, to `spool`; whether
/// there is anything to correct. Configuration stands above packages, so what it changed is not
/// corrected back.
pub fn add(
    store: &Store,
    packages: &[&Package],
    diversions: &[Diversion],
    configured: &[Output],
    spool: &mut TreeSpool,
) -> Result<bool, BuildError> {
    let data: Vec<&Output> = packages.iter().map(|package| &package.data).collect();
    let listings = super::listings(store, &data)?;
    let listings: Vec<&Listing> = listings.iter().map(AsRef::as_ref).collect();
    let compression = Compression::Store1;
    let found = configure::add_corrections(store, compression, packages, &listings, diversions, 0)?;
    let Some(found) = found else { return Ok(false) };
    let mut changed: BTreeSet<TreePath> = BTreeSet::new();
    for output in configured {
        for item in super::listing(store, output)?.entries() {
            changed.insert(item.entry.deleted_path().unwrap_or_else(|| item.entry.path.clone()));
        }
    }
    store.read_tree(&found, |entry, content| {
        // Nor is a directory that only leads to a correction: scripts may have changed it.
        if !changed.contains(&entry.path) {
            spool.replace(entry.clone(), content)?;
        }
        Ok::<(), BuildError>(())
    })?;
    Ok(true)
}
