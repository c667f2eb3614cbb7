//! From a forked child of init to a confined command. This process has one thread, so it may do
//! anything a process may.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::BpfProgram;

use super::super::disguise::Disguise;
use super::super::request::{Command, Profile, RootRequest};
use super::super::resources::Resources;
use super::disguise;

/// Exactly what maintainer scripts may do inside their namespace.
const CONFIGURE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL);

/// The highest number that a capability can have.
const LAST_CAPABILITY: u32 = 63;

/// No limit.
const ALL: u64 = u64::MAX;
/// Limits as (resource, soft, hard), lowered to what the host allows; the same on every host that
/// allows them, since programs size tables by them. A core of one byte is none, and unlike a limit
/// of 0 it keeps the kernel from handing the core to a program of the host (core(5)).
const LIMITS: [(Resource, u64, u64); 15] = [
    (Resource::As, ALL, ALL),
    (Resource::Core, 1, 1),
    (Resource::Cpu, ALL, ALL),
    (Resource::Data, ALL, ALL),
    (Resource::Fsize, ALL, ALL),
    (Resource::Locks, ALL, ALL),
    (Resource::Memlock, 64 << 10, 8 << 20),
    (Resource::Msgqueue, 819_200, 819_200),
    (Resource::Nice, 0, 0),
    (Resource::Nofile, 1024, 4096),
    (Resource::Rss, ALL, ALL),
    (Resource::Rtprio, 0, 0),
    (Resource::Rttime, ALL, ALL),
    (Resource::Sigpending, 4096, 4096),
    (Resource::Stack, 8 << 20, 64 << 20),
];
/// Processes and threads where the command has no limit of its own.
const PROCESSES: u32 = 4096;

/// What failed on the way to the command.
pub(super) struct Stopped {
    pub(super) step: &'static str,
    pub(super) errno: i32,
}

/// Confines this process and becomes the command; returns only when that fails.
pub(super) fn become_command(
    command: &Command,
    request: &RootRequest,
    filters: &[&BpfProgram],
    output: (&OwnedFd, &OwnedFd),
    report: RawFd,
) -> Stopped {
    let fail = |step| move |error: Errno| Stopped { step, errno: super::errno(error) };
    let confined = (|| {
        let streams = (output.0.as_raw_fd(), output.1.as_raw_fd());
        set_streams(command.terminal, streams, report)?;
        let _ = rustix::process::setsid();
        if command.terminal {
            take_terminal()?;
        }
        reset_signals();
        let disguise = &request.disguise;
        rustix::process::umask(Mode::from_raw_mode(disguise.umask.unwrap_or(0o022)));
        set_limits(&command.resources);
        set_processors(command.resources.cpus);
        offer_to_the_killer();
        hide_group();
        if !disguise.random_addresses {
            fix_addresses();
        }
        disguise::prepare_process(disguise);
        rustix::process::chdir(&*command.directory).map_err(fail("entering the directory"))?;
        set_identity(command.owner, request.profile).map_err(fail("dropping privileges"))?;
        rustix::thread::set_no_new_privs(true).map_err(fail("no_new_privs"))
    })();
    if let Err(stopped) = confined {
        return stopped;
    }
    execute(command, &request.disguise, filters)
}

/// Standard streams and nothing else; `report` closes itself when the command starts.
fn set_streams(
    terminal: bool,
    (output, error): (RawFd, RawFd),
    report: RawFd,
) -> Result<(), Stopped> {
    let stopped = |errno: i32| Stopped { step: "setting up streams", errno };
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| stopped(super::errno(error)))?;
    let input = if terminal { output } else { null.as_raw_fd() };
    for (from, to) in [(input, 0), (output, 1), (error, 2)] {
        // SAFETY: both numbers are descriptors of this process.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(stopped(last_errno()));
        }
    }
    // Everything above is marked close-on-exec; what is not would be inherited.
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
    debug_assert!(report > 2);
    // SAFETY: the call marks descriptors of this process and touches no memory.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if marked < 0 {
        // Before Linux 5.11 there is no such flag. Every descriptor of ours is marked by itself.
        return Ok(());
    }
    Ok(())
}

/// Makes standard input the terminal of this new session, so that jobs can be controlled.
fn take_terminal() -> Result<(), Stopped> {
    // SAFETY: the request takes a number only.
    match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(Stopped { step: "taking the terminal", errno: last_errno() }),
    }
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// A command starts with default signal actions and nothing blocked.
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: resetting an action to the default runs no code here.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialised by the first call before the second reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

