//! Init's watch over what the processes of its namespace use together.

use std::time::{Duration, Instant};

use super::super::request::Ending;
use super::super::resources::{Limit, Resources};
use super::processes::Processes;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// Directories in memory that commands can write to.
const IN_MEMORY: [&str; 3] = ["/tmp", "/dev/shm", "/build"];
/// The file system type of a tmpfs (statfs(2)).
const TMPFS: u64 = 0x0102_1994;

/// What is watched of one command.
pub(super) struct Watch {
    limits: Resources,
    /// Processor time that earlier commands took.
    before: Duration,
    next: Instant,
}

impl Watch {
    /// A watch from now on; `None` when nothing is limited.
    pub(super) fn new(limits: Resources) -> Option<Self> {
        let watched =
            limits.memory.is_some() || limits.processes.is_some() || limits.cpu_time.is_some();
        watched.then(|| Self { limits, before: of_children(), next: Instant::now() + INTERVAL })
    }

    /// How long to wait for the next look.
    pub(super) fn timeout(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Looks, if it is time to; the limit that is exceeded.
    pub(super) fn look(&mut self, processes: &Processes) -> Option<Ending> {
        if Instant::now() < self.next {
            return None;
        }
        let exceeded = self.exceeded(processes);
        self.next = Instant::now() + INTERVAL;
        exceeded.map(Ending::Limit)
    }

    fn exceeded(&self, all: &Processes) -> Option<Limit> {
        let processes: Vec<Process> =
            all.list().into_iter().filter_map(|pid| Process::read(all, pid)).collect();
        let threads = || processes.iter().map(|process| process.threads).sum::<u64>();
        if self.limits.processes.is_some_and(|most| threads() >= u64::from(most)) {
            return Some(Limit::Processes);
        }
        if let Some(most) = self.limits.cpu_time {
            let running: Duration = processes.iter().map(|process| process.time).sum();
            if (running + of_children()).saturating_sub(self.before) > most {
                return Some(Limit::CpuTime);
            }
        }
        let most = self.limits.memory?;
        let files: u64 = IN_MEMORY.iter().map(|place| in_memory(place)).sum();
        // Counting shared pages for each who shares them is quick, and never too little.
        let at_most: u64 = processes.iter().map(|process| process.resident).sum();
        if at_most + files <= most {
            return None;
        }
        let really: u64 = processes.iter().map(|process| process.proportional(all)).sum();
        (really + files > most).then_some(Limit::Memory)
    }
}

/// One process of the namespace.
struct Process {
    pid: u32,
    threads: u64,
    /// Processor time of itself and of its children that have ended.
    time: Duration,
    /// Resident memory in bytes.
    resident: u64,
}

impl Process {
    fn read(all: &Processes, pid: u32) -> Option<Self> {
        let fields = all.status(pid)?;
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks: u64 = (14..=17).filter_map(field).sum();
        Some(Self {
            pid,
            threads: field(20)?,
            time: Duration::from_secs(ticks) / ticks_per_second(),
            resident: field(24)? * page_size(),
        })
    }

    /// Its share of the memory that it has mapped, files in memory excepted.
    fn proportional(&self, all: &Processes) -> u64 {
        let Some(text) = all.read(self.pid, "smaps_rollup") else { return self.resident };
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        match field("Pss:") {
            Some(all) => all.saturating_sub(field("Pss_Shmem:").unwrap_or(0)) * 1024,
            // It has ended, or has no memory left.
            None => 0,
        }
    }
}

/// Bytes of the files in a directory, if that is a tmpfs.
fn in_memory(place: &str) -> u64 {
    match rustix::fs::statfs(place) {
        #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
        Ok(stat) if stat.f_type as u64 == TMPFS => {
            (stat.f_blocks as u64 - stat.f_bfree as u64) * stat.f_bsize as u64
        }
        _ => 0,
    }
}

/// Processor time of all children of this process that have ended, and of theirs.
fn of_children() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is large enough, and zeroes are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let span = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    span(usage.ru_utime) + span(usage.ru_stime)
}

fn ticks_per_second() -> u32 {
    // SAFETY: the call takes a number only.
    u32::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })
        .ok()
        .filter(|it| *it > 0)
        .unwrap_or(100)
}

fn page_size() -> u64 {
    // SAFETY: the call takes a number only.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
        .ok()
        .filter(|it| *it > 0)
        .unwrap_or(4096)
}
