//! Package configuration: maintainer scripts run in the sandbox, and the difference is a tree.
//!
//! Two stages, each a derivation: the suite's Essential set, shared by every image of the suite;
//! then the image's packages over it. Each is run twice, and results that differ are refused.
//!
//! ```text
//!   guards            policy-rc.d and start-stop-daemon, so that no service starts
//!   dpkg database     written by hand, packages "unpacked"
//!   corrections       who owns a path that several packages claim   } once for each
//!   new packages      the first after its preinst ran               } round
//!   ----------------  stage 2 above, stage 1 below
//!   stage 1's result
//!   Essential packages
//!   skeleton          merged /usr
//! ```

mod attribution;
pub mod base_files;
mod compose;
mod database;
mod driver;
mod ids;
mod information;
mod leave_out;
mod order;
mod package;
mod queue;
mod state;
mod triggers;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use drystone_store::derivation::Derivation;
use drystone_store::digest::{DerivationId, FileHash, TreeHash};
use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tar::WriteError;
use drystone_store::tree::{Entry, EntrySink, Kind, SpoolError, TreePath, TreeSpool};

pub use attribution::{ACCOUNT_FILES, AccountLines, Attribution};
pub use ids::{PinnedIds, allocated};
pub use order::dependency_order;
pub use package::Package;
pub use state::{StateRule, StateTable};

use crate::check::Variation;
use crate::finish::status::StatusError;
use crate::progress::{Event, Progress};
use crate::realise::{CheckoutError, Checkouts};
use crate::sandbox::{Limit, SANDBOX_VERSION, SandboxError};
use crate::stack::{self, Clash, Diversion, Member};

/// Version of the `configure` builder: rises whenever its output can change.
pub const VERSION: u32 = 10;
/// The name of the file in the output `attribution`.
const ATTRIBUTION: &str = "attribution.json";

/// Why packages could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// A maintainer script failed.
    #[error("{script} {arguments} of package {package} {ending}")]
    Script {
        /// The package.
        package: String,
        /// `preinst` or `postinst`.
        script: String,
        /// How it was called.
        arguments: String,
        /// How it ended, in words.
        ending: Box<str>,
        /// The limit that it ran into.
        limit: Option<Limit>,
        /// The end of its output.
        tail: Box<str>,
    },
    /// debconf refused the answers of image.toml.
    #[error("debconf refuses the preseed lines of [debian] debconf")]
    Preseed {
        /// The end of its output.
        tail: String,
    },
    /// Two runs gave different results.
    #[error("configuring twice gave different results: {}", paths.join(", "))]
    NotReproducible {
        /// The paths that differ.
        paths: Vec<String>,
    },
    /// Packages claim one path.
    #[error("packages clash")]
    Clash {
        /// The first of the clashes.
        #[source]
        first: Clash,
        /// How many there are in all.
        count: usize,
    },
    /// Triggers activate each other without end.
    #[error("triggers activate each other without end")]
    TriggerLoop,
    /// A control archive is malformed.
    #[error("the control archive of {package} is malformed: {problem}")]
    Control {
        /// The package.
        package: String,
        /// What is wrong.
        problem: String,
    },
    /// A script left dpkg's database malformed, as dpkg's next run would find.
    #[error("{script} left /{file} malformed")]
    Database {
        /// Which script: "a script", or one of a package where that is known.
        script: String,
        /// The file, from the root.
        file: &'static str,
    },
    /// A control file cannot be written as dpkg's status.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The recorded attribution is malformed.
    #[error("the attribution of stage {0} is malformed")]
    Attribution(TreeHash),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A tree could not be laid out.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The difference makes no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
}

impl ConfigureError {
    /// The end of the failed script's output.
    pub fn tail(&self) -> Option<&str> {
        match self {
            Self::Script { tail, .. } => Some(tail),
            Self::Preseed { tail } => Some(tail),
            _ => None,
        }
    }
}

/// A stage that was configured.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The derivation's id.
    pub derivation: DerivationId,
    /// What configuration changed, over the trees of all packages below.
    pub out: Output,
    /// Who changed what.
    pub attribution: Attribution,
    /// All packages that are configured, in order.
    pub packages: Vec<Package>,
    /// The trees that the result stands on, lowest first, the result included.
    pub trees: Vec<Output>,
}

