//! How far commands are kept from the host.

/// What stands between commands and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Namespaces: the sandbox as the parent module describes it.
    #[default]
    Namespaces,
    /// Nothing but `chroot`, fewer capabilities and the system call filter, which also refuses
    /// sockets of the internet: for hosts that forbid namespaces, where the caller is root. Commands
    /// see the host's processes, host name and clock; there is no `/proc`, and no overlay.
    None,
}

impl Isolation {
    /// The argument that tells a helper.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::None => "none",
        }
    }

    /// What a helper was told.
    pub(super) fn from_word(word: &[u8]) -> Self {
        match word == Self::None.word().as_bytes() {
            true => Self::None,
            false => Self::Namespaces,
        }
    }
}
