//! dpkg triggers (deb-triggers(5)) as far as a first installation needs them.
//!
//! A trigger that is activated for a package that is not configured yet is void, because its
//! configuration will do the same work; for a configured one it is pending until the end.

use std::collections::BTreeMap;

/// One line of a package's `triggers` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// The package wants to know when the trigger is activated.
    Interest {
        /// A name, or a path for a file trigger.
        trigger: String,
        /// Whether packages that activate it wait.
        awaited: bool,
    },
    /// The package's unpacking and configuration activate the trigger.
    Activate {
        /// The name.
        trigger: String,
    },
}

/// Reads a `triggers` file.
pub fn parse_directives(text: &str) -> Vec<Directive> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (word, trigger) = line.split_once(char::is_whitespace)?;
            let trigger = trigger.trim().to_owned();
            match word {
                "interest" | "interest-await" => {
                    Some(Directive::Interest { trigger, awaited: true })
                }
                "interest-noawait" => Some(Directive::Interest { trigger, awaited: false }),
                "activate" | "activate-await" | "activate-noawait" => {
                    Some(Directive::Activate { trigger })
                }
                _ => None,
            }
        })
        .collect()
}

/// Who is interested in what, and what is pending.
#[derive(Debug, Clone, Default)]
pub struct Triggers {
    /// Trigger, interested package (dpkg's name for it) and whether it is awaited, in the order
    /// of unpacking, which is the order of dpkg's files.
    interests: Vec<(String, String, bool)>,
    /// Packages in the order of their first activation, with their triggers.
    pending: Vec<(String, Vec<String>)>,
}

impl Triggers {
    /// Records a package's interests, under the name that dpkg's database has for it.
    pub fn add_interests(&mut self, name: &str, directives: &[Directive]) {
        for directive in directives {
            if let Directive::Interest { trigger, awaited } = directive {
                self.interests.retain(|(known, other, _)| known != trigger || other != name);
                self.interests.push((trigger.clone(), name.to_owned(), *awaited));
            }
        }
    }

    /// Activates a trigger by name or path for those who are interested and `ready`.
    pub fn activate(&mut self, trigger: &str, ready: &dyn Fn(&str) -> bool) {
        let interested: Vec<(String, String)> = self
            .interests
            .iter()
            .filter(|(name, _, _)| name == trigger || is_below(trigger, name))
            .map(|(name, package, _)| (package.clone(), name.clone()))
            .filter(|(package, _)| ready(package))
            .collect();
        for (package, name) in interested {
            let at = match self.pending.iter().position(|(other, _)| *other == package) {
                Some(at) => at,
                None => {
                    self.pending.push((package, Vec::new()));
                    self.pending.len() - 1
                }
            };
            let names = &mut self.pending[at].1;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }

    /// Whether any package is interested in paths.
    pub fn has_file_interests(&self) -> bool {
        self.interests.iter().any(|(name, _, _)| name.starts_with('/'))
    }

    /// The next package whose triggers are to be processed, with their names.
    pub fn take_pending(&mut self) -> Option<(String, Vec<String>)> {
        (!self.pending.is_empty()).then(|| self.pending.remove(0))
    }

    /// The files of `/var/lib/dpkg/triggers`, by name.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::from([
            ("File".to_owned(), String::new()),
            ("Unincorp".to_owned(), String::new()),
            ("Lock".to_owned(), String::new()),
        ]);
        let mark = |awaited: bool| if awaited { "" } else { "/noawait" };
        for (trigger, package, awaited) in &self.interests {
            let mark = mark(*awaited);
            if trigger.starts_with('/') {
                let text = files.entry("File".to_owned()).or_default();
                text.push_str(&format!("{trigger} {package}{mark}\n"));
            } else {
                let text = files.entry(trigger.clone()).or_default();
                text.push_str(&format!("{package}{mark}\n"));
            }
        }
        files
    }

    /// Reads what `dpkg-trigger` left in `Unincorp`: `TRIGGER PACKAGE...` lines.
    pub fn incorporate(&mut self, unincorp: &str, ready: &dyn Fn(&str) -> bool) {
        for line in unincorp.lines() {
            if let Some(trigger) = line.split_whitespace().next() {
                self.activate(trigger, ready);
            }
        }
    }
}

/// Whether a path is, or lies below, a directory that a file trigger names.
fn is_below(path: &str, directory: &str) -> bool {
    directory.starts_with('/')
        && path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_packages_have_pending_triggers() {
        let mut triggers = Triggers::default();
        triggers.add_interests("libc-bin", &parse_directives("interest-await ldconfig\n"));
        triggers.add_interests("man-db", &parse_directives("interest-noawait /usr/share/man\n"));
        triggers.activate("ldconfig", &|_| false);
        assert_eq!(triggers.take_pending(), None);
        triggers.activate("/usr/share/man/man1/x.1.gz", &|_| true);
        triggers.activate("/usr/share/manual", &|_| true);
        triggers.incorporate("ldconfig nginx\nldconfig -\n", &|_| true);
        let man = ("man-db".to_owned(), vec!["/usr/share/man".to_owned()]);
        assert_eq!(triggers.take_pending(), Some(man));
        assert_eq!(triggers.take_pending(), Some(("libc-bin".into(), vec!["ldconfig".into()])));
        assert_eq!(triggers.take_pending(), None);
        let files = triggers.files();
        assert_eq!(files["File"], "/usr/share/man man-db/noawait\n");
        assert_eq!(files["ldconfig"], "libc-bin\n");
    }

    #[test]
    fn comments_and_unknown_words_are_skipped() {
        let text = "# made by dh\nactivate-noawait ldconfig # x\n\nfoo bar\ninterest /a\n";
        assert_eq!(
            parse_directives(text),
            [
                Directive::Activate { trigger: "ldconfig".into() },
                Directive::Interest { trigger: "/a".into(), awaited: true }
            ]
        );
    }
}
