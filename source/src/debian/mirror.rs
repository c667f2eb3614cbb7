//! Which mirrors to ask for a suite: what the user set, else what the host's apt sources name.
//!
//! This module only proposes addresses, best first. The caller proves each by the signed Release
//! that it serves (origin, codename, signer) before anything from it counts.

use url::Url;

use super::apt_sources::AptSource;

/// No mirror could be proposed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Neither the user nor the host's apt sources name a mirror.
    #[error(
        "no mirror is known for suite `{suite}`; set one by any of: the option `--mirror URL`, \
         the variable `DRYSTONE_MIRROR`, the key `mirror` in drystone's config.toml, \
         `mirror` under `[debian]` in image.toml, or an entry for `{suite}` in the host's apt sources"
    )]
    NotFound {
        /// The suite that was asked for.
        suite: String,
    },
    /// An address cannot be the base of an archive.
    #[error("`{address}` cannot be a mirror: expected an http, https or file URL")]
    Unusable {
        /// The address, without credentials.
        address: String,
    },
}

/// Addresses that may serve a suite and its security updates, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// Bases of the main archive (`BASE/dists/bookworm/InRelease`); at least one.
    pub main: Vec<Url>,
    /// Bases of the security archive (`BASE/dists/bookworm-security/InRelease`); at least one.
    pub security: Vec<Url>,
}

/// Reads an address as a mirror's base.
///
/// # Errors
///
/// [`MirrorError::Unusable`] when it is no `http`, `https` or `file` URL.
pub fn parse_mirror(text: &str) -> Result<Url, MirrorError> {
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https" | "file");
    match Url::parse(text.trim()) {
        Ok(url) if usable(&url) => Ok(normalised(&url)),
        Ok(url) => Err(MirrorError::Unusable { address: without_credentials(&url) }),
        // What does not parse may still hold a password: show only what follows the last `@`.
        Err(_) => Err(MirrorError::Unusable {
            address: text.rsplit('@').next().unwrap_or_default().chars().take(200).collect(),
        }),
    }
}

/// Proposes mirrors for `suite` (a codename, or an alias such as `stable`).
///
/// `mirror` and `security_mirror` are what the user set, by whatever means; `sources` are the
/// host's, and fill in what was not set. A security archive that nobody names is taken to lie
/// beside the main one, its path with `-security` added.
///
/// # Errors
///
/// [`MirrorError::NotFound`] when no main mirror is known.
pub fn find_mirrors(
    suite: &str,
    mirror: Option<&Url>,
    security_mirror: Option<&Url>,
    sources: &[AptSource],
) -> Result<Mirrors, MirrorError> {
    let main = match mirror {
        Some(url) => vec![normalised(url)],
        None => proposals(sources, suite, Archive::Main),
    };
    let first = main.first().ok_or_else(|| MirrorError::NotFound { suite: suite.to_owned() })?;
    let security = match (security_mirror, mirror) {
        (Some(url), _) => vec![normalised(url)],
        // Who set a mirror expects that nothing else is asked.
        (None, Some(_)) => vec![security_beside(first)],
        (None, None) => {
            let mut found = proposals(sources, suite, Archive::Security);
            add_new(&mut found, security_beside(first));
            found
        }
    };
    Ok(Mirrors { main, security })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Archive {
    Main,
    Security,
}

/// Which archive a suite name belongs to, and how well it fits `wanted`: 0 is best.
fn classify(name: &str, wanted: &str) -> Option<(Archive, u8)> {
    if name.ends_with('/') {
        return None; // A flat repository has no suites.
    }
    if let Some(base) = name.strip_suffix("-security").or_else(|| name.strip_suffix("/updates")) {
        return Some((Archive::Security, if base == wanted { 0 } else { 2 }));
    }
    if name == wanted {
        return Some((Archive::Main, 0));
    }
    let related = name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('-'));
    Some((Archive::Main, if related { 1 } else { 2 }))
}

