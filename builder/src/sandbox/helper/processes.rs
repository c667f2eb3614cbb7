//! The processes that commands have started, as init sees them.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::Pid;

use super::super::error::{At, Failure};

/// The processes below this one. A process that lost its parent must come to this one: as process 1
/// of its namespace, or by [`adopt_orphans`].
pub(super) struct Processes {
    proc: OwnedFd,
    /// Whether `/proc` has others too.
    among_others: bool,
}

impl Processes {
    /// All processes of a namespace that this one is the first of, once its `/proc` is mounted.
    pub(super) fn of_namespace() -> Result<Self, Failure> {
        Ok(Self { proc: open_proc()?, among_others: false })
    }

    /// The descendants of this process, orphans included, by the host's `/proc`.
    pub(super) fn of_descendants() -> Result<Self, Failure> {
        adopt_orphans();
        Ok(Self { proc: open_proc()?, among_others: true })
    }

    /// Their numbers.
    pub(super) fn list(&self) -> Vec<u32> {
        let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        let mut all: Vec<u32> = Vec::new();
        if let Ok(entries) = Dir::read_from(&self.proc) {
            let numbers =
                entries.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
            all.extend(numbers.filter(|&pid: &u32| pid != own));
        }
        if !self.among_others {
            return all;
        }
        let mut unknown: Vec<(u32, u32)> =
            all.into_iter().filter_map(|pid| Some((pid, self.parent(pid)?))).collect();
        let (mut found, mut before) = (vec![own], 0);
        while before < found.len() {
            before = found.len();
            unknown.retain(|(pid, parent)| {
                let is_ours = found.contains(parent);
                if is_ours {
                    found.push(*pid);
                }
                !is_ours
            });
        }
        found.split_off(1)
    }

    /// A file of `/proc/PID`; `None` when the process is gone.
    pub(super) fn read(&self, pid: u32, file: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("{pid}/{file}");
        let opened = rustix::fs::openat(self.proc.as_fd(), path, flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        std::fs::File::from(opened).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Fields of `/proc/PID/stat` from the third on (proc(5)): the second is a name that may hold
    /// anything.
    pub(super) fn status(&self, pid: u32) -> Option<Vec<String>> {
        let stat = self.read(pid, "stat")?;
        Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
    }

    fn parent(&self, pid: u32) -> Option<u32> {
        self.status(pid)?.get(1)?.parse().ok()
    }

    /// Kills them all; one that is being born meanwhile may escape, where there are others.
    pub(super) fn kill(&self) {
        if !self.among_others {
            // SAFETY: as process 1 of a namespace, -1 means everyone else in it.
            unsafe { libc::kill(-1, libc::SIGKILL) };
            return;
        }
        for pid in self.list() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Kills them all and waits until they are gone.
    pub(super) fn end(&self) {
        const PAUSE: Duration = Duration::from_millis(2);
        loop {
            self.kill();
            if !self.among_others {
                reap(0, |_, _| {});
                return;
            }
            if !reap(libc::WNOHANG, |_, _| {}) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Makes this process the parent of all descendants whose own parent ends (prctl(2)).
pub(in super::super) fn adopt_orphans() {
    // SAFETY: the call takes numbers only; Linux has it since 3.4.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

fn open_proc() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc", flags, Mode::empty()).at("open", "/proc")
}

/// Calls `each` for every child that has ended; whether there are children that have not.
pub(super) fn reap(flags: libc::c_int, mut each: impl FnMut(libc::pid_t, libc::c_int)) -> bool {
    loop {
        let mut status = 0;
        // SAFETY: the status is a valid place to write to.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        match pid {
            0 => return true,
            pid if pid > 0 => each(pid, status),
            _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            _ => return false,
        }
    }
}
