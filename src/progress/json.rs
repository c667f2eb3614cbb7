//! JSON lines, for programs that show progress themselves. `docs/json.md` describes them.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drystone_builder::progress::Event;
use serde_json::{Value, json};

/// Received bytes are told at most this often.
const PAUSE: Duration = Duration::from_millis(200);

/// One object a line.
#[derive(Default)]
pub struct JsonLines {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    expected: u64,
    received: u64,
    last: Option<Instant>,
}

impl State {
    fn take(&mut self, event: &Event) -> Option<Value> {
        match event {
            Event::Phase { name, text } => {
                Some(json!({ "event": "phase", "name": name, "text": text }))
            }
            Event::Done { name } => Some(json!({ "event": "done", "name": name })),
            Event::Expected { bytes } => {
                self.expected += bytes;
                Some(self.download())
            }
            Event::Received { bytes } => {
                self.received += bytes;
                let whole = self.received >= self.expected;
                let due = self.last.is_none_or(|last| last.elapsed() >= PAUSE);
                (whole || due).then(|| {
                    self.last = Some(Instant::now());
                    self.download()
                })
            }
            Event::Warning { text } => Some(json!({ "event": "warning", "text": text })),
            Event::Note { text } => Some(json!({ "event": "note", "text": text })),
        }
    }

    fn download(&self) -> Value {
        json!({ "event": "download", "received": self.received, "expected": self.expected })
    }
}

impl JsonLines {
    pub fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = state.take(event) {
            let _ = io::stderr().lock().write_all(format!("{value}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_an_object_that_names_itself() {
        let mut state = State::default();
        let events = [
            Event::Phase { name: "a".into(), text: "b".into() },
            Event::Done { name: "a".into() },
            Event::Expected { bytes: 10 },
            Event::Received { bytes: 10 },
            Event::Warning { text: "w".into() },
            Event::Note { text: "n".into() },
        ];
        let names: Vec<_> = events
            .iter()
            .map(|event| state.take(event).unwrap()["event"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["phase", "done", "download", "download", "warning", "note"]);
    }
}
