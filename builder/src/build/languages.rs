//! What language builders put before scripts: lockfiles are read where recipes' sources are, and what
//! they pin is fetched and laid out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::{Kind, TreePath};

use super::recipes::BuiltRecipes;
use super::{BuildError, Builder};
use crate::lock::{LockedPlatform, PackageKey};
use crate::recipe::language::{
    self, Dependency, Integrity, LanguageError, Layout, Prepared, Project, Question,
};
use crate::recipe::{RecipeError, SOURCE_DIRECTORY, Tools, read_source};
use crate::spec::{Image, Name, Platform, Recipe, RecipeBuilder, RecipeSource};

/// What lockfiles lead to beyond this host; the path is the folder whose tools' configuration counts.
pub trait LanguageNetwork: Sync {
    /// Fetches what lockfiles pin.
    fn fetch(&self, wanted: Vec<Dependency>, project: &Path) -> Result<(), BuildError>;

    /// The names of files that lockfiles know by their hashes alone.
    fn file_names(
        &self,
        questions: &[Question],
        project: &Path,
    ) -> Result<BTreeMap<Integrity, String>, BuildError>;
}

/// The packages of languages' registries that the lockfiles in an image's local folders pin, by
/// recipe. Nothing is fetched. A recipe whose lockfile says too little is left out.
///
/// # Errors
///
/// [`BuildError`] when a folder or lockfile cannot be read.
pub fn pinned_packages(
    store: &Store,
    image: &Image,
    platform: Platform,
    locked: &LockedPlatform,
) -> Result<Vec<(Name, Vec<Dependency>)>, BuildError> {
    let mut all = Vec::new();
    for (name, recipe) in &image.recipes {
        let is_local = matches!(&recipe.source, Some(RecipeSource::Folder { .. }));
        if recipe.builder == RecipeBuilder::Script || !is_local {
            continue;
        }
        let (source, _) = read_source(store, image, name.as_str(), recipe, &[], &BTreeMap::new())
            .map_err(RecipeError::from)?;
        let keys = locked.recipes.get(name).into_iter().chain([&locked.essential]).flatten();
        let mut project = project(store, recipe.builder, platform, &source, keys)?;
        let mut prepared = prepare(name, recipe.builder, &project)?;
        if !prepared.questions.is_empty() {
            project.file_names = remembered_names(store, &prepared.questions)?.0;
            project.is_answered = true;
            let Ok(answered) = language::prepare(recipe.builder, &project) else { continue };
            prepared = answered;
        }
        all.push((name.clone(), prepared.dependencies));
    }
    Ok(all)
}

/// The largest file of a project that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;

impl Builder<'_> {
    /// What a recipe's builder puts before its script.
    pub(super) fn tools<'p>(
        &self,
        image: &Image,
        platform: Platform,
        name: &Name,
        source: &mut Output,
        packages: impl Iterator<Item = &'p PackageKey>,
        built: &mut BuiltRecipes,
    ) -> Result<Tools, BuildError> {
        let recipe = &image.recipes[name];
        let builder = recipe.builder;
        if builder == RecipeBuilder::Script {
            return Ok(Tools::default());
        }
        let mut project = project(self.store, builder, platform, source, packages)?;
        let mut prepared = prepare(name, builder, &project)?;
        if !prepared.questions.is_empty() {
            project.file_names = self.file_names(&prepared.questions, &folder(image, recipe))?;
            project.is_answered = true;
            prepared = prepare(name, builder, &project)?;
        }
        self.replace(source, &prepared)?;
        let mut trees = Vec::new();
        if !prepared.layout.is_empty() {
            let (layout, dependencies) = (&prepared.layout, &prepared.dependencies);
            trees.push(self.laid_out(layout, dependencies, &folder(image, recipe), built)?);
        }
        let own = recipe.script.as_deref().unwrap_or_else(|| language::script(builder));
        let script = match &prepared.before {
            Some(before) => format!("{before}\n{own}"),
            None => own.to_owned(),
        };
        Ok(Tools { trees, script: Some(script), env: language::environment(builder) })
    }

    /// A layout's tree; what it is made of is fetched unless the tree is known. `project` is the
    /// folder whose tools' configuration counts.
    pub(super) fn laid_out(
        &self,
        layout: &Layout,
        dependencies: &[Dependency],
        project: &Path,
        built: &mut BuiltRecipes,
    ) -> Result<Output, BuildError> {
        if layout.realised(self.store)?.is_none() {
            let missing = language::missing(self.store, dependencies)?;
            if !missing.is_empty() {
                self.languages.fetch(missing, project)?;
            }
        }
        built.dependencies.push(layout.derivation().id());
        let fetched = dependencies.iter();
        built.dependencies.extend(fetched.map(|it| language::derivation(&it.integrity).id()));
        layout.realise(self.store).map_err(failed)
    }

    /// The names of files by their hashes: what an index said once is remembered.
    fn file_names(
        &self,
        questions: &[Question],
        project: &Path,
    ) -> Result<BTreeMap<Integrity, String>, BuildError> {
        let (mut names, open) = remembered_names(self.store, questions)?;
        if open.is_empty() {
            return Ok(names);
        }
        let answers = self.languages.file_names(&open, project)?;
        for question in &open {
            let known: Vec<&str> = question
                .hashes
                .iter()
                .map(|hash| answers.get(hash).map_or("", String::as_str))
                .collect();
            // What no index knew may be known tomorrow.
            if known.iter().any(|name| !name.is_empty()) {
                self.store.put_fact(FILE_NAMES, &key(question), &known.join("\n"))?;
            }
        }
        names.extend(answers);
        Ok(names)
    }

    /// Puts other texts in the place of a source's files.
    fn replace(&self, source: &mut Output, prepared: &Prepared) -> Result<(), BuildError> {
        if prepared.replaced.is_empty() {
            return Ok(());
        }
        let mut spool = self.store.spool();
        let mut left: BTreeSet<&str> = prepared.replaced.keys().map(String::as_str).collect();
        let top = format!("{}/", &SOURCE_DIRECTORY[1..]);
        self.store.read_tree(source, |entry, content| {
            let path = entry.path.as_str().strip_prefix(&top).unwrap_or_default();
            match prepared.replaced.get(path) {
                Some(text) if left.remove(path) => {
                    let mut entry = entry.clone();
                    entry.kind = Kind::File { size: text.len() as u64 };
                    spool.replace(entry, &mut text.as_bytes())?;
                }
                _ => spool.replace(entry.clone(), content)?,
            }
            Ok::<(), BuildError>(())
        })?;
        *source = self.store.add_tree(source.path.name(), Compression::Store1, &mut spool)?;
        Ok(())
    }
}

