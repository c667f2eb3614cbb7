//! Reading and writing another process's memory.

use rustix::process::Pid;

/// Reads exactly this many bytes; `None` when not all of them can be read.
pub(super) fn read(pid: Pid, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    (read_some(pid, address, &mut bytes)? == length).then_some(bytes)
}

/// Reads what can be read of a range.
pub(super) fn read_some(pid: Pid, address: u64, bytes: &mut [u8]) -> Option<usize> {
    let (local, remote) = vectors(address, bytes);
    // SAFETY: the local vector is a buffer of ours; the remote one is only a number here.
    let count = unsafe {
        libc::process_vm_readv(
            pid.as_raw_nonzero().get(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0,
        )
    };
    usize::try_from(count).ok()
}

/// Writes bytes, into constant data too; what cannot be written stays as it is.
pub(super) fn write(pid: Pid, address: u64, bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let (local, remote) = vectors(address, &mut copy);
    // SAFETY: as above.
    let count = unsafe {
        libc::process_vm_writev(
            pid.as_raw_nonzero().get(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0,
        )
    };
    if usize::try_from(count) != Ok(bytes.len()) {
        poke(pid, address, bytes);
    }
}

/// Writes word by word, as a debugger does.
fn poke(pid: Pid, address: u64, bytes: &[u8]) {
    for (place, part) in (address..).step_by(8).zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        if part.len() < word.len() && read_some(pid, place, &mut word) != Some(word.len()) {
            return;
        }
        word[..part.len()].copy_from_slice(part);
        // SAFETY: the tracee is stopped, and the kernel checks the address.
        unsafe {
            libc::ptrace(
                libc::PTRACE_POKEDATA,
                pid.as_raw_nonzero().get(),
                place,
                u64::from_ne_bytes(word),
            );
        }
    }
}

fn vectors(address: u64, bytes: &mut [u8]) -> (libc::iovec, libc::iovec) {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let place = usize::try_from(address).unwrap_or(0);
    let remote = libc::iovec { iov_base: place as *mut libc::c_void, iov_len: bytes.len() };
    (local, remote)
}
