//! The host's apt sources as values: deb822 `.sources` files and one-line `.list` files.
//!
//! Formats: sources.list(5), apt-transport-mirror(1). Only `deb` entries are kept (sources are of
//! no use here), disabled ones and media (`cdrom:`) are dropped, and `mirror+file:` lists are
//! replaced by the addresses that they hold. Nothing here is trusted: an address found this way
//! counts only once its signed Release has proved what it carries.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use url::Url;

/// An apt source file that could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum AptSourceError {
    /// A file or directory below the apt configuration could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An entry is malformed; apt refuses it as well.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first line of the entry, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Which keys may sign a source, as `Signed-By` states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// Key files, or fingerprints of keys in apt's own key ring, as written.
    Names(Vec<String>),
    /// An armored key written into the source itself.
    Armored(String),
}

/// One enabled entry for binary packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptSource {
    /// Base addresses, in order; `http`, `https` and `file` only.
    pub uris: Vec<Url>,
    /// Suites, as written (`bookworm`, `bookworm-security`, or `./` for a flat repository).
    pub suites: Vec<String>,
    /// Components; empty for a flat repository.
    pub components: Vec<String>,
    /// Architectures; empty means that apt's own apply.
    pub architectures: Vec<String>,
    /// The keys that may sign; `None` means apt's global key ring.
    pub signed_by: Option<SignedBy>,
    /// The file that holds the entry.
    pub file: PathBuf,
}

/// Reads `sources.list` and `sources.list.d` below `directory` (usually `/etc/apt`) in apt's order.
///
/// # Errors
///
/// [`AptSourceError`] when an entry is malformed or a file cannot be read. Files that do not exist,
/// or that this user may not read, hold no entries.
pub fn read_apt_sources(directory: &Path) -> Result<Vec<AptSource>, AptSourceError> {
    let mut files = vec![directory.join("sources.list")];
    files.extend(parts(&directory.join("sources.list.d"))?);
    let mut sources = Vec::new();
    for file in files {
        let Some(text) = read_text(&file)? else { continue };
        let found = if file.extension().is_some_and(|extension| extension == "sources") {
            parse_deb822(&text, &file)?
        } else {
            parse_list(&text, &file)?
        };
        sources.extend(found);
    }
    Ok(sources)
}

/// The files of `sources.list.d` that apt would read, sorted by name.
fn parts(directory: &Path) -> Result<Vec<PathBuf>, AptSourceError> {
    let failed = |source| AptSourceError::Read { path: directory.to_path_buf(), source };
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.bytes().all(legal) && (name.ends_with(".list") || name.ends_with(".sources")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn read_text(path: &Path) -> Result<Option<String>, AptSourceError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_absent(&error) => {
            tracing::debug!(path = %path.display(), %error, "apt source not read");
            Ok(None)
        }
        Err(source) => Err(AptSourceError::Read { path: path.to_path_buf(), source }),
    }
}

/// Parses a deb822 `.sources` file; `file` is named in errors and entries.
///
/// # Errors
///
/// [`AptSourceError::Malformed`] when a stanza lacks a required field or a line is no field.
pub fn parse_deb822(text: &str, file: &Path) -> Result<Vec<AptSource>, AptSourceError> {
    let mut sources = Vec::new();
    let mut stanza = Stanza::default();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(std::mem::take(&mut stanza).into_source(file)?);
        } else {
            stanza.add_line(line, index + 1).map_err(|reason| AptSourceError::Malformed {
                path: file.to_path_buf(),
                line: index + 1,
                reason,
            })?;
        }
    }
    sources.extend(stanza.into_source(file)?);
    Ok(sources)
}

/// The fields of one deb822 stanza, names in lower case, continuation lines joined by line feeds.
#[derive(Default)]
struct Stanza {
    line: usize,
    fields: Vec<(String, String)>,
}

