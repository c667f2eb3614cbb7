//! An open root: a file system and a set of namespaces in which commands run one after another.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use drystone_store::tree::TreePath;
use serde::de::DeserializeOwned;

use super::cgroup::{Group, Place};
use super::messages::{Entrance, Executed, Opened, RootOperation, Started, tree_path};
use super::request::{Change, Command, Finished, Item, RootRequest, Storage};
use super::session::{receive, send};
use super::wire::{Connection, Frame};
use super::{Ending, Limit, Resources, SandboxError};

/// An open root. Paths are the root's own, absolute or relative to it; symbolic links are followed
/// inside the root and never out of it, except in the last component, which is the entry itself.
///
/// When it is closed or dropped everything in it is killed and unmounted; the upper directory
/// stays, for [`super::Session::scan`].
#[derive(Debug)]
pub struct Root {
    connection: Mutex<Connection>,
    group: Option<Group>,
    opened: Opened,
    /// Where the supervisor goes when the root is closed, if it serves another.
    idle: Option<Idle>,
}

/// A supervisor that has no root now, and the control group that its roots' processes are born in.
#[derive(Debug)]
pub(super) struct Supervisor {
    connection: Connection,
    group: Option<Group>,
}

/// The supervisors of a session that have no root now.
pub(super) type Idle = Arc<Mutex<Vec<Supervisor>>>;

impl Supervisor {
    /// Waits until a supervisor that was asked for has started, and has what it starts in a control
    /// group, where one can be made.
    pub(super) fn start(connection: Connection) -> Result<Self, SandboxError> {
        let made = place().and_then(|place| {
            let group = place.create().ok()?;
            let (entrance, doors) = group.entrance().ok()?;
            Some((group, entrance, doors))
        });
        let (group, entrance, doors) = match made {
            Some((group, entrance, doors)) => (Some(group), entrance, doors),
            None => (None, Entrance::None, Vec::new()),
        };
        let doors: Vec<BorrowedFd<'_>> = doors.iter().map(|door| door.as_fd()).collect();
        send(&connection, &entrance, &[], &doors)?;
        let Started { process, entered } = receive::<Started>(&connection)?.message;
        let group = group.filter(|group| entered || group.move_in(process).is_ok());
        Ok(Self { connection, group })
    }
}

impl Root {
    pub(super) fn open(
        supervisor: Supervisor,
        request: &RootRequest,
        idle: Option<Idle>,
    ) -> Result<Self, SandboxError> {
        let Supervisor { connection, group } = supervisor;
        send(&connection, request, &[], &[])?;
        let opened = receive::<Opened>(&connection)?.message;
        Ok(Self { connection: Mutex::new(connection), group, opened, idle })
    }

    /// How changes are kept.
    pub const fn storage(&self) -> Storage {
        self.opened.storage
    }

    /// Why there is a copy instead of an overlay, in the kernel's words.
    pub fn overlay_refusal(&self) -> Option<&str> {
        self.opened.refusal.as_deref()
    }

    /// Why commands see what a [`super::Disguise`] was to hide; `None` when they do not.
    pub fn undisguised(&self) -> Option<&str> {
        self.opened.undisguised.as_deref()
    }

    /// Runs a command to its end. Standard output and error go to `log`; whatever the command
    /// left running is killed.
    ///
    /// # Errors
    /// [`SandboxError::Start`] when the program is missing or cannot be executed. A command that
    /// fails is no error but a [`Finished`].
    pub fn execute(&self, command: &Command, log: Option<&File>) -> Result<Finished, SandboxError> {
        if command.argv.is_empty() {
            return Err(SandboxError::Request { problem: "a command without a program".into() });
        }
        let log: Vec<BorrowedFd<'_>> = log.iter().map(|file| file.as_fd()).collect();
        let mut command = command.clone();
        let group = self.group(&command);
        let killed = group.map_or(0, Group::killed);
        if group.is_some() {
            // The kernel sees more, and sooner.
            command.resources.memory = None;
        }
        let frame: Frame<Executed> = self.ask_with(&RootOperation::Execute(command), &[], &log)?;
        let mut tail = frame.bytes;
        let output = tail.split_off(frame.message.tail.min(tail.len()));
        let ending = match group {
            Some(group) if group.killed() > killed => Ending::Limit(Limit::Memory),
            _ => frame.message.ending,
        };
        Ok(Finished { ending, tail, output })
    }

    /// The control group with a command's limits; `None` where there is nothing to limit, or the
    /// sandbox must watch by itself.
    fn group(&self, command: &Command) -> Option<&Group> {
        let resources = &command.resources;
        let group = self.group.as_ref()?;
        if !command.control_groups || resources.memory.is_none() {
            // An earlier command's limits would stay.
            let _ = group.limit(&Resources::default());
            return None;
        }
        group.limit(resources).is_ok().then_some(group)
    }

