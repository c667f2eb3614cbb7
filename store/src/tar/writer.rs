//! Writing the canonical tar.

use std::io::{self, Read, Write};

use super::order::OrderCheck;
use super::{BLOCK, OrderError, header, padding};
use crate::tree::{Entry, TreePath};

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The entry breaks a rule of the format.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The content is shorter or longer than the entry says.
    #[error("{path}: content is not the {expected} bytes that its entry says")]
    Size {
        /// The file.
        path: TreePath,
        /// The size that its entry says.
        expected: u64,
    },
    /// The content could not be read, or the stream not written.
    #[error("cannot write {path} to the tree")]
    Io {
        /// The entry that was being written.
        path: TreePath,
        /// The cause.
        source: io::Error,
    },
    /// The end of the stream could not be written.
    #[error("cannot end the tree")]
    End(#[source] io::Error),
}

/// Writes entries, which must come in order, as a canonical tar.
pub struct TreeWriter<W> {
    inner: W,
    check: OrderCheck,
    buffer: Vec<u8>,
}

impl<W: Write> TreeWriter<W> {
    /// Starts a tree.
    pub fn new(inner: W) -> Self {
        Self { inner, check: OrderCheck::default(), buffer: vec![0; 128 * 1024] }
    }

    /// Writes one entry and, for a file, its content, which must be exactly as long as the entry
    /// says.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), WriteError> {
        self.check.check(entry)?;
        self.write(entry, content).map_err(|failure| match failure {
            Failure::Size => {
                WriteError::Size { path: entry.path.clone(), expected: entry.content_size() }
            }
            Failure::Io(source) => WriteError::Io { path: entry.path.clone(), source },
        })
    }

    /// Writes one entry that has no content.
    pub fn append_empty(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.append(entry, &mut io::empty())
    }

    fn write(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Failure> {
        self.inner.write_all(&header::encode(entry))?;
        let mut left = entry.content_size();
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match content.read(&mut self.buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if count == 0 {
                return Err(Failure::Size);
            }
            self.inner.write_all(&self.buffer[..count])?;
            left -= count as u64;
        }
        if content.read(&mut self.buffer[..1])? != 0 {
            return Err(Failure::Size);
        }
        self.inner.write_all(&[0; BLOCK][..padding(entry.content_size())])?;
        Ok(())
    }

    /// Ends the tree.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.inner.write_all(&[0; 2 * BLOCK]).map_err(WriteError::End)?;
        self.inner.flush().map_err(WriteError::End)?;
        Ok(self.inner)
    }
}

enum Failure {
    Size,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
