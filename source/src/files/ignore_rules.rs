//! Which paths git ignores: the `.gitignore` files from the repository's root down.
//!
//! A rule of a deeper file decides before one of a higher file, the last match of one file before
//! the others (gitignore(5)). Outside a repository only the files at and below the source count.

use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::fingerprint::Recorder;
use super::{FilesError, io_error};

/// The rules that hold in one directory.
#[derive(Debug, Clone, Default)]
pub struct IgnoreRules {
    /// From the repository's root down.
    files: Vec<Gitignore>,
}

impl IgnoreRules {
    /// The rules that hold for entries of `source`'s parent: `None` when `source` is in no
    /// repository, or is one's root.
    pub fn above(source: &Path, recorder: &mut Recorder) -> Result<Option<Self>, FilesError> {
        let Some(root) = repository(source, recorder)? else { return Ok(None) };
        if root == source {
            return Ok(None);
        }
        let mut between: Vec<&Path> = source.ancestors().skip(1).collect();
        between.retain(|directory| directory.starts_with(&root));
        let mut rules = Self::default();
        for directory in between.into_iter().rev() {
            rules.push(directory, recorder)?;
        }
        Ok(Some(rules))
    }

    /// Whether `path`, or a directory above it, is ignored.
    pub fn ignores_named(&self, path: &Path, is_directory: bool) -> bool {
        let Some(highest) = self.files.first().map(Gitignore::path) else { return false };
        path.ancestors()
            .take_while(|ancestor| ancestor.starts_with(highest) && *ancestor != highest)
            .any(|ancestor| self.ignores(ancestor, is_directory || ancestor != path))
    }

    /// Whether an entry of a directory is ignored.
    pub fn ignores(&self, path: &Path, is_directory: bool) -> bool {
        for file in self.files.iter().rev() {
            // A file's rules say nothing of what lies outside its directory.
            if !path.starts_with(file.path()) {
                continue;
            }
            match file.matched(path, is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }

    /// The rules that hold in the subdirectory `directory`: those here and its own, or, where it
    /// is a repository of its own, only those.
    pub fn enter(&self, directory: &Path, recorder: &mut Recorder) -> Result<Self, FilesError> {
        let git = directory.join(".git");
        let own = recorder.exists(&git).map_err(io_error("look for", &git))?;
        let mut rules = if own { Self::default() } else { self.clone() };
        rules.push(directory, recorder)?;
        Ok(rules)
    }

    fn push(&mut self, directory: &Path, recorder: &mut Recorder) -> Result<(), FilesError> {
        let file = directory.join(".gitignore");
        let metadata = recorder.metadata(&file).map_err(io_error("read", &file))?;
        // Git reads no ignore file through a link.
        if !metadata.is_some_and(|metadata| metadata.is_file()) {
            return Ok(());
        }
        let content = std::fs::read(&file).map_err(io_error("read", &file))?;
        let mut builder = GitignoreBuilder::new(directory);
        for line in String::from_utf8_lossy(&content).lines() {
            // A line that git cannot use matches nothing there, and so here.
            let _ = builder.add_line(Some(file.clone()), line.trim_start_matches('\u{feff}'));
        }
        let rules = builder.build().map_err(|error| FilesError::Pattern {
            place: file.display().to_string(),
            message: error.to_string(),
        })?;
        if !rules.is_empty() {
            self.files.push(rules);
        }
        Ok(())
    }
}

/// The nearest directory at or above `path` that holds `.git`.
fn repository(path: &Path, recorder: &mut Recorder) -> Result<Option<PathBuf>, FilesError> {
    for directory in path.ancestors() {
        let git = directory.join(".git");
        if recorder.exists(&git).map_err(io_error("look for", &git))? {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}
