//! Git's objects: read from `git cat-file`, hashed, and understood here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use drystone_store::tree::{DELETION_PREFIX, Entry, TreePath, TreeSpool};
use sha2::Digest as _;

use super::{Commit, GitError, MISLEADING, io_error};
use crate::recipe::source::LARGE_FILE;
use drystone_source::fetch::shown;

/// The largest object that is read, in bytes.
const MOST_BYTES: u64 = 2 << 30;
/// How deep folders may be.
const MOST_FOLDERS: usize = 256;

/// A repository's objects.
pub(super) struct Objects {
    folder: PathBuf,
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The length of ids in bytes.
    id_length: usize,
}

/// One line of a tree object.
struct Line {
    mode: Vec<u8>,
    name: Vec<u8>,
    id: String,
}

impl Objects {
    pub(super) fn open(folder: &Path, revision: &str) -> Result<Self, GitError> {
        let mut command = Command::new("git");
        command
            .args(["cat-file", "--batch"])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        for name in MISLEADING {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(GitError::Program)?;
        let asks = child.stdin.take().expect("it was asked for");
        let answers = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self { folder: folder.to_owned(), child, asks, answers, id_length: revision.len() / 2 })
    }

    /// Ends git.
    pub(super) fn close(self) -> Result<(), GitError> {
        let Self { folder, mut child, asks, answers, .. } = self;
        drop((asks, answers));
        child.wait().map(drop).map_err(|source| io_error("read", &folder, source))
    }

    /// Takes all files of a commit.
    pub(super) fn walk(&mut self, commit: &Commit, spool: &mut TreeSpool) -> Result<(), GitError> {
        let content = self.object(&commit.revision, "commit")?;
        let wrong = |problem: &str| GitError::Object {
            id: commit.revision.clone(),
            problem: problem.to_owned(),
        };
        let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let tree = first.strip_prefix(b"tree ").and_then(|id| std::str::from_utf8(id).ok());
        let tree = tree.filter(|id| id.len() == 2 * self.id_length && is_hexadecimal(id));
        let tree = tree.ok_or_else(|| wrong("the commit names no tree"))?.to_owned();
        self.folder(commit, &tree, None, 0, spool)
    }

