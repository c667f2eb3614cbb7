//! `[users]` and `[groups]`: accounts that the image adds to those of its packages.

use std::collections::BTreeMap;

use crate::document::{Entry, Place, Table};

use super::files::HIGHEST_ID;
use super::names::AccountName;
use super::schema;
use super::values::RootedPath;

/// An account of the image.
#[derive(Debug, Clone)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its primary group: by default one of the same name and number.
    pub gid: u32,
    /// Further groups that it belongs to.
    pub groups: Vec<AccountName>,
    /// Its home directory, which is not created.
    pub home: RootedPath,
    /// Its shell.
    pub shell: RootedPath,
    /// The comment (GECOS) field.
    pub comment: String,
    /// Where it stands.
    pub place: Place,
}

/// A group of the image.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// Where it stands.
    pub place: Place,
}

/// The accounts that base-passwd puts into every image, with their numbers (Debian base-passwd,
/// passwd.master; these numbers are fixed by Debian Policy 9.2.2).
pub(super) static BASE_ACCOUNTS: [(&str, u32); 18] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("sync", 4),
    ("games", 5),
    ("man", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("proxy", 13),
    ("www-data", 33),
    ("backup", 34),
    ("list", 38),
    ("irc", 39),
    ("_apt", 42),
    ("nobody", 65534),
];

pub(super) fn users(top: &Table<'_>) -> BTreeMap<AccountName, User> {
    let mut users: BTreeMap<AccountName, User> = BTreeMap::new();
    for entry in top.entries("users") {
        let Some(name) = account_name(top, &entry) else { continue };
        let Some(user) = user(top, &entry, &name) else { continue };
        if let Some((other, _)) = users.iter().find(|(_, other)| other.uid == user.uid) {
            let message = format!("users `{other}` and `{name}` have the same uid {}", user.uid);
            top.problem_at(entry.place, message).record();
        }
        users.insert(name, user);
    }
    users
}

pub(super) fn groups(top: &Table<'_>) -> BTreeMap<AccountName, Group> {
    let mut groups: BTreeMap<AccountName, Group> = BTreeMap::new();
    for entry in top.entries("groups") {
        let Some(name) = account_name(top, &entry) else { continue };
        let Some(table) = entry.value.table(&schema::GROUP) else { continue };
        let Some(gid) = table.required("gid").and_then(|value| value.integer(1, HIGHEST_ID)) else {
            continue;
        };
        let Some(gid) = allowed_id(top, entry.place, gid) else { continue };
        if let Some((other, _)) = groups.iter().find(|(_, other)| other.gid == gid) {
            let message = format!("groups `{other}` and `{name}` have the same gid {gid}");
            top.problem_at(entry.place, message).record();
        }
        groups.insert(name, Group { gid, place: entry.place });
    }
    groups
}

fn account_name(top: &Table<'_>, entry: &Entry<'_>) -> Option<AccountName> {
    let name = AccountName::new(entry.name);
    if let Err(error) = &name {
        top.problem_at(entry.place, error.to_string()).record();
    }
    name.ok()
}

fn user(top: &Table<'_>, entry: &Entry<'_>, name: &AccountName) -> Option<User> {
    let table = entry.value.table(&schema::USER)?;
    let uid = table.required("uid").and_then(|value| value.integer(0, HIGHEST_ID));
    let gid = table.get("gid").map(|value| value.integer(0, HIGHEST_ID));
    let groups = table.texts_as("groups", AccountName::new);
    let home = path_or(&table, "home", "/nonexistent");
    let shell = path_or(&table, "shell", "/usr/sbin/nologin");
    let comment = table.get("comment").and_then(|value| value.text()).unwrap_or_default();
    if comment.contains([':', '\n', '\0']) {
        table.problem("`comment` may hold no colon and no line break").record();
    }
    let base = BASE_ACCOUNTS.iter().find(|(base, _)| *base == name.as_str());
    let uid = allowed_id(top, entry.place, uid?)?;
    match base {
        Some((_, fixed)) if *fixed != uid => {
            top.problem_at(entry.place, format!("Debian fixes the uid of `{name}` to {fixed}"))
                .help("choose another name for an account of your own")
                .record();
            return None;
        }
        None if uid == 0 => {
            top.problem_at(entry.place, "uid 0 is root's")
                .help("choose a number that is not taken, such as 10001")
                .record();
            return None;
        }
        _ => {}
    }
    let gid = match gid {
        Some(gid) => allowed_id(top, entry.place, gid?)?,
        None => uid,
    };
    Some(User {
        uid,
        gid,
        groups,
        home: home?,
        shell: shell?,
        comment: comment.to_owned(),
        place: entry.place,
    })
}

fn path_or(table: &Table<'_>, key: &'static str, default: &str) -> Option<RootedPath> {
    let path = match table.get(key) {
        Some(value) => value.text_as(RootedPath::new)?,
        None => RootedPath::new(default).ok()?,
    };
    if path.to_string().contains([':', '\n']) {
        table.problem(format!("`{key}` may hold no colon and no line break")).record();
        return None;
    }
    Some(path)
}

/// 65535 was "no id" when ids had 16 bits, and Debian Policy 9.2.2 still forbids it.
fn allowed_id(top: &Table<'_>, place: Place, id: i64) -> Option<u32> {
    if id == 65535 {
        top.problem_at(place, "65535 may not be used as an id").record();
        return None;
    }
    u32::try_from(id).ok()
}
