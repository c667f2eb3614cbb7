//! What changed between two sides: packages first, then files, then bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::content::{Content, FileFact};
use crate::quantity::{Bytes, counted};

/// So many changed files are named in the text; the JSON has all of them.
const NAMED: usize = 60;

/// A value that differs; a missing side has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// The package's name, the path, or the key.
    pub name: String,
    /// The old value.
    pub old: Option<T>,
    /// The new value.
    pub new: Option<T>,
}

/// All differences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Packages, by name.
    pub packages: Vec<Change<String>>,
    /// Files, by path; `None` when the files of a side are not known.
    pub files: Option<Vec<Change<FileFact>>>,
    /// The keys of the image's configuration that differ.
    pub config: Vec<Change<Value>>,
    /// Layers of both sides and of each.
    pub layers: LayerDifference,
    /// Bytes of the old side.
    pub old_bytes: u64,
    /// Bytes of the new side.
    pub new_bytes: u64,
}

/// How layers differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerDifference {
    /// Number of layers of the new side.
    pub count: usize,
    /// Those of them that the old side lacks.
    pub new: usize,
    /// Their bytes: what a client that has the old image fetches.
    pub new_bytes: u64,
    /// Layers from the lowest up that are equal: what a client need not unpack again.
    pub common_prefix: usize,
}

