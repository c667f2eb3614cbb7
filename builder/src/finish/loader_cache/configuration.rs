//! `/etc/ld.so.conf`, its includes, and the directories that are built in.

use super::super::root_view::{Node, RootView, join, resolve};
use super::LoaderCacheError;
use super::scan::{LibraryType, Scan};

/// Deeper nesting is taken for a loop; Debian's own depth is one.
const INCLUDE_LIMIT: usize = 32;
const CONFIGURATION: &str = "/etc/ld.so.conf";

/// Adds every directory that is configured or built in to the scan.
pub fn read(scan: &mut Scan<'_>) -> Result<(), LoaderCacheError> {
    parse(scan, CONFIGURATION, 0)?;
    let triplet = scan.ldconfig.machine.triplet();
    for directory in
        [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}"), "/lib".into(), "/usr/lib".into()]
    {
        add(scan, &directory)?;
    }
    Ok(())
}

/// C's `isspace` in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn parse(scan: &mut Scan<'_>, file: &str, depth: usize) -> Result<(), LoaderCacheError> {
    if depth > INCLUDE_LIMIT {
        return Err(LoaderCacheError::IncludeDepth { path: file.to_owned() });
    }
    let read_error = |source| LoaderCacheError::Read { path: file.to_owned(), source };
    let Some((path, Node::File { .. })) = resolve(scan.root(), file).map_err(read_error)? else {
        return Ok(());
    };
    let content = scan.root().read(&path, u64::MAX).map_err(read_error)?;
    for line in String::from_utf8_lossy(&content).split('\n') {
        let line = line.split(['#', '\0']).next().unwrap_or_default();
        let line = line.trim_start_matches(is_space);
        if line.is_empty() {
            continue;
        }
        if let Some(patterns) = line
            .strip_prefix("include")
            .and_then(|rest| rest.strip_prefix(|c| c == ' ' || c == '\t'))
        {
            for pattern in patterns.split([' ', '\t']).filter(|word| !word.is_empty()) {
                include(scan, file, pattern, depth)?;
            }
        } else if !is_hwcap_line(line) {
            add(scan, line)?;
        }
    }
    Ok(())
}

fn is_hwcap_line(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.len() > 5
        && bytes[..5].eq_ignore_ascii_case(b"hwcap")
        && (bytes[5] == b' ' || bytes[5] == b'\t')
}

fn include(
    scan: &mut Scan<'_>,
    file: &str,
    pattern: &str,
    depth: usize,
) -> Result<(), LoaderCacheError> {
    let pattern = if pattern.starts_with('/') {
        pattern.to_owned()
    } else {
        join(file.rsplit_once('/').map_or("", |(directory, _)| directory), pattern)
    };
    let files = expand(scan.root(), &pattern)
        .map_err(|source| LoaderCacheError::Read { path: pattern.clone(), source })?;
    for file in files {
        parse(scan, &file, depth + 1)?;
    }
    Ok(())
}

/// Adds one directory as a line names it.
fn add(scan: &mut Scan<'_>, line: &str) -> Result<(), LoaderCacheError> {
    let (path, kind) = if scan.ldconfig.legacy {
        match line.split_once('=') {
            Some((path, "libc5")) => (path, LibraryType::Libc5),
            Some((path, "libc6" | "glibc2")) => (path, LibraryType::Libc6),
            Some((path, _)) => (path, LibraryType::Any),
            None => (line, LibraryType::Any),
        }
    } else {
        (line, LibraryType::Any)
    };
    let path = path.trim_end_matches(is_space).trim_end_matches('/');
    if path.is_empty() { Ok(()) } else { scan.add_directory(path, kind) }
}

/// The existing paths that a glob pattern of `include` names, in byte order.
fn expand(root: &dyn RootView, pattern: &str) -> std::io::Result<Vec<String>> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for directory in found {
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(format!("{directory}/{part}"));
                continue;
            }
            let Some((real, Node::Directory)) = resolve(root, &directory)? else { continue };
            for name in root.list(&real)? {
                let hidden = name.starts_with('.') && !part.starts_with('.');
                if !hidden && matches(part.as_bytes(), name.as_bytes()) {
                    next.push(format!("{directory}/{name}"));
                }
            }
        }
        found = next;
    }
    found.sort();
    Ok(found)
}

/// POSIX `fnmatch` of one path component: `*`, `?`, `[…]` and backslash.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where to go on after the last `*`, if what follows it does not match.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, seen));
            at += 1;
            continue;
        }
        let step = name.get(seen).and_then(|byte| match_one(&pattern[at..], *byte));
        match step {
            Some(length) => {
                at += length;
                seen += 1;
            }
            None if at == pattern.len() && seen == name.len() => return true,
            None => match retry {
                Some((after, from)) if from < name.len() => {
                    retry = Some((after, from + 1));
                    at = after;
                    seen = from + 1;
                }
                _ => return false,
            },
        }
    }
}

/// The length of the first pattern element, if it matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => match bracket(pattern) {
            Some((length, set)) => set(byte).then_some(length),
            None => (byte == b'[').then_some(1),
        },
        literal => (literal == byte).then_some(1),
    }
}

/// A bracket expression: its length and what it accepts. `None` when it is not closed.
fn bracket(pattern: &[u8]) -> Option<(usize, impl Fn(u8) -> bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    let members = pattern[start..end].to_vec();
    let accepts = move |byte: u8| {
        let mut inside = false;
        let mut at = 0;
        while at < members.len() {
            if at + 2 < members.len() && members[at + 1] == b'-' {
                inside |= (members[at]..=members[at + 2]).contains(&byte);
                at += 3;
            } else {
                inside |= members[at] == byte;
                at += 1;
            }
        }
        inside != negated
    };
    Some((end + 1, accepts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, name, expected) in [
            ("*.conf", "x86_64-linux-gnu.conf", true),
            ("*.conf", "a.conf.dpkg-old", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("[a", "[a", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
