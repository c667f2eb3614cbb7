//! Collecting a tree whose entries come in any order, without memory that grows with their bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::path::Path;

use tempfile::SpooledTempFile;

use super::{Entry, Kind, TreePath};
use crate::tar::WriteError;

/// Contents up to this many bytes stay in memory; beyond, they move to one unnamed file.
const MEMORY_LIMIT: usize = 8 << 20;

/// Why an entry could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Two entries claim one path, and they are not both directories.
    #[error("{0} stands in the tree twice")]
    Duplicate(TreePath),
    /// An entry lies below something that is no directory.
    #[error("{path} lies below {parent}, which is not a directory")]
    NotADirectory {
        /// The entry.
        path: TreePath,
        /// What should be a directory.
        parent: TreePath,
    },
    /// A hard link names a path that is no file of the tree.
    #[error("hard link {path} names {target}, which is no file of the tree")]
    BadLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// A file's content ended early.
    #[error("the content of {0} is cut off")]
    Truncated(TreePath),
    /// Content could not be read or kept.
    #[error("cannot keep the content of {path}")]
    Io {
        /// The file.
        path: TreePath,
        /// The cause.
        source: io::Error,
    },
    /// The tree could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Something that takes a tree's entries in canonical order, each with its content.
pub trait EntrySink {
    /// Takes one entry; `content` gives exactly [`Entry::content_size`] bytes.
    fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), WriteError>;
}

impl<W: Write> EntrySink for crate::tar::TreeWriter<W> {
    fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), WriteError> {
        Self::append(self, entry, content)
    }
}

/// A tree in the making. Missing parent directories are added (0:0, 0755) when it is written.
pub struct TreeSpool {
    entries: BTreeMap<TreePath, (Entry, u64)>,
    contents: SpooledTempFile,
    length: u64,
}

impl TreeSpool {
    /// Starts a tree; large contents go to an unnamed file in `directory`.
    pub fn new(directory: &Path) -> Self {
        let contents = SpooledTempFile::new_in(MEMORY_LIMIT, directory);
        Self { entries: BTreeMap::new(), contents, length: 0 }
    }

    /// The entry at `path`, if there is one.
    pub fn entry(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(path).map(|(entry, _)| entry)
    }

    /// All entries so far, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|(entry, _)| entry)
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes one entry. A directory that is there already keeps its first metadata.
    pub fn add(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), SpoolError> {
        if let Some((there, _)) = self.entries.get(&entry.path) {
            if there.kind == Kind::Directory && entry.kind == Kind::Directory {
                return Ok(());
            }
            return Err(SpoolError::Duplicate(entry.path));
        }
        self.insert(entry, content)
    }

    /// Takes one entry in place of whatever stands at its path.
    pub fn replace(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), SpoolError> {
        self.entries.remove(&entry.path);
        self.insert(entry, content)
    }

