//! Init of a root: process 1 of its namespace. It starts commands, reaps every orphan, and when a
//! command has ended kills whatever that left running.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use seccompiler::BpfProgram;

use super::super::Isolation;
use super::super::error::{At, Failure};
use super::super::messages::{InitReply, InitRequest};
use super::super::request::{Command, Ending, RootRequest};
use super::super::wire::Connection;
use super::disguise::{self, Gate, Tracing};
use super::processes::{Processes, reap};
use super::watch::Watch;
use super::{bare, confine, mounts, network};

/// Gets ready, sets the root up when the supervisor has mounted it, and serves until that is gone.
pub(super) fn main(supervisor: &Connection, isolation: Isolation, filter: &BpfProgram) -> i32 {
    // The ids are mapped now.
    if !matches!(supervisor.receive::<()>(), Ok(Some(_))) {
        return 1;
    }
    let got_ready = match isolation {
        Isolation::Namespaces => get_ready(),
        Isolation::None => Ok(()),
    };
    let Ok(Some(frame)) = supervisor.receive::<RootRequest>() else { return 1 };
    let request = &frame.message;
    let Some(root) = frame.descriptors.into_iter().next() else { return 1 };
    let entered = got_ready.and_then(|()| rustix::process::fchdir(&root).at("enter", "the root"));
    // Nothing that runs here may have a way out.
    drop(root);
    let set_up = entered.and_then(|()| match isolation {
        Isolation::Namespaces => set_up(request),
        Isolation::None => set_up_bare(request),
    });
    let (ready, prepared) = match set_up.and_then(|done| Ok((done, signals()?))) {
        Ok(((traced, processes), signals)) => {
            let (problem, tracing) = match traced {
                Traced::Refused(problem) => (Some(problem), None),
                Traced::Yes(tracing) => (None, Some(tracing)),
                Traced::No => (None, None),
            };
            (Ok(problem), Some((tracing, processes, signals)))
        }
        Err(failure) => (Err(failure), None),
    };
    if supervisor.send::<Result<Option<String>, Failure>>(&ready).is_err() {
        return 1;
    }
    let Some((tracing, processes, signals)) = prepared else { return 1 };
    let init = Init { supervisor, request, filter, signals, processes, tracing };
    while let Ok(Some(frame)) = supervisor.receive::<InitRequest>() {
        // An order to kill may cross the end of the command that it means.
        let InitRequest::Start(command) = frame.message else { continue };
        let mut streams = frame.descriptors.into_iter();
        let (Some(output), Some(error)) = (streams.next(), streams.next()) else { return 1 };
        let Some(reply) = init.run(&command, &output, &error) else { return 1 };
        drop((output, error));
        if supervisor.send(&reply).is_err() {
            return 1;
        }
    }
    0
}

/// Whether commands are traced.
enum Traced {
    No,
    Yes(Tracing),
    /// They should be, and this host does not allow it.
    Refused(String),
}

/// Enters a root that has nothing mounted.
fn set_up_bare(request: &RootRequest) -> Result<(Traced, Processes), Failure> {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::setsid();
    let processes = Processes::of_descendants()?;
    bare::enter_root()?;
    let traced = match request.disguise.needs_tracing() {
        true => Traced::Refused("there is no sandbox".to_owned()),
        false => Traced::No,
    };
    Ok((traced, processes))
}

fn refused(what: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |error| Failure::host(format!("{what} is refused"), "", Some(error.into()))
}

/// What is the same for every root.
fn get_ready() -> Result<(), Failure> {
    let (root, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group).map_err(refused("becoming root"))?;
    rustix::thread::set_thread_res_uid(root, root, root).map_err(refused("becoming root"))?;
    // After the change of ids, which clears it. When the supervisor dies, so does all in here.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::setsid();
    network::bring_loopback_up()
}

/// Makes the working directory, which the supervisor has mounted, the root of this process.
fn set_up(request: &RootRequest) -> Result<(Traced, Processes), Failure> {
    rustix::system::sethostname(request.hostname.as_bytes())
        .map_err(refused("setting the host name"))?;
    mounts::unshare().map_err(|(what, error)| refused(what)(error))?;
    mounts::mount_proc()?;
    mounts::enter_root()?;
    let processes = Processes::of_namespace()?;
    let traced = match request.disguise.needs_tracing() {
        true => start_tracing(request, &processes),
        false => Traced::No,
    };
    if let Some(base) = request.pid_base {
        std::fs::write("/proc/sys/kernel/ns_last_pid", base.to_string())
            .map_err(|error| Failure::io("write", "/proc/sys/kernel/ns_last_pid", &error))?;
    }
    mounts::cover_proc()?;
    disguise::cover(&request.disguise)?;
    // Commands run as the same user; they must not reach into this process through /proc.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    Ok((traced, processes))
}