/// A stage to configure.
pub struct Stage<'a> {
    store: &'a Store,
    checkouts: &'a Checkouts<'a>,
    progress: &'a dyn Progress,
    compression: Compression,
    architecture: &'a str,
    below: Option<&'a Configured>,
    packages: Vec<Package>,
    skeleton: Output,
    preseed: Vec<String>,
    pinned: PinnedIds,
    listings: Mutex<HashMap<TreeHash, Arc<Listing>>>,
    information: OnceLock<BTreeMap<String, String>>,
}

/// What every stage is made with.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    /// The store.
    pub store: &'a Store,
    /// Checkouts of its trees.
    pub checkouts: &'a Checkouts<'a>,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// How layers are compressed.
    pub compression: Compression,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
}

impl<'a> Stage<'a> {
    /// A stage: `packages` over what `below` configured (nothing for the Essential stage), with
    /// answers to debconf's questions and the numbers that accounts are to have.
    pub fn new(
        workshop: Workshop<'a>,
        below: Option<&'a Configured>,
        packages: Vec<Package>,
        preseed: Vec<String>,
        pinned: PinnedIds,
    ) -> Result<Self, ConfigureError> {
        let skeleton = skeleton(workshop.store, workshop.compression, workshop.architecture)?;
        let order = dependency_order(&packages, below.is_some());
        let mut slots: Vec<Option<Package>> = packages.into_iter().map(Some).collect();
        let packages = order.into_iter().filter_map(|number| slots[number].take()).collect();
        Ok(Self {
            store: workshop.store,
            checkouts: workshop.checkouts,
            progress: workshop.progress,
            compression: workshop.compression,
            architecture: workshop.architecture,
            below,
            packages,
            skeleton,
            preseed,
            pinned,
            listings: Mutex::default(),
            information: OnceLock::new(),
        })
    }

    /// The derivation: trees in the order of stacking, then the control trees.
    pub fn derivation(&self, table: &StateTable) -> Derivation {
        let trees = self.trees_below().map(|output| *output.path.hash());
        let data = self.packages.iter().map(|package| *package.data.path.hash());
        let control = self.packages.iter().map(|package| *package.control.path.hash());
        let below = self.below.map_or(0, |below| below.packages.len());
        let mut derivation = Derivation::new("configure", VERSION)
            .with_inputs(trees.chain(data).chain(control))
            .with_arg("below", below)
            .with_arg("packages", self.packages.len())
            .with_arg("debconf", self.preseed.clone())
            .with_arg("users", serde_json::json!(self.pinned.users))
            .with_arg("groups", serde_json::json!(self.pinned.groups));
        derivation.outputs = vec!["out".to_owned(), "attribution".to_owned()];
        derivation.platform = Some(format!("linux/{}", self.architecture));
        derivation.sandbox = Some(SANDBOX_VERSION);
        derivation.tables = BTreeMap::from([("state".to_owned(), table.digest())]);
        derivation
    }

    /// The result, if this store has it.
    pub fn realised(&self, table: &StateTable) -> Result<Option<Configured>, ConfigureError> {
        let id = self.derivation(table).id();
        let Some(mut realisation) = self.store.realisation(&id)? else { return Ok(None) };
        let out = realisation.outputs.remove("out");
        let attribution = realisation.outputs.remove("attribution");
        let Some((out, attribution)) = out.zip(attribution) else { return Ok(None) };
        Ok(Some(self.configured(id, out, read_attribution(self.store, &attribution)?)))
    }

