//! `add` and `remove`: image.toml edited in place, comments and layout kept.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Value};

use crate::arguments::{AddArguments, RemoveArguments};
use crate::diagnostics::Failure;
use crate::wiring::{Wiring, image_path, parse_image, read_text};

/// Adds packages.
pub fn add(wiring: &Wiring, arguments: &AddArguments) -> Result<(), Failure> {
    let path = image_path(&arguments.image.path());
    let changed = edit(&path, |packages| {
        let mut changed = Vec::new();
        for text in &arguments.packages {
            let (name, version) = match text.split_once('=') {
                Some((name, version)) => (name, Some(version)),
                None => (text.as_str(), None),
            };
            if position(packages, name).is_none() {
                push(packages, value(name, version, arguments.from.as_deref()));
                changed.push(name.to_owned());
            } else if version.is_some() || arguments.from.is_some() {
                return Err(Failure::usage(format!("{name} is there already"))
                    .hint("edit it there, or `drystone remove` it first"));
            }
        }
        Ok(changed)
    })?;
    tell(wiring, "added", &changed);
    Ok(())
}

/// Removes packages.
pub fn remove(wiring: &Wiring, arguments: &RemoveArguments) -> Result<(), Failure> {
    let path = image_path(&arguments.image.path());
    let changed = edit(&path, |packages| {
        for name in &arguments.packages {
            match position(packages, name) {
                Some(at) => take(packages, at),
                None => {
                    let message = format!("{} does not name package {name}", path.display());
                    return Err(Failure::usage(message).hint(
                        "`drystone why` tells what brings a package in; \
                         `exclude` under [debian] keeps one out",
                    ));
                }
            }
        }
        Ok(arguments.packages.clone())
    })?;
    tell(wiring, "removed", &changed);
    Ok(())
}

fn tell(wiring: &Wiring, verb: &str, changed: &[String]) {
    match changed {
        [] => wiring.display.note("nothing to do"),
        names => wiring
            .display
            .note(format!("{verb} {}; `drystone build` takes it up", names.join(", "))),
    }
}

/// Lets `change` work on `[debian] packages`, checks the whole file, and replaces it.
fn edit(
    path: &Path,
    change: impl FnOnce(&mut Array) -> Result<Vec<String>, Failure>,
) -> Result<Vec<String>, Failure> {
    let text = read_text(path)?;
    let mut document: DocumentMut = match text.parse() {
        Ok(document) => document,
        // The product's own reader shows the place.
        Err(error) => {
            parse_image(path, &text)?;
            return Err(Failure::of(error));
        }
    };
    let Some(debian) = document.get_mut("debian").and_then(Item::as_table_like_mut) else {
        return Err(Failure::usage(format!("{} has no [debian]", path.display()))
            .hint("add [debian] with a suite"));
    };
    let packages = debian.entry("packages").or_insert_with(|| Array::new().into());
    let packages = packages
        .as_array_mut()
        .ok_or_else(|| Failure::usage("`packages` under [debian] is no list"))?;
    let changed = change(packages)?;
    let edited = document.to_string();
    if edited != text {
        // What was asked may make no good image.toml: then it stays as it was.
        parse_image(path, &edited)?;
        replace(path, &edited)?;
    }
    Ok(changed)
}

fn value(name: &str, version: Option<&str>, from: Option<&str>) -> Value {
    if version.is_none() && from.is_none() {
        return name.into();
    }
    let mut table = InlineTable::new();
    table.insert("name", name.into());
    version.map(|version| table.insert("version", version.into()));
    from.map(|from| table.insert("from", from.into()));
    table.into()
}

fn position(packages: &Array, name: &str) -> Option<usize> {
    packages.iter().position(|item| match item {
        Value::String(text) => text.value() == name,
        Value::InlineTable(table) => table.get("name").and_then(Value::as_str) == Some(name),
        _ => false,
    })
}

/// Adds an item in the list's own style: on a line of its own if the others are.
pub(super) fn push(packages: &mut Array, value: Value) {
    let raw = |raw: Option<&toml_edit::RawString>| {
        raw.and_then(|raw| raw.as_str()).unwrap_or_default().to_owned()
    };
    let last = packages.iter().last().map(|item| raw(item.decor().prefix()));
    match last {
        Some(prefix) if prefix.contains('\n') => {
            // A comment above the last item is that item's own.
            let line = prefix.rsplit('\n').next().unwrap_or_default();
            packages.push_formatted(value.decorated(format!("\n{line}"), ""));
        }
        _ => packages.push(value),
    }
}

/// Removes an item; comments around it that are not its own stay.
fn take(packages: &mut Array, at: usize) {
    packages.remove(at);
    if at == 0
        && let Some(first) = packages.get_mut(0)
    {
        let prefix = first.decor().prefix().and_then(|raw| raw.as_str()).unwrap_or_default();
        if !prefix.contains('\n') {
            first.decor_mut().set_prefix("");
        }
    }
}

/// Replaces the file whole: a crash leaves the old one or the new one. Links are followed.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::path("write", path, error);
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o7777;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".drystone.").tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# what\nname = \"x\"\n\n[debian]\nsuite = \"bookworm\" # stable\n";

    fn edited(list: &str, change: impl FnOnce(&mut Array)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.toml");
        std::fs::write(&path, format!("{HEAD}packages = {list}\n")).unwrap();
        edit(&path, |packages| {
            change(packages);
            Ok(Vec::new())
        })
        .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let rest = text.strip_prefix(HEAD).expect("all else stays as it was");
        rest.strip_prefix("packages = ").unwrap().trim_end().to_owned()
    }

    fn added(list: &str) -> String {
        edited(list, |packages| push(packages, "new".into()))
    }

    #[test]
    fn an_added_package_takes_the_lists_style() {
        assert_eq!(added("[\"aa\"]"), "[\"aa\", \"new\"]");
        assert_eq!(added("[]"), "[\"new\"]");
        let lines = "[\n    # web\n    \"aa\", # why\n    \"bb\",\n]";
        assert_eq!(added(lines), "[\n    # web\n    \"aa\", # why\n    \"bb\",\n    \"new\",\n]");
    }

    #[test]
    fn a_removed_package_leaves_the_others_alone() {
        let list = "[\n    \"aa\",\n    # kept\n    \"bb\",\n]";
        let text = edited(list, |packages| take(packages, 0));
        assert_eq!(text, "[\n    # kept\n    \"bb\",\n]");
        assert_eq!(edited("[\"aa\", \"bb\"]", |packages| take(packages, 0)), "[\"bb\"]");
    }

    #[test]
    fn versions_and_repositories_make_a_table() {
        let text = value("nodejs", Some("22.*"), Some("node")).to_string();
        assert_eq!(text, "{ name = \"nodejs\", version = \"22.*\", from = \"node\" }");
        let list: Value = format!("[{text}, \"bb\"]").parse().unwrap();
        assert_eq!(position(list.as_array().unwrap(), "nodejs"), Some(0));
        assert_eq!(position(list.as_array().unwrap(), "c"), None);
    }
}