fn set_limits(resources: &Resources) {
    let processes = u64::from(resources.processes.unwrap_or(PROCESSES));
    for (resource, soft, hard) in
        LIMITS.into_iter().chain([(Resource::Nproc, processes, processes)])
    {
        let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(ALL);
        let hard = hard.min(allowed);
        let value = |limit: u64| (limit != ALL).then_some(limit);
        let limit = Rlimit { current: value(soft.min(hard)), maximum: value(hard) };
        // Lowering a limit is always allowed.
        let _ = rustix::process::setrlimit(resource, limit);
    }
}

/// Keeps to some of the processors, so that programs see and use no more.
fn set_processors(count: Option<u32>) {
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else { return };
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let all: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    if all.is_empty() {
        return;
    }
    // Commands that run at once should not all sit on the first one.
    let start = usize::try_from(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or(0);
    let mut chosen = rustix::thread::CpuSet::new();
    for step in 0..count.clamp(1, all.len()) {
        chosen.set(all[(start + step) % all.len()]);
    }
    // The limit spares the machine; without it the command is only quicker.
    let _ = rustix::thread::sched_setaffinity(None, &chosen);
}

/// When the host runs out of memory, builds go before anything else of it.
fn offer_to_the_killer() {
    // A host that forbids it is no worse off than before.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Makes the control group of the root the only one in sight.
fn hide_group() {
    // SAFETY: this process has one thread and shares no descriptor table.
    let _ = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) };
}

/// Where the kernel allows it, addresses are the same in every run.
fn fix_addresses() {
    const ADDR_NO_RANDOMIZE: libc::c_ulong = 0x0004_0000;
    // SAFETY: the call changes how later programs are laid out.
    unsafe { libc::personality(ADDR_NO_RANDOMIZE) };
}

fn set_identity(owner: (u32, u32), profile: Profile) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::thread::set_thread_groups(&[])?;
    let before = rustix::thread::capabilities(None)?.permitted;
    let kept = match profile {
        Profile::Configure => CONFIGURE,
        Profile::Recipe => CapabilitySet::empty(),
    };
    for number in 0..=LAST_CAPABILITY {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) {
            match rustix::thread::remove_capability_from_bounding_set(one) {
                // The kernel knows fewer.
                Ok(()) | Err(Errno::INVAL) => {}
                // Without namespaces, a container's root may lack this right. It gains none by
                // programs that it starts either (no_new_privs).
                Err(Errno::PERM) if !before.contains(CapabilitySet::SETPCAP) => {}
                Err(error) => return Err(error),
            }
        }
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // In a namespace, all that is kept was held.
    let kept = kept.intersection(before);
    let held = if uid.is_root() { kept } else { CapabilitySet::empty() };
    let none = CapabilitySet::empty();
    let _ = rustix::thread::clear_ambient_capability_set();
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

fn execute(command: &Command, disguise: &Disguise, filters: &[&BpfProgram]) -> Stopped {
    let text = |text: &str| {
        CString::new(text).map_err(|_| Stopped {
            step: "an argument or variable has a NUL byte",
            errno: libc::EINVAL,
        })
    };
    let prepared = (|| {
        let argv = command.argv.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;
        let mut env = command
            .env
            .iter()
            .map(|(name, value)| text(&format!("{name}={value}")))
            .collect::<Result<Vec<_>, _>>()?;
        if disguise.reverse_environment {
            env.reverse();
        }
        let programs =
            candidates(command).iter().map(|path| text(path)).collect::<Result<Vec<_>, _>>()?;
        Ok((argv, env, programs))
    })();
    let (argv, env, programs) = match prepared {
        Ok(prepared) => prepared,
        Err(stopped) => return stopped,
    };
    if filters.iter().any(|filter| seccompiler::apply_filter(filter).is_err()) {
        return Stopped { step: "seccomp", errno: last_errno() };
    }
    let pointers = |words: &[CString]| {
        words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<*const libc::c_char>>()
    };
    let (arguments, variables) = (pointers(&argv), pointers(&env));
    let mut errno = libc::ENOENT;
    for program in &programs {
        // SAFETY: the arrays end with null and point to strings that live until the call.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
        match last_errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            other => errno = other,
        }
    }
    Stopped { step: "executing it", errno }
}

/// Where the program may be: itself if it has a slash, else each directory of `PATH`.
fn candidates(command: &Command) -> Vec<String> {
    let Some(program) = command.argv.first() else { return Vec::new() };
    if program.contains('/') {
        return vec![program.clone()];
    }
    let path = command.env.get("PATH").map_or("", String::as_str);
    path.split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}
