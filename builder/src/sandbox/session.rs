//! A session: one helper process in its own user and mount namespace that serves many requests.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Failure;
use super::messages::{ROOT_NAME, SESSION_NAME, Service, Work};
use super::request::{Command as SandboxCommand, Finished, RootRequest, Storage};
use super::root::{Idle, Supervisor};
use super::wire::{Connection, Frame};
use super::{Early, IdMap, Root, SandboxError, Scan};
use super::{Isolation, helper};

/// How long a new helper may take to say its first word.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Set in the environment of helpers: a program that forgot to call
/// [`super::helper_main_if_requested`] would otherwise start itself for ever.
const GUARD: &str = "DRYSTONE_SANDBOX_HELPER";

/// A running helper process. Requests may come from several threads at once. When the session is
/// dropped, or its program dies in any way, everything that was started in it is killed and
/// unmounted.
#[derive(Debug)]
pub struct Session {
    control: Mutex<Option<Connection>>,
    child: Mutex<Child>,
    /// Whether a supervisor serves roots one after another.
    reuses: bool,
    idle: Idle,
    /// The supervisor of the first root.
    first: Early<Result<Supervisor, SandboxError>>,
}

impl Session {
    /// Starts a helper that runs this very program (`/proc/self/exe`), whose `main` must call
    /// [`super::helper_main_if_requested`] first. It has namespaces unless the map is that of
    /// [`IdMap::without_namespaces`].
    ///
    /// # Errors
    /// [`SandboxError::Host`] when this host refuses user or mount namespaces.
    pub fn start(map: &IdMap) -> Result<Self, SandboxError> {
        Self::start_program(map, Path::new("/proc/self/exe"))
    }