impl Difference {
    /// Compares two sides.
    pub fn between(old: &Content, new: &Content) -> Self {
        let members = |config: &Option<Value>| -> BTreeMap<String, Value> {
            let object = config.as_ref().and_then(Value::as_object);
            object.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let files = old.files.as_ref().zip(new.files.as_ref());
        Self {
            packages: changes(&old.packages, &new.packages),
            files: files.map(|(old, new)| changes(old, new)),
            config: match (&old.config, &new.config) {
                (Some(_), Some(_)) => changes(&members(&old.config), &members(&new.config)),
                _ => Vec::new(),
            },
            layers: layers(old, new),
            old_bytes: old.bytes,
            new_bytes: new.bytes,
        }
    }

    /// The differences for people.
    pub fn text(&self) -> String {
        let mut text = section("packages", &self.packages, |change| {
            let arrow = [change.old.as_deref(), change.new.as_deref()];
            arrow.into_iter().flatten().collect::<Vec<_>>().join(" -> ")
        });
        match &self.files {
            Some(files) => text.push_str(&section("files", files, what_changed)),
            None => text.push_str("files: not known for both sides\n"),
        }
        if !self.config.is_empty() {
            text.push_str(&section("config", &self.config, |change| {
                let show = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
                let both = [show(&change.old), show(&change.new)];
                both.into_iter().flatten().collect::<Vec<_>>().join(" -> ")
            }));
        }
        if self.layers.count > 0 {
            text.push_str(&format!(
                "layers: {} of {} are new, {}; the lowest {} are common\n",
                self.layers.new,
                self.layers.count,
                Bytes(self.layers.new_bytes),
                self.layers.common_prefix,
            ));
        }
        text.push_str(&format!("bytes: {} -> {}\n", Bytes(self.old_bytes), Bytes(self.new_bytes)));
        text
    }
}

fn changes<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Vec<Change<T>> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| Change {
            name: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}

fn layers(old: &Content, new: &Content) -> LayerDifference {
    let known: BTreeSet<&str> = old.layers.iter().map(|layer| layer.digest.as_str()).collect();
    let fresh: BTreeMap<&str, u64> = new
        .layers
        .iter()
        .filter(|layer| !known.contains(layer.digest.as_str()))
        .map(|layer| (layer.digest.as_str(), layer.size))
        .collect();
    LayerDifference {
        count: new.layers.len(),
        new: fresh.len(),
        new_bytes: fresh.values().sum(),
        common_prefix: old
            .layers
            .iter()
            .zip(&new.layers)
            .take_while(|(old, new)| old.digest == new.digest)
            .count(),
    }
}

fn section<T>(
    title: &str,
    changes: &[Change<T>],
    describe: impl Fn(&Change<T>) -> String,
) -> String {
    if changes.is_empty() {
        return format!("{title}: the same\n");
    }
    let count = |old: bool, new: bool| {
        changes.iter().filter(|it| it.old.is_some() == old && it.new.is_some() == new).count()
    };
    let mut text = format!(
        "{title}: {} added, {} removed, {} changed\n",
        count(false, true),
        count(true, false),
        count(true, true)
    );
    for change in changes.iter().take(NAMED) {
        let mark = match (&change.old, &change.new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        let line = format!("  {mark} {} {}", change.name, describe(change));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if changes.len() > NAMED {
        let more = (changes.len() - NAMED) as u64;
        text.push_str(&format!("  … and {}; `--json` names all\n", counted(more, "more change")));
    }
    text
}

fn what_changed(change: &Change<FileFact>) -> String {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return String::new();
    };
    let mut parts = Vec::new();
    if old.kind != new.kind {
        parts.push(format!("{} -> {}", old.kind, new.kind));
    }
    if old.mode != new.mode {
        parts.push(format!("mode {:04o} -> {:04o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        parts.push(format!("owner {}:{} -> {}:{}", old.uid, old.gid, new.uid, new.gid));
    }
    match (old.size != new.size, old.content != new.content && old.kind == new.kind) {
        (true, _) => parts.push(format!("{} -> {} bytes", old.size, new.size)),
        (false, true) if old.kind == "file" => parts.push("other content".to_owned()),
        (false, true) => parts.push(format!("{} -> {}", old.content, new.content)),
        _ => {}
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::content::LayerFact;
    use super::*;

    fn file(mode: u32, content: &str) -> FileFact {
        let size = content.len() as u64;
        FileFact { kind: "file", mode, uid: 0, gid: 0, size, content: content.into() }
    }

    fn content(packages: &[(&str, &str)], files: &[(&str, FileFact)], layers: &[&str]) -> Content {
        let pair = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        Content {
            packages: packages.iter().map(pair).collect(),
            files: Some(files.iter().map(|(path, fact)| ((*path).into(), fact.clone())).collect()),
            layers: layers
                .iter()
                .map(|digest| LayerFact { digest: (*digest).into(), size: 1024 })
                .collect(),
            config: Some(serde_json::json!({ "Cmd": [digest_of(layers)] })),
            bytes: 1024 * layers.len() as u64,
        }
    }

    fn digest_of(layers: &[&str]) -> String {
        layers.join("")
    }

    #[test]
    fn packages_then_files_then_bytes() {
        let old = content(
            &[("a", "1"), ("b", "1"), ("c", "1")],
            &[
                ("etc/x", file(0o644, "1")),
                ("etc/y", file(0o644, "1")),
                ("etc/z", file(0o644, "1")),
            ],
            &["l1", "l2", "l3"],
        );
        let new = content(
            &[("a", "1"), ("b", "2"), ("d", "1")],
            &[
                ("etc/x", file(0o600, "2")),
                ("etc/y", file(0o644, "22")),
                ("etc/w", file(0o644, "1")),
            ],
            &["l1", "l4", "l3"],
        );
        insta::assert_snapshot!(Difference::between(&old, &new).text(), @r#"
        packages: 1 added, 1 removed, 1 changed
          ~ b 1 -> 2
          - c 1
          + d 1
        files: 1 added, 1 removed, 2 changed
          + etc/w
          ~ etc/x mode 0644 -> 0600, other content
          ~ etc/y 1 -> 2 bytes
          - etc/z
        config: 0 added, 0 removed, 1 changed
          ~ Cmd ["l1l2l3"] -> ["l1l4l3"]
        layers: 1 of 3 are new, 1.0 KiB; the lowest 1 are common
        bytes: 3.0 KiB -> 3.0 KiB
        "#);
    }

    #[test]
    fn equal_sides_say_so() {
        let side = content(&[("a", "1")], &[], &["l1"]);
        let text = Difference::between(&side, &side).text();
        assert!(text.starts_with("packages: the same\nfiles: the same\nlayers: 0 of 1"), "{text}");
    }
}
