//! Environment markers: `python_version < "3.11" and sys_platform == "linux"` (PEP 508).

use std::collections::{BTreeMap, BTreeSet};

use super::version::Version;

/// How deep parentheses may be.
const MOST_DEPTH: usize = 64;

/// A condition on the environment that packages are installed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marker {
    Compare { left: Operand, operator: String, right: Operand },
    All(Vec<Marker>),
    Any(Vec<Marker>),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand {
    Variable(String),
    Text(String),
}

/// What markers are asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// The variables of PEP 508 but `extra`.
    pub variables: BTreeMap<&'static str, String>,
    /// The extras that are installed.
    pub extras: BTreeSet<String>,
}

impl Marker {
    /// Reads a marker; the error says what is wrong.
    pub fn new(text: &str) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0 };
        let marker = parser.any(0)?;
        match parser.at == tokens.len() {
            true => Ok(marker),
            false => Err(format!("the marker {text:?} goes on where it should end")),
        }
    }

    /// Whether it holds.
    pub fn holds(&self, environment: &Environment) -> bool {
        match self {
            Self::All(markers) => markers.iter().all(|marker| marker.holds(environment)),
            Self::Any(markers) => markers.iter().any(|marker| marker.holds(environment)),
            Self::Compare { left, operator, right } => compare(left, operator, right, environment),
        }
    }
}

fn compare(left: &Operand, operator: &str, right: &Operand, environment: &Environment) -> bool {
    if let Some(result) = compare_sets(left, operator, right, environment) {
        return result;
    }
    let value = |operand: &Operand| match operand {
        Operand::Text(text) => text.clone(),
        Operand::Variable(name) => {
            environment.variables.get(name.as_str()).cloned().unwrap_or_default()
        }
    };
    let is_version = [left, right].into_iter().any(|operand| match operand {
        Operand::Variable(name) => {
            matches!(
                name.as_str(),
                "python_version" | "python_full_version" | "implementation_version"
            )
        }
        Operand::Text(_) => false,
    });
    let (left, right) = (value(left), value(right));
    if is_version
        && let Some(version) = Version::new(&left)
        && let Some(result) = version.satisfies(operator, &right)
    {
        return result;
    }
    match operator {
        "==" | "===" => left == right,
        "!=" => left != right,
        "in" => match is_version {
            // A list of versions, and not a piece of text.
            true => right.split([',', ' ']).any(|item| item.trim() == left),
            false => right.contains(&left),
        },
        "not in" => match is_version {
            true => right.split([',', ' ']).all(|item| item.trim() != left),
            false => !right.contains(&left),
        },
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        _ => false,
    }
}

/// `extra` is a set of names; so are `extras` and `dependency_groups` of pylock.toml.
fn compare_sets(
    left: &Operand,
    operator: &str,
    right: &Operand,
    environment: &Environment,
) -> Option<bool> {
    let is_set = |operand: &Operand| match operand {
        Operand::Variable(name) => {
            ["extra", "extras", "dependency_groups"].contains(&name.as_str())
        }
        Operand::Text(_) => false,
    };
    let name = match (left, right) {
        (Operand::Text(name), set) | (set, Operand::Text(name)) if is_set(set) => name,
        _ => return None,
    };
    let has = environment.extras.contains(&normalised(name));
    Some(if matches!(operator, "!=" | "not in") { !has } else { has })
}

