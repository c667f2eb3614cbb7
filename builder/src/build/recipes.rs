//! Recipes of one image: what each is run in, what enters the image, and what `[files]` takes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone_store::digest::{BlobDigest, DerivationId};
use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::{Entry, Kind, TreePath};

use super::again::RecipeAgain;
use super::closure::{Owner, closure};
use super::{
    BuildError, BuildRequest, Builder, PlatformWork, RemoteFile, StackView, listing, state_table,
};
use crate::check::Variation;
use crate::lock::{LockedImage, PackageKey};
use crate::progress::Event;
use crate::recipe::{Job, Made, RecipeError, Tools, Wanted, Workbench, build_all, read_source};
use crate::sandbox::Ending;
use crate::spec::{FileSource, Image, Name, PackageName, Platform, Recipe, RecipeOutput};
use drystone_source::debian::deb::ImportedDeb;
use drystone_source::files::Fingerprint;

/// How recipes are built.
#[derive(Debug, Clone)]
pub struct RecipeOptions {
    /// How many are built at once.
    pub jobs: NonZeroUsize,
    /// Whether other recipes are built after one has failed.
    pub keep_going: bool,
    /// Whether the root of a failed script stays on disk.
    pub keep_failed: bool,
    /// The only recipe to build, with what it needs; what the image needs otherwise.
    pub only: Option<String>,
    /// Files that builds write, which are no source.
    pub written: Vec<PathBuf>,
}

/// The recipes that an image needs, built.
#[derive(Default)]
pub struct BuiltRecipes {
    /// The recipes, for each platform.
    pub platforms: BTreeMap<Platform, BTreeMap<Name, Made>>,
    /// The packages that they were built with.
    pub imported: BTreeMap<PackageKey, ImportedDeb>,
    /// What local files were read.
    pub fingerprints: Vec<Fingerprint>,
    /// How many files `.gitignore` kept out.
    pub ignored: usize,
    /// The blobs of fetched sources, for roots.
    pub fetched: Vec<BlobDigest>,
    /// Derivations of what lockfiles pin, and of how it is laid out, for roots.
    pub dependencies: Vec<DerivationId>,
    /// The packages that outputs of the image need when they run, each with the first recipe whose
    /// output needs it.
    pub found: BTreeMap<Platform, BTreeMap<PackageName, Name>>,
    /// What was made of the image's packages meanwhile.
    pub(super) prepared: BTreeMap<Platform, Prepared>,
}

/// An image's packages, configured while its recipes were built.
pub(super) struct Prepared {
    /// What the lock said of the image when this began.
    pub lock: LockedImage,
    /// The packages.
    pub work: PlatformWork,
}

/// A recipe with all that it is run with, ready for the graph.
struct Planned {
    root: Vec<(Owner, Output)>,
    source: Output,
    tools: Tools,
}

/// Recipes of one platform by what they need, those that `wanted` needs and no other.
pub(super) fn needed(
    image: &Image,
    platform: Platform,
    wanted: Vec<(String, Name)>,
) -> Result<BTreeMap<Name, BTreeSet<Name>>, RecipeError> {
    let mut needs: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    let mut queue = wanted;
    while let Some((by, name)) = queue.pop() {
        if needs.contains_key(&name) {
            continue;
        }
        let Some(recipe) = image.recipes.get(&name).filter(|it| it.is_for(platform)) else {
            let (needs, platform) = (name.to_string(), platform.to_string());
            return Err(RecipeError::OtherPlatform { recipe: by, needs, platform });
        };
        let direct: BTreeSet<Name> =
            recipe.recipes.iter().map(|output| output.recipe.clone()).collect();
        queue.extend(direct.iter().map(|need| (name.to_string(), need.clone())));
        needs.insert(name, direct);
    }
    Ok(needs)
}

/// The stamp of a recipe's own file.
pub(super) fn recipe_stamp(
    image: &Image,
    recipe: &Recipe,
) -> Result<Option<Fingerprint>, StoreError> {
    let Some(file) = &recipe.file else { return Ok(None) };
    let path = file.below(&image.directory);
    let mut stamp = Fingerprint::default();
    stamp.record(&path).map_err(|source| StoreError::Io { action: "look at", path, source })?;
    Ok(Some(stamp))
}

/// `NAME:OUTPUT`, whether or not the output was named.
fn full_name(image: &Image, wanted: &RecipeOutput) -> String {
    match image.output_name(wanted) {
        Some(output) => format!("{}:{output}", wanted.recipe),
        None => wanted.recipe.to_string(),
    }
}

