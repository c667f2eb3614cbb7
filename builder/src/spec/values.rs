//! Values of image.toml that are more than names: paths, modes, ports, times, addresses.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drystone_store::digest::BlobDigest;
use drystone_store::tree::TreePath;
use url::Url;

use crate::document::ValueError;

use super::names::star_match;

/// An absolute path inside the image; `/` is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootedPath(Option<TreePath>);

impl RootedPath {
    /// Reads an absolute path: trailing and doubled slashes are dropped, `.` and `..` refused.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "absolute path";
        if !text.starts_with('/') {
            return Err(ValueError::new(WHAT, text, "paths in the image start with /")
                .with_help(format!("write {:?}", format!("/{text}"))));
        }
        let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Ok(Self(None));
        }
        if parts.iter().any(|part| part.starts_with(".wh.")) {
            return Err(ValueError::new(
                WHAT,
                text,
                "names that start with .wh. mean deletions in image layers",
            ));
        }
        let path = TreePath::new(parts.join("/"));
        path.map(|path| Self(Some(path)))
            .map_err(|error| ValueError::new(WHAT, text, error.to_string()))
    }

    /// The path in a tree; `None` is the root.
    pub fn tree_path(&self) -> Option<&TreePath> {
        self.0.as_ref()
    }
}

impl fmt::Display for RootedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.as_ref().map_or("", TreePath::as_str))
    }
}

/// A pattern of paths in the image: `*` stands for any text within one name, `**` for any number
/// of whole names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPattern(RootedPath);

impl PathPattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let path = RootedPath::new(text)?;
        let bad = "** must be a whole name";
        let parts = path.tree_path().map(TreePath::as_str).unwrap_or_default().split('/');
        if path.tree_path().is_none() || parts.clone().all(|part| part == "**") {
            return Err(ValueError::new("path pattern", text, "it would match everything"));
        }
        for part in parts {
            if part.contains("**") && part != "**" {
                return Err(ValueError::new("path pattern", text, bad));
            }
        }
        Ok(Self(path))
    }

    /// Whether the pattern names this path or a directory above it.
    pub fn covers(&self, path: &TreePath) -> bool {
        let parts: Vec<_> = self.0.tree_path().into_iter().flat_map(TreePath::components).collect();
        let names: Vec<_> = path.components().collect();
        covers(&parts, &names)
    }
}

/// Dynamic programming over (parts, names): no pattern makes it slow.
fn covers(parts: &[&str], names: &[&str]) -> bool {
    let mut reached = vec![false; names.len() + 1];
    reached[0] = true;
    for part in parts {
        let mut next = vec![false; names.len() + 1];
        for at in 0..=names.len() {
            if *part == "**" {
                next[at] = reached[at] || (at > 0 && next[at - 1]);
            } else if at > 0 {
                next[at] = reached[at - 1] && star_match(part, names[at - 1]);
            }
        }
        reached = next;
    }
    reached.contains(&true)
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A file or folder beside the file that names it: relative, `/` between names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalPath(Box<str>);

impl LocalPath {
    /// Reads a relative path; `..` may lead out of the folder.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "local path";
        let home = text.starts_with("~/") || text == "~";
        if text.is_empty() {
            return Err(ValueError::new(WHAT, text, "it is empty")
                .with_help("write \".\" for the folder itself"));
        }
        if text.starts_with('/') || home {
            return Err(ValueError::new(WHAT, text, "it depends on this machine")
                .with_help("paths are relative to the file that names them"));
        }
        if text.contains('\0') {
            return Err(ValueError::new(WHAT, text, "it has a NUL byte"));
        }
        if text.contains("$") && (text.contains("${") || text.starts_with('$')) {
            return Err(ValueError::new(WHAT, text, "there are no variables in image.toml"));
        }
        Ok(Self(text.into()))
    }

    /// This path, written in a file that another path names, as seen from where that one is written.
    pub(super) fn beside(&self, file: &Self) -> Self {
        match file.0.rsplit_once('/') {
            Some((folder, _)) => Self(format!("{folder}/{}", self.0).into()),
            None => self.clone(),
        }
    }

    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below the folder of the file that names it.
    pub fn below(&self, directory: &Path) -> PathBuf {
        directory.join(&*self.0)
    }
}

impl fmt::Display for LocalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a mode: three or four octal digits.
pub(super) fn mode(text: &str) -> Result<u32, ValueError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = (3..=4).contains(&digits.len())
        && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if octal => Ok(mode),
        _ => Err(ValueError::new("file mode", text, "a mode has three or four octal digits")
            .with_help("for example: mode = \"0755\"")),
    }
}