/// A package's or extra's name as it is compared (PEP 503).
pub(in crate::recipe::language) fn normalised(name: &str) -> String {
    let mut text = String::new();
    for character in name.trim().chars() {
        match character {
            '-' | '_' | '.' => {
                if !text.ends_with('-') {
                    text.push('-');
                }
            }
            other => text.push(other.to_ascii_lowercase()),
        }
    }
    text
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Operator(String),
    Open,
    Close,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => {
                tokens.push(if first == '(' { Token::Open } else { Token::Close });
                1
            }
            '"' | '\'' => {
                let inner = &rest[1..];
                let end = inner.find(first).ok_or(format!("{text:?} has an open quote"))?;
                tokens.push(Token::Text(inner[..end].to_owned()));
                end + 2
            }
            '<' | '>' | '=' | '!' | '~' => {
                let end = rest.find(|it: char| !"<>=!~".contains(it)).unwrap_or(rest.len());
                tokens.push(Token::Operator(rest[..end].to_owned()));
                end
            }
            _ if first.is_ascii_alphanumeric() || first == '_' => {
                let end = rest
                    .find(|it: char| !(it.is_ascii_alphanumeric() || it == '_' || it == '.'))
                    .unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            other => return Err(format!("{text:?} has a {other:?} where none can be")),
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Word(it)) if it == word);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Result<Marker, String> {
        let mut markers = vec![self.all(depth)?];
        while self.word("or") {
            markers.push(self.all(depth)?);
        }
        Ok(if markers.len() == 1 { markers.remove(0) } else { Marker::Any(markers) })
    }

    fn all(&mut self, depth: usize) -> Result<Marker, String> {
        let mut markers = vec![self.one(depth)?];
        while self.word("and") {
            markers.push(self.one(depth)?);
        }
        Ok(if markers.len() == 1 { markers.remove(0) } else { Marker::All(markers) })
    }

    fn one(&mut self, depth: usize) -> Result<Marker, String> {
        if depth > MOST_DEPTH {
            return Err("a marker has too many parentheses".to_owned());
        }
        if self.tokens.get(self.at) == Some(&Token::Open) {
            self.at += 1;
            let marker = self.any(depth + 1)?;
            if self.tokens.get(self.at) != Some(&Token::Close) {
                return Err("a marker lacks a `)`".to_owned());
            }
            self.at += 1;
            return Ok(marker);
        }
        let left = self.operand()?;
        let operator = self.operator()?;
        let right = self.operand()?;
        Ok(Marker::Compare { left, operator, right })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let operand = match self.tokens.get(self.at) {
            Some(Token::Word(name)) => {
                // `os.name` and `sys.platform` are old spellings.
                Operand::Variable(name.replace('.', "_"))
            }
            Some(Token::Text(text)) => Operand::Text(text.clone()),
            _ => return Err("a marker lacks one side of a comparison".to_owned()),
        };
        self.at += 1;
        Ok(operand)
    }

    fn operator(&mut self) -> Result<String, String> {
        if self.word("in") {
            return Ok("in".to_owned());
        }
        if self.word("not") {
            return match self.word("in") {
                true => Ok("not in".to_owned()),
                false => Err("a marker has `not` without `in`".to_owned()),
            };
        }
        match self.tokens.get(self.at) {
            Some(Token::Operator(operator)) => {
                self.at += 1;
                Ok(operator.clone())
            }
            _ => Err("a marker lacks an operator".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let variables = [
            ("python_version", "3.11"),
            ("python_full_version", "3.11.2"),
            ("sys_platform", "linux"),
            ("platform_machine", "x86_64"),
            ("os_name", "posix"),
            ("implementation_name", "cpython"),
        ];
        Environment {
            variables: variables.map(|(name, value)| (name, value.to_owned())).into(),
            extras: ["socks-5".to_owned()].into(),
        }
    }

    #[test]
    fn markers_hold_or_do_not() {
        for (text, expected) in [
            ("python_version < '3.11'", false),
            ("python_version >= \"3.9\"", true),
            ("python_full_version >= '3.11.1' and sys_platform == 'linux'", true),
            ("sys_platform == 'win32' or (os_name == 'posix' and python_version > '3')", true),
            ("sys_platform == 'win32' or os_name == 'nt' and python_version > '3'", false),
            ("python_version == '3.*'", true),
            ("python_version in '3.10 3.11'", true),
            ("python_version not in '3.1, 3.10'", true),
            ("'linux' in sys_platform", true),
            ("platform_machine not in 'arm64 aarch64'", true),
            ("sys.platform != 'darwin'", true),
            ("extra == 'Socks_5'", true),
            ("extra == 'other'", false),
            ("extra != 'other'", true),
            ("'socks-5' in extras", true),
            ("unknown_variable == 'x'", false),
            ("implementation_name == 'pypy'", false),
        ] {
            assert_eq!(Marker::new(text).unwrap().holds(&environment()), expected, "{text}");
        }
    }

    #[test]
    fn broken_markers_are_refused() {
        let deep = "(".repeat(100) + "os_name == 'x'" + &")".repeat(100);
        for text in [
            "",
            "os_name",
            "os_name ==",
            "== 'x'",
            "os_name == 'x",
            "os_name == 'x' 'y'",
            "(os_name == 'x'",
            "os_name not 'x'",
            "os_name == 'x' and",
            "os_name ; 'x'",
            &deep,
        ] {
            assert!(Marker::new(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(python_version|extra|and|or|in|not|[()<>=!~'\"é3. a])*") {
            if let Ok(marker) = Marker::new(&text) {
                let _ = marker.holds(&environment());
            }
        }
    }
}
