//! The table of state, secrets and leftovers that package configuration makes and no image keeps.

use drystone_store::digest::FileHash;
use drystone_store::tree::{Entry, Kind};
use serde::Deserialize;

/// The table as it is shipped.
const TABLE: &str = include_str!("../../data/state.toml");

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRule {
    /// A pattern of paths without leading slash: `*` stands for any part of one name, `**` as a
    /// whole component for any number of components.
    pub path: String,
    /// Why no image keeps it.
    pub reason: String,
    /// What the operator must do at first run, if anything.
    #[serde(default)]
    pub first_run: Option<String>,
    /// Only files and links go; directories stay, since programs expect them.
    #[serde(default)]
    pub keep_directories: bool,
    /// The file stays, without its content.
    #[serde(default)]
    pub empty: bool,
    /// Only files that hold a secret go, which stands after this text up to the end of its quotes or
    /// line; and so does every other file that holds the same secret.
    #[serde(default)]
    pub secret: Option<String>,
    /// What lies below a path that matches goes too; the shipped table spells that out.
    #[serde(skip)]
    pub with_all_below: bool,
}

impl StateRule {
    fn applies_to(&self, parts: &[&str]) -> bool {
        let pattern: Vec<&str> = self.path.split('/').collect();
        match self.with_all_below {
            true => (1..=parts.len()).any(|count| matches_path(&pattern, &parts[..count])),
            false => matches_path(&pattern, parts),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    remove: Vec<StateRule>,
}

/// Rules, the shipped ones first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTable {
    rules: Vec<StateRule>,
}

impl StateTable {
    /// The shipped table, with more rules from image.toml.
    pub fn with_rules(more: impl IntoIterator<Item = StateRule>) -> Self {
        let table: Table =
            toml::from_str(TABLE).expect("the shipped table is valid (a test reads it)");
        Self { rules: table.remove.into_iter().chain(more).collect() }
    }

    /// The numbers of the rules whose pattern an entry matches, the first that decides first.
    pub fn matching(&self, entry: &Entry) -> impl Iterator<Item = usize> {
        let parts: Vec<&str> = entry.path.components().collect();
        let is_directory = entry.kind == Kind::Directory;
        self.rules.iter().enumerate().filter_map(move |(number, rule)| {
            let is_spared = rule.keep_directories && is_directory;
            (rule.applies_to(&parts) && !is_spared).then_some(number)
        })
    }

    /// A rule by its number.
    pub fn rule(&self, number: usize) -> &StateRule {
        &self.rules[number]
    }

    /// The table's digest, for derivations.
    pub fn digest(&self) -> String {
        let text: String = self
            .rules
            .iter()
            .map(|rule| {
                let below = if rule.with_all_below { " below" } else { "" };
                let secret = rule.secret.as_ref().map(|mark| format!(" secret {mark}"));
                let secret = secret.unwrap_or_default();
                format!("{} {} {}{below}{secret}\n", rule.path, rule.keep_directories, rule.empty)
            })
            .collect();
        FileHash::of(text.as_bytes()).to_string()
    }
}

fn matches_path(pattern: &[&str], parts: &[&str]) -> bool {
    match (pattern, parts) {
        ([], []) => true,
        (["**"], parts) => !parts.is_empty(),
        (["**", rest @ ..], parts) => {
            (0..=parts.len()).any(|skip| matches_path(rest, &parts[skip..]))
        }
        ([first, pattern @ ..], [part, parts @ ..]) => {
            matches_name(first.as_bytes(), part.as_bytes()) && matches_path(pattern, parts)
        }
        _ => false,
    }
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', pattern @ ..], _) => {
            (0..=name.len()).any(|skip| matches_name(pattern, &name[skip..]))
        }
        ([first, pattern @ ..], [byte, name @ ..]) => first == byte && matches_name(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_is_valid_and_says_why() {
        let table = StateTable::with_rules([]);
        assert!(table.rules.iter().all(|rule| !rule.reason.is_empty()));
        let path = |text: &str| drystone_store::tree::TreePath::new(text).unwrap();
        let hit = |text: &str| table.matching(&Entry::file(path(text), 0o644, 1)).next().is_some();
        assert!(table.matching(&Entry::directory(path("run/php"))).next().is_none());
        assert!(hit("run/php/pid"));
        assert!(hit("etc/ssh/ssh_host_rsa_key.pub"));
        assert!(hit("var/lib/postgresql/15/main/base/1/112"));
        assert!(!hit("var/lib/postgresql"));
        assert!(!hit("etc/ssh/sshd_config"));
    }

    #[test]
    fn a_rule_of_image_toml_takes_all_below_with_it() {
        let rule = StateRule {
            path: "var/lib/thing*".to_owned(),
            reason: "made anew".to_owned(),
            first_run: None,
            keep_directories: false,
            empty: false,
            secret: None,
            with_all_below: true,
        };
        let table = StateTable::with_rules([rule]);
        let path = |text: &str| drystone_store::tree::TreePath::new(text).unwrap();
        let hit = |text: &str| table.matching(&Entry::file(path(text), 0o644, 1)).next().is_some();
        assert!(hit("var/lib/thing") && hit("var/lib/thing-2/a/b"));
        assert!(!hit("var/lib/other/thing") && !hit("var/lib"));
        assert_ne!(table.digest(), StateTable::with_rules([]).digest());
    }

    #[test]
    fn patterns_match_components() {
        let case = |pattern: &str, path: &str| {
            let pattern: Vec<&str> = pattern.split('/').collect();
            let path: Vec<&str> = path.split('/').collect();
            matches_path(&pattern, &path)
        };
        assert!(case("a/*/c", "a/bb/c") && !case("a/*/c", "a/b/b/c"));
        assert!(case("a/**", "a/b/c") && !case("a/**", "a"));
        assert!(case("a/**/z", "a/z") && case("a/**/z", "a/b/c/z"));
        assert!(case("*.log", "x.log") && !case("*.log", "x.logs"));
    }
}
