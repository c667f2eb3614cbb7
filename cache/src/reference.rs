//! References: where an image or a cache is, as people type it.
//!
//! ```text
//! [HOST[:PORT]/]NAME[:TAG][@sha256:…]     a registry; docker.io/library/ is implied as docker does it
//! file:PATH[:TAG][@sha256:…]              a folder that is an OCI image layout
//! ```
//!
//! The grammar is that of the `distribution/reference` specification. What cannot be written in a
//! URL of the registry protocol cannot be made into a [`Reference`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use drystone_store::digest::BlobDigest;

/// A reference that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no reference: {reason}")]
pub struct ReferenceError {
    /// What was written, cut if it is long.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ReferenceError {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.chars().take(300).collect(), reason }
    }
}

/// A tag: a name for a manifest that may move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Reads a tag.
    ///
    /// # Errors
    /// A text that the registry protocol does not allow as a tag.
    pub fn new(text: &str) -> Result<Self, ReferenceError> {
        let is_start = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_rest = |byte: u8| is_start(byte) || byte == b'.' || byte == b'-';
        let good = match text.as_bytes() {
            [first, rest @ ..] => {
                is_start(*first) && rest.len() < 128 && rest.iter().all(|&byte| is_rest(byte))
            }
            [] => false,
        };
        match good {
            true => Ok(Self(text.to_owned())),
            false => Err(ReferenceError::new(
                text,
                "a tag has at most 128 letters, digits, `_`, `.` and `-`, and starts with none of \
                 the last two",
            )),
        }
    }

    /// The tag under which registries without a referrers API keep what refers to `subject`.
    pub fn of_referrers(subject: &BlobDigest) -> Self {
        Self(format!("sha256-{}", subject.to_hex()))
    }

    /// `latest`, which is meant where no tag is written.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::new(text)
    }
}

/// The name of a registry: host and port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

/// The host that `docker.io` is served from.
const DOCKER_HUB_SERVER: &str = "registry-1.docker.io";

impl Host {
    /// Reads `HOST[:PORT]`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// A text that is no host.
    pub fn new(text: &str) -> Result<Self, ReferenceError> {
        check_host(text).map_err(|reason| ReferenceError::new(text, reason))?;
        let text = text.to_ascii_lowercase();
        Ok(match text.as_str() {
            "index.docker.io" | DOCKER_HUB_SERVER => Self("docker.io".to_owned()),
            _ => Self(text),
        })
    }

    /// The name as people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host and port that requests go to.
    pub fn server(&self) -> &str {
        match self.is_docker_hub() {
            true => DOCKER_HUB_SERVER,
            false => &self.0,
        }
    }

    /// Whether this is Docker Hub, which has names of its own in many places.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == "docker.io"
    }

    /// Whether it is this machine: only there plain HTTP is good enough unasked.
    pub fn is_loopback(&self) -> bool {
        let name = match self.0.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(""),
            None => self.0.split(':').next().unwrap_or(""),
        };
        let address = name.parse::<std::net::IpAddr>();
        name == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a repository within its registry: `library/debian`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// Reads a name.
    ///
    /// # Errors
    /// A text that the registry protocol does not allow as a name.
    pub fn new(text: &str) -> Result<Self, ReferenceError> {
        let checked = match text.len() {
            0 => Err("the repository's name is missing"),
            1..=255 => text.split('/').try_for_each(check_component),
            _ => Err("it is longer than 255 characters"),
        };
        checked.map_err(|reason| ReferenceError::new(text, reason))?;
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// A repository of a registry.
    Registry {
        /// The registry.
        host: Host,
        /// The repository within it.
        name: RepositoryName,
    },
    /// A folder that is an OCI image layout.
    Folder(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { host, name } => write!(f, "{host}/{name}"),
            Self::Folder(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// What names a manifest within a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A tag.
    Tag(Tag),
    /// The manifest's digest.
    Digest(BlobDigest),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<BlobDigest> for Target {
    fn from(digest: BlobDigest) -> Self {
        Self::Digest(digest)
    }
}

impl From<Tag> for Target {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

/// A repository and, if written, a tag and a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The repository.
    pub location: Location,
    /// The tag, if written.
    pub tag: Option<Tag>,
    /// The digest, if written: then the tag is only for people.
    pub digest: Option<BlobDigest>,
}

impl Reference {
    /// What is meant by it: the digest, else the tag, else `latest`.
    pub fn target(&self) -> Target {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Target::Digest(*digest),
            (None, Some(tag)) => Target::Tag(tag.clone()),
            (None, None) => Target::Tag(Tag::latest()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if digest.starts_with("sha256:") => {
                let digest = digest.parse().map_err(|_| {
                    ReferenceError::new(text, "after @ stands sha256: and 64 digits")
                })?;
                (rest, Some(digest))
            }
            _ => (text, None),
        };
        // A colon before a slash belongs to a port, or to a folder's path.
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') && rest != "file" => (rest, Some(tag)),
            _ => (rest, None),
        };
        let location = location(rest)
            .map_err(|error| ReferenceError { text: text.chars().take(300).collect(), ..error })?;
        Ok(Self { location, tag: tag.map(Tag::new).transpose()?, digest })
    }
}

impl FromStr for Location {
    type Err = ReferenceError;

    /// Reads a repository without tag and digest.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let reference: Reference = text.parse()?;
        match (&reference.tag, &reference.digest) {
            (None, None) => Ok(reference.location),
            _ => {
                Err(ReferenceError::new(text, "a repository is named here, without tag or digest"))
            }
        }
    }
}

fn location(text: &str) -> Result<Location, ReferenceError> {
    let refuse = |reason| ReferenceError::new(text, reason);
    if let Some(path) = text.strip_prefix("file:") {
        // `file:///path` is what people write who think of URLs.
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err(refuse("after file: stands the path of a folder")),
            path if path.contains('\0') => Err(refuse("it has a NUL byte")),
            path => Ok(Location::Folder(PathBuf::from(path))),
        };
    }
    if text.contains("://") {
        return Err(refuse("it is written without a scheme, as registry.example.com/team/name"));
    }
    let (host, name) = match text.split_once('/') {
        Some((first, rest)) if is_host(first) => (Host::new(first)?, rest.to_owned()),
        Some(_) => (Host::new("docker.io")?, text.to_owned()),
        None => (Host::new("docker.io")?, format!("library/{text}")),
    };
    let name = match host.is_docker_hub() && !name.contains('/') {
        true => format!("library/{name}"),
        false => name,
    };
    Ok(Location::Registry { host, name: RepositoryName::new(&name)? })
}

