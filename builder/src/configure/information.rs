//! What dpkg keeps of a package beyond what came with it: file lists without the paths that other
//! packages took over, and checksums for packages that have none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use drystone_store::listing::Listing;
use drystone_store::store::StoreError;
use drystone_store::tree::{Kind, TreePath};

use super::{ConfigureError, Package, Stage};
use drystone_source::debian::deb::{Md5Reader, merge_usr};

/// The control file with the checksums of a package's files.
const CHECKSUMS: &str = "md5sums";

/// Files below `/var/lib/dpkg/info` that differ from what the packages themselves bring, by name.
pub(super) fn files(stage: &Stage<'_>) -> Result<BTreeMap<String, String>, ConfigureError> {
    let mut files = BTreeMap::new();
    for (name, text) in shortened_lists(stage)? {
        files.insert(format!("{name}.list"), text);
    }
    for package in stage.packages.iter().filter(|it| !it.control_files.contains_key(CHECKSUMS)) {
        files.insert(format!("{}.{CHECKSUMS}", package.info_name()), checksums(stage, package)?);
    }
    Ok(files)
}

/// The lists of packages that lost files to others, which declare Replaces for them.
fn shortened_lists(stage: &Stage<'_>) -> Result<Vec<(String, String)>, ConfigureError> {
    let everyone: Vec<&Package> = stage.everyone().collect();
    let below = everyone.len() - stage.packages.len();
    let mut lost: BTreeMap<usize, HashSet<TreePath>> = BTreeMap::new();
    for (taker, package) in everyone.iter().enumerate().filter(|(_, it)| !it.replaces.is_empty()) {
        for (loser, other) in everyone.iter().enumerate() {
            // What both sides lie below of was settled by the stage below.
            let is_settled = loser == taker || (loser < below && taker < below);
            // Of two that replace each other the later one wins.
            let is_taken = !is_settled
                && package.replaces(other)
                && (!other.replaces(package) || loser < taker);
            if is_taken {
                let (taken, kept) = (stage.listing(&package.data)?, stage.listing(&other.data)?);
                lost.entry(loser).or_default().extend(shared_files(&taken, &kept));
            }
        }
    }
    let shortened = lost.into_iter().filter(|(_, paths)| !paths.is_empty());
    let shortened = shortened.map(|(loser, paths)| {
        let package = everyone[loser];
        (package.info_name(), without(&package.list(), &paths))
    });
    Ok(shortened.collect())
}

/// Paths that are no directories in either tree.
fn shared_files(taker: &Listing, loser: &Listing) -> Vec<TreePath> {
    let is_file = |kind: &Kind| *kind != Kind::Directory;
    loser
        .entries()
        .iter()
        .filter(|item| is_file(&item.entry.kind))
        .filter(|item| taker.find(&item.entry.path).is_some_and(|it| is_file(&it.entry.kind)))
        .map(|item| item.entry.path.clone())
        .collect()
}

/// A list without some of its paths, which are those of merged trees.
fn without(list: &str, paths: &HashSet<TreePath>) -> String {
    let is_kept = |line: &&str| merged(line).is_none_or(|path| !paths.contains(&path));
    list.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

fn merged(line: &str) -> Option<TreePath> {
    Some(merge_usr(TreePath::from_rooted(line).ok()??, false))
}

/// What dpkg writes for a package without checksums: all its files, in the order of its list.
fn checksums(stage: &Stage<'_>, package: &Package) -> Result<String, ConfigureError> {
    let mut sums: HashMap<TreePath, String> = HashMap::new();
    stage.store.read_tree(&package.data, |entry, content| {
        match &entry.kind {
            Kind::File { .. } => {
                let mut hashing = Md5Reader::new(content);
                io::copy(&mut hashing, &mut io::sink()).map_err(|source| StoreError::Io {
                    action: "read",
                    path: entry.path.as_str().into(),
                    source,
                })?;
                sums.insert(entry.path.clone(), hashing.finish());
            }
            Kind::HardLink { target } => {
                if let Some(sum) = sums.get(target).cloned() {
                    sums.insert(entry.path.clone(), sum);
                }
            }
            _ => {}
        }
        Ok::<(), StoreError>(())
    })?;
    let list = package.list();
    let line = |path: &str| {
        let sum = sums.get(&merged(path)?)?;
        Some(format!("{sum}  {}\n", path.trim_start_matches('/')))
    };
    Ok(list.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_loses_paths_wherever_usr_was_merged() {
        let lost = ["usr/bin/x", "etc/y"].map(|path| TreePath::new(path).unwrap()).into();
        let list = "/.\n/bin\n/bin/x\n/etc\n/etc/y\n/usr/bin/xx\n";
        assert_eq!(without(list, &lost), "/.\n/bin\n/etc\n/usr/bin/xx\n");
    }
}
