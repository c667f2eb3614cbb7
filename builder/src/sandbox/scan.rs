//! The difference that commands made, as a tree.

use std::fs::File;
use std::io::Write;

use drystone_store::tar::{TreeWriter, WriteError};
use drystone_store::tree::{Entry, Kind};
use drystone_store::with_causes;

use super::SandboxError;
use super::messages::ScanReply;
use super::request::Unsupported;
use super::session::{receive, send};
use super::wire::Connection;

/// One entry of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    /// The entry, with owners as seen inside the namespace.
    pub entry: Entry,
    /// A directory that the lower trees have just so; it is here as the parent of others.
    pub unchanged: bool,
}

/// A difference in canonical order. It is the same for either [`super::Storage`]:
///
/// - what equals the lower trees in kind, content, mode, owner, kept xattrs and target is left
///   out, whether or not it was copied up;
/// - what is gone is a deletion for each topmost path (an opaque directory is written out as such
///   deletions, and one without a lower counterpart needs none);
/// - a file that had several names keeps them: all carry a change of mode, owner or attributes
///   that was made through one of them. (In an overlay, content that was written in place through
///   one of several names stays with that name: it looks like another file in its place.)
#[derive(Debug)]
pub struct Scan {
    connection: Connection,
    entries: Vec<ScanEntry>,
    unsupported: Vec<Unsupported>,
}

impl Scan {
    pub(super) fn receive(connection: Connection) -> Result<Self, SandboxError> {
        let reply = receive::<ScanReply>(&connection)?.message;
        let entry = |wire: super::messages::WireEntry| {
            let (entry, unchanged) = wire.into_entry()?;
            Ok(ScanEntry { entry, unchanged })
        };
        let entries = reply.entries.into_iter().map(entry).collect::<Result<_, SandboxError>>()?;
        Ok(Self { connection, entries, unsupported: reply.unsupported })
    }

    /// The entries in canonical order; every parent directory is present.
    pub fn entries(&self) -> &[ScanEntry] {
        &self.entries
    }

    /// Sockets, FIFOs and devices that were left out.
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }

    /// Opens the content of the entry with this index, which must be a file.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for an entry that has no content.
    pub fn open(&self, index: usize) -> Result<File, SandboxError> {
        send(&self.connection, &index, &[], &[])?;
        let frame = receive::<()>(&self.connection)?;
        let descriptor = frame.descriptors.into_iter().next();
        descriptor.map(File::from).ok_or_else(|| SandboxError::Request {
            problem: format!("entry {index} of a difference has no content"),
        })
    }

    /// Writes the whole difference, unchanged parent directories included, as a canonical tar.
    ///
    /// # Errors
    /// [`SandboxError::Tree`] for an entry that the canonical tar refuses, [`SandboxError::Io`]
    /// when `sink` fails.
    pub fn write_tar<W: Write>(&self, sink: W) -> Result<W, SandboxError> {
        let mut writer = TreeWriter::new(sink);
        for (index, ScanEntry { entry, .. }) in self.entries.iter().enumerate() {
            let path = || entry.path.as_str().to_owned();
            let appended = match entry.kind {
                Kind::File { .. } => writer.append(entry, &mut self.open(index)?),
                _ => writer.append_empty(entry),
            };
            appended.map_err(|error| write_failure(path(), error))?;
        }
        writer.finish().map_err(|error| write_failure(String::new(), error))
    }
}

fn write_failure(path: String, error: WriteError) -> SandboxError {
    match error {
        WriteError::Io { source, .. } | WriteError::End(source) => {
            SandboxError::Io { action: "write the difference at".into(), path: path.into(), source }
        }
        other => SandboxError::Tree { path, problem: with_causes(&other) },
    }
}