/// The outputs that a recipe needs of others, as `NAME:OUTPUT`.
fn others(image: &Image, recipe: &Recipe, made: &BTreeMap<Name, Made>) -> Vec<(String, Output)> {
    let outputs = recipe.recipes.iter().filter_map(|wanted| {
        let output = made[&wanted.recipe].outputs.get(image.output_name(wanted)?)?;
        Some((full_name(image, wanted), output.clone()))
    });
    outputs.collect()
}

/// The outputs that enter the image on a platform.
fn entering(image: &Image, platform: Platform) -> Vec<RecipeOutput> {
    let mut entering = image.entering_recipes();
    // What nobody named enters where it is built.
    if image.image.recipes.is_none() {
        entering.retain(|it| image.recipes.get(&it.recipe).is_some_and(|it| it.is_for(platform)));
    }
    entering
}

fn by_files(image: &Image) -> impl Iterator<Item = &RecipeOutput> {
    image.files.iter().filter_map(|entry| match &entry.source {
        FileSource::Recipe { output, .. } => Some(output),
        _ => None,
    })
}

/// The recipes that the image itself takes something of, each with who asks for it.
pub(super) fn wanted_by_image(image: &Image, platform: Platform) -> Vec<(String, Name)> {
    let entering = entering(image, platform).into_iter();
    let entering = entering.map(|it| ("the image".to_owned(), it.recipe));
    let by_files = by_files(image).map(|it| ("[files]".to_owned(), it.recipe.clone()));
    entering.chain(by_files).collect()
}

/// What the last build of a recipe is remembered by.
fn log_key(image: &Path, name: &str, platform: Platform) -> String {
    let path = std::path::absolute(image).unwrap_or_else(|_| image.to_owned());
    format!("{} {platform} {name}", path.display())
}

/// The derivation of a recipe when it was last built; its log tells how that went.
pub fn last_build(
    store: &Store,
    image: &Path,
    name: &str,
    platform: Platform,
) -> Result<Option<DerivationId>, StoreError> {
    let known = store.fact("recipe-log", &log_key(image, name, platform))?;
    Ok(known.and_then(|id| id.parse().ok()))
}

impl BuiltRecipes {
    /// An output of a recipe.
    pub fn output(
        &self,
        image: &Image,
        platform: Platform,
        wanted: &RecipeOutput,
    ) -> Option<Output> {
        let made = self.platforms.get(&platform)?.get(&wanted.recipe)?;
        made.outputs.get(image.output_name(wanted)?).cloned()
    }

    /// The outputs that enter the image as such, with their names.
    pub(super) fn entering(&self, image: &Image, platform: Platform) -> Vec<(String, Output)> {
        let outputs = entering(image, platform).into_iter().filter_map(|wanted| {
            let output = self.output(image, platform, &wanted)?;
            Some((format!("recipe:{wanted}"), output))
        });
        outputs.collect()
    }

    /// What `[files]` takes of recipes.
    pub(super) fn files(&self, image: &Image, platform: Platform) -> Vec<super::files::RecipeFile> {
        let files = image.files.iter().filter_map(|entry| {
            let FileSource::Recipe { output, path } = &entry.source else { return None };
            Some(super::files::RecipeFile {
                recipe: output.clone(),
                output: self.output(image, platform, output)?,
                destination: entry.target.tree_path().cloned(),
                path: path.tree_path().cloned(),
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
            })
        });
        files.collect()
    }
}

