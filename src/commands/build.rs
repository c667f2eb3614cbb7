//! `build`: lock, import, configure, pack, write; or see that nothing changed.

mod attaching;
mod by_hand;
mod checking;
mod languages;
mod outputs;
pub mod pushing;
mod report;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drystone_builder::base::{BaseImages, BaseSource};
use drystone_builder::build::{
    BuildError, BuildRequest, Builder, Built, ByHand, RecipeOptions, RemoteFile, RemoteFiles,
    StoredFile, WholeImage, fetch_files,
};
use drystone_builder::check::Checker;
use drystone_builder::lock::{Lock, PackageKey};
use drystone_builder::output::{self, ImageName};
use drystone_builder::progress::Progress;
use drystone_builder::realise::Checkouts;
use drystone_builder::recipe::git::{Commit, GitError};
use drystone_builder::recipe::{RecipeError, Wanted, comes_with};
use drystone_builder::resolve::{ImportError, Imports, Sources, import_packages};
use drystone_builder::sandbox::Isolation;
use drystone_builder::settings::Settings;
use drystone_builder::spec::{Compression, Image, Platform};
use drystone_source::debian::deb;
use drystone_source::fetch::{Downloader, shown};
use drystone_source::files::Fingerprint;
use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::layer;
use drystone_store::realisation::Output as Tree;
use drystone_store::store::{Root, Store, UNSANDBOXED, root_name};
use tokio::runtime::Runtime;

use crate::answer;
use crate::arguments::{BuildArguments, CheckArguments, ImageFile, ShellArguments};
use crate::bases::{self, RegistryBases};
use crate::caching::{self, CacheReport, Caching};
use crate::diagnostics::{Failure, Family};
use crate::interrupt::{self, Interrupted};
use crate::locking::{self, Locking};
use crate::quantity::counted;
use crate::unchanged::{Answer, Inputs, Question};
use crate::wiring::{
    Wiring, absolute, bound_threads, downloader, image_path, platforms, read_buildable, runtime,
};
use languages::Languages;
use outputs::Targets;
use pushing::Pushing;
pub use pushing::registries;
use report::Exchanged;

/// How often a build begins anew since a cache has lost something: each time that is forgotten.
const LOSSES: u32 = 10;
/// What is said then.
const LOSS: &str = "what a cache has lost is built here";

/// The quick way: `Some` when the same build was asked for before and nothing changed since.
///
/// Runs before any thread is started, so it must touch nothing but a few files.
pub fn unchanged(wiring: &Wiring, arguments: &BuildArguments) -> Option<Result<(), Failure>> {
    let question = question(arguments)?;
    let settings = wiring.settings(&flags(wiring, arguments), None).ok()?;
    // What is unchanged here may not have been shared yet.
    if settings.signing_key.is_some() && !settings.caches.is_empty() {
        return None;
    }
    let answer = question.answer(&settings.store.value, |store| wiring.keep_open(store))?;
    Some(tell(wiring, arguments, &answer))
}

fn tell(wiring: &Wiring, arguments: &BuildArguments, answer: &Answer) -> Result<(), Failure> {
    for warning in &answer.warnings {
        wiring.display.warn(warning);
    }
    wiring.display.finish();
    let mut report = answer.report.clone();
    report["unchanged"] = true.into();
    say(arguments, &answer.reference, &report)
}

fn say(
    arguments: &BuildArguments,
    reference: &str,
    report: &serde_json::Value,
) -> Result<(), Failure> {
    match arguments.json {
        true => answer::line(&report.to_string()),
        false => answer::line(reference),
    }
}

