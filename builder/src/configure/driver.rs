//! Running maintainer scripts in dpkg's order (Debian policy, chapter 6), and recording who
//! changed what.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drystone_store::listing::Listing;
use drystone_store::store::StoreError;
use drystone_store::tree::{Kind, TreePath};

use super::attribution::{ACCOUNT_FILES, Attribution};
use super::compose::Composition;
use super::order::{Round, rounds};
use super::queue::{Queue, Step};
use super::state::StateTable;
use super::triggers::Triggers;
use super::{ConfigureError, Package, Stage, database};
use crate::check::{Variation, tell_undisguised};
use crate::finish::status::PackageState;
use crate::progress::Event;
use crate::sandbox::{Command, Root, RootRequest, Storage, standard_environment};
use crate::stack::{Diversion, StatOverride, parse_diversions, parse_statoverrides};
use drystone_source::debian::deb::Md5Reader;

/// The process number that the first script's follows.
const PROCESS_NUMBER: u32 = 100;
/// A script may print nothing for this long.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);
/// A script may run this long.
const TIME_LIMIT: Duration = Duration::from_secs(1800);
/// Triggers may activate triggers, but not for ever.
const MAX_TRIGGER_RUNS: usize = 1000;

/// What one run gave.
pub(super) struct Ran {
    pub(super) spool: drystone_store::tree::TreeSpool,
    pub(super) removed: Vec<(TreePath, usize)>,
    pub(super) attribution: Attribution,
}

/// One run of a stage.
pub(super) struct Run<'a> {
    pub(super) stage: &'a Stage<'a>,
    /// This run's own directory.
    pub(super) directory: &'a Path,
    /// The surroundings.
    pub(super) variation: &'a Variation,
    pub(super) log: &'a File,
    /// Whether this run reports its progress.
    pub(super) reports: bool,
}

struct State {
    triggers: Triggers,
    /// By package (numbers of dpkg's order), the states that were noted beside the status file.
    noted: BTreeMap<usize, PackageState>,
    attribution: Attribution,
    accounts: [String; 4],
    /// By package that is unpacked, configuration files that are not yet in their place.
    aside: BTreeMap<usize, Vec<String>>,
}

/// A root that is open, and what is needed to scan it when it closes.
struct OpenRoot {
    root: Root,
    upper: PathBuf,
    lower: Vec<PathBuf>,
}