/// A port that the image listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// The protocol of a [`Port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Port {
    /// Reads `80`, `8080/udp`.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "port";
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(ValueError::new(WHAT, text, "the protocol is tcp, udp or sctp")),
        };
        if number.contains(':') {
            return Err(ValueError::new(
                WHAT,
                text,
                "an image cannot publish ports, only name them",
            )
            .with_help("give the port inside the image; the host's is chosen at run time"));
        }
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        match number.parse::<u16>() {
            Ok(number) if number > 0 && digits => Ok(Self { number, protocol }),
            _ => Err(ValueError::new(WHAT, text, "it must be a number from 1 to 65535")),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// Reads a span of time: `30s`, `1m30s`, `500ms`.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    const WHAT: &str = "span of time";
    let refuse = |reason: &'static str| {
        ValueError::new(WHAT, text, reason).with_help("for example: \"30s\", \"1m30s\", \"500ms\"")
    };
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(refuse("it is empty"));
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 =
            rest[..digits].parse().map_err(|_| refuse("a number is missing or too large"))?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let milliseconds: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => return Err(refuse("a unit is missing")),
            _ => return Err(refuse("the units are h, m, s and ms")),
        };
        rest = &rest[letters..];
        let part = count.checked_mul(milliseconds).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= Duration::from_secs(365 * 24 * 3600))
            .ok_or_else(|| refuse("it is longer than a year"))?;
    }
    Ok(total)
}

/// Reads a size in bytes: `512M`, `4G`. Units are powers of 1024.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn size(text: &str) -> Result<u64, ValueError> {
    let refuse = |reason: &'static str| {
        ValueError::new("size", text, reason).with_help("for example: \"512M\", \"4G\"")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: u64 =
        text[..digits].parse().map_err(|_| refuse("a whole number is missing or too large"))?;
    let shift = match text[digits..].trim_end_matches("iB").trim_end_matches('B') {
        "" if digits == text.len() => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(refuse("the units are K, M, G and T")),
    };
    count
        .checked_shl(shift)
        .filter(|bytes| bytes >> shift == count && *bytes > 0)
        .ok_or_else(|| refuse("it must be above zero and below 2^64 bytes"))
}

/// Reads a signal's name or number, as a name where it has one: `TERM`, `SIGTERM`, `15`.
pub(super) fn signal(text: &str) -> Result<String, ValueError> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let refuse = || {
        ValueError::new("signal", text, "it has no such name or number")
            .with_help("for example: stop-signal = \"SIGQUIT\"")
    };
    let real_time = |bare: &str| {
        let offset = |rest: &str, sign: char| {
            rest.is_empty()
                || rest.strip_prefix(sign).is_some_and(|number| {
                    number.parse::<u8>().is_ok_and(|number| (1..=30).contains(&number))
                        && number.bytes().all(|byte| byte.is_ascii_digit())
                })
        };
        bare.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+'))
            || bare.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-'))
    };
    if let Ok(number) = text.parse::<usize>() {
        return match number {
            1..=31 => Ok(format!("SIG{}", NAMES[number - 1])),
            34..=64 => Ok(number.to_string()),
            _ => Err(refuse()),
        };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    match NAMES.contains(&bare) || real_time(bare) {
        true => Ok(format!("SIG{bare}")),
        false => Err(refuse()),
    }
}

/// Checks the address of something that is fetched: HTTP, HTTPS or a local `file:` address,
/// without credentials.
pub(crate) fn address(text: &str) -> Result<Url, ValueError> {
    const WHAT: &str = "address";
    let url = Url::parse(text).map_err(|error| {
        ValueError::new(WHAT, text, error.to_string())
            .with_help("for example: \"https://packages.example.com/debian\"")
    })?;
    if !matches!(url.scheme(), "https" | "http" | "file") {
        return Err(ValueError::new(WHAT, text, "it must start with https://, http:// or file://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not shown: it holds a secret.
        return Err(ValueError::new(
            WHAT,
            url.host_str().unwrap_or(""),
            "it has credentials in it",
        )
        .with_help("keep them in ~/.netrc; image.toml is committed")
        .hidden());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ValueError::new(WHAT, text, "it may not have a query or a fragment"));
    }
    Ok(url)
}

/// Reads a SHA-256 digest: 64 hexadecimal digits, with or without `sha256:`.
pub(crate) fn sha256(text: &str) -> Result<BlobDigest, ValueError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    BlobDigest::from_hex(digits).ok_or_else(|| {
        ValueError::new("SHA-256 digest", text, "it must have 64 digits of 0-9, a-f")
    })
}

/// A binary cache: `HOST[:PORT]/PATH`, reached over HTTPS unless `insecure`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheAddress {
    /// Host, port and path, without a scheme; or `file:` and the path of a folder.
    pub address: String,
    /// Whether it is reached over plain HTTP.
    pub insecure: bool,
}

