//! Which files differ between trees, and their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use drystone_store::listing::ListingEntry;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};

/// How much of a file is looked at, in bytes.
const MOST: u64 = 32 << 20;

/// An output's name and a path in it, with a leading slash.
pub(super) type Place = (String, String);
/// Outputs by name.
pub(super) type Outputs = Vec<(String, Output)>;

/// The places that are not the same.
pub(super) fn compare(
    store: &Store,
    first: &Outputs,
    second: &Outputs,
) -> Result<BTreeSet<Place>, StoreError> {
    let mut places = BTreeSet::new();
    for ((name, one), (_, two)) in first.iter().zip(second) {
        if one.path.hash() == two.path.hash() {
            continue;
        }
        let (one, two) = (entries(store, one)?, entries(store, two)?);
        let paths: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        let differing = paths.into_iter().filter(|path| one.get(*path) != two.get(*path));
        places.extend(differing.map(|path| (name.clone(), path.clone())));
    }
    Ok(places)
}

/// A tree's entries by path.
pub(super) fn entries(
    store: &Store,
    output: &Output,
) -> Result<BTreeMap<String, ListingEntry>, StoreError> {
    let hash = *output.path.hash();
    let listing = store.listing(output)?.ok_or(StoreError::NoTree(hash))?;
    let entries = listing.entries().iter();
    Ok(entries.map(|item| (format!("/{}", item.entry.path), item.clone())).collect())
}

/// The beginnings of files, by path.
pub(super) fn contents(
    store: &Store,
    output: &Output,
    wanted: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut found = BTreeMap::new();
    store.read_tree(output, |entry, content| {
        let path = format!("/{}", entry.path);
        if wanted.contains(path.as_str()) {
            let mut bytes = Vec::new();
            content.take(MOST).read_to_end(&mut bytes).map_err(|source| StoreError::Io {
                action: "read",
                path: entry.path.as_str().into(),
                source,
            })?;
            found.insert(path, bytes);
        }
        Ok::<(), StoreError>(())
    })?;
    Ok(found)
}
