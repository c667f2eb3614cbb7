//! Progress and messages on standard error: bars, lines, JSON lines, or nothing.
//!
//! ```text
//! builder --Event--> Display --+-- Bars    one total for downloads, one line for each phase
//!                              +-- Lines   for logs: no line is ever rewritten
//!                              +-- Json    one object a line
//!                              +-- (quiet) errors only
//! ```

mod bars;
mod json;
mod lines;

use std::io::{self, Write};
use std::sync::Arc;

use drystone_builder::progress::{Event, Progress};
use tracing_subscriber::fmt::MakeWriter;

use crate::diagnostics::Failure;
use crate::terminal::{Kind, Terminal, YELLOW};
use bars::Bars;
use json::JsonLines;
use lines::Lines;

/// Shows what happens. Clones show it in the same place.
#[derive(Clone)]
pub struct Display {
    terminal: Terminal,
    shown: Shown,
}

#[derive(Clone)]
enum Shown {
    Bars(Arc<Bars>),
    Lines(Arc<Lines>),
    Json(Arc<JsonLines>),
    Quiet,
}

impl Display {
    /// A display of the terminal's kind.
    pub fn new(terminal: Terminal) -> Self {
        let shown = match terminal.kind {
            Kind::Bars => Shown::Bars(Arc::new(Bars::new(terminal))),
            Kind::Lines => Shown::Lines(Arc::new(Lines::default())),
            Kind::Json => Shown::Json(Arc::new(JsonLines::default())),
            Kind::Quiet => Shown::Quiet,
        };
        Self { terminal, shown }
    }

    /// How messages look.
    pub const fn terminal(&self) -> Terminal {
        self.terminal
    }

    /// Says something that is good to know.
    pub fn note(&self, text: impl Into<String>) {
        self.event(Event::Note { text: text.into() });
    }

    /// Says something that the user should know but that stops nothing.
    pub fn warn(&self, text: impl Into<String>) {
        self.event(Event::Warning { text: text.into() });
    }

    /// Ends all bars: what follows is the answer, or the failure.
    pub fn finish(&self) {
        if let Shown::Bars(bars) = &self.shown {
            bars.finish();
        }
    }

    /// Shows a failure, after everything else.
    pub fn failure(&self, failure: &Failure) {
        self.finish();
        let text = match self.shown {
            Shown::Json(_) => failure.to_json().map(|value| format!("{value}\n")),
            _ => Some(failure.render(self.terminal)),
        };
        // Nobody is left to be told when standard error is gone.
        let _ = io::stderr().lock().write_all(text.unwrap_or_default().as_bytes());
    }

    /// Writes whole lines beside the bars.
    fn raw(&self, text: &str) {
        match &self.shown {
            Shown::Bars(bars) => bars.print(text),
            _ => {
                let _ = io::stderr().lock().write_all(text.as_bytes());
            }
        }
    }
}

impl Progress for Display {
    fn event(&self, event: Event) {
        match (&self.shown, &event) {
            (Shown::Quiet, _) => {}
            (Shown::Json(json), _) => json.event(&event),
            (_, Event::Warning { text }) => {
                self.raw(&format!("{} {text}\n", self.terminal.paint(YELLOW, "warning:")));
            }
            (_, Event::Note { text }) => self.raw(&format!("{text}\n")),
            (Shown::Bars(bars), _) => bars.event(event),
            (Shown::Lines(lines), _) => lines.event(event),
        }
    }
}

/// Takes the log's lines, so that they do not tear the bars.
impl<'a> MakeWriter<'a> for Display {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter { display: self, line: Vec::new() }
    }
}

/// Gathers one log record and shows it when it ends.
pub struct LogWriter<'a> {
    display: &'a Display,
    line: Vec<u8>,
}

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.display.raw(&String::from_utf8_lossy(&self.line));
        }
    }
}
