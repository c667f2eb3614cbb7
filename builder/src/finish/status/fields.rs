//! The fields of a control file, read and spelled as dpkg does.

use super::StatusError;

/// C's `isspace` in the C locale, as `c_isspace` of dpkg.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// The fields of one paragraph in their order, names as written.
#[derive(Debug)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a control file: one paragraph.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut lines = text.split('\n').enumerate().peekable();
        while lines.next_if(|(_, line)| line.is_empty()).is_some() {}
        for (index, line) in lines {
            if line.is_empty() {
                break;
            }
            let wrong = || StatusError::Line { line: index + 1, text: line.to_owned() };
            if line.starts_with(is_space) {
                let (_, value) = fields.last_mut().ok_or_else(wrong)?;
                value.push('\n');
                value.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let name = name.trim_end_matches(is_space);
            if name.len() < 2 || name.starts_with('-') || name.contains(is_space) {
                return Err(wrong());
            }
            if fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                return Err(StatusError::Twice { field: name.to_owned() });
            }
            fields.push((name.to_owned(), value.trim_start_matches(is_space).to_owned()));
        }
        for (_, value) in &mut fields {
            value.truncate(value.trim_end_matches(is_space).len());
        }
        Ok(Self(fields))
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.position(name).map(|at| self.0[at].1.as_str())
    }

    /// Takes a field out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.position(name).map(|at| self.0.remove(at).1)
    }

    /// Gives an old field its new name; where both stand, relations are joined in their order.
    pub fn rename(&mut self, old: &str, new: &str) {
        let Some(at) = self.position(old) else { return };
        let Some(other) = self.position(new) else {
            new.clone_into(&mut self.0[at].0);
            return;
        };
        let (first, second) = (at.min(other), at.max(other));
        let (_, value) = self.0.remove(second);
        let (name, joined) = &mut self.0[first];
        new.clone_into(name);
        if new == "Priority" {
            // Not a list: the later field wins.
            *joined = value;
        } else if !value.is_empty() {
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(&value);
        }
    }

    /// What is left, in order.
    pub fn rest(self) -> Vec<(String, String)> {
        self.0
    }
}

/// One of the known words, in any case, and nothing behind it.
pub fn word(value: &str, known: &[&'static str]) -> Option<&'static str> {
    let first = value.trim_end_matches(is_space);
    known.iter().copied().find(|word| word.eq_ignore_ascii_case(first))
}

/// A package's name: in lower case, as dpkg keeps it.
pub fn package_name(name: &str) -> Result<String, &'static str> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-+._".contains(c));
    if plain && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err("is no package name")
    }
}

/// A version without an epoch that says nothing.
pub fn version(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "is no version";
    let text = text.trim_matches([' ', '\t']);
    if text.is_empty() || text.contains(is_space) {
        return Err(WRONG);
    }
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) => (epoch.parse::<u32>().map_err(|_| WRONG)?, rest),
        None => (0, text),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-+~:".contains(c);
    if !rest.starts_with(|c: char| c.is_ascii_digit())
        || rest.ends_with('-')
        || epoch > i32::MAX.cast_unsigned()
        || !rest.chars().all(allowed)
    {
        return Err(WRONG);
    }
    // Without its epoch a version with a colon would be read otherwise.
    Ok(if epoch == 0 && !rest.contains(':') { rest.to_owned() } else { format!("{epoch}:{rest}") })
}

/// A relations field: `a | b:arch (>= 1), c`.
pub fn relations(text: &str) -> Result<String, &'static str> {
    let mut reader = Relations { rest: text };
    let mut out = String::new();
    loop {
        reader.one(&mut out)?;
        reader.spaces();
        match reader.rest.chars().next() {
            None => return Ok(out),
            Some(',') => out.push_str(", "),
            Some('|') => out.push_str(" | "),
            Some(_) => return Err("has text behind a package"),
        }
        let comma = reader.rest.starts_with(',');
        reader.rest = &reader.rest[1..];
        reader.spaces();
        if reader.rest.is_empty() {
            return Err(if comma { "ends with a comma" } else { "ends with a bar" });
        }
    }
}

struct Relations<'a> {
    rest: &'a str,
}

impl<'a> Relations<'a> {
    fn spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(is_space);
    }

    fn until(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(stop).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn one(&mut self, out: &mut String) -> Result<(), &'static str> {
        let name = self.until(|c| is_space(c) || ":(,|".contains(c));
        out.push_str(&package_name(name).map_err(|_| "has no package name where one belongs")?);
        if let Some(rest) = self.rest.strip_prefix(':') {
            self.rest = rest;
            let architecture = self.until(|c| is_space(c) || "(,|".contains(c));
            if architecture.is_empty() {
                return Err("has no architecture behind a colon");
            }
            out.push(':');
            out.push_str(architecture);
        }
        self.spaces();
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest.trim_start_matches(is_space);
            let operator = self.operator()?;
            self.spaces();
            let number = self.until(|c| is_space(c) || "()".contains(c));
            self.spaces();
            self.rest = self.rest.strip_prefix(')').ok_or("has a version without an end")?;
            let number = version(number).map_err(|_| "has a bad version")?;
            out.push_str(&format!(" ({operator} {number})"));
        }
        Ok(())
    }

    /// The operator; the old `<`, `>` and a bare version mean `<=`, `>=` and `=`.
    fn operator(&mut self) -> Result<&'static str, &'static str> {
        let spellings = [
            ("<=", "<="),
            (">=", ">="),
            ("<<", "<<"),
            (">>", ">>"),
            ("<>", ""),
            ("><", ""),
            ("<", "<="),
            (">", ">="),
            ("=", "="),
            ("", "="),
        ];
        let (written, meant) = spellings
            .into_iter()
            .find(|(written, _)| self.rest.starts_with(written))
            .unwrap_or(("", "="));
        self.rest = &self.rest[written.len()..];
        if meant.is_empty() { Err("has a bad operator") } else { Ok(meant) }
    }
}
