//! Debian version numbers, ordered exactly as dpkg orders them (Debian policy 5.6.12).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// Why a text is no version number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The text, or the upstream version in it, is empty.
    #[error("version {0:?} is empty or has no upstream version")]
    Empty(String),
    /// What stands before the first colon is no number that fits 31 bits.
    #[error("version {0:?} has an epoch that is no number below 2147483648")]
    Epoch(String),
    /// The hyphen at the end announces a revision that is missing.
    #[error("version {0:?} ends with a hyphen but has no revision")]
    EmptyRevision(String),
    /// A character that policy does not allow.
    #[error("version {text:?} has the character {character:?}, which is not allowed")]
    Character {
        /// The whole version.
        text: String,
        /// The character.
        character: char,
    },
}

/// A version number: `[epoch:]upstream[-revision]`.
///
/// Two versions are equal when dpkg says so, even if their texts differ (`1.0` and `0:1.0-0`);
/// compare [`Version::as_str`] where the text itself matters.
#[derive(Clone)]
pub struct Version {
    text: Box<str>,
    epoch: u32,
    /// Where the upstream version starts in `text`.
    upstream: usize,
    /// Where the upstream version ends; a revision follows after one hyphen.
    upstream_end: usize,
}

impl Version {
    /// Reads a version. Spaces around it are dropped; those inside are refused.
    ///
    /// As dpkg does when it reads indexes, an upstream version that starts with no digit is let
    /// through.
    pub fn new(text: &str) -> Result<Self, VersionError> {
        let text = text.trim_ascii();
        let (epoch, upstream, upstream_end) = split(text)?;
        Ok(Self { text: text.into(), epoch, upstream, upstream_end })
    }

    /// Checks a version as [`Version::new`] does, without keeping it.
    pub fn check(text: &str) -> Result<(), VersionError> {
        split(text.trim_ascii()).map(|_| ())
    }

    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The epoch; 0 when none is written.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The upstream part.
    pub fn upstream(&self) -> &str {
        &self.text[self.upstream..self.upstream_end]
    }

    /// The Debian revision, if there is one.
    pub fn revision(&self) -> Option<&str> {
        self.text.get(self.upstream_end + 1..)
    }

    /// The version without its epoch, as file names and people write it.
    pub fn without_epoch(&self) -> &str {
        &self.text[self.upstream..]
    }
}