/// A source as a language builder sees it.
fn project<'p>(
    store: &Store,
    builder: RecipeBuilder,
    platform: Platform,
    source: &Output,
    packages: impl Iterator<Item = &'p PackageKey>,
) -> Result<Project, BuildError> {
    let mut project = Project::new(platform);
    project.files = project_files(store, builder, source)?;
    project.packages =
        packages.map(|key| (key.name.to_string(), key.version.to_string())).collect();
    Ok(project)
}

fn prepare(
    recipe: &Name,
    builder: RecipeBuilder,
    project: &Project,
) -> Result<Prepared, BuildError> {
    language::prepare(builder, project)
        .map_err(|source| failed(LanguageError::Lockfile { recipe: recipe.to_string(), source }))
}

/// The text files that a builder reads, of a source as it is stored.
fn project_files(
    store: &Store,
    builder: RecipeBuilder,
    source: &Output,
) -> Result<BTreeMap<String, String>, BuildError> {
    let mut files = BTreeMap::new();
    let top = TreePath::new(&SOURCE_DIRECTORY[1..]).expect("a valid path");
    store.read_tree(source, |entry, content| {
        let Some(path) = entry.path.as_str().strip_prefix(top.as_str()) else { return Ok(()) };
        let path = path.trim_start_matches('/');
        let is_small = matches!(entry.kind, Kind::File { size } if size <= MOST_BYTES);
        if !is_small || !language::is_read(builder, path) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        content
            .read_to_end(&mut bytes)
            .map_err(|source| BuildError::Content { path: entry.path.clone(), source })?;
        // A file that is no text is none of those that matter, or its reader says so.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        files.insert(path.to_owned(), text);
        Ok::<(), BuildError>(())
    })?;
    Ok(files)
}

/// The fact that keeps the names of a package's files.
const FILE_NAMES: &str = "file-names";

/// What an index has said once, and the questions that none was asked yet.
fn remembered_names(
    store: &Store,
    questions: &[Question],
) -> Result<(BTreeMap<Integrity, String>, Vec<Question>), BuildError> {
    let (mut names, mut open) = (BTreeMap::new(), Vec::new());
    for question in questions {
        match store.fact(FILE_NAMES, &key(question))? {
            Some(text) => names.extend(read_names(question, &text)),
            None => open.push(question.clone()),
        }
    }
    Ok((names, open))
}

/// What an answer is remembered by.
fn key(question: &Question) -> String {
    let hashes: Vec<String> = question.hashes.iter().map(ToString::to_string).collect();
    format!("{} {} {}", question.name, question.version, hashes.join(" "))
}

/// An answer as it is remembered: a line for each hash, empty where no name is known.
fn read_names<'q>(
    question: &'q Question,
    text: &'q str,
) -> impl Iterator<Item = (Integrity, String)> + 'q {
    let names = question.hashes.iter().zip(text.split('\n'));
    names.filter(|(_, name)| !name.is_empty()).map(|(hash, name)| (hash.clone(), name.to_owned()))
}

pub(super) fn failed(error: LanguageError) -> BuildError {
    BuildError::Recipe(RecipeError::Language(error))
}

/// The folder in which a developer would run the tools.
fn folder(image: &Image, recipe: &Recipe) -> PathBuf {
    match &recipe.source {
        Some(RecipeSource::Folder { path, .. }) => path.below(&image.directory),
        _ => image.directory.clone(),
    }
}