    fn folder(
        &mut self,
        commit: &Commit,
        id: &str,
        path: Option<&TreePath>,
        depth: usize,
        spool: &mut TreeSpool,
    ) -> Result<(), GitError> {
        if depth > MOST_FOLDERS {
            let problem = "folders are nested too deeply".to_owned();
            return Err(GitError::Object { id: id.to_owned(), problem });
        }
        for line in lines(&self.object(id, "tree")?, self.id_length, id)? {
            let path = place(commit, path, &line.name)?;
            match line.mode.as_slice() {
                b"40000" => {
                    spool.add_empty(Entry::directory(path.clone()))?;
                    self.folder(commit, &line.id, Some(&path), depth + 1, spool)?;
                }
                b"120000" => {
                    let target = self.object(&line.id, "blob")?;
                    let text = String::from_utf8(target).map_err(|_| refused(commit, &path))?;
                    spool.add_empty(Entry::symlink(path, text))?;
                }
                b"160000" => {
                    let (url, path) = (shown(&commit.url), path.to_string());
                    return Err(GitError::Submodule { url, path });
                }
                mode => self.file(commit, &line.id, path, mode == b"100755", spool)?,
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        commit: &Commit,
        id: &str,
        path: TreePath,
        is_executable: bool,
        spool: &mut TreeSpool,
    ) -> Result<(), GitError> {
        let content = self.object(id, "blob")?;
        if content.len() < 1024 && content.starts_with(LARGE_FILE) {
            let (url, path) = (shown(&commit.url), path.to_string());
            return Err(GitError::LargeFile { url, path });
        }
        let mode = if is_executable { 0o755 } else { 0o644 };
        Ok(spool.add_file(path, mode, &content)?)
    }

    /// An object's content, which has the hash that is its name.
    fn object(&mut self, id: &str, kind: &str) -> Result<Vec<u8>, GitError> {
        let wrong = |problem: String| GitError::Object { id: id.to_owned(), problem };
        let folder = self.folder.clone();
        let io = |source| io_error("read", &folder, source);
        writeln!(self.asks, "{id}").and_then(|()| self.asks.flush()).map_err(io)?;
        let mut head = String::new();
        self.answers.read_line(&mut head).map_err(io)?;
        let mut words = head.split_whitespace().skip(1);
        let found = words.next().unwrap_or("missing");
        let size: Option<u64> = words.next().and_then(|size| size.parse().ok());
        let Some(size) = size.filter(|_| found == kind) else {
            return Err(wrong(format!("a {kind} is wanted, and it is {found}")));
        };
        if size > MOST_BYTES {
            return Err(wrong(format!("it is larger than {MOST_BYTES} bytes")));
        }
        let mut content = Vec::new();
        (&mut self.answers).take(size + 1).read_to_end(&mut content).map_err(io)?;
        if content.len() as u64 != size + 1 {
            return Err(wrong("it is cut off".to_owned()));
        }
        content.pop();
        let actual = hash(kind, &content, self.id_length).map_err(wrong)?;
        match actual == id {
            true => Ok(content),
            false => Err(wrong(format!("it has the wrong content, which is {actual}"))),
        }
    }
}

/// The name that git gives an object.
fn hash(kind: &str, content: &[u8], id_length: usize) -> Result<String, String> {
    let head = format!("{kind} {}\0", content.len());
    let bytes = match id_length {
        32 => sha2::Sha256::new().chain_update(&head).chain_update(content).finalize().to_vec(),
        _ => {
            use sha1_checked::Digest as _;
            let mut hasher = sha1_checked::Sha1::new();
            hasher.update(head.as_bytes());
            hasher.update(content);
            let result = hasher.try_finalize();
            if result.has_collision() {
                return Err("it was made to have the hash of something else".to_owned());
            }
            result.hash().to_vec()
        }
    };
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The lines of a tree object: `MODE NAME\0ID`.
fn lines(mut rest: &[u8], id_length: usize, id: &str) -> Result<Vec<Line>, GitError> {
    let mut lines = Vec::new();
    let cut = || {
        let problem = "the tree is cut off".to_owned();
        GitError::Object { id: id.to_owned(), problem }
    };
    while !rest.is_empty() {
        let space = memchr::memchr(b' ', rest).ok_or_else(cut)?;
        let end = memchr::memchr(0, rest).filter(|end| *end > space).ok_or_else(cut)?;
        let bytes = rest.get(end + 1..end + 1 + id_length).ok_or_else(cut)?;
        lines.push(Line {
            mode: rest[..space].to_vec(),
            name: rest[space + 1..end].to_vec(),
            id: data_encoding::HEXLOWER.encode(bytes),
        });
        rest = &rest[end + 1 + id_length..];
    }
    Ok(lines)
}

fn place(commit: &Commit, parent: Option<&TreePath>, name: &[u8]) -> Result<TreePath, GitError> {
    let text = String::from_utf8_lossy(name).into_owned();
    let refused = || GitError::Path { url: shown(&commit.url), path: text.clone() };
    let is_odd = text.contains('/')
        || text.starts_with(DELETION_PREFIX)
        || text.eq_ignore_ascii_case(".git")
        || text.as_bytes() != name;
    if is_odd {
        return Err(refused());
    }
    let path = match parent {
        Some(parent) => parent.join(&text),
        None => TreePath::new(text.clone()),
    };
    path.map_err(|_| refused())
}

fn refused(commit: &Commit, path: &TreePath) -> GitError {
    GitError::Path { url: shown(&commit.url), path: path.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_names_that_git_gives_them() {
        // `git hash-object` of "hello\n", and git's empty tree in both formats.
        let of = |kind, content: &[u8], length| hash(kind, content, length).unwrap();
        assert_eq!(of("blob", b"hello\n", 20), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(of("tree", b"", 20), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
        let sha256 = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321";
        assert_eq!(of("tree", b"", 32), sha256);
    }

    #[test]
    fn damaged_trees_are_refused() {
        let whole = [b"100644 a\0".as_slice(), &[7; 20]].concat();
        assert_eq!(lines(&whole, 20, "x").unwrap().len(), 1);
        for end in 1..whole.len() {
            assert!(lines(&whole[..end], 20, "x").is_err(), "{end}");
        }
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let commit = Commit {
            url: url::Url::parse("https://example.com/x.git").unwrap(),
            revision: "0".repeat(40),
        };
        for name in ["..", ".", "", "a/b", ".git", ".GIT", ".wh.x"] {
            assert!(place(&commit, None, name.as_bytes()).is_err(), "{name}");
        }
        assert!(place(&commit, None, b"\xff").is_err());
        assert!(place(&commit, None, b"a b").is_ok());
    }
}
