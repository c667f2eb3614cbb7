//! The commands, one file each.

mod build;
mod cache;
mod completions;
mod derivation;
mod diff;
mod doctor;
mod edit;
mod init;
mod key;
mod lock;
mod log;
mod login;
mod man;
mod plan;
mod push;
pub mod sbom;
mod sign;
mod store;
mod tree;
mod update;
mod why;

#[cfg(test)]
mod documentation;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, DerivationCommand};
use crate::diagnostics::{Failure, Family};
use crate::interrupt;
use crate::progress::Display;
use crate::terminal::Terminal;
use crate::wiring::Wiring;

/// Runs what was typed.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let display = Display::new(Terminal::new(&arguments.global));
    let wiring = Wiring::new(arguments.global, display.clone());
    if let Command::Build(build) = &arguments.command
        && let Some(result) = build::unchanged(&wiring, build)
    {
        return report(&display, result);
    }
    interrupt::listen(&display);
    let result = dispatch(&wiring, arguments.command);
    let result = match interrupt::requested() {
        // Whatever failed, failed because everything was being stopped.
        Some(signal) if result.is_err() => {
            Err(Failure::new(Family::Interrupted(signal), "interrupted"))
        }
        _ => result,
    };
    report(&display, result)
}

fn report(display: &Display, result: Result<(), Failure>) -> ExitCode {
    display.finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            display.failure(&failure);
            failure.exit_code()
        }
    }
}

fn dispatch(wiring: &Wiring, command: Command) -> Result<(), Failure> {
    match command {
        Command::Build(arguments) => build::run(wiring, &arguments),
        Command::Push(arguments) => push::run(wiring, *arguments),
        Command::Lock(arguments) => lock::run(wiring, &arguments),
        Command::Update(arguments) => update::run(wiring, &arguments),
        Command::Plan(arguments) => plan::run(wiring, &arguments),
        Command::Why(arguments) => why::run(wiring, &arguments),
        Command::Tree(arguments) => tree::run(wiring, &arguments),
        Command::Diff(arguments) => diff::run(wiring, &arguments),
        Command::Sbom(arguments) => sbom::run(wiring, &arguments),
        Command::Derivation(DerivationCommand::Show(arguments)) => {
            derivation::show(wiring, &arguments)
        }
        Command::Log(arguments) => log::run(wiring, &arguments),
        Command::Check(arguments) => build::check(wiring, &arguments),
        Command::Shell(arguments) => build::shell(wiring, &arguments),
        Command::Doctor(arguments) => doctor::run(wiring, &arguments),
        Command::Init(arguments) => init::run(wiring, &arguments),
        Command::Add(arguments) => edit::add(wiring, &arguments),
        Command::Remove(arguments) => edit::remove(wiring, &arguments),
        Command::Store(command) => store::run(wiring, &command),
        Command::Gc(arguments) => store::gc(wiring, &arguments),
        Command::Login(arguments) => login::login(wiring, &arguments),
        Command::Logout(arguments) => login::logout(wiring, &arguments),
        Command::Sign(arguments) => sign::sign(wiring, &arguments),
        Command::Verify(arguments) => sign::verify(wiring, &arguments),
        Command::Cache(command) => cache::run(wiring, &command),
        Command::Key(command) => key::run(wiring, &command),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}
