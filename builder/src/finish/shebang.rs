//! Scripts whose interpreter is not in the image.
//!
//! Debian lets packages use Essential packages (`sh`, `perl`, coreutils) without a dependency, and
//! an image need not hold these. The `#!` line of every executable file is therefore read and its
//! interpreter looked up, inside the image, with links followed; for `env X` (with its options
//! and assignments, `-S` too) X is looked up in PATH.

use std::io;

use drystone_store::tree::TreePath;

use super::root_view::{Node, RootView, join, resolve};

/// The longest first line that Linux reads (`BINPRM_BUF_SIZE`).
const LINE_LIMIT: u64 = 256;

/// The PATH of an image that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A script that cannot run in the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingInterpreter {
    /// The script.
    pub script: TreePath,
    /// The path or, behind `env`, the name of the interpreter that is missing.
    pub interpreter: String,
    /// Debian's package that has it, where that is commonly known.
    pub package: Option<&'static str>,
}

/// A file or directory that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path:?} to check its interpreter")]
pub struct ShebangError {
    /// The path in the image.
    pub path: String,
    /// What the view answered.
    #[source]
    pub source: io::Error,
}

/// Checks `files`; those that are no executable regular files are passed over. `path` is the
/// image's PATH.
pub fn missing_interpreters<'a>(
    root: &dyn RootView,
    files: impl IntoIterator<Item = &'a TreePath>,
    path: &str,
) -> Result<Vec<MissingInterpreter>, ShebangError> {
    let mut missing = Vec::new();
    for file in files {
        let error = |source| ShebangError { path: file.as_str().to_owned(), source };
        let node = root.node(file.as_str()).map_err(error)?;
        if !matches!(node, Some(Node::File { mode, .. }) if mode & 0o111 != 0) {
            continue;
        }
        let start = root.read(file.as_str(), LINE_LIMIT).map_err(error)?;
        let Some(line) = Shebang::parse(&start) else { continue };
        if let Some(interpreter) = line.missing(root, path).map_err(error)? {
            let package = package_of(&interpreter);
            missing.push(MissingInterpreter { script: file.clone(), interpreter, package });
        }
    }
    missing.sort();
    Ok(missing)
}

/// The programs that a file's first bytes ask for: the interpreter, and behind `env` the program
/// that is looked up in PATH. Nothing for a file that is no script.
pub fn interpreters(start: &[u8]) -> Vec<String> {
    let line = start.get(..LINE_LIMIT as usize).unwrap_or(start);
    let Some(shebang) = Shebang::parse(line) else { return Vec::new() };
    [Some(shebang.interpreter), shebang.through_env].into_iter().flatten().collect()
}

/// What a `#!` line runs.
#[derive(Debug, PartialEq, Eq)]
struct Shebang {
    interpreter: String,
    /// The program that `env` looks up in PATH.
    through_env: Option<String>,
}

impl Shebang {
    /// Reads the first bytes of a file. `None` when it is no script, or one for the kernel to
    /// refuse as well (no interpreter in the line).
    fn parse(start: &[u8]) -> Option<Self> {
        let line = start.strip_prefix(b"#!")?;
        let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?;
        let line = String::from_utf8_lossy(line);
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        // A line end of another system is part of the name, to the kernel and so here.
        let interpreter = words.next()?.to_owned();
        let is_env = interpreter.rsplit('/').next() == Some("env");
        let through_env = if is_env { env_program(words) } else { None };
        Some(Self { interpreter, through_env })
    }

    /// The interpreter that does not exist, if one does not.
    fn missing(self, root: &dyn RootView, path: &str) -> io::Result<Option<String>> {
        if !is_program(root, &self.interpreter)? {
            return Ok(Some(self.interpreter));
        }
        let Some(program) = self.through_env else { return Ok(None) };
        if program.contains('/') {
            return Ok(if is_program(root, &program)? { None } else { Some(program) });
        }
        for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
            if is_program(root, &join(directory, &program))? {
                return Ok(None);
            }
        }
        Ok(Some(program))
    }
}

/// The program among the words behind `env`.
fn env_program<'a>(words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut skip_value = false;
    for word in words {
        if std::mem::take(&mut skip_value) {
            continue;
        }
        match word {
            "-u" | "--unset" | "-C" | "--chdir" => skip_value = true,
            "-S" | "--split-string" => {}
            _ if word.starts_with("-S") => return Some(word[2..].to_owned()),
            _ if word.starts_with("--split-string=") => {
                return Some(word["--split-string=".len()..].to_owned());
            }
            // `-vS` and the like end in S, and the program follows.
            _ if word.starts_with('-') || word.contains('=') => {}
            _ => return Some(word.to_owned()),
        }
    }
    None
}

