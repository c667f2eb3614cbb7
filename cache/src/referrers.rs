//! The list of referrers under the tag `sha256-<hex>`, for repositories without an API for it
//! (OCI distribution specification 1.1, "Referrers Tag Schema").

use drystone_store::digest::BlobDigest;
use serde_json::{Value, json};

use crate::descriptor::{Descriptor, INDEX_MEDIA_TYPE, Manifest};
use crate::error::RegistryError;

/// The most referrers that are read of one list.
const MOST_REFERRERS: usize = 100_000;

/// Reads the descriptors of a list. Those with digests that Drystone does not know are left out.
pub(crate) fn read(
    list: &[u8],
    place: &str,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, RegistryError> {
    let malformed = |reason: String| RegistryError::Malformed { place: place.to_owned(), reason };
    let list: Value = serde_json::from_slice(list).map_err(|error| malformed(error.to_string()))?;
    // A registry may write null for none.
    let entries = match &list["manifests"] {
        Value::Null => &[],
        Value::Array(entries) if entries.len() <= MOST_REFERRERS => entries.as_slice(),
        _ => return Err(malformed("it has no list of manifests".to_owned())),
    };
    let known = entries.iter().filter_map(Descriptor::deserialise);
    let wanted = |descriptor: &Descriptor| {
        artifact_type.is_none_or(|kind| descriptor.artifact_type.as_deref() == Some(kind))
    };
    Ok(known.filter(wanted).collect())
}

impl Descriptor {
    fn deserialise(entry: &Value) -> Option<Self> {
        serde::Deserialize::deserialize(entry).ok()
    }
}

/// The list with one more referrer; `None` when it is in the list already. A list that is broken is
/// begun anew: it holds nothing that a reader could use.
pub(crate) fn with(list: Option<&Manifest>, referrer: &Manifest) -> Option<Manifest> {
    let mut entries = entries(list);
    let digest = referrer.digest.to_string();
    if entries.iter().any(|entry| entry["digest"] == *digest) {
        return None;
    }
    let entry = serde_json::to_value(referrer.descriptor());
    entries.push(entry.expect("texts and numbers always serialise"));
    Some(written(entries))
}

/// The list without a referrer; `None` when it is not in the list.
pub(crate) fn without(list: Option<&Manifest>, referrer: &BlobDigest) -> Option<Manifest> {
    let mut entries = entries(list);
    let before = entries.len();
    let digest = referrer.to_string();
    entries.retain(|entry| entry["digest"] != *digest);
    (entries.len() < before).then(|| written(entries))
}

fn entries(list: Option<&Manifest>) -> Vec<Value> {
    let list = list.and_then(|list| list.json().ok());
    match list.and_then(|mut list| Some(list.get_mut("manifests")?.take())) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    }
}

fn written(entries: Vec<Value>) -> Manifest {
    let list = json!({"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": entries});
    Manifest::new(INDEX_MEDIA_TYPE, list.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::MANIFEST_MEDIA_TYPE;

    fn referrer(kind: &str) -> Manifest {
        Manifest::new(MANIFEST_MEDIA_TYPE, format!(r#"{{"artifactType":"{kind}"}}"#))
    }

    #[test]
    fn lists_grow_and_shrink_and_are_filtered() {
        let (one, two) = (referrer("a/one"), referrer("a/two"));
        let list = with(None, &one).unwrap();
        let list = with(Some(&list), &two).unwrap();
        assert_eq!(with(Some(&list), &one), None, "nothing is listed twice");
        assert_eq!(read(&list.bytes, "here", None).unwrap().len(), 2);
        let only = read(&list.bytes, "here", Some("a/two")).unwrap();
        assert_eq!(only.iter().map(|one| one.digest).collect::<Vec<_>>(), [two.digest]);
        let list = without(Some(&list), &one.digest).unwrap();
        assert_eq!(without(Some(&list), &one.digest), None);
        assert_eq!(read(&list.bytes, "here", None).unwrap().len(), 1);
    }

    #[test]
    fn what_others_wrote_is_kept_and_what_is_broken_refused() {
        let foreign = Manifest::new(
            INDEX_MEDIA_TYPE,
            r#"{"manifests":[{"digest":"sha512:00","size":1,"mediaType":"x/y","data":"aa"}]}"#,
        );
        let list = with(Some(&foreign), &referrer("a/one")).unwrap();
        assert_eq!(list.json().unwrap()["manifests"][0]["data"], "aa");
        assert_eq!(read(&list.bytes, "here", None).unwrap().len(), 1, "sha512 is not known here");
        assert_eq!(read(b"{\"manifests\":null}", "here", None).unwrap(), []);
        for broken in ["", "{\"manifests\":7}", &"[".repeat(10_000)] {
            assert!(read(broken.as_bytes(), "here", None).is_err());
        }
    }
}
