//! Versions of Python packages and their order (PEP 440).

use std::cmp::Ordering;

/// A version, without regard to how it was spelt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    epoch: u64,
    release: Vec<u64>,
    pre: Option<(u8, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    local: Vec<Local>,
}

/// A part of what stands behind `+`; numbers come after words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Local {
    Word(String),
    Number(u64),
}

/// Reads pieces of a version from its beginning.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn number(&mut self) -> Option<u64> {
        let end = self.0.find(|it: char| !it.is_ascii_digit()).unwrap_or(self.0.len());
        let number = self.0[..end].parse().ok()?;
        self.0 = &self.0[end..];
        Some(number)
    }

    /// One of some words with its number, which may be absent.
    fn part(&mut self, words: &[&str]) -> Option<(usize, u64)> {
        let before = self.0;
        let _ = self.take(".") || self.take("-") || self.take("_");
        let Some(found) = words.iter().position(|word| self.take(word)) else {
            self.0 = before;
            return None;
        };
        let behind = self.0;
        let _ = self.take(".") || self.take("-") || self.take("_");
        let number = self.number().unwrap_or_else(|| {
            self.0 = behind;
            0
        });
        Some((found, number))
    }
}

impl Version {
    /// Reads a version.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (public, local) = match text.split_once('+') {
            Some((public, local)) => (public, Some(local)),
            None => (text.as_str(), None),
        };
        let public = public.strip_prefix('v').unwrap_or(public);
        let (epoch, rest) = match public.split_once('!') {
            Some((epoch, rest)) => (epoch.parse().ok()?, rest),
            None => (0, public),
        };
        let mut reader = Reader(rest);
        let mut release = vec![reader.number()?];
        while reader.0.starts_with('.') && reader.0[1..].starts_with(|it: char| it.is_ascii_digit())
        {
            reader.take(".");
            release.push(reader.number()?);
        }
        const PRE: [&str; 8] = ["alpha", "beta", "preview", "pre", "rc", "a", "b", "c"];
        let pre = reader.part(&PRE).map(|(word, number)| {
            let kind = match PRE[word] {
                "alpha" | "a" => 0,
                "beta" | "b" => 1,
                _ => 2,
            };
            (kind, number)
        });
        let post = match reader.part(&["post", "rev", "r"]) {
            Some((_, number)) => Some(number),
            // The short form: a dash and a number.
            None if reader.0.starts_with('-') => {
                reader.take("-");
                Some(reader.number()?)
            }
            None => None,
        };
        let dev = reader.part(&["dev"]).map(|(_, number)| number);
        if !reader.0.is_empty() {
            return None;
        }
        let local = local.map(local_parts).unwrap_or(Some(Vec::new()))?;
        Some(Self { epoch, release, pre, post, dev, local })
    }

    /// The first two numbers.
    pub fn major_minor(&self) -> (u64, u64) {
        (self.release[0], self.release.get(1).copied().unwrap_or_default())
    }

    fn significant(&self) -> &[u64] {
        let zeros = self.release.iter().rev().take_while(|it| **it == 0).count();
        &self.release[..self.release.len() - zeros]
    }

    /// Whether it is a version before its release.
    fn is_before_release(&self) -> bool {
        self.pre.is_some() || self.dev.is_some()
    }

    fn public(&self) -> Self {
        Self { local: Vec::new(), ..self.clone() }
    }

    fn base(&self) -> Self {
        Self { pre: None, post: None, dev: None, ..self.public() }
    }

    /// Whether it satisfies one clause such as `>= 3.8`, `== 3.*` or `~= 2.2`; `None` if the clause
    /// is none.
    pub fn satisfies(&self, operator: &str, wanted: &str) -> Option<bool> {
        let wanted = wanted.trim();
        if operator == "===" {
            return Some(Some(self) == Self::new(wanted).as_ref());
        }
        if let Some(prefix) = wanted.strip_suffix(".*") {
            let prefix = Self::new(prefix)?;
            let begins = self.begins_with(&prefix);
            return match operator {
                "==" => Some(begins),
                "!=" => Some(!begins),
                _ => None,
            };
        }
        let wanted = Self::new(wanted)?;
        // A wanted version without a local part means all of them.
        let own = if wanted.local.is_empty() { self.public() } else { self.clone() };
        match operator {
            "==" => Some(own.cmp(&wanted) == Ordering::Equal),
            "!=" => Some(own.cmp(&wanted) != Ordering::Equal),
            "<=" => Some(own <= wanted),
            ">=" => Some(own >= wanted),
            "<" => {
                let is_its_own = self.is_before_release()
                    && !wanted.is_before_release()
                    && self.base().cmp(&wanted.base()) == Ordering::Equal;
                Some(own < wanted && !is_its_own)
            }
            ">" => {
                let is_its_own = self.post.is_some()
                    && wanted.post.is_none()
                    && self.base().cmp(&wanted.base()) == Ordering::Equal;
                Some(self.public() > wanted && !is_its_own)
            }
            "~=" if wanted.release.len() > 1 => {
                let mut prefix = wanted.base();
                prefix.release.pop();
                Some(own >= wanted && self.begins_with(&prefix))
            }
            _ => None,
        }
    }

    fn begins_with(&self, prefix: &Self) -> bool {
        let own = |at: usize| self.release.get(at).copied().unwrap_or_default();
        self.epoch == prefix.epoch
            && prefix.release.iter().enumerate().all(|(at, number)| own(at) == *number)
    }
}