    /// Makes a terminal of `(rows, columns)` inside the root, for the next command that asks for
    /// one; what is typed is written to the other end, which is returned.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn open_terminal(&self, size: (u16, u16), owner: (u32, u32)) -> Result<File, SandboxError> {
        let frame: Frame<()> =
            self.ask_with(&RootOperation::OpenTerminal { size, owner }, &[], &[])?;
        let descriptor = frame.descriptors.into_iter().next();
        descriptor.map(file).ok_or_else(|| SandboxError::Helper {
            problem: "it sent no terminal".into(),
            source: None,
        })
    }

    /// Runs a command given as arguments with the standard environment.
    ///
    /// # Errors
    /// As [`Root::execute`].
    pub fn execute_simple(&self, argv: &[&str]) -> Result<Ending, SandboxError> {
        Ok(self.execute(&Command::new(argv.iter().copied()), None)?.ending)
    }

    /// Reads a regular file; `None` if there is none. A symbolic link is followed.
    ///
    /// # Errors
    /// [`SandboxError::Io`]; something else than a regular file is an error.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, SandboxError> {
        let frame: Frame<bool> =
            self.ask_with(&RootOperation::Read { path: path.into() }, &[], &[])?;
        let Some(descriptor) = frame.descriptors.into_iter().next() else { return Ok(None) };
        let mut content = Vec::new();
        file(descriptor).read_to_end(&mut content).map_err(|source| SandboxError::Io {
            action: "read, inside the root,".into(),
            path: path.into(),
            source,
        })?;
        Ok(Some(content))
    }

    /// Puts a regular file in the place of whatever stands at `path` (but a directory); its
    /// directory must exist.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn write_file(
        &self,
        path: &str,
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SandboxError> {
        let operation = RootOperation::Write { path: path.into(), mode, owner };
        self.ask_with::<()>(&operation, content, &[]).map(drop)
    }

    /// Lists a directory in order of names; `None` if there is none.
    ///
    /// # Errors
    /// [`SandboxError::Io`]; something else than a directory is an error.
    pub fn list_directory(&self, path: &str) -> Result<Option<Vec<Item>>, SandboxError> {
        self.ask(&RootOperation::List { path: path.into() })
    }

    /// What stands at a path, itself and not what a symbolic link points to; `None` for nothing.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn look(&self, path: &str) -> Result<Option<Item>, SandboxError> {
        self.ask(&RootOperation::Look { path: path.into() })
    }

    /// Makes a directory; its parent must exist. One that is there gets the mode and owner.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn make_directory(
        &self,
        path: &str,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SandboxError> {
        self.ask(&RootOperation::MakeDirectory { path: path.into(), mode, owner })
    }

    /// Puts a symbolic link in the place of whatever stands at `path` (but a directory).
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn make_symlink(
        &self,
        path: &str,
        target: &str,
        owner: (u32, u32),
    ) -> Result<(), SandboxError> {
        let (path, target) = (path.into(), target.into());
        self.ask(&RootOperation::MakeSymlink { path, target, owner })
    }

    /// Sets the mode and owner of a file or directory that is there.
    ///
    /// # Errors
    /// [`SandboxError::Io`]; a symbolic link is an error.
    pub fn set_attributes(
        &self,
        path: &str,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SandboxError> {
        self.ask(&RootOperation::SetAttributes { path: path.into(), mode, owner })
    }

    /// Renames a file, link or (if it is not part of a lower tree) directory.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), SandboxError> {
        self.ask(&RootOperation::Rename { from: from.into(), to: to.into() })
    }

    /// Deletes what stands at a path, a directory with all below it; `Ok` when there is nothing.
    ///
    /// # Errors
    /// [`SandboxError::Io`].
    pub fn delete(&self, path: &str) -> Result<(), SandboxError> {
        self.ask(&RootOperation::Delete { path: path.into() })
    }

    /// The paths of the upper directory that are new, changed or gone since the last call, in
    /// order; the first call compares with the time when the root was opened. A file that was
    /// written is listed, whatever was written; one that was opened for writing only is not.
    ///
    /// # Errors
    /// [`SandboxError::Tree`] for a name that no tree can hold.
    pub fn changed_since_last(&self) -> Result<Vec<Change>, SandboxError> {
        let changes: Vec<(String, bool)> = self.ask(&RootOperation::Changed)?;
        let change = |(path, deleted): (String, bool)| {
            let path: TreePath = tree_path(&path)?;
            Ok(Change { path, deleted })
        };
        changes.into_iter().map(change).collect()
    }

    /// Kills and unmounts everything and waits until that is done.
    ///
    /// # Errors
    /// [`SandboxError::Helper`] when the helper is already gone.
    pub fn close(self) -> Result<(), SandboxError> {
        self.ask::<()>(&RootOperation::Close)?;
        let Self { connection, group, idle, .. } = self;
        if let Some(idle) = idle {
            let connection = connection.into_inner().unwrap_or_else(PoisonError::into_inner);
            let supervisor = Supervisor { connection, group };
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(supervisor);
        }
        Ok(())
    }

    fn ask<T: DeserializeOwned>(&self, operation: &RootOperation) -> Result<T, SandboxError> {
        Ok(self.ask_with(operation, &[], &[])?.message)
    }

    fn ask_with<T: DeserializeOwned>(
        &self,
        operation: &RootOperation,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Frame<T>, SandboxError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        send(&connection, operation, bytes, descriptors)?;
        receive(&connection)
    }
}

/// Where this process can make control groups.
fn place() -> Option<&'static Place> {
    static PLACE: OnceLock<Option<Place>> = OnceLock::new();
    let find = || {
        let place = Place::find().ok()?;
        place.sweep();
        Some(place)
    };
    PLACE.get_or_init(find).as_ref()
}

fn file(descriptor: OwnedFd) -> File {
    File::from(descriptor)
}
