//! docs/cli.md is held to the command line's own description.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory};

use crate::arguments::Arguments;

const DOCUMENT: &str = include_str!("../../docs/cli.md");

/// Every command that does something, with its path: `drystone store gc`.
fn leaves(command: &Command, path: &str) -> Vec<(String, Command)> {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    if command.get_subcommands().next().is_none() {
        return vec![(path, command.clone())];
    }
    command.get_subcommands().flat_map(|command| leaves(command, &path)).collect()
}

/// The flags of a command's own, without those that every command has.
fn flags(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter(|argument| !argument.is_global_set());
    let long = own.filter_map(|argument| argument.get_long());
    long.filter(|flag| *flag != "help").map(|flag| format!("--{flag}")).collect()
}

/// The flags that a section's table rows and lists define: `- `-o`, `--output FILE`: …`.
fn documented(section: &str) -> BTreeSet<String> {
    let lines = section.lines().filter(|line| line.starts_with("- `-"));
    let terms = lines.filter_map(|line| line.split_once(": ").map(|(term, _)| term));
    terms
        .flat_map(|term| term.split(['`', ' ', ',', '[', '=']))
        .filter(|word| word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

fn section(title: &str) -> &'static str {
    let heading = format!("\n## {title}\n");
    let start = DOCUMENT.find(&heading).unwrap_or_else(|| panic!("docs/cli.md lacks {heading:?}"));
    let rest = &DOCUMENT[start + heading.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn every_command_and_flag_is_described_and_no_other() {
    let root = Arguments::command();
    let commands = leaves(&root, "");
    for (path, command) in &commands {
        assert_eq!(documented(section(&format!("`{path}`"))), flags(command), "{path}");
    }
    let headings = DOCUMENT.lines().filter(|line| line.starts_with("## `drystone")).count();
    assert_eq!(headings, commands.len(), "a command is described that does not exist");
}

#[test]
fn flags_of_every_command_are_described() {
    let root = Arguments::command();
    let global = root.get_arguments().filter(|argument| argument.is_global_set());
    let global: BTreeSet<String> =
        global.filter_map(|argument| argument.get_long()).map(|flag| format!("--{flag}")).collect();
    assert_eq!(documented(section("Flags of every command")), global);
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}
