//! Credentials for repositories: apt's auth.conf and netrc files.
//!
//! Formats: apt_auth.conf(5) and the netrc of ftp(1), which it extends: `machine` may hold a scheme,
//! a port and a path prefix. Without a scheme an entry counts for https only, as apt has it, so that
//! nobody on the way can ask for a password. `default` and `macdef` entries are not used.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use url::Url;

/// User names and passwords by machine. Its `Debug` form shows no password.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    login: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.host)).finish()
    }
}

impl Credentials {
    /// Reads the text of a netrc or auth.conf file. What is no entry is passed over.
    pub fn parse(text: &str) -> Self {
        let mut words = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .flat_map(str::split_whitespace);
        let mut entries: Vec<Entry> = Vec::new();
        let mut open = false;
        while let Some(word) = words.next() {
            match word {
                "machine" => {
                    let entry = words.next().and_then(Entry::for_machine);
                    open = entry.is_some();
                    entries.extend(entry);
                }
                "default" | "macdef" => open = false,
                "login" | "password" | "account" => {
                    let (value, entry) = (words.next(), entries.last_mut().filter(|_| open));
                    if let (Some(value), Some(entry)) = (value, entry) {
                        match word {
                            "login" => value.clone_into(&mut entry.login),
                            "password" => value.clone_into(&mut entry.password),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        entries.retain(|entry| !entry.login.is_empty());
        Self { entries }
    }

    /// Reads the host's files: `auth.conf` and `auth.conf.d` below `apt` (usually `/etc/apt`), then
    /// `netrc`. Files that are missing or that this user may not read hold nothing.
    pub fn load(apt: &Path, netrc: Option<&Path>) -> Self {
        let mut files = vec![apt.join("auth.conf")];
        let parts = fs::read_dir(apt.join("auth.conf.d"));
        let mut parts: Vec<PathBuf> = parts
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        parts.sort();
        files.extend(parts);
        files.extend(netrc.map(Path::to_path_buf));
        let mut entries = Vec::new();
        for file in files {
            match fs::read_to_string(&file) {
                Ok(text) => entries.extend(Self::parse(&text).entries),
                Err(error) => {
                    tracing::debug!(path = %file.display(), %error, "no credentials read")
                }
            }
        }
        Self { entries }
    }

    /// The user name and password for an address: the first entry that matches it.
    pub fn find(&self, url: &Url) -> Option<(&str, &str)> {
        let entry = self.entries.iter().find(|entry| entry.matches(url))?;
        Some((&entry.login, &entry.password))
    }
}

impl Entry {
    fn for_machine(machine: &str) -> Option<Self> {
        let (scheme, rest) = match machine.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, machine),
        };
        // Borrow the URL parser for ports and bracketed addresses.
        let url = Url::parse(&format!("none://{rest}")).ok()?;
        Some(Self {
            scheme,
            host: url.host_str()?.to_ascii_lowercase(),
            port: url.port(),
            path: url.path().to_owned(),
            login: String::new(),
            password: String::new(),
        })
    }

    fn matches(&self, url: &Url) -> bool {
        // `/private` covers `/private` and `/private/x`, but not `/private-other`, which may
        // belong to somebody else.
        let below = |path: &str| {
            path.strip_prefix(&self.path).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
            })
        };
        url.scheme() == self.scheme.as_deref().unwrap_or("https")
            && url.host_str() == Some(self.host.as_str())
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
            && (self.path.is_empty() || below(url.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(credentials: &'a Credentials, url: &str) -> Option<(&'a str, &'a str)> {
        credentials.find(&Url::parse(url).unwrap())
    }

    #[test]
    fn entries_match_scheme_host_port_and_path() {
        let text = "# comment\nmachine a.example.com login ann password one\n\
                    machine http://b.example.com:8080/private\n  login bob\n  password two\n\
                    default login all password none\nmachine c.example.com password lonely\n";
        let credentials = Credentials::parse(text);
        assert_eq!(find(&credentials, "https://a.example.com/x"), Some(("ann", "one")));
        assert_eq!(find(&credentials, "http://a.example.com/x"), None, "https unless stated");
        assert_eq!(find(&credentials, "https://sub.a.example.com/"), None);
        let b = "http://b.example.com:8080";
        assert_eq!(find(&credentials, &format!("{b}/private/y")), Some(("bob", "two")));
        assert_eq!(find(&credentials, &format!("{b}/private")), Some(("bob", "two")));
        assert_eq!(find(&credentials, &format!("{b}/private-other/y")), None);
        assert_eq!(find(&credentials, "http://b.example.com/private/y"), None);
        assert_eq!(find(&credentials, "https://c.example.com/"), None);
        assert!(!format!("{credentials:?}").contains("one"));
    }

    #[test]
    fn files_are_read_in_order_and_missing_ones_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let parts = directory.path().join("auth.conf.d");
        fs::create_dir(&parts).unwrap();
        fs::write(parts.join("a.conf"), "machine a.example.com login ann password one").unwrap();
        let netrc = directory.path().join("netrc");
        fs::write(&netrc, "machine a.example.com login late password x").unwrap();
        let credentials = Credentials::load(directory.path(), Some(&netrc));
        assert_eq!(find(&credentials, "https://a.example.com/"), Some(("ann", "one")));
        let none = Credentials::load(Path::new("/nonexistent"), None);
        assert_eq!(find(&none, "https://a.example.com/"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(machine|login|password|http|://|[a-z./:@\\[\\]]| ){0,30}") {
            let _ = Credentials::parse(&text);
        }
    }
}
