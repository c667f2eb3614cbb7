//! What `image.toml` asks for: `[users.NAME]` and `[groups.NAME]`.

use super::database::User;
use super::{AccountError, AccountKind, Origin};

/// `[groups.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedGroup {
    /// The name.
    pub name: String,
    /// The number.
    pub gid: u32,
}

/// `[users.NAME]`. What is not given keeps the value of a user of that name and number that
/// packages have made; else it has the default that the field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedUser {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the primary group; default: the group of the user's name.
    pub gid: Option<u32>,
    /// The home directory; default `/nonexistent`, as Debian gives system users.
    pub home: Option<String>,
    /// The login shell; default `/usr/sbin/nologin`.
    pub shell: Option<String>,
    /// The comment (GECOS); default empty.
    pub comment: Option<String>,
    /// Names of further groups.
    pub groups: Vec<String>,
}

impl RequestedGroup {
    pub(super) fn check(&self) -> Result<(), AccountError> {
        check_name(AccountKind::Group, &self.name)?;
        check_id(AccountKind::Group, &self.name, "gid", self.gid)
    }
}

impl RequestedUser {
    pub(super) fn check(&self) -> Result<(), AccountError> {
        check_name(AccountKind::User, &self.name)?;
        check_id(AccountKind::User, &self.name, "uid", self.uid)?;
        check_id(AccountKind::User, &self.name, "gid", self.gid.unwrap_or(0))?;
        for (field, value) in [("home", &self.home), ("shell", &self.shell)] {
            if let Some(value) = value {
                self.check_text(field, value)?;
                if !value.starts_with('/') {
                    return Err(self.wrong(field, value, "is not an absolute path"));
                }
            }
        }
        self.comment.as_ref().map_or(Ok(()), |comment| self.check_text("comment", comment))
    }

    fn check_text(&self, field: &'static str, value: &str) -> Result<(), AccountError> {
        if value.contains(|c: char| c == ':' || c.is_control()) {
            return Err(self.wrong(field, value, "has a colon or a control character"));
        }
        Ok(())
    }

    fn wrong(&self, field: &'static str, value: &str, problem: &'static str) -> AccountError {
        AccountError::Field {
            kind: AccountKind::User,
            name: self.name.clone(),
            field,
            value: value.to_owned(),
            problem,
        }
    }

    /// The passwd line, over the one that a package made for the same name and number.
    pub(super) fn line(&self, gid: u32, known: Option<&User>) -> User {
        let mut user = match known {
            Some(known) if known.uid == self.uid => known.clone(),
            _ => User::new(&self.name, self.uid, gid, Origin::Image),
        };
        user.gid = self.gid.unwrap_or(user.gid);
        user.origin = Origin::Image;
        let fields = [
            (&self.comment, &mut user.comment),
            (&self.home, &mut user.home),
            (&self.shell, &mut user.shell),
        ];
        for (given, field) in fields {
            if let Some(given) = given {
                given.clone_into(field);
            }
        }
        user
    }
}

/// The names that Debian's `useradd` accepts.
fn check_name(kind: AccountKind, name: &str) -> Result<(), AccountError> {
    let stem = name.strip_suffix('$').unwrap_or(name);
    let first = stem.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = stem.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if first && rest && name.len() <= 32 {
        return Ok(());
    }
    Err(AccountError::Field {
        kind,
        name: name.to_owned(),
        field: "name",
        value: name.to_owned(),
        problem: "is not 1 to 32 letters, digits, \"_\", \"-\", \".\", starting with a letter or \"_\"",
    })
}

/// Numbers that mean "none" to the kernel, in 32 and in 16 bits, name nobody.
fn check_id(
    kind: AccountKind,
    name: &str,
    field: &'static str,
    id: u32,
) -> Result<(), AccountError> {
    if id == u32::MAX || id == 65_535 {
        return Err(AccountError::Field {
            kind,
            name: name.to_owned(),
            field,
            value: id.to_string(),
            problem: "means \"nobody\" to the kernel and cannot be given",
        });
    }
    Ok(())
}