impl Builder<'_> {
    /// Builds the recipes that an image needs, or the one that is asked for.
    pub fn build_recipes(
        &self,
        request: &BuildRequest<'_>,
        options: &RecipeOptions,
    ) -> Result<BuiltRecipes, BuildError> {
        let image = request.image;
        let mut built = BuiltRecipes::default();
        if let Some(problems) = image.unsupported() {
            return Err(BuildError::Image(Box::new(problems)));
        }
        let only = options.only.as_deref().map(|text| self.named(image, text)).transpose()?;
        for &platform in request.platforms {
            let wanted: Vec<(String, Name)> = match &only {
                Some(name) => vec![("the command".to_owned(), name.clone())],
                None => wanted_by_image(image, platform),
            };
            let needs = needed(image, platform, wanted)?;
            if needs.is_empty() {
                continue;
            }
            let planned = self.plan_recipes(request, platform, &needs, options, &mut built)?;
            let bench = self.bench(options);
            let build = |name: &Name, made: &BTreeMap<Name, Made>| {
                let job = self.job(image, platform, name, &planned[name], made)?;
                let key = log_key(&image.path, name.as_str(), platform);
                let id = job.derivation().id().to_string();
                self.store.put_fact("recipe-log", &key, &id)?;
                let source = planned[name].source.path.hash().to_string();
                self.store.put_fact("recipe-source", &key, &source)?;
                job.realise(bench)
            };
            let is_settled = only.is_none()
                && self.checker.is_none()
                && self.were_built(image, platform, &needs)?;
            let (made, prepared) = std::thread::scope(|scope| {
                // A first build may add packages to the image, and all this would be done again.
                let prepared = is_settled.then(|| {
                    let known = &built.imported;
                    scope.spawn(|| self.prepare_meanwhile(request, platform, known))
                });
                let made =
                    build_all(&needs, options.jobs, options.keep_going, self.progress, &build);
                (made, prepared.and_then(|it| it.join().ok().flatten()))
            });
            let made = made?;
            built.prepared.extend(prepared.map(|prepared| (platform, prepared)));
            if only.is_none() {
                let found = self.find_runtime(image, platform, &planned, &made)?;
                built.found.insert(platform, found);
            }
            if let Some(checker) = self.checker {
                for (name, made_one) in
                    made.iter().filter(|(name, _)| checker.wants_recipe(name.as_str()))
                {
                    let job = self.job(image, platform, name, &planned[name], &made)?;
                    checker.check(&RecipeAgain { job, bench, made: made_one })?;
                }
            }
            built.platforms.insert(platform, made);
        }
        Ok(built)
    }

    /// Whether each of these recipes was built here before, in whatever state of its source.
    fn were_built(
        &self,
        image: &Image,
        platform: Platform,
        needs: &BTreeMap<Name, BTreeSet<Name>>,
    ) -> Result<bool, StoreError> {
        for name in needs.keys() {
            if last_build(self.store, &image.path, name.as_str(), platform)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Configures the image's packages beside its recipes, which mostly keep one processor busy.
    /// What fails here fails again when the image is built, and is told there.
    fn prepare_meanwhile(
        &self,
        request: &BuildRequest<'_>,
        platform: Platform,
        known: &BTreeMap<PackageKey, ImportedDeb>,
    ) -> Option<Prepared> {
        let image = request.image;
        let lock = request.lock.images.get(&image.name)?;
        let locked = request.lock.platform(&image.name, platform)?;
        match self.prepare(request, platform, locked, &state_table(image), known) {
            Ok(work) => Some(Prepared { lock: lock.clone(), work }),
            Err(error) => {
                tracing::debug!("packages could not be configured ahead: {error}");
                None
            }
        }
    }

    /// The packages that the image's outputs need when they run; what is missing is told.
    fn find_runtime(
        &self,
        image: &Image,
        platform: Platform,
        planned: &BTreeMap<Name, Planned>,
        made: &BTreeMap<Name, Made>,
    ) -> Result<BTreeMap<PackageName, Name>, BuildError> {
        let entering = entering(image, platform);
        let full = |wanted: &RecipeOutput| full_name(image, wanted);
        let inside: BTreeSet<String> = entering.iter().map(full).collect();
        let mut found: BTreeMap<PackageName, Name> = BTreeMap::new();
        let mut outputs: Vec<&RecipeOutput> = entering.iter().chain(by_files(image)).collect();
        outputs.sort();
        outputs.dedup();
        let warn = |text: String| self.progress.event(Event::Warning { text });
        for wanted in outputs {
            let recipe = &image.recipes[&wanted.recipe];
            let output = image
                .output_name(wanted)
                .and_then(|output| made[&wanted.recipe].outputs.get(output));
            let Some(output) = output else { continue };
            let mut root = planned[&wanted.recipe].root.clone();
            root.extend(
                others(image, recipe, made)
                    .into_iter()
                    .map(|(name, output)| (Owner::Recipe(name), output)),
            );
            // The recipe's own other outputs may be in the image as well.
            let siblings = &made[&wanted.recipe].outputs;
            for (name, other) in siblings.iter().filter(|(_, other)| *other != output) {
                let owner = Owner::Recipe(format!("{}:{name}", wanted.recipe));
                root.push((owner, other.clone()));
            }
            let it = closure(self.store, output, &root, platform.debian_name())?;
            for package in it.packages {
                if let Ok(package) = PackageName::new(&package) {
                    found.entry(package).or_insert_with(|| wanted.recipe.clone());
                }
            }
            let own = full(wanted);
            for (needed, by) in it.recipes.iter().filter(|(name, _)| **name != own) {
                if !inside.contains(needed) {
                    warn(format!(
                        "recipe {wanted}: {by} needs {needed}, which is not in the image; add it \
                         to `recipes` of [image]"
                    ));
                }
            }
            for line in it.missing {
                warn(format!(
                    "recipe {wanted}: {line}; if it is needed, name its package in `runtime`"
                ));
            }
        }
        Ok(found)
    }

    fn named(&self, image: &Image, text: &str) -> Result<Name, RecipeError> {
        let known = Name::new(text).ok().filter(|name| image.recipes.contains_key(name));
        known.ok_or_else(|| RecipeError::Unknown {
            name: text.to_owned(),
            known: image.recipes.keys().map(ToString::to_string).collect(),
        })
    }

    /// Reads sources and configures build inputs.
    fn plan_recipes(
        &self,
        request: &BuildRequest<'_>,
        platform: Platform,
        needs: &BTreeMap<Name, BTreeSet<Name>>,
        options: &RecipeOptions,
        built: &mut BuiltRecipes,
    ) -> Result<BTreeMap<Name, Planned>, BuildError> {
        let image = request.image;
        let not_locked = || BuildError::NotLocked {
            image: image.name.to_string(),
            platform: platform.to_string(),
        };
        let locked = request.lock.platform(&image.name, platform).ok_or_else(not_locked)?;
        let remote =
            needs.keys().filter_map(|name| RemoteFile::of_recipe(name, &image.recipes[name]));
        let remote: Vec<RemoteFile> = remote.collect();
        let fetched = match remote.is_empty() {
            true => BTreeMap::new(),
            false => (self.fetch)(&remote)?,
        };
        built.fetched.extend(fetched.keys().copied());
        let mut sources = BTreeMap::new();
        for name in needs.keys() {
            let recipe = &image.recipes[name];
            built.fingerprints.extend(recipe_stamp(image, recipe)?);
            let (source, tree) =
                read_source(self.store, image, name.as_str(), recipe, &options.written, &fetched)
                    .map_err(RecipeError::from)?;
            for (one, two) in &tree.case_clashes {
                let text = format!("recipe {name}: /{one} and /{two} differ only in case");
                self.progress.event(Event::Warning { text });
            }
            built.fingerprints.push(tree.fingerprint);
            built.ignored += tree.ignored;
            let mut source = self.with_fetched(image, recipe, source, &fetched, built)?;
            let packages =
                locked.recipes.get(name).into_iter().chain([&locked.essential]).flatten();
            let tools = self.tools(image, platform, name, &mut source, packages, built)?;
            let key = log_key(&image.path, name.as_str(), platform);
            let before = self.store.fact("recipe-source", &key)?;
            if before.is_some_and(|before| before != source.path.hash().to_string()) {
                // It will be built, and a sandbox takes as long to start as all this to be looked up.
                self.checkouts.expect_session();
            }
            sources.insert(name.clone(), (source, tools));
        }
        self.check_host_for(platform, needs.keys())?;
        let mut keys: BTreeSet<PackageKey> = locked.essential.clone();
        for name in needs.keys() {
            keys.extend(locked.recipes.get(name).ok_or_else(not_locked)?.iter().cloned());
        }
        let keys: Vec<PackageKey> = keys.into_iter().collect();
        let imported = (self.import)(&keys)?;
        let table = state_table(image);
        let mut roots: BTreeMap<&BTreeSet<PackageKey>, Vec<(Owner, Output)>> = BTreeMap::new();
        let mut planned = BTreeMap::new();
        for (name, (source, tools)) in sources {
            let inputs = &locked.recipes[&name];
            if !roots.contains_key(inputs) {
                let root = self.recipe_root(platform, locked, inputs, &imported, &table)?;
                roots.insert(inputs, root);
            }
            planned.insert(name, Planned { root: roots[inputs].clone(), source, tools });
        }
        built.imported.extend(imported);
        Ok(planned)
    }

    fn check_host_for<'n>(
        &self,
        platform: Platform,
        names: impl Iterator<Item = &'n Name>,
    ) -> Result<(), BuildError> {
        self.check_host(platform, &[]).map_err(|error| match error {
            BuildError::Foreign { platform, host, .. } => {
                let names: Vec<String> = names.map(|name| format!("recipe {name}")).collect();
                BuildError::Foreign { platform, packages: names.join(", "), host }
            }
            other => other,
        })
    }

    fn job<'j>(
        &self,
        image: &'j Image,
        platform: Platform,
        name: &'j Name,
        planned: &Planned,
        made: &BTreeMap<Name, Made>,
    ) -> Result<Job<'j>, RecipeError> {
        let recipe = &image.recipes[name];
        let others = others(image, recipe, made);
        self.refuse_clashes(&others)?;
        let from_recipes = others.len();
        let mut root: Vec<Output> = planned.root.iter().map(|(_, tree)| tree.clone()).collect();
        root.extend(others.into_iter().map(|(_, output)| output));
        Ok(Job {
            name,
            recipe,
            root,
            from_recipes,
            source: planned.source.clone(),
            tools: planned.tools.clone(),
            architecture: platform.debian_name(),
            variation: Variation::none(),
        })
    }

    /// Refuses outputs that set one path differently: nothing says which of them is meant.
    pub(super) fn refuse_clashes(&self, outputs: &[(String, Output)]) -> Result<(), RecipeError> {
        let mut seen: BTreeMap<TreePath, (usize, drystone_store::listing::ListingEntry)> =
            BTreeMap::new();
        for (number, (name, output)) in outputs.iter().enumerate() {
            let hash = *output.path.hash();
            let listing = self.store.listing(output)?;
            let listing = listing.ok_or(StoreError::NoTree(hash))?;
            for item in listing.entries() {
                let known = seen.get(&item.entry.path);
                if let Some((other, _)) = known.filter(|(_, known)| known != item) {
                    let (path, first) = (item.entry.path.clone(), outputs[*other].0.clone());
                    return Err(RecipeError::Clash { path, first, second: name.clone() });
                }
                seen.insert(item.entry.path.clone(), (number, item.clone()));
            }
        }
        Ok(())
    }

    /// An output as it stands in the image: directories that are there keep their metadata, and
    /// links to directories are followed. Mostly nothing of that is needed.
    pub(super) fn settled(
        &self,
        output: &Output,
        below: &StackView<'_>,
    ) -> Result<Output, BuildError> {
        let listing: Arc<Listing> = listing(self.store, output)?;
        let is_settled = |entry: &Entry| {
            super::files::below_links(entry.path.clone(), below) == entry.path
                && (entry.kind != Kind::Directory
                    || below.entry(&entry.path).is_none_or(|there| there == entry))
        };
        if listing.entries().iter().all(|item| is_settled(&item.entry)) {
            return Ok(output.clone());
        }
        let mut spool = self.store.spool();
        self.store.read_tree(output, |entry, content| {
            let mut entry = entry.clone();
            entry.path = super::files::below_links(entry.path, below);
            if let Kind::HardLink { target } = &mut entry.kind {
                *target = super::files::below_links(target.clone(), below);
            }
            match below.entry(&entry.path) {
                Some(there) if entry.kind == Kind::Directory => match &there.kind {
                    Kind::Directory => spool.replace(there.clone(), &mut std::io::empty())?,
                    Kind::Symlink { .. } => {}
                    _ => spool.replace(entry, content)?,
                },
                _ => spool.replace(entry, content)?,
            }
            Ok::<(), BuildError>(())
        })?;
        Ok(self.store.add_tree(output.path.name(), Compression::Store1, &mut spool)?)
    }
}