impl Run<'_> {
    /// Runs the whole stage.
    pub(super) fn run(&self, table: &StateTable) -> Result<Ran, ConfigureError> {
        let stage = self.stage;
        let mut state = self.initial_state();
        // The stage's own packages first, by their numbers.
        let by_number = self.by_number();
        let information = stage.information()?;
        let database = self.add_database(&by_number, information, &state.triggers)?;
        let installed = by_number.iter().map(|&package| (package, in_state(INSTALLED)));
        let status = database::status(installed)?;
        let mut composition = Composition::new(stage.store.spool());
        for output in stage.trees_below() {
            composition.stack(stage.listing(output)?);
        }
        database::add_files(
            composition.spool(),
            &stage.packages,
            information,
            &status,
            &state.triggers,
            stage.architecture,
        )?;
        // Stacked trees, topmost first.
        let mut lower = stage.lower_below()?;
        let guards = stage.checkout(&stage.guards()?)?;
        let is_first = stage.below.is_none();
        let rounds = match is_first {
            // As the installers of systems do: all is unpacked before any script runs.
            true => vec![Round {
                unpack: (0..stage.packages.len()).collect(),
                configure: (0..stage.packages.len()).collect(),
                preinst: None,
            }],
            false => rounds(&stage.packages),
        };
        let mut unpacked: Vec<usize> = Vec::new();
        let last = rounds.len() - 1;
        let mut diversions = match is_first {
            true => Vec::new(),
            false => diversions_below(&lower)?,
        };
        // As dpkg read them when it began to unpack.
        let mut overrides = Vec::new();
        for (number, round) in rounds.iter().enumerate() {
            self.stack(&round.unpack, &mut lower, &mut composition)?;
            unpacked.extend(&round.unpack);
            // Above what scripts did before: dpkg has just unpacked what they correct.
            lower.splice(0..0, self.corrections(&unpacked, round.unpack.len(), &diversions)?);
            let full = [&[guards.clone(), database.clone()], lower.as_slice()].concat();
            let open = self.open(&format!("round-{number}"), &full)?;
            let root = &open.root;
            if !is_first {
                if number == 0 {
                    overrides = overrides_in(root)?;
                }
                self.apply_overrides(root, &mut state, &overrides, &round.unpack)?;
                self.set_conffiles_aside(root, &mut state, &unpacked)?;
            }
            self.write_status(root, &state, &unpacked)?;
            if number == 0 {
                self.preseed(root)?;
            }
            self.start_accounts(root, &mut state)?;
            if is_first {
                for package in 0..stage.packages.len() {
                    self.script(root, &mut state, package, "preinst", &["install"])?;
                }
            }
            for &package in &round.unpack {
                let package = &stage.packages[package];
                state.triggers.activate_own(package);
                state.triggers.activate_paths(package, package.list().lines());
            }
            self.note_triggers(root, &mut state, &by_number)?;
            // The Essential set is unpacked and configured by one dpkg, all else by one each time.
            if !is_first && !round.configure.is_empty() {
                state.triggers.start_dpkg();
            }
            for &package in &round.configure {
                self.configure(root, &mut state, &by_number, package)?;
            }
            if !is_first && (!round.configure.is_empty() || number == last) {
                state.triggers.start_dpkg();
                overrides = overrides_in(root)?;
            }
            if let Some(package) = round.preinst {
                self.script(root, &mut state, package, "preinst", &["install"])?;
            }
            if number == last {
                self.configure_pending(root, &mut state, &by_number, &status)?;
            }
            for number in std::mem::take(&mut state.noted).into_keys() {
                root.delete(&update_file(number))?;
            }
            if number == last {
                root.write_file(STATUS, status.as_bytes(), 0o644, (0, 0))?;
            } else {
                diversions = diversions_in(root)?;
            }
            self.close(open, &mut lower, &mut composition)?;
        }
        let (mut spool, removed) = composition.finish(table)?;
        let mut attribution = state.attribution;
        super::ids::apply(&mut spool, &mut attribution, &stage.pinned)?;
        Ok(Ran { spool, removed, attribution })
    }

    fn initial_state(&self) -> State {
        let mut triggers = Triggers::default();
        for package in self.stage.everyone() {
            triggers.add_interests(package);
        }
        for package in self.below() {
            triggers.set_configured(&package.info_name());
        }
        State {
            triggers,
            noted: BTreeMap::new(),
            attribution: Attribution::default(),
            accounts: Default::default(),
            aside: BTreeMap::new(),
        }
    }

    fn below(&self) -> &[Package] {
        self.stage.below.map_or(&[], |below| &below.packages)
    }

    /// All packages, the stage's own first.
    fn by_number(&self) -> Vec<&Package> {
        self.stage.packages.iter().chain(self.below()).collect()
    }

    /// dpkg's database with the stage's packages unpacked, as a tree. It must not say how all ends:
    /// a root's last status would then equal what is below it, and be no change of that root.
    fn add_database(
        &self,
        everyone: &[&Package],
        information: &BTreeMap<String, String>,
        triggers: &Triggers,
    ) -> Result<PathBuf, ConfigureError> {
        let stage = self.stage;
        let mut spool = stage.store.spool();
        let unpacked = everyone.iter().map(|&package| (package, in_state(UNPACKED)));
        let status = database::status(unpacked)?;
        database::add_files(
            &mut spool,
            &stage.packages,
            information,
            &status,
            triggers,
            stage.architecture,
        )?;
        let output = stage.store.add_tree("dpkg-database", stage.compression, &mut spool)?;
        stage.checkout(&output)
    }

    /// Says what is unpacked and configured so far: scripts ask for the state of other packages.
    fn write_status(
        &self,
        root: &Root,
        state: &State,
        unpacked: &[usize],
    ) -> Result<(), ConfigureError> {
        let unpacked = unpacked.iter().map(|&number| &self.stage.packages[number]);
        let known = self.below().iter().chain(unpacked);
        let status = database::status(known.map(|package| (package, state.of(package))))?;
        Ok(root.write_file(STATUS, status.as_bytes(), 0o644, (0, 0))?)
    }

    /// Notes the state of a package as dpkg does while it runs: beside the status file, which is
    /// written whole only now and then.
    fn note(
        &self,
        root: &Root,
        state: &mut State,
        (number, package): (usize, &Package),
        now: PackageState,
    ) -> Result<(), ConfigureError> {
        if state.noted.get(&number) != Some(&now) {
            let text = database::paragraph(package, now.clone())?;
            root.write_file(&update_file(number), text.as_bytes(), 0o644, (0, 0))?;
            state.noted.insert(number, now);
        }
        Ok(())
    }

    /// Notes whose triggers are pending or waited for, and whose are no longer.
    fn note_triggers(
        &self,
        root: &Root,
        state: &mut State,
        by_number: &[&Package],
    ) -> Result<(), ConfigureError> {
        for (number, package) in by_number.iter().enumerate() {
            let name = package.info_name();
            if !state.triggers.is_configured(&name) {
                continue;
            }
            let now = state.of(package);
            if state.noted.contains_key(&number) || now.status != in_state(INSTALLED).status {
                self.note(root, state, (number, package), now)?;
            }
        }
        Ok(())
    }

    fn stack(
        &self,
        packages: &[usize],
        lower: &mut Vec<PathBuf>,
        composition: &mut Composition,
    ) -> Result<(), ConfigureError> {
        for &number in packages {
            let output = &self.stage.packages[number].data;
            composition.stack(self.stage.listing(output)?);
            lower.insert(0, self.stage.checkout(output)?);
        }
        Ok(())
    }

    /// What stands above the trees because several packages claim a path, the last `new` of those
    /// unpacked among them.
    fn corrections(
        &self,
        unpacked: &[usize],
        new: usize,
        diversions: &[Diversion],
    ) -> Result<Option<PathBuf>, ConfigureError> {
        let stage = self.stage;
        let unpacked = unpacked.iter().map(|&number| &stage.packages[number]);
        let packages: Vec<&Package> = self.below().iter().chain(unpacked).collect();
        let listings = packages
            .iter()
            .map(|package| stage.listing(&package.data))
            .collect::<Result<Vec<_>, _>>()?;
        let output = super::add_corrections(
            stage.store,
            stage.compression,
            &packages,
            &listings.iter().map(AsRef::as_ref).collect::<Vec<&Listing>>(),
            diversions,
            packages.len() - new,
        )?;
        output.map(|output| stage.checkout(&output)).transpose()
    }

    fn open(&self, name: &str, lower: &[PathBuf]) -> Result<OpenRoot, ConfigureError> {
        let upper = self.directory.join(format!("{name}-upper"));
        let work = self.directory.join(format!("{name}-work"));
        let lower = self.stage.checkouts.stackable(lower.to_vec(), self.directory)?;
        let mut request = RootRequest::configure(lower.clone(), upper.clone(), work);
        request.pid_base = Some(PROCESS_NUMBER);
        self.variation.apply_to_root(&mut request);
        let root = self.stage.checkouts.session()?.open_root(&request)?;
        tell_undisguised(&root, self.stage.progress);
        Ok(OpenRoot { root, upper, lower })
    }

    /// Closes a root, adds what was changed to the composition, and puts it on top of `lower`.
    fn close(
        &self,
        open: OpenRoot,
        lower: &mut Vec<PathBuf>,
        composition: &mut Composition,
    ) -> Result<(), ConfigureError> {
        let storage: Storage = open.root.storage();
        open.root.close()?;
        let scan = self.stage.checkouts.session()?.scan(&open.upper, &open.lower, storage)?;
        if storage == Storage::Copy {
            // A copy is the whole root, and what is not in it was deleted.
            lower.clear();
        }
        lower.insert(0, open.upper);
        composition.apply(&scan)
    }

    /// Installs answers to debconf's questions before anything asks them.
    fn preseed(&self, root: &Root) -> Result<(), ConfigureError> {
        if self.stage.preseed.is_empty() {
            return Ok(());
        }
        let text = self.stage.preseed.join("\n") + "\n";
        root.write_file("/var/cache/debconf/preseed", text.as_bytes(), 0o600, (0, 0))?;
        let mut command = Command::new(["debconf-set-selections", "/var/cache/debconf/preseed"]);
        command.env = environment("debconf", "preseed", self.stage);
        let finished = root.execute(&command, Some(self.log))?;
        root.delete("/var/cache/debconf/preseed")?;
        match finished.success() {
            true => Ok(()),
            false => Err(ConfigureError::Preseed {
                tail: String::from_utf8_lossy(&finished.tail).into_owned(),
            }),
        }
    }

    /// Configures a package (dpkg's `deferred_configure`).
    fn configure(
        &self,
        root: &Root,
        state: &mut State,
        by_number: &[&Package],
        number: usize,
    ) -> Result<(), ConfigureError> {
        let package = by_number[number];
        state.triggers.activate_own(package);
        let conffiles = package.conffiles();
        state.triggers.activate_paths(package, conffiles.iter().map(|file| file.path.as_str()));
        put_conffiles_in_place(root, &state.aside.remove(&number).unwrap_or_default())?;
        self.note(root, state, (number, package), in_state("half-configured"))?;
        self.note_triggers(root, state, by_number)?;
        let ran = self.execute(root, package, "postinst", &["configure", ""])?;
        // What it triggers may be meant for itself.
        state.triggers.set_configured(&package.info_name());
        if ran {
            self.attribute(root, state, package)?;
        }
        self.note_triggers(root, state, by_number)
    }

    /// The stage's packages that are not configured yet.
    fn unconfigured(&self, state: &State) -> Vec<usize> {
        let packages = self.stage.packages.iter().enumerate();
        packages
            .filter(|(_, package)| !state.triggers.is_configured(&package.info_name()))
            .map(|(number, _)| number)
            .collect()
    }

    /// Configures what is not yet, and processes triggers (`dpkg --configure --pending`). `status`
    /// is dpkg's status file.
    fn configure_pending(
        &self,
        root: &Root,
        state: &mut State,
        by_number: &[&Package],
        status: &str,
    ) -> Result<(), ConfigureError> {
        let unpacked = self.unconfigured(state);
        let mut queue = Queue::new(by_number, &unpacked, status, &state.triggers);
        let mut trigger_runs = 0;
        while let Some(step) = queue.next(&state.triggers) {
            match step {
                Step::Configure(number) => self.configure(root, state, by_number, number)?,
                Step::Trigger(_) if trigger_runs == MAX_TRIGGER_RUNS => {
                    return Err(ConfigureError::TriggerLoop);
                }
                Step::Trigger(number) => {
                    trigger_runs += 1;
                    let package = by_number[number];
                    let triggers = state.triggers.take_pending(&package.info_name()).join(" ");
                    self.note_triggers(root, state, by_number)?;
                    self.note(root, state, (number, package), in_state("half-configured"))?;
                    if self.execute(root, package, "postinst", &["triggered", &triggers])? {
                        self.attribute(root, state, package)?;
                    }
                    self.note_triggers(root, state, by_number)?;
                }
            }
        }
        Ok(())
    }

    /// Gives newly unpacked files the modes and owners that `overrides` say: those that dpkg found
    /// when it began to unpack, since it reads them once. They are their packages' effect.
    fn apply_overrides(
        &self,
        root: &Root,
        state: &mut State,
        overrides: &[StatOverride],
        packages: &[usize],
    ) -> Result<(), ConfigureError> {
        for rule in overrides {
            for &number in packages {
                let package = &self.stage.packages[number];
                let listing = self.stage.listing(&package.data)?;
                let is_link = |kind: &Kind| matches!(kind, Kind::Symlink { .. });
                if listing.find(&rule.path).is_some_and(|item| !is_link(&item.entry.kind)) {
                    let path = format!("/{}", rule.path);
                    root.set_attributes(&path, rule.mode, (rule.uid, rule.gid))?;
                    state.attribution.touch(&package.name, &rule.path);
                }
            }
        }
        Ok(())
    }

    /// dpkg unpacks a configuration file under another name until its package is configured, so
    /// scripts of packages before it do not see it. The Essential set is no such case: its files
    /// were in place before dpkg was.
    fn set_conffiles_aside(
        &self,
        root: &Root,
        state: &mut State,
        unpacked: &[usize],
    ) -> Result<(), ConfigureError> {
        for &number in unpacked {
            if state.triggers.is_configured(&self.stage.packages[number].info_name())
                || state.aside.contains_key(&number)
            {
                continue;
            }
            let mut aside = Vec::new();
            for file in self.stage.packages[number].conffiles() {
                // Where a diversion leads elsewhere, what stands here is another's.
                let Some(content) = root.read_file(&file.path).ok().flatten() else { continue };
                let mut bytes = content.as_slice();
                let mut hashing = Md5Reader::new(&mut bytes);
                // Reading from memory cannot fail.
                let _ = std::io::copy(&mut hashing, &mut std::io::sink());
                if hashing.finish() != file.md5 {
                    continue;
                }
                root.rename(&file.path, &format!("{}{NEW_CONFFILE}", file.path))?;
                aside.push(file.path);
            }
            state.aside.insert(number, aside);
        }
        Ok(())
    }

    fn script(
        &self,
        root: &Root,
        state: &mut State,
        number: usize,
        script: &str,
        arguments: &[&str],
    ) -> Result<(), ConfigureError> {
        let package = &self.stage.packages[number];
        match self.execute(root, package, script, arguments)? {
            true => self.attribute(root, state, package),
            false => Ok(()),
        }
    }

    /// Runs a script, if the package has it; whether it has.
    fn execute(
        &self,
        root: &Root,
        package: &Package,
        script: &str,
        arguments: &[&str],
    ) -> Result<bool, ConfigureError> {
        if !package.has_script(script) {
            return Ok(false);
        }
        if self.reports {
            let text = format!("{} {script} {}", package.name, arguments[0]);
            self.stage.progress.event(Event::Phase { name: "configure".into(), text });
        }
        let mut log = self.log;
        // The log is for people; a full disk shows in what matters.
        let _ = writeln!(log, "--- {} {script} {}", package.name, arguments.join(" "));
        let is_preinst = script == "preinst";
        let program = match is_preinst {
            true => format!("{UNPACKING}/preinst"),
            false => format!("/var/lib/dpkg/info/{}.{script}", package.info_name()),
        };
        if is_preinst {
            show_control_files(root, package)?;
        }
        let argv = std::iter::once(program.as_str()).chain(arguments.iter().copied());
        let mut command = Command::new(argv);
        command.env = environment(&package.name, script, self.stage);
        command.env.insert("DPKG_MAINTSCRIPT_ARCH".into(), package.architecture.clone());
        command.time_limit = Some(TIME_LIMIT);
        command.silence_limit = Some(SILENCE_LIMIT);
        self.stage.checkouts.limit(&mut command);
        let finished = root.execute(&command, Some(self.log))?;
        if is_preinst {
            root.delete(UNPACKING)?;
        }
        if !finished.success() {
            return Err(ConfigureError::Script {
                package: package.name.clone(),
                script: script.to_owned(),
                arguments: arguments.join(" ").trim().to_owned(),
                ending: command.describe(finished.ending).into(),
                limit: finished.limit(),
                tail: String::from_utf8_lossy(&finished.tail).into(),
            });
        }
        Ok(true)
    }

    /// Records what the last script changed, and what it activated.
    fn attribute(
        &self,
        root: &Root,
        state: &mut State,
        package: &Package,
    ) -> Result<(), ConfigureError> {
        for change in root.changed_since_last()? {
            let path = change.path;
            if path.as_str() == &STATUS[1..] || path.as_str().starts_with(&UPDATES[1..]) {
                continue;
            }
            if path.as_str().ends_with(NEW_CONFFILE) {
                // It went to its place, which is no script's work.
                continue;
            }
            if let Some(file) = ACCOUNT_FILES.iter().position(|name| *name == path.as_str()) {
                let text = read_text(root, path.as_str())?;
                let before = std::mem::replace(&mut state.accounts[file], text);
                let after = state.accounts[file].clone();
                state.attribution.add_account_lines(&package.name, file, &before, &after);
            }
            if path.as_str() == "var/lib/dpkg/triggers/Unincorp" {
                let text = read_text(root, path.as_str())?;
                state.triggers.incorporate(&text, &|name| self.info_name(name));
                if !text.is_empty() {
                    root.write_file("/var/lib/dpkg/triggers/Unincorp", b"", 0o644, (0, 0))?;
                }
            }
            // Now it is known whose script it was; later runs of dpkg only find the file.
            let known = |error| match error {
                ConfigureError::Database { file, .. } => ConfigureError::Database {
                    script: format!("a script of {}", package.name),
                    file,
                },
                other => other,
            };
            match path.as_str() {
                DIVERSIONS => drop(diversions_in(root).map_err(known)?),
                OVERRIDES => drop(overrides_in(root).map_err(known)?),
                _ => {}
            }
            state.attribution.touch(&package.name, &path);
        }
        Ok(())
    }

    /// dpkg's name of a package that is written `NAME` or `NAME:ARCH`.
    fn info_name(&self, written: &str) -> Option<String> {
        let name = written.split(':').next();
        let package = self.stage.everyone().find(|package| Some(package.name.as_str()) == name)?;
        Some(package.info_name())
    }

    fn start_accounts(&self, root: &Root, state: &mut State) -> Result<(), ConfigureError> {
        for (number, name) in ACCOUNT_FILES.iter().enumerate() {
            state.accounts[number] = read_text(root, name)?;
        }
        root.changed_since_last()?;
        Ok(())
    }
}

