//! Trust: which keys are believed, for how long, and how many of them must agree.
//!
//! ```text
//! NAME:BASE64[;not-before=DATE][;not-after=DATE][;revoked]
//! ```
//!
//! A key counts from `not-before` to `not-after`, both included, **judged by the verifier's clock
//! and not by any time in what was signed**: whoever stole a key would write an old time. A revoked
//! key never counts, whatever else is said about it; of limits that are said twice, the stricter
//! ones hold. Only what the user configured gets here; `image.toml` has no say.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::key::{KeyError, KeyId, PublicKey};

/// The largest file of trusted keys that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// What separates a key from its conditions.
const SEPARATOR: char = ';';

/// Why keys cannot be trusted as written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// What should be a key is none.
    #[error("no trusted key")]
    Key(#[from] KeyError),
    /// A condition after the key is not known.
    #[error(
        "the key {name} has the unknown condition {condition:?}: there are not-before=DATE, \
         not-after=DATE and revoked"
    )]
    Condition {
        /// The key's name.
        name: String,
        /// The condition as written.
        condition: String,
    },
    /// A date is none.
    #[error(
        "the key {name} has the date {date:?}: expected one like 2027-01-31 or \
         2027-01-31T12:00:00Z"
    )]
    Date {
        /// The key's name.
        name: String,
        /// The date as written.
        date: String,
    },
    /// A key ends before it begins.
    #[error("the key {name} never counts: not-after lies before not-before")]
    Never {
        /// The key's name.
        name: String,
    },
    /// The threshold is zero.
    #[error("a threshold of 0 would believe what nobody signed: at least 1 key must sign")]
    NoThreshold,
    /// More keys must agree than are trusted.
    #[error("{threshold} keys must agree, but only {keys} are trusted and not revoked")]
    Unreachable {
        /// How many must agree.
        threshold: usize,
        /// How many could.
        keys: usize,
    },
    /// A line of a file of keys is wrong.
    #[error("line {line} of {}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: Box<TrustError>,
    },
    /// A file of keys is too large to be one.
    #[error("{} is no file of keys: it is larger than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file of keys cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// Whether a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Valid,
    /// It will count later.
    NotYetValid,
    /// It has counted.
    Expired,
    /// It never counts.
    Revoked,
}

/// A key that the user named, and on which conditions it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// From when on it counts, in seconds since 1970.
    pub not_before: Option<i64>,
    /// Until when it counts, in seconds since 1970.
    pub not_after: Option<i64>,
    /// Whether it is revoked.
    pub revoked: bool,
}

impl TrustedKey {
    /// A key that counts always.
    pub const fn new(key: PublicKey) -> Self {
        Self { key, not_before: None, not_after: None, revoked: false }
    }

    /// Whether the key counts at `now`, in seconds since 1970.
    pub fn standing(&self, now: i64) -> Standing {
        if self.revoked {
            Standing::Revoked
        } else if self.not_before.is_some_and(|start| now < start) {
            Standing::NotYetValid
        } else if self.not_after.is_some_and(|end| now > end) {
            Standing::Expired
        } else {
            Standing::Valid
        }
    }

    /// Joins what is said about one key in two places: the stricter conditions hold.
    fn restrict(&mut self, other: &Self) {
        self.revoked |= other.revoked;
        self.not_before = self.not_before.max(other.not_before);
        self.not_after = match (self.not_after, other.not_after) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }

    /// Reads the keys of a file, one a line; blank lines and those that start with `#` are skipped.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, TrustError> {
        let failed = |source| TrustError::Io { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE {
            return Err(TrustError::TooLarge { path: path.to_owned() });
        }
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, text)| {
                text.parse().map_err(|source| TrustError::Line {
                    path: path.to_owned(),
                    line,
                    source: Box::new(source),
                })
            })
            .collect()
    }
}

impl FromStr for TrustedKey {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let mut parts = text.split(SEPARATOR);
        let key: PublicKey = parts.next().unwrap_or_default().trim().parse()?;
        let name = || key.name().to_owned();
        let mut trusted = Self::new(key.clone());
        for part in parts.map(str::trim) {
            let date = |text: &str, end| {
                seconds(text, end)
                    .ok_or_else(|| TrustError::Date { name: name(), date: shortened(text) })
            };
            match part.split_once('=') {
                Some(("not-before", text)) => trusted.not_before = Some(date(text, false)?),
                Some(("not-after", text)) => trusted.not_after = Some(date(text, true)?),
                None if part == "revoked" => trusted.revoked = true,
                _ => {
                    let condition = shortened(part);
                    return Err(TrustError::Condition { name: name(), condition });
                }
            }
        }
        match (trusted.not_before, trusted.not_after) {
            (Some(start), Some(end)) if end < start => Err(TrustError::Never { name: name() }),
            _ => Ok(trusted),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// A time in seconds since 1970. A day alone means its first second, or as an `end` its last.
fn seconds(text: &str, end: bool) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_second());
    }
    let day: jiff::civil::Date = (text.len() == 10).then(|| text.parse().ok())??;
    let time = if end { day.at(23, 59, 59, 0) } else { day.at(0, 0, 0, 0) };
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Whom the user believes.
#[derive(Debug, Clone)]
pub struct Trust {
    keys: Vec<TrustedKey>,
    threshold: usize,
}

