//! The spawner: starts the inits of one supervisor's roots.
//!
//! It is the process that enters a control group, once, and inits are born there. A move of each
//! would cost every root some 10 ms, in which the kernel lets nothing on the host fork. The
//! supervisor stays outside: what it copies and writes is no command's.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, Signal};
use seccompiler::BpfProgram;

use super::super::Isolation;
use super::super::error::{At, Failure};
use super::super::identity::ID_COUNT;
use super::super::messages::{Entrance, Started};
use super::super::request::RootRequest;
use super::super::wire::Connection;
use super::{filter, init};

/// The namespaces of an init. That of mounts follows, when its root is mounted.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// `CLONE_INTO_CGROUP` of clone3(2), since Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The supervisor's side.
pub(super) struct Spawner {
    connection: Connection,
    /// Whether an init was asked for that was not taken.
    is_asked: Cell<bool>,
}

/// An init that has not been told of its root yet.
pub(super) struct NewInit {
    connection: Connection,
    process: Pid,
}

impl Spawner {
    /// Starts a spawner in the mount namespace of this process, which must be its last one.
    pub(super) fn start(
        isolation: Isolation,
        entrance: Entrance,
        doors: Vec<OwnedFd>,
    ) -> Result<(Self, Started), Failure> {
        let filter = filter::compile(isolation)
            .map_err(|error| Failure::host(format!("no system call filter: {error}"), "", None))?;
        let group = doors.first().map(|door| door.as_raw_fd());
        let group = group.filter(|_| entrance == Entrance::Birth);
        // Each process closes its own; what runs in a root must have none.
        let doors = Cell::new(doors);
        let run = |is_born_inside: bool| {
            let (doors, filter) = (&doors, &filter);
            move |supervisor: &Connection| {
                let doors = doors.take();
                let enters = entrance == Entrance::Tasks;
                let entered = is_born_inside || (enters && enter(&doors).is_ok());
                drop(doors);
                match supervisor.send(&entered) {
                    Ok(()) => main(supervisor, isolation, filter),
                    Err(_) => 1,
                }
            }
        };
        let born = group.map(|group| clone(0, Some(group), run(true)));
        let (process, connection) = match born {
            Some(Ok(born)) => born,
            _ => clone(0, None, run(false)).at("start", "a spawner")?,
        };
        let answer = connection.receive::<bool>().at("hear from", "the spawner")?;
        let entered = answer.ok_or_else(gone)?.message;
        let process = process.as_raw_nonzero().get().unsigned_abs();
        let spawner = Self { connection, is_asked: Cell::new(false) };
        Ok((spawner, Started { process, entered }))
    }

    /// Asks for an init, unless one was asked for; meanwhile there is other work.
    pub(super) fn ask(&self) -> Result<(), Failure> {
        if !self.is_asked.get() {
            self.connection.send(&()).at("talk to", "the spawner")?;
            self.is_asked.set(true);
        }
        Ok(())
    }

    /// Takes the init that was asked for.
    pub(super) fn take(&self) -> Result<NewInit, Failure> {
        self.is_asked.set(false);
        let answer = self.connection.receive::<Result<i32, Failure>>();
        let frame = answer.at("hear from", "the spawner")?.ok_or_else(gone)?;
        let process = Pid::from_raw(frame.message?).ok_or_else(gone)?;
        let connection = frame.descriptors.into_iter().next().ok_or_else(gone)?;
        Ok(NewInit { connection: Connection::from(connection), process })
    }
}

impl NewInit {
    /// Has init enter a root, and waits until it is ready. The connection to it, its pid, and why
    /// its commands are not disguised.
    pub(super) fn enter(
        self,
        request: &RootRequest,
        root: &OwnedFd,
    ) -> Result<(Connection, Pid, Option<String>), Failure> {
        let Self { connection, process } = self;
        connection.send_with(request, &[], &[root.as_fd()]).at("talk to", "init")?;
        match connection.receive::<Result<_, Failure>>().at("hear from", "init")? {
            Some(frame) => frame.message.map(|undisguised| (connection, process, undisguised)),
            None => Err(Failure::host("init of the root ended while it was set up", "", None)),
        }
    }
}

fn gone() -> Failure {
    Failure::host("the spawner of a root is gone", "", None)
}

/// Enters control groups by their files `tasks`: 0 is who writes, and this process has one thread.
fn enter(doors: &[OwnedFd]) -> io::Result<()> {
    for door in doors {
        rustix::io::write(door, b"0")?;
    }
    Ok(())
}

/// Serves until the supervisor is gone.
fn main(supervisor: &Connection, isolation: Isolation, filter: &BpfProgram) -> i32 {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    while let Ok(Some(_)) = supervisor.receive::<()>() {
        let sent = match spawn(isolation, filter) {
            Ok((process, connection)) => {
                let process = process.as_raw_nonzero().get();
                supervisor.send_with(&Ok::<_, Failure>(process), &[], &[connection.as_fd()])
            }
            Err(failure) => supervisor.send(&Err::<i32, _>(failure)),
        };
        if sent.is_err() {
            return 1;
        }
    }
    0
}

/// Starts an init, a child of the supervisor, and maps its ids.
fn spawn(isolation: Isolation, filter: &BpfProgram) -> Result<(Pid, Connection), Failure> {
    let namespaces = match isolation {
        Isolation::Namespaces => NAMESPACES,
        Isolation::None => 0,
    };
    let run = |supervisor: &Connection| init::main(supervisor, isolation, filter);
    let (process, connection) = clone(libc::CLONE_PARENT | namespaces, None, run)
        .map_err(|error| Failure::namespace("a set of namespaces is refused", error))?;
    if isolation == Isolation::Namespaces {
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{file}", process.as_raw_nonzero());
            std::fs::write(&path, format!("0 0 {ID_COUNT}\n")).at("write", &path)?;
        }
    }
    connection.send(&()).at("talk to", "init")?;
    Ok((process, connection))
}

/// Forks a child that runs `main` to its end, born in a control group of version 2 if one is given;
/// its pid, and a connection to it.
fn clone(
    flags: libc::c_int,
    group: Option<RawFd>,
    main: impl FnOnce(&Connection) -> i32,
) -> io::Result<(Pid, Connection)> {
    let (connection, other) = Connection::pair()?;
    let flags = libc::SIGCHLD | flags;
    let pid = match group {
        // SAFETY: without a stack and CLONE_VM this is fork into new namespaces; this process has
        // one thread, so the child may do anything.
        None => unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) },
        Some(group) => {
            // SAFETY: the structure holds numbers only, for which zero is no value.
            let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
            arguments.flags = CLONE_INTO_CGROUP;
            arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
            arguments.cgroup = u64::from(group.unsigned_abs());
            let size = size_of::<libc::clone_args>();
            // SAFETY: as above; the structure is valid for its size.
            unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) }
        }
    };
    if pid == 0 {
        drop(connection);
        let status = main(&Connection::from(other));
        // SAFETY: the parent's state is not this process's to run down.
        unsafe { libc::_exit(status) };
    }
    let process = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    let Some(process) = process else { return Err(io::Error::last_os_error()) };
    Ok((process, connection))
}
