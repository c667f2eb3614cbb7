//! The user's `[finish]` script: a last configure step over the whole root.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use drystone_store::derivation::Derivation;
use drystone_store::digest::DerivationId;
use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath, TreeSpool};

use super::BuildError;
use crate::check::{Variation, tell_undisguised};
use crate::configure::StateTable;
use crate::progress::{Event, Progress};
use crate::realise::Checkouts;
use crate::sandbox::{Command, RootRequest, SANDBOX_VERSION};

/// Version of the `finish-script` builder: rises whenever its output can change.
const VERSION: u32 = 1;
/// The process number that the script's follows.
const PROCESS_NUMBER: u32 = 100;
const TIME_LIMIT: Duration = Duration::from_secs(3600);
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// A script, and the root that it runs in.
pub struct FinishScript<'a> {
    /// The store.
    pub store: &'a Store,
    /// Checkouts of its trees.
    pub checkouts: &'a Checkouts<'a>,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// The script's text.
    pub script: &'a str,
    /// The trees of the root, lowest first, the Essential set included.
    pub root: Vec<&'a Output>,
    /// The trees that are in the image.
    pub image: Vec<&'a Output>,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// What no image keeps.
    pub table: &'a StateTable,
}

impl FinishScript<'_> {
    fn derivation(&self) -> Derivation {
        let image: Vec<String> =
            self.image.iter().map(|output| output.path.hash().to_string()).collect();
        let mut derivation = Derivation::new("finish-script", VERSION)
            .with_inputs(self.root.iter().map(|output| *output.path.hash()))
            .with_arg("script", self.script)
            .with_arg("image", image);
        derivation.platform = Some(format!("linux/{}", self.architecture));
        derivation.sandbox = Some(SANDBOX_VERSION);
        derivation.tables = [("state".to_owned(), self.table.digest())].into();
        derivation
    }

    /// The difference that the script makes.
    pub fn realise(&self) -> Result<Output, BuildError> {
        let derivation = self.derivation();
        let id = derivation.id();
        let _lock = self.store.lock_derivation(&id)?;
        if let Some(output) = self.store.realised_output(&id, "out")? {
            return Ok(output);
        }
        self.checkouts.permit("finish-script", id)?;
        let text = "run the script".to_owned();
        self.progress.event(Event::Phase { name: "finish".into(), text });
        let outputs: Vec<&Output> = self.root.clone();
        self.checkouts.ensure(&outputs)?;
        let log = std::fs::File::create(self.store.log_path(&id)).map_err(|source| {
            StoreError::Io { action: "create", path: self.store.log_path(&id), source }
        })?;
        let mut first = self.run(&Variation::none(), &log)?;
        let varied = Variation::second_run();
        let mut second = self.run(&varied, &log)?;
        let first = self.store.add_tree("finished", Compression::Store1, &mut first)?;
        let second = self.store.add_tree("finished", Compression::Store1, &mut second)?;
        if first.path != second.path {
            let (first, second) =
                (super::listing(self.store, &first)?, super::listing(self.store, &second)?);
            let paths = crate::configure::differences(&first, &second);
            return Err(BuildError::FinishNotReproducible { paths });
        }
        self.store.put_realisation(&derivation, [("out".to_owned(), first.clone())])?;
        self.progress.event(Event::Done { name: "finish".into() });
        Ok(first)
    }

    /// Its derivation's id.
    pub fn id(&self) -> DerivationId {
        self.derivation().id()
    }

    /// Runs it again in other surroundings; what it makes is stored as a tree, and never as its
    /// result.
    pub fn rebuild(&self, variation: &Variation) -> Result<Output, BuildError> {
        let outputs: Vec<&Output> = self.root.clone();
        self.checkouts.ensure(&outputs)?;
        let temporary = self.store.temporary_directory();
        let log = tempfile::tempfile_in(temporary).map_err(|source| StoreError::Io {
            action: "create a log in",
            path: temporary.to_owned(),
            source,
        })?;
        let mut spool = self.run(variation, &log)?;
        Ok(self.store.add_tree("finished", Compression::Store1, &mut spool)?)
    }

    fn run(&self, variation: &Variation, log: &std::fs::File) -> Result<TreeSpool, BuildError> {
        let directory =
            tempfile::tempdir_in(self.store.temporary_directory()).map_err(|source| {
                StoreError::Io {
                    action: "create a directory in",
                    path: self.store.temporary_directory().to_owned(),
                    source,
                }
            })?;
        let result = self.run_in(directory.path(), variation, log);
        let removed = self.checkouts.session()?.remove(directory.path());
        let spool = result?;
        removed?;
        Ok(spool)
    }

    fn run_in(
        &self,
        directory: &Path,
        variation: &Variation,
        log: &std::fs::File,
    ) -> Result<TreeSpool, BuildError> {
        let session = self.checkouts.session()?;
        let mut lower = self.checkouts.ensure(&self.root)?;
        lower.reverse();
        let lower = self.checkouts.stackable(lower, directory)?;
        let upper = directory.join("upper");
        let mut request =
            RootRequest::configure(lower.clone(), upper.clone(), directory.join("work"));
        request.pid_base = Some(PROCESS_NUMBER);
        variation.apply_to_root(&mut request);
        let root = session.open_root(&request)?;
        tell_undisguised(&root, self.progress);
        let mut command = Command::new(["/bin/sh", "-e", "-c", self.script]);
        command.env.insert("DEBIAN_FRONTEND".into(), "noninteractive".into());
        command.time_limit = Some(TIME_LIMIT);
        command.silence_limit = Some(SILENCE_LIMIT);
        self.checkouts.limit(&mut command);
        let finished = root.execute(&command, Some(log))?;
        if !finished.success() {
            let (ending, limit) = (command.describe(finished.ending), finished.limit());
            let tail = String::from_utf8_lossy(&finished.tail).into_owned();
            return Err(BuildError::Finish { ending, limit, tail });
        }
        let storage = root.storage();
        root.close()?;
        let scan = session.scan(&upper, &lower, storage)?;
        self.collect(&scan)
    }

    /// Takes from a difference what belongs into the image.
    fn collect(&self, scan: &crate::sandbox::Scan) -> Result<TreeSpool, BuildError> {
        let listings = super::listings(self.store, &self.image)?;
        let listings: Vec<&Listing> = listings.iter().map(AsRef::as_ref).collect();
        let exists = |path: &TreePath| listings.iter().any(|listing| listing.find(path).is_some());
        let is_kept = |entry: &Entry| match entry.deleted_path() {
            Some(gone) => exists(&gone),
            // A secret that changes is found by the second run, and one that does not was given.
            None => self.table.matching(entry).all(|rule| self.table.rule(rule).secret.is_some()),
        };
        let mut parents: BTreeSet<TreePath> = BTreeSet::new();
        for item in scan.entries() {
            if (item.unchanged && item.entry.kind == Kind::Directory) || !is_kept(&item.entry) {
                continue;
            }
            let mut parent = item.entry.path.parent();
            while let Some(directory) = parent {
                parent = directory.parent();
                parents.insert(directory);
            }
        }
        let mut spool = self.store.spool();
        for (index, item) in scan.entries().iter().enumerate() {
            let entry = &item.entry;
            let is_parent = parents.contains(&entry.path);
            if !is_kept(entry) || (item.unchanged && !is_parent) {
                continue;
            }
            match entry.kind {
                Kind::File { .. } => spool.replace(entry.clone(), &mut scan.open(index)?)?,
                _ => spool.replace(entry.clone(), &mut std::io::empty())?,
            }
        }
        Ok(spool)
    }
}
