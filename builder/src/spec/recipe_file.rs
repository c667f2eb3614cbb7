//! A recipe in a file of its own, which several images share.
//!
//! The file holds what a `[recipe.NAME]` holds, at its top. Paths in it are relative to it.

use std::io;
use std::path::Path;

use crate::document::{self, Place, SourceText, Table, Value};

use super::recipe::{Recipe, RecipeOutput, RecipeSource, recipe};
use super::schema;
use super::values::LocalPath;

/// Reads a file that image.toml names.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// The recipe of the file that `value` names, and what it needs of others.
pub(super) fn read(
    table: &Table<'_>,
    value: &Value<'_>,
    directory: &Path,
    read_file: &ReadFile<'_>,
) -> Option<(Recipe, Vec<RecipeOutput>)> {
    let keys = schema::RECIPE.keys.iter().map(|key| key.name);
    for key in keys.filter(|key| *key != "file" && table.has(key)) {
        value
            .problem(format!("`{key}` does not go with `file`"))
            .help("write it into the file, or all of the recipe here")
            .record();
    }
    let local = value.text_as(LocalPath::new)?;
    let path = local.below(directory);
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            value.problem(message).help("paths are relative to image.toml").record();
            return None;
        }
    };
    let source = SourceText::new(path.display().to_string(), text);
    let read = document::read(&source, &schema::RECIPE, None, |table| {
        if let Some(nested) = table.get("file") {
            nested.problem("a recipe's file names no other one").record();
        }
        let (recipe, needs) = recipe(table, Place::default());
        Some((recipe, needs.into_iter().map(|(output, _)| output).collect()))
    });
    match read {
        Ok((recipe, needs)) => Some((moved(recipe, &local, value.place()), needs)),
        Err(problems) => {
            table.adopt(&problems);
            None
        }
    }
}

/// The recipe as it would be written in image.toml.
fn moved(mut recipe: Recipe, file: &LocalPath, place: Place) -> Recipe {
    let moved = |path: &LocalPath| path.beside(file);
    if let Some(RecipeSource::Folder { path, .. }) = &mut recipe.source {
        *path = moved(path);
    }
    recipe.patches = recipe.patches.iter().map(moved).collect();
    recipe.place = place;
    recipe.file = Some(file.clone());
    recipe
}
