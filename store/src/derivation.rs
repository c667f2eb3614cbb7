//! Derivations: fully resolved build steps, named by their content.
//!
//! A derivation's id is BLAKE3 of its canonical JSON (RFC 8785). It covers all that can influence
//! the output and nothing else: no name, path, user, time, mirror, URL or thread count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{DerivationId, TreeHash};

/// The version of the derivation's format that this program writes.
pub const FORMAT: u32 = 1;

/// An input: a tree, and where it stands in the order in which trees are stacked (0 lowest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Place in the stack, from 0.
    pub at: u32,
    /// The tree.
    pub tree: TreeHash,
}

/// A build step whose inputs are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    /// Version of this structure.
    pub format: u32,
    /// The builder's name: `deb`, `fetch`, `files`, `recipe`, `configure`, `pack`, `finish`, `oci`.
    pub builder: String,
    /// Version of the builder: rises whenever its output can change.
    pub v: u32,
    /// Names of the outputs, in the builder's order.
    pub outputs: Vec<String>,
    /// Input trees in the order in which they are stacked.
    pub inputs: Vec<Input>,
    /// The builder's own arguments.
    pub args: BTreeMap<String, Value>,
    /// Environment of the build's script.
    pub env: BTreeMap<String, String>,
    /// `os/architecture` for builders whose output depends on it.
    pub platform: Option<String>,
    /// Version of the sandbox, for builders that use it.
    pub sandbox: Option<u32>,
    /// Digests of the data tables that the builder used, by name.
    pub tables: BTreeMap<String, String>,
    /// For fetches: the hash that the output must have.
    pub output_hash: Option<String>,
}

impl Derivation {
    /// A derivation without inputs, arguments or environment and with one output, `out`.
    pub fn new(builder: &str, v: u32) -> Self {
        Self {
            format: FORMAT,
            builder: builder.to_owned(),
            v,
            outputs: vec!["out".to_owned()],
            inputs: Vec::new(),
            args: BTreeMap::new(),
            env: BTreeMap::new(),
            platform: None,
            sandbox: None,
            tables: BTreeMap::new(),
            output_hash: None,
        }
    }

    /// Adds input trees in the order in which they are stacked.
    #[must_use]
    pub fn with_inputs(mut self, trees: impl IntoIterator<Item = TreeHash>) -> Self {
        let start = self.inputs.len();
        let inputs = trees.into_iter().enumerate().map(|(index, tree)| Input {
            at: u32::try_from(start + index).expect("a derivation has fewer than 2^32 inputs"),
            tree,
        });
        self.inputs.extend(inputs);
        self
    }

    /// Sets an argument.
    #[must_use]
    pub fn with_arg(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.args.insert(name.to_owned(), value.into());
        self
    }

    /// The canonical JSON (RFC 8785).
    pub fn to_json(&self) -> String {
        let value = serde_json::to_value(self).expect("a derivation's maps have text keys");
        canonical_json(&value)
    }

    /// The derivation's id.
    pub fn id(&self) -> DerivationId {
        DerivationId::of(self.to_json().as_bytes())
    }
}

/// Writes a JSON value in the canonical form of RFC 8785: members sorted by UTF-16 code units,
/// shortest escapes, no white space. Numbers other than integers do not occur in Drystone's
/// identities and are written as `serde_json` writes them.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    let mut separator = "";
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
            text.push('{');
            for (key, value) in sorted {
                text.push_str(separator);
                write_plain(key, text);
                text.push(':');
                write_canonical(value, text);
                separator = ",";
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                text.push_str(separator);
                write_canonical(item, text);
                separator = ",";
            }
            text.push(']');
        }
        other => write_plain(other, text),
    }
}

fn write_plain(value: &(impl Serialize + ?Sized), text: &mut String) {
    text.push_str(&serde_json::to_string(value).expect("text and numbers are JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn golden_id_is_frozen() {
        let tree = TreeHash::from_bytes([3; 32]);
        let derivation = Derivation {
            platform: Some("linux/amd64".into()),
            sandbox: Some(1),
            outputs: vec!["out".into(), "dev".into()],
            tables: [("state".to_owned(), "abc".to_owned())].into(),
            env: [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into(),
            ..Derivation::new("recipe", 3).with_inputs([tree]).with_arg("script", "make\n\té")
        };
        let json = derivation.to_json();
        assert_eq!(json, include_str!("../tests/golden/derivation.json").trim_end());
        assert_eq!(
            derivation.id().to_string(),
            include_str!("../tests/golden/derivation.id").trim_end()
        );
        assert_eq!(serde_json::from_str::<Derivation>(&json).unwrap(), derivation);
    }

    #[test]
    fn members_sort_by_utf16_units() {
        // U+1F600 is D83D DE00 in UTF-16 and sorts before U+FB33; in UTF-8 it is the other way.
        let value = json!({"\u{fb33}": 1, "\u{1f600}": 2, "a": [true, null, "\u{7}"]});
        assert_eq!(
            canonical_json(&value),
            "{\"a\":[true,null,\"\\u0007\"],\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }
}
