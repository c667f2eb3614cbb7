//! A person at a terminal, in the build of a recipe.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _, stdin, stdout};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};

use drystone_builder::recipe::{Person, SCRIPT};
use drystone_builder::sandbox::Ending;

use crate::diagnostics::{Failure, Family};
use crate::progress::Display;

/// How often the size of the terminal is looked at, in milliseconds.
const SIZE_POLL: libc::c_int = 200;

/// A shell needs somebody who types.
pub fn check_terminal() -> Result<(), Failure> {
    match stdin().is_terminal() && stdout().is_terminal() {
        true => Ok(()),
        false => Err(Failure::usage("standard input and output are no terminal")
            .hint("give the command to run with `-c COMMAND`")),
    }
}

/// Runs something for the person at this process's terminal.
pub fn at_terminal<T>(
    display: &Display,
    run: impl FnOnce(&Person<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let name = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let relay = |other: File| {
        display.finish();
        eprintln!(
            "The source is here, $out is where the result goes, and `sh -e {SCRIPT}` runs the \
             recipe's script. `exit` leaves."
        );
        let _raw = Raw::enter();
        // What cannot be carried ends with the shell's own end of the terminal.
        let _ = carry(&other);
    };
    run(&Person { terminal: &name, size: size(0).unwrap_or((24, 80)), relay: &relay })
}

/// The status of what was run becomes this command's, as with any shell.
pub fn passed_on(ending: Ending) -> Result<(), Failure> {
    let status = match ending {
        Ending::Exit(0) => return Ok(()),
        Ending::Exit(status) => u8::try_from(status).unwrap_or(1),
        Ending::Signal(signal) => 128 + u8::try_from(signal).unwrap_or(0).min(127),
        Ending::Limit(limit) => {
            let message = format!("the command ran into its {}", limit.key());
            return Err(Failure::new(Family::Failed, message).hint(limit.option()));
        }
    };
    Err(Failure::told(Family::Status(status)))
}

/// Rows and columns of a terminal.
fn size(terminal: RawFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills the structure that it is given (ioctl_tty(2)).
    let known = unsafe { libc::ioctl(terminal, libc::TIOCGWINSZ, &raw mut size) } == 0;
    (known && size.ws_row > 0).then_some((size.ws_row, size.ws_col))
}

fn resize(terminal: RawFd, (ws_row, ws_col): (u16, u16)) {
    let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads the structure that it is given.
    unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) };
}

/// While it lives, every key goes to the shell, and this terminal changes nothing of what is
/// printed: the shell's own does that.
struct Raw {
    before: libc::termios,
}

impl Raw {
    fn enter() -> Option<Self> {
        let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the structure is filled by the first call, and read only if that worked.
        unsafe {
            if libc::tcgetattr(0, before.as_mut_ptr()) != 0 {
                return None;
            }
            let before = before.assume_init();
            let mut raw = before;
            libc::cfmakeraw(&raw mut raw);
            libc::tcsetattr(0, libc::TCSADRAIN, &raw const raw);
            Some(Self { before })
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the structure came from the kernel.
        unsafe { libc::tcsetattr(0, libc::TCSADRAIN, &raw const self.before) };
    }
}

/// Carries bytes and sizes between this terminal and the shell's, until the latter is closed.
fn carry(other: &File) -> std::io::Result<()> {
    let (mut known, mut buffer) = (None, [0; 16 << 10]);
    let mut typed = true;
    loop {
        let now = size(0);
        if let Some(now) = now.filter(|now| known != Some(*now)) {
            resize(other.as_raw_fd(), now);
            known = Some(now);
        }
        let input = stdin();
        let (from_person, from_shell) = ready(typed.then(|| input.as_fd()), other)?;
        if from_shell {
            // An error is how the other end says that it is closed.
            let count = (&*other).read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let mut output = stdout().lock();
            output.write_all(&buffer[..count])?;
            output.flush()?;
        }
        if from_person {
            match input.lock().read(&mut buffer)? {
                0 => typed = false,
                count => (&*other).write_all(&buffer[..count])?,
            }
        }
    }
}

/// Waits until one of both can be read, or the size should be looked at.
fn ready(person: Option<BorrowedFd<'_>>, shell: &File) -> std::io::Result<(bool, bool)> {
    let poll =
        |descriptor: RawFd| libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // The kernel passes over negative descriptors.
    let mut polled =
        [poll(person.map_or(-1, |person| person.as_raw_fd())), poll(shell.as_raw_fd())];
    // SAFETY: the count is the array's own.
    if unsafe { libc::poll(polled.as_mut_ptr(), 2, SIZE_POLL) } < 0 {
        let error = std::io::Error::last_os_error();
        return match error.kind() {
            std::io::ErrorKind::Interrupted => Ok((false, false)),
            _ => Err(error),
        };
    }
    Ok((polled[0].revents != 0, polled[1].revents != 0))
}
