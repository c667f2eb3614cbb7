//! A file system as the finish step sees it: a root that symbolic links cannot leave.
//!
//! Paths are relative to the root, without a leading slash; the root itself is the empty path.
//! A view answers about entries as they stand; [`resolve`] follows links on top of it, the way a
//! process whose root directory this is would.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How many symbolic links one path may pass, as in Linux (`MAXSYMLINKS`).
const LINK_LIMIT: usize = 40;

/// What stands at a path, without following a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Equal for two names of one file (hard links), different for two files.
        id: u64,
        /// Permission bits.
        mode: u32,
        /// Size in bytes.
        size: u64,
    },
    /// A symbolic link and its text.
    Symlink {
        /// The text of the link.
        target: String,
    },
    /// A device, socket or FIFO.
    Other,
}

/// Read access to the files of an image.
///
/// Implementations answer for paths whose parents are real directories; callers resolve links
/// first. Nothing at a path is `Ok(None)`, an I/O error names its path. Two calls with nothing
/// changed between them give the same answer; the order of [`list`](Self::list) does not matter.
pub trait RootView {
    /// What stands at `path`, without following a link in its last component.
    fn node(&self, path: &str) -> io::Result<Option<Node>>;

    /// The names in the directory `path`, in any order.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// At most the first `limit` bytes of the regular file `path`.
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>>;
}

/// `directory` and `name` as one path.
pub fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Follows every symbolic link of `path`, inside the root: the final path and what stands there,
/// never a link. `None` when it does not exist, or when the links loop.
///
/// A leading slash makes no difference; `..` in the root stays in the root.
pub fn resolve(view: &dyn RootView, path: &str) -> io::Result<Option<(String, Node)>> {
    let mut rest: Vec<String> = components_reversed(path);
    let mut done: Vec<String> = Vec::new();
    let mut current = Node::Directory;
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if current != Node::Directory {
            return Ok(None);
        }
        if name == ".." {
            done.pop();
            continue;
        }
        done.push(name);
        match view.node(&done.join("/"))? {
            None => return Ok(None),
            Some(Node::Symlink { target }) => {
                links += 1;
                if links > LINK_LIMIT || target.is_empty() {
                    return Ok(None);
                }
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                rest.extend(components_reversed(&target));
            }
            Some(node) => current = node,
        }
        // After `..` or a link the directory that was reached is a real one again.
        if rest.last().is_some_and(|next| next == "..") && current != Node::Directory {
            return Ok(None);
        }
    }
    Ok(Some((done.join("/"), current)))
}

fn components_reversed(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
}

/// A directory on disk as a root.
#[derive(Debug, Clone)]
pub struct DirectoryRoot {
    directory: PathBuf,
}

impl DirectoryRoot {
    /// Shows `directory` as a root.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.directory.clone() } else { self.directory.join(path) }
    }
}

/// The error with the path that it is about in front.
fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn not_utf8(path: &std::path::Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: not UTF-8", path.display()))
}

impl RootView for DirectoryRoot {
    fn node(&self, path: &str) -> io::Result<Option<Node>> {
        let path = self.path(path);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::InvalidFilename
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(at(&path)(error)),
        };
        let kind = metadata.file_type();
        Ok(Some(if kind.is_dir() {
            Node::Directory
        } else if kind.is_file() {
            Node::File {
                // One tree lies on one device but for mounts; the mix keeps those apart too.
                id: metadata.ino() ^ metadata.dev().rotate_left(40),
                mode: metadata.mode() & 0o7777,
                size: metadata.len(),
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(at(&path))?;
            let target = target.into_os_string().into_string().map_err(|_| not_utf8(&path))?;
            Node::Symlink { target }
        } else {
            Node::Other
        }))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let path = self.path(path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(at(&path))? {
            let entry = entry.map_err(at(&path))?;
            names.push(entry.file_name().into_string().map_err(|_| not_utf8(&entry.path()))?);
        }
        Ok(names)
    }

    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let path = self.path(path);
        let mut content = Vec::new();
        let file = fs::File::open(&path).map_err(at(&path))?;
        file.take(limit).read_to_end(&mut content).map_err(at(&path))?;
        Ok(content)
    }
}

#[cfg(test)]
pub mod memory {
    //! A root in memory, for tests.

    use std::collections::BTreeMap;

    use super::*;

    /// A root made of literal entries.
    #[derive(Debug, Default)]
    pub struct MemoryRoot {
        entries: BTreeMap<String, (Node, Vec<u8>)>,
    }

    impl MemoryRoot {
        fn parents(&mut self, path: &str) {
            for (at, _) in path.match_indices('/') {
                self.entries.entry(path[..at].to_owned()).or_insert((Node::Directory, Vec::new()));
            }
        }

        /// Adds a directory with its parents.
        pub fn directory(&mut self, path: &str) {
            self.parents(path);
            self.entries.insert(path.to_owned(), (Node::Directory, Vec::new()));
        }

        /// Adds a file with its parents.
        pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
            self.parents(path);
            let id = self.entries.len() as u64;
            let node = Node::File { id, mode, size: content.len() as u64 };
            self.entries.insert(path.to_owned(), (node, content.to_vec()));
        }

        /// Adds a symbolic link with its parents.
        pub fn symlink(&mut self, path: &str, target: &str) {
            self.parents(path);
            let node = Node::Symlink { target: target.to_owned() };
            self.entries.insert(path.to_owned(), (node, Vec::new()));
        }
    }

    impl RootView for MemoryRoot {
        fn node(&self, path: &str) -> io::Result<Option<Node>> {
            if path.is_empty() {
                return Ok(Some(Node::Directory));
            }
            Ok(self.entries.get(path).map(|(node, _)| node.clone()))
        }

        fn list(&self, path: &str) -> io::Result<Vec<String>> {
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let names = self.entries.keys().filter_map(|entry| entry.strip_prefix(&prefix));
            Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
        }

        fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
            let (_, content) =
                self.entries.get(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(content.iter().copied().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::MemoryRoot;
    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let mut root = MemoryRoot::default();
        root.symlink("lib", "usr/lib");
        root.file("usr/lib/a", 0o644, b"a");
        root.symlink("usr/lib/up", "../../../../lib/a");
        root.symlink("usr/lib/loop", "loop");
        root.symlink("usr/lib/through-file", "a/../a");
        let final_path = |path: &str| resolve(&root, path).unwrap().map(|(path, _)| path);
        assert_eq!(final_path("/lib/a").as_deref(), Some("usr/lib/a"));
        assert_eq!(final_path("lib/up").as_deref(), Some("usr/lib/a"));
        assert_eq!(final_path("lib/loop"), None);
        assert_eq!(final_path("lib/through-file"), None, "a file has no parent to go up from");
        assert_eq!(final_path("/").as_deref(), Some(""));
        assert_eq!(final_path("missing/x"), None);
    }
}
