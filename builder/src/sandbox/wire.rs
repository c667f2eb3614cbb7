//! Messages between the program and its helper processes.
//!
//! A frame on a stream socket is two little-endian `u32` lengths, JSON, and raw bytes; open file
//! descriptors travel with the frame's first byte. Both ends are the same program, so the form
//! has no version.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most descriptors in one frame.
const MAX_DESCRIPTORS: usize = 8;
/// The largest part of a frame, in bytes: far above any honest message.
const MAX_PART: u32 = 1 << 30;
/// Bytes of the two lengths.
const HEADER: usize = 8;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
}

/// A frame as received.
pub(super) struct Frame<T> {
    pub(super) message: T,
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// Makes a connection: this end, and the end to hand over.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (stream, other) = UnixStream::pair()?;
        Ok((Self { stream }, other.into()))
    }

    /// Sends a message with raw bytes and descriptors.
    pub(super) fn send_with<T: Serialize>(
        &self,
        message: &T,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let json = serde_json::to_vec(message)?;
        let mut head = Vec::with_capacity(HEADER + json.len());
        head.extend(part_length(json.len())?.to_le_bytes());
        head.extend(part_length(bytes.len())?.to_le_bytes());
        head.extend(json);
        let sent = self.send_first(&head, descriptors)?;
        (&self.stream).write_all(&head[sent..])?;
        (&self.stream).write_all(bytes)
    }

    /// Sends a message alone.
    pub(super) fn send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        self.send_with(message, &[], &[])
    }

    fn send_first(&self, head: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        let parts = [IoSlice::new(head)];
        loop {
            match rustix::net::sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Receives a frame; `None` when the other side has closed the connection.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<Frame<T>>> {
        let mut header = [0; HEADER];
        let (count, descriptors) = self.receive_first(&mut header)?;
        if count == 0 {
            return Ok(None);
        }
        (&self.stream).read_exact(&mut header[count..])?;
        let [a, b, c, d, e, f, g, h] = header;
        let json = self.read_part(u32::from_le_bytes([a, b, c, d]))?;
        let bytes = self.read_part(u32::from_le_bytes([e, f, g, h]))?;
        let message = serde_json::from_slice(&json)?;
        Ok(Some(Frame { message, bytes, descriptors }))
    }

    fn receive_first(&self, header: &mut [u8; HEADER]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(header)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match rustix::net::recvmsg(&self.stream, &mut parts, &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok((0, Vec::new())),
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok((received.bytes, descriptors))
    }

    fn read_part(&self, length: u32) -> io::Result<Vec<u8>> {
        if length > MAX_PART {
            return Err(io::Error::other("a message of the sandbox's helper is too large"));
        }
        let mut part = vec![0; length as usize];
        (&self.stream).read_exact(&mut part)?;
        Ok(part)
    }

    /// Waits until a frame (or the end) can be received; `false` when time ran out first.
    pub(super) fn wait(&self, limit: std::time::Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut byte = [MaybeUninit::<u8>::uninit()];
        let peeked = loop {
            match rustix::net::recv(&self.stream, &mut byte, RecvFlags::PEEK) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        self.stream.set_read_timeout(None)?;
        match peeked {
            Ok(_) | Err(rustix::io::Errno::CONNRESET) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Self { stream: UnixStream::from(socket) }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn part_length(length: usize) -> io::Result<u32> {
    u32::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_PART)
        .ok_or_else(|| io::Error::other("a message to the sandbox's helper is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_json_bytes_and_descriptors() {
        let (left, right) = Connection::pair().unwrap();
        let right = Connection::from(right);
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![7; 300_000];
        let sender = std::thread::spawn(move || {
            left.send_with(&("hello", 1), &bytes, &[file.as_fd()]).unwrap();
        });
        let frame = right.receive::<(String, u32)>().unwrap().unwrap();
        sender.join().unwrap();
        assert_eq!(frame.message, ("hello".to_owned(), 1));
        assert_eq!(frame.bytes.len(), 300_000);
        assert_eq!(frame.descriptors.len(), 1);
        assert!(right.receive::<u32>().unwrap().is_none(), "a closed connection is the end");
    }
}
