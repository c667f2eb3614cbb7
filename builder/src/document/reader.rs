//! Walks a parsed document, recording every problem on the way.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{Key, Schema};
use super::{Diagnostic, Diagnostics, Place, SourceText};

/// A value that cannot be what its key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    what: &'static str,
    text: String,
    reason: Cow<'static, str>,
    help: Option<String>,
    secret: bool,
}

impl ValueError {
    /// `text` is no `what`, because of `reason`.
    pub fn new(what: &'static str, text: &str, reason: impl Into<Cow<'static, str>>) -> Self {
        // Quoting the whole of a hostile value would bury the message.
        let text = match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        Self { what, text, reason: reason.into(), help: None, secret: false }
    }

    /// Adds what would mend it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says that the value holds a secret: the line it stands on is then not shown.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) fn is_hidden(&self) -> bool {
        self.secret
    }

    /// What would mend it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if self.what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        write!(f, "{:?} is not {article} {}: {}", self.text, self.what, self.reason)
    }
}

impl std::error::Error for ValueError {}

/// Reads a document: parses it, walks it with `build`, and returns its value or all problems.
///
/// A document whose `format.key` names a newer format may mean anything: that is then the only
/// problem. `build` returns `None` for a value that it could not make; it has then recorded why.
pub fn read<T>(
    source: &Arc<SourceText>,
    schema: &'static Schema,
    format: Option<Format>,
    build: impl FnOnce(&Table<'_>) -> Option<T>,
) -> Result<T, Diagnostics> {
    let problems = Problems { source: Arc::clone(source), found: RefCell::default() };
    let (document, errors) = DeTable::parse_recoverable(source.text());
    let newer = format.and_then(|format| format.newer(source, document.get_ref()));
    let value = if let Some(newer) = newer {
        problems.add(newer);
        None
    } else if errors.is_empty() {
        let place = Place { start: 0, end: 0 };
        let root = Table::open(&problems, document.get_ref(), schema, String::new(), place);
        build(&root)
    } else {
        // What a parser guesses after an error would only add problems that are none.
        errors.iter().for_each(|error| problems.add(syntax_problem(source, error)));
        None
    };
    match (Diagnostics::new(problems.found.into_inner()), value) {
        (None, Some(value)) => Ok(value),
        (Some(problems), _) => Err(problems),
        (None, None) => {
            debug_assert!(false, "a value was refused without a problem");
            let message = "this document could not be understood";
            Err(Diagnostic::at(source, Place::default(), message).into())
        }
    }
}

/// The number by which a document says which format it has.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The key at the top that holds the number.
    pub key: &'static str,
    /// The newest number that this version reads.
    pub newest: i64,
}

impl Format {
    fn newer(self, source: &Arc<SourceText>, document: &DeTable<'_>) -> Option<Diagnostic> {
        let item = document.get(self.key)?;
        let DeValue::Integer(number) = item.get_ref() else { return None };
        let value = i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX);
        if number.as_str().starts_with('-') || value <= self.newest {
            return None;
        }
        let Self { key, newest } = self;
        let message = format!("{key} {} needs a newer drystone", shorten(number.as_str()));
        let help = format!("this version reads {key} = {newest}; install a newer one");
        Some(Diagnostic::at(source, item.span().into(), message).with_help(help))
    }
}

fn syntax_problem(source: &Arc<SourceText>, error: &toml::de::Error) -> Diagnostic {
    let place = error.span().unwrap_or(source.text().len()..source.text().len()).into();
    let problem = Diagnostic::at(source, place, format!("not TOML: {}", error.message()));
    let marker =
        |line: &str| ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|it| line.starts_with(it));
    if problem
        .span()
        .is_some_and(|place| whole_line(source.text(), place.start).is_some_and(marker))
    {
        return problem.with_help("this is the mark of a merge conflict: resolve it in git first");
    }
    let line = source.text()[..problem.span().map_or(0, |place| place.start)].rsplit('\n').next();
    if line.is_some_and(|line| line.contains("mode") && line.contains('=')) {
        // `mode = 0644` is what everyone writes first, and TOML forbids the leading zero.
        return problem.with_help("a mode is a string: mode = \"0644\"");
    }
    problem
}

fn whole_line(text: &str, offset: usize) -> Option<&str> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    text[start..].lines().next()
}

struct Problems {
    source: Arc<SourceText>,
    found: RefCell<Vec<Diagnostic>>,
}

impl Problems {
    fn add(&self, problem: Diagnostic) {
        self.found.borrow_mut().push(problem);
    }
}

/// A table of the document together with the keys that it may have.
pub struct Table<'a> {
    problems: &'a Problems,
    entries: &'a DeTable<'a>,
    schema: &'static Schema,
    path: String,
    place: Place,
}