/// The bases that may hold the archive, in order of fit and then of the sources.
fn proposals(sources: &[AptSource], suite: &str, archive: Archive) -> Vec<Url> {
    let mut ranked: Vec<(u8, &Url)> = Vec::new();
    for source in sources.iter().filter(|source| source.components.iter().any(|c| c == "main")) {
        let fit = source.suites.iter().filter_map(|name| classify(name, suite));
        let best = fit.filter(|(found, _)| *found == archive).map(|(_, rank)| rank).min();
        if let Some(rank) = best {
            ranked.extend(source.uris.iter().map(|url| (rank, url)));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut urls = Vec::new();
    for (_, url) in ranked {
        add_new(&mut urls, normalised(url));
    }
    urls
}

fn add_new(urls: &mut Vec<Url>, url: Url) {
    if !urls.contains(&url) {
        urls.push(url);
    }
}

/// Drops what a base cannot have: a query, a fragment, final slashes.
fn normalised(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// The security archive that lies beside a main one: `…/debian` -> `…/debian-security`.
pub fn security_beside(main: &Url) -> Url {
    let mut url = normalised(main);
    let path = format!("{}-security", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The address of an archive's file: `path` is relative to `base`, as indexes write it, not escaped.
///
/// Parts `.` and `..` are dropped, so the result always lies below `base`.
pub fn address_of(base: &Url, path: &str) -> Url {
    let mut url = normalised(base);
    // Every http, https and file URL has a path; others never become a base.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/').filter(|part| !part.is_empty()));
    }
    url
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::apt_sources::{parse_deb822, read_apt_sources};
    use super::*;

    fn url(text: &str) -> Url {
        parse_mirror(text).unwrap()
    }

    fn sources() -> Vec<AptSource> {
        let text = "Types: deb\nURIs: https://third.example.com/node\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\nURIs: http://m.example.com/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://s.example.com/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\nURIs: http://extra.example.com/flat\nSuites: ./\n";
        parse_deb822(text, Path::new("t.sources")).unwrap()
    }

    #[test]
    fn the_entry_for_the_suite_comes_first() {
        let mirrors = find_mirrors("bookworm", None, None, &sources()).unwrap();
        assert_eq!(
            mirrors.main,
            [url("http://m.example.com/debian"), url("https://third.example.com/node")]
        );
        assert_eq!(mirrors.security[0], url("http://s.example.com/debian-security"));
        let other = find_mirrors("trixie", None, None, &sources()).unwrap();
        assert!(other.main.contains(&url("http://m.example.com/debian")));
        assert_eq!(other.security[0], url("http://s.example.com/debian-security"));
    }

    #[test]
    fn what_the_user_set_is_the_only_proposal() {
        let set = url("http://user:secret@127.0.0.1:3142/debian/");
        let mirrors = find_mirrors("bookworm", Some(&set), None, &sources()).unwrap();
        assert_eq!(mirrors.main, [url("http://user:secret@127.0.0.1:3142/debian")]);
        assert_eq!(mirrors.security, [url("http://user:secret@127.0.0.1:3142/debian-security")]);
        let security = url("file:///srv/security");
        let mirrors = find_mirrors("bookworm", None, Some(&security), &sources()).unwrap();
        assert_eq!(mirrors.main[0], url("http://m.example.com/debian"));
        assert_eq!(mirrors.security, [security]);
    }

    #[test]
    fn no_mirror_is_one_error_with_every_way_out() {
        let error = find_mirrors("bookworm", None, None, &[]).unwrap_err().to_string();
        for way in ["--mirror", "DRYSTONE_MIRROR", "config.toml", "[debian]", "apt sources"] {
            assert!(error.contains(way), "{error}");
        }
        let error = parse_mirror("ftp://user:secret@example.com/debian").unwrap_err().to_string();
        assert!(error.contains("example.com") && !error.contains("secret"), "{error}");
        let error = parse_mirror("//user:secret@example.com").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn addresses_keep_every_character_of_a_pool_path_and_stay_below_the_base() {
        let base = url("http://127.0.0.1/debian/");
        assert_eq!(
            address_of(&base, "pool/main/g/gcc/libstdc++6_12.2~1%3a_amd64.deb").as_str(),
            "http://127.0.0.1/debian/pool/main/g/gcc/libstdc++6_12.2~1%253a_amd64.deb"
        );
        assert_eq!(address_of(&base, "../../x?y#z").as_str(), "http://127.0.0.1/debian/x%3Fy%23z");
        assert_eq!(
            address_of(&url("http://127.0.0.1"), "dists/x").as_str(),
            "http://127.0.0.1/dists/x"
        );
        assert_eq!(
            address_of(&url("file:///srv/r"), "a b").to_file_path().unwrap(),
            Path::new("/srv/r/a b")
        );
    }

    #[test]
    fn this_hosts_sources_can_be_read() {
        match read_apt_sources(Path::new("/etc/apt")) {
            Ok(sources) if sources.is_empty() => println!("skipped: this host has no apt sources"),
            Ok(sources) => assert!(sources.iter().all(|source| !source.uris.is_empty())),
            Err(error) => panic!("{error}"),
        }
    }
}
