//! Control files (deb822): paragraphs of fields, read without copying.
//!
//! The source of the format is Debian policy 5.1 and deb822(5). A field's value is a slice of the
//! text, continuation lines included, so a `Packages` file of 50 MB costs one pass over its bytes.
//! Every error names its line, counted from 1.

/// Why a text is no control file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A paragraph starts with a line that continues something.
    #[error("line {line} continues a field, but no field came before it")]
    Continuation {
        /// The line, counted from 1.
        line: usize,
    },
    /// A line is neither a field, nor a continuation, nor a comment.
    #[error("line {line} has no field name: {text:?}")]
    NoField {
        /// The line, counted from 1.
        line: usize,
        /// The start of the line.
        text: String,
    },
    /// A paragraph has a field twice.
    #[error("line {line} sets the field {name} again")]
    Duplicate {
        /// The line of the second one, counted from 1.
        line: usize,
        /// The field's name.
        name: String,
    },
}

/// One field of a paragraph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as written; names are compared without case.
    pub name: &'a str,
    /// The line that it starts on, counted from 1.
    pub line: usize,
    raw: &'a str,
}

impl<'a> Field<'a> {
    /// The value without the white space around it; later lines as they stand in the text, with
    /// the space that starts them.
    pub fn value(&self) -> &'a str {
        self.raw.trim_ascii()
    }

    /// The value's lines: the first as it is (often empty), the others without the one character
    /// that marks a continuation. A line that holds only a dot is an empty line. Comments are left
    /// out.
    pub fn lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.numbered_lines().map(|(_, line)| line)
    }

    /// The value's lines as in [`Field::lines`], each with its place in the text, counted from 1.
    pub fn numbered_lines(&self) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        let first = self.line;
        let lines = self.raw.trim_ascii_end().split('\n').enumerate();
        lines.filter(|(_, line)| !line.starts_with('#')).map(move |(at, line)| {
            let line = if at == 0 { line.trim_ascii_start() } else { line.get(1..).unwrap_or("") };
            let line = line.trim_ascii_end();
            (first + at, if at > 0 && line == "." { "" } else { line })
        })
    }
}

/// One paragraph: fields in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph<'a> {
    /// The line of the first field, counted from 1.
    pub line: usize,
    fields: Vec<Field<'a>>,
}

impl<'a> Paragraph<'a> {
    /// The field of that name, whatever its case.
    pub fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// The value of the field of that name; see [`Field::value`].
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.field(name).map(Field::value)
    }

    /// All fields, in the order of the text.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }
}

/// Reads a text paragraph by paragraph. After an error the iterator ends.
pub fn paragraphs(text: &str) -> Paragraphs<'_> {
    Paragraphs { text, position: 0, line: 1, capacity: 0 }
}

/// The iterator of [`paragraphs`].
#[derive(Debug, Clone)]
pub struct Paragraphs<'a> {
    text: &'a str,
    /// Where the next line starts.
    position: usize,
    /// The number of the line at `position`.
    line: usize,
    /// The number of fields of the last paragraph, since the next one is likely to have as many.
    capacity: usize,
}

/// What a line is, by its first bytes.
enum LineKind {
    Blank,
    Comment,
    Continuation,
    Field,
}

fn line_kind(line: &str) -> LineKind {
    match line.as_bytes().first() {
        None => LineKind::Blank,
        Some(b'#') => LineKind::Comment,
        Some(b' ' | b'\t' | b'\r') if line.trim_ascii().is_empty() => LineKind::Blank,
        Some(b' ' | b'\t') => LineKind::Continuation,
        Some(_) => LineKind::Field,
    }
}

impl<'a> Paragraphs<'a> {
    /// The line at `position`, without its line feed.
    fn peek(&self) -> Option<&'a str> {
        let rest = self.text.get(self.position..).filter(|rest| !rest.is_empty())?;
        Some(rest.find('\n').map_or(rest, |end| &rest[..end]))
    }

    fn advance(&mut self, line: &str) {
        self.position += line.len() + 1;
        self.line += 1;
    }

    /// Steps over continuation lines and the comments between them; returns where the value ends.
    fn continuation(&mut self, mut end: usize) -> usize {
        let mut ahead = self.clone();
        while let Some(line) = ahead.peek() {
            let kind = line_kind(line);
            if matches!(kind, LineKind::Blank | LineKind::Field) {
                break;
            }
            let line_end = ahead.position + line.len();
            ahead.advance(line);
            // A comment belongs to the value only when a continuation follows it.
            if matches!(kind, LineKind::Continuation) {
                end = line_end;
                (self.position, self.line) = (ahead.position, ahead.line);
            }
        }
        end
    }

    /// Reads the field that starts with `line_text`, the line at `position`.
    fn field(&mut self, line_text: &'a str) -> Result<Field<'a>, ControlError> {
        let line = self.line;
        let bad = || ControlError::NoField { line, text: line_text.chars().take(80).collect() };
        let colon = line_text.find(':').ok_or_else(bad)?;
        let name = line_text[..colon].trim_ascii_end();
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || name.starts_with('-') {
            return Err(bad());
        }
        let start = self.position + colon + 1;
        let end = self.position + line_text.len();
        self.advance(line_text);
        let end = self.continuation(end);
        Ok(Field { name, line, raw: &self.text[start..end] })
    }

    fn paragraph(&mut self) -> Result<Option<Paragraph<'a>>, ControlError> {
        let mut fields: Vec<Field<'a>> = Vec::new();
        let mut seen = 0u64;
        while let Some(line) = self.peek() {
            match line_kind(line) {
                LineKind::Blank if !fields.is_empty() => break,
                LineKind::Blank | LineKind::Comment => self.advance(line),
                LineKind::Continuation => {
                    return Err(ControlError::Continuation { line: self.line });
                }
                LineKind::Field => {
                    if fields.is_empty() {
                        fields.reserve(self.capacity);
                    }
                    let field = self.field(line)?;
                    check_new(&fields, &field, &mut seen)?;
                    fields.push(field);
                }
            }
        }
        self.capacity = fields.len();
        Ok(fields.first().map(|field| field.line).map(|line| Paragraph { line, fields }))
    }
}

