//! Names and versions, checked once, in types.

use std::fmt;

use crate::document::ValueError;

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks a text.
            pub fn new(text: &str) -> Result<Self, ValueError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The text as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(
    /// The name of a recipe, of one of its outputs or of a repository: `[A-Za-z0-9+._-]`, at most
    /// 100 characters, not starting with `.` or `-`.
    Name, check_name
);
text_type!(
    /// The name of a Debian package or source package (Debian Policy 5.6.1, 5.6.7).
    PackageName, check_package
);
text_type!(
    /// A Debian package version (Debian Policy 5.6.12), as text: comparing versions is the
    /// solver's work.
    PackageVersion, check_version
);
text_type!(
    /// A suite or codename: a path below `dists/`, without a trailing slash.
    Suite, check_suite
);
text_type!(
    /// The component of a repository: `main`, `contrib`, `updates/main`.
    Component, check_component
);
text_type!(
    /// A Debian architecture name: `amd64`, `arm64`, `all`.
    Architecture, check_architecture
);
text_type!(
    /// The repository part of an OCI reference, without a registry's port, tag or digest
    /// (OCI Distribution specification, "Pulling manifests").
    ImageName, check_image_name
);
text_type!(
    /// The tag of an OCI reference.
    Tag, check_tag
);
text_type!(
    /// The name of an account or group, as Debian's adduser accepts it.
    AccountName, check_account
);

impl Tag {
    /// The tag of an image that names none.
    pub fn latest() -> Self {
        Self("latest".into())
    }
}

fn allowed(
    what: &'static str,
    text: &str,
    longest: usize,
    set: &'static str,
    allow: impl Fn(char) -> bool,
) -> Result<(), ValueError> {
    if text.is_empty() {
        return Err(ValueError::new(what, text, "it is empty"));
    }
    if text.len() > longest {
        return Err(ValueError::new(what, text, format!("it is longer than {longest} bytes")));
    }
    match text.chars().find(|character| !allow(*character)) {
        Some(bad) => {
            Err(ValueError::new(what, text, format!("{bad:?} is not allowed; only {set} are")))
        }
        None => Ok(()),
    }
}

fn check_name(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "name";
    allowed(WHAT, text, 100, "letters, digits and +._-", |character| {
        character.is_ascii_alphanumeric() || "+._-".contains(character)
    })?;
    match text.starts_with(['.', '-']) {
        true => Err(ValueError::new(WHAT, text, "it must start with a letter, a digit, + or _")),
        false => Ok(()),
    }
}

fn check_package(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "package name";
    if let Some((name, version)) = text.split_once(['=', ' ', '/'])
        && check_package(name).is_ok()
    {
        let version = version.trim_start_matches(['=', '>', '<', ' ', '(']).trim_end_matches(')');
        return Err(ValueError::new(WHAT, text, "a version is a key of its own")
            .with_help(format!("write {{ name = {name:?}, version = {version:?} }}")));
    }
    if let Some((name, _)) = text.split_once(':')
        && check_package(name).is_ok()
    {
        return Err(ValueError::new(WHAT, text, "the architecture comes from `platforms`")
            .with_help(format!("write {name:?}")));
    }
    let folded = text.to_ascii_lowercase();
    if folded != text && check_package(&folded).is_ok() {
        return Err(ValueError::new(WHAT, text, "package names are in lower case")
            .with_help(format!("write {folded:?}")));
    }
    allowed(WHAT, text, 200, "a-z, 0-9 and +-.", |character| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || "+-.".contains(character)
    })?;
    if text.len() < 2 {
        return Err(ValueError::new(WHAT, text, "it must have at least two characters"));
    }
    match text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        true => Ok(()),
        false => Err(ValueError::new(WHAT, text, "it must start with a letter or a digit")),
    }
}

fn version_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || ".+-:~".contains(character)
}

fn check_version(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "package version";
    allowed(WHAT, text, 250, "letters, digits and .+-:~", version_character)
}

fn path_like(what: &'static str, text: &str) -> Result<(), ValueError> {
    allowed(what, text, 200, "letters, digits and +._~/-", |character| {
        character.is_ascii_alphanumeric() || "+._~/-".contains(character)
    })?;
    match text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        true => Err(ValueError::new(what, text, "it has an empty part, \".\" or \"..\"")),
        false => Ok(()),
    }
}

fn check_suite(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "suite";
    if text.ends_with('/') {
        return Err(ValueError::new(WHAT, text, "flat repositories are not in this version"));
    }
    path_like(WHAT, text)
}

fn check_component(text: &str) -> Result<(), ValueError> {
    path_like("component", text)
}

fn check_architecture(text: &str) -> Result<(), ValueError> {
    allowed("architecture name", text, 50, "a-z, 0-9 and -", |character| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
    })
}

