//! Licences: from a package's machine-readable copyright file (DEP-5) to an SPDX expression.
//!
//! What Debian's short names mean is looked up in a table; a name that is not in it becomes a
//! `LicenseRef-Debian-NAME` with the text that the file gives. A copyright file that is not
//! machine-readable says nothing: no licence is ever guessed from its prose.

use std::collections::{BTreeMap, BTreeSet};

use drystone_source::debian::control::paragraphs;

/// The longest copyright file that is read, in bytes.
pub const MAX_COPYRIGHT: u64 = 4 << 20;
/// The longest text of a licence that documents repeat, in characters.
const MAX_TEXT: usize = 20_000;
/// What SPDX writes where nothing is known.
pub const NO_ASSERTION: &str = "NOASSERTION";

/// Debian's short names, in lower case, and the SPDX identifiers that mean the same.
const NAMES: [(&str, &str); 64] = [
    ("0bsd", "0BSD"),
    ("afl-2.1", "AFL-2.1"),
    ("agpl-3", "AGPL-3.0-only"),
    ("agpl-3+", "AGPL-3.0-or-later"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("artistic-1", "Artistic-1.0-Perl"),
    ("artistic-2", "Artistic-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("beerware", "Beerware"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsd-4-clause-uc", "BSD-4-Clause-UC"),
    ("bsl-1", "BSL-1.0"),
    ("bsl-1.0", "BSL-1.0"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0", "CC0-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("curl", "curl"),
    ("epl-1.0", "EPL-1.0"),
    ("expat", "MIT"),
    ("fsfap", "FSFAP"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("gfdl-1.2", "GFDL-1.2-only"),
    ("gfdl-1.2+", "GFDL-1.2-or-later"),
    ("gfdl-1.3", "GFDL-1.3-only"),
    ("gfdl-1.3+", "GFDL-1.3-or-later"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-2.0+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("gpl-3.0+", "GPL-3.0-or-later"),
    ("isc", "ISC"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.0", "LGPL-2.0-only"),
    ("lgpl-2.0+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("lgpl-3.0", "LGPL-3.0-only"),
    ("lgpl-3.0+", "LGPL-3.0-or-later"),
    ("mit", "MIT"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("ofl-1.1", "OFL-1.1"),
    ("openssl", "OpenSSL"),
    ("python-2.0", "Python-2.0"),
    ("unlicense", "Unlicense"),
    ("x11", "X11"),
    ("zlib", "Zlib"),
];

/// What a copyright file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Licence {
    /// The SPDX expression for all files together; `None` where the file does not say.
    pub expression: Option<String>,
    /// Texts of the licences that SPDX has no name for, by `LicenseRef-…`.
    pub texts: BTreeMap<String, String>,
}

impl Licence {
    /// Reads a copyright file; one that is not machine-readable says nothing.
    pub fn from_copyright(text: &str) -> Self {
        let mut paragraphs = paragraphs(text);
        let is_readable = match paragraphs.next() {
            Some(Ok(header)) => {
                header.value("Format").is_some_and(|it| it.contains("copyright-format"))
            }
            _ => false,
        };
        if !is_readable {
            return Self::default();
        }
        let (mut expressions, mut texts) = (BTreeSet::new(), BTreeMap::new());
        for paragraph in paragraphs {
            // Half of a copyright file would tell half of the truth.
            let Ok(paragraph) = paragraph else { return Self::default() };
            let Some(value) = paragraph.value("License") else { continue };
            let (short, body) = value.split_once('\n').unwrap_or((value, ""));
            if paragraph.field("Files").is_some() {
                let Some(expression) = expression(short) else { return Self::default() };
                match expression.contains(" OR ") {
                    true => drop(expressions.insert(expression)),
                    // Said together already by another paragraph, perhaps in part.
                    false => expressions.extend(expression.split(" AND ").map(str::to_owned)),
                }
            }
            if !body.trim().is_empty() {
                texts.insert(reference(short.trim()), plain(body));
            }
        }
        if expressions.is_empty() {
            return Self::default();
        }
        let is_single = expressions.len() == 1;
        let parts = expressions.iter().map(|part| match part.contains(" OR ") && !is_single {
            true => format!("({part})"),
            false => part.clone(),
        });
        let expression = parts.collect::<Vec<_>>().join(" AND ");
        let named: BTreeSet<&str> = expression
            .split([' ', '(', ')'])
            .filter(|word| word.starts_with("LicenseRef-"))
            .collect();
        let text = |name: &str| texts.get(name).cloned().unwrap_or_default();
        let texts = named.iter().map(|name| ((*name).to_owned(), text(name))).collect();
        Self { expression: Some(expression), texts }
    }
}

/// The SPDX expression of a short name, in which `and` binds tighter than `or`, and a comma less
/// than either.
fn expression(short: &str) -> Option<String> {
    let words: Vec<&str> = short.split_whitespace().collect();
    let mut clauses: Vec<(Option<&str>, String)> = Vec::new();
    let (mut clause, mut name, mut joint) = (Vec::new(), Vec::new(), None);
    let mut after_comma = false;
    for word in words {
        let operator = match word {
            "and" => Some("AND"),
            "or" | "and/or" => Some("OR"),
            _ => None,
        };
        match operator {
            Some(operator) if after_comma => {
                clauses.push((joint, close(&mut clause, &mut name)?));
                joint = Some(operator);
            }
            Some(operator) => {
                clause.push(close_name(&mut name)?);
                clause.push(operator.to_owned());
            }
            None => name.push(word.trim_end_matches(',')),
        }
        after_comma = operator.is_none() && word.ends_with(',');
    }
    clauses.push((joint, close(&mut clause, &mut name)?));
    let is_single = clauses.len() == 1;
    let mut text = String::new();
    for (operator, clause) in clauses {
        if let Some(operator) = operator {
            text.push_str(&format!(" {operator} "));
        }
        match clause.contains(' ') && !is_single {
            true => text.push_str(&format!("({clause})")),
            false => text.push_str(&clause),
        }
    }
    Some(text)
}

fn close(clause: &mut Vec<String>, name: &mut Vec<&str>) -> Option<String> {
    clause.push(close_name(name)?);
    let text = clause.join(" ");
    clause.clear();
    Some(text)
}

/// The identifier of the words of one licence's name.
fn close_name(name: &mut Vec<&str>) -> Option<String> {
    let text = name.join(" ");
    name.clear();
    if text.is_empty() {
        return None;
    }
    let known = NAMES.iter().find(|(debian, _)| *debian == text.to_ascii_lowercase());
    Some(known.map_or_else(|| reference(&text), |(_, spdx)| (*spdx).to_owned()))
}

/// The reference of a licence that SPDX has no name for.
fn reference(name: &str) -> String {
    let legal = |c: char| match c {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' => c.to_string(),
        '+' => "plus".to_owned(),
        _ => "-".to_owned(),
    };
    format!("LicenseRef-Debian-{}", name.chars().take(100).map(legal).collect::<String>())
}

/// A licence's text without the marks of the file's format.
fn plain(body: &str) -> String {
    let lines = body.lines().map(|line| match line.trim() {
        "." => "",
        _ => line.strip_prefix(' ').unwrap_or(line).trim_end(),
    });
    lines.collect::<Vec<_>>().join("\n").trim().chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n";

    fn read(rest: &str) -> Licence {
        Licence::from_copyright(&format!("{HEADER}{rest}"))
    }

    #[test]
    fn the_table_is_sorted_for_those_who_read_it() {
        assert!(NAMES.is_sorted(), "{NAMES:?}");
    }

    #[test]
    fn short_names_become_expressions() {
        for (short, expected) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("Expat", "MIT"),
            ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
            ("GPL-2 and Expat or ISC", "GPL-2.0-only AND MIT OR ISC"),
            ("GPL-2+ or Expat, and ISC", "(GPL-2.0-or-later OR MIT) AND ISC"),
            ("public-domain", "LicenseRef-Debian-public-domain"),
            ("GPL-2+ with OpenSSL exception", "LicenseRef-Debian-GPL-2plus-with-OpenSSL-exception"),
        ] {
            assert_eq!(expression(short).as_deref(), Some(expected), "{short}");
        }
        assert_eq!(expression("GPL-2 and"), None);
        assert_eq!(expression(""), None);
    }

    #[test]
    fn all_files_count_and_unknown_licences_bring_their_text() {
        let licence = read(
            "Files: *\nCopyright: x\nLicense: GPL-2+ or Expat\n\n\
             Files: a\nCopyright: y\nLicense: own-terms\n Do what\n .\n you like.\n\n\
             License: unused\n Never mind.\n",
        );
        assert_eq!(
            licence.expression.as_deref(),
            Some("(GPL-2.0-or-later OR MIT) AND LicenseRef-Debian-own-terms")
        );
        let texts: Vec<_> = licence.texts.into_iter().collect();
        let own = "LicenseRef-Debian-own-terms".to_owned();
        assert_eq!(texts, [(own, "Do what\n\nyou like.".to_owned())]);
    }

    #[test]
    fn each_licence_is_named_once() {
        let licence = read(
            "Files: *\nLicense: GPL-2+ and Expat\n\nFiles: a\nLicense: Expat\n\n\
             Files: b\nLicense: Expat and ISC\n",
        );
        assert_eq!(licence.expression.as_deref(), Some("GPL-2.0-or-later AND ISC AND MIT"));
    }

    #[test]
    fn prose_and_damage_say_nothing() {
        assert_eq!(Licence::from_copyright("This is free software.\n"), Licence::default());
        assert_eq!(Licence::from_copyright(""), Licence::default());
        assert_eq!(read("Files: *\nLicense: GPL-2\n\nnonsense\n"), Licence::default());
        assert_eq!(read("Files: *\nCopyright: x\n"), Licence::default());
    }
}
