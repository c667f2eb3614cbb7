//! Leaving state and secrets out of what configuration changed, with all that tells of them.

use std::collections::HashMap;

use drystone_store::tree::{Entry, Kind, SpoolError, TreePath, TreeSpool};
use memchr::memmem;

use super::state::StateTable;

/// Where ucf, which looks after configuration files that scripts write, keeps its database.
const UCF: &str = "var/lib/ucf/";
/// The largest file in which secrets are looked for, in bytes.
const MAX_SEARCHED: u64 = 1 << 20;

/// Removes what the table's rules name, and returns the paths with the rule that removed each.
///
/// What only speaks of a removed file goes with it: files that hold the same secret, links that only
/// name it, and what ucf knows of it.
pub fn leave_out(
    spool: &mut TreeSpool,
    table: &StateTable,
) -> Result<Vec<(TreePath, usize)>, SpoolError> {
    let mut leaving = Leaving { spool, removed: Vec::new() };
    let secrets = leaving.remove_by_rules(table)?;
    leaving.remove_holders(&secrets)?;
    leaving.remove_links();
    leaving.forget_in_ucf()?;
    Ok(leaving.removed)
}

struct Leaving<'a> {
    spool: &'a mut TreeSpool,
    removed: Vec<(TreePath, usize)>,
}

