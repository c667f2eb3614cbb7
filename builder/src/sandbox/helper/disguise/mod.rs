//! Disguises: commands see another clock, another order, another kernel.
//!
//! ```text
//! init ── tracer    follows the command and all its descendants by ptrace
//!     └── command   a filter of its own stops (SECCOMP_RET_TRACE) the few calls that tell about the
//!                   world; the kernel answers them, and the tracer corrects the answer in memory
//! ```
//!
//! Most clocks are read without a system call, in the vDSO, so each program that starts is kept
//! from finding that: its entry in the auxiliary vector on the stack is made one to ignore. C
//! libraries (static ones too) and Go's run time then ask the kernel. A program that reads the
//! processor's counter by itself, or that escapes with `CLONE_UNTRACED`, sees the truth.
//!
//! All else is set up before a command starts: files over some of `/proc`'s, the processors that it
//! may use, its umask.

mod answer;
mod calls;
mod filter;
mod memory;
mod proc;
mod tracer;
mod vector;

pub(super) use filter::compile;
pub(super) use proc::cover;
pub(super) use tracer::{Gate, Tracing};

use super::super::disguise::Disguise;

/// Before a command is confined: what holds for the process itself.
pub(super) fn prepare_process(disguise: &Disguise) {
    if !disguise.one_processor {
        return;
    }
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|&number| allowed.is_set(number));
    if let Some(first) = first {
        let mut one = rustix::thread::CpuSet::new();
        one.set(first);
        // A process may always give processors up.
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
}
