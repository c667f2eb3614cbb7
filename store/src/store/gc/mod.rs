//! Garbage collection: what no root keeps goes.
//!
//! Mark, plan, sweep. The plan is a list of steps in the order in which a crash after any of them
//! leaves a store that verifies: roots, then rows (one transaction, durable), then files. A dry
//! run makes the same plan and takes no step.

mod sweep;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::disk::{REMOVED, directory_bytes, is_unlocked};
use super::inventory::Removal;
use super::roots::Reach;
use super::{Store, StoreError};
use crate::with_causes;
use sweep::Sweep;

const DAY: i64 = 24 * 60 * 60;
/// Days after which small things that no root names (facts, realisations of trees that stay,
/// logs) go when the options name no other number.
const SMALL_THINGS_DAYS: i64 = 90;

/// Removes a directory with all below it.
pub type RemoveTree<'a> = dyn Fn(&Path) -> io::Result<()> + 'a;

/// What garbage collection may take. With neither limit, all that no root keeps.
pub struct GcOptions<'a> {
    /// Keeps what was used within so many days.
    pub keep_days: Option<u64>,
    /// Removes the least recently used first, until blobs, checkouts and logs occupy at most so
    /// many bytes; also of what `keep_days` would keep. What roots keep stays in any case.
    pub max_size: Option<u64>,
    /// Removes nothing, reports what would be removed.
    pub dry_run: bool,
    /// How long to wait for others to end their use of the store.
    pub wait: Duration,
    /// Removes checkouts and what dead processes left: these may belong to subordinate ids.
    pub remove: &'a RemoveTree<'a>,
}

impl Default for GcOptions<'_> {
    fn default() -> Self {
        Self {
            keep_days: None,
            max_size: None,
            dry_run: false,
            wait: Duration::from_secs(10),
            remove: &remove_directory,
        }
    }
}

/// The removal of directories that belong to this user.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(path)
}

/// Something that could not be removed. The store verifies all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftBehind {
    /// The file or directory.
    pub path: PathBuf,
    /// Why it stands.
    pub problem: String,
}

/// What garbage collection removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Nothing was removed: the numbers are what would be.
    pub dry_run: bool,
    /// Roots that were dropped since their `image.toml` is gone.
    pub roots: Vec<String>,
    /// Number of trees that are forgotten.
    pub trees: u64,
    /// Number of realisations that are forgotten.
    pub realisations: u64,
    /// Number of facts that are forgotten.
    pub facts: u64,
    /// Number of blobs removed.
    pub blobs: u64,
    /// Number of checkouts removed.
    pub checkouts: u64,
    /// Number of logs removed.
    pub logs: u64,
    /// Number of derivations' lock files removed.
    pub locks: u64,
    /// Number of directories removed that dead processes left.
    pub temporary: u64,
    /// Bytes freed on disk.
    pub bytes: u64,
    /// Number of trees that stay.
    pub kept_trees: u64,
    /// Number of blobs that stay.
    pub kept_blobs: u64,
    /// Bytes on disk of the blobs, checkouts and logs that stay.
    pub kept_bytes: u64,
    /// What could not be removed.
    pub left: Vec<LeftBehind>,
}

/// One deletion; where files go, with the bytes that they free.
#[derive(Debug)]
enum Step {
    Root(String),
    Rows(Removal),
    Debris(PathBuf, u64),
    Checkout(PathBuf, u64),
    Blob(PathBuf, u64),
    Log(PathBuf, u64),
    Lock(PathBuf),
}

impl Store {
    /// Removes what no root keeps; `now` is seconds since 1970.
    ///
    /// Fails without removing anything when others use the store for longer than the options
    /// allow, when a root cannot be understood, and when the database is malformed.
    pub fn gc(&mut self, options: &GcOptions<'_>, now: i64) -> Result<GcReport, StoreError> {
        let _exclusive = match options.dry_run {
            true => None,
            false => Some(self.exclusive(options.wait)?),
        };
        let (steps, mut report) = self.plan(options, now)?;
        for step in steps {
            if !options.dry_run
                && let Err(error) = self.take(&step, options.remove)
            {
                // Without the rows' removal no file may go; a file that stays harms nothing.
                let Some(path) = step.path() else { return Err(error) };
                let problem = with_causes(&error);
                report.left.push(LeftBehind { path: path.to_owned(), problem });
                continue;
            }
            report.count(&step);
        }
        Ok(report)
    }

