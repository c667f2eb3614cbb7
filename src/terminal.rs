//! What standard error is, and how it may be used.

use std::io::{IsTerminal, stderr, stdout};

use drystone_builder::document::Style;

use crate::arguments::{ColorArgument, GlobalArguments, ProgressArgument};

/// How messages and progress are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Whether messages are coloured.
    pub coloured: bool,
    /// Whether an answer for people is coloured.
    coloured_answers: bool,
    /// How progress is shown.
    pub kind: Kind,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bars that move.
    Bars,
    /// One line for each thing that happens.
    Lines,
    /// One JSON object for each thing that happens.
    Json,
    /// Not at all.
    Quiet,
}

/// What the process was started in.
#[derive(Debug, Clone, Copy, Default)]
struct Surroundings {
    is_terminal: bool,
    answers_on_terminal: bool,
    no_color: bool,
    ci: bool,
    dumb: bool,
}

impl Terminal {
    /// Decides from the flags and from what standard error is.
    pub fn new(arguments: &GlobalArguments) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let surroundings = Surroundings {
            is_terminal: stderr().is_terminal(),
            answers_on_terminal: stdout().is_terminal(),
            no_color: set("NO_COLOR"),
            ci: set("CI"),
            dumb: std::env::var_os("TERM").is_none_or(|term| term == "dumb"),
        };
        Self::decide(arguments, surroundings)
    }

    fn decide(arguments: &GlobalArguments, around: Surroundings) -> Self {
        let coloured = |is_terminal: bool| match arguments.color {
            ColorArgument::Always => true,
            ColorArgument::Never => false,
            ColorArgument::Auto => is_terminal && !around.no_color && !around.dumb,
        };
        let kind = match arguments.progress {
            _ if arguments.quiet => Kind::Quiet,
            ProgressArgument::Quiet => Kind::Quiet,
            ProgressArgument::Plain => Kind::Lines,
            ProgressArgument::Json => Kind::Json,
            ProgressArgument::Auto if around.is_terminal && !around.ci && !around.dumb => {
                Kind::Bars
            }
            ProgressArgument::Auto => Kind::Lines,
        };
        Self {
            coloured: coloured(around.is_terminal),
            coloured_answers: coloured(around.answers_on_terminal),
            kind,
        }
    }

    /// No colours.
    #[cfg(test)]
    pub const fn plain(kind: Kind) -> Self {
        Self { coloured: false, coloured_answers: false, kind }
    }

    /// The same for standard output.
    #[must_use]
    pub const fn for_answers(self) -> Self {
        Self { coloured: self.coloured_answers, ..self }
    }

    /// The style of problems with a place.
    pub const fn style(self) -> Style {
        if self.coloured { Style::Coloured } else { Style::Plain }
    }

    /// A word in bold and a colour of the eight (SGR 31 to 36).
    pub fn paint(self, colour: u8, text: &str) -> String {
        match self.coloured {
            true => format!("\u{1b}[1;{colour}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// SGR codes.
pub const RED: u8 = 31;
/// Green.
pub const GREEN: u8 = 32;
/// Yellow.
pub const YELLOW: u8 = 33;
/// Cyan.
pub const CYAN: u8 = 36;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn decided(words: &[&str], around: Surroundings) -> Terminal {
        let words = ["drystone", "doctor"].iter().chain(words);
        Terminal::decide(&Arguments::try_parse_from(words).unwrap().global, around)
    }

    #[test]
    fn bars_and_colours_are_for_people() {
        let person = Surroundings { is_terminal: true, ..Surroundings::default() };
        let shown = |terminal: Terminal| (terminal.coloured, terminal.kind);
        assert_eq!(shown(decided(&[], person)), (true, Kind::Bars));
        assert!(!decided(&[], person).for_answers().coloured, "its output is a pipe");
        let ci = Surroundings { ci: true, ..person };
        assert_eq!(shown(decided(&[], ci)), (true, Kind::Lines));
        let no_color = Surroundings { no_color: true, ..person };
        assert!(!decided(&[], no_color).coloured);
        assert!(decided(&["--color", "always"], no_color).coloured, "the flag is stronger");
        let pipe = Surroundings::default();
        assert_eq!(decided(&[], pipe), Terminal::plain(Kind::Lines));
    }

    #[test]
    fn quiet_is_stronger_than_a_kind() {
        let around = Surroundings::default();
        assert_eq!(decided(&["-q", "--progress", "json"], around).kind, Kind::Quiet);
        assert_eq!(decided(&["--progress", "json"], around).kind, Kind::Json);
    }
}
