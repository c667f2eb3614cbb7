//! `[files]`: what enters the image from the project, a recipe, an address or the file itself.

use drystone_store::digest::BlobDigest;
use url::Url;

use crate::document::{Entry, Place, Shape, Table, Value, ValueError};

use super::recipe::{RecipeOutput, Recipes};
use super::schema;
use super::values::{LocalPath, RootedPath, address, mode, sha256};

/// One entry of `[files]`.
#[derive(Debug, Clone)]
pub struct FileEntry {
    /// Where it stands in the image; only folders may stand at `/`.
    pub target: RootedPath,
    /// What stands there.
    pub source: FileSource,
    /// Permission bits; for a folder, of the regular files in it. By default 0644, and 0755 for
    /// directories and executables.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Where the entry's key stands in the file.
    pub place: Place,
    /// Where its value stands.
    pub value_place: Place,
}

/// What an entry of `[files]` is made of.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// A local file, or the contents of a local folder.
    Local(LocalPath),
    /// The content itself.
    Text(String),
    /// A path in a recipe's output.
    Recipe {
        /// The recipe, and its output.
        output: RecipeOutput,
        /// The path in the output.
        path: RootedPath,
    },
    /// A downloaded file.
    Download {
        /// Its address.
        url: Url,
        /// Its digest.
        sha256: BlobDigest,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as written.
        target: String,
    },
    /// An empty directory.
    Directory,
}

/// The highest id that a file or account can have: the one above is "no id" to the kernel.
pub(super) const HIGHEST_ID: i64 = u32::MAX as i64 - 1;

pub(super) fn read(top: &Table<'_>, recipes: &Recipes) -> Vec<FileEntry> {
    let mut files: Vec<FileEntry> = Vec::new();
    for entry in top.entries("files") {
        let Some(file) = file(top, &entry, recipes) else { continue };
        if let Some(other) = files.iter().find(|other| other.target == file.target) {
            let message = format!("`{}` is set twice", other.target);
            top.problem_at(file.place, message).help("both keys name the same path").record();
        }
        files.push(file);
    }
    files.sort_by(|left, right| left.target.cmp(&right.target));
    files
}

fn file(top: &Table<'_>, entry: &Entry<'_>, recipes: &Recipes) -> Option<FileEntry> {
    let target = RootedPath::new(entry.name)
        .map_err(|error| {
            let problem = top.problem_at(entry.place, error.to_string());
            match error.help() {
                Some(help) => problem.help(help).record(),
                None => problem.record(),
            }
        })
        .ok();
    let value = &entry.value;
    let (source, mode, uid, gid) = match value.shape() {
        Shape::Text(_) => (value.text_as(LocalPath::new).map(FileSource::Local), None, 0, 0),
        Shape::Table => {
            let table = value.table(&schema::FILE)?;
            let source = source(&table, recipes);
            let mode = table.get("mode").and_then(|value| file_mode(&value));
            if let (Some(FileSource::Symlink { .. }), true) = (&source, table.has("mode")) {
                table.problem("a symbolic link has no mode").help("remove `mode`").record();
            }
            (source, mode, id(&table, "uid"), id(&table, "gid"))
        }
        _ => {
            value
                .problem("an entry of [files] is a local path or a table")
                .help("for example: \"/srv/www\" = \"public/\"")
                .record();
            (None, None, 0, 0)
        }
    };
    let (target, source) = (target?, source?);
    if target.tree_path().is_none()
        && !matches!(source, FileSource::Local(_) | FileSource::Recipe { .. })
    {
        top.problem_at(entry.place, "only a folder can stand at /").record();
        return None;
    }
    Some(FileEntry {
        target,
        source,
        mode,
        uid,
        gid,
        place: entry.place,
        value_place: value.place(),
    })
}

fn source(table: &Table<'_>, recipes: &Recipes) -> Option<FileSource> {
    const KINDS: [&str; 6] = ["source", "text", "recipe", "url", "symlink", "directory"];
    let kinds: Vec<_> = KINDS.into_iter().filter(|key| table.has(key)).collect();
    let [kind] = kinds.as_slice() else {
        let message = match kinds.as_slice() {
            [] => "the entry says nothing about its content".to_owned(),
            [first, second, ..] => format!("`{first}` and `{second}` do not go together"),
            [_] => unreachable!("one kind is matched above"),
        };
        table
            .problem(message)
            .help("give one of: source, text, recipe, url, symlink, directory")
            .record();
        return None;
    };
    for (key, owner) in [("path", "recipe"), ("sha256", "url")] {
        if table.has(key) && owner != *kind {
            table.problem(format!("`{key}` goes only with `{owner}`")).record();
        }
    }
    match *kind {
        "source" => table.text_as("source", LocalPath::new).map(FileSource::Local),
        "text" => table
            .get("text")
            .and_then(|value| value.text())
            .map(str::to_owned)
            .map(FileSource::Text),
        "recipe" => recipe_source(table, recipes),
        "url" => {
            let url = table.text_as("url", address);
            let digest = table.required("sha256").and_then(|value| value.text_as(sha256));
            Some(FileSource::Download { url: url?, sha256: digest? })
        }
        "symlink" => {
            table.text_as("symlink", link_target).map(|target| FileSource::Symlink { target })
        }
        _ => directory(table),
    }
}

fn recipe_source(table: &Table<'_>, recipes: &Recipes) -> Option<FileSource> {
    let value = table.get("recipe")?;
    let path = match table.get("path") {
        Some(value) => value.text_as(RootedPath::new),
        None => RootedPath::new("/").ok(),
    };
    let output = value.text_as(RecipeOutput::new)?;
    recipes.check(&output, &value);
    Some(FileSource::Recipe { output, path: path? })
}

fn directory(table: &Table<'_>) -> Option<FileSource> {
    let value = table.get("directory")?;
    if value.boolean()? {
        return Some(FileSource::Directory);
    }
    value.problem("`directory` can only be true").help("remove the entry").record();
    None
}

fn link_target(text: &str) -> Result<String, ValueError> {
    match text.is_empty() || text.contains('\0') || text.len() > 4095 {
        true => {
            Err(ValueError::new("link target", text, "it is empty, too long or has a NUL byte"))
        }
        false => Ok(text.to_owned()),
    }
}

fn file_mode(value: &Value<'_>) -> Option<u32> {
    match value.shape() {
        Shape::Text(_) => value.text_as(mode),
        Shape::Integer(Some(number), 8) if (0..=0o7777).contains(&number) => {
            u32::try_from(number).ok()
        }
        Shape::Integer(Some(number), _) => {
            // 644 in decimal is 01204: surely not what was meant, and silently wrong.
            let problem = value.problem("a mode is a string of octal digits, not a number");
            let help = match mode(&format!("{number:04}")) {
                Ok(_) => format!("write mode = \"{number:04}\""),
                Err(_) => "for example: mode = \"0755\"".to_owned(),
            };
            problem.help(help).record();
            None
        }
        _ => {
            value.wrong_type();
            None
        }
    }
}

fn id(table: &Table<'_>, key: &'static str) -> u32 {
    let Some(value) = table.get(key) else { return 0 };
    if let Shape::Text(_) = value.shape() {
        value
            .problem(format!("`{key}` is a number"))
            .help("names are known only inside the image; write the number of [users]")
            .record();
        return 0;
    }
    value.integer(0, HIGHEST_ID).and_then(|id| u32::try_from(id).ok()).unwrap_or(0)
}
