//! Why accounts cannot be merged, and between whom.

/// Who asked for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// base-passwd's master files, or another file that was there from the start.
    Base,
    /// The scripts of a package.
    Package(String),
    /// `image.toml`.
    Image,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base => f.write_str("the base system"),
            Self::Package(name) => write!(f, "package {name}"),
            Self::Image => f.write_str("image.toml"),
        }
    }
}

/// Whether a number or name belongs to a user or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl std::fmt::Display for AccountKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// Why accounts cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A line is not of its file's format.
    #[error("{file} of {origin}, line {line}: {text:?} is not in the format of that file")]
    Line {
        /// `passwd`, `group`, `shadow` or `gshadow`.
        file: &'static str,
        /// Whose file it is.
        origin: Origin,
        /// The line's number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// Two names want one number.
    #[error("{kind} {name:?} ({origin}) cannot have id {id}: {holder:?} ({holder_origin}) has it")]
    IdTaken {
        /// User or group.
        kind: AccountKind,
        /// The number.
        id: u32,
        /// The name that is added.
        name: String,
        /// Who adds it.
        origin: Origin,
        /// The name that has the number.
        holder: String,
        /// Who added that.
        holder_origin: Origin,
    },
    /// One name is to have two numbers.
    #[error("{kind} {name:?} has id {id} ({holder_origin}), and {origin} wants id {wanted}")]
    NameTaken {
        /// User or group.
        kind: AccountKind,
        /// The name.
        name: String,
        /// The number it has.
        id: u32,
        /// Who gave it that.
        holder_origin: Origin,
        /// The number it is to have.
        wanted: u32,
        /// Who wants that.
        origin: Origin,
    },
    /// A user is to be in a group that nobody defines.
    #[error("user {user:?} is to be in group {group:?}, which does not exist")]
    UnknownGroup {
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
    /// A name, directory, shell or comment cannot stand in the files.
    #[error("{kind} {name:?}: {field} {value:?} {problem}")]
    Field {
        /// User or group.
        kind: AccountKind,
        /// The account.
        name: String,
        /// Which of its fields.
        field: &'static str,
        /// The field's value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}
