//! An image's share of what configuration changed, when the Essential set is not in the image.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::derivation::Derivation;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};

use super::BuildError;
use super::alternatives::Alternative;
use crate::configure::{ACCOUNT_FILES, Configured};
use drystone_store::layer::Compression;

/// Version of the `share` builder: rises whenever its output can change.
const VERSION: u32 = 1;

/// What no image without the Essential set takes: databases of tools that are not in it, and what
/// the last layer makes anew.
const NOT_SHARED: [&str; 7] = [
    "etc/alternatives",
    "etc/ld.so.cache",
    "etc/shells",
    "var/cache/debconf",
    "var/lib/dpkg",
    "var/lib/pam",
    "var/lib/ucf",
];

/// Makes the share of `packages`: their scripts' changes, and none of the rest. `exists` tells
/// what stands in the image's packages.
pub fn realise(
    store: &Store,
    stages: &[&Configured],
    packages: &BTreeSet<&str>,
    exists: &dyn Fn(&TreePath) -> bool,
) -> Result<Output, BuildError> {
    let names: Vec<&str> = packages.iter().copied().collect();
    // What exists is a function of the packages, whose trees are inputs of the stages.
    let derivation = Derivation::new("share", VERSION)
        .with_inputs(stages.iter().map(|stage| *stage.out.path.hash()))
        .with_arg("packages", names)
        .with_arg(
            "attribution",
            stages.iter().map(|stage| stage.derivation.to_string()).collect::<Vec<_>>(),
        );
    if let Some(output) = store.realised_output(&derivation.id(), "out")? {
        return Ok(output);
    }
    let mut spool = store.spool();
    let mut alternatives: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for stage in stages {
        collect(store, stage, packages, exists, &mut spool, &mut alternatives)?;
    }
    for (name, text) in &alternatives {
        let text = String::from_utf8_lossy(text);
        let Some(group) = Alternative::parse(name, &text) else { continue };
        let present = |path: &str| {
            TreePath::from_rooted(path)
                .ok()
                .flatten()
                .map(|path| drystone_source::debian::deb::merge_usr(path, false))
                .is_some_and(|path| exists(&path) || spool.entry(&path).is_some())
        };
        for (link, target) in group.links(&present) {
            if let Ok(Some(path)) = TreePath::from_rooted(&link) {
                let path = drystone_source::debian::deb::merge_usr(path, false);
                spool.replace(Entry::symlink(path, target), &mut std::io::empty())?;
            }
        }
    }
    let output = store.add_tree("configured", Compression::Store1, &mut spool)?;
    store.put_realisation(&derivation, [("out".to_owned(), output.clone())])?;
    Ok(output)
}

fn collect(
    store: &Store,
    stage: &Configured,
    packages: &BTreeSet<&str>,
    exists: &dyn Fn(&TreePath) -> bool,
    spool: &mut TreeSpool,
    alternatives: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), BuildError> {
    let listing =
        store.listing(&stage.out)?.ok_or_else(|| StoreError::NoTree(*stage.out.path.hash()))?;
    let mut parents: BTreeSet<TreePath> = BTreeSet::new();
    let is_share = |entry: &Entry| {
        let path = entry.deleted_path().unwrap_or_else(|| entry.path.clone());
        let is_left_out = ACCOUNT_FILES.contains(&path.as_str().trim_end_matches('-'))
            || NOT_SHARED
                .iter()
                .any(|top| TreePath::new(*top).is_ok_and(|top| path.starts_with(&top)))
            || matches!(&entry.kind, Kind::Symlink { target }
                if target.starts_with("/etc/alternatives/"));
        !is_left_out
            && stage.attribution.is_share_of(&path, packages)
            // What is not in the image cannot be deleted from it.
            && (entry.kind != Kind::Deletion || exists(&path))
    };
    for item in listing.entries().iter().filter(|item| is_share(&item.entry)) {
        let mut parent = item.entry.path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            parents.insert(directory);
        }
    }
    store.read_tree(&stage.out, |entry, content| {
        if let Some(name) = entry.path.as_str().strip_prefix("var/lib/dpkg/alternatives/") {
            let mut text = Vec::new();
            content.read_to_end(&mut text).map_err(|source| StoreError::Io {
                action: "read",
                path: entry.path.as_str().into(),
                source,
            })?;
            alternatives.insert(name.to_owned(), text);
            return Ok(());
        }
        let is_parent = entry.kind == Kind::Directory && parents.contains(&entry.path);
        if is_share(entry) || is_parent {
            match entry.kind {
                Kind::Directory => spool.add_empty(entry.clone())?,
                _ => spool.replace(entry.clone(), content)?,
            }
        }
        Ok::<(), BuildError>(())
    })
}
