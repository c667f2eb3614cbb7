//! What a recipe's output needs when it runs, found in it and in what it was built with.
//!
//! ```text
//! ELF: interpreter, NEEDED (RUNPATH, then the loader's folders) ─┐
//! scripts: `#!`, and PATH behind `env` ──────────────────────────┼─> a path of the build's root
//! symbolic links ────────────────────────────────────────────────┘       └─> who has it
//! ```
//!
//! A path of a package brings that package into the image. What nobody has is reported. Libraries
//! that a program opens by itself are out of sight: `runtime` of the recipe names their packages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::sync::Arc;

use drystone_store::derivation::Derivation;
use drystone_store::listing::Listing;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::{Entry, Kind, TreePath};
use serde::{Deserialize, Serialize};

use super::{BuildError, StackView};
use crate::finish::loader_cache::{Machine, needs};
use crate::finish::root_view::{Node, join, resolve};
use crate::finish::shebang::{DEFAULT_PATH, interpreters};

/// Version of this search: rises whenever it can find something else.
const VERSION: u32 = 1;
/// The largest file that is searched, in bytes.
const LARGEST: u64 = 1 << 30;
/// The most warnings about one output.
const MOST_WARNINGS: usize = 20;

/// Who brought a tree into a build's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A package.
    Package(String),
    /// An output of a recipe, as `NAME` or `NAME:OUTPUT`.
    Recipe(String),
    /// The merged `/usr`, configuration and corrections.
    Nobody,
}