    /// Starts a helper from another program that calls [`super::helper_main_if_requested`] (for
    /// test programs whose `main` is not theirs).
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start_program(map: &IdMap, program: &Path) -> Result<Self, SandboxError> {
        if std::env::var_os(GUARD).is_some() {
            return Err(SandboxError::Request {
                problem: "this program must call helper_main_if_requested first in main".into(),
            });
        }
        let failed = |error| SandboxError::helper("it could not be started", error);
        if map.isolation() == Isolation::None {
            // Without a namespace to end with, what an end by force leaves comes to this process.
            helper::adopt_orphans();
        }
        let (control, other) = Connection::pair().map_err(failed)?;
        let mut child = Command::new(program)
            .arg0(SESSION_NAME)
            .arg(map.isolation().word())
            .env_clear()
            .env(GUARD, "1")
            .current_dir("/")
            .stdin(Stdio::from(other))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        match handshake(map, &control, child.id()) {
            Ok(()) => Ok(Self {
                control: Mutex::new(Some(control)),
                child: Mutex::new(child),
                reuses: map.isolation() == Isolation::Namespaces,
                idle: Idle::default(),
                first: Early::default(),
            }),
            Err(error) => {
                // The helper ends by itself when the connection closes; a foreign program may not.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Lays out a tree below `destination`, which must not exist; its parent must. `tar` is an
    /// uncompressed canonical tar: a file or a pipe that another thread fills. Owners, modes,
    /// kept xattrs and links are the tree's; every mtime is [`drystone_store::tar::MTIME`];
    /// deletions become overlay whiteouts. The result is good as a lower directory of a root.
    ///
    /// # Errors
    /// [`SandboxError::Tree`] for a stream that is no canonical tar; nothing stays then.
    pub fn checkout(&self, tar: impl AsFd, destination: &Path) -> Result<(), SandboxError> {
        let work = Work::Checkout { destination: absolute(destination)? };
        self.work(&work, &[tar.as_fd()])
    }

    /// Merges checked-out trees (the topmost first) into one at `destination`, which must not exist;
    /// its parent must be on the same file system as the trees. Files are hard links to theirs, so
    /// nothing may write to them.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn merge(&self, lower: &[PathBuf], destination: &Path) -> Result<(), SandboxError> {
        let lower = lower.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
        self.work(&Work::Merge { lower, destination: absolute(destination)? }, &[])
    }

    /// Deletes a file or a directory with all below it; `Ok` when there is none.
    ///
    /// # Errors
    /// [`SandboxError::Io`] with the path that resists.
    pub fn remove(&self, path: &Path) -> Result<(), SandboxError> {
        self.work(&Work::Remove { path: absolute(path)? }, &[])
    }

    /// Renames a directory that belongs to ids of the namespace (its owner outside may not move
    /// it to another directory). With `sync`, its file system is written to disk first.
    ///
    /// # Errors
    /// [`SandboxError::Io`]; it fails when `to` is a directory that is not empty.
    pub fn rename(&self, from: &Path, to: &Path, sync: bool) -> Result<(), SandboxError> {
        let work = Work::Rename { from: absolute(from)?, to: absolute(to)?, sync };
        self.work(&work, &[])
    }

    /// Makes a directory 0:0 with mode 0755, as ids inside the namespace count.
    ///
    /// # Errors
    /// [`SandboxError::Io`], also when it exists.
    pub fn create_directory(&self, path: &Path) -> Result<(), SandboxError> {
        self.work(&Work::CreateDirectory { path: absolute(path)? }, &[])
    }

    /// Has programs of another architecture run by an emulator, in all roots of this session, by a
    /// line of [`super::emulation::registration`].
    ///
    /// # Errors
    /// [`SandboxError::Host`] when the kernel has no registrations for user namespaces.
    pub fn emulate(&self, line: &str) -> Result<(), SandboxError> {
        self.work(&Work::Emulate { line: line.to_owned() }, &[])
    }

    /// Reads an upper directory as the difference to the lower trees (the topmost first).
    /// `storage` is what [`Root::storage`] said when the upper directory was written.
    ///
    /// # Errors
    /// [`SandboxError::Tree`] for names that no tree can hold.
    pub fn scan(
        &self,
        upper: &Path,
        lower: &[PathBuf],
        storage: Storage,
    ) -> Result<Scan, SandboxError> {
        let lower = lower.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
        let connection = self.connect(&Service::Work)?;
        send(&connection, &Work::Scan { upper: absolute(upper)?, lower, storage }, &[], &[])?;
        Scan::receive(connection)
    }

    /// Starts, beside other work, what the first root needs whatever it is; once.
    pub(crate) fn expect_root(&self) {
        // What fails here fails again, and is told, when a root is opened.
        let Ok(connection) = self.connect(&Service::Root) else { return };
        self.first.begin(|| Supervisor::start(connection));
    }

    /// Opens a root to run many commands in.
    ///
    /// # Errors
    /// [`SandboxError::Host`] when this host refuses a namespace or a mount.
    pub fn open_root(&self, request: &RootRequest) -> Result<Root, SandboxError> {
        if request.lower.len() > super::MAX_LOWERS {
            return Err(SandboxError::Request {
                problem: format!(
                    "{} lower trees; the kernel allows {}",
                    request.lower.len(),
                    super::MAX_LOWERS
                ),
            });
        }
        let mut request = request.clone();
        for path in request.lower.iter_mut().chain([&mut request.upper, &mut request.work]) {
            *path = absolute(path)?;
        }
        let idle = self.reuses.then(|| Arc::clone(&self.idle));
        Root::open(self.supervisor()?, &request, idle)
    }

    fn supervisor(&self) -> Result<Supervisor, SandboxError> {
        if let Some(first) = self.first.take() {
            return first;
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(supervisor) => Ok(supervisor),
            None => Supervisor::start(self.connect(&Service::Root)?),
        }
    }

    /// Opens a root, runs one command in it and closes it.
    ///
    /// # Errors
    /// As [`Session::open_root`] and [`Root::execute`].
    pub fn run(
        &self,
        request: &RootRequest,
        command: &SandboxCommand,
        log: Option<&File>,
    ) -> Result<(Finished, Storage), SandboxError> {
        let root = self.open_root(request)?;
        let finished = root.execute(command, log)?;
        let storage = root.storage();
        root.close()?;
        Ok((finished, storage))
    }

    fn work(&self, work: &Work, descriptors: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let connection = self.connect(&Service::Work)?;
        send(&connection, work, &[], descriptors)?;
        receive::<()>(&connection).map(drop)
    }

    fn connect(&self, service: &Service) -> Result<Connection, SandboxError> {
        let failed = |error| SandboxError::helper("no connection to it", error);
        let (connection, other) = Connection::pair().map_err(failed)?;
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(control) = control.as_ref() {
            control.send_with(service, &[], &[other.as_fd()]).map_err(failed)?;
        }
        Ok(connection)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of the control connection is the order to end.
        drop(self.control.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.wait();
        // All ended with the session's process, so the groups of what is left here can go.
    }
}

/// The helper enters its namespace, gets its ids mapped from here, and reports that it is ready.
fn handshake(map: &IdMap, control: &Connection, pid: u32) -> Result<(), SandboxError> {
    let spoke =
        control.wait(START_LIMIT).map_err(|error| SandboxError::helper("it is silent", error))?;
    if !spoke {
        return Err(SandboxError::Helper {
            problem: "it does not answer; does its main call helper_main_if_requested?".into(),
            source: None,
        });
    }
    receive::<()>(control)?;
    map.apply(pid)?;
    send(control, &(), &[], &[])?;
    receive::<()>(control).map(drop)
}

/// Sends a message to a helper.
pub(super) fn send<T: Serialize>(
    connection: &Connection,
    message: &T,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), SandboxError> {
    connection
        .send_with(message, bytes, descriptors)
        .map_err(|error| SandboxError::helper("it does not listen", error))
}

/// Receives a helper's answer, and its failure as an error.
pub(super) fn receive<T: DeserializeOwned>(
    connection: &Connection,
) -> Result<Frame<T>, SandboxError> {
    let frame = connection
        .receive::<Result<T, Failure>>()
        .map_err(|error| SandboxError::helper("its answer is unreadable", error))?
        .ok_or_else(|| SandboxError::Helper {
            problem: format!("it ended without an answer ({SESSION_NAME} or {ROOT_NAME})"),
            source: None,
        })?;
    let message = frame.message?;
    Ok(Frame { message, bytes: frame.bytes, descriptors: frame.descriptors })
}

fn absolute(path: &Path) -> Result<PathBuf, SandboxError> {
    let path = std::path::absolute(path).map_err(|source| SandboxError::Io {
        action: "resolve".into(),
        path: path.to_owned(),
        source,
    })?;
    if path.to_str().is_none() {
        return Err(SandboxError::Request { problem: format!("{} is not UTF-8", path.display()) });
    }
    Ok(path)
}
