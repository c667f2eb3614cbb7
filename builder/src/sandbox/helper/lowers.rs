//! The stack of lower trees as one merged tree, seen as an overlay shows it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::super::error::{At, Failure};
use super::directory::{self, join, relative};
use super::metadata::{Metadata, file_type, is_whiteout, xattr};

/// A directory of the merged tree: the layers that have a part in it, the topmost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) layers: Vec<usize>,
}

/// What stands at a path of the merged tree.
pub(super) enum Found {
    Directory(Merged),
    Other { layer: usize, stat: Stat },
}

/// All names of the files of one layer that have several, by inode.
type Links = HashMap<u64, Vec<String>>;

/// The lower trees, the topmost first.
pub(super) struct Lowers {
    layers: Vec<OwnedFd>,
    links: RefCell<HashMap<usize, Rc<Links>>>,
}

impl Lowers {
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, Failure> {
        let layers =
            paths.iter().map(|path| directory::open_absolute(path)).collect::<Result<_, _>>()?;
        Ok(Self { layers, links: RefCell::default() })
    }

    pub(super) fn root(&self) -> Merged {
        Merged { layers: (0..self.layers.len()).collect() }
    }

    pub(super) fn layer(&self, layer: usize) -> &OwnedFd {
        &self.layers[layer]
    }

    /// Metadata of a merged directory: its topmost part's.
    pub(super) fn directory_metadata(
        &self,
        merged: &Merged,
        path: &str,
    ) -> Result<Metadata, Failure> {
        let layer = &self.layers[merged.layers[0]];
        let stat = rustix::fs::statat(layer, relative(path), AtFlags::SYMLINK_NOFOLLOW)
            .at("look at", path)?;
        Metadata::read(layer, path, &stat)
    }

    /// What stands at `name` in the merged directory `parent`, whose path is `place`.
    pub(super) fn child(
        &self,
        parent: &Merged,
        place: &str,
        name: &str,
    ) -> Result<Option<Found>, Failure> {
        let path = join(place, name);
        let mut layers = Vec::new();
        for &layer in &parent.layers {
            let root = &self.layers[layer];
            let stat = match rustix::fs::statat(root, &*path, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.at("look at", &path)?,
            };
            if file_type(&stat) == FileType::Directory {
                layers.push(layer);
                if is_opaque(root, &path)? {
                    break;
                }
            } else if layers.is_empty() && !is_whiteout(&stat) {
                return Ok(Some(Found::Other { layer, stat }));
            } else {
                break;
            }
        }
        Ok((!layers.is_empty()).then_some(Found::Directory(Merged { layers })))
    }

    /// What stands at a path of the merged tree.
    pub(super) fn find(&self, path: &str) -> Result<Option<Found>, Failure> {
        let mut merged = self.root();
        let mut place = String::new();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            match self.child(&merged, &place, part)? {
                Some(Found::Directory(inner)) if parts.peek().is_some() => merged = inner,
                found if parts.peek().is_none() => return Ok(found),
                _ => return Ok(None),
            }
            place = join(&place, part);
        }
        Ok(None)
    }

    /// Everything in a merged directory.
    pub(super) fn children(
        &self,
        parent: &Merged,
        place: &str,
    ) -> Result<BTreeMap<String, Found>, Failure> {
        let mut states: BTreeMap<String, State> = BTreeMap::new();
        for &layer in &parent.layers {
            let root = &self.layers[layer];
            let descriptor = directory::open(root, relative(place))?;
            for name in directory::list(&descriptor, place)? {
                let path = join(place, &name);
                let stat = rustix::fs::statat(&descriptor, &*name, AtFlags::SYMLINK_NOFOLLOW)
                    .at("look at", &path)?;
                let is_directory = file_type(&stat) == FileType::Directory;
                match states.get_mut(&name) {
                    None if is_directory => {
                        let closed = is_opaque(root, &path)?;
                        states.insert(name, State::Directory { layers: vec![layer], closed });
                    }
                    None if is_whiteout(&stat) => drop(states.insert(name, State::Hidden)),
                    None => drop(states.insert(name, State::Other { layer, stat })),
                    Some(State::Directory { layers, closed }) if !*closed => {
                        if is_directory {
                            layers.push(layer);
                            *closed = is_opaque(root, &path)?;
                        } else {
                            *closed = true;
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        let found = states.into_iter().filter_map(|(name, state)| match state {
            State::Hidden => None,
            State::Other { layer, stat } => Some((name, Found::Other { layer, stat })),
            State::Directory { layers, .. } => Some((name, Found::Directory(Merged { layers }))),
        });
        Ok(found.collect())
    }

    /// All names of an inode within its layer.
    pub(super) fn names_of(&self, layer: usize, inode: u64) -> Result<Vec<String>, Failure> {
        let known = self.links.borrow().get(&layer).cloned();
        let links = match known {
            Some(links) => links,
            None => {
                let mut links = Links::new();
                collect_links(&self.layers[layer], "", &mut links)?;
                let links = Rc::new(links);
                self.links.borrow_mut().insert(layer, Rc::clone(&links));
                links
            }
        };
        Ok(links.get(&inode).cloned().unwrap_or_default())
    }
}

enum State {
    Hidden,
    Other { layer: usize, stat: Stat },
    Directory { layers: Vec<usize>, closed: bool },
}

/// Whether a directory hides what lower layers have in it.
pub(super) fn is_opaque(root: &OwnedFd, path: &str) -> Result<bool, Failure> {
    Ok(xattr(root, path, "user.overlay.opaque")?.as_deref() == Some(b"y"))
}

fn collect_links(root: &OwnedFd, place: &str, links: &mut Links) -> Result<(), Failure> {
    let descriptor = directory::open(root, relative(place))?;
    for name in directory::list(&descriptor, place)? {
        let path = join(place, &name);
        let stat = rustix::fs::statat(&descriptor, &*name, AtFlags::SYMLINK_NOFOLLOW)
            .at("look at", &path)?;
        match file_type(&stat) {
            FileType::Directory => collect_links(root, &path, links)?,
            FileType::RegularFile if stat.st_nlink > 1 => {
                links.entry(stat.st_ino).or_default().push(path);
            }
            _ => {}
        }
    }
    Ok(())
}