    /// The result, made if need be: every script runs twice.
    pub fn realise(&self, table: &StateTable) -> Result<Configured, ConfigureError> {
        if let Some(configured) = self.realised(table)? {
            return Ok(configured);
        }
        let derivation = self.derivation(table);
        let id = derivation.id();
        let _lock = self.store.lock_derivation(&id)?;
        if let Some(configured) = self.realised(table)? {
            return Ok(configured);
        }
        self.checkouts.permit(&format!("configure {}", self.name()), id)?;
        self.check_out()?;
        let (out, first) = match self.run_and_compare(table, |run| run) {
            Err(ConfigureError::NotReproducible { paths }) => {
                tracing::info!(
                    "two runs differ ({}); now in settled surroundings",
                    paths.join(", ")
                );
                self.run_and_compare(table, Variation::settled)?
            }
            result => result?,
        };
        self.explain_removed(&first.removed, table);
        let mut spool = self.store.spool();
        let json =
            serde_json::to_vec(&first.attribution).expect("an attribution's maps have text keys");
        let path = TreePath::new(ATTRIBUTION).expect("the name is a valid path");
        spool.add_file(path, 0o644, &json)?;
        let attribution = self.store.add_tree("attribution", self.compression, &mut spool)?;
        let outputs = [("out".to_owned(), out.clone()), ("attribution".to_owned(), attribution)];
        self.store.put_realisation(&derivation, outputs)?;
        self.progress.event(Event::Done { name: "configure".into() });
        Ok(self.configured(id, out, first.attribution))
    }

    /// One note for each rule that matters to the operator.
    fn explain_removed(&self, removed: &[(TreePath, usize)], table: &StateTable) {
        let mut by_rule: BTreeMap<usize, Vec<&TreePath>> = BTreeMap::new();
        for (path, rule) in removed {
            by_rule.entry(*rule).or_default().push(path);
        }
        for (rule, paths) in by_rule {
            let rule = table.rule(rule);
            let Some(advice) = &rule.first_run else { continue };
            let what = match paths.as_slice() {
                [single] => format!("/{single} is"),
                [first, ..] => format!("/{first} and {} more are", paths.len() - 1),
                [] => continue,
            };
            let text = format!("{what} left out ({}); at first run: {advice}", rule.reason);
            self.progress.event(Event::Note { text });
        }
    }

    /// Runs it twice, in surroundings that `change` makes of the usual two, and stores the first
    /// run's tree if the second one agrees.
    fn run_and_compare(
        &self,
        table: &StateTable,
        change: impl Fn(Variation) -> Variation,
    ) -> Result<(Output, driver::Ran), ConfigureError> {
        let variations = [Variation::none(), Variation::second_run()].map(change);
        let [mut first, second] = self.run_twice(table, &variations)?;
        let out = self.store.add_tree(&self.name(), self.compression, &mut first.spool)?;
        self.compare(&out, &first.attribution, second)?;
        Ok((out, first))
    }

