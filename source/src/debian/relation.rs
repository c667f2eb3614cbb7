//! Relations between packages: `Depends`, `Conflicts`, `Provides` and their kin (Debian policy 7).
//!
//! A field is a list of groups, all of which must hold; a group is a list of alternatives, one of
//! which must hold. Architecture restrictions and build profiles belong to source packages; they
//! are read, so that build dependencies can use the same code.

use std::fmt;
use std::str::FromStr;

use super::version::{Version, VersionError};

/// Why a text is no relation field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// An alternative has no package name, or one with characters that names cannot have.
    #[error("relation {0:?} does not start with a package name")]
    Name(String),
    /// A bracket is not closed, or something stands where nothing may.
    #[error(
        "relation {0:?} cannot be read: expected \"name[:arch] [(op version)] [[arch]] [<profile>]\""
    )]
    Syntax(String),
    /// The text in parentheses starts with no operator.
    #[error("relation {0:?} has an unknown operator; known are <<, <=, =, >= and >>")]
    Operator(String),
    /// The version in parentheses is none.
    #[error("relation {text:?} has a bad version")]
    Version {
        /// The alternative.
        text: String,
        /// What is wrong.
        #[source]
        source: VersionError,
    },
}

/// How a version is compared with the one that a relation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=` (and the obsolete `<`)
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=` (and the obsolete `>`)
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// The operator as policy writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }

    /// Splits the operator from the start of a text.
    fn split(text: &str) -> Option<(Self, &str)> {
        // The obsolete one-character forms mean "or equal", as dpkg has it.
        const FORMS: [(&str, Operator); 7] = [
            ("<<", Operator::Earlier),
            ("<=", Operator::EarlierOrEqual),
            (">>", Operator::Later),
            (">=", Operator::LaterOrEqual),
            ("<", Operator::EarlierOrEqual),
            (">", Operator::LaterOrEqual),
            ("=", Operator::Equal),
        ];
        FORMS.iter().find_map(|(form, operator)| Some((*operator, text.strip_prefix(form)?)))
    }
}

/// A version constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// The comparison.
    pub operator: Operator,
    /// The version that a package's version is compared with.
    pub version: Version,
}

impl Constraint {
    /// Tells whether a version satisfies the constraint.
    pub fn allows(&self, version: &Version) -> bool {
        let order = version.cmp(&self.version);
        match self.operator {
            Operator::Earlier => order.is_lt(),
            Operator::EarlierOrEqual => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::LaterOrEqual => order.is_ge(),
            Operator::Later => order.is_gt(),
        }
    }
}

/// One alternative of a group: a package, perhaps of certain versions and architectures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The name of a package, real or virtual.
    pub name: String,
    /// What follows the colon: `any`, `native` or an architecture.
    pub qualifier: Option<String>,
    /// The versions that satisfy the relation; all, if absent.
    pub constraint: Option<Constraint>,
    /// The architectures in square brackets on which the alternative exists, `!` included.
    pub architectures: Vec<String>,
    /// The build profile lists in angle brackets.
    pub profiles: Vec<String>,
}

impl Alternative {
    /// Tells whether the restriction in square brackets, if any, lets the alternative exist.
    pub fn exists_on(&self, architecture: &str) -> bool {
        let Some(first) = self.architectures.first() else { return true };
        let named = self.architectures.iter().any(|restriction| {
            architecture_matches(restriction.trim_start_matches('!'), architecture)
        });
        named != first.starts_with('!')
    }
}

/// Tells whether an architecture is the named one, or is matched by a wildcard such as `any`,
/// `linux-any` or `any-arm64` (Debian policy 11.1). Linux architectures have no system in their
/// name.
fn architecture_matches(wildcard: &str, architecture: &str) -> bool {
    let split = |name| str::split_once(name, '-').unwrap_or(("linux", name));
    let (system, processor) = split(architecture);
    match wildcard.split_once('-') {
        _ if wildcard == "any" || wildcard == architecture => true,
        Some(("any", wanted)) => wanted == processor,
        Some((wanted, "any")) => wanted == system,
        _ => false,
    }
}

/// One group: alternatives, in the order of preference. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The alternatives.
    pub alternatives: Vec<Alternative>,
}

/// A whole relation field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Relations {
    /// The groups, in the order of the text.
    pub groups: Vec<Group>,
}

impl Relations {
    /// The relations that exist on an architecture, without restrictions and profiles. Alternatives
    /// for other architectures are dropped, and groups that lose all of theirs. An alternative with
    /// build profiles is kept only when its profiles are all negated: no profile is active.
    pub fn for_architecture(&self, architecture: &str) -> Self {
        let active = |alternative: &&Alternative| {
            let profile = |list: &String| list.split_whitespace().all(|word| word.starts_with('!'));
            alternative.exists_on(architecture)
                && (alternative.profiles.is_empty() || alternative.profiles.iter().any(profile))
        };
        let plain = |alternative: &Alternative| Alternative {
            architectures: Vec::new(),
            profiles: Vec::new(),
            ..alternative.clone()
        };
        let groups = self.groups.iter().map(|group| Group {
            alternatives: group.alternatives.iter().filter(active).map(plain).collect(),
        });
        Self { groups: groups.filter(|group| !group.alternatives.is_empty()).collect() }
    }
}

impl FromStr for Relations {
    type Err = RelationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut groups = Vec::new();
        for group in group_texts(text) {
            let alternatives = group.split('|').map(|alternative| Raw::read(alternative)?.own());
            groups.push(Group { alternatives: alternatives.collect::<Result<_, _>>()? });
        }
        Ok(Self { groups })
    }
}

/// The groups of a field as text. Empty ones are passed over, as apt does: generated fields often
/// end with a comma.
fn group_texts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim_ascii).filter(|group| !group.is_empty())
}

/// A relation field as an index has it: its form is checked, its content is read on demand, since a
/// solve looks at few of the packages of an index.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RelationField(Box<str>);

impl RelationField {
    /// Checks a field's text.
    pub fn new(text: &str) -> Result<Self, RelationError> {
        for alternative in group_texts(text).flat_map(|group| group.split('|')) {
            Raw::read(alternative)?.check_version()?;
        }
        Ok(Self(text.trim_ascii().into()))
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the field is empty or absent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field's relations.
    pub fn relations(&self) -> Relations {
        self.0.parse().expect("the text was checked when the field was made")
    }

    /// The names of all packages in the field, in the order of the text.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let alternatives = group_texts(&self.0).flat_map(|group| group.split('|'));
        alternatives.filter_map(|alternative| Raw::read(alternative).ok().map(|raw| raw.name))
    }
}

impl fmt::Debug for RelationField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelationField({})", self.0)
    }
}

/// An alternative as slices of its text.
struct Raw<'a> {
    text: &'a str,
    name: &'a str,
    qualifier: Option<&'a str>,
    constraint: Option<(Operator, &'a str)>,
    architectures: &'a str,
    profiles: &'a str,
}

/// Tells whether a byte may stand in a package's name; the first byte must be alphanumeric. dpkg
/// accepts capitals and underscores too, and third-party repositories use them.
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

/// Tells whether a text is the name of a package, as dpkg judges it.
pub fn is_package_name(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.bytes().all(is_name_byte)
}

/// Splits the longest start that satisfies a test.
fn split_while(text: &str, test: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !test(byte)).unwrap_or(text.len()))
}

/// Splits what stands between two brackets at the start of a text, if the first is there.
fn bracketed(text: &str, open: char, close: char) -> Result<Option<(&str, &str)>, ()> {
    let Some(inner) = text.strip_prefix(open) else { return Ok(None) };
    let (inside, rest) = inner.split_once(close).ok_or(())?;
    Ok(Some((inside.trim_ascii(), rest.trim_ascii_start())))
}

impl<'a> Raw<'a> {
    fn read(text: &'a str) -> Result<Self, RelationError> {
        let text = text.trim_ascii();
        let excerpt = || text.chars().take(100).collect::<String>();
        let (name, mut rest) = split_while(text, is_name_byte);
        if !is_package_name(name) {
            return Err(RelationError::Name(excerpt()));
        }
        let mut raw =
            Self { text, name, qualifier: None, constraint: None, architectures: "", profiles: "" };
        if let Some(after) = rest.strip_prefix(':') {
            let (qualifier, after) = split_while(after, is_name_byte);
            if qualifier.is_empty() {
                return Err(RelationError::Syntax(excerpt()));
            }
            raw.qualifier = Some(qualifier);
            rest = after;
        }
        let syntax = |()| RelationError::Syntax(excerpt());
        rest = rest.trim_ascii_start();
        if let Some((inside, after)) = bracketed(rest, '(', ')').map_err(syntax)? {
            let (operator, version) =
                Operator::split(inside).ok_or_else(|| RelationError::Operator(excerpt()))?;
            raw.constraint = Some((operator, version.trim_ascii()));
            rest = after;
        }
        if let Some((inside, after)) = bracketed(rest, '[', ']').map_err(syntax)? {
            raw.architectures = inside;
            rest = after;
        }
        raw.profiles = rest;
        while let Some((_, after)) = bracketed(rest, '<', '>').map_err(syntax)? {
            rest = after;
        }
        if rest.is_empty() { Ok(raw) } else { Err(syntax(())) }
    }

    fn bad_version(&self, source: VersionError) -> RelationError {
        RelationError::Version { text: self.text.chars().take(100).collect(), source }
    }

    fn check_version(&self) -> Result<(), RelationError> {
        let version = self.constraint.map_or(Ok(()), |(_, version)| Version::check(version));
        version.map_err(|source| self.bad_version(source))
    }

    fn own(self) -> Result<Alternative, RelationError> {
        let constraint = self.constraint.map(|(operator, version)| {
            Version::new(version).map(|version| Constraint { operator, version })
        });
        let constraint = constraint.transpose().map_err(|source| self.bad_version(source))?;
        let mut profiles = Vec::new();
        let mut rest = self.profiles;
        while let Ok(Some((inside, after))) = bracketed(rest, '<', '>') {
            profiles.push(inside.to_owned());
            rest = after;
        }
        Ok(Alternative {
            name: self.name.to_owned(),
            qualifier: self.qualifier.map(str::to_owned),
            constraint,
            architectures: self.architectures.split_ascii_whitespace().map(str::to_owned).collect(),
            profiles,
        })
    }
}

/// Writes items with a separator between them.
fn join<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], separator: &str) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(qualifier) = &self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some(constraint) = &self.constraint {
            write!(f, " ({} {})", constraint.operator.as_str(), constraint.version)?;
        }
        if !self.architectures.is_empty() {
            f.write_str(" [")?;
            join(f, &self.architectures, " ")?;
            f.write_str("]")?;
        }
        self.profiles.iter().try_for_each(|profile| write!(f, " <{profile}>"))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.alternatives, " | ")
    }
}

impl fmt::Display for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.groups, ", ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Relations {
        text.parse().unwrap()
    }

    #[test]
    fn every_part_is_read_and_written_in_one_form() {
        for (text, normal) in [
            ("libc6(>=2.36),  a|b", "libc6 (>= 2.36), a | b"),
            ("python3:any (>> 3.9~)", "python3:any (>> 3.9~)"),
            ("a (< 1), b (> 2)", "a (<= 1), b (>= 2)"),
            (
                "a [ amd64  !i386 ] <!nocheck> <cross !stage1>",
                "a [amd64 !i386] <!nocheck> <cross !stage1>",
            ),
            ("g++ , libfoo1.2-dev:i386(=1:2-3)\n ,\n", "g++, libfoo1.2-dev:i386 (= 1:2-3)"),
            ("", ""),
        ] {
            assert_eq!(read(text).to_string(), normal, "{text:?}");
            let field = RelationField::new(text).unwrap();
            assert_eq!(field.relations(), read(text));
        }
        let names: Vec<_> =
            RelationField::new("a (>= 1) | b:any, c").unwrap().names().map(str::to_owned).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn bad_relations_are_refused() {
        use RelationError::{Name, Operator, Syntax};
        for text in ["| a", "a | ", "(>= 1)", "-a", "${misc:Depends}", "é"] {
            assert!(matches!(RelationField::new(text), Err(Name(_))), "{text:?}");
        }
        for text in ["a b", "a (>= 1", "a: b", "a [amd64", "a <x", "a (>= 1) x", "aé"] {
            assert!(matches!(RelationField::new(text), Err(Syntax(_))), "{text:?}");
        }
        assert!(matches!(RelationField::new("a (1)"), Err(Operator(_))));
        assert!(matches!(RelationField::new("a (>= )"), Err(RelationError::Version { .. })));
    }

    #[test]
    fn constraints_compare_as_policy_says() {
        let cases = [
            ("<<", "yes no no"),
            ("<=", "yes yes no"),
            ("=", "no yes no"),
            (">=", "no yes yes"),
            (">>", "no no yes"),
        ];
        for (operator, expected) in cases {
            let relations = read(&format!("a ({operator} 1.0)"));
            let constraint = relations.groups[0].alternatives[0].constraint.clone().unwrap();
            let answers = ["1.0~", "1.0-0", "1.0-1"].map(|version| {
                if constraint.allows(&Version::new(version).unwrap()) { "yes" } else { "no" }
            });
            assert_eq!(answers.join(" "), expected, "{operator}");
        }
    }

    #[test]
    fn restrictions_and_profiles_choose_alternatives() {
        let relations = read(
            "a [amd64], b [!amd64], c [linux-any] | d [hurd-any], e [any-amd64 i386], f <!nocheck>, g <stage1>",
        );
        assert_eq!(relations.for_architecture("amd64").to_string(), "a, c, e, f");
        assert_eq!(relations.for_architecture("hurd-i386").to_string(), "b, d, f");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "[a(=>1)\\[\\]<|, :é-]{0,20}") {
            let parsed = text.parse::<Relations>();
            let field = RelationField::new(&text).map(|field| field.relations());
            prop_assert_eq!(&field, &parsed, "checking and reading agree");
            if let Ok(relations) = parsed {
                prop_assert_eq!(&read(&relations.to_string()), &relations);
            }
        }
    }
}
