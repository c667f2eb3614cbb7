//! The command `drystone`: from what was typed to what is printed, and nothing in between.
//!
//! ```text
//! arguments (as typed) -> wiring (settings, store, runtime) -> commands -> the crates below
//!                                                                 |
//!            progress, diagnostics: standard error                +-> answer: standard output
//! ```
//!
//! Standard output carries the answer that a script reads and nothing else.

mod answer;
mod arguments;
mod bases;
mod caching;
mod commands;
mod diagnostics;
mod explain;
mod interrupt;
mod locking;
mod progress;
mod quantity;
mod terminal;
mod unchanged;
mod wiring;

fn main() -> std::process::ExitCode {
    // First of all: in a process that was started as the sandbox's helper this never returns.
    drystone_builder::sandbox::helper_main_if_requested();
    bound_memory();
    commands::run()
}

/// Lets all threads share two pools of memory. By default each has one of its own, and what
/// buffers leave behind in each made two thirds of a build's peak.
fn bound_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a number, and no other thread has been started yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
