//! What a command may use up, and how that is told when it has.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup;

/// The most processes and threads of a command when nothing else is asked for.
const PROCESSES: u32 = 4096;
/// The most that a command may write when nothing else is asked for, in bytes.
const DISK: u64 = 64 << 30;

/// The most that a command may use; `None` for no limit. None of it is part of an identity: a
/// command that is stopped makes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes of memory of all its processes, files in memory included.
    pub memory: Option<u64>,
    /// Bytes that its root grows by; each file counts as at least 4 KiB.
    pub disk: Option<u64>,
    /// Processes and threads that run at once.
    pub processes: Option<u32>,
    /// Processor time of all its processes together.
    pub cpu_time: Option<Duration>,
    /// Processors that it runs on.
    pub cpus: Option<u32>,
}

impl Resources {
    /// What holds where nobody asked for anything: nine tenths of this host's memory, 4096
    /// processes, 64 GiB of disk.
    pub fn usual() -> Self {
        Self {
            memory: cgroup::host_memory().map(|bytes| bytes / 10 * 9),
            disk: Some(DISK),
            processes: Some(PROCESSES),
            cpu_time: None,
            cpus: None,
        }
    }

    /// These limits, and where there is none the others'.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            memory: self.memory.or(others.memory),
            disk: self.disk.or(others.disk),
            processes: self.processes.or(others.processes),
            cpu_time: self.cpu_time.or(others.cpu_time),
            cpus: self.cpus.or(others.cpus),
        }
    }
}

/// A limit that a command can run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// How long it may run.
    Time,
    /// How long it may print nothing.
    Silence,
    /// [`Resources::memory`].
    Memory,
    /// [`Resources::disk`].
    Disk,
    /// [`Resources::processes`].
    Processes,
    /// [`Resources::cpu_time`].
    CpuTime,
}

impl Limit {
    /// The key in image.toml; with `--` before it, the option.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Time => "time-limit",
            Self::Silence => "silence-limit",
            Self::Memory => "memory-limit",
            Self::Disk => "disk-limit",
            Self::Processes => "process-limit",
            Self::CpuTime => "cpu-time-limit",
        }
    }

    /// What mends it in a recipe.
    pub fn mend(self) -> String {
        let key = self.key();
        match self {
            Self::Silence => format!(
                "nothing can be typed into a build; if it only needs longer, set the recipe's \
                 `{key}`, or build with --{key}"
            ),
            _ => format!("if it needs more, set the recipe's `{key}`, or build with --{key}"),
        }
    }

    /// What mends it elsewhere.
    pub fn option(self) -> String {
        format!("if it needs more, build with --{}", self.key())
    }

    /// What the command did.
    pub(super) const fn deed(self) -> &'static str {
        match self {
            Self::Time => "ran longer than its time limit",
            Self::Silence => "was silent for longer than its silence limit",
            Self::Memory => "used more memory than its memory limit",
            Self::Disk => "wrote more than its disk limit",
            Self::Processes => "had as many processes as its process limit",
            Self::CpuTime => "used more processor time than its limit",
        }
    }
}

/// Bytes as people write them: `512 MiB`.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return match tenths % 10 {
                    0 => write!(f, "{} {unit}", tenths / 10),
                    rest => write!(f, "{}.{rest} {unit}", tenths / 10),
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_comes_before_what_is_usual() {
        let asked = Resources { memory: Some(1), ..Resources::default() };
        let all = asked.or(Resources::usual());
        assert_eq!((all.memory, all.processes, all.cpus), (Some(1), Some(4096), None));
        assert!(Resources::usual().memory.is_none_or(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in
            [(12, "12 bytes"), (64 << 20, "64 MiB"), (1536 << 20, "1.5 GiB"), (1024, "1 KiB")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
