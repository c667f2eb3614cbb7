//! The name that an image has where it arrives.
//!
//! The grammar is that of the `distribution/reference` specification: an optional host, path
//! components in lower case, an optional tag. The same name is written in the three ways that
//! readers look for; none of them is part of a digest.

use std::fmt;
use std::str::FromStr;

use super::OutputError;

/// A repository and a tag, in the short form that people type: `hello-web:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    repository: String,
    tag: String,
}

impl ImageName {
    /// Names an image.
    ///
    /// # Errors
    /// A repository or tag that container engines refuse.
    pub fn new(repository: &str, tag: &str) -> Result<Self, OutputError> {
        let refuse = |reason| OutputError::Name { text: format!("{repository}:{tag}"), reason };
        check_repository(repository).map_err(refuse)?;
        check_tag(tag).map_err(refuse)?;
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() })
    }

    /// The repository, as it was given.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The name with the host and `library/` that docker and containerd add to short names.
    pub fn canonical(&self) -> String {
        let (first, rest) = self.repository.split_once('/').unwrap_or(("", &self.repository));
        if !first.is_empty() && is_host(first) {
            self.to_string()
        } else if first.is_empty() {
            format!("docker.io/library/{rest}:{}", self.tag)
        } else {
            format!("docker.io/{self}")
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for ImageName {
    type Err = OutputError;

    /// Reads `REPOSITORY[:TAG]`; the tag is `latest` when there is none.
    fn from_str(text: &str) -> Result<Self, OutputError> {
        match text.rsplit_once(':') {
            // A colon before a slash belongs to a host's port.
            Some((repository, tag)) if !tag.contains('/') => Self::new(repository, tag),
            _ => Self::new(text, "latest"),
        }
    }
}

/// Whether a first path component is a host: as docker decides it.
fn is_host(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.is_empty() {
        return Err("it is empty");
    }
    if repository.len() > 255 {
        return Err("it is longer than 255 characters");
    }
    let path = match repository.split_once('/') {
        Some((host, path)) if is_host(host) => {
            check_host(host)?;
            path
        }
        _ => repository,
    };
    path.split('/').try_for_each(check_component)
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(is_label) {
        return Err("the part before the first slash is no host name");
    }
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the host's port is no number");
    }
    Ok(())
}

/// Lower-case words with one of `.`, `_`, `__` or any number of `-` between them.
fn check_component(component: &str) -> Result<(), &'static str> {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(is_word) || !bytes.last().is_some_and(is_word) {
        return Err("each part must start and end with a lower-case letter or a digit");
    }
    let separators = bytes.split(|byte| is_word(byte)).filter(|between| !between.is_empty());
    for separator in separators {
        let is_dashes = separator.iter().all(|&byte| byte == b'-');
        if !is_dashes && !matches!(separator, b"." | b"_" | b"__") {
            return Err(
                "only lower-case letters, digits and single `.`, `_`, `__` or dashes between them are allowed",
            );
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let is_start = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_rest = |byte: u8| is_start(byte) || byte == b'.' || byte == b'-';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        [first, rest @ ..] if is_start(*first) && rest.iter().all(|&byte| is_rest(byte)) => {
            if rest.len() < 128 { Ok(()) } else { Err("the tag is longer than 128 characters") }
        }
        _ => Err(
            "a tag holds letters, digits, `_`, `.` and `-`, and starts with neither of the last two",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_completed() {
        let cases = [
            ("hello-web", "hello-web:latest", "docker.io/library/hello-web:latest"),
            ("team/app:1.0", "team/app:1.0", "docker.io/team/app:1.0"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"),
            ("localhost/app:x", "localhost/app:x", "localhost/app:x"),
            (
                "registry.example.com/a/b__c:v_1",
                "registry.example.com/a/b__c:v_1",
                "registry.example.com/a/b__c:v_1",
            ),
        ];
        for (text, short, canonical) in cases {
            let name: ImageName = text.parse().unwrap();
            assert_eq!((name.to_string(), name.canonical()), (short.into(), canonical.into()));
        }
    }

    #[test]
    fn what_engines_refuse_is_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":x",
            "App",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a:",
            "a:-x",
            "a b",
            "a___b",
            "a:b:c",
            "ex ample.com/a",
            "example.com:/a",
            "example.com:x/a",
            "a@sha256:00",
            "-x.com/a",
            &long,
        ] {
            assert!(text.parse::<ImageName>().is_err(), "{text:?}");
        }
    }
}