    fn run_twice(
        &self,
        table: &StateTable,
        [first, second]: &[Variation; 2],
    ) -> Result<[driver::Ran; 2], ConfigureError> {
        let log_path = self.store.log_path(&self.derivation(table).id());
        let log = File::create(&log_path).map_err(|source| StoreError::Io {
            action: "create",
            path: log_path,
            source,
        })?;
        let second_log = tempfile::tempfile_in(self.store.temporary_directory())
            .map_err(|source| self.io("create a log in", source))?;
        // Both runs use it, and it costs reading packages.
        self.information()?;
        std::thread::scope(|scope| {
            let second = scope.spawn(move || self.run_once(table, second, &second_log, false));
            let first = self.run_once(table, first, &log, true);
            let second = match second.join() {
                Ok(second) => second,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            Ok([first?, second?])
        })
    }

    fn run_once(
        &self,
        table: &StateTable,
        variation: &Variation,
        log: &File,
        reports: bool,
    ) -> Result<driver::Ran, ConfigureError> {
        let directory = tempfile::tempdir_in(self.store.temporary_directory())
            .map_err(|source| self.io("create a directory in", source))?;
        let run = driver::Run { stage: self, directory: directory.path(), variation, log, reports };
        let ran = run.run(table);
        // The uppers may belong to ids that only the session can act as.
        let removed = self.checkouts.session()?.remove(directory.path());
        let ran = ran?;
        removed?;
        Ok(ran)
    }

    /// Runs it again in other surroundings; what it makes is stored as a tree, and never as its
    /// result.
    pub fn rebuild(
        &self,
        table: &StateTable,
        variation: &Variation,
    ) -> Result<Output, ConfigureError> {
        self.check_out()?;
        let log = tempfile::tempfile_in(self.store.temporary_directory())
            .map_err(|source| self.io("create a log in", source))?;
        let mut ran = self.run_once(table, variation, &log, false)?;
        Ok(self.store.add_tree(&self.name(), self.compression, &mut ran.spool)?)
    }

    /// Lays out the trees that scripts run over.
    fn check_out(&self) -> Result<(), ConfigureError> {
        let all: Vec<&Output> =
            self.trees_below().chain(self.packages.iter().map(|package| &package.data)).collect();
        self.checkouts.ensure(&all)?;
        Ok(())
    }

    /// [`information::files`] of this stage, which every run of it needs.
    fn information(&self) -> Result<&BTreeMap<String, String>, ConfigureError> {
        match self.information.get() {
            Some(known) => Ok(known),
            None => {
                let files = information::files(self)?;
                Ok(self.information.get_or_init(|| files))
            }
        }
    }

    /// What it is called in messages.
    pub fn title(&self) -> String {
        match self.below {
            None => "configuration of the Essential set".to_owned(),
            Some(_) => format!("configuration of {} packages over it", self.packages.len()),
        }
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> StoreError {
        StoreError::Io { action, path: self.store.temporary_directory().to_owned(), source }
    }

    /// Compares the second run with what the first one stored.
    fn compare(
        &self,
        out: &Output,
        attribution: &Attribution,
        mut second: driver::Ran,
    ) -> Result<(), ConfigureError> {
        let mut sink = ListingSink::default();
        second.spool.write(&mut sink)?;
        let first = self.listing(out)?;
        let mut paths: Vec<String> = differences(&first, &sink.listing);
        if paths.is_empty() && *attribution != second.attribution {
            paths.extend(
                attribution
                    .paths
                    .iter()
                    .filter(|(path, makers)| second.attribution.paths.get(*path) != Some(makers))
                    .map(|(path, _)| path.clone()),
            );
            if paths.is_empty() {
                paths.push("the order of changes".to_owned());
            }
        }
        match paths.is_empty() {
            true => Ok(()),
            false => Err(ConfigureError::NotReproducible { paths }),
        }
    }

    fn configured(
        &self,
        derivation: DerivationId,
        out: Output,
        attribution: Attribution,
    ) -> Configured {
        let data = self.packages.iter().map(|package| package.data.clone());
        let trees = self.trees_below().cloned().chain(data).chain([out.clone()]).collect();
        let packages = self.everyone().cloned().collect();
        Configured { derivation, out, attribution, packages, trees }
    }

    fn name(&self) -> String {
        match self.below {
            None => "configured-essential".to_owned(),
            Some(_) => "configured".to_owned(),
        }
    }

    /// All packages, those below first.
    fn everyone(&self) -> impl Iterator<Item = &Package> {
        let below = self.below.iter().flat_map(|below| below.packages.iter());
        below.chain(&self.packages)
    }

    /// The trees below this stage's packages, lowest first.
    fn trees_below(&self) -> impl Iterator<Item = &Output> {
        let (skeleton, trees): (Option<&Output>, &[Output]) = match self.below {
            Some(below) => (None, &below.trees),
            None => (Some(&self.skeleton), &[]),
        };
        skeleton.into_iter().chain(trees)
    }

    /// Checkouts of the trees below, topmost first, with the corrections of the stage below.
    fn lower_below(&self) -> Result<Vec<PathBuf>, ConfigureError> {
        let mut trees: Vec<Output> = self.trees_below().cloned().collect();
        if let Some(below) = self.below {
            let packages: Vec<&Package> = below.packages.iter().collect();
            let listings = packages
                .iter()
                .map(|package| self.listing(&package.data))
                .collect::<Result<Vec<_>, _>>()?;
            let listings: Vec<&Listing> = listings.iter().map(AsRef::as_ref).collect();
            let corrections =
                add_corrections(self.store, self.compression, &packages, &listings, &[], 0)?;
            // Above the packages, below the stage's own result.
            let at = trees.len() - 1;
            trees.splice(at..at, corrections);
        }
        let outputs: Vec<&Output> = trees.iter().collect();
        let mut paths = self.checkouts.ensure(&outputs)?;
        paths.reverse();
        Ok(paths)
    }

    fn checkout(&self, output: &Output) -> Result<PathBuf, ConfigureError> {
        let mut paths = self.checkouts.ensure(&[output])?;
        Ok(paths.remove(0))
    }

    fn listing(&self, output: &Output) -> Result<Arc<Listing>, ConfigureError> {
        let hash = *output.path.hash();
        let lock = || self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = lock().get(&hash) {
            return Ok(listing.clone());
        }
        let listing = self.store.listing(output)?.ok_or(StoreError::NoTree(hash))?;
        let listing = Arc::new(listing);
        lock().insert(hash, listing.clone());
        Ok(listing)
    }

    /// Files that keep services from starting while packages are configured, as mmdebstrap and
    /// debootstrap do; they stand on top and so are in no difference. A resolver's configuration is
    /// there as well, as on every system that is being installed: without one postfix makes up a name.
    fn guards(&self) -> Result<Output, ConfigureError> {
        let mut spool = self.store.spool();
        let file = |path: &str| TreePath::new(path).expect("the path is valid");
        spool.add_file(file("usr/sbin/policy-rc.d"), 0o755, b"#!/bin/sh\nexit 101\n")?;
        spool.add_file(file("etc/resolv.conf"), 0o644, b"")?;
        let stub = b"#!/bin/sh\necho 'no service starts while packages are configured' >&2\n";
        spool.add_file(file("usr/sbin/start-stop-daemon"), 0o755, stub)?;
        Ok(self.store.add_tree("guards", self.compression, &mut spool)?)
    }

    /// The version of dpkg that scripts are told.
    fn dpkg_version(&self) -> &str {
        self.everyone()
            .find(|package| package.name == "dpkg")
            .map_or("1.21.22", |dpkg| &dpkg.version)
    }
}

/// Whether scripts must run to configure these packages.
pub fn is_needed<'a>(packages: impl IntoIterator<Item = &'a Package>) -> bool {
    packages.into_iter().any(|package| package.has_effects() && !is_inert(package))
}

/// Whether a package's scripts do nothing when it is installed for the first time (libc6's act on
/// upgrades), or only what [`base_files`] does without them.
pub fn is_inert(package: &Package) -> bool {
    package.name == "libc6" || base_files::is_known(package)
}

/// The merged-/usr links that every root and image has (Debian's usrmerge).
pub fn skeleton(
    store: &Store,
    compression: Compression,
    architecture: &str,
) -> Result<Output, ConfigureError> {
    let mut spool = store.spool();
    let more: &[&str] = match architecture {
        "amd64" | "loong64" | "mips64el" | "ppc64el" | "s390x" => &["lib64"],
        _ => &[],
    };
    let path = |text: &str| TreePath::new(text).expect("the path is valid");
    for name in ["bin", "lib", "sbin"].iter().chain(more) {
        spool.add_empty(Entry::symlink(path(name), format!("usr/{name}")))?;
        spool.add_empty(Entry::directory(path(&format!("usr/{name}"))))?;
    }
    Ok(store.add_tree("merged-usr", compression, &mut spool)?)
}

/// Stores the corrections among packages; `None` when there are none. Only those that involve a
/// package from number `first` on count.
pub fn add_corrections(
    store: &Store,
    compression: Compression,
    packages: &[&Package],
    listings: &[&Listing],
    diversions: &[Diversion],
    first: usize,
) -> Result<Option<Output>, ConfigureError> {
    let members: Vec<Member<'_>> = packages
        .iter()
        .zip(listings)
        .map(|(package, listing)| Member { name: &package.name, listing })
        .collect();
    let replaces = |a: usize, b: usize| packages[a].replaces(packages[b]);
    let found = stack::corrections(&members, diversions, &replaces).map_err(|mut clashes| {
        let count = clashes.len();
        ConfigureError::Clash { first: clashes.swap_remove(0), count }
    })?;
    let involves =
        |path: &TreePath| listings[first..].iter().any(|listing| listing.find(path).is_some());
    let found: Vec<_> = found
        .into_iter()
        .filter(|correction| {
            first == 0
                || involves(&correction.entry.path)
                || correction.content.as_ref().is_some_and(|(number, _)| *number >= first)
        })
        .collect();
    if found.is_empty() {
        return Ok(None);
    }
    let mut spool = store.spool();
    let mut wanted: BTreeMap<usize, HashMap<TreePath, Vec<Entry>>> = BTreeMap::new();
    for correction in found {
        add_parents(&mut spool, &correction.entry.path, listings)?;
        match correction.content {
            Some((number, path)) => {
                let entries = wanted.entry(number).or_default().entry(path).or_default();
                entries.push(correction.entry);
            }
            None => spool.replace(correction.entry, &mut std::io::empty())?,
        }
    }
    let spool = Rc::new(RefCell::new(spool));
    for (number, mut paths) in wanted {
        store.read_tree(&packages[number].data, |entry, content| {
            let Some(targets) = paths.remove(&entry.path) else { return Ok(()) };
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|source| StoreError::Io {
                action: "read",
                path: entry.path.as_str().into(),
                source,
            })?;
            for target in targets {
                spool.borrow_mut().replace(target, &mut bytes.as_slice())?;
            }
            Ok::<(), ConfigureError>(())
        })?;
    }
    let mut spool = spool.borrow_mut();
    Ok(Some(store.add_tree("corrections", compression, &mut spool)?))
}

