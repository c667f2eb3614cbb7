//! What commands are told instead of the truth, so that a second run differs in all that must not
//! matter. A disguise is never part of a first run, so no identity knows of it; but where the time
//! of day is all that two runs differ in, a stopped clock makes them agree.

use serde::{Deserialize, Serialize};

/// What a wall clock shows, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shown {
    /// So much more than the truth.
    Ahead(i64),
    /// This time since 1970, always.
    Stopped(i64),
}

/// Another wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShiftedClock {
    /// What commands see.
    pub shown: Shown,
    /// The true time, in seconds since 1970, from which on files count as made by the run.
    pub since: i64,
    /// Whether the times of such files are shifted as well; times before it are shown as they are.
    /// Programs look at files more often than at anything else, so it is quicker without.
    pub files: bool,
}

/// An order of names in directories: within each answer of the kernel, which holds about a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryOrder {
    /// The file system's, backwards.
    Backwards,
    /// By the bytes of names.
    Sorted,
}

/// How a root's commands see the world. The default hides nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disguise {
    /// The wall clock. The monotonic clocks are true.
    pub clock: Option<ShiftedClock>,
    /// The order in which directories are listed, instead of their file system's.
    pub directories: Option<DirectoryOrder>,
    /// Numbers that a file system makes up are others: inodes, sizes of directories, blocks.
    pub other_inodes: bool,
    /// Kernel release, boot id, time since boot, size of memory are others.
    pub other_kernel: bool,
    /// One processor, of another model.
    pub one_processor: bool,
    /// Programs are laid out at random addresses.
    pub random_addresses: bool,
    /// Random numbers follow from this number instead of being random.
    pub random_seed: Option<u64>,
    /// Variables come in reverse order.
    pub reverse_environment: bool,
    /// The file mode creation mask instead of 022.
    pub umask: Option<u32>,
    /// Another path at which `/build` stands too (without a leading slash).
    pub build_folder: Option<String>,
}

impl ShiftedClock {
    /// How much more than the truth it shows at a true time.
    pub(super) const fn ahead_at(self, truth: i64) -> i64 {
        match self.shown {
            Shown::Ahead(seconds) => seconds,
            Shown::Stopped(time) => time - truth,
        }
    }
}

impl Disguise {
    /// Whether system calls must be watched for it.
    pub(super) fn needs_tracing(&self) -> bool {
        self.clock.is_some()
            || self.directories.is_some()
            || self.other_inodes
            || self.other_kernel
            || self.random_seed.is_some()
    }
}
