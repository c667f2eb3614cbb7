//! The `ar` archive that a `.deb` is (deb(5): the common format, without long names).

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Why an `ar` archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArError {
    /// It does not start as one.
    #[error("it is no ar archive")]
    Magic,
    /// A member's header is malformed.
    #[error("the header of member {0} is malformed")]
    Header(usize),
    /// It ends within a member.
    #[error("it is cut off")]
    Truncated,
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

/// Reads members one after the other.
pub(super) struct ArReader<R> {
    inner: R,
    number: usize,
    left: u64,
    padding: bool,
}

impl<R: Read> ArReader<R> {
    pub(super) fn new(mut inner: R) -> Result<Self, ArError> {
        let mut magic = [0; 8];
        match read_full(&mut inner, &mut magic)? {
            8 if &magic == MAGIC => {}
            _ => return Err(ArError::Magic),
        }
        Ok(Self { inner, number: 0, left: 0, padding: false })
    }

    /// The next member's name; what was not read of the last one is skipped.
    pub(super) fn next_member(&mut self) -> Result<Option<String>, ArError> {
        let skip = self.left + u64::from(self.padding);
        let skipped = io::copy(&mut (&mut self.inner).take(skip), &mut io::sink())?;
        // The very last padding byte may be missing, as dpkg tolerates.
        if skipped < self.left {
            return Err(ArError::Truncated);
        }
        self.left = 0;
        self.padding = false;
        let mut header = [0; HEADER];
        match read_full(&mut self.inner, &mut header)? {
            0 => return Ok(None),
            HEADER => {}
            _ => return Err(ArError::Truncated),
        }
        self.number += 1;
        let malformed = || ArError::Header(self.number);
        if &header[58..] != b"`\n" {
            return Err(malformed());
        }
        let text = |at: std::ops::Range<usize>| {
            std::str::from_utf8(&header[at]).map(str::trim_end).map_err(|_| malformed())
        };
        let name = text(0..16)?.trim_end_matches('/').to_owned();
        let size = text(48..58)?;
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        self.left = size.parse().map_err(|_| malformed())?;
        self.padding = self.left % 2 == 1;
        Ok(Some(name))
    }

    /// The content of the member that was read last.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        Content { ar: self }
    }
}

struct Content<'a, R> {
    ar: &'a mut ArReader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.ar.left).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        let count = self.ar.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ArError::Truncated));
        }
        self.ar.left -= count as u64;
        Ok(count)
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