/// Whether a first path component is a host: as docker decides it.
fn is_host(component: &str) -> bool {
    component.contains(['.', ':'])
        || component == "localhost"
        || component.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_host(text: &str) -> Result<(), &'static str> {
    const NO_HOST: &str = "the part before the first slash is no host name";
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(NO_HOST)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| NO_HOST)?;
            ("", port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 255 || !(text.starts_with('[') || name.split('.').all(is_label)) {
        return Err(NO_HOST);
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.parse::<u16>().is_ok_and(|port| port != 0) => Ok(()),
        _ => Err("the host's port is no number"),
    }
}

/// Lower-case words with one of `.`, `_`, `__` or any number of `-` between them.
fn check_component(component: &str) -> Result<(), &'static str> {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(is_word) || !bytes.last().is_some_and(is_word) {
        return Err("each part must start and end with a lower-case letter or a digit");
    }
    let mut separators = bytes.split(|byte| is_word(byte)).filter(|between| !between.is_empty());
    let good = separators.all(|separator| {
        separator.iter().all(|&byte| byte == b'-') || matches!(separator, b"." | b"_" | b"__")
    });
    match good {
        true => Ok(()),
        false => {
            Err("only lower-case letters, digits and single `.`, `_`, `__` or dashes between \
                      them are allowed")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn references_are_completed_as_docker_does_it() {
        let cases = [
            ("debian", "docker.io/library/debian", "registry-1.docker.io"),
            ("team/app:1.0", "docker.io/team/app:1.0", "registry-1.docker.io"),
            ("docker.io/debian", "docker.io/library/debian", "registry-1.docker.io"),
            ("index.docker.io/a/b", "docker.io/a/b", "registry-1.docker.io"),
            ("localhost/app:x", "localhost/app:x", "localhost"),
            ("localhost:5000/x", "localhost:5000/x", "localhost:5000"),
            ("127.0.0.1:5000/x/y", "127.0.0.1:5000/x/y", "127.0.0.1:5000"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000"),
            ("Registry.Example.com/a__b", "registry.example.com/a__b", "registry.example.com"),
        ];
        for (text, whole, server) in cases {
            let reference = read(text);
            assert_eq!(reference.to_string(), whole);
            let Location::Registry { host, .. } = reference.location else { panic!("{text}") };
            assert_eq!(host.server(), server);
        }
    }

    #[test]
    fn digests_and_folders_are_told_apart_from_tags() {
        let digest = BlobDigest::of(b"x");
        let reference = read(&format!("localhost:5000/a:t@{digest}"));
        assert_eq!(reference.target(), Target::Digest(digest));
        assert_eq!(reference.tag, Some(Tag::new("t").unwrap()));
        assert_eq!(read("localhost:5000/a").target(), Target::Tag(Tag::latest()));
        let folder = |text: &str| match read(text) {
            Reference { location: Location::Folder(path), tag, digest } => {
                (path.display().to_string(), tag.map(|tag| tag.to_string()), digest)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(folder("file:a"), ("a".into(), None, None));
        assert_eq!(folder("file:/srv/cache:v1"), ("/srv/cache".into(), Some("v1".into()), None));
        assert_eq!(folder("file:///srv/c:d/e"), ("/srv/c:d/e".into(), None, None));
        assert_eq!(folder(&format!("file:./x@{digest}")), ("./x".into(), None, Some(digest)),);
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:80", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("10.0.0.1:5000", false),
            ("[::2]", false),
        ] {
            assert_eq!(Host::new(host).unwrap().is_loopback(), expected, "{host}");
        }
    }

    #[test]
    fn what_no_registry_could_serve_is_refused() {
        let long = format!("localhost/{}", "a".repeat(256));
        for text in [
            "",
            ":x",
            "App",
            "localhost/App",
            "a//b",
            "/a",
            "localhost/",
            "localhost/a-",
            "localhost/a..b",
            "localhost/../b",
            "localhost/a?b",
            "localhost/a:",
            "localhost/a:-x",
            "localhost/a:x:y",
            "ex ample.com/a",
            "example.com:/a",
            "example.com:0/a",
            "example.com:99999/a",
            "user@example.com/a",
            "localhost/a@sha256:00",
            "localhost/a@sha512:00",
            "https://example.com/a",
            "-x.com/a",
            "[::1/a",
            "file:",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!("localhost/a:tag".parse::<Location>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "([a-zA-Z0-9._:@/\\[\\]-]|file:|sha256:|localhost){0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
