//! What callers ask the sandbox for, and what they get back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use drystone_store::tree::TreePath;
use serde::{Deserialize, Serialize};

use super::Disguise;
use super::resources::{Bytes, Limit, Resources};

/// What the commands in a root may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Maintainer scripts and finish scripts: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETUID,
    /// SETGID, SETFCAP, SYS_CHROOT and KILL inside the namespace, nothing else.
    Configure,
    /// Builds from source: no capability at all.
    Recipe,
}

/// How the changes of a root are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Storage {
    /// An overlay: the upper directory holds only what changed.
    Overlay,
    /// A plain copy, where overlays are refused: the upper directory holds everything.
    Copy,
}

/// A root file system to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootRequest {
    /// Checked-out trees, the topmost first; at most [`super::MAX_LOWERS`].
    pub lower: Vec<PathBuf>,
    /// Where changes are kept; made if missing. It stays when the root is closed.
    pub upper: PathBuf,
    /// The sandbox's own work directory, on the file system of `upper`; made if missing. It may
    /// be removed (with [`super::Session::remove`]) once the root is closed.
    pub work: PathBuf,
    /// What commands may do.
    pub profile: Profile,
    /// `None` takes an overlay where the host allows it, else a copy.
    pub storage: Option<Storage>,
    /// The host name that commands see.
    pub hostname: String,
    /// The pid after which the first command's pid comes; perturbs what depends on pids.
    pub pid_base: Option<u32>,
    /// Directories that the trees have, relative to the root, that are covered by an empty tmpfs
    /// as `/tmp`, `/build` and `/dev` are; nothing below them is kept.
    pub tmpfs: Vec<String>,
    /// How commands see the world.
    pub disguise: Disguise,
}

impl RootRequest {
    /// A root for maintainer scripts with the usual settings.
    pub fn configure(lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf) -> Self {
        Self {
            lower,
            upper,
            work,
            profile: Profile::Configure,
            storage: None,
            hostname: "localhost".to_owned(),
            pid_base: None,
            tmpfs: Vec::new(),
            disguise: Disguise::default(),
        }
    }
}

/// A command to run in a root. Standard input is empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments; a program without `/` is searched in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The working directory inside the root.
    pub directory: String,
    /// The uid and gid to run as.
    pub owner: (u32, u32),
    /// The longest run; `None` for no limit.
    pub time_limit: Option<Duration>,
    /// The longest time without output; `None` for no limit.
    pub silence_limit: Option<Duration>,
    /// What else it may use up.
    pub resources: Resources,
    /// Whether the kernel may keep the limit of memory, where it lets this program make control
    /// groups; otherwise the sandbox watches.
    pub control_groups: bool,
    /// Whether standard output is returned (at most 16 MiB) instead of going to the log.
    pub capture: bool,
    /// Whether it has the terminal that [`super::Root::open_terminal`] made as its streams.
    pub terminal: bool,
}

impl Command {
    /// A command that runs as root in `/` with [`standard_environment`] and no limits.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: standard_environment(),
            directory: "/".to_owned(),
            owner: (0, 0),
            time_limit: None,
            silence_limit: None,
            resources: Resources::default(),
            control_groups: true,
            capture: false,
            terminal: false,
        }
    }

    /// How it ended, in words that follow its name.
    pub fn describe(&self, ending: Ending) -> String {
        let limit = match ending {
            Ending::Exit(status) => return format!("exited with status {status}"),
            Ending::Signal(signal) => return format!("was killed by signal {signal}"),
            Ending::Limit(limit) => limit,
        };
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| Bytes(bytes).to_string());
        let span = |span: Option<Duration>| span.map(|span| format!("{span:?}"));
        let amount = match limit {
            Limit::Time => span(self.time_limit),
            Limit::Silence => span(self.silence_limit),
            Limit::Memory => bytes(self.resources.memory),
            Limit::Disk => bytes(self.resources.disk),
            Limit::Processes => self.resources.processes.map(|count| count.to_string()),
            Limit::CpuTime => span(self.resources.cpu_time),
        };
        let amount = amount.map(|amount| format!(" of {amount}")).unwrap_or_default();
        format!("{}{amount}", limit.deed())
    }
}

/// The variables that every command gets, and no other unless the caller adds it.
pub fn standard_environment() -> BTreeMap<String, String> {
    let epoch = drystone_store::tar::MTIME.to_string();
    [
        // Without it TeX heeds SOURCE_DATE_EPOCH in a document's metadata alone.
        ("FORCE_SOURCE_DATE", "1"),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SOURCE_DATE_EPOCH", &epoch),
        ("TZ", "UTC"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with this status.
    Exit(i32),
    /// A signal with this number killed it.
    Signal(i32),
    /// It was killed because it ran into a limit.
    Limit(Limit),
}

/// A command that ran to its end. Whatever it left running has been killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// The last 16 KiB of its output.
    pub tail: Vec<u8>,
    /// Its standard output, if that was to be captured.
    pub output: Vec<u8>,
}

impl Finished {
    /// Whether it exited with status 0.
    pub fn success(&self) -> bool {
        self.ending == Ending::Exit(0)
    }

    /// The limit that it ran into.
    pub const fn limit(&self) -> Option<Limit> {
        match self.ending {
            Ending::Limit(limit) => Some(limit),
            _ => None,
        }
    }
}

/// One entry of a directory in a root, or what [`super::Root::look`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The name in its directory.
    pub name: String,
    /// What it is.
    pub kind: ItemKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the root.
    pub uid: u32,
    /// Group inside the root.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
}

/// The kind of an [`Item`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with its target.
    Symlink(String),
    /// A device, socket or FIFO.
    Other,
}

/// One path that changed between two calls of [`super::Root::changed_since_last`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// Whether it is gone; otherwise it is new or changed.
    pub deleted: bool,
}

/// Something in a root that no tree can hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsupported {
    /// Where it stands, relative to the root.
    pub path: String,
    /// What it is: `socket`, `fifo`, `character device` or `block device`.
    pub what: String,
}