impl Stanza {
    fn add_line(&mut self, line: &str, number: usize) -> Result<(), &'static str> {
        if line.starts_with([' ', '\t']) {
            let (_, value) = self.fields.last_mut().ok_or("a continuation of no field")?;
            value.push('\n');
            let text = line.trim();
            // A lone dot stands for an empty line, which would end the stanza.
            value.push_str(if text == "." { "" } else { text });
            return Ok(());
        }
        let (name, value) = line.split_once(':').ok_or("expected `Field: value`")?;
        if self.fields.is_empty() {
            self.line = number;
        }
        self.fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn words(&self, name: &str) -> Vec<String> {
        self.text(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    fn into_source(self, file: &Path) -> Result<Option<AptSource>, AptSourceError> {
        let disabled = self.text("enabled").is_some_and(is_off);
        if self.fields.is_empty() || disabled {
            return Ok(None);
        }
        let malformed = |reason| AptSourceError::Malformed {
            path: file.to_path_buf(),
            line: self.line,
            reason,
        };
        let types = self.words("types");
        if types.is_empty() {
            return Err(malformed("the stanza has no Types"));
        }
        if !types.iter().any(|kind| kind == "deb") {
            return Ok(None);
        }
        let (addresses, suites) = (self.words("uris"), self.words("suites"));
        if addresses.is_empty() {
            return Err(malformed("the stanza has no URIs"));
        }
        if suites.is_empty() {
            return Err(malformed("the stanza has no Suites"));
        }
        let uris = usable_addresses(&addresses)?;
        Ok((!uris.is_empty()).then(|| AptSource {
            uris,
            suites,
            components: self.words("components"),
            architectures: self.words("architectures"),
            signed_by: self.text("signed-by").and_then(parse_signed_by),
            file: file.to_path_buf(),
        }))
    }
}

fn is_off(value: &str) -> bool {
    ["no", "false", "without", "off", "disable", "0"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

fn parse_signed_by(value: &str) -> Option<SignedBy> {
    let value = value.trim();
    if value.starts_with("-----BEGIN") {
        return Some(SignedBy::Armored(format!("{value}\n")));
    }
    let names: Vec<String> = value
        .split(|character: char| character.is_whitespace() || character == ',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    (!names.is_empty()).then_some(SignedBy::Names(names))
}

/// Parses a one-line-style `.list` file; `file` is named in errors and entries.
///
/// # Errors
///
/// [`AptSourceError::Malformed`] when a line is no comment and no complete entry.
pub fn parse_list(text: &str, file: &Path) -> Result<Vec<AptSource>, AptSourceError> {
    let mut sources = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = parse_list_line(line, file).map_err(|error| match error {
            LineError::Reason(reason) => {
                AptSourceError::Malformed { path: file.to_path_buf(), line: index + 1, reason }
            }
            LineError::Source(error) => error,
        })?;
        sources.extend(entry);
    }
    Ok(sources)
}

enum LineError {
    Reason(&'static str),
    Source(AptSourceError),
}

fn parse_list_line(line: &str, file: &Path) -> Result<Option<AptSource>, LineError> {
    let line = without_comment(line).trim();
    let Some((kind, rest)) = line.split_once(char::is_whitespace) else {
        return if line.is_empty() { Ok(None) } else { Err(LineError::Reason("incomplete entry")) };
    };
    match kind {
        "deb" => {}
        "deb-src" => return Ok(None),
        _ => return Err(LineError::Reason("an entry starts with `deb` or `deb-src`")),
    }
    let mut rest = rest.trim_start();
    let mut options = "";
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (inside, after) =
            bracketed.split_once(']').ok_or(LineError::Reason("`[` without `]`"))?;
        (options, rest) = (inside, after.trim_start());
    }
    if rest.trim_start_matches('"').starts_with("cdrom:") {
        return Ok(None);
    }
    let mut words = rest.split_whitespace().map(|word| word.trim_matches('"'));
    let (Some(address), Some(suite)) = (words.next(), words.next()) else {
        return Err(LineError::Reason("an entry needs an address and a suite"));
    };
    let components: Vec<String> = words.map(str::to_owned).collect();
    if components.is_empty() != suite.ends_with('/') {
        return Err(LineError::Reason("components go with a suite that has no final `/`"));
    }
    let uris = usable_addresses(&[address.to_owned()]).map_err(LineError::Source)?;
    if uris.is_empty() {
        return Ok(None);
    }
    let suites = vec![suite.to_owned()];
    let mut source = AptSource {
        uris,
        suites,
        components,
        architectures: Vec::new(),
        signed_by: None,
        file: file.to_path_buf(),
    };
    for option in options.split_whitespace() {
        apply_option(&mut source, option);
    }
    Ok(Some(source))
}

/// Cuts a comment off, but not a `#` within brackets (apt keeps those).
fn without_comment(line: &str) -> &str {
    let mut depth = 0_u32;
    for (at, character) in line.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '#' if depth == 0 => return &line[..at],
            _ => {}
        }
    }
    line
}

/// Options that say nothing about the place or the keys of a repository are of no concern here.
fn apply_option(source: &mut AptSource, option: &str) {
    let Some((name, value)) = option.split_once('=') else { return };
    match name.trim_end_matches('+').to_ascii_lowercase().as_str() {
        "arch" => {
            source.architectures.extend(value.split(',').map(str::to_owned));
        }
        "signed-by" => source.signed_by = parse_signed_by(value),
        _ => {}
    }
}

/// Keeps addresses that can be fetched, replacing `mirror+file:` lists by their content.
fn usable_addresses(addresses: &[String]) -> Result<Vec<Url>, AptSourceError> {
    let mut urls = Vec::new();
    for address in addresses {
        if let Some(list) = address.strip_prefix("mirror+file:") {
            let path = PathBuf::from(format!("/{}", list.trim_start_matches('/')));
            let text = read_text(&path)?.unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            urls.extend(lines.filter_map(|line| fetchable(line.split_whitespace().next()?)));
        } else {
            urls.extend(fetchable(address));
        }
    }
    Ok(urls)
}

/// Reads an address whose scheme the downloader knows. apt allows `file:/path` for `file:///path`.
fn fetchable(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    matches!(url.scheme(), "http" | "https" | "file").then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(source: &AptSource) -> Vec<&str> {
        source.uris.iter().map(Url::as_str).collect()
    }

    #[test]
    fn deb822_stanzas_are_read_as_apt_reads_them() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://example.com/debian\n  https://b.example.com/debian/\n\
                    # in the middle\nSuites: bookworm bookworm-updates\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/a.gpg\nArchitectures: amd64\n\n\n\
                    Types: deb\nEnabled: no\nURIs: http://off.example.com\nSuites: x\nComponents: main\n\n\
                    types: deb\nuris: http://c.example.com/repo\nsuites: ./\nsigned-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----\n\n\
                    Types: deb-src\nURIs: http://src.example.com\nSuites: x\n";
        let sources = parse_deb822(text, Path::new("t.sources")).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(
            urls(&sources[0]),
            ["http://example.com/debian", "https://b.example.com/debian/"]
        );
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].architectures, ["amd64"]);
        assert_eq!(
            sources[0].signed_by,
            Some(SignedBy::Names(vec!["/usr/share/keyrings/a.gpg".into()]))
        );
        let Some(SignedBy::Armored(key)) = &sources[1].signed_by else { panic!("armored key") };
        assert!(key.contains("BLOCK-----\n\nmQ==\n"), "{key}");
    }

    #[test]
    fn list_lines_are_read_as_apt_reads_them() {
        let text = "\n# c\ndeb [ signed-by=/k/a.gpg,/k/b.gpg arch=amd64,arm64 trusted=yes ] http://example.com/debian bookworm main contrib # tail\n\
                    deb-src http://example.com/debian bookworm main\n\
                    deb cdrom:[Debian GNU/Linux 12 # Official]/ bookworm main\n\
                    deb mirror+http://example.com/list bookworm main\n\
                    deb file:/srv/repo ./\n";
        let sources = parse_list(text, Path::new("t.list")).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].architectures, ["amd64", "arm64"]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(
            sources[0].signed_by,
            Some(SignedBy::Names(vec!["/k/a.gpg".into(), "/k/b.gpg".into()]))
        );
        assert_eq!(urls(&sources[1]), ["file:///srv/repo"]);
    }

    #[test]
    fn malformed_entries_name_file_and_line() {
        for text in ["\nrpm http://example.com x main", "\ndeb http://example.com", "\ndeb [a=b x"]
        {
            let error = parse_list(text, Path::new("t.list")).unwrap_err().to_string();
            assert!(error.starts_with("t.list:2: "), "{error}");
        }
        let error = parse_deb822("\nTypes: deb\nSuites: x\n", Path::new("t.sources")).unwrap_err();
        assert_eq!(error.to_string(), "t.sources:2: the stanza has no URIs");
        assert!(parse_deb822("no colon", Path::new("t")).is_err());
        assert!(parse_deb822(" continued", Path::new("t")).is_err());
    }

    #[test]
    fn a_directory_is_read_in_order_and_mirror_lists_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("mirrors.txt");
        fs::write(
            &list,
            "# one\nhttp://m1.example.com/debian\tpriority:1\n\nhttp://m2.example.com/debian\n",
        )
        .unwrap();
        let parts = directory.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        let stanza = format!(
            "Types: deb\nURIs: mirror+file:{}\nSuites: trixie\nComponents: main\n",
            list.display()
        );
        fs::write(parts.join("b.sources"), stanza).unwrap();
        fs::write(parts.join("a.list"), "deb http://a.example.com/debian sid main\n").unwrap();
        fs::write(parts.join("a.list.disabled"), "nonsense").unwrap();
        fs::write(parts.join("bad name.list"), "nonsense").unwrap();
        let sources = read_apt_sources(directory.path()).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(urls(&sources[0]), ["http://a.example.com/debian"]);
        assert_eq!(
            urls(&sources[1]),
            ["http://m1.example.com/debian", "http://m2.example.com/debian"]
        );
        assert!(read_apt_sources(Path::new("/nonexistent")).unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*|[deb#\\[\\]:= \n\t./-]{0,60}") {
            let _ = parse_list(&text, Path::new("t"));
            let _ = parse_deb822(&text, Path::new("t"));
        }
    }
}
