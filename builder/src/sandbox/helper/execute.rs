//! Running one command: its output is pumped to the log, its limits are kept.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::error::{At, Failure};
use super::super::messages::{Executed, InitReply, InitRequest};
use super::super::request::{Command, Ending};
use super::super::resources::Limit;
use super::super::wire::Connection;
use super::disk::DiskWatch;
use super::supervisor::Supervisor;

/// How much of the end of a command's output is returned, in bytes.
const TAIL: usize = 16 << 10;
/// How much captured output is returned, in bytes.
const CAPTURE: usize = 16 << 20;

/// Why a command has no result.
pub(super) enum Stop {
    Failure(Failure),
    /// The caller hung up: everything is to end.
    CallerGone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Runs a command; returns how it ended, and its tail followed by its captured output.
pub(super) fn run(
    supervisor: &mut Supervisor,
    caller: &Connection,
    command: Command,
    log: Option<OwnedFd>,
) -> Result<(Executed, Vec<u8>), Stop> {
    let (limits, capture) = (Limits::of(&command), command.capture);
    let program = command.argv.first().cloned().unwrap_or_default();
    let disk = match command.resources.disk {
        Some(limit) => Some(supervisor.watch_disk(limit)?),
        None => None,
    };
    let streams = match command.terminal {
        true => Streams::of_terminal(supervisor.terminal.take())?,
        false => Streams::pipes(capture, &program)?,
    };
    let Streams { main, extra, output, error } = streams;
    supervisor
        .init
        .send_with(&InitRequest::Start(command), &[], &[output.as_fd(), error.as_fd()])
        .at("talk to", "init")?;
    drop((output, error));
    let mut pump = Pump {
        main,
        extra,
        log: log.map(std::fs::File::from),
        disk,
        tail: Vec::new(),
        captured: Vec::new(),
    };
    let (reply, stopped) = pump.run(supervisor, caller, limits)?;
    let ending = match reply {
        InitReply::NotStarted { step, errno } => {
            return Err(Failure::Start { program, step, errno }.into());
        }
        InitReply::Ended(ending) => stopped.unwrap_or(ending),
    };
    let mut bytes = pump.tail;
    let tail = bytes.len();
    bytes.extend(pump.captured);
    Ok((Executed { ending, tail }, bytes))
}

/// A command's output and error, and the ends that are read here.
struct Streams {
    main: Option<OwnedFd>,
    extra: Option<OwnedFd>,
    output: OwnedFd,
    error: OwnedFd,
}

impl Streams {
    /// Output and error together, or each for itself.
    fn pipes(apart: bool, program: &str) -> Result<Self, Failure> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).at("make a pipe for", program);
        let (main, error) = pipe()?;
        let (extra, output) = match apart {
            true => {
                let (extra, output) = pipe()?;
                (Some(extra), output)
            }
            false => (None, error.try_clone().at("share a pipe for", program)?),
        };
        Ok(Self { main: Some(main), extra, output, error })
    }

    /// A terminal, whose other end somebody else reads.
    fn of_terminal(terminal: Option<OwnedFd>) -> Result<Self, Failure> {
        let output = terminal.ok_or_else(|| Failure::request("a terminal that was not made"))?;
        let error = output.try_clone().at("share", "a terminal")?;
        Ok(Self { main: None, extra: None, output, error })
    }
}

/// When a command has to end, and when it has to have printed something.
struct Limits {
    end: Option<Instant>,
    silence: Option<Duration>,
    heard: Instant,
}

impl Limits {
    fn of(command: &Command) -> Self {
        let now = Instant::now();
        let end = command.time_limit.and_then(|limit| now.checked_add(limit));
        Self { end, silence: command.silence_limit, heard: now }
    }

    /// The limit that is reached, or the time until the next one.
    fn check(&self) -> Result<Option<Duration>, Ending> {
        let now = Instant::now();
        let quiet = self.silence.and_then(|limit| self.heard.checked_add(limit));
        if self.end.is_some_and(|end| now >= end) {
            return Err(Ending::Limit(Limit::Time));
        }
        if quiet.is_some_and(|end| now >= end) {
            return Err(Ending::Limit(Limit::Silence));
        }
        let next = match (self.end, quiet) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Ok(next.map(|next| next.saturating_duration_since(now)))
    }
}

