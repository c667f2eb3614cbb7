//! `completions`: a shell's completion script, made from the command line's own description.

use clap::CommandFactory;

use crate::answer;
use crate::arguments::{Arguments, CompletionsArguments};
use crate::diagnostics::Failure;

/// Prints the script.
pub fn run(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "drystone", &mut script);
    answer::print(&String::from_utf8_lossy(&script))
}