    fn plan(&self, options: &GcOptions<'_>, now: i64) -> Result<(Vec<Step>, GcReport), StoreError> {
        let (dropped, roots): (Vec<_>, Vec<_>) =
            self.roots()?.into_iter().partition(|(_, root)| root.is_abandoned());
        let records = self.database.inventory()?.whole()?;
        let disk = self.scan()?;
        let reach = Reach::of(roots.iter().map(|(_, root)| root), &records);
        let mut sweep = Sweep::new(self, &records, &disk, &reach);
        sweep.choose(options, now);
        let small_before =
            now.saturating_sub(days(options.keep_days).unwrap_or(SMALL_THINGS_DAYS * DAY));
        let rows = sweep.rows(small_before);
        let all = options.keep_days.is_none() && options.max_size.is_none();
        let log_before = if all { i64::MAX } else { small_before };
        let logs = sweep.logs(&rows, log_before);
        sweep.size -= logs.iter().map(|(_, facts)| facts.bytes).sum::<u64>();

        let report = GcReport {
            dry_run: options.dry_run,
            facts: self.database.facts_before(small_before)?,
            kept_trees: (records.trees.len() - sweep.trees.len()) as u64,
            kept_blobs: (disk.blobs.len() - sweep.blobs.len()) as u64,
            kept_bytes: sweep.size,
            ..GcReport::default()
        };
        let mut steps: Vec<Step> = dropped.into_iter().map(|(name, _)| Step::Root(name)).collect();
        steps.push(Step::Rows(rows));
        for path in self.dead_workspaces()?.into_iter().chain(disk.debris.iter().cloned()) {
            let bytes = directory_bytes(&path);
            steps.push(Step::Debris(path, bytes));
        }
        let checkouts = sweep.checkouts.iter().filter(|(hash, _)| sweep.is_gone(hash));
        let checkouts = checkouts.map(|(hash, bytes)| {
            Step::Checkout(self.root.join("trees").join(hash.to_string()), *bytes)
        });
        steps.extend(checkouts);
        let blobs = sweep.blobs.iter();
        steps.extend(blobs.map(|(digest, bytes)| Step::Blob(self.blob_path(digest), *bytes)));
        steps.extend(logs.iter().map(|(id, facts)| Step::Log(self.log_path(id), facts.bytes)));
        let locks = disk.locks.iter().filter(|path| is_unlocked(path));
        steps.extend(locks.map(|path| Step::Lock(path.clone())));
        Ok((steps, report))
    }

    fn take(&self, step: &Step, remove: &RemoveTree<'_>) -> Result<(), StoreError> {
        match step {
            Step::Root(name) => self.remove_root(name).map(|_| ()),
            Step::Rows(rows) => self.database.remove(rows),
            Step::Debris(path, _) => match path.symlink_metadata() {
                Ok(data) if data.is_dir() => remove(path).map_err(StoreError::io("remove", path)),
                _ => std::fs::remove_file(path).map_err(StoreError::io("remove", path)),
            },
            Step::Checkout(path, _) => self.remove_checkout(path, remove),
            Step::Blob(path, _) | Step::Log(path, _) | Step::Lock(path) => {
                std::fs::remove_file(path).map_err(StoreError::io("remove", path))
            }
        }
    }

    /// Removes a checkout so that no one ever sees half of it.
    pub(super) fn remove_checkout(
        &self,
        path: &Path,
        remove: &RemoveTree<'_>,
    ) -> Result<(), StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!("{REMOVED}{name}"));
        std::fs::rename(path, &aside).map_err(StoreError::io("rename", path))?;
        remove(&aside).map_err(StoreError::io("remove", aside))
    }
}

impl Step {
    /// The file that goes; `None` for what must succeed before any file goes.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Root(_) | Self::Rows(_) => None,
            Self::Debris(path, _)
            | Self::Checkout(path, _)
            | Self::Blob(path, _)
            | Self::Log(path, _)
            | Self::Lock(path) => Some(path),
        }
    }
}

impl GcReport {
    fn count(&mut self, step: &Step) {
        let (number, bytes) = match step {
            Step::Root(name) => return self.roots.push(name.clone()),
            Step::Rows(rows) => {
                self.trees = rows.trees.len() as u64;
                self.realisations = rows.derivations.len() as u64;
                return;
            }
            Step::Debris(_, bytes) => (&mut self.temporary, bytes),
            Step::Checkout(_, bytes) => (&mut self.checkouts, bytes),
            Step::Blob(_, bytes) => (&mut self.blobs, bytes),
            Step::Log(_, bytes) => (&mut self.logs, bytes),
            Step::Lock(_) => (&mut self.locks, &0),
        };
        *number += 1;
        self.bytes += bytes;
    }
}

/// Days in seconds.
fn days(number: Option<u64>) -> Option<i64> {
    Some(i64::try_from(number?).unwrap_or(i64::MAX).saturating_mul(DAY))
}
