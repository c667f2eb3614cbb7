//! What dpkg's status database says of a package, and where scanners look for it.
//!
//! [`status_paragraph`] writes one paragraph of `/var/lib/dpkg/status` exactly as dpkg does: the
//! fields that dpkg knows in its own order with relations and versions in its own spelling, then
//! all others as they stand (dpkg 1.21 and 1.22, `lib/dpkg/parse.c`, `fields.c`, `dump.c`).
//! [`scanner_files`] gives the files of `/var/lib/dpkg/status.d`, which scanners read in images
//! that have no package manager.

use drystone_store::tree::{PathError, TreePath};

mod fields;

use fields::Fields;

/// Why a control file cannot be written as a status paragraph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// A line is neither a field nor the continuation of one.
    #[error("control file, line {line}: {text:?} is not a field")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A field stands twice.
    #[error("control file: field {field:?} stands twice")]
    Twice {
        /// The field.
        field: String,
    },
    /// A field that every package has is missing.
    #[error("control file: field {field:?} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field's value is not what dpkg accepts.
    #[error("control file of {package}: {field} {value:?} {problem}")]
    Value {
        /// The package, or empty when that is not known yet.
        package: String,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The package's name cannot be a file's name.
    #[error("package {package:?} cannot have a status file")]
    Name {
        /// The package.
        package: String,
        /// Why.
        #[source]
        source: PathError,
    },
}

/// A configuration file as dpkg remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conffile {
    /// The absolute path.
    pub path: String,
    /// MD5 of the package's own version of the file, in hexadecimal, or `newconffile` before the
    /// package is configured.
    pub md5: String,
    /// The package no longer has it.
    pub obsolete: bool,
    /// The package asks to remove it.
    pub remove_on_upgrade: bool,
}

/// What dpkg knows of a package besides its control file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageState {
    /// Wanted state, error flag and state: `install ok installed`.
    pub status: String,
    /// The version that was configured last; dpkg writes it only between unpacking and the end of
    /// configuring.
    pub configured_version: Option<String>,
    /// The configuration files in the order of the package's `conffiles`.
    pub conffiles: Vec<Conffile>,
    /// Triggers that the package still has to process.
    pub triggers_pending: Vec<String>,
    /// Packages whose triggers this one waits for.
    pub triggers_awaited: Vec<String>,
}

impl PackageState {
    /// The state of a package that is installed and configured.
    pub fn installed(conffiles: Vec<Conffile>) -> Self {
        Self { status: "install ok installed".to_owned(), conffiles, ..Self::default() }
    }
}

/// The order in which dpkg writes the fields that it knows.
const FIELDS: [(&str, Kind); 28] = [
    ("Package", Kind::Name),
    ("Essential", Kind::Boolean),
    ("Protected", Kind::Boolean),
    ("Status", Kind::State),
    ("Priority", Kind::Priority),
    ("Section", Kind::Text),
    ("Installed-Size", Kind::Text),
    ("Origin", Kind::Text),
    ("Maintainer", Kind::Text),
    ("Bugs", Kind::Text),
    ("Architecture", Kind::Text),
    ("Multi-Arch", Kind::MultiArch),
    ("Source", Kind::Text),
    ("Version", Kind::Version),
    ("Config-Version", Kind::State),
    ("Replaces", Kind::Relations),
    ("Provides", Kind::Relations),
    ("Depends", Kind::Relations),
    ("Pre-Depends", Kind::Relations),
    ("Recommends", Kind::Relations),
    ("Suggests", Kind::Relations),
    ("Breaks", Kind::Relations),
    ("Conflicts", Kind::Relations),
    ("Enhances", Kind::Relations),
    ("Conffiles", Kind::State),
    ("Description", Kind::Text),
    ("Triggers-Pending", Kind::State),
    ("Triggers-Awaited", Kind::State),
];

/// Fields of archives and indexes, which dpkg knows and never writes into the status file.
const NEVER_WRITTEN: [&str; 4] = ["Filename", "Size", "MD5sum", "MSDOS-Filename"];

/// Old names of fields, and what dpkg takes them for.
const OLD_NAMES: [(&str, &str); 3] =
    [("Recommended", "Recommends"), ("Optional", "Suggests"), ("Class", "Priority")];

/// How a field's value is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Boolean,
    Priority,
    Text,
    MultiArch,
    Version,
    Relations,
    /// Comes from the state, not from the control file.
    State,
}

