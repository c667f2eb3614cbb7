//! The ids of documents.

use super::*;

#[test]
fn uuids_are_of_version_8() {
    let uuid = uuid("a", "b");
    assert_eq!(uuid.len(), 36);
    assert_eq!(&uuid[14..15], "8");
    assert!("89ab".contains(&uuid[19..20]), "{uuid}");
}
