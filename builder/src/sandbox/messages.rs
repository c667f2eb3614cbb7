//! What the program and its helpers say to each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use drystone_store::tree::{Entry, Kind, TreePath};
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::request::{Command, Ending, Storage};

/// The first argument of a session's process.
pub(super) const SESSION_NAME: &str = "drystone-sandbox-session";
/// The first argument of the process that looks after one root.
pub(super) const ROOT_NAME: &str = "drystone-sandbox-root";

/// What a new connection is for; sent over a session's control connection with the other end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Service {
    /// One [`Work`] request.
    Work,
    /// Roots, one after another. An [`Entrance`] follows, which is answered with [`Started`]; then
    /// for each a [`super::RootRequest`], and when that is [`Opened`], [`RootOperation`]s.
    Root,
}

/// How the process that inits come from enters a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entrance {
    /// Not at all, or it is moved.
    None,
    /// It is born there: the group's directory is descriptor 0.
    Birth,
    /// It writes itself into files `tasks`, all descriptors.
    Tasks,
}

/// The process that inits come from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// Its pid, as the host counts.
    pub(super) process: u32,
    /// Whether it has entered.
    pub(super) entered: bool,
}

/// Work on directories, done with the ids of the namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// Lays out the canonical tar that comes as descriptor 0.
    Checkout {
        destination: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        sync: bool,
    },
    CreateDirectory {
        path: PathBuf,
    },
    /// Registers an emulator for the session's roots.
    Emulate {
        line: String,
    },
    /// Merges lower trees into one directory.
    Merge {
        lower: Vec<PathBuf>,
        destination: PathBuf,
    },
    /// Answers with [`ScanReply`], then with a descriptor for each index that is sent.
    Scan {
        upper: PathBuf,
        lower: Vec<PathBuf>,
        storage: Storage,
    },
}

/// The answer to opening a root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) storage: Storage,
    /// Why there is no overlay.
    pub(super) refusal: Option<String>,
    /// Why commands see the true clock and the like, although they were not to.
    pub(super) undisguised: Option<String>,
}

/// One operation on an open root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RootOperation {
    /// Runs a command; descriptor 0, if any, is the log.
    Execute(Command),
    Read {
        path: String,
    },
    /// The content comes as the frame's bytes.
    Write {
        path: String,
        mode: u32,
        owner: (u32, u32),
    },
    List {
        path: String,
    },
    Look {
        path: String,
    },
    MakeDirectory {
        path: String,
        mode: u32,
        owner: (u32, u32),
    },
    MakeSymlink {
        path: String,
        target: String,
        owner: (u32, u32),
    },
    SetAttributes {
        path: String,
        mode: u32,
        owner: (u32, u32),
    },
    Rename {
        from: String,
        to: String,
    },
    Delete {
        path: String,
    },
    Changed,
    /// Makes the terminal of the next command; answers with its other end.
    OpenTerminal {
        size: (u16, u16),
        owner: (u32, u32),
    },
    Close,
}

/// How a command ended; its tail and captured output are the frame's bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Executed {
    pub(super) ending: Ending,
    /// How many of the bytes are the tail; the rest is the captured output.
    pub(super) tail: usize,
}

/// From the root's supervisor to its init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum InitRequest {
    /// Starts a command with standard output and error as descriptors 0 and 1.
    Start(Command),
    /// Kills everything that runs.
    Kill,
}

/// From the root's init to its supervisor: the command and all it left running are gone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum InitReply {
    Ended(Ending),
    NotStarted { step: String, errno: i32 },
}

/// A scan's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScanReply {
    pub(super) entries: Vec<WireEntry>,
    pub(super) unsupported: Vec<super::Unsupported>,
}

/// An [`Entry`] and whether the lower trees have it too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireEntry {
    path: String,
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: BTreeMap<String, Vec<u8>>,
    kind: WireKind,
    unchanged: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum WireKind {
    Directory,
    File(u64),
    Symlink(String),
    HardLink(String),
    Deletion,
}

impl WireEntry {
    pub(super) fn new(entry: Entry, unchanged: bool) -> Self {
        let kind = match entry.kind {
            Kind::Directory => WireKind::Directory,
            Kind::File { size } => WireKind::File(size),
            Kind::Symlink { target } => WireKind::Symlink(target),
            Kind::HardLink { target } => WireKind::HardLink(target.as_str().to_owned()),
            Kind::Deletion => WireKind::Deletion,
        };
        let Entry { path, mode, uid, gid, xattrs, .. } = entry;
        Self { path: path.as_str().to_owned(), mode, uid, gid, xattrs, kind, unchanged }
    }

    pub(super) fn into_entry(self) -> Result<(Entry, bool), Failure> {
        let kind = match self.kind {
            WireKind::Directory => Kind::Directory,
            WireKind::File(size) => Kind::File { size },
            WireKind::Symlink(target) => Kind::Symlink { target },
            WireKind::HardLink(target) => Kind::HardLink { target: tree_path(&target)? },
            WireKind::Deletion => Kind::Deletion,
        };
        let path = tree_path(&self.path)?;
        let Self { mode, uid, gid, xattrs, unchanged, .. } = self;
        Ok((Entry { path, mode, uid, gid, xattrs, kind }, unchanged))
    }
}

/// Checks a path that came from a directory or from the other side.
pub(super) fn tree_path(path: &str) -> Result<TreePath, Failure> {
    TreePath::new(path).map_err(|error| Failure::tree(path, error.to_string()))
}
