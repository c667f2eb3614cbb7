//! Recipes of one image: what each is run in, what enters the image, and what `[files]` takes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use drystone_store::layer::Compression;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::tree::{Entry, Kind, TreePath};

use super::{BuildError, BuildRequest, Builder, StackView, listing, state_table};
use crate::configure::{self, Configured, Package, PinnedIds, StateTable, Workshop};
use crate::lock::{LockedPlatform, PackageKey};
use crate::recipe::{Job, Made, RecipeError, Workbench, build_all, plain, read_source};
use crate::source::debian::deb::ImportedDeb;
use crate::source::files::Fingerprint;
use crate::spec::{FileSource, Image, Name, Platform, RecipeOutput};
use crate::stack::{PathRules, parse_diversions};

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
}

/// A recipe with all that it is run with, ready for the graph.
struct Planned {
    root: Vec<Output>,
    source: Output,
}

/// Recipes of one platform by what they need, those that `wanted` needs and no other.
fn needed(
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

impl BuiltRecipes {
    /// An output of a recipe.
    pub fn output(
        &self,
        image: &Image,
        platform: Platform,
        wanted: &RecipeOutput,
    ) -> Option<Output> {
        let made = self.platforms.get(&platform)?.get(&wanted.recipe)?;
        let first = image.recipes.get(&wanted.recipe)?.outputs.first();
        made.outputs.get(wanted.output.as_ref().or(first)?).cloned()
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
                None => {
                    let by_image = entering(image, platform).into_iter();
                    let by_image = by_image.map(|it| ("the image".to_owned(), it.recipe));
                    let by_files = by_files(image);
                    by_image
                        .chain(by_files.map(|it| ("[files]".to_owned(), it.recipe.clone())))
                        .collect()
                }
            };
            let needs = needed(image, platform, wanted)?;
            if needs.is_empty() {
                continue;
            }
            let planned = self.plan_recipes(request, platform, &needs, options, &mut built)?;
            let bench = Workbench {
                store: self.store,
                checkouts: self.checkouts,
                progress: self.progress,
                keep_failed: options.keep_failed,
            };
            let build = |name: &Name, made: &BTreeMap<Name, Made>| {
                self.job(image, platform, name, &planned[name], made)?.realise(bench)
            };
            let made = build_all(&needs, options.jobs, options.keep_going, self.progress, &build)?;
            built.platforms.insert(platform, made);
        }
        Ok(built)
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
        let mut sources = BTreeMap::new();
        for name in needs.keys() {
            let recipe = &image.recipes[name];
            let (source, tree) =
                read_source(self.store, image, name.as_str(), recipe, &options.written)
                    .map_err(RecipeError::from)?;
            for (one, two) in &tree.case_clashes {
                let text = format!("recipe {name}: /{one} and /{two} differ only in case");
                self.progress.event(crate::progress::Event::Warning { text });
            }
            built.fingerprints.push(tree.fingerprint);
            built.ignored += tree.ignored;
            sources.insert(name.clone(), source);
        }
        self.check_host_for(platform, needs.keys())?;
        let mut keys: BTreeSet<PackageKey> = locked.essential.clone();
        for name in needs.keys() {
            keys.extend(locked.recipes.get(name).ok_or_else(not_locked)?.iter().cloned());
        }
        let keys: Vec<PackageKey> = keys.into_iter().collect();
        let imported = (self.import)(&keys)?;
        let table = state_table(image);
        let mut roots: BTreeMap<&BTreeSet<PackageKey>, Vec<Output>> = BTreeMap::new();
        let mut planned = BTreeMap::new();
        for (name, source) in sources {
            let inputs = &locked.recipes[&name];
            if !roots.contains_key(inputs) {
                let root = self.recipe_root(platform, locked, inputs, &imported, &table)?;
                roots.insert(inputs, root);
            }
            planned.insert(name, Planned { root: roots[inputs].clone(), source });
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

    /// The trees of a recipe's packages as configured, in their plain form, lowest first.
    fn recipe_root(
        &self,
        platform: Platform,
        locked: &LockedPlatform,
        inputs: &BTreeSet<PackageKey>,
        imported: &BTreeMap<PackageKey, ImportedDeb>,
        table: &StateTable,
    ) -> Result<Vec<Output>, BuildError> {
        let workshop = Workshop {
            store: self.store,
            checkouts: self.checkouts,
            progress: self.progress,
            compression: Compression::Store1,
            architecture: platform.debian_name(),
        };
        let essential = self.load(imported, &locked.essential)?;
        let stage = |below, packages| {
            configure::Stage::new(workshop, below, packages, Vec::new(), PinnedIds::default())
        };
        let first = stage(None, essential)?.realise(table)?;
        let stages = match inputs.is_empty() {
            true => vec![first],
            false => {
                let second = stage(Some(&first), self.load(imported, inputs)?)?.realise(table)?;
                vec![first, second]
            }
        };
        let last = stages.last().expect("the Essential stage is always there");
        let mut trees = last.trees.clone();
        trees.extend(self.recipe_corrections(&stages, last)?);
        trees.iter().map(|tree| Ok(plain(self.store, tree)?)).collect()
    }

    /// Who owns paths that several packages claim, where configuration did not decide it.
    fn recipe_corrections(
        &self,
        stages: &[Configured],
        last: &Configured,
    ) -> Result<Option<Output>, BuildError> {
        let outs: Vec<Output> = stages.iter().rev().map(|stage| stage.out.clone()).collect();
        let diversions = self.first_text(&outs, "var/lib/dpkg/diversions")?;
        let rules = PathRules {
            diversions: parse_diversions(&diversions).unwrap_or_default(),
            overrides: Vec::new(),
        };
        let packages: Vec<&Package> = last.packages.iter().collect();
        let data: Vec<&Output> = packages.iter().map(|package| &package.data).collect();
        let listings = super::listings(self.store, &data)?;
        let listings: Vec<&Listing> = listings.iter().map(AsRef::as_ref).collect();
        let found = configure::add_corrections(
            self.store,
            Compression::Store1,
            &packages,
            &listings,
            &rules,
            0,
        )?;
        let Some(found) = found else { return Ok(None) };
        let mut changed: BTreeSet<TreePath> = BTreeSet::new();
        for out in &outs {
            for item in listing(self.store, out)?.entries() {
                let path = item.entry.deleted_path().unwrap_or_else(|| item.entry.path.clone());
                changed.insert(path);
            }
        }
        let mut spool = self.store.spool();
        self.store.read_tree(&found, |entry, content| {
            if entry.kind == Kind::Directory || !changed.contains(&entry.path) {
                spool.replace(entry.clone(), content)?;
            }
            Ok::<(), BuildError>(())
        })?;
        Ok(Some(self.store.add_tree("corrections", Compression::Store1, &mut spool)?))
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
        let mut others: Vec<(String, Output)> = Vec::new();
        for wanted in &recipe.recipes {
            let first = image.recipes[&wanted.recipe].outputs.first();
            let output = wanted.output.as_ref().or(first);
            let output = output.and_then(|output| made[&wanted.recipe].outputs.get(output));
            others.extend(output.map(|output| (wanted.to_string(), output.clone())));
        }
        self.refuse_clashes(&others)?;
        let from_recipes = others.len();
        let mut root = planned.root.clone();
        root.extend(others.into_iter().map(|(_, output)| output));
        Ok(Job {
            name,
            recipe,
            root,
            from_recipes,
            source: planned.source.clone(),
            architecture: platform.debian_name(),
        })
    }

    /// Refuses outputs that set one path differently: nothing says which of them is meant.
    pub(super) fn refuse_clashes(&self, outputs: &[(String, Output)]) -> Result<(), RecipeError> {
        let mut seen: BTreeMap<TreePath, (usize, drystone_store::listing::ListingEntry)> =
            BTreeMap::new();
        for (number, (name, output)) in outputs.iter().enumerate() {
            let hash = *output.path.hash();
            let listing = self.store.listing(output)?;
            let listing = listing.ok_or(drystone_store::store::StoreError::NoTree(hash))?;
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

/// A recipe that is ready to be run by hand.
pub struct ReadyRecipe<'j> {
    /// The recipe with its inputs.
    pub job: Job<'j>,
}

impl Builder<'_> {
    /// Prepares one recipe: all that it needs is built, and it is not.
    pub fn ready_recipe<'j>(
        &self,
        request: &BuildRequest<'j>,
        options: &RecipeOptions,
        name: &str,
    ) -> Result<ReadyRecipe<'j>, BuildError> {
        let image = request.image;
        let name = self.named(image, name)?;
        let (name, recipe) = image.recipes.get_key_value(&name).expect("it was found just now");
        let platform = request.platforms[0];
        let wanted: Vec<(String, Name)> = vec![("the command".to_owned(), name.clone())];
        let needs = needed(image, platform, wanted)?;
        let mut built = BuiltRecipes::default();
        let planned = self.plan_recipes(request, platform, &needs, options, &mut built)?;
        let mut before = needs.clone();
        before.remove(name);
        let bench = Workbench {
            store: self.store,
            checkouts: self.checkouts,
            progress: self.progress,
            keep_failed: options.keep_failed,
        };
        let made = match before.is_empty() {
            true => BTreeMap::new(),
            false => build_all(&before, options.jobs, false, self.progress, &|name, made| {
                self.job(image, platform, name, &planned[name], made)?.realise(bench)
            })?,
        };
        debug_assert!(recipe.is_for(platform));
        Ok(ReadyRecipe { job: self.job(image, platform, name, &planned[name], &made)? })
    }
}
