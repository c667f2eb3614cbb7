//! The supervisor of a root: makes its mounts, has its init started, works on its files.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::super::Isolation;
use super::super::error::Failure;
use super::super::messages::{Entrance, Opened, RootOperation, Started};
use super::super::request::{RootRequest, Storage};
use super::super::wire::{Connection, Frame};
use super::bare::{self, Covered};
use super::disk::DiskWatch;
use super::processes::Processes;
use super::snapshot::Snapshot;
use super::spawner::Spawner;
use super::{execute, files, mounts, overlay, terminal};

/// Serves one root after another, until the connection closes.
pub(super) fn main(caller: Connection, isolation: Isolation) -> i32 {
    let session = rustix::process::getppid();
    if !die_with(session) {
        return 1;
    }
    let Ok(Some(frame)) = caller.receive::<Entrance>() else { return 1 };
    let is_wanted = frame.message != Entrance::None;
    let (spawner, started) = match start_spawner(isolation, frame) {
        Ok(started) => started,
        Err(failure) => {
            let _ = caller.send(&Err::<Started, _>(failure));
            return 1;
        }
    };
    // Inits that are born before the spawner is moved would be outside.
    let is_settled = started.entered || !is_wanted;
    if caller.send(&Ok::<_, Failure>(started)).is_err() {
        return 1;
    }
    if is_settled {
        // There will be a first root, whatever it is. What fails here fails again then.
        let _ = spawner.ask();
    }
    while let Ok(Some(frame)) = caller.receive::<RootRequest>() {
        let (mut supervisor, opened) =
            match Supervisor::open(&frame.message, session, isolation, &spawner) {
                Ok(opened) => opened,
                Err(failure) => {
                    let _ = caller.send(&Err::<Opened, _>(failure));
                    return 1;
                }
            };
        let is_asked = caller.send(&Ok::<_, Failure>(opened)).is_ok() && supervisor.serve(&caller);
        let closed = supervisor.close();
        // Whoever hears that the root is closed may use its directories again.
        drop(supervisor);
        if !is_asked || caller.send(&closed).is_err() || isolation == Isolation::None {
            return 0;
        }
    }
    0
}

fn start_spawner(
    isolation: Isolation,
    frame: Frame<Entrance>,
) -> Result<(Spawner, Started), Failure> {
    if isolation == Isolation::Namespaces {
        mounts::unshare().map_err(|(what, error)| {
            Failure::host(format!("{what} is refused"), "", Some(error.into()))
        })?;
    }
    Spawner::start(isolation, frame.message, frame.descriptors)
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
        spawner: &Spawner,
    ) -> Result<(Self, Opened), Failure> {
        spawner.ask()?;
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
        let (init, process, undisguised) = spawner.take()?.enter(request, &root)?;
        opened.undisguised = undisguised;
        let (storage, lower) = (opened.storage, request.lower.clone());
        let covered = bare.as_ref().map_or_else(Vec::new, |bare| bare.covered.paths().to_vec());
        let snapshot = Snapshot::take(upper, lower, storage, covered)?;
        Ok((Self { root, init, process, snapshot, storage, bare, terminal: None }, opened))
    }

    /// Works until the root is to be closed; `false` when the caller is gone.
    fn serve(&mut self, caller: &Connection) -> bool {
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
                RootOperation::Close => return true,
            };
            if sent.is_err() {
                break;
            }
        }
        false
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
