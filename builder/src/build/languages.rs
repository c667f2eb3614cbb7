//! What language builders put before scripts: lockfiles are read where recipes' sources are, and what
//! they pin is fetched and laid out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drystone_store::realisation::Output;
use drystone_store::tree::{Kind, TreePath};

use super::recipes::BuiltRecipes;
use super::{BuildError, Builder};
use crate::recipe::language::{self, LanguageError, Project};
use crate::recipe::{RecipeError, SOURCE_DIRECTORY, Tools};
use crate::spec::{Image, Name, Platform, Recipe, RecipeBuilder, RecipeSource};

/// Fetches what lockfiles pin; the path is the folder whose tools' configuration counts.
pub type FetchDependencies<'a> =
    dyn Fn(Vec<language::Dependency>, &Path) -> Result<(), BuildError> + Sync + 'a;

/// The largest file of a project that is read, in bytes.
const MOST_BYTES: u64 = 64 << 20;

impl Builder<'_> {
    /// What a recipe's builder puts before its script.
    pub(super) fn tools(
        &self,
        image: &Image,
        platform: Platform,
        name: &Name,
        source: &Output,
        built: &mut BuiltRecipes,
    ) -> Result<Tools, BuildError> {
        let recipe = &image.recipes[name];
        let builder = recipe.builder;
        if builder == RecipeBuilder::Script {
            return Ok(Tools::default());
        }
        let project = Project { files: self.project_files(builder, source)?, platform };
        let prepared = language::prepare(builder, &project).map_err(|source| {
            let recipe = name.to_string();
            failed(LanguageError::Lockfile { recipe, source })
        })?;
        let mut trees = Vec::new();
        if !prepared.layout.is_empty() {
            if prepared.layout.realised(self.store)?.is_none() {
                let missing = language::missing(self.store, &prepared.dependencies)?;
                if !missing.is_empty() {
                    (self.fetch_dependencies)(missing, &folder(image, recipe))?;
                }
            }
            trees.push(prepared.layout.realise(self.store).map_err(failed)?);
            built.dependencies.push(prepared.layout.derivation().id());
            let fetched = prepared.dependencies.iter();
            built.dependencies.extend(fetched.map(|it| language::derivation(&it.integrity).id()));
        }
        let own = recipe.script.as_deref().unwrap_or_else(|| language::script(builder));
        let script = match &prepared.before {
            Some(before) => format!("{before}\n{own}"),
            None => own.to_owned(),
        };
        Ok(Tools { trees, script: Some(script), env: language::environment(builder) })
    }

    /// The text files that a builder reads, of a source as it is stored.
    fn project_files(
        &self,
        builder: RecipeBuilder,
        source: &Output,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        let mut files = BTreeMap::new();
        let top = TreePath::new(&SOURCE_DIRECTORY[1..]).expect("a valid path");
        self.store.read_tree(source, |entry, content| {
            let Some(path) = entry.path.as_str().strip_prefix(top.as_str()) else { return Ok(()) };
            let path = path.trim_start_matches('/');
            let is_small = matches!(entry.kind, Kind::File { size } if size <= MOST_BYTES);
            if !is_small || !language::files(builder).contains(&path) {
                return Ok(());
            }
            let mut text = String::new();
            content
                .read_to_string(&mut text)
                .map_err(|source| BuildError::Content { path: entry.path.clone(), source })?;
            files.insert(path.to_owned(), text);
            Ok::<(), BuildError>(())
        })?;
        Ok(files)
    }
}

fn failed(error: LanguageError) -> BuildError {
    BuildError::Recipe(RecipeError::Language(error))
}

/// The folder in which a developer would run the tools.
fn folder(image: &Image, recipe: &Recipe) -> PathBuf {
    match &recipe.source {
        Some(RecipeSource::Folder { path, .. }) => path.below(&image.directory),
        _ => image.directory.clone(),
    }
}
