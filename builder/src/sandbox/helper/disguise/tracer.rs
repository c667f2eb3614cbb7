//! The process that follows a command and corrects what the kernel tells it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid};
use seccompiler::BpfProgram;

use super::super::super::disguise::{Disguise, Shown};
use super::answer::{self, Changed};
use super::calls::Call;
use super::vector;

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_EXITKILL;

/// A stop that tells about a system call, and not about a signal.
const CALL_STOP: libc::c_int = libc::SIGTRAP | 0x80;
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;

/// `struct ptrace_syscall_info` of the kernel, which is the same on every architecture.
#[repr(C)]
#[derive(Default)]
struct CallInfo {
    operation: u8,
    padding: [u8; 3],
    architecture: u32,
    instruction: u64,
    stack: u64,
    /// At a filter's stop: number, six arguments, the filter's data. At an exit: result, whether
    /// that is an error.
    data: [u64; 8],
}

/// How the commands of a root are traced.
pub(in super::super) struct Tracing {
    disguise: Disguise,
    filter: BpfProgram,
    /// The last process number that was given away, to be set by writing.
    numbers: Option<File>,
}

impl Tracing {
    /// Prepares; called by init while it may still set process numbers.
    pub(in super::super) fn new(disguise: &Disguise) -> Self {
        let path = "/proc/sys/kernel/ns_last_pid";
        let numbers = File::options().read(true).write(true).open(path).ok();
        Self { disguise: disguise.clone(), filter: super::compile(disguise), numbers }
    }

    /// The filter that the traced command installs.
    pub(in super::super) const fn filter(&self) -> &BpfProgram {
        &self.filter
    }

    /// Starts a tracer, which waits for the process that passes the gate. Its number is far above
    /// the others, so commands have the numbers that they have without it.
    pub(in super::super) fn start(&self) -> std::io::Result<Gate> {
        let (task, task_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (gate, gate_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let last = self.take_high_number();
        // SAFETY: init has one thread, so the child may do anything.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop((task_end, gate));
            trace(&self.disguise, task, gate_end);
            // SAFETY: nothing of the parent's state may be run down here.
            unsafe { libc::_exit(0) }
        }
        if let (Some(last), Some(numbers)) = (last, &self.numbers) {
            let _ = numbers.write_at(last.as_bytes(), 0);
        }
        if child < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Gate { task: task_end, gate })
    }

    fn take_high_number(&self) -> Option<String> {
        let numbers = self.numbers.as_ref()?;
        let mut buffer = [0; 32];
        let count = numbers.read_at(&mut buffer, 0).ok()?;
        let last = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
        let most: u32 =
            std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
        numbers.write_at(most.saturating_sub(2).to_string().as_bytes(), 0).ok()?;
        Some(last)
    }

    /// Whether this host lets one process follow another, tried with a real one.
    pub(in super::super) fn attempt(&self) -> std::io::Result<()> {
        let gate = self.start()?;
        let last = self.numbers.as_ref().and_then(|numbers| {
            let mut buffer = [0; 32];
            let count = numbers.read_at(&mut buffer, 0).ok()?;
            Some(buffer[..count].to_vec())
        });
        // SAFETY: as above.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let status = self.try_out(&gate);
            // SAFETY: as above.
            unsafe { libc::_exit(status) }
        }
        drop(gate);
        let mut status = 0;
        // SAFETY: the status is a valid place to write to. The tracer ends with the process that
        // it follows, and is awaited with the orphans.
        while child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {}
        if let (Some(last), Some(numbers)) = (last, &self.numbers) {
            let _ = numbers.write_at(&last, 0);
        }
        match libc::WIFEXITED(status) {
            true if libc::WEXITSTATUS(status) == 0 => Ok(()),
            true => Err(std::io::Error::from_raw_os_error(libc::WEXITSTATUS(status))),
            false => Err(std::io::Error::from_raw_os_error(libc::EPERM)),
        }
    }

    /// The exit status is an error number.
    fn try_out(&self, gate: &Gate) -> libc::c_int {
        if let Err(errno) = gate.pass() {
            return errno;
        }
        if rustix::thread::set_no_new_privs(true).is_err()
            || seccompiler::apply_filter(&self.filter).is_err()
        {
            return libc::EINVAL;
        }
        let Some(clock) = self.disguise.clock else { return 0 };
        let mut seen = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is a valid place to write to.
        let result =
            unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut seen) };
        let is_shown = result == 0
            && match clock.shown {
                Shown::Ahead(ahead) => seen.tv_sec >= clock.since + ahead - 86400,
                Shown::Stopped(time) => seen.tv_sec == time,
            };
        if is_shown { 0 } else { libc::ENOSYS }
    }
}

/// What a process passes to be followed from then on.
pub(in super::super) struct Gate {
    task: OwnedFd,
    gate: OwnedFd,
}

impl Gate {
    /// Waits until the tracer follows this process; the error number when it may not.
    pub(in super::super) fn pass(&self) -> Result<(), i32> {
        // A process that hides its memory is not to be followed; init's children are born so.
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let failed = |error: rustix::io::Errno| error.raw_os_error();
        rustix::io::write(&self.task, &own.to_ne_bytes()).map_err(failed)?;
        let mut errno = [0; 4];
        match rustix::io::read(&self.gate, &mut errno).map_err(failed)? {
            4 if errno == [0; 4] => Ok(()),
            4 => Err(i32::from_ne_bytes(errno)),
            _ => Err(libc::ESRCH),
        }
    }
}

