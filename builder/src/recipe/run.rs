//! One recipe: its derivation, its root, its script, its outputs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drystone_store::derivation::Derivation;
use drystone_store::digest::DerivationId;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};

use super::collect::Collected;
use super::error::FailedScript;
use super::{ARCHIVE, BUILDER_ID, OUTPUT_DIRECTORY, RecipeError, SOURCE_DIRECTORY, VERSION, hints};
use crate::check::{Variation, tell_undisguised};
use crate::progress::{Event, Progress};
use crate::realise::Checkouts;
use crate::sandbox::{Command, Finished, Profile, Root, RootRequest, SANDBOX_VERSION, Session};
use crate::spec::{ArchiveKind, Name, Recipe};

/// How long a script may run when its recipe says nothing.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How long a script may be silent when its recipe says nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(1800);
/// How many lines of a failed script's output are shown.
const TAIL_LINES: usize = 25;

/// What every recipe is built with.
#[derive(Clone, Copy)]
pub struct Workbench<'a> {
    /// The store.
    pub store: &'a Store,
    /// Checkouts of its trees.
    pub checkouts: &'a Checkouts<'a>,
    /// Where progress goes.
    pub progress: &'a dyn Progress,
    /// Whether the root of a failed script stays on disk.
    pub keep_failed: bool,
}

/// A recipe whose inputs are known.
#[derive(Clone)]
pub struct Job<'a> {
    /// Its name, which is in no identity.
    pub name: &'a Name,
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its root's trees, lowest first: packages as configured, outputs of other recipes.
    pub root: Vec<Output>,
    /// How many of the root's topmost trees are other recipes' outputs.
    pub from_recipes: usize,
    /// The source and the patches.
    pub source: Output,
    /// What its builder puts before the script.
    pub tools: Tools,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// What is not as usual when it runs; in no identity, and nothing that is stored as its result
    /// may come of it.
    pub variation: Variation,
}

/// What a language builder puts before a script; nothing of it for a recipe without one.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// Trees over the source: dependencies as they are laid out.
    pub trees: Vec<Output>,
    /// The script that is run, if it is not the recipe's own alone.
    pub script: Option<String>,
    /// Variables, which the recipe's own override.
    pub env: BTreeMap<String, String>,
}

/// A recipe that was built.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its derivation.
    pub derivation: DerivationId,
    /// Its outputs, by name.
    pub outputs: BTreeMap<Name, Output>,
}

/// The variable that names an output's folder.
pub(super) fn variable(output: &str) -> String {
    output.replace(['-', '.', '+'], "_")
}

