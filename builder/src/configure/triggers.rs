//! dpkg triggers (deb-triggers(5), and triggers.txt of dpkg's documentation) as far as a first
//! installation needs them.
//!
//! A trigger that is activated for a package that is not configured yet is void, because its
//! configuration will do the same work; for a configured one it is pending until dpkg comes to it.
//! Meanwhile the package that activated it may have to wait, and does not satisfy dependencies.

use std::collections::{BTreeMap, BTreeSet};

use super::Package;

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
        /// A name, or a path for a file trigger.
        trigger: String,
        /// Whether the package waits until the trigger is processed.
        awaited: bool,
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
                "activate" | "activate-await" => {
                    Some(Directive::Activate { trigger, awaited: true })
                }
                "activate-noawait" => Some(Directive::Activate { trigger, awaited: false }),
                _ => None,
            }
        })
        .collect()
}

/// Which packages are configured, who is interested in what, what is pending and who waits for it.
/// Packages go by the names that dpkg's database has for them.
#[derive(Debug, Clone, Default)]
pub struct Triggers {
    configured: BTreeSet<String>,
    /// Trigger, interested package and whether it is awaited, in the order of unpacking, which is
    /// the order of dpkg's files.
    interests: Vec<(String, String, bool)>,
    /// Packages in the order of their first activation, with their triggers, the latest first.
    pending: Vec<(String, Vec<String>)>,
    /// Package -> those whose pending triggers it waits for.
    awaited: BTreeMap<String, Vec<String>>,
}

impl Triggers {
    /// Records a package's interests.
    pub fn add_interests(&mut self, package: &Package) {
        let name = package.info_name();
        for directive in &package.directives {
            if let Directive::Interest { trigger, awaited } = directive {
                self.interests.retain(|(known, other, _)| known != trigger || *other != name);
                self.interests.push((trigger.clone(), name.clone(), *awaited));
            }
        }
    }

    /// Records that a package is configured.
    pub fn set_configured(&mut self, package: &str) {
        self.configured.insert(package.to_owned());
    }

    /// Whether a package is configured.
    pub fn is_configured(&self, package: &str) -> bool {
        self.configured.contains(package)
    }

    /// Whether a package is configured, and waits for no other's triggers.
    pub fn is_ready(&self, package: &str) -> bool {
        self.configured.contains(package) && !self.awaited.contains_key(package)
    }

    /// Activates a trigger by name or path; `awaiter` waits for it, if the interest is of a kind
    /// that is waited for.
    pub fn activate(&mut self, trigger: &str, awaiter: Option<&str>) {
        for (name, package, awaited) in &self.interests {
            let is_meant = name == trigger || is_below(trigger, name);
            if !is_meant || !self.configured.contains(package) {
                continue;
            }
            let at = self.pending.iter().position(|(other, _)| other == package);
            let at = at.unwrap_or_else(|| {
                self.pending.push((package.clone(), Vec::new()));
                self.pending.len() - 1
            });
            if !self.pending[at].1.contains(name) {
                self.pending[at].1.insert(0, name.clone());
            }
            if let Some(awaiter) = awaiter.filter(|_| *awaited) {
                add(self.awaited.entry(awaiter.to_owned()).or_default(), package);
            }
        }
    }

    /// Activates what a package's own `triggers` file says; dpkg does when it unpacks the package
    /// and again before it runs the `postinst`.
    pub fn activate_own(&mut self, package: &Package) {
        let name = package.info_name();
        for directive in &package.directives {
            if let Directive::Activate { trigger, awaited } = directive {
                self.activate(trigger, awaited.then_some(&name));
            }
        }
    }

