//! Hosts that refuse system calls, as engines of containers do for what runs in them.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;

/// Bubblewrap over this very root, for the program that is added as its arguments, with a filter
/// (seccomp(2)) that refuses these calls. The file has to live until the program was started.
pub fn refusing(calls: &[libc::c_long]) -> (Command, File) {
    let step = |code: u16, jt: u8, jf: u8, k: u32| {
        [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat()
    };
    let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let mut program = vec![step(0x20, 0, 0, 0)];
    for &call in calls {
        program.push(step(0x15, 0, 1, u32::try_from(call).unwrap()));
        program.push(step(0x06, 0, 0, denied));
    }
    program.push(step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW));
    let mut filter = tempfile::tempfile().unwrap();
    filter.write_all(&program.concat()).unwrap();
    filter.rewind().unwrap();
    // SAFETY: the descriptor is open; without its flag the program below inherits it.
    unsafe { libc::fcntl(filter.as_raw_fd(), libc::F_SETFD, 0) };
    let mut command = Command::new("bwrap");
    command.args(["--dev-bind", "/", "/", "--seccomp", &filter.as_raw_fd().to_string()]);
    (command, filter)
}
