//! Plain lines, for logs of CI and for pipes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use drystone_builder::progress::Event;

use crate::quantity::Bytes;

/// A download is told at each of so many equal steps.
const STEPS: u64 = 4;

/// One line for each thing that begins.
#[derive(Default)]
pub struct Lines {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phases: BTreeMap<String, String>,
    expected: u64,
    received: u64,
    told: u64,
}

impl State {
    /// The lines that an event is worth. A phase that says the same again is worth none.
    fn take(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Phase { name, text } => {
                let text = text.replace(char::is_control, " ");
                let line = format!("{name}: {text}\n");
                let known = self.phases.insert(name, text.clone());
                (known.as_ref() != Some(&text)).then_some(line)
            }
            Event::Done { name } => {
                self.phases.remove(&name);
                None
            }
            Event::Expected { bytes } => {
                self.expected += bytes;
                None
            }
            Event::Received { bytes } => {
                self.received += bytes;
                self.received()
            }
            Event::Warning { .. } | Event::Note { .. } => None,
        }
    }

    fn received(&mut self) -> Option<String> {
        if self.expected == 0 {
            return None;
        }
        let whole = self.received >= self.expected;
        let step = if whole { STEPS } else { self.received * STEPS / self.expected };
        if step <= self.told {
            return None;
        }
        let line = format!("download: {} of {}\n", Bytes(self.received), Bytes(self.expected));
        self.told = step;
        if whole {
            (self.expected, self.received, self.told) = (0, 0, 0);
        }
        Some(line)
    }
}

impl Lines {
    pub fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = state.take(event) {
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_few_lines_and_a_phase_is_one() {
        let mut state = State::default();
        let mut text = String::new();
        let mut take = |event| text.push_str(&state.take(event).unwrap_or_default());
        take(Event::Expected { bytes: 4096 });
        (0..4096).for_each(|_| take(Event::Received { bytes: 1 }));
        let phase = || Event::Phase { name: "configure".into(), text: "nginx\u{1b}[2J".into() };
        take(phase());
        take(phase());
        take(Event::Done { name: "configure".into() });
        assert_eq!(
            text,
            "download: 1.0 KiB of 4.0 KiB\ndownload: 2.0 KiB of 4.0 KiB\n\
             download: 3.0 KiB of 4.0 KiB\ndownload: 4.0 KiB of 4.0 KiB\nconfigure: nginx [2J\n"
        );
    }
}