    /// Drops the entry at `path`; whether there was one.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        self.entries.remove(path).is_some()
    }

    /// Drops all entries below `path`, and not that itself.
    pub fn remove_below(&mut self, path: &TreePath) {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        let below = self.entries.range(after).map(|(other, _)| other);
        let below: Vec<TreePath> =
            below.take_while(|other| other.starts_with(path)).cloned().collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    /// Takes an entry that has no content.
    pub fn add_empty(&mut self, entry: Entry) -> Result<(), SpoolError> {
        self.add(entry, &mut io::empty())
    }

    /// Takes a file 0:0 with its content from memory.
    pub fn add_file(&mut self, path: TreePath, mode: u32, bytes: &[u8]) -> Result<(), SpoolError> {
        self.add(Entry::file(path, mode, bytes.len() as u64), &mut &*bytes)
    }

    /// Changes owners: `map` gets every entry's uid and gid.
    pub fn map_owners(&mut self, map: &dyn Fn(u32, u32) -> (u32, u32)) {
        for (entry, _) in self.entries.values_mut() {
            (entry.uid, entry.gid) = map(entry.uid, entry.gid);
        }
    }

    /// The content of the file at `path`; `None` if no file stands there.
    pub fn content(&mut self, path: &TreePath) -> Result<Option<Vec<u8>>, SpoolError> {
        let Some((entry, offset)) = self.entries.get(path) else { return Ok(None) };
        if !matches!(entry.kind, Kind::File { .. }) {
            return Ok(None);
        }
        let (size, offset) = (entry.content_size(), *offset);
        let mut bytes = Vec::new();
        let mut read = || -> io::Result<()> {
            self.contents.seek(SeekFrom::Start(offset))?;
            (&mut self.contents).take(size).read_to_end(&mut bytes)?;
            // What is added next goes to the end.
            self.contents.seek(SeekFrom::Start(self.length)).map(drop)
        };
        read().map_err(|source| SpoolError::Io { path: path.clone(), source })?;
        Ok(Some(bytes))
    }

    fn insert(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), SpoolError> {
        let size = entry.content_size();
        let offset = self.length;
        if size > 0 {
            let copied = io::copy(&mut content.take(size), &mut self.contents)
                .map_err(|source| SpoolError::Io { path: entry.path.clone(), source })?;
            self.length += copied;
            if copied != size {
                return Err(SpoolError::Truncated(entry.path));
            }
        }
        self.entries.insert(entry.path.clone(), (entry, offset));
        Ok(())
    }

    /// Writes the tree in canonical order.
    pub fn write(&mut self, sink: &mut dyn EntrySink) -> Result<(), SpoolError> {
        self.add_parents()?;
        self.order_links()?;
        let mut position = self.length;
        for (entry, offset) in self.entries.values() {
            let size = entry.content_size();
            if size > 0 && position != *offset {
                self.contents
                    .seek(SeekFrom::Start(*offset))
                    .map_err(|source| SpoolError::Io { path: entry.path.clone(), source })?;
            }
            sink.append(entry, &mut (&mut self.contents).take(size))?;
            if size > 0 {
                position = offset + size;
            }
        }
        Ok(())
    }

    fn add_parents(&mut self) -> Result<(), SpoolError> {
        let mut missing = BTreeMap::new();
        for path in self.entries.keys() {
            let mut parent = path.parent();
            while let Some(directory) = parent {
                match self.entries.get(&directory) {
                    Some((entry, _)) if entry.kind == Kind::Directory => break,
                    Some(_) => {
                        let path = path.clone();
                        return Err(SpoolError::NotADirectory { path, parent: directory });
                    }
                    None => {}
                }
                parent = directory.parent();
                if missing.insert(directory.clone(), Entry::directory(directory)).is_some() {
                    break;
                }
            }
        }
        self.entries.extend(missing.into_iter().map(|(path, entry)| (path, (entry, 0))));
        Ok(())
    }

    /// Makes the first path of each group of hard links carry the content.
    fn order_links(&mut self) -> Result<(), SpoolError> {
        let mut groups: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
        for (path, (entry, _)) in &self.entries {
            if matches!(entry.kind, Kind::HardLink { .. }) {
                groups.entry(self.link_end(path)?).or_default().push(path.clone());
            }
        }
        for (file, links) in groups {
            let first = links.iter().chain([&file]).min().expect("a group has a file").clone();
            let (content, offset) = self.entries[&file].clone();
            for path in links.into_iter().chain([file]) {
                let kind = match path == first {
                    true => content.kind.clone(),
                    false => Kind::HardLink { target: first.clone() },
                };
                let xattrs = if path == first { content.xattrs.clone() } else { BTreeMap::new() };
                let entry = Entry { path: path.clone(), kind, xattrs, ..content.clone() };
                self.entries.insert(path, (entry, offset));
            }
        }
        Ok(())
    }

    /// Follows hard links to the file that they name.
    fn link_end(&self, path: &TreePath) -> Result<TreePath, SpoolError> {
        let mut at = path;
        for _ in 0..=self.entries.len() {
            match self.entries.get(at).map(|(entry, _)| &entry.kind) {
                Some(Kind::HardLink { target }) => at = target,
                Some(Kind::File { .. }) => return Ok(at.clone()),
                _ => break,
            }
        }
        Err(SpoolError::BadLink { path: path.clone(), target: at.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{TreeReader, TreeWriter};

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn link(from: &str, to: &str) -> Entry {
        Entry { kind: Kind::HardLink { target: path(to) }, ..Entry::file(path(from), 0o644, 0) }
    }

    fn written(spool: &mut TreeSpool) -> Result<Vec<(String, Vec<u8>)>, SpoolError> {
        let mut writer = TreeWriter::new(Vec::new());
        spool.write(&mut writer)?;
        let bytes = writer.finish().unwrap();
        let mut reader = TreeReader::new(bytes.as_slice());
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut content = Vec::new();
            reader.content().read_to_end(&mut content).unwrap();
            entries.push((entry.path.to_string(), content));
        }
        Ok(entries)
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let files = [("b/x", "1"), ("a", "22"), ("b/a/c", "333"), ("z", "")];
        let mut results = Vec::new();
        for turn in 0..files.len() {
            let mut spool = TreeSpool::new(directory.path());
            for index in 0..files.len() {
                let (name, content) = files[(index + turn) % files.len()];
                spool.add_file(path(name), 0o644, content.as_bytes()).unwrap();
            }
            results.push(written(&mut spool).unwrap());
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
        let names: Vec<_> = results[0].iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "b/a", "b/a/c", "b/x", "z"]);
    }

    #[test]
    fn the_first_path_of_a_hard_link_carries_the_content() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = TreeSpool::new(directory.path());
        spool.add_file(path("usr/z"), 0o755, b"perl").unwrap();
        spool.add_empty(link("usr/m", "usr/z")).unwrap();
        spool.add_empty(link("usr/b", "usr/m")).unwrap();
        let entries = written(&mut spool).unwrap();
        assert_eq!(entries[1], ("usr/b".into(), b"perl".to_vec()));
        assert_eq!(entries[2], ("usr/m".into(), vec![]));
        assert_eq!(entries[3], ("usr/z".into(), vec![]));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = TreeSpool::new(directory.path());
        spool.add_file(path("a"), 0o644, b"").unwrap();
        assert!(matches!(spool.add_file(path("a"), 0o644, b""), Err(SpoolError::Duplicate(_))));
        spool.add_file(path("a/b"), 0o644, b"").unwrap();
        assert!(matches!(written(&mut spool), Err(SpoolError::NotADirectory { .. })));
        let mut spool = TreeSpool::new(directory.path());
        spool.add_empty(link("a", "b")).unwrap();
        spool.add_empty(link("b", "a")).unwrap();
        assert!(matches!(written(&mut spool), Err(SpoolError::BadLink { .. })));
        let short = Entry::file(path("s"), 0o644, 3);
        assert!(matches!(spool.add(short, &mut &b"ab"[..]), Err(SpoolError::Truncated(_))));
    }
}
