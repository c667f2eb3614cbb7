//! The supervisor of one root: makes its mounts, starts its init, works on its files.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use super::super::Isolation;
use super::super::error::{At, Failure};
use super::super::identity::ID_COUNT;
use super::super::messages::{Opened, RootOperation};
use super::super::request::{RootRequest, Storage};
use super::super::wire::Connection;
use super::bare::{self, Covered};
use super::disk::DiskWatch;
use super::processes::Processes;
use super::snapshot::Snapshot;
use super::{execute, files, filter, init, mounts, overlay, terminal};

/// Serves one root until its connection closes.
pub(super) fn main(caller: Connection, isolation: Isolation) -> i32 {
    let session = rustix::process::getppid();
    if !die_with(session) {
        return 1;
    }
    let Ok(Some(frame)) = caller.receive::<RootRequest>() else { return 1 };
    match Supervisor::open(&frame.message, session, isolation) {
        Ok((mut supervisor, opened)) => {
            if caller.send(&Ok::<_, Failure>(opened)).is_ok() {
                supervisor.serve(&caller);
            }
            0
        }
        Err(failure) => {
            let _ = caller.send(&Err::<Opened, _>(failure));
            1
        }
    }
}

/// An open root.
pub(super) struct Supervisor {
    /// The root as seen from outside its namespaces.
    root: OwnedFd,
    pub(super) init: Connection,
    process: Pid,
    snapshot: Snapshot,
    storage: Storage,
    /// What is covered, where nothing is mounted.
    bare: Option<Bare>,
    /// The inner end of the terminal of the next command.
    pub(super) terminal: Option<OwnedFd>,
}

/// What a root without namespaces needs to be closed.
struct Bare {
    covered: Covered,
    descendants: Processes,
}

impl Supervisor {
    fn open(
        request: &RootRequest,
        session: Option<Pid>,
        isolation: Isolation,
    ) -> Result<(Self, Opened), Failure> {
        let filter = filter::compile(isolation)
            .map_err(|error| Failure::host(format!("no system call filter: {error}"), "", None))?;
        let (root, upper, mut opened, bare) = match isolation {
            Isolation::Namespaces => {
                let (root, upper, opened) = mount(request, session)?;
                (root, upper, opened, None)
            }
            Isolation::None => {
                let descendants = Processes::of_descendants()?;
                let (root, upper, opened) = bare::copy_root(request)?;
                let covered = Covered::furnish(&root, request)?;
                (root, upper, opened, Some(Bare { covered, descendants }))
            }
        };
        // Init inherits the working directory, and needs no way to it.
        rustix::process::fchdir(&root).at("enter", &request.work)?;
        let (init, process, undisguised) = start_init(request, isolation, &filter)?;
        opened.undisguised = undisguised;
        opened.init = process.as_raw_nonzero().get().unsigned_abs();
        rustix::process::chdir("/").at("enter", "/")?;
        let (storage, lower) = (opened.storage, request.lower.clone());
        let covered = bare.as_ref().map_or_else(Vec::new, |bare| bare.covered.paths().to_vec());
        let snapshot = Snapshot::take(upper, lower, storage, covered)?;
        Ok((Self { root, init, process, snapshot, storage, bare, terminal: None }, opened))
    }

    fn serve(&mut self, caller: &Connection) {
        while let Ok(Some(frame)) = caller.receive::<RootOperation>() {
            let log = frame.descriptors.into_iter().next();
            let sent = match frame.message {
                RootOperation::Execute(command) => match execute::run(self, caller, command, log) {
                    Ok((executed, bytes)) => {
                        caller.send_with(&Ok::<_, Failure>(executed), &bytes, &[])
                    }
                    Err(execute::Stop::Failure(failure)) => caller.send(&Err::<(), _>(failure)),
                    Err(execute::Stop::CallerGone) => break,
                },
                RootOperation::Read { path } => self.read(caller, &path),
                RootOperation::Write { path, mode, owner } => {
                    caller.send(&files::write(&self.root, &path, &frame.bytes, mode, owner))
                }
                RootOperation::List { path } => caller.send(&files::list(&self.root, &path)),
                RootOperation::Look { path } => caller.send(&files::look(&self.root, &path)),
                RootOperation::MakeDirectory { path, mode, owner } => {
                    caller.send(&files::make_directory(&self.root, &path, mode, owner))
                }
                RootOperation::MakeSymlink { path, target, owner } => {
                    caller.send(&files::make_symlink(&self.root, &path, &target, owner))
                }
                RootOperation::SetAttributes { path, mode, owner } => {
                    caller.send(&files::set_attributes(&self.root, &path, mode, owner))
                }
                RootOperation::Rename { from, to } => {
                    caller.send(&files::rename(&self.root, &from, &to))
                }
                RootOperation::Delete { path } => caller.send(&files::delete(&self.root, &path)),
                RootOperation::Changed => caller.send(&self.snapshot.changes()),
                RootOperation::OpenTerminal { size, owner } => {
                    match terminal::open(&self.root, size, owner) {
                        Ok((outer, inner)) => {
                            self.terminal = Some(inner);
                            caller.send_with(&Ok::<_, Failure>(()), &[], &[outer.as_fd()])
                        }
                        Err(failure) => caller.send(&Err::<(), _>(failure)),
                    }
                }
                RootOperation::Close => {
                    let _ = caller.send(&self.close());
                    return;
                }
            };
            if sent.is_err() {
                break;
            }
        }
        // Nobody is there to be told.
        let _ = self.close();
    }

