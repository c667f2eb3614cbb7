//! Putting together what configuration changed, from the differences of each sandbox root.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use drystone_store::digest::FileHash;
use drystone_store::listing::{Listing, ListingEntry};
use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};

use super::ConfigureError;
use super::leave_out::leave_out;
use super::state::StateTable;
use crate::sandbox::Scan;

/// The difference in the making.
pub struct Composition {
    spool: TreeSpool,
    /// The trees below, the topmost last.
    trees: Vec<Arc<Listing>>,
    /// Directories that are here only as parents.
    parents: BTreeSet<TreePath>,
}

impl Composition {
    /// The tree so far, for new files such as dpkg's database.
    pub fn spool(&mut self) -> &mut TreeSpool {
        &mut self.spool
    }

    /// Starts with a tree.
    pub fn new(spool: TreeSpool) -> Self {
        Self { spool, trees: Vec::new(), parents: BTreeSet::new() }
    }

    /// A tree is stacked above all that was composed so far: its files win.
    pub fn stack(&mut self, listing: Arc<Listing>) {
        for item in listing.entries() {
            let path = &item.entry.path;
            if item.entry.kind != Kind::Directory {
                self.spool.remove(path);
            }
            if let Ok(deletion) = Entry::deletion(path) {
                self.spool.remove(&deletion.path);
            }
        }
        self.trees.push(listing);
    }

    /// What the trees below have at a path.
    fn below(&self, path: &TreePath) -> Option<&ListingEntry> {
        let mut trees = self.trees.iter().enumerate().rev();
        let (at, item) = trees.find_map(|(at, tree)| Some((at, tree.find(path)?)))?;
        let above = &self.trees[at + 1..];
        let is_deleted = std::iter::successors(Some(path.clone()), TreePath::parent)
            .filter_map(|path| Entry::deletion(&path).ok())
            .any(|deletion| above.iter().any(|tree| tree.find(&deletion.path).is_some()));
        (!is_deleted).then_some(item)
    }

    /// Adds the difference that one root gave.
    pub fn apply(&mut self, scan: &Scan) -> Result<(), ConfigureError> {
        for (index, item) in scan.entries().iter().enumerate() {
            let entry = item.entry.clone();
            let path = entry.path.clone();
            if let Some(gone) = entry.deleted_path() {
                self.delete(&gone, entry)?;
                continue;
            }
            if let Ok(deletion) = Entry::deletion(&path) {
                self.spool.remove(&deletion.path);
            }
            if entry.kind == Kind::Directory {
                self.add_directory(entry, item.unchanged)?;
                continue;
            }
            self.spool.remove_below(&path);
            match entry.kind {
                Kind::File { .. } => self.spool.replace(entry, &mut scan.open(index)?)?,
                _ => self.spool.replace(entry, &mut std::io::empty())?,
            }
        }
        Ok(())
    }

    fn add_directory(&mut self, entry: Entry, is_unchanged: bool) -> Result<(), ConfigureError> {
        let path = entry.path.clone();
        let there = self.spool.entry(&path).is_some();
        if is_unchanged {
            if !there {
                self.parents.insert(path);
                self.spool.add_empty(entry)?;
            }
            return Ok(());
        }
        self.parents.remove(&path);
        self.spool.replace(entry, &mut std::io::empty())?;
        Ok(())
    }

    fn delete(&mut self, gone: &TreePath, deletion: Entry) -> Result<(), ConfigureError> {
        self.spool.remove(gone);
        self.spool.remove_below(gone);
        // Only what is below needs a deletion when it goes.
        if self.below(gone).is_some() {
            self.spool.replace(deletion, &mut std::io::empty())?;
        }
        Ok(())
    }

    /// Files that were out of the way for more than one root, and are back as they were unpacked,
    /// are no change.
    fn remove_unchanged(&mut self) -> Result<(), ConfigureError> {
        let alike: Vec<(TreePath, Option<FileHash>)> = self
            .spool
            .entries()
            .filter(|entry| matches!(entry.kind, Kind::File { .. }))
            .filter_map(|entry| self.below(&entry.path).filter(|item| item.entry == *entry))
            .map(|item| (item.entry.path.clone(), item.hash))
            .collect();
        for (path, hash) in alike {
            let content = self.spool.content(&path)?;
            if content.is_some() && content.map(|bytes| FileHash::of(&bytes)) == hash {
                self.spool.remove(&path);
            }
        }
        Ok(())
    }

    /// Ends the difference: state and leftovers go by the table, and so do parents that nothing
    /// is below any more. The removed paths, with the rule that removed each, come second.
    pub fn finish(
        mut self,
        table: &StateTable,
    ) -> Result<(TreeSpool, Vec<(TreePath, usize)>), ConfigureError> {
        self.remove_unchanged()?;
        let removed = leave_out(&mut self.spool, table)?;
        // Children come after parents, so going backwards prunes whole branches.
        let left: Vec<TreePath> = self.spool.entries().map(|entry| entry.path.clone()).collect();
        let mut needed: HashSet<TreePath> = HashSet::new();
        for path in left.iter().rev() {
            if self.parents.contains(path) && !needed.contains(path) {
                self.spool.remove(path);
            } else if let Some(parent) = path.parent() {
                needed.insert(parent);
            }
        }
        Ok((self.spool, removed))
    }
}