/// Whether an absolute path leads to an executable file.
fn is_program(root: &dyn RootView, path: &str) -> io::Result<bool> {
    if !path.starts_with('/') {
        return Ok(false);
    }
    let found = resolve(root, path)?;
    Ok(matches!(found, Some((_, Node::File { mode, .. })) if mode & 0o111 != 0))
}

/// Debian's packages of the common interpreters.
fn package_of(interpreter: &str) -> Option<&'static str> {
    let name = interpreter.rsplit('/').next().unwrap_or(interpreter);
    Some(match name {
        "sh" | "dash" => "dash",
        "bash" => "bash",
        "perl" => "perl-base",
        "env" => "coreutils",
        "sed" => "sed",
        "awk" | "mawk" => "mawk",
        "gawk" => "gawk",
        "make" => "make",
        "python3" => "python3-minimal",
        "ruby" => "ruby",
        "php" => "php-cli",
        "node" | "nodejs" => "nodejs",
        "lua" | "lua5.4" => "lua5.4",
        "tclsh" => "tcl",
        "wish" => "tk",
        "guile" => "guile-3.0",
        "zsh" => "zsh",
        "ksh" => "ksh93u+m",
        "fish" => "fish",
        "nft" => "nftables",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::root_view::memory::MemoryRoot;
    use super::*;

    fn check(root: &MemoryRoot, files: &[&str]) -> Vec<(String, String)> {
        let files: Vec<_> = files.iter().map(|file| TreePath::new(*file).unwrap()).collect();
        missing_interpreters(root, &files, DEFAULT_PATH)
            .unwrap()
            .into_iter()
            .map(|missing| (missing.script.as_str().to_owned(), missing.interpreter))
            .collect()
    }

    #[test]
    fn finds_what_is_missing_and_nothing_else() {
        let mut root = MemoryRoot::default();
        root.symlink("bin", "usr/bin");
        root.file("usr/bin/dash", 0o755, b"\x7fELF");
        root.symlink("usr/bin/sh", "dash");
        root.file("usr/bin/env", 0o755, b"\x7fELF");
        root.file("usr/local/bin/node", 0o755, b"\x7fELF");
        root.file("usr/bin/plain", 0o644, b"not executable");
        let scripts: [(&str, u32, &[u8], Option<&str>); 15] = [
            ("a/sh", 0o755, b"#!/bin/sh\necho\n", None),
            ("a/sh-option", 0o755, b"#! /bin/sh -e\n", None),
            ("a/no-end", 0o755, b"#!/bin/sh", None),
            ("a/perl", 0o755, b"#!/usr/bin/perl -w\n", Some("/usr/bin/perl")),
            ("a/data", 0o644, b"#!/usr/bin/perl\n", None),
            ("a/node", 0o755, b"#!/usr/bin/env node\n", None),
            ("a/python", 0o755, b"#!/usr/bin/env python3\n", Some("python3")),
            ("a/split", 0o755, b"#!/usr/bin/env -S X=1 deno run\n", Some("deno")),
            ("a/split2", 0o755, b"#!/usr/bin/env -Snode --flag\n", None),
            ("a/unset", 0o755, b"#!/usr/bin/env -u HOME node\n", None),
            ("a/relative", 0o755, b"#!perl\n", Some("perl")),
            ("a/dos", 0o755, b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("a/not-program", 0o755, b"#!/usr/bin/plain\n", Some("/usr/bin/plain")),
            ("a/empty", 0o755, b"#!\n", None),
            ("a/binary", 0o755, b"\x7fELF", None),
        ];
        let mut expected = Vec::new();
        for (path, mode, content, missing) in scripts {
            root.file(path, mode, content);
            if let Some(missing) = missing {
                expected.push((path.to_owned(), missing.to_owned()));
            }
        }
        expected.sort();
        let names: Vec<&str> = scripts.iter().map(|(path, ..)| *path).collect();
        assert_eq!(check(&root, &names), expected);
    }

    #[test]
    fn names_the_package() {
        let mut root = MemoryRoot::default();
        root.file("x", 0o755, b"#!/usr/bin/perl\n");
        let file = TreePath::new("x").unwrap();
        let missing = missing_interpreters(&root, [&file], DEFAULT_PATH).unwrap();
        assert_eq!(missing[0].package, Some("perl-base"));
    }

    proptest! {
        #[test]
        fn any_first_line_is_read(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Shebang::parse(&line);
            let _ = Shebang::parse(&[b"#!/usr/bin/env ", line.as_slice()].concat());
        }
    }
}
