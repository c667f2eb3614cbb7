//! Problems with a place, and how they are shown.

use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Place, SourceText};

/// More problems than this are counted, not shown: nobody reads them, and a hostile file would
/// fill the terminal.
const SHOWN: usize = 40;
/// Longer spans are cut: a mark over pages of text points at nothing.
const MARKED_BYTES: usize = 400;

/// Whether problems are shown with colours. The caller knows the terminal; this module does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    Plain,
    /// ANSI colours.
    Coloured,
}

/// One problem: what is wrong, where, and what would mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    message: String,
    label: Option<String>,
    help: Option<String>,
    at: Option<(Arc<SourceText>, Place)>,
    hidden: bool,
}

impl Diagnostic {
    /// A problem at a place of a document.
    pub fn at(source: &Arc<SourceText>, place: Place, message: impl Into<String>) -> Self {
        let at = Some((Arc::clone(source), source.clamp(place)));
        Self { message: message.into(), label: None, help: None, at, hidden: false }
    }

    /// A problem that stands in no document (a flag, an environment variable).
    pub fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), label: None, help: None, at: None, hidden: false }
    }

    /// Adds what would mend the problem.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a few words beside the mark.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Shows where the problem is, but not the line: it holds a secret, and logs are kept.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Hides the line if the value that was refused holds a secret.
    #[must_use]
    pub(crate) fn hidden_if(mut self, error: &super::ValueError) -> Self {
        self.hidden |= error.is_hidden();
        self
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would mend it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The document's name.
    pub fn file(&self) -> Option<&str> {
        self.at.as_ref().map(|(source, _)| source.name())
    }

    /// The line, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.at.as_ref().map(|(source, place)| source.position(place.start).0)
    }

    /// The column, counted from 1 in characters.
    pub fn column(&self) -> Option<usize> {
        self.at.as_ref().map(|(source, place)| source.position(place.start).1)
    }

    /// The place, in bytes.
    pub fn span(&self) -> Option<Place> {
        self.at.as_ref().map(|(_, place)| *place)
    }

    /// The problem as text, with the lines that it is about. Ends with a line break.
    pub fn render(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let message = printable(&self.message);
        let help = self.help.as_deref().map(printable);
        let title = Level::ERROR.primary_title(message);
        let mut elements: Vec<annotate_snippets::Element<'_>> = Vec::new();
        if let Some((source, place)) = &self.at
            && self.hidden
        {
            let (line, column) = source.position(place.start);
            let origin = Origin::path(printable(source.name())).line(line).char_column(column);
            elements.push(origin.into());
        } else if let Some((source, place)) = &self.at {
            let excerpt = Excerpt::of(source, *place);
            let mut mark = AnnotationKind::Primary.span(excerpt.mark);
            if let Some(label) = &self.label {
                mark = mark.label(printable(label));
            }
            elements.push(
                Snippet::source(excerpt.text)
                    .line_start(excerpt.line)
                    .path(printable(source.name()))
                    .annotation(mark)
                    .into(),
            );
        }
        let mut groups = Vec::new();
        match help {
            // Without lines to stand under, a help is a line of its own.
            Some(help) if self.at.is_none() => {
                groups.push(Group::with_title(title));
                groups.push(Group::with_title(Level::HELP.secondary_title(help)));
            }
            Some(help) => {
                elements.push(Level::HELP.message(help).into());
                groups.push(title.elements(elements));
            }
            None => groups.push(title.elements(elements)),
        }
        let mut text = renderer.render(&groups);
        text.push('\n');
        text
    }
}

/// The lines around a place: only they are rendered, so that the cost of showing a problem does
/// not grow with the document.
struct Excerpt<'a> {
    text: &'a str,
    line: usize,
    mark: std::ops::Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn of(source: &'a SourceText, place: Place) -> Self {
        let text = source.text();
        let start = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
        let cut = source.clamp(Place { start: place.start, end: place.start + MARKED_BYTES }).end;
        let marked_end = place.end.min(cut);
        let end = text[marked_end..].find('\n').map_or(text.len(), |at| marked_end + at);
        Self {
            text: &text[start..end],
            line: source.position(start).0,
            mark: place.start - start..marked_end - start,
        }
    }
}

/// Text from a document without control characters, which could rewrite the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' => '\n',
            character if character.is_control() => '\u{fffd}',
            character => character,
        })
        .collect()
}

/// A problem beside a secret would show it, since whole lines are shown.
fn hide_shared_lines(problems: &mut [Diagnostic]) {
    let lines = |problem: &Diagnostic| {
        let (source, place) = problem.at.as_ref()?;
        Some((
            source.name().to_owned(),
            source.position(place.start).0,
            source.position(place.end).0,
        ))
    };
    let secrets: Vec<_> =
        problems.iter().filter(|problem| problem.hidden).filter_map(lines).collect();
    for problem in problems {
        let Some((name, first, last)) = lines(problem).filter(|_| !secrets.is_empty()) else {
            continue;
        };
        let near = |secret: &(String, usize, usize)| {
            secret.0 == name && first <= secret.2 && secret.1 <= last
        };
        problem.hidden |= secrets.iter().any(near);
    }
}

/// All problems of one reading, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Puts problems into order; `None` when there are none.
    pub fn new(mut problems: Vec<Diagnostic>) -> Option<Self> {
        problems.sort_by(|left, right| {
            let key = |problem: &Diagnostic| {
                (problem.file().map(str::to_owned), problem.span().map(|place| place.start))
            };
            key(left).cmp(&key(right))
        });
        problems.dedup();
        hide_shared_lines(&mut problems);
        if problems.is_empty() { None } else { Some(Self(problems)) }
    }

    /// The problems, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// All problems as text, with an empty line between two.
    pub fn render(&self, style: Style) -> String {
        let mut shown =
            self.0.iter().take(SHOWN).map(|problem| problem.render(style)).collect::<Vec<_>>();
        if self.0.len() > SHOWN {
            shown.push(format!("… and {} more problems\n", self.0.len() - SHOWN));
        }
        shown.join("\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(problem: Diagnostic) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Diagnostics {}