/// dpkg's list of diversions.
const DIVERSIONS: &str = "var/lib/dpkg/diversions";
/// dpkg's list of overridden modes and owners.
const OVERRIDES: &str = "var/lib/dpkg/statoverride";
/// dpkg's status file.
const STATUS: &str = "/var/lib/dpkg/status";
/// Where dpkg notes what has changed since that file was written: a paragraph in each file, whose
/// name is a number.
const UPDATES: &str = "/var/lib/dpkg/updates";
/// The state of a package that is configured.
const INSTALLED: &str = "installed";
/// The state of one that is not yet.
const UNPACKED: &str = "unpacked";

fn in_state(word: &str) -> PackageState {
    PackageState { status: format!("install ok {word}"), ..PackageState::default() }
}

impl State {
    /// The state of a package between two scripts.
    fn of(&self, package: &Package) -> PackageState {
        let name = package.info_name();
        let (pending, awaited) = (self.triggers.pending(&name), self.triggers.awaited(&name));
        let word = match self.triggers.is_configured(&name) {
            false => UNPACKED,
            true if !awaited.is_empty() => "triggers-awaited",
            true if !pending.is_empty() => "triggers-pending",
            true => INSTALLED,
        };
        let (triggers_pending, triggers_awaited) = (pending.to_vec(), awaited.to_vec());
        PackageState { triggers_pending, triggers_awaited, ..in_state(word) }
    }
}