impl<'a> Table<'a> {
    fn open(
        problems: &'a Problems,
        entries: &'a DeTable<'a>,
        schema: &'static Schema,
        path: String,
        place: Place,
    ) -> Self {
        for key in entries.keys() {
            let name = key.get_ref().as_ref();
            let place = key.span().into();
            if schema.key(name).is_some() {
                continue;
            }
            let problem = if schema.reserved.contains(&name) {
                let message = format!("`{name}` is not in this version of drystone");
                Diagnostic::at(&problems.source, place, message)
                    .with_help("the name is reserved for a later version; remove it here")
            } else {
                let within = match path.as_str() {
                    "" => String::new(),
                    path => format!(" in `{path}`"),
                };
                let message = format!("unknown key `{}`{within}", shorten(name));
                Diagnostic::at(&problems.source, place, message).with_help(schema.advice(name))
            };
            problems.add(problem);
        }
        Self { problems, entries, schema, path, place }
    }

    /// The value of a key of the schema, if it is written.
    pub fn get(&self, name: &'static str) -> Option<Value<'a>> {
        let key = self.schema.key(name).expect("code asks only for keys of the schema");
        let (written, item) = self.entries.get_key_value(name)?;
        let path = join(&self.path, name);
        let key_place = written.span().into();
        Some(Value { problems: self.problems, item, key, path, key_place })
    }

    /// The value of a key that must be written.
    pub fn required(&self, name: &'static str) -> Option<Value<'a>> {
        let value = self.get(name);
        if value.is_none() {
            let key = self.schema.key(name).expect("`get` has looked for it");
            let within = match self.path.as_str() {
                "" => "the file".to_owned(),
                path => format!("`{path}`"),
            };
            self.problem(format!("{within} needs `{name}`"))
                .help(format!("add {}, as in: {}", key.expects, key.example))
                .record();
        }
        value
    }

    /// Whether a key is written.
    pub fn has(&self, name: &'static str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the table stands: its header, or its braces.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Starts a problem about the table as a whole.
    pub fn problem(&self, message: impl Into<String>) -> Problem<'a> {
        Problem::new(self.problems, self.place, message.into())
    }

    /// Starts a problem at another place of the same document.
    pub fn problem_at(&self, place: Place, message: impl Into<String>) -> Problem<'a> {
        Problem::new(self.problems, place, message.into())
    }

    /// Adds the problems of another document that this one names.
    pub fn adopt(&self, problems: &Diagnostics) {
        problems.iter().for_each(|problem| self.problems.add(problem.clone()));
    }

    /// A text that is read by `parse`, if it is written.
    pub fn text_as<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.get(name)?.text_as(parse)
    }

    /// A truth value, or `default` when it is not written.
    pub fn flag(&self, name: &'static str, default: bool) -> bool {
        self.get(name).and_then(|value| value.boolean()).unwrap_or(default)
    }

    /// A list of texts that are read by `parse`; empty when it is not written.
    pub fn texts_as<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Vec<T> {
        let items = self.get(name).and_then(|value| value.items()).unwrap_or_default();
        items.iter().filter_map(|item| item.text_as(&parse)).collect()
    }

    /// A list of tables; empty when it is not written.
    pub fn tables(&self, name: &'static str, schema: &'static Schema) -> Vec<Table<'a>> {
        let items = self.get(name).and_then(|value| value.items()).unwrap_or_default();
        items.iter().filter_map(|item| item.table(schema)).collect()
    }

    /// The entries of a table whose keys are the user's own; empty when it is not written.
    pub fn entries(&self, name: &'static str) -> Vec<Entry<'a>> {
        self.get(name).and_then(|value| value.entries()).unwrap_or_default()
    }
}

/// A key that the user chose, and its value.
pub struct Entry<'a> {
    /// The key as written.
    pub name: &'a str,
    /// Where the key stands.
    pub place: Place,
    /// What it is set to.
    pub value: Value<'a>,
}

/// What a value is, for keys that take more than one kind.
pub enum Shape<'a> {
    /// A string.
    Text(&'a str),
    /// An integer and the base that it was written in; `None` where it is too large.
    Integer(Option<i64>, u32),
    /// A truth value.
    Boolean(bool),
    /// A list.
    List,
    /// A table.
    Table,
    /// Anything else.
    Other,
}

/// A value of the document together with the key that it is for.
#[derive(Clone)]
pub struct Value<'a> {
    problems: &'a Problems,
    item: &'a Spanned<DeValue<'a>>,
    key: &'static Key,
    path: String,
    key_place: Place,
}

impl<'a> Value<'a> {
    /// Where the value stands.
    pub fn place(&self) -> Place {
        self.item.span().into()
    }