/// Adds the directories above a path as the lowest tree that has them has them.
fn add_parents(
    spool: &mut TreeSpool,
    path: &TreePath,
    listings: &[&Listing],
) -> Result<(), ConfigureError> {
    let mut parent = path.parent();
    while let Some(directory) = parent {
        if spool.entry(&directory).is_none() {
            let found = listings.iter().find_map(|listing| listing.find(&directory));
            if let Some(item) = found.filter(|item| item.entry.kind == Kind::Directory) {
                spool.add_empty(item.entry.clone())?;
            }
        }
        parent = directory.parent();
    }
    Ok(())
}

/// Who made what in a stage of configuration that the store has; `None` for other derivations.
pub fn recorded_attribution(
    store: &Store,
    derivation: &DerivationId,
) -> Result<Option<Attribution>, ConfigureError> {
    let output = store.realised_output(derivation, "attribution")?;
    output.map(|output| read_attribution(store, &output)).transpose()
}

fn read_attribution(store: &Store, output: &Output) -> Result<Attribution, ConfigureError> {
    let mut json = Vec::new();
    store.read_tree(output, |entry, content| {
        if entry.path.as_str() == ATTRIBUTION {
            content.read_to_end(&mut json).map_err(|source| StoreError::Io {
                action: "read",
                path: ATTRIBUTION.into(),
                source,
            })?;
        }
        Ok::<(), StoreError>(())
    })?;
    serde_json::from_slice(&json).map_err(|_| ConfigureError::Attribution(*output.path.hash()))
}