/// The file that the state of one of a stage's packages is noted in.
fn update_file(package: usize) -> String {
    format!("{UPDATES}/{package:04}")
}

/// What dpkg adds to the name of a configuration file until its package is configured.
const NEW_CONFFILE: &str = ".dpkg-new";

fn put_conffiles_in_place(root: &Root, paths: &[String]) -> Result<(), ConfigureError> {
    for path in paths {
        // What somebody made meanwhile stays, as dpkg leaves it when nobody answers its question.
        let name = match root.look(path)? {
            None => path.clone(),
            Some(_) => format!("{path}.dpkg-dist"),
        };
        root.rename(&format!("{path}{NEW_CONFFILE}"), &name)?;
    }
    Ok(())
}

/// Before it unpacks a package, dpkg lays its control files out here; a preinst runs from it, and
/// debconf reads in it whose preinst it is.
const UNPACKING: &str = "/var/lib/dpkg/tmp.ci";

fn show_control_files(root: &Root, package: &Package) -> Result<(), ConfigureError> {
    root.make_directory(UNPACKING, 0o755, (0, 0))?;
    for (name, (mode, bytes)) in &package.control_files {
        root.write_file(&format!("{UNPACKING}/{name}"), bytes, *mode, (0, 0))?;
    }
    Ok(())
}

