//! `Packages` indexes: one record for each binary package that a repository offers.

use std::sync::Arc;

use drystone_store::digest::BlobDigest;

use super::control::{ControlError, Field, Paragraph, paragraphs};
use super::relation::{Operator, RelationError, RelationField, Relations, is_package_name};
use super::release::is_plain_path;
use super::version::{Version, VersionError};

/// The largest package that is believed, in bytes: 16 GiB.
const MAX_SIZE: u64 = 1 << 34;

/// Why an index was refused: where, which package, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("index of {repository}, line {line}, package {package:?}")]
pub struct IndexError {
    /// The repository's name.
    pub repository: String,
    /// The line of the index, counted from 1.
    pub line: usize,
    /// The package, as far as it is known.
    pub package: String,
    /// What is wrong.
    #[source]
    pub problem: Box<IndexProblem>,
}

/// What is wrong with an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexProblem {
    /// The text is no control file.
    #[error("the index cannot be read")]
    Control(#[from] ControlError),
    /// A field that every package needs is absent.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A name has characters that names cannot have.
    #[error("{0:?} is no package name")]
    Name(String),
    /// A version is none.
    #[error("the version is bad")]
    Version(#[from] VersionError),
    /// A relation field is none.
    #[error("the field {field} is bad")]
    Relation {
        /// The field's name.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: RelationError,
    },
    /// A field has a value that it cannot have.
    #[error("the field {field} is bad: {text:?} is no {expected}")]
    Value {
        /// The field's name.
        field: &'static str,
        /// The value.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
}

/// How a package stands to the same package of other architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiArch {
    /// Nothing special: `no`, or the field is absent.
    #[default]
    No,
    /// Several architectures can be installed side by side.
    Same,
    /// The package satisfies relations of any architecture.
    Foreign,
    /// Relations may ask for any architecture with `:any`.
    Allowed,
}

/// How important a package is to the distribution; the first is the most important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Needed for the package system to work.
    Required,
    /// Expected on any system of the kind.
    Important,
    /// Part of a small but complete text system.
    Standard,
    /// Everything else.
    Optional,
    /// The obsolete lowest priority; also what is unknown.
    Extra,
}

/// One name that a package provides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provided {
    /// The name of the (often virtual) package.
    pub name: String,
    /// The version that it is provided in, if any: only then versioned relations are satisfied.
    pub version: Option<Version>,
}

/// What an index says of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRecord {
    /// The name of the repository that the index belongs to.
    pub repository: Arc<str>,
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its architecture; `all` for packages that suit any.
    pub architecture: String,
    /// The name of the source package.
    pub source: String,
    /// The version of the source package, which differs from the package's after a binary rebuild.
    pub source_version: Version,
    /// Its `Multi-Arch` field.
    pub multi_arch: MultiArch,
    /// Whether packages may rely on it without saying so.
    pub essential: bool,
    /// Its priority.
    pub priority: Priority,
    /// Its section, as `libs`; empty if absent.
    pub section: String,
    /// What must be configured before this package is unpacked.
    pub pre_depends: RelationField,
    /// What must be configured before this package is.
    pub depends: RelationField,
    /// What is installed with it unless asked otherwise.
    pub recommends: RelationField,
    /// What it suggests; never followed.
    pub suggests: RelationField,
    /// What it is an addition to; never followed.
    pub enhances: RelationField,
    /// What cannot be configured beside it.
    pub breaks: RelationField,
    /// What cannot be unpacked beside it.
    pub conflicts: RelationField,
    /// Whose files it may overwrite.
    pub replaces: RelationField,
    /// The names that it stands for besides its own.
    pub provides: Vec<Provided>,
    /// The path of the archive below the repository's root.
    pub filename: String,
    /// The archive's size in bytes.
    pub size: u64,
    /// The archive's SHA-256.
    pub sha256: BlobDigest,
    /// The size of the unpacked files in KiB, as the maintainer estimated it, if stated.
    pub installed_size: Option<u64>,
}

/// Reads a `Packages` index. `repository` is the name that records and errors carry.
pub fn read_packages(repository: &str, text: &str) -> Result<Vec<PackageRecord>, IndexError> {
    let shared: Arc<str> = repository.into();
    let mut records = Vec::with_capacity(text.len() / 800);
    let mut last = String::new();
    for paragraph in paragraphs(text) {
        let paragraph = paragraph.map_err(|error| {
            let (ControlError::Continuation { line }
            | ControlError::NoField { line, .. }
            | ControlError::Duplicate { line, .. }) = error;
            let package = if last.is_empty() { String::new() } else { format!("after {last}") };
            let problem = Box::new(error.into());
            IndexError { repository: repository.to_owned(), line, package, problem }
        })?;
        let reader = Reader { paragraph: &paragraph };
        let record = reader.record(&shared).map_err(|(line, problem)| IndexError {
            repository: repository.to_owned(),
            line,
            package: paragraph.value("Package").unwrap_or_default().chars().take(100).collect(),
            problem: Box::new(problem),
        })?;
        last.clone_from(&record.name);
        records.push(record);
    }
    Ok(records)
}

