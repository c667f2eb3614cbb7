//! Store paths: `<hash>-<name>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::TreeHash;

/// The longest name of a store path, in bytes: with its hash it fits a file name.
const MAX_NAME: usize = 190;

/// A text that is no store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no store path: expected <52 base32 characters>-<name of A-Za-z0-9+._->")]
pub struct ParseStorePathError(String);

/// The name of a tree in a store. Only the hash identifies; the name is for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath {
    hash: TreeHash,
    name: String,
}

impl StorePath {
    /// Makes a store path; characters that names may not hold become `_`.
    pub fn new(hash: TreeHash, name: &str) -> Self {
        let mut name: String =
            name.chars().map(|c| if is_name_char(c) { c } else { '_' }).take(MAX_NAME).collect();
        if name.is_empty() {
            name.push_str("tree");
        }
        Self { hash, name }
    }

    /// The hash: the identity.
    pub const fn hash(&self) -> &TreeHash {
        &self.hash
    }

    /// The name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }
}

const fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '_' | '-')
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.name)
    }
}

impl FromStr for StorePath {
    type Err = ParseStorePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (hash, name) = text.split_once('-')?;
            let valid =
                !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(is_name_char);
            valid.then_some(Self { hash: hash.parse().ok()?, name: name.to_owned() })
        };
        parse().ok_or_else(|| ParseStorePathError(text.chars().take(300).collect()))
    }
}

impl Serialize for StorePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_keeps_names_legal() {
        let path = StorePath::new(TreeHash::from_bytes([1; 32]), "libstdc++6-12.2.0-14");
        assert_eq!(path.to_string().parse(), Ok(path));
        let odd = StorePath::new(TreeHash::from_bytes([1; 32]), "a/b:c");
        assert_eq!(odd.name(), "a_b_c");
        assert!("x-y".parse::<StorePath>().is_err());
    }
}