fn local_parts(text: &str) -> Option<Vec<Local>> {
    let parts = text.split(['.', '-', '_']).map(|part| {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain.then(|| match part.parse() {
            Ok(number) => Local::Number(number),
            Err(_) => Local::Word(part.to_owned()),
        })
    });
    parts.collect()
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // `1.0.dev1` comes before `1.0a1`, and that before `1.0`.
        let pre = |it: &Self| match it.pre {
            Some(pre) => (1, pre),
            None if it.post.is_none() && it.dev.is_some() => (0, (0, 0)),
            None => (2, (0, 0)),
        };
        let post = |it: &Self| it.post.map_or((0, 0), |number| (1, number));
        let dev = |it: &Self| it.dev.map_or((1, 0), |number| (0, number));
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| self.significant().cmp(other.significant()))
            .then_with(|| pre(self).cmp(&pre(other)))
            .then_with(|| post(self).cmp(&post(other)))
            .then_with(|| dev(self).cmp(&dev(other)))
            .then_with(|| self.local.cmp(&other.local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::new(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// The order that PEP 440 gives as its example, and more.
    #[test]
    fn versions_have_their_order() {
        let ordered = [
            "1.dev0",
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.0.15",
            "1.1.dev1",
            "1!0.1",
        ];
        for pair in ordered.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{} < {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (one, two) in [
            ("1.0", "1.0.0"),
            ("v1.0", "1"),
            ("1.0-1", "1.0.post1"),
            ("1.0_RC-1", "1.0rc1"),
            ("1.0.alpha", "1.0a0"),
            ("1.0.preview2", "1.0c2"),
            ("1.0+A-b", "1.0+a.b"),
        ] {
            assert_eq!(version(one).cmp(&version(two)), Ordering::Equal, "{one} {two}");
        }
        for wrong in ["", "a", "1.x", "1..2", "1.0+", "1.0+a..b", "1!", "1.0-", "1.0 2"] {
            assert!(Version::new(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn clauses_are_judged() {
        for (own, operator, wanted, expected) in [
            ("3.11.2", ">=", "3.8", Some(true)),
            ("3.11", "<", "3.9", Some(false)),
            ("3.11.2", "==", "3.11.*", Some(true)),
            ("3.1.2", "==", "3.11.*", Some(false)),
            ("3.11.2", "!=", "3.11.*", Some(false)),
            ("2.2.5", "~=", "2.2.1", Some(true)),
            ("2.3", "~=", "2.2.1", Some(false)),
            ("2.3", "~=", "2.2", Some(true)),
            ("1.0a1", "<", "1.0", Some(false)),
            ("1.0.post1", ">", "1.0", Some(false)),
            ("1.0+local", "==", "1.0", Some(true)),
            ("1.0", "===", "1.0", Some(true)),
            ("1.0", "~=", "1", None),
            ("1.0", "=", "1.0", None),
            ("1.0", "<", "1.*", None),
        ] {
            assert_eq!(
                version(own).satisfies(operator, wanted),
                expected,
                "{own} {operator} {wanted}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9a-fv!.+_*é-]{0,20}") {
            if let Some(version) = Version::new(&text) {
                for operator in ["==", "~=", "<", ">"] {
                    let _ = version.satisfies(operator, &text);
                }
            }
        }
    }
}