/// Refuses a field that the paragraph has. `seen` is a filter of 64 bits over the names, so that
/// names are rarely compared one by one.
fn check_new(fields: &[Field<'_>], field: &Field<'_>, seen: &mut u64) -> Result<(), ControlError> {
    let fold = field.name.bytes().fold(0u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte.to_ascii_lowercase()))
    });
    let bit = 1u64 << (fold % 61);
    if *seen & bit != 0 && fields.iter().any(|old| old.name.eq_ignore_ascii_case(field.name)) {
        return Err(ControlError::Duplicate { line: field.line, name: field.name.to_owned() });
    }
    *seen |= bit;
    Ok(())
}

impl<'a> Iterator for Paragraphs<'a> {
    type Item = Result<Paragraph<'a>, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let paragraph = self.paragraph();
        if paragraph.is_err() {
            self.position = self.text.len();
        }
        paragraph.transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Paragraph<'_>>, ControlError> {
        paragraphs(text).collect()
    }

    #[test]
    fn paragraphs_fields_and_continuations() {
        let text = "# head\n\nPackage: a\nDescription: one\n two\n .\n# not this\n  three\n# tail\n\n\n \t\nPackage:b\r\nX : y\r\n\r\nlast: z";
        let all = read(text).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].line, all[1].line, all[2].line), (3, 13, 16));
        assert_eq!(all[0].value("package"), Some("a"));
        let description = all[0].field("DESCRIPTION").unwrap();
        assert_eq!(description.lines().collect::<Vec<_>>(), ["one", "two", "", " three"]);
        let last = description.numbered_lines().last();
        assert_eq!((description.line, last), (4, Some((8, " three"))));
        assert_eq!((all[1].value("Package"), all[1].value("x")), (Some("b"), Some("y")));
        assert_eq!(all[2].value("Last"), Some("z"));
        assert_eq!(all[1].value("absent"), None);
    }

    #[test]
    fn empty_texts_have_no_paragraph() {
        for text in ["", "\n\n", "# only\n# comments", " \n\t\n"] {
            assert_eq!(read(text).unwrap(), [], "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(read("A: 1\n\n b\n"), Err(ControlError::Continuation { line: 3 }));
        let no_field =
            |text: &str| matches!(read(text), Err(ControlError::NoField { line: 2, .. }));
        assert!(no_field("A: 1\nnothing"));
        assert!(no_field("A: 1\n: value"));
        assert!(no_field("A: 1\n-B: value"));
        assert!(no_field("A: 1\nB C: value"));
        let twice = ControlError::Duplicate { line: 3, name: "a".to_owned() };
        assert_eq!(read("A: 1\nB: 2\na: 3"), Err(twice));
        let mut after_error = paragraphs("x\nA: 1\n");
        assert!(after_error.next().unwrap().is_err());
        assert!(after_error.next().is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[aA:# .\\t\\r\\n-]{0,40}") {
            for paragraph in paragraphs(&text).flatten() {
                for field in paragraph.fields() {
                    prop_assert!(text.lines().count() >= field.line);
                    let _ = field.lines().count();
                }
            }
        }

        #[test]
        fn what_was_written_is_read(
            all in proptest::collection::vec(
                proptest::collection::btree_map("[A-Z][a-z]{0,8}", "([!-~]{1,8}(\n [!-~]{1,8}){0,2})?", 1..6),
                0..4,
            )
        ) {
            let mut text = String::new();
            for paragraph in &all {
                for (name, value) in paragraph {
                    text += &format!("{name}: {value}\n");
                }
                text += "\n";
            }
            let read = read(&text).unwrap();
            prop_assert_eq!(read.len(), all.len());
            for (read, written) in read.iter().zip(&all) {
                let fields = read.fields().iter().map(|field| (field.name, field.value()));
                let written = written.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                prop_assert!(fields.eq(written));
            }
        }
    }
}
