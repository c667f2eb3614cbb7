//! A document's text, and places in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The text of a document and the name that people know it by (usually its path as typed).
#[derive(Clone, PartialEq, Eq)]
pub struct SourceText {
    name: String,
    text: String,
    /// Where each line begins: a document with many problems is not read once for each.
    lines: Vec<usize>,
}

impl SourceText {
    /// Takes a document's text under the name that messages will show.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        let lines =
            std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
        Arc::new(Self { name: name.into(), lines: lines.collect(), text })
    }

    /// The name that messages show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte offset, both counted from 1; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = floor_boundary(&self.text, offset);
        let line = self.lines.partition_point(|start| *start <= offset);
        (line, self.text[self.lines[line - 1]..offset].chars().count() + 1)
    }

    /// Brings a place inside the text and onto character boundaries.
    pub(super) fn clamp(&self, place: Place) -> Place {
        let start = floor_boundary(&self.text, place.start);
        let end = floor_boundary(&self.text, place.end.max(start));
        Place { start, end: end.max(start) }
    }
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceText({:?}, {} bytes)", self.name, self.text.len())
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Where something stands in a document: byte offsets, the end exclusive.
///
/// A place says nothing about what stands there, so two values that differ only in their places
/// are the same to [`super::super::spec::Image::normalised`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl From<Range<usize>> for Place {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_survive_any_offset() {
        let source = SourceText::new("x", "a\nöü = 1\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(2), (2, 1));
        assert_eq!(source.position(3), (2, 1), "inside a character counts as its start");
        assert_eq!(source.position(6), (2, 3));
        assert_eq!(source.position(10_000), (3, 1));
        assert_eq!(source.clamp(Place { start: 9, end: 3 }), Place { start: 9, end: 9 });
    }
}
