//! Putting together what configuration changed, from the differences of each sandbox root.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use drystone_store::digest::FileHash;
use drystone_store::listing::{Listing, ListingEntry};
use drystone_store::tree::{Entry, Kind, SpoolError, TreePath, TreeSpool};

use super::ConfigureError;
use super::state::StateTable;
use crate::sandbox::Scan;

/// Where ucf, which looks after configuration files that scripts write, keeps its database.
const UCF: &str = "var/lib/ucf/";

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
            self.remove_below(&path);
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
        self.remove_below(gone);
        // Only what is below needs a deletion when it goes.
        if self.below(gone).is_some() {
            self.spool.replace(deletion, &mut std::io::empty())?;
        }
        Ok(())
    }

    /// What only speaks of a removed file goes with it.
    fn remove_traces(&mut self, removed: &mut Vec<(TreePath, usize)>) -> Result<(), SpoolError> {
        self.remove_dangling(removed);
        self.forget_in_ucf(removed)
    }

    /// ucf keeps the digest, the package and for merging a copy of each file that it was given. Of
    /// a removed file they would tell, or hold, what the image must not have.
    fn forget_in_ucf(&mut self, removed: &mut Vec<(TreePath, usize)>) -> Result<(), SpoolError> {
        let gone: HashMap<String, usize> =
            removed.iter().map(|(path, rule)| (format!("/{path}"), *rule)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let files: Vec<Entry> = self
            .spool
            .entries()
            .filter(|entry| matches!(entry.kind, Kind::File { .. }))
            .filter(|entry| entry.path.as_str().starts_with(UCF))
            .cloned()
            .collect();
        for entry in files {
            let name = &entry.path.as_str()[UCF.len()..];
            if let Some(copy) = name.strip_prefix("cache/") {
                if let Some(rule) = gone.get(&copy.replace(':', "/")) {
                    self.spool.remove(&entry.path);
                    removed.push((entry.path, *rule));
                }
                continue;
            }
            // Lines of `hashfile`, `registry` and their older versions end with a path.
            let Some(before) = self.spool.content(&entry.path)? else { continue };
            let names_none = |line: &&[u8]| {
                let path = line.trim_ascii_end().rsplit(u8::is_ascii_whitespace).next();
                let path = path.and_then(|path| std::str::from_utf8(path).ok());
                path.is_none_or(|path| !gone.contains_key(path))
            };
            let after = before.split_inclusive(|&byte| byte == b'\n').filter(names_none);
            let after = after.collect::<Vec<_>>().concat();
            if after.len() < before.len() {
                let size = after.len() as u64;
                let entry = Entry { kind: Kind::File { size }, ..entry };
                self.spool.replace(entry, &mut after.as_slice())?;
            }
        }
        Ok(())
    }

    /// Links beside a removed file that only name it go with it (hashes of certificates).
    fn remove_dangling(&mut self, removed: &mut Vec<(TreePath, usize)>) {
        let gone: HashMap<TreePath, usize> = removed.iter().cloned().collect();
        let dangling: Vec<(TreePath, usize)> = self
            .spool
            .entries()
            .filter_map(|entry| match &entry.kind {
                Kind::Symlink { target } if !target.contains('/') => {
                    let rule = gone.get(&entry.path.with_name(target).ok()?)?;
                    Some((entry.path.clone(), *rule))
                }
                _ => None,
            })
            .collect();
        for (path, rule) in dangling {
            self.spool.remove(&path);
            removed.push((path, rule));
        }
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

    fn remove_below(&mut self, path: &TreePath) {
        let below: Vec<TreePath> = self
            .spool
            .entries()
            .map(|entry| &entry.path)
            .skip_while(|other| *other <= path)
            .take_while(|other| other.starts_with(path))
            .cloned()
            .collect();
        for path in below {
            self.spool.remove(&path);
        }
    }

    /// Ends the difference: state and leftovers go by the table, and so do parents that nothing
    /// is below any more. The removed paths, with the rule that removed each, come second.
    pub fn finish(
        mut self,
        table: &StateTable,
    ) -> Result<(TreeSpool, Vec<(TreePath, usize)>), ConfigureError> {
        self.remove_unchanged()?;
        let mut removed = Vec::new();
        let entries: Vec<Entry> =
            self.spool.entries().filter(|entry| entry.kind != Kind::Deletion).cloned().collect();
        for entry in entries {
            let Some(rule) = table.matches(&entry) else { continue };
            if table.rule(rule).empty {
                let empty = Entry::file(entry.path.clone(), 0o644, 0);
                self.spool.replace(empty, &mut std::io::empty())?;
            } else {
                self.spool.remove(&entry.path);
            }
            removed.push((entry.path, rule));
        }
        self.remove_traces(&mut removed)?;
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
