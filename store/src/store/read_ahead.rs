//! A stream that a thread reads ahead of whoever uses it.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes of a piece.
const PIECE: usize = 128 << 10;
/// Pieces that are ahead at most.
const PIECES: usize = 16;

/// What a thread has read, in its order.
pub(super) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// Where pieces go that were used up.
    used: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

/// Reads a stream on a thread, ahead of `work`, which need not read to its end.
pub(super) fn read_ahead<T>(stream: impl Read + Send, work: impl FnOnce(&mut Ahead) -> T) -> T {
    let (sender, pieces) = sync_channel(PIECES);
    let (used, free) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || fill(stream, &sender, &free));
        // The thread ends when nobody listens any more.
        let mut ahead = Ahead { pieces, used, piece: Vec::new(), at: 0 };
        let done = work(&mut ahead);
        drop(ahead);
        done
    })
}

fn fill(mut stream: impl Read, pieces: &SyncSender<io::Result<Vec<u8>>>, free: &Receiver<Vec<u8>>) {
    loop {
        let mut piece = free.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let next = match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                piece.truncate(count);
                Ok(piece)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = next.is_err();
        if pieces.send(next).is_err() || failed {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(next) = self.pieces.recv() else { return Ok(0) };
            let piece = std::mem::replace(&mut self.piece, next?);
            self.at = 0;
            // Nobody takes them when all is read.
            let _ = self.used.send(piece);
        }
        let rest = &self.piece[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_comes_in_order_and_then_the_failure() {
        struct Failing(usize);
        impl Read for Failing {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    40 => Err(io::Error::other("broken")),
                    step if step % 7 == 0 => Err(io::ErrorKind::Interrupted.into()),
                    step => {
                        let count = buffer.len().min(step * 1000);
                        buffer[..count].fill(step as u8);
                        Ok(count)
                    }
                }
            }
        }
        let mut bytes = Vec::new();
        let error = read_ahead(Failing(0), |ahead| ahead.read_to_end(&mut bytes)).unwrap_err();
        assert_eq!(error.to_string(), "broken");
        let expected = (1..40_usize)
            .filter(|step| step % 7 != 0)
            .flat_map(|step| vec![step as u8; (step * 1000).min(PIECE)]);
        assert!(bytes.iter().copied().eq(expected));
    }

    #[test]
    fn who_stops_early_ends_the_thread() {
        let first = read_ahead(io::repeat(7), |ahead| {
            let mut bytes = [0; 9];
            ahead.read_exact(&mut bytes).map(|()| bytes)
        });
        assert_eq!(first.unwrap(), [7; 9]);
        let mut nothing = Vec::new();
        assert_eq!(read_ahead(io::empty(), |ahead| ahead.read_to_end(&mut nothing)).unwrap(), 0);
    }
}