/// A problem and its line.
type Located = (usize, IndexProblem);

/// Reads the fields of one paragraph.
struct Reader<'p, 'a> {
    paragraph: &'p Paragraph<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn record(&self, repository: &Arc<str>) -> Result<PackageRecord, Located> {
        let name = self.name(self.needed("Package")?)?;
        let field = self.needed("Version")?;
        let version = Version::new(field.value()).map_err(|error| (field.line, error.into()))?;
        let (source, source_version) = self.source(&name, &version)?;
        Ok(PackageRecord {
            repository: Arc::clone(repository),
            architecture: self.name(self.needed("Architecture")?)?,
            source,
            source_version,
            multi_arch: self.choice("Multi-Arch", MULTI_ARCH)?.unwrap_or_default(),
            essential: self.choice("Essential", YES_NO)?.unwrap_or_default(),
            priority: self.priority(),
            section: self.paragraph.value("Section").unwrap_or_default().to_owned(),
            pre_depends: self.relation("Pre-Depends")?,
            depends: self.relation("Depends")?,
            recommends: self.relation("Recommends")?,
            suggests: self.relation("Suggests")?,
            enhances: self.relation("Enhances")?,
            breaks: self.relation("Breaks")?,
            conflicts: self.relation("Conflicts")?,
            replaces: self.relation("Replaces")?,
            provides: self.provides()?,
            filename: self.filename()?,
            size: self.size()?,
            sha256: self.sha256()?,
            installed_size: self.number("Installed-Size", "size in KiB")?,
            name,
            version,
        })
    }

    fn needed(&self, name: &'static str) -> Result<&Field<'a>, Located> {
        let missing = || (self.paragraph.line, IndexProblem::Missing(name));
        self.paragraph.field(name).filter(|field| !field.value().is_empty()).ok_or_else(missing)
    }

    fn name(&self, field: &Field<'a>) -> Result<String, Located> {
        let text = field.value();
        if is_package_name(text) && text.len() <= 200 {
            return Ok(text.to_owned());
        }
        Err((field.line, IndexProblem::Name(text.chars().take(100).collect())))
    }

    /// `Source: name (version)`; absent parts are the package's own.
    fn source(&self, name: &str, version: &Version) -> Result<(String, Version), Located> {
        let Some(field) = self.paragraph.field("Source") else {
            return Ok((name.to_owned(), version.clone()));
        };
        let text = field.value();
        let (source, rest) = text.split_once('(').unwrap_or((text, ""));
        let source = source.trim_ascii();
        if !is_package_name(source) {
            let text = text.chars().take(100).collect();
            return Err((field.line, IndexProblem::Name(text)));
        }
        let source_version = match rest.trim_ascii_end().strip_suffix(')') {
            Some(text) => Version::new(text).map_err(|error| (field.line, error.into()))?,
            None => version.clone(),
        };
        Ok((source.to_owned(), source_version))
    }

    fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: Choices<T>,
    ) -> Result<Option<T>, Located> {
        let Some(field) = self.paragraph.field(name) else { return Ok(None) };
        let found = choices.values.iter().find(|(text, _)| *text == field.value());
        let found = found.ok_or_else(|| bad_value(field, name, choices.expected))?;
        Ok(Some(found.1))
    }

    fn priority(&self) -> Priority {
        match self.paragraph.value("Priority").unwrap_or_default() {
            "required" => Priority::Required,
            "important" => Priority::Important,
            "standard" => Priority::Standard,
            "optional" => Priority::Optional,
            _ => Priority::Extra,
        }
    }

    fn relation(&self, name: &'static str) -> Result<RelationField, Located> {
        let Some(field) = self.paragraph.field(name) else { return Ok(RelationField::default()) };
        RelationField::new(field.value())
            .map_err(|source| (field.line, IndexProblem::Relation { field: name, source }))
    }

    fn provides(&self) -> Result<Vec<Provided>, Located> {
        let Some(field) = self.paragraph.field("Provides") else { return Ok(Vec::new()) };
        let relations: Relations = field
            .value()
            .parse()
            .map_err(|source| (field.line, IndexProblem::Relation { field: "Provides", source }))?;
        let mut provides = Vec::with_capacity(relations.groups.len());
        for group in relations.groups {
            let [alternative] = group.alternatives.as_slice() else {
                return Err(bad_value(field, "Provides", "list without alternatives"));
            };
            let version = match &alternative.constraint {
                None => None,
                Some(constraint) if constraint.operator == Operator::Equal => {
                    Some(constraint.version.clone())
                }
                Some(_) => return Err(bad_value(field, "Provides", "list of exact versions")),
            };
            provides.push(Provided { name: alternative.name.clone(), version });
        }
        Ok(provides)
    }

    fn filename(&self) -> Result<String, Located> {
        let field = self.needed("Filename")?;
        // Flat repositories write `./name.deb`.
        let path = field.value().trim_start_matches("./");
        if is_plain_path(path) && path.len() <= 1024 {
            return Ok(path.to_owned());
        }
        Err(bad_value(field, "Filename", "path below the repository"))
    }

    fn number(&self, name: &'static str, expected: &'static str) -> Result<Option<u64>, Located> {
        let Some(field) = self.paragraph.field(name) else { return Ok(None) };
        let number = field.value().parse();
        number.map(Some).map_err(|_| bad_value(field, name, expected))
    }

    fn size(&self) -> Result<u64, Located> {
        let field = self.needed("Size")?;
        let size = self.number("Size", "size in bytes")?;
        let believed = size.filter(|size| (1..=MAX_SIZE).contains(size));
        believed.ok_or_else(|| bad_value(field, "Size", "believable size in bytes"))
    }

    fn sha256(&self) -> Result<BlobDigest, Located> {
        let field = self.needed("SHA256")?;
        BlobDigest::from_hex(field.value())
            .ok_or_else(|| bad_value(field, "SHA256", "SHA-256 digest"))
    }
}

