//! Bars: the bytes of all downloads in one, and a line for each phase that goes on.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drystone_builder::progress::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::Terminal;

/// More phases than this are not shown at once: a terminal has few lines.
const MOST_PHASES: usize = 8;

/// Moving bars on a terminal.
pub struct Bars {
    all: MultiProgress,
    state: Mutex<State>,
    phase_style: ProgressStyle,
    download_style: ProgressStyle,
}

#[derive(Default)]
struct State {
    download: Option<ProgressBar>,
    expected: u64,
    received: u64,
    phases: BTreeMap<String, ProgressBar>,
}

impl Bars {
    pub fn new(terminal: Terminal) -> Self {
        let template = |coloured: &str, plain: &str| {
            let text = if terminal.coloured { coloured } else { plain };
            ProgressStyle::with_template(text).expect("the templates are constant and valid")
        };
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
            state: Mutex::default(),
            phase_style: template(
                "{spinner:.cyan} {prefix:.bold} {wide_msg:.dim}",
                "{spinner} {prefix} {wide_msg}",
            ),
            download_style: template(
                "  {prefix:.bold} [{bar:30.cyan}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
                "  {prefix} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            )
            .progress_chars("=> "),
        }
    }

    pub fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { name, text } => self.phase(&mut state, name, text),
            Event::Done { name } => {
                if let Some(bar) = state.phases.remove(&name) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            Event::Expected { bytes } => {
                state.expected += bytes;
                self.download(&mut state);
            }
            Event::Received { bytes } => {
                state.received += bytes;
                self.download(&mut state);
            }
            // Shown by the caller, as text between the bars.
            Event::Warning { .. } | Event::Note { .. } => {}
        }
    }

    fn phase(&self, state: &mut State, name: String, text: String) {
        let text = text.lines().last().unwrap_or_default().replace(char::is_control, " ");
        if let Some(bar) = state.phases.get(&name) {
            return bar.set_message(text);
        }
        if state.phases.len() >= MOST_PHASES {
            return;
        }
        let bar = self.all.add(ProgressBar::new_spinner().with_style(self.phase_style.clone()));
        bar.set_prefix(name.clone());
        bar.set_message(text);
        bar.enable_steady_tick(Duration::from_millis(120));
        state.phases.insert(name, bar);
    }

    fn download(&self, state: &mut State) {
        let bar = state.download.get_or_insert_with(|| {
            let bar = ProgressBar::new(0).with_style(self.download_style.clone());
            self.all.insert(0, bar).with_prefix("download")
        });
        bar.set_length(state.expected.max(state.received));
        bar.set_position(state.received);
        if state.received >= state.expected
            && let Some(bar) = state.download.take()
        {
            bar.finish_and_clear();
            self.all.remove(&bar);
            (state.expected, state.received) = (0, 0);
        }
    }

    pub fn print(&self, text: &str) {
        self.all.suspend(|| {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        });
    }

    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in state.phases.values().chain(&state.download) {
            bar.finish_and_clear();
        }
        *state = State::default();
        let _ = self.all.clear();
    }
}
