//! Trees as recipes see them: all of it 0:0, without setuid bits and file capabilities.

use std::io::Read;

use drystone_store::derivation::Derivation;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind};

use super::RecipeError;

/// Version of the `plain` builder: rises whenever its output can change.
const VERSION: u32 = 1;
/// Permission bits without setuid and setgid.
const KEPT_BITS: u32 = 0o1777;
const CAPABILITY: &str = "security.capability";

fn is_plain(entry: &Entry) -> bool {
    (entry.uid, entry.gid) == (0, 0)
        && entry.mode & !KEPT_BITS == 0
        && !entry.xattrs.contains_key(CAPABILITY)
}

/// The plain form of a tree; most trees are plain already and stay what they are.
pub fn plain(store: &Store, output: &Output) -> Result<Output, RecipeError> {
    let hash = *output.path.hash();
    let listing = store.listing(output)?.ok_or(StoreError::NoTree(hash))?;
    if listing.entries().iter().all(|item| is_plain(&item.entry)) {
        return Ok(output.clone());
    }
    let derivation = Derivation::new("plain", VERSION).with_inputs([hash]);
    if let Some(output) = store.realised_output(&derivation.id(), "out")? {
        return Ok(output);
    }
    let mut spool = store.spool();
    store.read_tree(output, |entry: &Entry, content: &mut dyn Read| {
        let mut entry = entry.clone();
        if entry.kind != Kind::Deletion {
            (entry.uid, entry.gid) = (0, 0);
            entry.mode &= KEPT_BITS;
            entry.xattrs.remove(CAPABILITY);
        }
        spool.replace(entry, content)?;
        Ok::<(), RecipeError>(())
    })?;
    let plain = store.add_tree("plain", Compression::Store1, &mut spool)?;
    store.put_realisation(&derivation, [("out".to_owned(), plain.clone())])?;
    Ok(plain)
}
