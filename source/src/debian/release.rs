//! Release files: what a suite says of itself, and the digests of its indexes.
//!
//! The format is described on the Debian wiki's page "DebianRepository/Format". The signature
//! around the text is another module's work: this one reads the text that a signature covers.

use std::collections::BTreeMap;

use drystone_store::digest::BlobDigest;
use jiff::fmt::rfc2822;

use super::control::{ControlError, Field, Paragraph, paragraphs};

/// Why a text is no Release file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The text is no control file.
    #[error("the Release file cannot be read")]
    Control(#[from] ControlError),
    /// The text has no paragraph, or more than one.
    #[error("the Release file has {0} paragraphs; expected 1")]
    Paragraphs(usize),
    /// A field that every Release file needs is absent.
    #[error("the Release file has no field {0}")]
    Missing(&'static str),
    /// A date is none.
    #[error("line {line} of the Release file: {field} is no date: {text:?}")]
    Date {
        /// The line, counted from 1.
        line: usize,
        /// The field's name.
        field: &'static str,
        /// The value.
        text: String,
    },
    /// A line of the SHA256 list cannot be used.
    #[error("line {line} of the Release file: {problem}: {text:?}")]
    Entry {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
        /// The line.
        text: String,
    },
}

/// An index that a Release file vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseFile {
    /// SHA-256 of the file.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
}

/// A Release file. Fields that a repository may leave out are empty or `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who publishes the repository, as `Debian`.
    pub origin: String,
    /// What the repository calls itself, as `Debian-Security`.
    pub label: String,
    /// The suite, which may be an alias that moves, as `stable`.
    pub suite: String,
    /// The codename, as `bookworm`.
    pub codename: String,
    /// The version of the distribution, as `12.5`.
    pub version: String,
    /// When the file was made, in seconds since 1970.
    pub date: i64,
    /// Until when it may be used, in seconds since 1970, if it says so.
    pub valid_until: Option<i64>,
    /// Whether indexes can be fetched by their digest.
    pub acquire_by_hash: bool,
    /// The architectures.
    pub architectures: Vec<String>,
    /// The components, as `main`.
    pub components: Vec<String>,
    /// The indexes, by their path below the Release file's directory.
    pub files: BTreeMap<String, ReleaseFile>,
}

impl Release {
    /// Reads the text that the signature covers.
    pub fn read(text: &str) -> Result<Self, ReleaseError> {
        let mut all = paragraphs(text).collect::<Result<Vec<_>, _>>()?;
        let paragraph = match all.len() {
            1 => all.remove(0),
            count => return Err(ReleaseError::Paragraphs(count)),
        };
        let text = |name: &str| paragraph.value(name).unwrap_or_default().to_owned();
        let words = |name: &str| {
            paragraph
                .value(name)
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let date = date(&paragraph, "Date")?.ok_or(ReleaseError::Missing("Date"))?;
        let list = paragraph.field("SHA256").ok_or(ReleaseError::Missing("SHA256"))?;
        Ok(Self {
            origin: text("Origin"),
            label: text("Label"),
            suite: text("Suite"),
            codename: text("Codename"),
            version: text("Version"),
            date,
            valid_until: self::date(&paragraph, "Valid-Until")?,
            acquire_by_hash: text("Acquire-By-Hash").eq_ignore_ascii_case("yes"),
            architectures: words("Architectures"),
            components: words("Components"),
            files: files(list)?,
        })
    }
}

/// Reads a date as `Sat, 11 Jul 2026 10:16:37 UTC`; the zone must be UTC, in any of its names.
fn date(paragraph: &Paragraph<'_>, name: &'static str) -> Result<Option<i64>, ReleaseError> {
    let Some(field) = paragraph.field(name) else { return Ok(None) };
    let text = field.value();
    let bad = || ReleaseError::Date {
        line: field.line,
        field: name,
        text: text.chars().take(80).collect(),
    };
    let zones = ["UTC", "GMT", "Z", "+0000", "-0000"];
    let local = zones.iter().find_map(|zone| text.strip_suffix(zone)).ok_or_else(bad)?;
    // One spelling of the zone for the parser; runs of spaces (a day without its zero) are fine.
    let plain = format!("{} +0000", local.split_whitespace().collect::<Vec<_>>().join(" "));
    let zoned = rfc2822::DateTimeParser::new().parse_zoned(plain).map_err(|_| bad())?;
    Ok(Some(zoned.timestamp().as_second()))
}

/// Reads the list of digests: `<hex> <size> <path>` on each line.
fn files(field: &Field<'_>) -> Result<BTreeMap<String, ReleaseFile>, ReleaseError> {
    let mut files = BTreeMap::new();
    for (line, text) in field.numbered_lines().filter(|(_, text)| !text.trim_ascii().is_empty()) {
        let bad =
            |problem| ReleaseError::Entry { line, problem, text: text.chars().take(200).collect() };
        let mut words = text.split_ascii_whitespace();
        let (Some(digest), Some(size), Some(path), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("expected a digest, a size and a path"));
        };
        let digest = BlobDigest::from_hex(digest).ok_or_else(|| bad("no SHA-256 digest"))?;
        let size = size.parse().map_err(|_| bad("no size in bytes"))?;
        if !is_plain_path(path) {
            return Err(bad("the path leaves the repository"));
        }
        let file = ReleaseFile { digest, size };
        if files.insert(path.to_owned(), file).is_some_and(|old| old != file) {
            return Err(bad("the path has two digests"));
        }
    }
    Ok(files)
}

