//! Ctrl-C and SIGTERM: the first one cancels and cleans up, the second one ends at once.
//!
//! ```text
//! signal -> requested() is true: the builder stops at its next step, downloads are dropped
//!        -> child processes (sandbox sessions, engines) are killed: what waits for them fails
//!        -> main unwinds, values are dropped: temporary files, sessions, store locks
//!        -> not back within the grace time: the rest is removed here, and the process ends
//! ```
//!
//! A sandbox dies with its session and a session with this process, and what a killed process
//! leaves in the store's `tmp/` the next one sweeps; so even SIGKILL leaves nothing for long.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drystone_builder::progress::{Event, Progress};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::progress::Display;

/// How long the command may take to clean up after itself.
const GRACE: Duration = Duration::from_secs(10);

/// The signal that came, 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Folders that only this process uses.
static OWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What was stopped by a signal fails with this; the command then says that it was interrupted.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The signal that asked the command to end, if one came.
pub fn requested() -> Option<i32> {
    Some(SIGNAL.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Fails once a signal came: for the steps between two pieces of work.
pub fn check() -> Result<(), Interrupted> {
    match requested() {
        Some(_) => Err(Interrupted),
        None => Ok(()),
    }
}

/// Waits for a signal.
async fn cancelled() {
    while requested().is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for something that a signal ends: it is then dropped.
pub async fn or_cancelled<T>(work: impl Future<Output = T>) -> Result<T, Interrupted> {
    tokio::select! {
        done = work => Ok(done),
        () = cancelled() => Err(Interrupted),
    }
}

/// Removes a folder if the command must be ended by force.
pub fn remove_at_exit(folder: PathBuf) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
}

/// Listens for signals from now on. Where the system refuses, signals end the process as ever.
pub fn listen(display: &Display) {
    let mut signals = match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => return tracing::debug!(%error, "signals are not handled"),
    };
    let display = display.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let spawned = thread.spawn(move || {
        let mut first = true;
        for signal in signals.forever() {
            if !first {
                end(signal);
            }
            first = false;
            begin(signal, &display);
        }
    });
    if let Err(error) = spawned {
        tracing::debug!(%error, "signals are not handled");
    }
}

fn begin(signal: i32, display: &Display) {
    SIGNAL.store(signal, Ordering::Relaxed);
    display
        .event(Event::Note { text: "interrupted: cleaning up (once more to end at once)".into() });
    let watch = std::thread::Builder::new().name("grace".to_owned());
    let spawned = watch.spawn(move || {
        // Steps start children until they see the request, so one round is not enough.
        let rounds = u32::try_from(GRACE.as_millis() / 250).unwrap_or(40);
        for _ in 0..rounds {
            kill_children();
            std::thread::sleep(Duration::from_millis(250));
        }
        end(signal);
    });
    if spawned.is_err() {
        end(signal);
    }
}

/// Ends the process, and with it every sandbox.
fn end(signal: i32) -> ! {
    for folder in OWN.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = fs::remove_dir_all(folder);
    }
    std::process::exit(128 + signal)
}

/// Kills this process's own children: sandbox sessions, which take everything below them along,
/// and the programs of container engines.
fn kill_children() {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|text| text.parse().ok()) {
            if let Some(pid) = Pid::from_raw(child) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
