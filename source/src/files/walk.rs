//! The walk of one local folder.

use std::fs::{self, Metadata};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::fingerprint::Recorder;
use super::ignore_rules::IgnoreRules;
use super::{FilesError, io_error};

/// What was found at a path below the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Directory,
    File { size: u64, executable: bool },
    Symlink { target: String },
}

/// The permission that makes a file executable, for anyone.
const ANY_EXECUTE: u32 = 0o111;

/// What a metadata record says, links not followed.
pub fn classify(path: &Path, metadata: &Metadata) -> Result<Found, FilesError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Ok(Found::Directory);
    }
    if kind.is_file() {
        let mode = std::os::unix::fs::MetadataExt::mode(metadata);
        return Ok(Found::File { size: metadata.len(), executable: mode & ANY_EXECUTE != 0 });
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(io_error("read the link", path))?;
        return Ok(Found::Symlink { target: utf8(&target, path)? });
    }
    let kind = if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    Err(FilesError::Special { path: path.to_owned(), kind })
}

fn utf8(text: &Path, path: &Path) -> Result<String, FilesError> {
    text.to_str().map(str::to_owned).ok_or_else(|| FilesError::Name {
        path: path.to_owned(),
        source: drystone_store::tree::PathError::NotUtf8(text.display().to_string()),
    })
}

/// The `include` and `exclude` patterns of a source.
pub struct Include {
    taken: Option<GlobSet>,
    left_out: Option<GlobSet>,
}

impl Include {
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, FilesError> {
        Ok(Self { taken: globs("include", include)?, left_out: globs("exclude", exclude)? })
    }

    /// Whether a relative path, or a directory above it, is named.
    fn takes(&self, relative: &Path) -> bool {
        self.taken.as_ref().is_none_or(|set| names(set, relative))
    }

    /// Whether a relative path is left out.
    fn leaves_out(&self, relative: &Path) -> bool {
        self.left_out.as_ref().is_some_and(|set| set.is_match(relative))
    }
}

/// Whether patterns name a path or a directory above it.
fn names(set: &GlobSet, relative: &Path) -> bool {
    relative
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty())
        .any(|path| set.is_match(path))
}

fn globs(place: &str, patterns: &[String]) -> Result<Option<GlobSet>, FilesError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let wrong = |error: globset::Error| FilesError::Pattern {
        place: place.to_owned(),
        message: error.to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(wrong)?);
    }
    Ok(Some(set.build().map_err(wrong)?))
}

/// Walks one folder.
pub struct Walk<'a> {
    pub root: &'a Path,
    pub include: &'a Include,
    pub recorder: &'a mut Recorder,
    /// Whether the folder was itself ignored, and is therefore taken whole.
    pub whole: bool,
    /// How many entries `.gitignore` files kept out.
    pub ignored: usize,
    /// What was found, by path relative to the folder, parents first.
    pub found: Vec<(PathBuf, Found)>,
}

impl Walk<'_> {
    /// Walks the folder with the rules that hold above it.
    pub fn run(&mut self, above: &IgnoreRules) -> Result<(), FilesError> {
        let rules = self.enter(above, self.root)?;
        self.directory(Path::new(""), &rules)
    }

    fn enter(&mut self, rules: &IgnoreRules, directory: &Path) -> Result<IgnoreRules, FilesError> {
        if self.whole { Ok(IgnoreRules::default()) } else { rules.enter(directory, self.recorder) }
    }

    fn directory(&mut self, relative: &Path, rules: &IgnoreRules) -> Result<(), FilesError> {
        let directory = self.root.join(relative);
        let list = || io_error("list", &directory);
        // The stamp comes before the names are read.
        self.recorder.metadata(&directory).map_err(list())?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(list())? {
            names.push(entry.map_err(list())?.file_name());
        }
        names.sort();
        for name in names.into_iter().filter(|name| name != ".git") {
            self.entry(&relative.join(&name), rules)?;
        }
        Ok(())
    }

    fn entry(&mut self, relative: &Path, rules: &IgnoreRules) -> Result<(), FilesError> {
        let path = self.root.join(relative);
        // Whether it is ignored comes first: nothing is asked of an ignored socket.
        let read = || io_error("read", &path);
        let is_directory = path.symlink_metadata().map_err(read())?.is_dir();
        if rules.ignores(&path, is_directory) {
            self.ignored += 1;
            return Ok(());
        }
        if self.include.leaves_out(relative) {
            return Ok(());
        }
        let taken = self.include.takes(relative);
        if !is_directory && !taken {
            return Ok(());
        }
        // A file that went away meanwhile is a change that the next walk sees.
        let Some(metadata) = self.recorder.metadata(&path).map_err(read())? else {
            return Ok(());
        };
        let found = classify(&path, &metadata)?;
        match &found {
            Found::Symlink { target } => self.check_link(relative, target)?,
            Found::Directory => {
                let inside = self.enter(rules, &path)?;
                let before = self.found.len();
                self.found.push((relative.to_owned(), found));
                self.directory(relative, &inside)?;
                // A directory that no pattern names stands only for what it holds.
                if !taken && self.found.len() == before + 1 {
                    self.found.pop();
                }
                return Ok(());
            }
            Found::File { .. } => {}
        }
        self.found.push((relative.to_owned(), found));
        Ok(())
    }

    /// Refuses a link whose text leads out of the folder. Names are counted, other links on the
    /// way not followed: nothing is read through a link, so this guards the user's intent.
    fn check_link(&self, relative: &Path, target: &str) -> Result<(), FilesError> {
        let mut depth = relative.components().count() - 1;
        let inside = !target.starts_with('/')
            && target.split('/').all(|part| match part {
                "" | "." => true,
                ".." if depth == 0 => false,
                ".." => {
                    depth -= 1;
                    true
                }
                _ => {
                    depth += 1;
                    true
                }
            });
        if inside {
            return Ok(());
        }
        Err(FilesError::LinkLeaves {
            path: self.root.join(relative),
            target: target.to_owned(),
            root: self.root.to_owned(),
        })
    }
}