fn start_tracing(request: &RootRequest, processes: &Processes) -> Traced {
    let tracing = Tracing::new(&request.disguise);
    let attempt = tracing.attempt();
    processes.end();
    match attempt {
        Ok(()) => Traced::Yes(tracing),
        Err(error) => Traced::Refused(error.to_string()),
    }
}

/// A descriptor that is readable when a child has ended.
fn signals() -> Result<OwnedFd, Failure> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialised by the first call; the descriptor is checked before use.
    let descriptor = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Failure::host("signalfd is refused", "", Some(error)));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

struct Init<'a> {
    supervisor: &'a Connection,
    request: &'a RootRequest,
    filter: &'a BpfProgram,
    signals: OwnedFd,
    processes: Processes,
    tracing: Option<Tracing>,
}

impl Init<'_> {
    /// Runs a command; `None` when the supervisor is gone.
    fn run(&self, command: &Command, output: &OwnedFd, error: &OwnedFd) -> Option<InitReply> {
        let not_started =
            |step: &str, errno: i32| Some(InitReply::NotStarted { step: step.to_owned(), errno });
        let gate = match self.tracing.as_ref().map(Tracing::start).transpose() {
            Ok(gate) => gate,
            Err(error) => {
                return not_started("tracing", error.raw_os_error().unwrap_or(libc::EAGAIN));
            }
        };
        let Ok((report, report_end)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        else {
            return not_started("a pipe", libc::EMFILE);
        };
        // SAFETY: this process has one thread, so the child may do anything.
        let child = unsafe { libc::fork() };
        if child < 0 {
            let error = std::io::Error::last_os_error();
            return not_started("fork", error.raw_os_error().unwrap_or(libc::EAGAIN));
        }
        if child == 0 {
            drop(report);
            self.child(command, (output, error), report_end, gate);
        }
        drop((report_end, gate));
        let (status, exceeded) = self.wait(child, Watch::new(command.resources))?;
        self.processes.end();
        let mut said = Vec::new();
        let _ = std::fs::File::from(report).read_to_end(&mut said);
        match said.split_first_chunk::<4>() {
            Some((errno, step)) => {
                not_started(&String::from_utf8_lossy(step), i32::from_le_bytes(*errno))
            }
            None => Some(InitReply::Ended(exceeded.unwrap_or_else(|| ending(status)))),
        }
    }

    fn child(
        &self,
        command: &Command,
        streams: (&OwnedFd, &OwnedFd),
        report: OwnedFd,
        gate: Option<Gate>,
    ) -> ! {
        let passed = gate.as_ref().map_or(Ok(()), Gate::pass);
        let tracing = self.tracing.as_ref().map(Tracing::filter);
        let filters: Vec<&BpfProgram> = tracing.into_iter().chain([self.filter]).collect();
        let stopped = match passed {
            Ok(()) => confine::become_command(
                command,
                self.request,
                &filters,
                streams,
                report.as_raw_fd(),
            ),
            Err(errno) => confine::Stopped { step: "tracing", errno },
        };
        let message = [&stopped.errno.to_le_bytes(), stopped.step.as_bytes()].concat();
        let _ = std::fs::File::from(report).write_all(&message);
        // SAFETY: nothing of the parent's state may be run down here.
        unsafe { libc::_exit(127) }
    }

    /// Waits for the command, reaping orphans and obeying orders to kill; its status, and the
    /// limit that it ran into.
    fn wait(
        &self,
        child: libc::pid_t,
        mut watch: Option<Watch>,
    ) -> Option<(libc::c_int, Option<Ending>)> {
        let mut exceeded = None;
        loop {
            let mut drained = [0; 1024];
            while rustix::io::read(&self.signals, &mut drained).is_ok() {}
            let mut found = None;
            reap(libc::WNOHANG, |pid, status| {
                if pid == child {
                    found = Some(status);
                }
            });
            if let Some(status) = found {
                return Some((status, exceeded));
            }
            if let Some(ending) = watch.as_mut().and_then(|watch| watch.look(&self.processes)) {
                exceeded = Some(ending);
                watch = None;
                self.processes.kill();
            }
            let mut polled = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::from_borrowed_fd(self.supervisor.as_fd(), PollFlags::IN),
            ];
            let timeout = watch.as_ref().and_then(|watch| watch.timeout().try_into().ok());
            let _ = rustix::event::poll(&mut polled, timeout.as_ref());
            if !polled[1].revents().is_empty() {
                self.supervisor.receive::<InitRequest>().ok().flatten()?;
                self.processes.kill();
            }
        }
    }
}

fn ending(status: libc::c_int) -> Ending {
    if libc::WIFSIGNALED(status) {
        return Ending::Signal(libc::WTERMSIG(status));
    }
    Ending::Exit(libc::WEXITSTATUS(status))
}