/// The tracer's life.
fn trace(disguise: &Disguise, task: OwnedFd, gate: OwnedFd) {
    let mut number = [0; 4];
    if File::from(task).read_exact(&mut number).is_err() {
        return;
    }
    let Some(pid) = Pid::from_raw(i32::from_ne_bytes(number)) else { return };
    let seized = ptrace(libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize);
    let errno = match seized {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM),
    };
    if File::from(gate).write_all(&errno.to_ne_bytes()).is_err() || errno != 0 {
        return;
    }
    let tracer = Tracer { disguise, pending: HashMap::new(), drawn: HashMap::new() };
    tracer.run();
}

/// A call that is under way.
struct Pending {
    call: Call,
    arguments: [u64; 6],
    changed: Changed,
}

struct Tracer<'a> {
    disguise: &'a Disguise,
    pending: HashMap<Pid, Pending>,
    /// How many random words each thread has drawn.
    drawn: HashMap<Pid, u64>,
}

impl Tracer<'_> {
    /// Follows until nobody is left.
    fn run(mut self) {
        loop {
            let mut status = 0;
            // SAFETY: the status is a valid place to write to.
            let raw = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
            let Some(pid) = (raw > 0).then(|| Pid::from_raw(raw)).flatten() else {
                let error = std::io::Error::last_os_error();
                if error.kind() == std::io::ErrorKind::Interrupted {
                    continue;
                }
                return;
            };
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            } else {
                self.pending.remove(&pid);
                self.drawn.remove(&pid);
            }
        }
    }

    fn stopped(&mut self, pid: Pid, signal: libc::c_int, event: libc::c_int) {
        match (event, signal) {
            (libc::PTRACE_EVENT_SECCOMP, _) => self.enter(pid),
            (libc::PTRACE_EVENT_EXEC, _) => {
                self.pending.remove(&pid);
                self.started(pid);
                resume(libc::PTRACE_CONT, pid, 0);
            }
            // Stopped as a whole: it stays so until somebody continues it.
            (
                libc::PTRACE_EVENT_STOP,
                libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU,
            ) => resume(libc::PTRACE_LISTEN, pid, 0),
            (0, CALL_STOP) => {
                self.leave(pid);
                resume(libc::PTRACE_CONT, pid, 0);
            }
            (0, signal) => resume(libc::PTRACE_CONT, pid, signal),
            // Births, and the first stop of who was born.
            _ => resume(libc::PTRACE_CONT, pid, 0),
        }
    }

    /// A program was loaded.
    fn started(&mut self, pid: Pid) {
        let Some(info) = info(pid) else { return };
        let random = self.disguise.random_seed.map(|seed| {
            let mut bytes = [0; 16];
            answer::fill(&mut bytes, seed, self.drawn.entry(pid).or_default());
            bytes
        });
        vector::disguise(pid, info.stack, random);
    }

    /// A call of interest begins.
    fn enter(&mut self, pid: Pid) {
        let found = info(pid).and_then(|info| {
            let [_, arguments @ .., data] = info.data;
            Some((Call::from_number(data & 0xffff)?, arguments))
        });
        let Some((call, arguments)) = found else { return resume(libc::PTRACE_CONT, pid, 0) };
        let changed = answer::before(self.disguise, pid, call, arguments);
        let only_asks = matches!(
            call,
            Call::Utimensat
                | Call::Utimes
                | Call::Futimesat
                | Call::Utime
                | Call::SleepUntil
                | Call::FutexUntil
                | Call::TimerUntil
        );
        if only_asks && changed.is_none() {
            return resume(libc::PTRACE_CONT, pid, 0);
        }
        self.pending.insert(pid, Pending { call, arguments, changed });
        resume(libc::PTRACE_SYSCALL, pid, 0);
    }

    /// A call of interest has ended.
    fn leave(&mut self, pid: Pid) {
        let Some(Pending { call, arguments, changed }) = self.pending.remove(&pid) else { return };
        if let Some((address, bytes)) = changed {
            super::memory::write(pid, address, &bytes);
        }
        let Some(info) = info(pid) else { return };
        let is_error = info.data[1] & 0xff != 0;
        if is_error {
            return;
        }
        let drawn = self.drawn.entry(pid).or_default();
        let result = info.data[0].cast_signed();
        if let Some(result) = answer::after(self.disguise, pid, call, arguments, result, drawn) {
            set_result(pid, result);
        }
    }
}

fn info(pid: Pid) -> Option<CallInfo> {
    let mut info = CallInfo::default();
    let size = size_of::<CallInfo>();
    let got = ptrace(GET_SYSCALL_INFO, pid, size, (&raw mut info).addr());
    (got > 0).then_some(info)
}

/// Only x86-64 has a call whose answer is its result.
#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, result: i64) {
    const RESULT: usize = std::mem::offset_of!(libc::user_regs_struct, rax);
    ptrace(libc::PTRACE_POKEUSER, pid, RESULT, result.cast_unsigned() as usize);
}

#[cfg(not(target_arch = "x86_64"))]
fn set_result(_: Pid, _: i64) {}

/// Lets a process go on. One that was killed meanwhile is beyond that, and its end is told.
fn resume(how: libc::c_uint, pid: Pid, signal: libc::c_int) {
    ptrace(how, pid, 0, signal.unsigned_abs() as usize);
}

fn ptrace(request: libc::c_uint, pid: Pid, address: usize, data: usize) -> libc::c_long {
    // SAFETY: addresses are those of the tracee, or (for an answer) of a value that lives on the
    // caller's stack with the size that is given.
    unsafe { libc::ptrace(request as _, pid.as_raw_nonzero().get(), address, data) }
}