impl CacheAddress {
    /// Reads `registry.example.com/team/cache` or the same behind `https://`.
    ///
    /// `http://` is read only when `allow_http`: a project file may not weaken the transport.
    pub fn new(text: &str, allow_http: bool) -> Result<Self, ValueError> {
        const WHAT: &str = "cache address";
        if let Some(path) = text.strip_prefix("file:") {
            // A project may not make its users read any folder of theirs.
            if !allow_http {
                return Err(ValueError::new(WHAT, text, "a folder is no cache for a project")
                    .with_help("set it in your own configuration, or with --cache"));
            }
            return match path {
                "" => Err(ValueError::new(WHAT, text, "after file: stands a folder's path")),
                _ => Ok(Self { address: text.to_owned(), insecure: false }),
            };
        }
        let (insecure, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) if allow_http => (true, rest),
            Some(("http", rest)) => {
                return Err(ValueError::new(WHAT, text, "plain HTTP is not allowed here")
                    .with_help(format!("write {:?}, or set it in your own configuration", rest)));
            }
            Some(_) => return Err(ValueError::new(WHAT, text, "it must start with https://")),
        };
        if let Some((_, host)) = rest.rsplit_once('@') {
            return Err(ValueError::new(WHAT, host, "it has credentials or a digest in it")
                .with_help("log in with `drystone login`; credentials never stand in a file")
                .hidden());
        }
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, port) =
            host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        let host_good = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
            && port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !host_good || !(name.contains('.') || port.is_some() || name == "localhost") {
            return Err(ValueError::new(WHAT, text, "it must start with a registry's host name")
                .with_help("for example: \"registry.example.com/team/cache\""));
        }
        if super::names::ImageName::new(path).is_err() {
            return Err(ValueError::new(WHAT, text, "after the host stands a repository's name")
                .with_help("for example: \"registry.example.com/team/cache\""));
        }
        Ok(Self { address: rest.to_owned(), insecure })
    }
}

impl fmt::Display for CacheAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.insecure { "http://" } else { "" };
        write!(f, "{scheme}{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_bounded() {
        let path = |text| RootedPath::new(text).map(|path| path.to_string());
        assert_eq!(path("/etc//nginx/"), Ok("/etc/nginx".to_owned()));
        assert_eq!(path("/"), Ok("/".to_owned()));
        for bad in ["etc", "", "/a/../b", "/./a", "/a\0", "/a/.wh.b"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        for bad in ["/etc/passwd", "", "~/x", "a\0", "${HOME}/x", "$HOME"] {
            assert!(LocalPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(LocalPath::new("../x").is_ok());
    }

    #[test]
    fn path_patterns_cover_what_lies_below() {
        let covers = |pattern, path: &str| {
            PathPattern::new(pattern).unwrap().covers(&TreePath::new(path).unwrap())
        };
        assert!(covers("/etc/ssh/ssh_host_*", "etc/ssh/ssh_host_rsa_key"));
        assert!(!covers("/etc/ssh/ssh_host_*", "etc/ssh/sshd_config"));
        assert!(covers("/var/lib/mysql", "var/lib/mysql/a/b"));
        assert!(covers("/var/**/*.pid", "var/a/b/c.pid"));
        assert!(covers("/var/**/*.pid", "var/c.pid"));
        assert!(!covers("/var/*.pid", "var/a/c.pid"));
        for bad in ["/", "/**", "/a/**b", "x"] {
            assert!(PathPattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_values_are_read_strictly() {
        assert_eq!(mode("0755"), Ok(0o755));
        assert_eq!(mode("4755"), Ok(0o4755));
        for bad in ["", "7", "0888", "+755", "rwx", "00755"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
        assert_eq!(Port::new("8080/udp").unwrap().to_string(), "8080/udp");
        for bad in ["0", "65536", "80:80", "80/icmp", "+80", "", "-1"] {
            assert!(Port::new(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "30", "s", "1d", "99999999999999999999s", "18446744073709551615h", "1.5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(signal("15"), Ok("SIGTERM".to_owned()));
        assert_eq!(signal("quit"), Ok("SIGQUIT".to_owned()));
        assert_eq!(signal("SIGRTMIN+3"), Ok("SIGRTMIN+3".to_owned()));
        for bad in ["", "0", "SIGFOO", "65", "RTMIN+99", "SIGRTMIN-3"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_hold_no_secrets() {
        assert!(address("https://user:secret@example.com/x").is_err());
        let text = address("https://user:secret@example.com/x").unwrap_err().to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(address("ftp://example.com").is_err());
        assert!(CacheAddress::new("http://127.0.0.1:5000/c", false).is_err());
        assert!(CacheAddress::new("http://127.0.0.1:5000/c", true).unwrap().insecure);
        assert_eq!(
            CacheAddress::new("https://r.example.com/team/c/", false).unwrap().to_string(),
            "r.example.com/team/c"
        );
        for bad in ["cache", "team/cache", "u:p@r.example.com/c", "r.example.com", ":5000/x"] {
            assert!(CacheAddress::new(bad, true).is_err(), "{bad}");
        }
    }
}