    /// Activates triggers of paths: a package's files when they are unpacked, its configuration
    /// files when they get their names.
    pub fn activate_paths<'p>(
        &mut self,
        package: &Package,
        paths: impl IntoIterator<Item = &'p str>,
    ) {
        if self.interests.iter().any(|(name, _, _)| name.starts_with('/')) {
            let name = package.info_name();
            paths.into_iter().for_each(|path| self.activate(path, Some(&name)));
        }
    }

    /// Activates what `dpkg-trigger` left in `Unincorp`: `TRIGGER PACKAGE...` lines, where the
    /// packages wait (`-` for none). `name_of` knows the name for one that is written `NAME:ARCH`.
    pub fn incorporate(&mut self, unincorp: &str, name_of: &dyn Fn(&str) -> Option<String>) {
        for line in unincorp.lines() {
            let mut words = line.split_whitespace();
            let Some(trigger) = words.next() else { continue };
            self.activate(trigger, None);
            for awaiter in words.filter_map(name_of) {
                self.activate(trigger, Some(&awaiter));
            }
        }
    }

    /// Another dpkg goes on: it reads what is pending from its database, and so in the other order.
    pub fn start_dpkg(&mut self) {
        for (_, triggers) in &mut self.pending {
            triggers.reverse();
        }
    }

    /// The package whose triggers are pending longest.
    pub fn longest_pending(&self) -> Option<&str> {
        self.pending.first().map(|(package, _)| package.as_str())
    }

    /// The triggers that a package has to process.
    pub fn pending(&self, package: &str) -> &[String] {
        let pending = self.pending.iter().find(|(other, _)| other == package);
        pending.map_or(&[], |(_, triggers)| triggers)
    }

    /// The packages whose triggers a package waits for.
    pub fn awaited(&self, package: &str) -> &[String] {
        self.awaited.get(package).map_or(&[], Vec::as_slice)
    }

    /// Takes a package's pending triggers, to be processed now: nobody waits for it any longer.
    pub fn take_pending(&mut self, package: &str) -> Vec<String> {
        for awaited in self.awaited.values_mut() {
            awaited.retain(|other| other != package);
        }
        self.awaited.retain(|_, awaited| !awaited.is_empty());
        let at = self.pending.iter().position(|(other, _)| other == package);
        at.map(|at| self.pending.remove(at).1).unwrap_or_default()
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
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// Whether a path is, or lies below, a directory that a file trigger names.
fn is_below(path: &str, directory: &str) -> bool {
    directory.starts_with('/')
        && path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::package::tests::package;
    use super::*;

    fn triggering(name: &str, triggers: &str) -> Package {
        Package { directives: parse_directives(triggers), ..package(name, "", true) }
    }

    #[test]
    fn only_configured_packages_have_pending_triggers() {
        let mut triggers = Triggers::default();
        triggers.add_interests(&triggering(
            "libc-bin",
            "interest-await ldconfig\ninterest ldconfig-again\n",
        ));
        triggers.add_interests(&triggering("man-db", "interest-noawait /usr/share/man\n"));
        triggers.activate("ldconfig", None);
        assert_eq!(triggers.longest_pending(), None);
        triggers.set_configured("libc-bin");
        triggers.set_configured("man-db");
        let nginx = package("nginx", "", true);
        triggers.activate_paths(&nginx, ["/usr/share/man/man1/x.1.gz", "/usr/share/manual"]);
        triggers.incorporate("ldconfig -\n", &|_| None);
        assert_eq!(triggers.longest_pending(), Some("man-db"));
        assert_eq!(triggers.take_pending("man-db"), ["/usr/share/man"]);
        assert_eq!(triggers.longest_pending(), Some("libc-bin"));
        triggers.activate("ldconfig-again", None);
        assert_eq!(triggers.pending("libc-bin"), ["ldconfig-again", "ldconfig"], "latest first");
        triggers.start_dpkg();
        assert_eq!(triggers.take_pending("libc-bin"), ["ldconfig", "ldconfig-again"]);
        assert_eq!(triggers.longest_pending(), None);
        let files = triggers.files();
        assert_eq!(files["File"], "/usr/share/man man-db/noawait\n");
        assert_eq!(files["ldconfig"], "libc-bin\n");
    }

    #[test]
    fn who_activates_waits_if_both_sides_want_it() {
        let mut triggers = Triggers::default();
        let user = triggering("user", "activate fonts\nactivate-noawait ldconfig\n");
        triggers.add_interests(&triggering("libc-bin", "interest ldconfig\n"));
        triggers.add_interests(&triggering("fontconfig", "interest fonts\n"));
        triggers.add_interests(&triggering("man-db", "interest-noawait fonts\n"));
        for name in ["libc-bin", "fontconfig", "man-db", "user"] {
            triggers.set_configured(name);
        }
        triggers.activate_own(&user);
        assert_eq!(triggers.awaited("user"), ["fontconfig"]);
        assert!(!triggers.is_ready("user"));
        assert!(triggers.is_ready("fontconfig"), "pending triggers keep no one from depending");
        triggers.take_pending("fontconfig");
        assert!(triggers.is_ready("user"));
        let without = |name: &str| name.strip_suffix(":amd64").map(str::to_owned);
        triggers.incorporate("ldconfig - user:amd64\n", &without);
        assert_eq!(triggers.awaited("user"), ["libc-bin"]);
    }

    #[test]
    fn comments_and_unknown_words_are_skipped() {
        let text = "# made by dh\nactivate-noawait ldconfig # x\n\nfoo bar\ninterest /a\n";
        assert_eq!(
            parse_directives(text),
            [
                Directive::Activate { trigger: "ldconfig".into(), awaited: false },
                Directive::Interest { trigger: "/a".into(), awaited: true }
            ]
        );
    }
}
