//! Alternatives in images without the Essential set: `update-alternatives` decided among all that
//! was configured, so the choice is made again among what is in the image.
//!
//! Format of `/var/lib/dpkg/alternatives/NAME` (dpkg, `utils/update-alternatives.c`): status, link,
//! pairs of slave name and link, an empty line; then for each choice its path, its priority and a
//! path for each slave, which may be empty; an empty line ends the file.

/// One link group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The group's name.
    pub name: String,
    /// The link that programs use.
    pub link: String,
    /// Slaves: name and link.
    pub slaves: Vec<(String, String)>,
    /// Choices.
    pub choices: Vec<Choice>,
}

/// One choice of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What the link leads to.
    pub path: String,
    /// The highest wins.
    pub priority: i64,
    /// Paths for the slaves, in their order; empty for none.
    pub slaves: Vec<String>,
}

impl Alternative {
    /// Reads a group's file; `None` for one that `update-alternatives` would not have written.
    pub fn parse(name: &str, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next()?;
        let link = lines.next()?.to_owned();
        let mut slaves = Vec::new();
        loop {
            match lines.next()? {
                "" => break,
                slave => slaves.push((slave.to_owned(), lines.next()?.to_owned())),
            }
        }
        let mut choices = Vec::new();
        while let Some(path) = lines.next().filter(|path| !path.is_empty()) {
            let priority = lines.next()?.trim().parse().ok()?;
            let slaves = slaves.iter().map(|_| lines.next().map(str::to_owned));
            choices.push(Choice {
                path: path.to_owned(),
                priority,
                slaves: slaves.collect::<Option<_>>()?,
            });
        }
        Some(Self { name: name.to_owned(), link, slaves, choices })
    }

    /// The links (path and target) for the best choice that exists.
    pub fn links(&self, exists: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
        let best = self
            .choices
            .iter()
            .filter(|choice| exists(&choice.path))
            // The first of equals wins, as update-alternatives keeps the current one.
            .reduce(|best, next| if next.priority > best.priority { next } else { best });
        let Some(best) = best else { return Vec::new() };
        let mut links = Vec::new();
        let mut add = |name: &str, link: &str, target: &str| {
            let middle = format!("/etc/alternatives/{name}");
            links.push((link.to_owned(), middle.clone()));
            links.push((middle, target.to_owned()));
        };
        add(&self.name, &self.link, &best.path);
        for ((name, link), target) in self.slaves.iter().zip(&best.slaves) {
            if !target.is_empty() && exists(target) {
                add(name, link, target);
            }
        }
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWK: &str = "auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\n\n\
        /usr/bin/mawk\n5\n/usr/share/man/man1/mawk.1.gz\n\
        /usr/bin/original-awk\n0\n\n\n";

    #[test]
    fn the_best_choice_that_exists_wins() {
        let awk = Alternative::parse("awk", AWK).unwrap();
        assert_eq!(awk.choices.len(), 2);
        let links = awk.links(&|path| path == "/usr/bin/original-awk");
        assert_eq!(
            links,
            [
                ("/usr/bin/awk".into(), "/etc/alternatives/awk".into()),
                ("/etc/alternatives/awk".into(), "/usr/bin/original-awk".into())
            ]
        );
        assert_eq!(awk.links(&|_| true).len(), 4);
        assert_eq!(awk.links(&|_| true)[1].1, "/usr/bin/mawk");
        assert!(awk.links(&|_| false).is_empty());
    }

    #[test]
    fn cut_off_files_are_refused() {
        assert_eq!(Alternative::parse("awk", "auto\n/usr/bin/awk\n"), None);
        assert_eq!(Alternative::parse("awk", "auto\n/usr/bin/awk\n\n/usr/bin/mawk\nx\n"), None);
    }
}
