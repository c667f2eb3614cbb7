//! Sources from git: a commit, taken from the repository by the host's git, with its credentials.
//!
//! ```text
//! revision ── `fetch` realised in the store or a cache ────────────────────────────────────────┐
//!      └── else git fetch (a bare repository, for this moment) ── objects, each hashed here ───┴─> tree
//! ```
//!
//! Git only carries objects. Commit, trees and blobs are hashed and read by own code, so the revision
//! proves the tree, attributes and filters of whichever git is installed change nothing, and nothing
//! of a repository is run. SHA-1 is computed with the detection of collisions that git itself uses.

mod object;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use drystone_store::derivation::Derivation;
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::{Store, StoreError};
use drystone_store::tree::SpoolError;
use url::Url;

use crate::progress::{Event, Progress};
use drystone_source::fetch::shown;
use object::Objects;

/// Version of the `fetch` builder for commits: rises whenever its output can change.
const VERSION: u32 = 1;
/// How long git may take to bring a repository.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Variables by which git would look at another repository than the one that is meant.
const MISLEADING: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_COMMON_DIR",
];

/// Why a commit cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The network may not be used, and the store lacks the commit.
    #[error("{url} at {revision} is not in the store, and the network may not be used")]
    Offline {
        /// The repository.
        url: String,
        /// The commit.
        revision: String,
    },
    /// Git cannot be run.
    #[error("git cannot be run")]
    Program(#[source] io::Error),
    /// Git did not bring the commit.
    #[error("git cannot fetch {revision} from {url}: {message}")]
    Fetch {
        /// The repository.
        url: String,
        /// The commit.
        revision: String,
        /// What git said.
        message: String,
    },
    /// An object is not what its name says.
    #[error("git object {id}: {problem}")]
    Object {
        /// The object.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// The repository holds another one.
    #[error("{url} has a git submodule at {path}, which is not supported")]
    Submodule {
        /// The repository.
        url: String,
        /// Where it stands.
        path: String,
    },
    /// A file's content is kept elsewhere.
    #[error("{url}: {path} is kept by git's large file storage, which is not supported")]
    LargeFile {
        /// The repository.
        url: String,
        /// The file.
        path: String,
    },
    /// A path cannot stand in a tree.
    #[error("{url} holds the path {path:?}, which is refused")]
    Path {
        /// The repository.
        url: String,
        /// The path.
        path: String,
    },
    /// A file could not be made or read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The files make no tree.
    #[error(transparent)]
    Tree(#[from] SpoolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl GitError {
    /// What would mend it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Offline { .. } => Some("build once without `--offline`"),
            Self::Program(_) => Some("install git"),
            Self::Fetch { .. } => Some(
                "`git fetch ADDRESS REVISION` must work on this host, with its credentials; the \
                 revision must be reachable from a branch or tag",
            ),
            Self::Submodule { .. } | Self::LargeFile { .. } => {
                Some("check the repository out beside image.toml, and name the folder as `source`")
            }
            _ => None,
        }
    }
}

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Where it is had from, which is in no identity.
    pub url: Url,
    /// Its full id.
    pub revision: String,
}

impl Commit {
    /// The derivation: the id proves everything.
    pub fn derivation(&self) -> Derivation {
        let mut derivation =
            Derivation::new("fetch", VERSION).with_arg("git", self.revision.as_str());
        derivation.output_hash = Some(format!("git:{}", self.revision));
        derivation
    }

    /// Its tree, if it is in the store or in a cache.
    pub fn realised(&self, store: &Store) -> Result<Option<Output>, StoreError> {
        store.realised_output(&self.derivation().id(), "out")
    }

    /// Brings its tree into the store: files as they are in the repository, rooted there.
    ///
    /// # Errors
    ///
    /// [`GitError`]; nothing is then kept.
    pub async fn fetch(
        &self,
        store: &Arc<Store>,
        progress: &dyn Progress,
    ) -> Result<Output, GitError> {
        let name = format!("git {}", &self.revision[..12]);
        let text = format!("fetch {}", shown(&self.url));
        progress.event(Event::Phase { name: name.clone(), text });
        let temporary = store.temporary_directory();
        let folder = tempfile::Builder::new()
            .prefix("git-")
            .tempdir_in(temporary)
            .map_err(|source| io_error("create a directory in", temporary, source))?;
        self.bring(folder.path()).await?;
        let (store, commit) = (Arc::clone(store), self.clone());
        let taken = tokio::task::spawn_blocking(move || commit.take(&store, folder.path()));
        let output = taken.await.map_err(|error| GitError::Program(io::Error::other(error)))??;
        progress.event(Event::Done { name });
        Ok(output)
    }

    /// Lets git fetch the commit alone, else all branches and tags: not every server gives what is
    /// asked for by its id.
    async fn bring(&self, folder: &Path) -> Result<(), GitError> {
        let format = if self.revision.len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        self.git(folder, &["init", "--quiet", "--bare", "--template=", &format, "."]).await?;
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        let url = self.url.as_str();
        let exact = [&fetch[..], &["--depth=1", "--", url, &self.revision]].concat();
        let Err(first) = self.git(folder, &exact).await else { return Ok(()) };
        let all = ["--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        // What was wrong with the repository itself is told once.
        self.git(folder, &[&fetch[..], &all].concat()).await?;
        let commit = format!("{}^{{commit}}", self.revision);
        self.git(folder, &["cat-file", "-e", &commit]).await.map_err(|_| first)
    }

    async fn git(&self, folder: &Path, arguments: &[&str]) -> Result<(), GitError> {
        let mut command = tokio::process::Command::new("git");
        command
            .args(arguments)
            .current_dir(folder)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for name in MISLEADING {
            command.env_remove(name);
        }
        let failed = |message: String| {
            let (url, revision) = (shown(&self.url), self.revision.clone());
            GitError::Fetch { url, revision, message }
        };
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let ended = ended.map_err(|_| failed("it took longer than an hour".to_owned()))?;
        let ended = ended.map_err(GitError::Program)?;
        match ended.status.success() {
            true => Ok(()),
            false => {
                let text = String::from_utf8_lossy(&ended.stderr);
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                // Git echoes addresses; this one holds no secret.
                Err(failed(lines.join("; ")))
            }
        }
    }

    /// Reads and proves the commit's files, and stores them.
    fn take(&self, store: &Store, folder: &Path) -> Result<Output, GitError> {
        let mut objects = Objects::open(folder, &self.revision)?;
        let mut spool = store.spool();
        objects.walk(self, &mut spool)?;
        objects.close()?;
        let derivation = self.derivation();
        let _lock = store.lock_derivation(&derivation.id())?;
        let name = format!("git-{}", &self.revision[..12]);
        let output = store.add_tree(&name, Compression::Store1, &mut spool)?;
        store.put_realisation(&derivation, [("out".to_owned(), output.clone())])?;
        Ok(output)
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> GitError {
    GitError::Io { action, path: path.to_owned(), source }
}
