//! `man`: manual pages, one for each command, made from the command line's own description.

use clap::CommandFactory;

use crate::arguments::{Arguments, ManArguments};
use crate::diagnostics::Failure;

/// Writes the pages.
pub fn run(arguments: &ManArguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::path("create", directory, error))?;
    // The terminal's width must not decide where the pages' lines break.
    let command = Arguments::command().term_width(100);
    clap_mangen::generate_to(command, directory)
        .map_err(|error| Failure::path("write manual pages into", directory, error))
}