    fn read(&self, caller: &Connection, path: &str) -> io::Result<()> {
        match files::open(&self.root, path) {
            Ok(Some(file)) => caller.send_with(&Ok::<_, Failure>(true), &[], &[file.as_fd()]),
            Ok(None) => caller.send(&Ok::<_, Failure>(false)),
            Err(failure) => caller.send(&Err::<bool, _>(failure)),
        }
    }

    /// Watches what the root grows by.
    pub(super) fn watch_disk(&self, limit: u64) -> Result<DiskWatch, Failure> {
        DiskWatch::start(self.snapshot.upper(), limit, self.storage)
    }

    /// Ends init and with it everything in its process namespace.
    fn close(&self) -> Result<(), Failure> {
        let _ = rustix::process::kill_process(self.process, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.process), WaitOptions::empty());
        if let Some(bare) = &self.bare {
            bare.descendants.end();
            return bare.covered.restore();
        }
        let _ = rustix::mount::unmount(super::descriptor_path(&self.root), UnmountFlags::DETACH);
        Ok(())
    }
}

/// Mounts a root and all that it has besides its trees; the root, the upper directory, and how
/// changes are kept.
fn mount(
    request: &RootRequest,
    session: Option<Pid>,
) -> Result<(OwnedFd, OwnedFd, Opened), Failure> {
    // SAFETY: this process has one thread and shares no descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|error| Failure::host("a mount namespace", "", Some(error.into())))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at("make private", "/")?;
    let mounted = overlay::mount_root(request)?;
    // Looking at files as the caller took the wish back, as every change of ids does.
    if !die_with(session) {
        return Err(Failure::host("the session is gone", "", None));
    }
    mounts::furnish(&mounted.0, request)?;
    Ok(mounted)
}

/// Asks the kernel to kill this process with its parent; `false` when that is already gone. The
/// thread of the session that started this process waits for it, so it lives as long.
fn die_with(parent: Option<Pid>) -> bool {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    rustix::process::getppid() == parent
}

/// Starts init in new namespaces and waits until it is ready.
fn start_init(
    request: &RootRequest,
    isolation: Isolation,
    filter: &seccompiler::BpfProgram,
) -> Result<(Connection, Pid, Option<String>), Failure> {
    let (init, other) = Connection::pair().at("make a connection for", "init")?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let flags = libc::SIGCHLD
        | match isolation {
            Isolation::Namespaces => namespaces,
            Isolation::None => 0,
        };
    // SAFETY: without a stack and CLONE_VM this is fork into new namespaces; this process has one
    // thread, so the child may do anything.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        drop(init);
        let status = init::main(&Connection::from(other), request, isolation, filter);
        // SAFETY: the supervisor's state is not this process's to run down.
        unsafe { libc::_exit(status) };
    }
    drop(other);
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(process) = process.filter(|_| pid > 0) else {
        let error = io::Error::last_os_error();
        return Err(Failure::namespace("a set of namespaces is refused", error));
    };
    let maps: &[&str] = match isolation {
        Isolation::Namespaces => &["uid_map", "gid_map"],
        Isolation::None => &[],
    };
    for file in maps {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, format!("0 0 {ID_COUNT}\n")).at("write", &path)?;
    }
    init.send(&()).at("talk to", "init")?;
    match init.receive::<Result<Option<String>, Failure>>().at("hear from", "init")? {
        Some(frame) => frame.message.map(|undisguised| (init, process, undisguised)),
        None => Err(Failure::host("init of the root ended while it was set up", "", None)),
    }
}