fn check_image_name(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "image name";
    if let Some((name, tag)) = text.rsplit_once(':')
        && check_image_name(name).is_ok()
        && check_tag(tag).is_ok()
    {
        return Err(ValueError::new(WHAT, text, "the tag is a key of its own")
            .with_help(format!("write name = {name:?} and tag = {tag:?}")));
    }
    let folded = text.to_ascii_lowercase();
    if folded != text && check_image_name(&folded).is_ok() {
        return Err(ValueError::new(WHAT, text, "image names are in lower case")
            .with_help(format!("write {folded:?}")));
    }
    allowed(WHAT, text, 255, "a-z, 0-9, / and ._-", |character| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || "/._-".contains(character)
    })?;
    let well_formed = text.split('/').all(|part| {
        let words = part.split(|character: char| "._-".contains(character));
        let separators = part.split(|character: char| character.is_ascii_alphanumeric());
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.ends_with(|last: char| last.is_ascii_alphanumeric())
            && words.count() > 0
            && separators.filter(|separator| !separator.is_empty()).all(|separator| {
                matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
            })
    });
    match well_formed {
        true => Ok(()),
        false => Err(ValueError::new(
            WHAT,
            text,
            "each part between slashes starts and ends with a letter or digit, with one of . _ __ - between words",
        )),
    }
}

fn check_tag(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "tag";
    allowed(WHAT, text, 128, "letters, digits and _.-", |character| {
        character.is_ascii_alphanumeric() || "_.-".contains(character)
    })?;
    match text.starts_with(['.', '-']) {
        true => Err(ValueError::new(WHAT, text, "it must start with a letter, a digit or _")),
        false => Ok(()),
    }
}

fn check_account(text: &str) -> Result<(), ValueError> {
    const WHAT: &str = "account name";
    allowed(WHAT, text, 32, "a-z, 0-9, _ and -", |character| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || "_-".contains(character)
    })?;
    match text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_') {
        true => Ok(()),
        false => Err(ValueError::new(WHAT, text, "it must start with a lower-case letter or _")),
    }
}

/// A version as image.toml asks for it: literal text in which `*` stands for any text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct VersionPattern(Box<str>);

impl VersionPattern {
    /// Checks a pattern.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "version pattern";
        let relation = text.trim_start_matches(['<', '>', '=', '~', '^', ' ']);
        if relation != text && !relation.is_empty() {
            return Err(ValueError::new(WHAT, text, "relations are not supported")
                .with_help("give the version, with * for any text: version = \"1.22.*\""));
        }
        allowed(WHAT, text, 250, "letters, digits, * and .+-:~", |character| {
            version_character(character) || character == '*'
        })?;
        Ok(Self(text.into()))
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a version has this form. An epoch must be matched too: `1:9.2*` or `*9.2*`.
    pub fn matches(&self, version: &str) -> bool {
        star_match(&self.0, version)
    }
}

/// Matches `text` with a pattern in which `*` stands for any text, in time linear in their product.
pub(super) fn star_match(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_follow_the_oci_grammar() {
        for good in ["a", "team/orders-api", "a__b", "a.b/c_d", "a---b", "registry.example.com/x"] {
            assert!(ImageName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a//b", "/a", "a/", "-a", "a_", "a..b", "a___b", "a.-b", "ä", "a b"] {
            assert!(ImageName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn package_names_follow_policy_and_advise() {
        for good in ["nginx-light", "libstdc++6", "0ad", "g++", "libc6.1"] {
            assert!(PackageName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-x", "Nginx", "a_b", "../etc", "a\nb"] {
            assert!(PackageName::new(bad).is_err(), "{bad}");
        }
        let help = |text| PackageName::new(text).unwrap_err().help().unwrap_or("").to_owned();
        assert_eq!(help("nginx=1.22*"), r#"write { name = "nginx", version = "1.22*" }"#);
        assert_eq!(help("nginx (>= 1.2)"), r#"write { name = "nginx", version = "1.2" }"#);
        assert_eq!(help("libc6:arm64"), r#"write "libc6""#);
        assert_eq!(help("Redis"), r#"write "redis""#);
    }

    #[test]
    fn version_patterns_match_as_globs() {
        let matches = |pattern, text| VersionPattern::new(pattern).unwrap().matches(text);
        assert!(matches("1.22.*", "1.22.1-9"));
        assert!(!matches("1.22.*", "1.220.1"));
        assert!(matches("*", ""));
        assert!(matches("1.2", "1.2"));
        assert!(!matches("1.2", "1.2-1"));
        assert!(matches("1:*-*deb12*", "1:9.2-2+deb12u3"));
        assert!(!matches("a*a", "a"), "the two ends may not share a character");
        assert!(VersionPattern::new(">= 1.2").is_err());
    }
}
