//! Lines of the four files as values that keep their text.

use super::{AccountError, Origin};

/// A line of one of the files.
pub trait Record: Sized {
    /// The file's name, for errors.
    const FILE: &'static str;
    /// Reads a line; `None` when it is not of the file's format.
    fn read(fields: &[&str], origin: &Origin) -> Option<Self>;
    /// The line without its end.
    fn line(&self) -> String;
}

/// Reads a file. Empty lines are dropped, as the shadow tools do.
pub fn parse<R: Record>(text: &str, origin: &Origin) -> Result<Vec<R>, AccountError> {
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(':').collect();
        let record = R::read(&fields, origin)
            // A line without a name, or a compatibility line of NIS, names nobody in an image.
            .filter(|_| !fields[0].is_empty() && !fields[0].starts_with(['+', '-']))
            .ok_or_else(|| AccountError::Line {
                file: R::FILE,
                origin: origin.clone(),
                line: index + 1,
                text: line.to_owned(),
            })?;
        records.push(record);
    }
    Ok(records)
}

/// Writes a file.
pub fn write<R: Record>(records: &[R]) -> String {
    records.iter().flat_map(|record| [record.line(), "\n".to_owned()]).collect()
}

fn members(list: &str) -> Vec<String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn add_once(members: &mut Vec<String>, name: &str) {
    if !members.iter().any(|member| member == name) {
        members.push(name.to_owned());
    }
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    password: String,
    pub uid: u32,
    pub gid: u32,
    pub comment: String,
    pub home: String,
    pub shell: String,
    pub origin: Origin,
}

impl User {
    pub fn new(name: &str, uid: u32, gid: u32, origin: Origin) -> Self {
        Self {
            name: name.to_owned(),
            password: "x".to_owned(),
            uid,
            gid,
            comment: String::new(),
            home: "/nonexistent".to_owned(),
            shell: "/usr/sbin/nologin".to_owned(),
            origin,
        }
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    pub fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.password);
    }
}

impl Record for User {
    const FILE: &'static str = "passwd";

    fn read(fields: &[&str], origin: &Origin) -> Option<Self> {
        let [name, password, uid, gid, comment, home, shell] = fields else { return None };
        Some(Self {
            name: (*name).to_owned(),
            password: (*password).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            comment: (*comment).to_owned(),
            home: (*home).to_owned(),
            shell: (*shell).to_owned(),
            origin: origin.clone(),
        })
    }

    fn line(&self) -> String {
        let Self { name, password, uid, gid, comment, home, shell, .. } = self;
        format!("{name}:{password}:{uid}:{gid}:{comment}:{home}:{shell}")
    }
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    password: String,
    pub gid: u32,
    pub members: Vec<String>,
    pub origin: Origin,
}

impl Group {
    pub fn new(name: &str, gid: u32, origin: Origin) -> Self {
        Self { name: name.to_owned(), password: "x".to_owned(), gid, members: Vec::new(), origin }
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    pub fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.password);
    }

    pub fn add_member(&mut self, name: &str) {
        add_once(&mut self.members, name);
    }
}

impl Record for Group {
    const FILE: &'static str = "group";

    fn read(fields: &[&str], origin: &Origin) -> Option<Self> {
        let [name, password, gid, list] = fields else { return None };
        Some(Self {
            name: (*name).to_owned(),
            password: (*password).to_owned(),
            gid: gid.parse().ok()?,
            members: members(list),
            origin: origin.clone(),
        })
    }

    fn line(&self) -> String {
        format!("{}:{}:{}:{}", self.name, self.password, self.gid, self.members.join(","))
    }
}

/// A line of `/etc/shadow`. The fields behind the name are kept as text: nobody computes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    pub name: String,
    rest: String,
}

fn day(last_change: Option<u32>) -> String {
    last_change.map(|day| day.to_string()).unwrap_or_default()
}

impl Shadow {
    /// A line as `pwconv` makes it, with the ages of Debian's `login.defs`.
    pub fn converted(name: &str, password: &str, last_change: Option<u32>) -> Self {
        let rest = format!("{password}:{}:0:99999:7:::", day(last_change));
        Self { name: name.to_owned(), rest }
    }

    /// A line as `adduser --system` makes it.
    pub fn locked(name: &str, last_change: Option<u32>) -> Self {
        Self { name: name.to_owned(), rest: format!("!:{}::::::", day(last_change)) }
    }
}

impl Record for Shadow {
    const FILE: &'static str = "shadow";

    fn read(fields: &[&str], _origin: &Origin) -> Option<Self> {
        (fields.len() == 9)
            .then(|| Self { name: fields[0].to_owned(), rest: fields[1..].join(":") })
    }

    fn line(&self) -> String {
        format!("{}:{}", self.name, self.rest)
    }
}

/// A line of `/etc/gshadow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupShadow {
    pub name: String,
    password: String,
    administrators: String,
    pub members: Vec<String>,
}

impl GroupShadow {
    pub fn new(name: &str, password: &str, members: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            administrators: String::new(),
            members: members.to_vec(),
        }
    }

    pub fn add_member(&mut self, name: &str) {
        add_once(&mut self.members, name);
    }
}

impl Record for GroupShadow {
    const FILE: &'static str = "gshadow";

    fn read(fields: &[&str], _origin: &Origin) -> Option<Self> {
        let [name, password, administrators, list] = fields else { return None };
        Some(Self {
            name: (*name).to_owned(),
            password: (*password).to_owned(),
            administrators: (*administrators).to_owned(),
            members: members(list),
        })
    }

    fn line(&self) -> String {
        let Self { name, password, administrators, members } = self;
        format!("{name}:{password}:{administrators}:{}", members.join(","))
    }
}