impl Trust {
    /// Believes `keys` once `threshold` different ones agree. No keys at all believe nobody.
    pub fn new(
        keys: impl IntoIterator<Item = TrustedKey>,
        threshold: usize,
    ) -> Result<Self, TrustError> {
        let mut trust = Self { keys: Vec::new(), threshold };
        for key in keys {
            match trust.keys.iter_mut().find(|known| known.key == key.key) {
                Some(known) => known.restrict(&key),
                None => trust.keys.push(key),
            }
        }
        let usable = trust.keys.iter().filter(|key| !key.revoked).count();
        match threshold {
            0 => Err(TrustError::NoThreshold),
            _ if (1..threshold).contains(&usable) => {
                Err(TrustError::Unreachable { threshold, keys: usable })
            }
            _ => Ok(trust),
        }
    }

    /// Believes nobody.
    pub const fn nobody() -> Self {
        Self { keys: Vec::new(), threshold: 1 }
    }

    /// How many different keys must agree.
    pub const fn threshold(&self) -> usize {
        self.threshold
    }

    /// All keys, also those that do not count.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// The keys that count at `now`: those whose attestations are worth asking for.
    pub fn valid_keys(&self, now: i64) -> impl Iterator<Item = &PublicKey> {
        let valid = move |key: &&TrustedKey| key.standing(now) == Standing::Valid;
        self.keys.iter().filter(valid).map(|trusted| &trusted.key)
    }

    /// The keys that an id may mean.
    pub fn find(&self, id: KeyId) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter().filter(move |trusted| trusted.key.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed("team", &[seed; 32]).unwrap().public()
    }

    fn trusted(seed: u8, conditions: &str) -> TrustedKey {
        format!("{}{conditions}", key(seed)).parse().unwrap()
    }

    #[test]
    fn limits_include_their_days() {
        let it = trusted(1, ";not-before=1970-01-02; not-after=1970-01-03");
        let day = 86_400;
        assert_eq!(it.standing(day - 1), Standing::NotYetValid);
        assert_eq!(it.standing(day), Standing::Valid);
        assert_eq!(it.standing(3 * day - 1), Standing::Valid);
        assert_eq!(it.standing(3 * day), Standing::Expired);
        let to_the_second = trusted(1, ";not-after=1970-01-01T01:00:00Z");
        assert_eq!(to_the_second.standing(3600), Standing::Valid);
        assert_eq!(to_the_second.standing(3601), Standing::Expired);
    }

    #[test]
    fn a_revocation_anywhere_holds_and_limits_become_stricter() {
        let keys = [
            trusted(1, ""),
            trusted(2, ";not-after=1970-01-03"),
            trusted(1, ";revoked"),
            trusted(2, ";not-after=1970-01-02;not-before=1970-01-02"),
        ];
        let trust = Trust::new(keys, 1).unwrap();
        assert_eq!(trust.keys().len(), 2);
        assert_eq!(trust.keys()[0].standing(0), Standing::Revoked);
        assert_eq!(trust.keys()[1], trusted(2, ";not-after=1970-01-02;not-before=1970-01-02"));
        assert_eq!(trust.valid_keys(100_000).collect::<Vec<_>>(), [&key(2)]);
        assert_eq!(trust.valid_keys(0).count(), 0);
    }

    #[test]
    fn thresholds_count_different_keys_that_are_not_revoked() {
        let two = [trusted(1, ""), trusted(2, "")];
        assert!(Trust::new(two.clone(), 2).is_ok());
        assert!(matches!(Trust::new(two, 0), Err(TrustError::NoThreshold)));
        let twice = [trusted(1, ""), trusted(1, "")];
        assert!(matches!(Trust::new(twice, 2), Err(TrustError::Unreachable { keys: 1, .. })));
        let revoked = [trusted(1, ""), trusted(2, ";revoked")];
        assert!(matches!(Trust::new(revoked, 2), Err(TrustError::Unreachable { keys: 1, .. })));
        assert!(Trust::new([], 3).is_ok(), "nobody is believed, and nobody has to agree");
    }

    #[test]
    fn wrong_conditions_are_named() {
        let parse =
            |conditions: &str| format!("{}{conditions}", key(1)).parse::<TrustedKey>().unwrap_err();
        assert!(matches!(parse(";expires=2027-01-01"), TrustError::Condition { .. }));
        assert!(matches!(parse(";"), TrustError::Condition { .. }));
        assert!(matches!(parse(";not-after=tomorrow"), TrustError::Date { .. }));
        assert!(matches!(parse(";not-after=2027-02-30"), TrustError::Date { .. }));
        let never = parse(";not-before=2027-01-02;not-after=2027-01-01");
        assert!(matches!(never, TrustError::Never { .. }));
    }

    #[test]
    fn files_hold_a_key_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("team.pub");
        let text = format!("# ours\n\n{}\n  {};revoked\n", key(1), key(2));
        std::fs::write(&path, text).unwrap();
        assert_eq!(TrustedKey::read_all(&path).unwrap(), [trusted(1, ""), trusted(2, ";revoked")]);
        std::fs::write(&path, format!("{}\nnonsense\n", key(1))).unwrap();
        assert!(matches!(TrustedKey::read_all(&path), Err(TrustError::Line { line: 2, .. })));
    }
}
