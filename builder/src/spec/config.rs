//! `[config]`: how the image is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::document::{Place, Shape, Table, Value, ValueError};

use super::schema;
use super::values::{Port, RootedPath, duration, signal};

/// How the image is run. Absent values keep the base image's, or the runtime's default.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The program that is always run.
    pub entrypoint: Option<Vec<String>>,
    /// The program, or the entry point's arguments, unless the caller gives others.
    pub cmd: Option<Vec<String>>,
    /// Variables of the environment.
    pub env: BTreeMap<String, String>,
    /// The directory that the program starts in.
    pub workdir: Option<RootedPath>,
    /// The account that the program runs as.
    pub user: Option<UserReference>,
    /// The ports that it listens on.
    pub ports: BTreeSet<Port>,
    /// Directories that hold data to keep.
    pub volumes: BTreeSet<RootedPath>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that ends it, as a name where it has one.
    pub stop_signal: Option<String>,
    /// How its health is asked for.
    pub healthcheck: Option<Healthcheck>,
    /// Where the user stands.
    pub user_place: Option<Place>,
}

/// `USER[:GROUP]`, each by name or number; names become numbers when the accounts are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserReference {
    /// The user.
    pub user: Account,
    /// The group; the user's own when absent.
    pub group: Option<Account>,
}

/// An account by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A number, which need not stand in /etc/passwd.
    Id(u32),
    /// A name of `[users]` or `[groups]`, or one that a package makes.
    Name(String),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for UserReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

/// How a container's health is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// The program that answers, with its arguments.
    pub cmd: Vec<String>,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// Time after which a check has failed.
    pub timeout: Option<Duration>,
    /// Time to start in which failures do not count.
    pub start_period: Option<Duration>,
    /// Time between two checks while it starts.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

pub(super) fn read(table: &Table<'_>) -> Config {
    let user = table.get("user");
    Config {
        entrypoint: command(table, "entrypoint"),
        cmd: command(table, "cmd"),
        env: environment(table, "env"),
        workdir: table.text_as("workdir", RootedPath::new),
        user_place: user.as_ref().map(Value::place),
        user: user.and_then(|value| user_reference(&value)),
        ports: ports(table),
        volumes: table.texts_as("volumes", RootedPath::new).into_iter().collect(),
        labels: texts(table, "labels"),
        stop_signal: table.text_as("stop-signal", signal),
        healthcheck: table
            .get("healthcheck")
            .and_then(|value| healthcheck(&value.table(&schema::HEALTHCHECK)?)),
    }
}

fn command(table: &Table<'_>, key: &'static str) -> Option<Vec<String>> {
    let value = table.get(key)?;
    if let Shape::Text(text) = value.shape() {
        let words = text.split_whitespace().map(|word| format!("{word:?}")).collect::<Vec<_>>();
        let plain = !text.contains(['"', '\'', '$', '|', '&', ';', '<', '>', '*']);
        let help = match plain {
            true => format!("write {key} = [{}]", words.join(", ")),
            false => format!("for a shell: {key} = [\"/bin/sh\", \"-c\", \"…\"]"),
        };
        let message = format!("`{key}` is a list of words, since no shell reads it");
        value.problem(message).help(help).record();
        return None;
    }
    let words = value.items()?;
    words.iter().map(|item| item.text_as(no_nul)).collect()
}

fn no_nul(text: &str) -> Result<String, ValueError> {
    match text.contains('\0') {
        true => Err(ValueError::new("text", text, "it has a NUL byte")),
        false => Ok(text.to_owned()),
    }
}

/// A table of strings, in the order of their names.
pub(super) fn texts(table: &Table<'_>, key: &'static str) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for entry in table.entries(key) {
        if entry.name.is_empty() || entry.name.contains(char::is_control) {
            let message = "a name may not be empty or hold control characters";
            table.problem_at(entry.place, message).record();
        }
        let text = match entry.value.shape() {
            Shape::Text(_) => entry.value.text_as(no_nul),
            Shape::Integer(Some(number), _) => {
                quote_it(&entry.value, &number.to_string());
                None
            }
            Shape::Boolean(truth) => {
                quote_it(&entry.value, &truth.to_string());
                None
            }
            _ => {
                entry.value.problem("a string is expected here").record();
                None
            }
        };
        if let Some(text) = text {
            texts.insert(entry.name.to_owned(), text);
        }
    }
    texts
}

fn quote_it(value: &Value<'_>, text: &str) {
    value.problem("a string is expected here").help(format!("write \"{text}\"")).record();
}

/// A table of variables.
pub(super) fn environment(table: &Table<'_>, key: &'static str) -> BTreeMap<String, String> {
    for entry in table.entries(key) {
        if entry.name.contains(['=', ' ']) {
            let message = "a variable's name may hold no = and no space";
            table.problem_at(entry.place, message).record();
        }
    }
    if let Some(value) = table.get(key)
        && let Shape::List = value.shape()
    {
        // `wrong_type` has been recorded; nothing can be read from a list.
        return BTreeMap::new();
    }
    texts(table, key)
}

fn user_reference(value: &Value<'_>) -> Option<UserReference> {
    match value.shape() {
        Shape::Integer(..) => {
            let id = value.integer(0, super::files::HIGHEST_ID)?;
            Some(UserReference { user: Account::Id(u32::try_from(id).ok()?), group: None })
        }
        Shape::Text(_) => value.text_as(|text| {
            let (user, group) = match text.split_once(':') {
                Some((user, group)) => (user, Some(group)),
                None => (text, None),
            };
            Ok(UserReference { user: account(user)?, group: group.map(account).transpose()? })
        }),
        _ => {
            value.wrong_type();
            None
        }
    }
}

fn account(text: &str) -> Result<Account, ValueError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let id = text.parse().ok().filter(|id: &u32| *id != u32::MAX);
        let refuse = || ValueError::new("user id", text, "it is too large");
        return id.map(Account::Id).ok_or_else(refuse);
    }
    super::names::AccountName::new(text).map(|name| Account::Name(name.as_str().to_owned()))
}

fn ports(table: &Table<'_>) -> BTreeSet<Port> {
    let items = table.get("ports").and_then(|value| value.items()).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| match item.shape() {
            Shape::Integer(..) => item.integer(1, 65535).and_then(|number| {
                Port::new(&number.to_string()).map_err(|error| item.refuse(&error)).ok()
            }),
            Shape::Text(_) => item.text_as(Port::new),
            _ => {
                item.wrong_type();
                None
            }
        })
        .collect()
}

fn healthcheck(table: &Table<'_>) -> Option<Healthcheck> {
    if table.required("cmd").is_some()
        && let Some(cmd) = command(table, "cmd")
    {
        if cmd.is_empty() {
            table.problem("`cmd` of the healthcheck is empty").record();
        }
        return Some(Healthcheck {
            cmd,
            interval: table.text_as("interval", duration),
            timeout: table.text_as("timeout", duration),
            start_period: table.text_as("start-period", duration),
            start_interval: table.text_as("start-interval", duration),
            retries: table
                .get("retries")
                .and_then(|value| value.integer(1, 1000))
                .and_then(|count| u32::try_from(count).ok()),
        });
    }
    None
}
