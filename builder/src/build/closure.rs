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
use std::io::{self, Read};

use drystone_store::derivation::Derivation;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::{Entry, Kind, TreePath};
use serde::{Deserialize, Serialize};

use super::{BuildError, StackView};
use crate::finish::loader_cache::{Machine, Needs, needs};
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
    let question = Derivation::new(FACT, VERSION)
        .with_inputs(trees)
        .with_arg("owners", owners)
        .with_arg("architecture", architecture);
    let of_output = question.clone().with_inputs([*output.path.hash()]);
    remembered(store, &of_output, || {
        let shape = Shape::of(store, output)?;
        // What another output of the same shape needed is where it was: no tree is looked into.
        remembered(store, &question.with_arg("shape", shape.hash()), || {
            search(store, output, &shape, root, architecture)
        })
    })
}

/// The kind of the store's facts that hold what was found.
const FACT: &str = "runtime-closure";

fn remembered(
    store: &Store,
    question: &Derivation,
    find: impl FnOnce() -> Result<Found, BuildError>,
) -> Result<Found, BuildError> {
    let key = question.id().to_string();
    if let Some(known) = store.fact(FACT, &key)?
        && let Ok(found) = serde_json::from_str(&known)
    {
        return Ok(found);
    }
    let found = find()?;
    let text = serde_json::to_string(&found).expect("the maps have text keys");
    store.put_fact(FACT, &key, &text)?;
    Ok(found)
}

/// What a file needs, by the names that it uses.
#[derive(Debug)]
enum Need {
    /// The target of a link.
    Target(String),
    /// A program's loader and libraries.
    Libraries(Needs),
    /// A script's interpreters.
    Interpreters(Vec<String>),
}

/// All of an output that decides what it needs: what stands where, and what files name.
#[derive(Debug, Default)]
struct Shape {
    /// Each path, and the kind of what is there.
    places: Vec<(TreePath, &'static str)>,
    needs: Vec<(TreePath, Need)>,
}

impl Shape {
    fn of(store: &Store, output: &Output) -> Result<Self, BuildError> {
        let mut shape = Self::default();
        store.read_tree(output, |entry, content| {
            shape.add(entry, content).map_err(|source| {
                let path = entry.path.clone();
                BuildError::Content { path, source }
            })
        })?;
        Ok(shape)
    }

    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let kind = match &entry.kind {
            Kind::Directory => "directory",
            Kind::File { .. } | Kind::HardLink { .. } => "file",
            Kind::Symlink { .. } => "link",
            _ => "other",
        };
        self.places.push((entry.path.clone(), kind));
        let need = match &entry.kind {
            Kind::Symlink { target } => Some(Need::Target(target.clone())),
            Kind::File { size } if *size <= LARGEST => {
                let mut bytes = Vec::new();
                content.take(4).read_to_end(&mut bytes)?;
                if bytes == *b"\x7fELF" {
                    content.read_to_end(&mut bytes)?;
                    // A file for another machine, such as a boot program, has other rules.
                    needs(&bytes).map(Need::Libraries)
                } else if bytes.starts_with(b"#!") && entry.mode & 0o111 != 0 {
                    content.take(256).read_to_end(&mut bytes)?;
                    Some(Need::Interpreters(interpreters(&bytes)))
                } else {
                    None
                }
            }
            _ => None,
        };
        self.needs.extend(need.map(|need| (entry.path.clone(), need)));
        Ok(())
    }

    /// Only one store compares such hashes, so the form that is at hand serves.
    fn hash(&self) -> String {
        blake3::hash(format!("{} {self:?}", env!("CARGO_PKG_VERSION")).as_bytes()).to_string()
    }
}

fn search(
    store: &Store,
    output: &Output,
    shape: &Shape,
    root: &[(Owner, Output)],
    architecture: &str,
) -> Result<Found, BuildError> {
    let trees: Vec<&Output> = root.iter().map(|(_, tree)| tree).chain([output]).collect();
    let view = StackView::new(store, trees, |_| 0)?;
    let triplet = Machine::from_architecture(architecture).ok().map(Machine::triplet);
    let mut search = Search {
        view: &view,
        owners: root.iter().map(|(owner, _)| owner).collect(),
        folders: folders(triplet),
        found: Found::default(),
    };
    for (path, need) in &shape.needs {
        let failed = |source| BuildError::Content { path: path.clone(), source };
        match need {
            Need::Target(target) => search.link(path, target),
            Need::Libraries(needs) => search.program(path, needs),
            Need::Interpreters(interpreters) => search.script(path, interpreters),
        }
        .map_err(failed)?;
    }
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
            let path = drystone_source::debian::deb::merge_usr(path, false);
            let at = self.view.listings().iter().rposition(|it| it.find(&path).is_some());
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

    fn link(&mut self, path: &TreePath, target: &str) -> io::Result<()> {
        if !self.take(path.as_str(), path)? {
            self.missing(format!("the link /{path} -> {target} leads nowhere"));
        }
        Ok(())
    }

    fn script(&mut self, path: &TreePath, interpreters: &[String]) -> io::Result<()> {
        for program in interpreters {
            let found = match program.contains('/') {
                true => self.take(program, path)?,
                false => self.in_path(program, path)?,
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

    fn program(&mut self, path: &TreePath, needs: &Needs) -> io::Result<()> {
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
