//! Which indexes pip and uv would ask on this host.
//!
//! ```text
//! UV_DEFAULT_INDEX, UV_INDEX_URL, PIP_INDEX_URL > uv.toml > pip.conf (user over global) > none
//! ```
//!
//! Further indexes (`extra-index-url`, `[[index]]`) are asked where the first lacks a file. Which of
//! them answers is no matter, since the lockfile's hash decides.

use std::collections::BTreeMap;

use toml::{Table, Value};
use url::Url;

/// Addresses of indexes, the default one first where it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::recipe::language) struct Indexes {
    /// The one that is asked first.
    pub default: Option<Url>,
    /// Further ones.
    pub extra: Vec<Url>,
}

/// The texts of configuration files, the strongest last.
#[derive(Debug, Clone, Default)]
pub(in crate::recipe::language) struct Texts {
    /// `pip.conf` files.
    pub pip: Vec<String>,
    /// `uv.toml` files, and `[tool.uv]` of the project as such a file.
    pub uv: Vec<String>,
}

impl Indexes {
    /// Reads configuration files and variables.
    pub fn read(texts: &Texts, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut indexes = Self::default();
        for text in &texts.pip {
            indexes.add_pip(text);
        }
        for text in &texts.uv {
            indexes.add_uv(text);
        }
        for name in ["PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"] {
            let value = environment(name).and_then(|text| address(unnamed(&text)));
            indexes.default = value.or(indexes.default);
        }
        for name in ["PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX"] {
            let value = environment(name).unwrap_or_default();
            indexes.extra.extend(value.split_whitespace().map(unnamed).filter_map(address));
        }
        indexes
    }

    /// All, in the order in which they are asked.
    pub fn all(&self) -> Vec<Url> {
        let mut all: Vec<Url> = Vec::new();
        for url in self.default.iter().chain(&self.extra) {
            if !all.contains(url) {
                all.push(url.clone());
            }
        }
        all
    }

    fn add_pip(&mut self, text: &str) {
        let mut values: BTreeMap<&str, String> = BTreeMap::new();
        let (mut is_read, mut last) = (false, None);
        for line in text.lines() {
            let plain = line.trim();
            if plain.is_empty() || plain.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = plain.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                is_read = ["global", "install", "download"].contains(&section.trim());
                last = None;
                continue;
            }
            // Lines that are set in continue the value before.
            if line.starts_with([' ', '\t'])
                && let Some(key) = last
            {
                let value: &mut String = values.entry(key).or_default();
                value.push(' ');
                value.push_str(plain);
                continue;
            }
            let Some((key, value)) = plain.split_once(['=', ':']) else { continue };
            last = is_read.then_some(key.trim());
            if let Some(key) = last {
                values.insert(key, value.trim().to_owned());
            }
        }
        let value =
            |key: &str| values.get(key).or_else(|| values.get(key.replace('-', "_").as_str()));
        self.default = value("index-url").and_then(|text| address(text)).or(self.default.take());
        let extra = value("extra-index-url").map(String::as_str).unwrap_or_default();
        self.extra.extend(extra.split_whitespace().filter_map(address));
    }

    fn add_uv(&mut self, text: &str) {
        let Ok(table) = text.parse::<Table>() else { return };
        let pip = table.get("pip").and_then(Value::as_table);
        for table in pip.into_iter().chain([&table]) {
            let url = |key: &str| table.get(key).and_then(Value::as_str).and_then(address);
            self.default = url("index-url").or(self.default.take());
            let extra = table.get("extra-index-url").and_then(Value::as_array);
            self.extra
                .extend(extra.into_iter().flatten().filter_map(Value::as_str).filter_map(address));
        }
        let named = table.get("index").and_then(Value::as_array).into_iter().flatten();
        for index in named.filter_map(Value::as_table) {
            let Some(url) = index.get("url").and_then(Value::as_str).and_then(address) else {
                continue;
            };
            match index.get("default").and_then(Value::as_bool) {
                Some(true) => self.default = Some(url),
                _ => self.extra.push(url),
            }
        }
    }
}

/// uv lets an index have a name in front: `NAME=URL`.
fn unnamed(text: &str) -> &str {
    match text.split_once('=') {
        Some((name, url)) if !name.contains([':', '/']) => url,
        _ => text,
    }
}

fn address(text: &str) -> Option<Url> {
    let text = text.trim().trim_matches(['"', '\'']);
    let text = format!("{}/", text.trim_end_matches('/'));
    Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "file"))
}

/// The table `[tool.uv]` of a pyproject.toml, as the text of a uv.toml.
pub(in crate::recipe::language) fn of_project(pyproject: &str) -> Option<String> {
    let table: Table = pyproject.parse().ok()?;
    let uv = table.get("tool")?.get("uv")?.as_table()?;
    let mut kept = Table::new();
    for key in ["index", "index-url", "extra-index-url", "pip"] {
        if let Some(value) = uv.get(key) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    Some(kept.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pip: &[&str], uv: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let texts = Texts { pip: owned(pip), uv: owned(uv) };
        let environment = |name: &str| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Indexes::read(&texts, &environment).all().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn later_levels_win_and_further_indexes_follow() {
        let global =
            "[global]\nindex-url = https://g.example.com/simple\n[freeze]\nindex-url = x\n";
        let user = "[install]\nextra-index-url =\n    https://a.example.com/s\n    https://b.example.com/s/\n\
                    [global]\nindex_url: https://u.example.com/simple/\n";
        let further = ["https://a.example.com/s/", "https://b.example.com/s/"];
        let with = |first: &'static str| [&[first], &further[..]].concat();
        assert_eq!(read(&[global], &[], &[]), ["https://g.example.com/simple/"]);
        assert_eq!(read(&[global, user], &[], &[]), with("https://u.example.com/simple/"));
        let uv = "index-url = \"https://v.example.com/simple\"";
        assert_eq!(read(&[global, user], &[uv], &[]), with("https://v.example.com/simple/"));
        let named = "[[index]]\nname = \"x\"\nurl = \"https://n.example.com/\"\ndefault = true\n\
                     [[index]]\nurl = \"https://m.example.com/\"\n";
        assert_eq!(
            read(&[global], &[named], &[]),
            ["https://n.example.com/", "https://m.example.com/"]
        );
        let variables = [
            ("PIP_INDEX_URL", "https://p.example.com"),
            ("UV_DEFAULT_INDEX", "ours=https://d.example.com/x?a=b"),
            ("UV_INDEX", "https://e.example.com f=https://f.example.com"),
        ];
        let all = read(&[global], &[uv], &variables);
        assert!(all[0].starts_with("https://d.example.com/x"), "{all:?}");
        assert_eq!(all[1..], ["https://e.example.com/", "https://f.example.com/"]);
    }

    #[test]
    fn a_projects_own_indexes_are_read() {
        let project = "[project]\nname = 'x'\n[tool.uv]\ndev-dependencies = []\n\
                       [[tool.uv.index]]\nurl = 'https://p.example.com/'\n";
        let uv = of_project(project).unwrap();
        assert_eq!(read(&[], &[&uv], &[]), ["https://p.example.com/"]);
        assert_eq!(of_project("[tool]"), None);
        assert_eq!(of_project("nonsense"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\[global\\]|index-url|[=: \n#a-zé'\"\\[\\]])*") {
            let _ = read(&[&text], &[&text], &[("PIP_INDEX_URL", &text), ("UV_INDEX", &text)]);
            let _ = of_project(&text);
        }
    }
}