impl Leaving<'_> {
    /// Applies each rule; the secrets that removed files held, each with its rule.
    fn remove_by_rules(&mut self, table: &StateTable) -> Result<Vec<(Vec<u8>, usize)>, SpoolError> {
        let mut secrets = Vec::new();
        for entry in self.entries(|entry| entry.kind != Kind::Deletion) {
            let Some(rule) = self.deciding_rule(table, &entry, &mut secrets)? else { continue };
            if table.rule(rule).empty {
                let empty = Entry::file(entry.path.clone(), 0o644, 0);
                self.spool.replace(empty, &mut std::io::empty())?;
                self.removed.push((entry.path, rule));
            } else {
                self.remove(entry.path, rule);
            }
        }
        Ok(secrets)
    }

    /// The rule that an entry goes by, if any; secrets that it names are added to `found`.
    fn deciding_rule(
        &mut self,
        table: &StateTable,
        entry: &Entry,
        found: &mut Vec<(Vec<u8>, usize)>,
    ) -> Result<Option<usize>, SpoolError> {
        for number in table.matching(entry) {
            let Some(mark) = &table.rule(number).secret else { return Ok(Some(number)) };
            let content = self.spool.content(&entry.path)?.unwrap_or_default();
            let secrets = secrets(&content, mark.as_bytes());
            if !secrets.is_empty() {
                found.extend(secrets.into_iter().map(|secret| (secret, number)));
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Files that hold a secret of a removed file: the configuration of the program that is to use it.
    fn remove_holders(&mut self, secrets: &[(Vec<u8>, usize)]) -> Result<(), SpoolError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let is_searched =
            |entry: &Entry| matches!(entry.kind, Kind::File { size } if size <= MAX_SEARCHED);
        for entry in self.entries(is_searched) {
            let Some(content) = self.spool.content(&entry.path)? else { continue };
            let held = secrets.iter().find(|(it, _)| memmem::find(&content, it).is_some());
            if let Some((_, rule)) = held {
                self.remove(entry.path, *rule);
            }
        }
        Ok(())
    }

    /// Links beside a removed file that only name it (hashes of certificates).
    fn remove_links(&mut self) {
        let gone: HashMap<TreePath, usize> = self.removed.iter().cloned().collect();
        let rule = |entry: &Entry| match &entry.kind {
            Kind::Symlink { target } if !target.contains('/') => {
                gone.get(&entry.path.with_name(target).ok()?).copied()
            }
            _ => None,
        };
        let dangling: Vec<(TreePath, usize)> = self
            .spool
            .entries()
            .filter_map(|entry| Some((entry.path.clone(), rule(entry)?)))
            .collect();
        for (path, rule) in dangling {
            self.remove(path, rule);
        }
    }

    /// ucf keeps the digest, the package and for merging a copy of each file that it was given. Of
    /// a removed file they would tell, or hold, what the image must not have.
    fn forget_in_ucf(&mut self) -> Result<(), SpoolError> {
        let gone: HashMap<String, usize> =
            self.removed.iter().map(|(path, rule)| (format!("/{path}"), *rule)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let is_of_ucf = |entry: &Entry| {
            matches!(entry.kind, Kind::File { .. }) && entry.path.as_str().starts_with(UCF)
        };
        for entry in self.entries(is_of_ucf) {
            let name = &entry.path.as_str()[UCF.len()..];
            if let Some(copy) = name.strip_prefix("cache/") {
                if let Some(rule) = gone.get(&copy.replace(':', "/")) {
                    self.remove(entry.path, *rule);
                }
                continue;
            }
            // Lines of `hashfile`, `registry` and their older versions end with a path.
            let Some(before) = self.spool.content(&entry.path)? else { continue };
            let names_none = |line: &&[u8]| {
                let path = line.trim_ascii_end().rsplit(u8::is_ascii_whitespace).next();
                let path = path.and_then(|path| std::str::from_utf8(path).ok());
                path.is_none_or(|path| !gone.contains_key(path))
            };
            let after = before.split_inclusive(|&byte| byte == b'\n').filter(names_none);
            let after = after.collect::<Vec<_>>().concat();
            if after.len() < before.len() {
                let size = after.len() as u64;
                let entry = Entry { kind: Kind::File { size }, ..entry };
                self.spool.replace(entry, &mut after.as_slice())?;
            }
        }
        Ok(())
    }

    fn entries(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.spool.entries().filter(|entry| wanted(entry)).cloned().collect()
    }

    fn remove(&mut self, path: TreePath, rule: usize) {
        self.spool.remove(&path);
        self.removed.push((path, rule));
    }
}

/// What stands after a mark, up to the end of its quotes or line; what is too short to be a secret,
/// and would be found everywhere, is none.
fn secrets(content: &[u8], mark: &[u8]) -> Vec<Vec<u8>> {
    const SHORTEST: usize = 6;
    let values = memmem::find_iter(content, mark).map(|at| {
        let rest = &content[at + mark.len()..];
        let end = rest.iter().position(|byte| b"'\"\n".contains(byte)).unwrap_or(rest.len());
        &rest[..end]
    });
    values.filter(|value| value.len() >= SHORTEST).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn spool_of(files: &[(&str, &str)]) -> TreeSpool {
        let mut spool = TreeSpool::new(&std::env::temp_dir());
        for (name, content) in files {
            spool.add_file(path(name), 0o644, content.as_bytes()).unwrap();
        }
        spool
    }

    fn left(spool: &TreeSpool) -> Vec<&str> {
        spool.entries().map(|entry| entry.path.as_str()).collect()
    }

    #[test]
    fn a_password_is_followed_to_the_files_that_hold_it() {
        let mut spool = spool_of(&[
            ("etc/dbconfig-common/app.conf", "dbc_dbuser='app'\ndbc_dbpass='Xu4mLwq1'\n"),
            ("etc/dbconfig-common/file.conf", "dbc_dbtype='sqlite3'\ndbc_dbpass=''\n"),
            ("etc/app/database.php", "<?php $password = \"Xu4mLwq1\";\n"),
            ("etc/app/usual.php", "<?php\n"),
        ]);
        let removed = leave_out(&mut spool, &StateTable::with_rules([])).unwrap();
        assert_eq!(left(&spool), ["etc/app/usual.php", "etc/dbconfig-common/file.conf"]);
        let rules: Vec<usize> = removed.iter().map(|(_, rule)| *rule).collect();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0], rules[1], "both for one reason");
    }

    #[test]
    fn ucf_forgets_what_goes_and_keeps_the_rest() {
        let mut spool = spool_of(&[
            ("etc/varnish/secret", "x"),
            ("var/lib/ucf/cache/:etc:varnish:secret", "x"),
            ("var/lib/ucf/cache/:etc:varnish:other", "y"),
            ("var/lib/ucf/hashfile", "0123  /etc/varnish/other\n4567  /etc/varnish/secret\n"),
            ("var/lib/ucf/hashfile.0", "4567  /etc/varnish/secret\n"),
            ("var/lib/ucf/registry", "varnish     \t /etc/varnish/secret\n"),
        ]);
        leave_out(&mut spool, &StateTable::with_rules([])).unwrap();
        let expected = [
            "var/lib/ucf/cache/:etc:varnish:other",
            "var/lib/ucf/hashfile",
            "var/lib/ucf/hashfile.0",
            "var/lib/ucf/registry",
        ];
        assert_eq!(left(&spool), expected);
        let mut text =
            |name: &str| String::from_utf8(spool.content(&path(name)).unwrap().unwrap()).unwrap();
        assert_eq!(text("var/lib/ucf/hashfile"), "0123  /etc/varnish/other\n");
        assert_eq!(text("var/lib/ucf/hashfile.0") + &text("var/lib/ucf/registry"), "");
    }

    #[test]
    fn links_to_what_goes_go_too() {
        let mut spool = spool_of(&[("etc/ssl/certs/ssl-cert-snakeoil.pem", "x")]);
        let link = |name: &str, target: &str| Entry::symlink(path(name), target.to_owned());
        spool.add_empty(link("etc/ssl/certs/1234.0", "ssl-cert-snakeoil.pem")).unwrap();
        spool.add_empty(link("etc/ssl/certs/5678.0", "other.pem")).unwrap();
        leave_out(&mut spool, &StateTable::with_rules([])).unwrap();
        assert_eq!(left(&spool), ["etc/ssl/certs/5678.0"]);
    }

    #[test]
    fn short_values_are_no_secrets() {
        assert!(secrets(b"pass='root'\npass=''\npass", b"pass='").is_empty());
        assert_eq!(secrets(b"pass='long enough", b"pass='"), [b"long enough"]);
    }
}