    /// Where its key stands.
    pub fn key_place(&self) -> Place {
        self.key_place
    }

    /// What the value is.
    pub fn shape(&self) -> Shape<'a> {
        match self.item.get_ref() {
            DeValue::String(text) => Shape::Text(text.as_ref()),
            DeValue::Integer(number) => {
                let value = i64::from_str_radix(number.as_str(), number.radix());
                Shape::Integer(value.ok(), number.radix())
            }
            DeValue::Boolean(truth) => Shape::Boolean(*truth),
            DeValue::Array(_) => Shape::List,
            DeValue::Table(_) => Shape::Table,
            _ => Shape::Other,
        }
    }

    /// Records that the value has the wrong type, saying what is expected, with an example.
    pub fn wrong_type(&self) {
        let found = match self.item.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a truth value",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("`{}` must be {}, not {found}", self.path, self.key.expects))
            .help(format!("for example: {}", self.key.example))
            .record();
    }

    /// Starts a problem about this value.
    pub fn problem(&self, message: impl Into<String>) -> Problem<'a> {
        Problem::new(self.problems, self.place(), message.into())
    }

    /// Records why the value cannot be used.
    pub fn refuse(&self, error: &ValueError) {
        let mut problem = self.problem(error.to_string());
        if let Some(help) = error.help() {
            problem = problem.help(help);
        }
        problem.diagnostic = problem.diagnostic.hidden_if(error);
        problem.record();
    }

    /// A string.
    pub fn text(&self) -> Option<&'a str> {
        match self.shape() {
            Shape::Text(text) => Some(text),
            _ => {
                self.wrong_type();
                None
            }
        }
    }

    /// A string that `parse` can read.
    pub fn text_as<T>(&self, parse: impl Fn(&str) -> Result<T, ValueError>) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    /// A truth value.
    pub fn boolean(&self) -> Option<bool> {
        match self.item.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type();
                None
            }
        }
    }

    /// An integer within bounds, both included.
    pub fn integer(&self, lowest: i64, highest: i64) -> Option<i64> {
        match self.shape() {
            Shape::Integer(Some(number), _) if (lowest..=highest).contains(&number) => Some(number),
            Shape::Integer(..) => {
                let message = format!("`{}` must lie between {lowest} and {highest}", self.path);
                self.problem(message).record();
                None
            }
            _ => {
                self.wrong_type();
                None
            }
        }
    }

    /// The items of a list, under the same key.
    pub fn items(&self) -> Option<Vec<Self>> {
        let DeValue::Array(items) = self.item.get_ref() else {
            self.wrong_type();
            return None;
        };
        let items = items.iter().map(|item| Self { item, ..self.clone() });
        Some(items.collect())
    }

    /// A table with known keys.
    pub fn table(&self, schema: &'static Schema) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.item.get_ref() else {
            self.wrong_type();
            return None;
        };
        Some(Table::open(self.problems, entries, schema, self.path.clone(), self.place()))
    }

    /// A table whose keys are the user's own, in the order in which they are written.
    pub fn entries(&self) -> Option<Vec<Entry<'a>>> {
        let DeValue::Table(entries) = self.item.get_ref() else {
            self.wrong_type();
            return None;
        };
        let mut entries: Vec<_> = entries
            .iter()
            .map(|(key, item)| {
                let name = key.get_ref().as_ref();
                let place = key.span().into();
                let path = join(&self.path, name);
                let value = Self { item, path, key_place: place, ..self.clone() };
                Entry { name, place, value }
            })
            .collect();
        entries.sort_by_key(|entry| entry.place.start);
        Some(entries)
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.path)
    }
}

/// A problem that is being described.
#[must_use = "a problem counts only once it is recorded"]
pub struct Problem<'a> {
    problems: &'a Problems,
    diagnostic: Diagnostic,
}

impl<'a> Problem<'a> {
    fn new(problems: &'a Problems, place: Place, message: String) -> Self {
        Self { problems, diagnostic: Diagnostic::at(&problems.source, place, message) }
    }

    /// Adds what would mend it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.with_help(help);
        self
    }

    /// Adds a few words beside the mark.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.with_label(label);
        self
    }

    /// Counts it.
    pub fn record(self) {
        self.problems.add(self.diagnostic);
    }
}

fn join(path: &str, name: &str) -> String {
    let name = shorten(name);
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let name = if !name.is_empty() && name.bytes().all(bare) {
        name.into_owned()
    } else {
        format!("{name:?}")
    };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn shorten(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(60) {
        Some((end, _)) => Cow::Owned(format!("{}…", &name[..end])),
        None => Cow::Borrowed(name),
    }
}
