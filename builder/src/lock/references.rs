//! How lists of packages name pins: by the shortest text that leaves no doubt.
//!
//! Almost always that is the package's name. When a shared lock pins two versions of it, the
//! version follows, and if needs be the architecture. A platform's list can mean only packages of
//! its own architecture and of `all`.

use std::collections::BTreeMap;

use crate::spec::Platform;

use super::model::{Lock, PackageKey};

/// The pins of one platform, by name.
pub(super) struct References<'a> {
    by_name: BTreeMap<&'a str, Vec<&'a PackageKey>>,
}

impl<'a> References<'a> {
    pub(super) fn new(keys: impl Iterator<Item = &'a PackageKey>, platform: Platform) -> Self {
        let mut by_name: BTreeMap<&str, Vec<&PackageKey>> = BTreeMap::new();
        let native = platform.debian_name();
        for key in keys.filter(|key| ["all", native].contains(&key.architecture.as_str())) {
            by_name.entry(key.name.as_str()).or_default().push(key);
        }
        Self { by_name }
    }

    pub(super) fn of_lock(lock: &'a Lock, platform: Platform) -> Self {
        Self::new(lock.packages.keys(), platform)
    }

    /// The shortest text for a pin. A key that is not pinned is written in full: the reader will
    /// say that it is missing, instead of taking another version for it.
    pub(super) fn text(&self, key: &PackageKey) -> String {
        let candidates = self.by_name.get(key.name.as_str()).map_or(&[][..], Vec::as_slice);
        if !candidates.contains(&key) {
            return key.to_string();
        }
        let versions = candidates.iter().filter(|other| other.version == key.version).count();
        match (candidates.len(), versions) {
            (1, _) => key.name.to_string(),
            (_, 1) => format!("{} {}", key.name, key.version),
            _ => key.to_string(),
        }
    }

    /// The pins that a text can mean.
    pub(super) fn find(&self, text: &str) -> Vec<&'a PackageKey> {
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let (version, architecture, rest) = (words.next(), words.next(), words.next());
        let candidates = self.by_name.get(name).into_iter().flatten().copied();
        if rest.is_some() {
            return Vec::new();
        }
        candidates
            .filter(|key| version.is_none_or(|version| key.version.as_str() == version))
            .filter(|key| architecture.is_none_or(|it| key.architecture.as_str() == it))
            .collect()
    }
}