impl Owner {
    /// The package, if it is one.
    pub fn package(&self) -> Option<String> {
        match self {
            Self::Package(name) => Some(name.clone()),
            Self::Recipe(_) | Self::Nobody => None,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Found {
    /// Packages.
    pub packages: BTreeSet<String>,
    /// Other recipes' outputs, each with one of the files that need it.
    pub recipes: BTreeMap<String, String>,
    /// What nobody has, one line each.
    pub missing: Vec<String>,
}

/// Searches one output. `root` is what it was built with, lowest first.
pub fn closure(
    store: &Store,
    output: &Output,
    root: &[(Owner, Output)],
    architecture: &str,
) -> Result<Found, BuildError> {
    let trees = root.iter().map(|(_, tree)| *tree.path.hash());
    let owners: Vec<String> = root.iter().map(|(owner, _)| format!("{owner:?}")).collect();
    let key = Derivation::new("runtime-closure", VERSION)
        .with_inputs(trees.chain([*output.path.hash()]))
        .with_arg("owners", owners)
        .with_arg("architecture", architecture)
        .id()
        .to_string();
    if let Some(known) = store.fact("runtime-closure", &key)?
        && let Ok(found) = serde_json::from_str(&known)
    {
        return Ok(found);
    }
    let found = search(store, output, root, architecture)?;
    let text = serde_json::to_string(&found).expect("the maps have text keys");
    store.put_fact("runtime-closure", &key, &text)?;
    Ok(found)
}

fn search(
    store: &Store,
    output: &Output,
    root: &[(Owner, Output)],
    architecture: &str,
) -> Result<Found, BuildError> {
    let trees: Vec<&Output> = root.iter().map(|(_, tree)| tree).chain([output]).collect();
    let listings = super::listings(store, &trees)?;
    let view = StackView::new(store, trees, |_| 0)?;
    let triplet = Machine::from_architecture(architecture).ok().map(Machine::triplet);
    let mut search = Search {
        view: &view,
        owners: root.iter().map(|(owner, _)| owner).collect(),
        listings: &listings,
        folders: folders(triplet),
        found: Found::default(),
    };
    store.read_tree(output, |entry, content| {
        let failed = |source| BuildError::Content { path: entry.path.clone(), source };
        match &entry.kind {
            Kind::Symlink { .. } => search.link(entry).map_err(failed),
            Kind::File { size } if *size <= LARGEST => {
                let mut start = [0; 4];
                let mut bytes = Vec::new();
                content.take(4).read_to_end(&mut bytes).map_err(failed)?;
                start[..bytes.len()].copy_from_slice(&bytes);
                if start == *b"\x7fELF" {
                    content.read_to_end(&mut bytes).map_err(failed)?;
                    search.program(&entry.path, &bytes).map_err(failed)
                } else if start.starts_with(b"#!") && entry.mode & 0o111 != 0 {
                    content.take(256).read_to_end(&mut bytes).map_err(failed)?;
                    search.script(&entry.path, &bytes).map_err(failed)
                } else {
                    Ok(())
                }
            }
            _ => Ok::<(), BuildError>(()),
        }
    })?;
    Ok(search.found)
}

/// Where the loader looks when nothing else says so.
fn folders(triplet: Option<&str>) -> Vec<String> {
    let mut folders = vec!["usr/local/lib".to_owned()];
    for base in ["usr/local/lib", "usr/lib"] {
        folders.extend(triplet.map(|triplet| format!("{base}/{triplet}")));
    }
    folders.extend(["usr/lib".to_owned(), "usr/lib64".to_owned()]);
    folders
}

struct Search<'a> {
    view: &'a StackView<'a>,
    owners: Vec<&'a Owner>,
    listings: &'a [Arc<Listing>],
    folders: Vec<String>,
    found: Found,
}

impl Search<'_> {
    /// Notes who has a path; whether anyone has it.
    fn take(&mut self, path: &str, by: &TreePath) -> io::Result<bool> {
        let Some((real, node)) = resolve(self.view, path)? else { return Ok(false) };
        if node == Node::Directory {
            return Ok(true);
        }
        // The link may be another package's than its target: `/usr/bin/python3`.
        for path in [path.trim_start_matches('/'), &real] {
            let Ok(path) = TreePath::new(path) else { continue };
            let path = crate::source::debian::deb::merge_usr(path, false);
            let at = self.listings.iter().rposition(|listing| listing.find(&path).is_some());
            match at.and_then(|at| self.owners.get(at)) {
                Some(Owner::Package(name)) => {
                    self.found.packages.insert(name.clone());
                }
                Some(Owner::Recipe(name)) => {
                    self.found.recipes.entry(name.clone()).or_insert_with(|| format!("/{by}"));
                }
                // It is the output's own, or configuration made it.
                Some(Owner::Nobody) | None => {}
            }
        }
        Ok(true)
    }

    fn missing(&mut self, line: String) {
        if self.found.missing.len() < MOST_WARNINGS && !self.found.missing.contains(&line) {
            self.found.missing.push(line);
        }
    }

    fn link(&mut self, entry: &Entry) -> io::Result<()> {
        if !self.take(entry.path.as_str(), &entry.path)? {
            let Kind::Symlink { target } = &entry.kind else { return Ok(()) };
            self.missing(format!("the link /{} -> {target} leads nowhere", entry.path));
        }
        Ok(())
    }

    fn script(&mut self, path: &TreePath, start: &[u8]) -> io::Result<()> {
        for program in interpreters(start) {
            let found = match program.contains('/') {
                true => self.take(&program, path)?,
                false => self.in_path(&program, path)?,
            };
            if !found {
                self.missing(format!("/{path} is run by {program}, which is nowhere"));
            }
        }
        Ok(())
    }

    fn in_path(&mut self, program: &str, by: &TreePath) -> io::Result<bool> {
        for folder in DEFAULT_PATH.split(':') {
            if self.take(&join(folder, program), by)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn program(&mut self, path: &TreePath, content: &[u8]) -> io::Result<()> {
        // A file for another machine, such as a boot program, has other rules.
        let Some(needs) = needs(content) else { return Ok(()) };
        if let Some(interpreter) = &needs.interpreter
            && !self.take(interpreter, path)?
        {
            self.missing(format!("/{path} is started by {interpreter}, which is nowhere"));
        }
        let origin = path.parent().map(|parent| format!("/{parent}")).unwrap_or_default();
        let mut folders: Vec<String> = needs
            .run_path
            .iter()
            .filter(|folder| !folder.is_empty())
            .map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
            .collect();
        folders.extend(self.folders.iter().cloned());
        for library in &needs.libraries {
            let mut found = false;
            match library.contains('/') {
                true => found = self.take(library, path)?,
                false => {
                    for folder in &folders {
                        if self.take(&join(folder, library), path)? {
                            found = true;
                            break;
                        }
                    }
                }
            }
            if !found {
                self.missing(format!("/{path} needs {library}, which is nowhere"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test's own program is an ELF file with known needs.
    #[test]
    fn a_real_program_shows_what_it_needs() {
        let content = std::fs::read("/proc/self/exe").unwrap();
        let needs = needs(&content).unwrap();
        assert!(needs.libraries.iter().any(|library| library.starts_with("libc.so")), "{needs:?}");
        assert!(needs.interpreter.unwrap().contains("ld-linux"));
    }
}