fn read_text(root: &Root, path: &str) -> Result<String, ConfigureError> {
    let bytes = root.read_file(&format!("/{path}"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Diversions that hold in a root.
fn diversions_in(root: &Root) -> Result<Vec<Diversion>, ConfigureError> {
    read_diversions(&read_text(root, DIVERSIONS)?)
}

/// Diversions that the stage below has left, by its checkouts, topmost first.
fn diversions_below(lower: &[PathBuf]) -> Result<Vec<Diversion>, ConfigureError> {
    for tree in lower {
        let path = tree.join(DIVERSIONS);
        match std::fs::read(&path) {
            Ok(text) => return read_diversions(&String::from_utf8_lossy(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { action: "read", path, source }.into()),
        }
    }
    Ok(Vec::new())
}

fn read_diversions(text: &str) -> Result<Vec<Diversion>, ConfigureError> {
    parse_diversions(text).ok_or_else(|| malformed(DIVERSIONS))
}

/// Overrides of modes and owners that hold in a root.
fn overrides_in(root: &Root) -> Result<Vec<StatOverride>, ConfigureError> {
    let text = read_text(root, OVERRIDES)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let (passwd, group) = (read_text(root, "etc/passwd")?, read_text(root, "etc/group")?);
    let id_of = |name: &str, is_group: bool| {
        let text = if is_group { &group } else { &passwd };
        let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    };
    parse_statoverrides(&text, &id_of).ok_or_else(|| malformed(OVERRIDES))
}

fn malformed(file: &'static str) -> ConfigureError {
    ConfigureError::Database { script: "a script".to_owned(), file }
}

/// The environment of a maintainer script, as dpkg and a non-interactive apt set it.
fn environment(package: &str, script: &str, stage: &Stage<'_>) -> BTreeMap<String, String> {
    let mut environment = standard_environment();
    let own = [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_MAINTSCRIPT_ARCH", stage.architecture),
        ("DPKG_MAINTSCRIPT_DEBUG", "0"),
        ("DPKG_MAINTSCRIPT_NAME", script),
        ("DPKG_MAINTSCRIPT_PACKAGE", package),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_ROOT", ""),
        ("DPKG_RUNNING_VERSION", stage.dpkg_version()),
        // Perl and Python walk their hash tables in another order each time, unless told not to.
        ("PERL_HASH_SEED", "0"),
        ("PYTHONHASHSEED", "0"),
        ("SHELL", "/bin/sh"),
    ];
    environment.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    environment
}