impl Job<'_> {
    /// The derivation: all that the script can see, and nothing else.
    pub fn derivation(&self) -> Derivation {
        let root = self.root.iter().map(|output| *output.path.hash());
        let tools = self.tools.trees.iter().map(|output| *output.path.hash());
        let mut derivation = Derivation::new("recipe", VERSION)
            .with_inputs(root.chain([*self.source.path.hash()]).chain(tools))
            .with_arg("from-recipes", self.from_recipes)
            .with_arg("patches", self.recipe.patches.len())
            .with_arg("script", self.script());
        if !self.tools.trees.is_empty() {
            derivation = derivation.with_arg("tools", self.tools.trees.len());
        }
        if let Some(kind) = self.recipe.unpacked_inside() {
            derivation = derivation.with_arg("unpack", unpacking(kind));
        }
        derivation.outputs = self.recipe.outputs.iter().map(ToString::to_string).collect();
        derivation.env = self.env();
        derivation.platform = Some(format!("linux/{}", self.architecture));
        derivation.sandbox = Some(SANDBOX_VERSION);
        derivation
    }

    /// The script that is run.
    pub(super) fn script(&self) -> &str {
        self.tools.script.as_deref().or(self.recipe.script.as_deref()).unwrap_or_default()
    }

    /// The builder's variables and the recipe's own.
    fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.tools.env.clone();
        env.extend(self.recipe.env.clone());
        env
    }

    fn realised(&self, store: &Store, id: DerivationId) -> Result<Option<Made>, StoreError> {
        let Some(mut realisation) = store.realisation(&id)? else { return Ok(None) };
        let mut outputs = BTreeMap::new();
        for name in &self.recipe.outputs {
            let Some(output) = realisation.outputs.remove(name.as_str()) else { return Ok(None) };
            outputs.insert(name.clone(), output);
        }
        Ok(Some(Made { derivation: id, outputs }))
    }

    /// The outputs, made if need be.
    pub fn realise(&self, bench: Workbench<'_>) -> Result<Made, RecipeError> {
        let derivation = self.derivation();
        let id = derivation.id();
        if let Some(made) = self.realised(bench.store, id)? {
            return Ok(made);
        }
        let _lock = bench.store.lock_derivation(&id)?;
        if let Some(made) = self.realised(bench.store, id)? {
            return Ok(made);
        }
        let name = format!("recipe {}", self.name);
        bench.checkouts.permit(&name, id)?;
        bench.progress.event(Event::Phase { name: name.clone(), text: "build".to_owned() });
        let outputs = self.build(bench, id)?;
        let named = outputs.iter().map(|(name, output)| (name.to_string(), output.clone()));
        bench.store.put_realisation(&derivation, named)?;
        bench.progress.event(Event::Done { name });
        Ok(Made { derivation: id, outputs })
    }

    fn build(
        &self,
        bench: Workbench<'_>,
        id: DerivationId,
    ) -> Result<BTreeMap<Name, Output>, RecipeError> {
        let io = |action, path: &Path, source| {
            RecipeError::Store(StoreError::Io { action, path: path.to_owned(), source })
        };
        let log_path = bench.store.log_path(&id);
        let log = File::create(&log_path).map_err(|error| io("create", &log_path, error))?;
        let temporary = bench.store.temporary_directory();
        let directory = tempfile::tempdir_in(temporary)
            .map_err(|error| io("create a directory in", temporary, error))?;
        let session = bench.checkouts.session()?;
        let result = self.build_in(bench, &session, directory.path(), &log, &log_path);
        if bench.keep_failed && matches!(result, Err(RecipeError::Failed(_))) {
            let kept = self.keep(bench, &session, directory.keep().as_path())?;
            let text = format!(
                "the failed build of recipe {} is kept in {}; enter it with: drystone shell {} \
                 --kept {}",
                self.name,
                kept.display(),
                self.name,
                kept.display()
            );
            bench.progress.event(Event::Note { text });
            return result;
        }
        // The uppers may belong to ids that only the session can act as.
        let removed = session.remove(directory.path());
        let outputs = result?;
        removed?;
        Ok(outputs)
    }

    /// Runs it again in other surroundings; its outputs in the order of their names. They are
    /// stored as trees, and never as the recipe's.
    ///
    /// # Errors
    /// [`RecipeError::Failed`] when the script fails there.
    pub fn rebuild(
        &self,
        bench: Workbench<'_>,
        variation: &Variation,
    ) -> Result<BTreeMap<Name, Output>, RecipeError> {
        let temporary = bench.store.temporary_directory();
        let io = |source| StoreError::Io {
            action: "create a file in",
            path: temporary.to_owned(),
            source,
        };
        let log = tempfile::NamedTempFile::new_in(temporary).map_err(io)?;
        let directory = tempfile::tempdir_in(temporary).map_err(io)?;
        let job = Self { variation: variation.clone(), ..self.clone() };
        let session = bench.checkouts.session()?;
        let result = job.build_in(bench, &session, directory.path(), log.as_file(), log.path());
        let removed = session.remove(directory.path());
        let outputs = result?;
        removed?;
        Ok(outputs)
    }

    /// Moves a failed root to where it outlives the program; it takes the place of the last one.
    fn keep(
        &self,
        bench: Workbench<'_>,
        session: &Session,
        directory: &Path,
    ) -> Result<PathBuf, RecipeError> {
        let folder = bench.store.root().join("kept");
        let kept = folder.join(self.name.as_str());
        session.remove(&kept)?;
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::rename(directory, &kept))
            .map_err(|source| StoreError::Io { action: "keep", path: kept.clone(), source })?;
        Ok(kept)
    }

    fn build_in(
        &self,
        bench: Workbench<'_>,
        session: &Session,
        directory: &Path,
        log: &File,
        log_path: &Path,
    ) -> Result<BTreeMap<Name, Output>, RecipeError> {
        let upper = directory.join("upper");
        let root = self.open(bench, session, directory)?;
        self.prepare(&root, log, log_path)?;
        let mut command = self.command(["/bin/sh", "-e", "-c", self.script()]);
        bench.checkouts.limit(&mut command);
        let finished = root.execute(&command, Some(log))?;
        if !finished.success() {
            return Err(self.failed("script", &command, &finished, log_path));
        }
        let storage = root.storage();
        root.close()?;
        let nothing = directory.join("nothing");
        session.create_directory(&nothing)?;
        let mut outputs = BTreeMap::new();
        for name in &self.recipe.outputs {
            let written = upper.join(&OUTPUT_DIRECTORY[1..]).join(name.as_str());
            let scan = session.scan(&written, std::slice::from_ref(&nothing), storage)?;
            let mut spool = bench.store.spool();
            let recipe = self.name.as_str();
            Collected { recipe, output: name.as_str() }.take(&scan, &mut spool)?;
            let title = match self.recipe.outputs.len() {
                1 => recipe.to_owned(),
                _ => format!("{recipe}-{name}"),
            };
            let output = bench.store.add_tree(&title, Compression::Store1, &mut spool)?;
            outputs.insert(name.clone(), output);
        }
        Ok(outputs)
    }

    /// Unpacks the source and applies the patches, as the script's user.
    pub(super) fn prepare(
        &self,
        root: &Root,
        log: &File,
        log_path: &Path,
    ) -> Result<(), RecipeError> {
        if let Some(kind) = self.recipe.unpacked_inside() {
            let script = unpacking(kind);
            let command = self.command(["/bin/sh", "-e", "-c", script.as_str()]);
            let finished = root.execute(&command, Some(log))?;
            if !finished.success() {
                return Err(self.failed("unpacking of its source", &command, &finished, log_path));
            }
        }
        for number in 0..self.recipe.patches.len() {
            let patch = format!("/build/patches/{number:04}");
            let command = self.command(["patch", "-p1", "-f", "-i", patch.as_str()]);
            let finished = root.execute(&command, Some(log))?;
            if !finished.success() {
                let name = self.recipe.patches[number].to_string();
                return Err(self.failed(&format!("patch {name}"), &command, &finished, log_path));
            }
        }
        Ok(())
    }

    /// Opens the root in a directory, ready for the script.
    pub fn open(
        &self,
        bench: Workbench<'_>,
        session: &Session,
        directory: &Path,
    ) -> Result<Root, RecipeError> {
        let trees: Vec<&Output> =
            self.root.iter().chain([&self.source]).chain(&self.tools.trees).collect();
        let mut lower: Vec<PathBuf> = bench.checkouts.ensure(&trees)?;
        lower.reverse();
        let lower = bench.checkouts.stackable(lower, directory)?;
        let mut request =
            RootRequest::configure(lower, directory.join("upper"), directory.join("work"));
        request.profile = Profile::Recipe;
        self.variation.apply_to_root(&mut request);
        let root = session.open_root(&request)?;
        tell_undisguised(&root, bench.progress);
        let (id, user) = (BUILDER_ID, self.variation.user());
        let (owner, folder) = ((id, id), self.variation.build_folder());
        let top = &OUTPUT_DIRECTORY[1..];
        root.make_directory(top, 0o755, owner)?;
        for name in &self.recipe.outputs {
            root.make_directory(&format!("{top}/{name}"), 0o755, owner)?;
        }
        for (path, line) in [
            ("etc/passwd", format!("{user}:x:{id}:{id}::{folder}:/bin/sh\n")),
            ("etc/group", format!("{user}:x:{id}:\n")),
        ] {
            // A root that was kept has the line.
            if let Some(mut text) = root.read_file(path)?
                && !text.ends_with(line.as_bytes())
            {
                text.extend_from_slice(line.as_bytes());
                root.write_file(path, &text, 0o644, (0, 0))?;
            }
        }
        // Tests of programs listen on localhost, and there is nobody to ask who that is.
        if root.look("etc/hosts")?.is_none() {
            let mut names = vec!["localhost", &request.hostname];
            names.dedup();
            let lines =
                ["127.0.0.1", "::1"].map(|address| format!("{address} {}\n", names.join(" ")));
            root.write_file("etc/hosts", lines.concat().as_bytes(), 0o644, (0, 0))?;
        }
        // Libraries of other recipes are found as those of packages are.
        if self.from_recipes > 0 && root.look("usr/sbin/ldconfig")?.is_some() {
            root.execute(&Command::new(["/sbin/ldconfig", "-X"]), None)?;
        }
        Ok(root)
    }

    /// A command as the script's user, in the source's folder, with the script's variables.
    pub fn command<'s>(&self, argv: impl IntoIterator<Item = &'s str>) -> Command {
        let mut command = Command::new(argv);
        let (user, folder) = (self.variation.user(), self.variation.build_folder());
        self.variation.apply_to_environment(&mut command.env);
        command.env.insert("HOME".into(), folder.into());
        command.env.insert("USER".into(), user.into());
        command.env.extend(self.env());
        // The first output is `$out`, whatever its name is.
        let first = self.recipe.outputs.first().map(|name| format!("{OUTPUT_DIRECTORY}/{name}"));
        command.env.extend(first.map(|place| ("out".to_owned(), place)));
        for name in &self.recipe.outputs {
            let place = format!("{OUTPUT_DIRECTORY}/{name}");
            command.env.insert(variable(name.as_str()), place);
        }
        command.directory = SOURCE_DIRECTORY.replacen("/build", folder, 1);
        command.owner = (BUILDER_ID, BUILDER_ID);
        command.resources = self.recipe.resources;
        command.time_limit = Some(self.recipe.time_limit.unwrap_or(TIME_LIMIT));
        command.silence_limit = Some(self.recipe.silence_limit.unwrap_or(SILENCE_LIMIT));
        command
    }

    fn failed(
        &self,
        step: &str,
        command: &Command,
        finished: &Finished,
        log: &Path,
    ) -> RecipeError {
        let ending = command.describe(finished.ending);
        let text = String::from_utf8_lossy(&finished.tail);
        let (hint, missing) = match finished.limit() {
            Some(limit) => (Some(limit.mend()), None),
            None => hints::hint(&text),
        };
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        RecipeError::Failed(Box::new(FailedScript {
            recipe: self.name.to_string(),
            step: step.to_owned(),
            ending,
            tail,
            log: log.to_owned(),
            hint,
            missing,
        }))
    }
}

/// A script that unpacks the archive into the source's folder, without a single folder at its top.
fn unpacking(kind: ArchiveKind) -> String {
    let unpack = match kind {
        ArchiveKind::Tar(_) => format!("tar -x --no-same-owner -f {ARCHIVE} -C /build/unpacked"),
        ArchiveKind::Zip => format!("unzip -q {ARCHIVE} -d /build/unpacked"),
    };
    format!(
        "mkdir /build/unpacked; {unpack}; rm {ARCHIVE}; cd /build/unpacked\n\
         top=$(ls -A)\n\
         if [ \"$(ls -A | wc -l)\" = 1 ] && [ -d \"$top\" ] && [ ! -L \"$top\" ]; then cd \"$top\"; fi\n\
         find . -mindepth 1 -maxdepth 1 -exec mv -t {SOURCE_DIRECTORY} {{}} +\n"
    )
}
