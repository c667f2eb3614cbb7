//! What long work says while it goes on.

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase begins, such as `configure nginx-common`.
    Phase {
        /// What is worked on; the same for all events of one piece of work.
        name: String,
        /// What is done with it.
        text: String,
    },
    /// A piece of work ended well.
    Done {
        /// What was worked on.
        name: String,
    },
    /// Downloads begin or grow by this many bytes in all.
    Expected {
        /// Bytes.
        bytes: u64,
    },
    /// Bytes arrived.
    Received {
        /// Bytes.
        bytes: u64,
    },
    /// Something that the user should know but that stops nothing.
    Warning {
        /// One line.
        text: String,
    },
    /// Something that the user may want to know.
    Note {
        /// One line.
        text: String,
    },
}

/// Takes events from any thread. Taking an event never fails and never blocks for long.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);

    /// Reports a phase.
    fn phase(&self, name: &str, text: impl Into<String>)
    where
        Self: Sized,
    {
        self.event(Event::Phase { name: name.to_owned(), text: text.into() });
    }
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}