/// Writes the paragraph of one package, without the empty line behind it.
///
/// `control` is the text of the package's `control` file.
pub fn status_paragraph(control: &str, state: &PackageState) -> Result<String, StatusError> {
    let mut fields = Fields::parse(control)?;
    for required in ["Package", "Version"] {
        if fields.value(required).is_none_or(str::is_empty) {
            return Err(StatusError::Missing { field: required });
        }
    }
    for (old, new) in OLD_NAMES {
        fields.rename(old, new);
    }
    let mut out = String::new();
    for (name, kind) in FIELDS {
        if kind == Kind::State {
            fields.take(name);
            write_state(&mut out, name, state);
        } else if let Some(value) = fields.take(name) {
            let spelled = spell(kind, &value).map_err(|problem| StatusError::Value {
                package: out.lines().next().unwrap_or_default().replace("Package: ", ""),
                field: name.to_owned(),
                value: value.clone(),
                problem,
            })?;
            if let Some(spelled) = spelled {
                push(&mut out, name, &spelled);
            }
        }
    }
    for name in NEVER_WRITTEN {
        fields.take(name);
    }
    for (name, value) in fields.rest() {
        push(&mut out, &name, &value);
    }
    Ok(out)
}

fn push(out: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\n"] {
        out.push_str(part);
    }
}

fn write_state(out: &mut String, name: &str, state: &PackageState) {
    match name {
        "Status" => push(out, name, &state.status),
        "Config-Version" => {
            if let Some(version) = &state.configured_version {
                push(out, name, version);
            }
        }
        "Conffiles" if !state.conffiles.is_empty() => {
            out.push_str("Conffiles:\n");
            for file in &state.conffiles {
                let obsolete = if file.obsolete { " obsolete" } else { "" };
                let remove = if file.remove_on_upgrade { " remove-on-upgrade" } else { "" };
                out.push_str(&format!(" {} {}{obsolete}{remove}\n", file.path, file.md5));
            }
        }
        "Triggers-Pending" => write_words(out, name, &state.triggers_pending),
        "Triggers-Awaited" => write_words(out, name, &state.triggers_awaited),
        _ => {}
    }
}

fn write_words(out: &mut String, name: &str, words: &[String]) {
    if !words.is_empty() {
        push(out, name, &words.join(" "));
    }
}

/// A value as dpkg writes it; `None` when dpkg writes no such field.
fn spell(kind: Kind, value: &str) -> Result<Option<String>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    Ok(match kind {
        Kind::State => None,
        Kind::Text => Some(value.to_owned()),
        Kind::Name => Some(fields::package_name(value)?),
        Kind::Version => Some(fields::version(value)?),
        Kind::Relations => Some(fields::relations(value)?),
        Kind::Boolean => match fields::word(value, &["no", "yes"]) {
            Some("yes") => Some("yes".to_owned()),
            Some(_) => None,
            None => return Err("is neither yes nor no"),
        },
        Kind::MultiArch => match fields::word(value, &["no", "same", "allowed", "foreign"]) {
            Some("no") => None,
            Some(word) => Some(word.to_owned()),
            None => return Err("is none of no, same, allowed, foreign"),
        },
        Kind::Priority => {
            const KNOWN: [&str; 6] =
                ["required", "important", "standard", "optional", "extra", "unknown"];
            match fields::word(value, &KNOWN) {
                Some("unknown") => None,
                Some(word) => Some(word.to_owned()),
                None => Some(value.to_owned()),
            }
        }
    })
}

/// A file below `/var/lib/dpkg/status.d` (mode 0644, owner 0:0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannerFile {
    /// Where it stands.
    pub path: TreePath,
    /// The content.
    pub content: Vec<u8>,
}

/// The files that tell scanners of an installed package: its paragraph, and the MD5 sums of its
/// files where the package has them. The names are those that distroless images use, which trivy,
/// grype and syft know.
pub fn scanner_files(
    control: &str,
    md5sums: Option<&[u8]>,
    state: &PackageState,
) -> Result<Vec<ScannerFile>, StatusError> {
    let paragraph = status_paragraph(control, state)?;
    let package = paragraph.lines().next().unwrap_or_default().replace("Package: ", "");
    let path = |suffix: &str| {
        TreePath::new(format!("var/lib/dpkg/status.d/{package}{suffix}"))
            .map_err(|source| StatusError::Name { package: package.clone(), source })
    };
    let mut files = vec![ScannerFile { path: path("")?, content: paragraph.into_bytes() }];
    if let Some(md5sums) = md5sums {
        files.push(ScannerFile { path: path(".md5sums")?, content: md5sums.to_vec() });
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
