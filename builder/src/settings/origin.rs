//! Where a setting comes from.

use std::fmt;

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command: `--mirror`.
    Flag(&'static str),
    /// A variable of the environment: `DRYSTONE_MIRROR`.
    Variable(&'static str),
    /// A line of a file: a config.toml, or image.toml.
    File {
        /// The file's name.
        file: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// Nobody: the built-in value.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value, and who set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who set it.
    pub origin: Origin,
}

impl<T> Setting<T> {
    pub(super) fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}
