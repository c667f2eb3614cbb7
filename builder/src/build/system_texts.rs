//! The texts of a configured root that the image's own steps read: accounts and diversions.

use std::collections::BTreeMap;

use drystone_store::realisation::Output;
use drystone_store::store::Store;

use super::{BuildError, PlatformWork};
use crate::finish::accounts::AccountTexts;
use crate::stack::{Diversion, parse_diversions};

const DIVERSIONS: &str = "var/lib/dpkg/diversions";
const PATHS: [&str; 5] = [DIVERSIONS, "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];

/// Texts by path. A path that is not in the root is not here.
pub struct SystemTexts(BTreeMap<String, String>);

impl SystemTexts {
    /// Reads the texts of what configuration made. They are remembered for the tree, which may
    /// be large.
    pub fn read(store: &Store, output: &Output) -> Result<Self, BuildError> {
        let key = output.path.hash().to_string();
        let known = store.fact("system-texts", &key)?;
        if let Some(known) = known.and_then(|json| serde_json::from_str(&json).ok()) {
            return Ok(Self(known));
        }
        let mut texts = BTreeMap::new();
        store.read_tree(output, |entry, content| {
            if PATHS.contains(&entry.path.as_str()) {
                let mut bytes = Vec::new();
                content
                    .read_to_end(&mut bytes)
                    .map_err(|source| BuildError::Content { path: entry.path.clone(), source })?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                texts.insert(entry.path.to_string(), text);
            }
            Ok::<(), BuildError>(())
        })?;
        let json = serde_json::to_string(&texts).expect("texts by name are JSON");
        store.put_fact("system-texts", &key, &json)?;
        Ok(Self(texts))
    }

    /// The texts of several trees, the uppermost first.
    pub fn stacked(trees: impl IntoIterator<Item = Self>) -> Self {
        let mut texts = BTreeMap::new();
        for (path, text) in trees.into_iter().flat_map(|tree| tree.0) {
            texts.entry(path).or_insert(text);
        }
        Self(texts)
    }

    fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Every diversion.
    pub fn all_diversions(&self) -> Vec<Diversion> {
        parse_diversions(self.text(DIVERSIONS)).unwrap_or_default()
    }

    /// Diversions that hold in the image: all with the Essential set, else those of its packages.
    pub fn diversions(&self, work: &PlatformWork) -> Vec<Diversion> {
        let mut diversions = self.all_diversions();
        let names = work.package_names();
        diversions.retain(|rule| {
            work.is_essential
                || rule.package.as_deref().is_none_or(|package| names.contains(package))
        });
        diversions
    }

    /// The account files.
    pub fn accounts(&self) -> AccountTexts {
        AccountTexts {
            passwd: self.text("etc/passwd").to_owned(),
            group: self.text("etc/group").to_owned(),
            shadow: self.text("etc/shadow").to_owned(),
            gshadow: self.text("etc/gshadow").to_owned(),
        }
    }
}