/// Collects a listing and drops the contents.
#[derive(Default)]
struct ListingSink {
    listing: Listing,
}

impl EntrySink for ListingSink {
    fn append(&mut self, entry: &Entry, content: &mut dyn std::io::Read) -> Result<(), WriteError> {
        let mut bytes = Vec::new();
        content
            .read_to_end(&mut bytes)
            .map_err(|source| WriteError::Io { path: entry.path.clone(), source })?;
        let hash = matches!(entry.kind, Kind::File { .. }).then(|| FileHash::of(&bytes));
        self.listing.push(entry.clone(), hash);
        Ok(())
    }
}

/// The paths in which two listings differ.
pub fn differences(first: &Listing, second: &Listing) -> Vec<String> {
    let map = |listing: &Listing| -> BTreeMap<TreePath, drystone_store::listing::ListingEntry> {
        listing.entries().iter().map(|item| (item.entry.path.clone(), item.clone())).collect()
    };
    let (first, second) = (map(first), map(second));
    let mut paths: Vec<String> = first
        .iter()
        .filter(|(path, item)| second.get(*path) != Some(item))
        .map(|(path, _)| format!("/{path}"))
        .collect();
    let added = second.keys().filter(|path| !first.contains_key(*path));
    paths.extend(added.map(|path| format!("/{path}")));
    paths.sort();
    paths
}