/// Tells whether a path is relative and stays below the directory that it is relative to.
pub(super) fn is_plain_path(path: &str) -> bool {
    !path.chars().any(|character| character.is_control() || character == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn with(line: &str) -> String {
        format!(
            "Origin: Example\nSuite: stable\nCodename: rock\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
             Acquire-By-Hash: yes\nArchitectures: all amd64\nComponents: main extra\nSHA256:\n {HEX}  0 main/binary-amd64/Packages\n{line}"
        )
    }

    #[test]
    fn fields_and_list_are_read() {
        let text =
            with(&format!(" {HEX} 12 main/x.gz\nValid-Until: Sat,  18 Jul 2026 10:16:37 GMT\n"));
        let release = Release::read(&text).unwrap();
        assert_eq!((release.origin.as_str(), release.label.as_str()), ("Example", ""));
        assert_eq!((release.suite.as_str(), release.codename.as_str()), ("stable", "rock"));
        assert_eq!(release.date, 1_783_764_997);
        assert_eq!(release.valid_until, Some(release.date + 7 * 86_400));
        assert!(release.acquire_by_hash);
        assert_eq!(release.architectures, ["all", "amd64"]);
        assert_eq!(release.components, ["main", "extra"]);
        assert_eq!(release.files["main/x.gz"].size, 12);
        assert_eq!(release.files["main/x.gz"].digest.to_hex(), HEX);
        assert_eq!(release.files.len(), 2);
    }

    #[test]
    fn errors_name_the_line() {
        let line_of = |text: &str| match Release::read(text) {
            Err(ReleaseError::Entry { line, .. } | ReleaseError::Date { line, .. }) => Some(line),
            _ => None,
        };
        assert_eq!(line_of(&with(" abc 1 main/x\n")), Some(10));
        assert_eq!(line_of(&with(&format!(" {HEX} -1 main/x\n"))), Some(10));
        assert_eq!(line_of(&with(&format!(" {HEX} 1 ../x\n"))), Some(10));
        assert_eq!(line_of(&with(&format!(" {HEX} 1 /x\n"))), Some(10));
        assert_eq!(line_of(&with(&format!(" {HEX} 1\n"))), Some(10));
        assert_eq!(line_of(&with(&format!(" {HEX} 1 main/binary-amd64/Packages\n"))), Some(10));
        assert_eq!(line_of(&with("Valid-Until: soon\n")), Some(10));
        assert_eq!(line_of("Date: Sat, 11 Jul 2026 10:16:37 CEST\nSHA256:\n"), Some(1));
        assert_eq!(Release::read(""), Err(ReleaseError::Paragraphs(0)));
        assert_eq!(Release::read("A: b\n"), Err(ReleaseError::Missing("Date")));
        let no_list = "Date: Sat, 11 Jul 2026 10:16:37 UTC\nMD5Sum:\n";
        assert_eq!(Release::read(no_list), Err(ReleaseError::Missing("SHA256")));
    }
}
