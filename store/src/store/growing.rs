//! A file that is read while it is still written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How far a file was written.
#[derive(Debug, Default)]
pub(super) struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: u64,
    /// Set when nothing more is written: whether the file is complete.
    ended: Option<bool>,
}

/// Tells how far it has written.
pub(super) struct GrowingWriter<'a, W> {
    inner: W,
    growth: &'a Growth,
}

/// Reads up to where the writer has come, and waits for more.
pub(super) struct GrowingReader<'a> {
    file: File,
    read: u64,
    growth: &'a Growth,
}

impl Growth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is more behind `read` or will not be; how much is written.
    fn wait(&self, read: u64) -> io::Result<u64> {
        let mut state = self.state();
        loop {
            match state.ended {
                // What was written of it may be anything.
                Some(false) => return Err(io::Error::other("the file was given up")),
                Some(true) => return Ok(state.written),
                None if state.written > read => return Ok(state.written),
                None => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn end(&self, complete: bool) {
        self.state().ended.get_or_insert(complete);
        self.changed.notify_all();
    }
}

impl<'a, W: Write> GrowingWriter<'a, W> {
    pub(super) const fn new(inner: W, growth: &'a Growth) -> Self {
        Self { inner, growth }
    }

    /// Says that the file is complete; one that is dropped before is given up.
    pub(super) fn complete(self) {
        self.growth.end(true);
    }
}

impl<W: Write> Write for GrowingWriter<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.growth.state().written += count as u64;
        self.growth.changed.notify_all();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W> Drop for GrowingWriter<'_, W> {
    fn drop(&mut self) {
        self.growth.end(false);
    }
}

impl<'a> GrowingReader<'a> {
    /// Reads a file from its start by a handle of its own.
    pub(super) const fn new(file: File, growth: &'a Growth) -> Self {
        Self { file, read: 0, growth }
    }
}

impl Read for GrowingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.growth.wait(self.read)? - self.read;
        let most = buffer.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..most])?;
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn grow(write: impl FnOnce(GrowingWriter<'_, &File>) + Send) -> (io::Result<usize>, Vec<u8>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let growth = Growth::default();
        let mut reader = GrowingReader::new(file.reopen().unwrap(), &growth);
        let writer = GrowingWriter::new(file.as_file(), &growth);
        let mut bytes = Vec::new();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| write(writer));
            reader.read_to_end(&mut bytes)
        });
        (result, bytes)
    }

    #[test]
    fn a_reader_waits_for_all_that_is_written() {
        let (result, bytes) = grow(|mut writer| {
            for number in 0..100_u8 {
                writer.write_all(&[number; 1000]).unwrap();
                if number % 25 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            writer.complete();
        });
        assert_eq!(result.unwrap(), 100_000);
        assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 1000));
    }

    #[test]
    fn what_was_given_up_has_no_end() {
        let (result, _) = grow(|mut writer| {
            writer.write_all(b"half").unwrap();
        });
        assert_eq!(result.unwrap_err().to_string(), "the file was given up");
        let (result, bytes) = grow(|writer| writer.complete());
        assert_eq!((result.unwrap(), bytes.len()), (0, 0));
    }
}