/// What decides this build's result; `None` where files alone cannot tell whether it is done.
fn question(arguments: &BuildArguments) -> Option<Question> {
    let elsewhere = !arguments.load.is_empty()
        || arguments.oci_layout.is_some()
        || arguments.metadata_file.is_some()
        || !arguments.push.is_empty()
        || arguments.recipe.is_some();
    if elsewhere || isolation(arguments) == Isolation::None {
        return None;
    }
    Some(Question {
        image: absolute(&image_path(&arguments.image.path())).ok()?,
        folder: std::env::current_dir().ok()?,
        output: arguments.output.as_deref().map(absolute).transpose().ok()?,
        tag: arguments.tag.clone(),
        platforms: arguments.platform.clone(),
        compression: arguments.compression.clone(),
        variables: Question::variables(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

const WARNING: &str = "--sandbox=none: scripts run as this machine's root, kept in by chroot alone, and \
                       are believed; nothing of this build is shared or signed";

fn isolation(arguments: &BuildArguments) -> Isolation {
    arguments.sandbox.into()
}

fn flags(wiring: &Wiring, arguments: &BuildArguments) -> drystone_builder::settings::Flags {
    let mut flags = wiring.archive_flags(&arguments.archive);
    flags.compression.clone_from(&arguments.compression);
    arguments.caches.add_to(&mut flags);
    flags
}

/// Builds.
pub fn run(wiring: &Wiring, arguments: &BuildArguments) -> Result<(), Failure> {
    // Stamps come before what they are about is read: see `unchanged`.
    let mut inputs = Inputs::surroundings();
    let path = image_path(&arguments.image.path());
    inputs.stamp(&absolute(&path)?);
    begin(wiring, arguments, |work, pushing| match &arguments.recipe {
        Some(name) => work.recipe(arguments, name),
        None => {
            let targets = Targets::new(arguments, work.image)?;
            let mut warnings = Vec::new();
            if isolation(arguments) == Isolation::None {
                warnings.push(WARNING.to_owned());
            }
            if let Some(epoch) = &work.settings.source_date_epoch {
                let text = format!("SOURCE_DATE_EPOCH={} sets the image's `created`", epoch.value);
                wiring.display.warn(&text);
                warnings.push(text);
            }
            work.run(arguments, &targets, pushing, inputs, warnings)
        }
    })
}

/// Runs a command where a recipe is built.
pub fn shell(wiring: &Wiring, arguments: &ShellArguments) -> Result<(), Failure> {
    let build = BuildArguments {
        image: ImageFile { file: None, option: arguments.image.clone() },
        platform: arguments.platform.iter().cloned().collect(),
        locked: arguments.locked,
        archive: arguments.archive.clone(),
        ..BuildArguments::default()
    };
    begin(wiring, &build, |work, _| work.shell(&build, arguments))
}

/// Builds an image into the store alone, as its lock says: what was lost is fetched or made again.
pub fn make_again(wiring: &Wiring, image: &Path, platform: &str) -> Result<(), Failure> {
    let arguments = BuildArguments {
        image: ImageFile { file: Some(image.to_owned()), ..ImageFile::default() },
        platform: vec![platform.to_owned()],
        locked: true,
        ..BuildArguments::default()
    };
    begin(wiring, &arguments, |work, _| work.make_again(&arguments))
}

/// Runs again what ran a script, and compares.
pub fn check(wiring: &Wiring, arguments: &CheckArguments) -> Result<(), Failure> {
    let build = BuildArguments {
        image: arguments.image.clone(),
        platform: arguments.platform.clone(),
        locked: arguments.locked,
        recipe: arguments.recipe.clone(),
        caches: arguments.caches.clone(),
        archive: arguments.archive.clone(),
        ..BuildArguments::default()
    };
    begin(wiring, &build, |work, _| work.check(&build, arguments))
}

/// Makes ready what a build works with.
fn begin(
    wiring: &Wiring,
    arguments: &BuildArguments,
    work: impl FnOnce(&Work<'_>, &Pushing) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let image = read_buildable(&image_path(&arguments.image.path()))?;
    let mut settings = wiring.settings(&flags(wiring, arguments), Some(&image))?;
    let isolation = isolation(arguments);
    if isolation == Isolation::None {
        wiring.display.warn(WARNING);
        settings.store.value.push(UNSANDBOXED);
    }
    bound_threads(&settings);
    let registries = registries(&arguments.archive.insecure_registry)?;
    let pushing = Pushing::new(&arguments.push, arguments.verify, registries, image.tag.as_str())?;
    let platforms = platforms(&arguments.platform, &image)?;
    let runtime = runtime()?;
    let registries = pushing.registries();
    let caching = Caching::new(&settings, &image, &platforms, registries, runtime.handle())?;
    let mut store = wiring.store(&settings)?;
    if !arguments.archive.offline {
        caching.attach(&mut store);
    }
    let store = Arc::new(store);
    attaching::check(&arguments.attachments, &settings, pushing.is_wanted(), isolation)?;
    let begun = Work {
        wiring,
        settings: &settings,
        image: &image,
        platforms,
        store: &store,
        checkouts: Checkouts::new(&store)
            .with_limits(arguments.limits.limits())
            .with_isolation(isolation)
            .forbidding(arguments.substitute_only),
        caching,
        isolation,
        bases: RegistryBases::new(registries, runtime.handle()),
        runtime,
        locking: Locking {
            wiring,
            settings: &settings,
            registries,
            offline: arguments.archive.offline,
            locked: arguments.locked,
            display: &wiring.display,
        },
        is_lossy: AtomicBool::new(false),
    };
    work(&begun, &pushing)
}

/// A build under way.
struct Work<'a> {
    wiring: &'a Wiring,
    settings: &'a Settings,
    image: &'a Image,
    platforms: Vec<Platform>,
    store: &'a Arc<Store>,
    /// One sandbox session serves recipes and image.
    checkouts: Checkouts<'a>,
    caching: Caching,
    isolation: Isolation,
    bases: RegistryBases,
    runtime: Runtime,
    locking: Locking<'a>,
    /// Whether a cache turned out to have lost something.
    is_lossy: AtomicBool,
}

/// An image that is where it is wanted.
struct Done {
    built: Built,
    lock: Lock,
    /// Whether the build added something to the lock's file.
    recorded: bool,
    written: Vec<outputs::Written>,
}

impl Work<'_> {
    /// The lock of the file, complete.
    fn complete_file(&self) -> Result<Lock, Failure> {
        self.complete(Lock::read(&self.image.lock_path)?)
    }

    /// The lock, complete; `lock` is what its file holds.
    fn complete(&self, lock: Option<Lock>) -> Result<Lock, Failure> {
        self.locking.complete(&self.runtime, self.image, &self.platforms, lock, true)
    }

    fn run(
        &self,
        arguments: &BuildArguments,
        targets: &Targets,
        pushing: &Pushing,
        inputs: Inputs,
        warnings: Vec<String>,
    ) -> Result<(), Failure> {
        let mut lock_stamp = Fingerprint::default();
        let stamped = lock_stamp.record(&self.image.lock_path).is_ok();
        let before = Lock::read(&self.image.lock_path)?;
        let lock = self.complete(before.clone())?;
        let Done { built, lock, recorded, written } =
            self.until_nothing_is_lost(|| self.attempt(arguments, targets, pushing, &lock))?;
        let lock_changed = recorded || before.unwrap_or_default() != lock;
        if built.ignored_files > 0 {
            let count = counted(built.ignored_files as u64, "git-ignored file");
            self.wiring.display.note(format!("{count} left out"));
        }
        let mut warnings = warnings;
        if self.is_lossy.load(Ordering::Relaxed) {
            warnings.push(LOSS.to_owned());
        }
        let exchanged = Exchanged { cached: self.share(&built)?, traffic: pushing.counts() };
        let answer = self.answer(targets, &built, &written, &exchanged, lock_changed, warnings);
        if let Some(path) = &arguments.metadata_file {
            std::fs::write(path, format!("{}\n", answer.report))
                .map_err(|error| Failure::path("write", path, error))?;
        }
        let (reference, report) = (answer.reference.clone(), answer.report.clone());
        // What was read of the lock counts, and not what somebody has written since.
        let lock_stamp = (stamped && !lock_changed).then_some(lock_stamp);
        self.remember(arguments, targets, inputs, built.fingerprints, lock_stamp, answer);
        self.wiring.display.finish();
        say(arguments, &reference, &report)
    }

    fn answer(
        &self,
        targets: &Targets,
        built: &Built,
        written: &[outputs::Written],
        exchanged: &Exchanged,
        lock_changed: bool,
        warnings: Vec<String>,
    ) -> Answer {
        let named = format!("{}@{}", targets.name, built.set.digest());
        let pushed: Vec<&str> = written.iter().filter_map(outputs::Written::pushed).collect();
        let reference = if pushed.is_empty() { named.clone() } else { pushed.join("\n") };
        let report = report::Report {
            reference: &named,
            exchanged,
            name: &targets.name,
            image: self.image,
            built,
            written,
            lock_changed,
            warnings: &warnings,
        };
        let report = answer::versioned(&report.to_json());
        // What happened once is no news when nothing has changed.
        let warnings = warnings.into_iter().filter(|text| text != LOSS).collect();
        Answer { reference, report, warnings }
    }

    fn share(&self, built: &Built) -> Result<CacheReport, Failure> {
        if self.locking.offline || self.isolation == Isolation::None {
            return Ok(CacheReport::default());
        }
        // What came whole from a cache is there with all that it stands on.
        if built.platforms.is_empty() {
            return Ok(CacheReport { whole: true, ..self.caching.looked() });
        }
        let shared = interrupt::or_cancelled(self.caching.share(self.store, &self.wiring.display));
        self.runtime.block_on(shared).map_err(Failure::of)
    }

    fn push(&self, pushing: &Pushing, built: &Built) -> Result<Vec<outputs::Written>, Failure> {
        let pushed = pushing.run(built, self.store, &self.caching, &self.wiring.display);
        self.runtime.block_on(interrupt::or_cancelled(pushed)).map_err(Failure::of)?
    }

    fn remember(
        &self,
        arguments: &BuildArguments,
        targets: &Targets,
        mut inputs: Inputs,
        local: Vec<Fingerprint>,
        lock: Option<Fingerprint>,
        answer: Answer,
    ) {
        let Some(question) = question(arguments) else { return };
        let mut written: Vec<PathBuf> = targets.archive.iter().cloned().collect();
        local.into_iter().for_each(|stamps| inputs.extend(stamps));
        match lock {
            Some(stamp) => inputs.extend(stamp),
            None => written.push(self.image.lock_path.clone()),
        }
        question.remember(self.store, inputs, &written, answer);
    }

    /// Builds, and again where caches turned out to have lost what they said they had: then it is
    /// built here.
    fn until_nothing_is_lost<T>(
        &self,
        attempt: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        for _ in 0..LOSSES {
            match attempt() {
                Err(failure) if failure.is_lost() => {
                    if !self.is_lossy.swap(true, Ordering::Relaxed) {
                        self.wiring.display.warn(LOSS);
                    }
                }
                done => return done,
            }
        }
        attempt()
    }

    /// Builds the image and brings it to where it is wanted.
    fn attempt(
        &self,
        arguments: &BuildArguments,
        targets: &Targets,
        pushing: &Pushing,
        lock: &Lock,
    ) -> Result<Done, Failure> {
        if let Some(built) = self.whole(arguments, targets, lock)? {
            match self.bring(arguments, targets, pushing, &built, lock) {
                // Layers of local files are in no cache: whoever builds has the files.
                Err(failure) if failure.is_lost() => {}
                written => {
                    let (lock, recorded) = (lock.clone(), false);
                    return Ok(Done { built, lock, recorded, written: written? });
                }
            }
        }
        let (built, lock) = self.build(arguments, targets, lock.clone())?;
        interrupt::check().map_err(Failure::of)?;
        let recorded = locking::record(&self.locking, &lock, self.image, &built)?;
        self.remember_whole(targets, &lock, &built)?;
        let written = self.bring(arguments, targets, pushing, &built, &lock)?;
        Ok(Done { built, lock, recorded, written })
    }

    /// Brings an image to where it is wanted.
    fn bring(
        &self,
        arguments: &BuildArguments,
        targets: &Targets,
        pushing: &Pushing,
        built: &Built,
        lock: &Lock,
    ) -> Result<Vec<outputs::Written>, Failure> {
        if targets.need_layers() {
            bases::fetch_layers(built, self.base_images())?;
            let layers = built.set.layers();
            self.store.fetch_blobs(layers.iter().map(|layer| (layer.digest, layer.size)))?;
        }
        // A whole image stands on nothing that the store would have to keep.
        if !built.platforms.is_empty() {
            self.keep(built, targets.archive.as_deref())?;
        }
        let output = output::Output {
            set: &built.set,
            name: &targets.name,
            blob_path: &|digest| self.store.blob_path(digest),
        };
        let mut written = targets.write(&output, &self.wiring.display)?;
        if pushing.is_wanted() {
            written.extend(self.push(pushing, built)?);
            attaching::run(self, &arguments.attachments, pushing, built, lock)?;
        }
        Ok(written)
    }

    /// The image as a cache knows it whole, if nothing of it changed since it was shared. Not where
    /// more is wanted than the image, nor where a cache has lost some of it.
    fn whole(
        &self,
        arguments: &BuildArguments,
        targets: &Targets,
        lock: &Lock,
    ) -> Result<Option<Built>, Failure> {
        let attachments = &arguments.attachments;
        let is_enough = attachments.attach.is_empty() && !attachments.sign;
        if !is_enough || self.locking.offline || self.is_lossy.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if self.caching.caches().is_none() || self.isolation == Isolation::None {
            return Ok(None);
        }
        let Some(whole) = self.whole_image(targets, lock)? else { return Ok(None) };
        let Some(set) = self.caching.whole(self.store, &whole)? else { return Ok(None) };
        if !self.runtime.block_on(self.caching.all_have(&whole)) {
            return Ok(None);
        }
        Ok(Some(Built {
            set,
            platforms: Vec::new(),
            fingerprints: whole.fingerprints,
            ignored_files: whole.ignored_files,
            fetched: Vec::new(),
        }))
    }

    fn whole_image(&self, targets: &Targets, lock: &Lock) -> Result<Option<WholeImage>, Failure> {
        let written = self.written(targets.archive.as_deref());
        Ok(WholeImage::of(&self.request(lock), &written)?)
    }

    /// Remembers the image under what the next build will know before it begins.
    fn remember_whole(&self, targets: &Targets, lock: &Lock, built: &Built) -> Result<(), Failure> {
        if self.caching.can_share() != (true, true) || self.isolation == Isolation::None {
            return Ok(());
        }
        let recorded = locking::with_results(lock, self.image, built);
        let lock = if self.locking.locked { lock } else { &recorded };
        match self.whole_image(targets, lock)? {
            Some(whole) => self.caching.remember_whole(self.store, &whole, &built.set),
            None => Ok(()),
        }
    }

    fn base_images(&self) -> BaseImages<'_> {
        BaseImages { store: self.store, source: self.base_source() }
    }

    fn base_source(&self) -> Option<&dyn BaseSource> {
        (!self.locking.offline).then_some(&self.bases)
    }

    fn make_again(&self, arguments: &BuildArguments) -> Result<(), Failure> {
        let targets = Targets::new(arguments, self.image)?;
        let lock = self.complete_file()?;
        self.until_nothing_is_lost(|| {
            let (built, _) = self.build(arguments, &targets, lock.clone())?;
            self.keep(&built, targets.archive.as_deref())
        })
    }

    /// Builds the recipes, closes the lock over what they need when they run, and builds the image.
    fn build(
        &self,
        arguments: &BuildArguments,
        targets: &Targets,
        lock: Lock,
    ) -> Result<(Built, Lock), Failure> {
        let options = self.recipe_options(arguments, targets.archive.as_deref());
        let mut recipes =
            self.with_builder(&lock, |builder, request| builder.build_recipes(request, &options))?;
        interrupt::check().map_err(Failure::of)?;
        let lock = self.locking.close(&self.runtime, self.image, lock, &recipes.found)?;
        let built =
            self.with_builder(&lock, |builder, request| builder.build(request, &mut recipes))?;
        self.checkouts.end_session();
        Ok((built, lock))
    }

    fn recipe_options(&self, arguments: &BuildArguments, archive: Option<&Path>) -> RecipeOptions {
        RecipeOptions {
            jobs: NonZeroUsize::new(self.settings.jobs.value).unwrap_or(NonZeroUsize::MIN),
            // A list of what is missing should be whole.
            keep_going: arguments.keep_going || self.checkouts.is_forbidden(),
            keep_failed: arguments.keep_failed,
            only: arguments.recipe.clone(),
            written: self.written(archive),
        }
    }

    /// Files that builds write, which are no source of recipes.
    fn written(&self, archive: Option<&Path>) -> Vec<PathBuf> {
        let mut written: Vec<PathBuf> = archive.into_iter().map(Path::to_owned).collect();
        let usual = outputs::default_archive(self.image);
        written.extend([usual, self.image.path.clone(), self.image.lock_path.clone()]);
        written
    }

    /// Builds one recipe, and says where its outputs are in the store.
    fn recipe(&self, arguments: &BuildArguments, name: &str) -> Result<(), Failure> {
        let lock = self.complete_file()?;
        let options = self.recipe_options(arguments, None);
        let built =
            self.with_builder(&lock, |builder, request| builder.build_recipes(request, &options))?;
        self.wiring.display.finish();
        let mut outputs = Vec::new();
        for (platform, made) in &built.platforms {
            let made = made.iter().filter(|(made, _)| made.as_str() == name);
            for (output, tree) in made.flat_map(|(_, made)| &made.outputs) {
                let platform = platform.to_string();
                outputs.push((platform, output.to_string(), tree.path.to_string()));
            }
        }
        if arguments.json {
            let outputs: Vec<_> = outputs
                .iter()
                .map(|(platform, output, path)| {
                    serde_json::json!({ "platform": platform, "output": output, "path": path })
                })
                .collect();
            return answer::json(&serde_json::json!({ "recipe": name, "outputs": outputs }));
        }
        let lines = outputs.iter().map(|(_, output, path)| format!("{name}:{output} {path}\n"));
        answer::print(&lines.collect::<String>())
    }

    /// Runs a command, or a shell, where a recipe is built.
    fn shell(&self, build: &BuildArguments, arguments: &ShellArguments) -> Result<(), Failure> {
        if arguments.command.is_none() {
            by_hand::check_terminal()?;
        }
        let lock = self.complete_file()?;
        let options = self.recipe_options(build, None);
        let kept = arguments.kept.as_deref().map(absolute).transpose()?;
        let run = |wanted: Wanted<'_>| {
            let by_hand = ByHand { recipe: &arguments.recipe, wanted, kept: kept.as_deref() };
            self.with_builder(&lock, |builder, request| {
                builder.run_by_hand(request, &options, &by_hand)
            })
        };
        let ending = match &arguments.command {
            Some(command) => {
                let output = std::io::stdout()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| Failure::io("open standard output", error))?;
                run(Wanted::Command(command, &output.into()))?
            }
            None => {
                by_hand::at_terminal(&self.wiring.display, |person| run(Wanted::Shell(person)))?
            }
        };
        by_hand::passed_on(ending)
    }

    /// Does something with a builder that follows a lock.
    fn with_builder<T>(
        &self,
        lock: &Lock,
        work: impl FnOnce(&Builder<'_>, &BuildRequest<'_>) -> Result<T, BuildError>,
    ) -> Result<T, Failure> {
        self.with_checking_builder(lock, None, work)
    }

    /// Does something with a builder that follows a lock, and checks what it builds.
    fn with_checking_builder<T>(
        &self,
        lock: &Lock,
        checker: Option<&Checker<'_>>,
        work: impl FnOnce(&Builder<'_>, &BuildRequest<'_>) -> Result<T, BuildError>,
    ) -> Result<T, Failure> {
        let downloads = downloader(self.settings);
        let sources = locking::sources(self.settings, self.image);
        let import = |keys: &[PackageKey]| self.import(lock, keys, &downloads, &sources);
        let fetch = |files: &[RemoteFile]| self.fetch(files, &downloads);
        let languages = Languages { work: self, downloader: &downloads };
        let builder = Builder {
            store: self.store,
            checkouts: &self.checkouts,
            progress: &self.wiring.display,
            import: &import,
            fetch: &fetch,
            languages: &languages,
            fetch_commit: &|commit| self.fetch_commit(commit),
            bases: self.base_source(),
            checker,
        };
        work(&builder, &self.request(lock))
            .map_err(|error| self.explained(self.with_packages(lock, error).into()))
    }

    fn request<'r>(&'r self, lock: &'r Lock) -> BuildRequest<'r> {
        BuildRequest {
            image: self.image,
            lock,
            platforms: &self.platforms,
            compression: compression(self.settings.compression.value),
            created: self.settings.source_date_epoch.as_ref().map(|epoch| epoch.value),
        }
    }

    /// Names the packages that have what a script looked for, where an archive can be asked.
    fn with_packages(&self, lock: &Lock, mut error: BuildError) -> BuildError {
        if self.locking.offline {
            return error;
        }
        if let BuildError::Recipe(RecipeError::Failed(failed)) = &mut error
            && let Some(missing) = &failed.missing
            && let Some(&platform) = self.platforms.first()
        {
            match self.locking.packages_with(&self.runtime, self.image, lock, platform, missing) {
                Ok(names) if !names.is_empty() => {
                    failed.hint = Some(comes_with(&missing.tail, &names));
                }
                Ok(_) => {}
                // The script's failure is what matters.
                Err(failure) => {
                    tracing::debug!(why = ?failure.messages(), "the archive did not tell");
                }
            }
        }
        error
    }

    /// Why a build has failed in which nothing may be built: the list of what is missing.
    fn explained(&self, failure: Failure) -> Failure {
        let missing = self.checkouts.missing();
        if missing.is_empty() || failure.is_lost() {
            return failure;
        }
        let count = counted(missing.len() as u64, "derivation");
        let lines = missing.iter().map(|(what, id)| format!("\n  {what} {id}"));
        let text = format!(
            "--substitute-only: {count} would have to be built, in a sandbox, and no cache has \
             what they give:{}",
            lines.collect::<String>()
        );
        let disputed: Vec<String> = self.caching.disagreements();
        let is_disputed = |(_, id): &(String, _)| {
            let id = DerivationId::to_string(id);
            disputed.iter().any(|line| line.contains(&id))
        };
        if missing.iter().any(is_disputed) {
            let hint = "find out which builder is right, or trust only those that you believe";
            let text = format!("{text}\n{}", disputed.join("\n"));
            return Failure::new(Family::NotReproducible, text).hint(hint);
        }
        Failure::new(Family::Failed, text).hint(
            "build once where a sandbox can run, with `--cache` and `--signing-key`; check \
             `--trusted-key` here. What stands on these was not looked for",
        )
    }

    fn import(
        &self,
        lock: &Lock,
        keys: &[PackageKey],
        downloader: &Downloader,
        sources: &Sources,
    ) -> Result<BTreeMap<PackageKey, deb::ImportedDeb>, BuildError> {
        interrupt::check().map_err(interrupted)?;
        let progress: &dyn Progress = &self.wiring.display;
        let imports = Imports {
            store: self.store,
            downloader,
            sources,
            compression: layer::Compression::Store1,
            jobs: self.settings.jobs.value,
            offline: self.locking.offline,
            progress,
        };
        let imported = interrupt::or_cancelled(import_packages(imports, lock, keys));
        self.runtime.block_on(imported).map_err(interrupted)?.map_err(BuildError::Import)
    }

    fn fetch(
        &self,
        files: &[RemoteFile],
        downloader: &Downloader,
    ) -> Result<BTreeMap<BlobDigest, StoredFile>, BuildError> {
        interrupt::check().map_err(interrupted)?;
        let context = RemoteFiles {
            store: self.store,
            downloader,
            offline: self.locking.offline,
            progress: &self.wiring.display,
        };
        let fetched = interrupt::or_cancelled(fetch_files(context, files));
        Ok(self.runtime.block_on(fetched).map_err(interrupted)??)
    }

    /// Fetches a commit, with the host's git.
    fn fetch_commit(&self, commit: &Commit) -> Result<Tree, BuildError> {
        interrupt::check().map_err(interrupted)?;
        let failed = |error| BuildError::Recipe(RecipeError::Git(error));
        if self.locking.offline {
            let (url, revision) = (shown(&commit.url), commit.revision.clone());
            return Err(failed(GitError::Offline { url, revision }));
        }
        let fetched = interrupt::or_cancelled(commit.fetch(self.store, &self.wiring.display));
        self.runtime.block_on(fetched).map_err(interrupted)?.map_err(failed)
    }

    /// Keeps from garbage collection what the image stands on, and what `why` reads.
    fn keep(&self, built: &Built, archive: Option<&std::path::Path>) -> Result<(), Failure> {
        let image = absolute(&self.image.path)?;
        let mut blobs = built.fetched.clone();
        blobs.extend(bases::kept(built, self.store));
        for platform in &built.platforms {
            let imports = platform.imported.values();
            let trees = imports
                .flat_map(|deb| [&deb.data, &deb.control])
                .chain(&platform.outputs)
                .map(|output| *output.path.hash());
            let mut trees: Vec<_> = trees.collect();
            trees.sort();
            trees.dedup();
            let root = Root {
                image: Some(image.clone()),
                platform: platform.platform.to_string(),
                derivations: platform.derivations.clone(),
                trees,
                blobs: blobs.clone(),
                output: archive.map(absolute).transpose()?,
            };
            self.store.put_root(&root_name(&image, platform.platform.as_str()), &root)?;
            caching::remember_used(self.store, &image, platform.platform.as_str())?;
        }
        Ok(())
    }
}

/// The import that a signal stopped; the command will say that it was interrupted.
fn interrupted(error: Interrupted) -> BuildError {
    BuildError::Import(ImportError::Worker(std::io::Error::other(error)))
}

/// The compression that a setting names, in its frozen form.
pub const fn compression(setting: Compression) -> layer::Compression {
    match setting {
        Compression::Gzip => layer::Compression::Gzip1,
        Compression::Zstd => layer::Compression::Zstd1,
    }
}

/// What the image is called: as typed, else as image.toml says.
pub fn name(typed: Option<&str>, image: &Image) -> Result<ImageName, Failure> {
    let tag = image.tag.as_str();
    Ok(match typed {
        None => ImageName::new(image.name.as_str(), tag)?,
        // A colon before a slash belongs to a host's port.
        Some(text) if text.rsplit('/').next().is_some_and(|last| last.contains(':')) => {
            text.parse()?
        }
        Some(text) => ImageName::new(text, tag)?,
    })
}
