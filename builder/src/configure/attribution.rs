//! Which package made which change.
//!
//! An image without the Essential set takes its own packages' share of what configuration did, so
//! every change is recorded with the packages whose scripts made it; changed lines of account
//! files are recorded apart, since several packages share those files.

use std::collections::{BTreeMap, BTreeSet};

use drystone_store::tree::TreePath;
use serde::{Deserialize, Serialize};

/// The account files, in the order of [`AccountLines`]' fields.
pub const ACCOUNT_FILES: [&str; 4] = ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];

/// Lines that a package's scripts added to or changed in the account files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountLines {
    /// Lines of `/etc/passwd`.
    pub passwd: Vec<String>,
    /// Lines of `/etc/group`.
    pub group: Vec<String>,
    /// Lines of `/etc/shadow`.
    pub shadow: Vec<String>,
    /// Lines of `/etc/gshadow`.
    pub gshadow: Vec<String>,
}

impl AccountLines {
    /// The lines of the account file with this number.
    pub fn file_mut(&mut self, number: usize) -> &mut Vec<String> {
        match number {
            0 => &mut self.passwd,
            1 => &mut self.group,
            2 => &mut self.shadow,
            _ => &mut self.gshadow,
        }
    }

    /// The lines of the account file with this number.
    pub fn file(&self, number: usize) -> &[String] {
        match number {
            0 => &self.passwd,
            1 => &self.group,
            2 => &self.shadow,
            _ => &self.gshadow,
        }
    }
}

/// Who made what, over one stage of configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribution {
    /// Path -> the packages whose scripts touched it.
    pub paths: BTreeMap<String, BTreeSet<String>>,
    /// Package -> lines of account files, in the order of configuration.
    pub accounts: Vec<(String, AccountLines)>,
}

impl Attribution {
    /// Records that a package's script touched a path.
    pub fn touch(&mut self, package: &str, path: &TreePath) {
        let packages = self.paths.entry(path.as_str().to_owned()).or_default();
        packages.insert(package.to_owned());
    }

    /// Records the lines that are new or changed in an account file.
    pub fn add_account_lines(&mut self, package: &str, file: usize, before: &str, after: &str) {
        let old: BTreeSet<&str> = before.lines().collect();
        let lines: Vec<String> =
            after.lines().filter(|line| !old.contains(line)).map(str::to_owned).collect();
        if lines.is_empty() {
            return;
        }
        if self.accounts.last().is_none_or(|(last, _)| last != package) {
            self.accounts.push((package.to_owned(), AccountLines::default()));
        }
        if let Some((_, entry)) = self.accounts.last_mut() {
            entry.file_mut(file).extend(lines);
        }
    }

    /// Whether one of these packages touched a path.
    pub fn is_share_of(&self, path: &TreePath, packages: &BTreeSet<&str>) -> bool {
        self.paths
            .get(path.as_str())
            .is_some_and(|makers| makers.iter().any(|maker| packages.contains(maker.as_str())))
    }
}