/// Finds the parts of a version: the epoch, and where the upstream version starts and ends.
fn split(text: &str) -> Result<(u32, usize, usize), VersionError> {
    let excerpt = || text.chars().take(100).collect::<String>();
    let (epoch, upstream) = match text.find(':') {
        None => (0, 0),
        Some(colon) => {
            let digits = &text[..colon];
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            match digits.parse::<u32>() {
                Ok(epoch) if plain && epoch <= 0x7fff_ffff => (epoch, colon + 1),
                _ => return Err(VersionError::Epoch(excerpt())),
            }
        }
    };
    let upstream_end = text[upstream..].rfind('-').map_or(text.len(), |at| upstream + at);
    if upstream == upstream_end {
        return Err(VersionError::Empty(excerpt()));
    }
    if upstream_end + 1 == text.len() {
        return Err(VersionError::EmptyRevision(excerpt()));
    }
    let common = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~');
    let in_upstream = |c: &char| common(c) || matches!(c, '-' | ':');
    let revision = text.get(upstream_end + 1..).unwrap_or_default();
    let bad = text[upstream..upstream_end].chars().find(|c| !in_upstream(c));
    if let Some(character) = bad.or_else(|| revision.chars().find(|c| !common(c))) {
        return Err(VersionError::Character { text: excerpt(), character });
    }
    Ok((epoch, upstream, upstream_end))
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream().as_bytes(), other.upstream().as_bytes()))
            .then_with(|| {
                let ours = self.revision().unwrap_or_default();
                let theirs = other.revision().unwrap_or_default();
                compare_part(ours.as_bytes(), theirs.as_bytes())
            })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl Hash for Version {
    /// Equal versions may differ in text, so only what cannot differ between them is hashed.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.epoch.hash(state);
        let letters = |part: &str| part.bytes().filter(u8::is_ascii_alphabetic).collect::<Vec<_>>();
        letters(self.upstream()).hash(state);
        letters(self.revision().unwrap_or_default()).hash(state);
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.text)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// The rank of a character outside of numbers: `~` sorts before the end, the end and digits before
/// letters, letters before all else.
fn rank(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Numbers of any length: longer is larger once leading zeros are gone.
fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let strip = |digits: &[u8]| digits.iter().take_while(|byte| **byte == b'0').count();
    let (a, b) = (&a[strip(a)..], &b[strip(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Compares two upstream versions or two revisions: runs of other characters and runs of digits
/// in turn.
fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let in_text = |part: &[u8]| part.first().is_some_and(|byte| !byte.is_ascii_digit());
    while !a.is_empty() || !b.is_empty() {
        while in_text(a) || in_text(b) {
            match rank(a.first()).cmp(&rank(b.first())) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (a_digits, a_rest) = split_digits(a);
        let (b_digits, b_rest) = split_digits(b);
        match compare_digits(a_digits, b_digits) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn version(text: &str) -> Version {
        Version::new(text).unwrap()
    }

    #[test]
    fn parts_are_split_as_policy_says() {
        let full = version("2:1.2-3:4-5~bpo1");
        assert_eq!((full.epoch(), full.upstream()), (2, "1.2-3:4"));
        assert_eq!(full.revision(), Some("5~bpo1"));
        assert_eq!(full.without_epoch(), "1.2-3:4-5~bpo1");
        assert_eq!(version(" 1.0 ").as_str(), "1.0");
        assert_eq!(version("1.0").revision(), None);
    }

    #[test]
    fn order_follows_policy() {
        for (less, more) in [
            ("1.0~rc1", "1.0"),
            ("1.0~~", "1.0~"),
            ("1.0", "1.0a"),
            ("1.0a", "1.0+"),
            ("1.9", "1.10"),
            ("9", "1:0"),
            ("1.0-1", "1.0-1.1"),
            ("1.0-1~deb12u1", "1.0-1"),
            ("1.0", "1.0-1"),
            ("99999999999999999999998", "99999999999999999999999"),
        ] {
            assert!(version(less) < version(more), "{less} < {more}");
        }
        for (a, b) in [("1.0", "0:1.0-0"), ("1.00", "1.0"), ("1.0-00", "1.0")] {
            assert_eq!(version(a), version(b));
            let hash = |text: &str| {
                let mut hasher = std::hash::DefaultHasher::new();
                version(text).hash(&mut hasher);
                hasher.finish()
            };
            assert_eq!(hash(a), hash(b), "equal versions hash alike: {a} {b}");
        }
    }

    #[test]
    fn bad_versions_are_refused() {
        use VersionError::{Character, EmptyRevision, Epoch};
        assert!(matches!(Version::new(""), Err(VersionError::Empty(_))));
        assert!(matches!(Version::new("1:"), Err(VersionError::Empty(_))));
        assert!(matches!(Version::new("-1"), Err(VersionError::Empty(_))));
        assert!(matches!(Version::new("1.0-"), Err(EmptyRevision(_))));
        assert!(matches!(Version::new(":1"), Err(Epoch(_))));
        assert!(matches!(Version::new("+1:1"), Err(Epoch(_))));
        assert!(matches!(Version::new("2147483648:1"), Err(Epoch(_))));
        assert!(matches!(Version::new("1.0 2"), Err(Character { character: ' ', .. })));
        assert!(matches!(Version::new("1.0-1_2"), Err(Character { character: '_', .. })));
        assert!(matches!(Version::new("1é-1"), Err(Character { character: 'é', .. })));
    }

    fn version_text() -> impl Strategy<Value = String> {
        // Few characters, so that pairs are often equal up to a late difference.
        proptest::string::string_regex("([0-2]:)?[0-2]([019a.+~]|0[1-3]){0,6}(-[01a.+~]{1,4})?")
            .unwrap()
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,24}") {
            if let Ok(version) = Version::new(&text) {
                prop_assert_eq!(version.as_str(), text.trim_ascii());
                prop_assert_eq!(version.cmp(&version), Ordering::Equal);
            }
        }

        #[test]
        fn order_is_total(a in version_text(), b in version_text(), c in version_text()) {
            let (a, b, c) = (version(&a), version(&b), version(&c));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }

    /// One shell runs the whole batch, so that the test costs one second and not one minute.
    #[test]
    fn dpkg_agrees_on_random_pairs() {
        if Command::new("dpkg").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: dpkg is not installed");
            return;
        }
        let mut runner = TestRunner::deterministic();
        let mut pairs = Vec::new();
        let mut script = String::new();
        for _ in 0..300 {
            let a = version_text().new_tree(&mut runner).unwrap().current();
            let b = version_text().new_tree(&mut runner).unwrap().current();
            script += &format!(
                "dpkg --compare-versions '{a}' lt '{b}' && echo lt || \
                 {{ dpkg --compare-versions '{a}' eq '{b}' && echo eq || echo gt; }}\n"
            );
            pairs.push((a, b));
        }
        let mut shell = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
        let answers: Vec<&str> = output.lines().collect();
        assert_eq!(answers.len(), pairs.len());
        for ((a, b), answer) in pairs.iter().zip(answers) {
            let ours = match version(a).cmp(&version(b)) {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            assert_eq!(ours, answer, "{a} against {b}");
        }
    }
}