struct Pump {
    /// Output and error, or error alone.
    main: Option<OwnedFd>,
    /// Captured output.
    extra: Option<OwnedFd>,
    log: Option<std::fs::File>,
    disk: Option<DiskWatch>,
    tail: Vec<u8>,
    captured: Vec<u8>,
}

impl Pump {
    /// Pumps until init says that all is gone and every pipe is empty.
    fn run(
        &mut self,
        supervisor: &Supervisor,
        caller: &Connection,
        mut limits: Limits,
    ) -> Result<(InitReply, Option<Ending>), Stop> {
        let mut stopped = None;
        let mut reply = None;
        while reply.is_none() || self.main.is_some() || self.extra.is_some() {
            let timeout = match stopped {
                Some(_) => None,
                None => match limits.check() {
                    Ok(timeout) => timeout,
                    Err(ending) => {
                        stopped = Some(ending);
                        supervisor.init.send(&InitRequest::Kill).at("talk to", "init")?;
                        None
                    }
                },
            };
            let ready = self.poll(supervisor, caller, reply.is_some(), timeout)?;
            if ready.caller {
                return Err(Stop::CallerGone);
            }
            if ready.disk {
                // The watch has ended, and has said all.
                self.disk = None;
                stopped.get_or_insert(Ending::Limit(Limit::Disk));
                supervisor.init.send(&InitRequest::Kill).at("talk to", "init")?;
            }
            if ready.init {
                let frame = supervisor.init.receive().at("hear from", "init")?;
                let gone = || Failure::host("init of the root is gone", "", None);
                reply = Some(frame.ok_or_else(gone)?.message);
            }
            if (ready.main && self.read_main()?) || (ready.extra && self.read_extra()?) {
                limits.heard = Instant::now();
            }
        }
        // The loop ends only with a reply.
        reply
            .map(|reply| (reply, stopped))
            .ok_or_else(|| Failure::host("init of the root is gone", "", None).into())
    }

    fn poll(
        &self,
        supervisor: &Supervisor,
        caller: &Connection,
        replied: bool,
        timeout: Option<Duration>,
    ) -> Result<Ready, Failure> {
        let mut polled = vec![PollFd::from_borrowed_fd(caller.as_fd(), PollFlags::IN)];
        let mut add = |descriptor| {
            polled.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
            polled.len() - 1
        };
        let init = (!replied).then(|| add(supervisor.init.as_fd()));
        let disk = self.disk.as_ref().map(|watch| add(watch.as_fd()));
        let main = self.main.as_ref().map(|pipe| add(pipe.as_fd()));
        let extra = self.extra.as_ref().map(|pipe| add(pipe.as_fd()));
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).at("wait for", "a command"),
        }
        let is_ready =
            |index: Option<usize>| index.is_some_and(|index| !polled[index].revents().is_empty());
        Ok(Ready {
            caller: is_ready(Some(0)),
            init: is_ready(init),
            disk: is_ready(disk),
            main: is_ready(main),
            extra: is_ready(extra),
        })
    }

    /// Passes output on; `false` at its end.
    fn read_main(&mut self) -> Result<bool, Failure> {
        let Some(bytes) = read_some(&mut self.main)? else { return Ok(false) };
        if let Some(log) = &mut self.log {
            log.write_all(&bytes).at("write", "the log")?;
        }
        self.tail.extend(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        Ok(true)
    }

    fn read_extra(&mut self) -> Result<bool, Failure> {
        let Some(bytes) = read_some(&mut self.extra)? else { return Ok(false) };
        let room = CAPTURE.saturating_sub(self.captured.len());
        self.captured.extend(&bytes[..bytes.len().min(room)]);
        Ok(true)
    }
}

struct Ready {
    caller: bool,
    init: bool,
    disk: bool,
    main: bool,
    extra: bool,
}

/// Reads what is there; at the end the pipe is closed.
fn read_some(pipe: &mut Option<OwnedFd>) -> Result<Option<Vec<u8>>, Failure> {
    let Some(open) = pipe else { return Ok(None) };
    let mut buffer = vec![0; 64 << 10];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(&*open, &mut buffer))
        .at("read the output of", "a command")?;
    if count == 0 {
        *pipe = None;
        return Ok(None);
    }
    buffer.truncate(count);
    Ok(Some(buffer))
}
