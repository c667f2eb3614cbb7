//! Brings two locks together, and drops what no image uses.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Lock, LockError, LockedPackage, PackageKey};

impl Lock {
    /// Takes over everything of `other`, whose images replace those of the same name.
    ///
    /// Pins must agree: one package is one file. A tree's hash that only one side knows is kept.
    /// Of two pins of one index the one with the newer Release stays. What no image uses any more
    /// is dropped. On an error `self` is unchanged.
    pub fn merge(&mut self, other: Self) -> Result<(), LockError> {
        let mut packages = self.packages.clone();
        for (key, theirs) in other.packages {
            let merged = match packages.get(&key) {
                Some(ours) => agree(&key, ours, theirs)?,
                None => theirs,
            };
            packages.insert(key, merged);
        }
        self.packages = packages;
        for (key, theirs) in other.indexes {
            let older = self.indexes.get(&key).is_some_and(|ours| ours.date > theirs.date);
            if !older {
                self.indexes.insert(key, theirs);
            }
        }
        self.images.extend(other.images);
        self.prune();
        Ok(())
    }

    /// Drops packages that no image has in any role, and indexes of archives that no image uses.
    pub fn prune(&mut self) {
        let platforms = || self.images.values().flat_map(|image| image.platforms.values());
        let used: BTreeSet<PackageKey> =
            platforms().flat_map(|platform| platform.everything().cloned()).collect();
        let archives: BTreeSet<_> =
            self.images.values().flat_map(|image| image.archives.iter().cloned()).collect();
        self.packages.retain(|key, _| used.contains(key));
        self.indexes.retain(|key, _| archives.contains(&key.archive));
    }

    /// The packages of `self` and of `other` that differ, by name and architecture: what a message
    /// about a lock that is out of date names. `None` stands for a missing side.
    pub fn moved(&self, other: &Self) -> Vec<(Option<PackageKey>, Option<PackageKey>)> {
        type Groups = BTreeMap<(String, String), (BTreeSet<PackageKey>, BTreeSet<PackageKey>)>;
        let mut groups = Groups::new();
        let group = |key: &PackageKey| (key.name.to_string(), key.architecture.to_string());
        for key in self.packages.keys().filter(|key| !other.packages.contains_key(*key)) {
            groups.entry(group(key)).or_default().0.insert(key.clone());
        }
        for key in other.packages.keys().filter(|key| !self.packages.contains_key(*key)) {
            groups.entry(group(key)).or_default().1.insert(key.clone());
        }
        let mut moved = Vec::new();
        for (ours, theirs) in groups.into_values() {
            let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
            loop {
                match (ours.next(), theirs.next()) {
                    (None, None) => break,
                    pair => moved.push(pair),
                }
            }
        }
        moved
    }
}

fn agree(
    key: &PackageKey,
    ours: &LockedPackage,
    theirs: LockedPackage,
) -> Result<LockedPackage, LockError> {
    let conflict =
        |ours: String, theirs: String| LockError::Conflict { package: key.clone(), ours, theirs };
    if (ours.sha256, ours.size) != (theirs.sha256, theirs.size) {
        return Err(conflict(ours.sha256.to_string(), theirs.sha256.to_string()));
    }
    for (left, right) in [(ours.tree, theirs.tree), (ours.control, theirs.control)] {
        if let (Some(left), Some(right)) = (left, right)
            && left != right
        {
            return Err(conflict(left.to_string(), right.to_string()));
        }
    }
    let tree = theirs.tree.or(ours.tree);
    let control = theirs.control.or(ours.control);
    Ok(LockedPackage { tree, control, ..theirs })
}
