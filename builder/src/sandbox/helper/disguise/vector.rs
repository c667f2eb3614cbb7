//! The auxiliary vector of a program that starts.

use rustix::process::Pid;

use super::memory;

const WORD: u64 = 8;
/// Ends the vector.
const AT_NULL: u64 = 0;
/// An entry that everyone skips.
const AT_IGNORE: u64 = 1;
/// Where 16 random bytes stand.
const AT_RANDOM: u64 = 25;
/// Where the vDSO stands.
const AT_SYSINFO_EHDR: u64 = 33;
/// The most words that are looked at: far more than the kernel lets a program have.
const MAX_WORDS: usize = 1 << 20;
/// How much is read at once, in words.
const CHUNK: usize = 512;

/// Hides the vDSO from the program that has just been loaded; with `random`, sets the random bytes
/// that its library starts with. `stack` is its stack pointer.
pub(super) fn disguise(pid: Pid, stack: u64, random: Option<[u8; 16]>) {
    let mut words = Words { pid, next: stack, read: 0, buffer: Vec::new(), used: 0 };
    let Some(count) = words.next_word() else { return };
    // Arguments and their end, then variables and theirs.
    for _ in 0..count.saturating_add(1) {
        if words.next_word().is_none() {
            return;
        }
    }
    loop {
        match words.next_word() {
            None => return,
            Some(0) => break,
            Some(_) => {}
        }
    }
    loop {
        let place = words.next;
        let (Some(kind), Some(value)) = (words.next_word(), words.next_word()) else { return };
        match kind {
            AT_NULL => return,
            AT_SYSINFO_EHDR => memory::write(pid, place, &AT_IGNORE.to_ne_bytes()),
            AT_RANDOM => {
                if let Some(bytes) = random {
                    memory::write(pid, value, &bytes);
                }
            }
            _ => {}
        }
    }
}

/// The words of a stack, upwards.
struct Words {
    pid: Pid,
    next: u64,
    read: usize,
    buffer: Vec<u8>,
    used: usize,
}

impl Words {
    fn next_word(&mut self) -> Option<u64> {
        if self.used == self.buffer.len() {
            self.fill()?;
        }
        let (word, _) = self.buffer[self.used..].split_first_chunk::<8>()?;
        self.used += word.len();
        self.next += WORD;
        Some(u64::from_ne_bytes(*word))
    }

    fn fill(&mut self) -> Option<()> {
        self.read += CHUNK;
        let mut bytes = vec![0; CHUNK * 8];
        let count = memory::read_some(self.pid, self.next, &mut bytes)?;
        bytes.truncate(count - count % 8);
        (self.buffer, self.used) = (bytes, 0);
        (self.read <= MAX_WORDS && !self.buffer.is_empty()).then_some(())
    }
}