/// The values that a field may have.
#[derive(Clone, Copy)]
struct Choices<T: 'static> {
    values: &'static [(&'static str, T)],
    expected: &'static str,
}

const YES_NO: Choices<bool> =
    Choices { values: &[("yes", true), ("no", false)], expected: "\"yes\" or \"no\"" };
const MULTI_ARCH: Choices<MultiArch> = Choices {
    values: &[
        ("no", MultiArch::No),
        ("same", MultiArch::Same),
        ("foreign", MultiArch::Foreign),
        ("allowed", MultiArch::Allowed),
    ],
    expected: "\"no\", \"same\", \"foreign\" or \"allowed\"",
};

fn bad_value(field: &Field<'_>, name: &'static str, expected: &'static str) -> Located {
    let text = field.value().chars().take(200).collect();
    (field.line, IndexProblem::Value { field: name, text, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn stanza(replace: &str, with: &str) -> String {
        format!(
            "Package: first\nVersion: 1\nArchitecture: all\nFilename: ./first.deb\nSize: 10\nSHA256: {HEX}\n\n\
             Package: hello\nSource: hello-source (1.9)\nVersion: 2.0-1+b1\nArchitecture: amd64\n\
             Multi-Arch: foreign\nEssential: yes\nPriority: required\nSection: misc\nInstalled-Size: 280\n\
             Depends: libc6 (>= 2.14), a | b\nProvides: greeter, greeting (= 3)\n\
             Filename: pool/main/h/hello.deb\nSize: 1000\nSHA256: {HEX}\n"
        )
        .replace(replace, with)
    }

    #[test]
    fn records_are_read() {
        let records = read_packages("main", &stanza("", "")).unwrap();
        let [first, hello] = records.as_slice() else { panic!("two records") };
        assert_eq!((first.source.as_str(), first.source_version.as_str()), ("first", "1"));
        assert_eq!((first.filename.as_str(), first.priority), ("first.deb", Priority::Extra));
        assert_eq!(first.installed_size, None);
        assert_eq!((hello.source.as_str(), hello.source_version.as_str()), ("hello-source", "1.9"));
        assert_eq!((hello.multi_arch, hello.essential), (MultiArch::Foreign, true));
        assert_eq!(hello.depends.as_str(), "libc6 (>= 2.14), a | b");
        assert_eq!(hello.provides[0], Provided { name: "greeter".into(), version: None });
        assert_eq!(hello.provides[1].version.as_ref().map(Version::as_str), Some("3"));
        assert_eq!((hello.size, hello.installed_size), (1000, Some(280)));
        assert_eq!(&*hello.repository, "main");
    }

    #[test]
    fn hostile_fields_name_line_and_package() {
        for (replace, with, line) in [
            ("Version: 2.0-1+b1\n", "", 8),
            ("Version: 2.0-1+b1", "Version: 2 0", 10),
            ("Package: hello", "Package: ../hello", 8),
            ("Architecture: amd64", "Architecture: am/d64", 11),
            ("Size: 1000", "Size: 99999999999999999999", 20),
            ("Size: 1000", "Size: 999999999999", 20),
            ("Size: 1000", "Size: -1", 20),
            ("pool/main/h/hello.deb", "pool/../../hello.deb", 19),
            ("pool/main/h/hello.deb", "/etc/passwd", 19),
            ("pool/main/h/hello.deb", "pool/a\tb", 19),
            ("Depends: libc6", "Depends: (libc6", 17),
            ("greeting (= 3)", "greeting (>= 3)", 18),
            ("greeter,", "greeter | other,", 18),
            ("Multi-Arch: foreign", "Multi-Arch: maybe", 12),
            ("Section: misc\n", "no field\n", 15),
            ("Source: hello-source (1.9)", "Source: a/b", 9),
        ] {
            let error = read_packages("main", &stanza(replace, with)).unwrap_err();
            assert_eq!(error.line, line, "{with:?}: {error:?}");
            assert!(!error.package.is_empty() && error.package != "first", "{error:?}");
        }
        let short = stanza("", "").replace(HEX, "abcd");
        assert_eq!(read_packages("main", &short).unwrap_err().line, 6);
    }
}