/// What is run by hand, and where.
pub struct ByHand<'a> {
    /// The recipe.
    pub recipe: &'a str,
    /// What is run.
    pub wanted: Wanted<'a>,
    /// The root of a failed build that was kept; a new one otherwise.
    pub kept: Option<&'a Path>,
}

impl Builder<'_> {
    /// Runs something where a recipe is built, and says how it ended: all that the recipe needs is
    /// built first, the recipe is not.
    pub fn run_by_hand(
        &self,
        request: &BuildRequest<'_>,
        options: &RecipeOptions,
        by_hand: &ByHand<'_>,
    ) -> Result<Ending, BuildError> {
        let image = request.image;
        let name = self.named(image, by_hand.recipe)?;
        let Some(&platform) = request.platforms.first() else { return Ok(Ending::Exit(0)) };
        let needs = needed(image, platform, vec![("the command".to_owned(), name.clone())])?;
        let mut built = BuiltRecipes::default();
        let planned = self.plan_recipes(request, platform, &needs, options, &mut built)?;
        let bench = self.bench(options);
        let mut before = needs;
        before.remove(&name);
        let made = match before.is_empty() {
            true => BTreeMap::new(),
            false => build_all(&before, options.jobs, false, self.progress, &|name, made| {
                self.job(image, platform, name, &planned[name], made)?.realise(bench)
            })?,
        };
        let job = self.job(image, platform, &name, &planned[&name], &made)?;
        Ok(job.run_by_hand(bench, by_hand.wanted, by_hand.kept)?)
    }

    fn bench(&self, options: &RecipeOptions) -> Workbench<'_> {
        Workbench {
            store: self.store,
            checkouts: self.checkouts,
            progress: self.progress,
            keep_failed: options.keep_failed,
        }
    }
}
