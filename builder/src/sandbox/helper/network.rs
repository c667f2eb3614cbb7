//! The network of a root: a loopback device and nothing else.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::super::error::Failure;

/// Brings the loopback device of this network namespace up. Installers and test suites count on it
/// (postfix refuses to make its tables on a host without any active interface), and it leads nowhere.
pub(super) fn bring_loopback_up() -> Result<(), Failure> {
    let refused =
        |error| Failure::host("bringing the loopback device up is refused", "", Some(error));
    // SAFETY: the call takes numbers only; the descriptor is checked before use.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(refused(std::io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: an interface request is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*byte]);
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("the two flags are small numbers");
    // SAFETY: the request is whole, its name ends with a zero, and it outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    match result {
        0 => Ok(()),
        _ => Err(refused(std::io::Error::last_os_error())),
    }
}
