//! Laying trees out for people, and asking diffoscope about them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::Kind as EntryKind;

use super::Report;

/// How many lines of diffoscope's report are shown.
const SHOWN_LINES: usize = 200;
/// Exit status of diffoscope that found differences.
const DIFFERENCES: i32 = 1;

/// Writes the differing trees of a report below `folder`, as `NAME/stored/OUTPUT` and
/// `NAME/rebuilt/OUTPUT`: files, links and folders as the caller's, whole or (`only_differing`)
/// without what is equal. Returns the two folders.
pub fn lay_out(
    store: &Store,
    report: &Report,
    folder: &Path,
    only_differing: bool,
) -> Result<(PathBuf, PathBuf), StoreError> {
    let name = report.name.replace([' ', '/'], "-");
    let places = (folder.join(&name).join("stored"), folder.join(&name).join("rebuilt"));
    for (output, one, two) in &report.trees {
        let differing: BTreeSet<&str> = report
            .differences
            .iter()
            .filter(|it| it.output == *output)
            .map(|it| it.path.as_str())
            .collect();
        let wanted = |path: &str| !only_differing || differing.contains(path);
        write_tree(store, one, &places.0.join(output), &wanted)?;
        write_tree(store, two, &places.1.join(output), &wanted)?;
    }
    Ok(places)
}

fn write_tree(
    store: &Store,
    output: &Output,
    folder: &Path,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<(), StoreError> {
    let failed =
        |path: &Path, source| StoreError::Io { action: "write", path: path.to_owned(), source };
    make_folder(folder)?;
    store.read_tree(output, |entry, content| {
        let path = folder.join(entry.path.as_str());
        if !wanted(&format!("/{}", entry.path)) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        match &entry.kind {
            EntryKind::Directory => make_folder(&path)?,
            EntryKind::File { .. } => {
                let mut file = fs::File::create(&path).map_err(|error| failed(&path, error))?;
                std::io::copy(content, &mut file).map_err(|error| failed(&path, error))?;
            }
            EntryKind::Symlink { target } => {
                std::os::unix::fs::symlink(target, &path).map_err(|error| failed(&path, error))?;
            }
            EntryKind::HardLink { target } => {
                let first = folder.join(target.as_str());
                if first.exists() {
                    fs::hard_link(first, &path).map_err(|error| failed(&path, error))?;
                }
            }
            EntryKind::Deletion => {}
        }
        Ok::<(), StoreError>(())
    })
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|source| StoreError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

/// diffoscope's view of a report's differing files; `None` where it is not installed or says
/// nothing.
pub fn describe(store: &Store, report: &Report) -> Result<Option<Vec<String>>, StoreError> {
    if report.trees.is_empty() {
        return Ok(None);
    }
    let temporary = store.temporary_directory();
    let folder = tempfile::tempdir_in(temporary).map_err(|source| StoreError::Io {
        action: "create a directory in",
        path: temporary.to_owned(),
        source,
    })?;
    let (stored, rebuilt) = lay_out(store, report, folder.path(), true)?;
    let output = Command::new("diffoscope")
        .args(["--text", "-", "--text-color", "never", "--exclude-directory-metadata", "yes"])
        .args([&stored, &rebuilt])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else { return Ok(None) };
    if output.status.code() != Some(DIFFERENCES) {
        return Ok(None);
    }
    let prefix = |folder: &Path| format!("{}/", folder.display());
    let (stored, rebuilt) = (prefix(&stored), prefix(&rebuilt));
    let text = String::from_utf8_lossy(&output.stdout)
        .replace(&stored, "stored/")
        .replace(&rebuilt, "rebuilt/");
    let mut lines: Vec<String> = text.lines().take(SHOWN_LINES).map(str::to_owned).collect();
    let left = text.lines().count().saturating_sub(SHOWN_LINES);
    if left > 0 {
        lines.push(format!("… {left} more lines; --keep keeps both trees"));
    }
    Ok((!lines.is_empty()).then_some(lines))
}
