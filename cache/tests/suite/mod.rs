//! The suite: one function a promise, each with a repository of its own.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod fake;
pub mod peer;

use std::sync::Arc;

use bytes::Bytes;
use drystone_cache::descriptor::{INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Manifest};
use drystone_cache::error::RegistryError;
use drystone_cache::reference::{Tag, Target};
use drystone_cache::repository::{Repository, Stored, Upload};
use drystone_cache::stream;
use drystone_store::digest::BlobDigest;
use serde_json::json;

pub type Shared = Arc<dyn Repository>;

/// What not every repository can do.
#[derive(Clone, Copy)]
pub struct Abilities {
    pub deletes: bool,
}

/// Runs the whole suite; `make` gives an empty repository each time.
pub async fn holds(make: &dyn Fn() -> Shared, abilities: Abilities) {
    nothing_is_there(make()).await;
    blobs_come_back(make()).await;
    large_blobs_stream(make()).await;
    wrong_bytes_are_refused(make()).await;
    blobs_are_copied_between_repositories(make(), make()).await;
    manifests_come_back(make()).await;
    tags_move_and_are_listed(make()).await;
    referrers_are_listed(make()).await;
    many_write_at_once(make()).await;
    if abilities.deletes {
        what_is_deleted_is_gone(make()).await;
    }
}

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

/// An artifact's manifest whose blobs are in the repository.
pub async fn artifact(repository: &Shared, content: &str, subject: Option<&Manifest>) -> Manifest {
    let config = repository.put_bytes("application/vnd.oci.empty.v1+json", "{}".into());
    let config = config.await.unwrap();
    let layer = repository.put_bytes("text/plain", Bytes::from(content.to_owned())).await.unwrap();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": format!("application/{}", content.split(' ').next().unwrap()),
        "config": config,
        "layers": [layer],
        "annotations": {"test": content},
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": subject.bytes.len(),
        });
    }
    Manifest::new(MANIFEST_MEDIA_TYPE, manifest.to_string())
}

async fn nothing_is_there(repository: Shared) {
    let digest = BlobDigest::of(b"nowhere");
    for target in [Target::Digest(digest), Target::Tag(tag("nowhere"))] {
        assert_eq!(repository.manifest(&target).await.unwrap(), None);
    }
    assert_eq!(repository.blob_size(&digest).await.unwrap(), None);
    assert!(repository.blob(&digest, 7).await.unwrap().is_none());
    assert!(repository.unhashed_blob(&digest, 7).await.unwrap().is_none());
    assert_eq!(repository.tags().await.unwrap(), []);
    assert_eq!(repository.referrers(&digest, None).await.unwrap(), []);
}

async fn blobs_come_back(repository: Shared) {
    for content in ["", "x", "hello"] {
        let upload = Upload::bytes(content);
        assert_eq!(repository.put_blob(&upload).await.unwrap(), Stored::Pushed, "{content:?}");
        assert_eq!(repository.put_blob(&upload).await.unwrap(), Stored::Existed, "{content:?}");
        let size = content.len() as u64;
        assert_eq!(repository.blob_size(&upload.digest).await.unwrap(), Some(size));
        let back = repository.blob_bytes(&upload.digest, size).await.unwrap();
        assert_eq!(back.unwrap(), content);
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn large_blobs_stream(repository: Shared) {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let content = noise(20 << 20);
    std::fs::write(&source, &content).unwrap();
    let (digest, size) = (BlobDigest::of(&content), content.len() as u64);
    let upload = Upload::file(digest, size, &source);
    assert_eq!(repository.put_blob(&upload).await.unwrap(), Stored::Pushed);
    let blob = repository.blob(&digest, size).await.unwrap().unwrap();
    stream::write_file(blob, &target).await.unwrap();
    assert!(std::fs::read(&target).unwrap() == content);
    let unhashed = repository.unhashed_blob(&digest, size).await.unwrap().unwrap();
    assert!(stream::collect(unhashed).await.unwrap() == content);
    let ends_well = match repository.unhashed_blob(&digest, size - 1).await {
        Ok(Some(blob)) => stream::collect(blob).await.is_ok(),
        Ok(None) | Err(_) => false,
    };
    assert!(!ends_well, "the size is checked");
}

/// What is not what its digest says never becomes visible.
async fn wrong_bytes_are_refused(repository: Shared) {
    let truth = BlobDigest::of(b"truth");
    let lie = Upload { digest: truth, ..Upload::bytes("lying") };
    let error = repository.put_blob(&lie).await.unwrap_err();
    println!("refused: {error}");
    assert_eq!(repository.blob_size(&truth).await.unwrap(), None);
    let short = Upload { digest: truth, size: 5, ..Upload::bytes("tru") };
    repository.put_blob(&short).await.unwrap_err();
    assert_eq!(repository.blob_size(&truth).await.unwrap(), None);
    let folder = tempfile::tempdir().unwrap();
    let missing = Upload::file(truth, 5, folder.path().join("missing"));
    repository.put_blob(&missing).await.unwrap_err();
    assert_eq!(repository.blob_size(&truth).await.unwrap(), None);

    // A caller that expects another size gets nothing either.
    let upload = Upload::bytes("truth");
    repository.put_blob(&upload).await.unwrap();
    for wrong in [4, 6] {
        let error = repository.blob_bytes(&truth, wrong).await.unwrap_err();
        assert!(error.is_verification_failure(), "{error}");
    }
    let huge = Manifest::new(MANIFEST_MEDIA_TYPE, vec![b' '; (4 << 20) + 1]);
    let error = repository.put_manifest(&huge, &[]).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
}

async fn blobs_are_copied_between_repositories(from: Shared, to: Shared) {
    let content = noise(3 << 20);
    let (digest, size) = (BlobDigest::of(&content), content.len() as u64);
    let upload = Upload::copy(digest, size, Arc::clone(&from));
    let error = to.put_blob(&upload).await.unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error}");
    from.put_blob(&Upload::bytes(content.clone())).await.unwrap();
    assert_eq!(to.put_blob(&upload).await.unwrap(), Stored::Pushed);
    assert!(to.blob_bytes(&digest, size).await.unwrap().unwrap() == content);
}

async fn manifests_come_back(repository: Shared) {
    let one = artifact(&repository, "one", None).await;
    repository.put_manifest(&one, &[]).await.unwrap();
    repository.put_manifest(&one, &[]).await.unwrap();
    let back = repository.manifest(&one.digest.into()).await.unwrap();
    assert_eq!(back, Some(one.clone()));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": [
        {"mediaType": one.media_type, "digest": one.digest, "size": one.bytes.len()}
    ]});
    let index = Manifest::new(INDEX_MEDIA_TYPE, index.to_string());
    repository.put_manifest(&index, &[tag("a"), tag("b")]).await.unwrap();
    for target in [Target::Tag(tag("a")), Target::Tag(tag("b")), index.digest.into()] {
        assert_eq!(repository.manifest(&target).await.unwrap(), Some(index.clone()));
    }
}

async fn tags_move_and_are_listed(repository: Shared) {
    let one = artifact(&repository, "one", None).await;
    let two = artifact(&repository, "two", None).await;
    repository.put_manifest(&one, &[tag("b"), tag("A")]).await.unwrap();
    repository.put_manifest(&two, &[tag("b")]).await.unwrap();
    assert_eq!(repository.manifest(&Target::Tag(tag("b"))).await.unwrap().unwrap(), two);
    assert_eq!(repository.manifest(&Target::Tag(tag("A"))).await.unwrap().unwrap(), one);
    for number in 0..120 {
        repository.put_manifest(&one, &[tag(&format!("n{number}"))]).await.unwrap();
    }
    let tags = repository.tags().await.unwrap();
    assert_eq!(tags.len(), 122);
    assert!(tags.is_sorted());
    assert!(tags.contains(&tag("n119")));
}

async fn referrers_are_listed(repository: Shared) {
    let subject = artifact(&repository, "subject", None).await;
    repository.put_manifest(&subject, &[tag("subject")]).await.unwrap();
    let one = artifact(&repository, "one about", Some(&subject)).await;
    let two = artifact(&repository, "two about", Some(&subject)).await;
    for manifest in [&one, &two, &one] {
        repository.put_manifest(manifest, &[]).await.unwrap();
    }
    let all = repository.referrers(&subject.digest, None).await.unwrap();
    let mut digests: Vec<_> = all.iter().map(|descriptor| descriptor.digest).collect();
    digests.sort();
    let mut expected = [one.digest, two.digest];
    expected.sort();
    assert_eq!(digests, expected);
    let some = repository.referrers(&subject.digest, Some("application/two")).await.unwrap();
    assert_eq!(some.len(), 1);
    assert_eq!(some[0].digest, two.digest);
    assert_eq!(some[0].size, two.bytes.len() as u64);
    assert_eq!(some[0].artifact_type.as_deref(), Some("application/two"));
    assert_eq!(some[0].annotations["test"], "two about");
    let none = repository.referrers(&subject.digest, Some("application/three")).await.unwrap();
    assert_eq!(none, []);
}

async fn many_write_at_once(repository: Shared) {
    let content = noise(100_000);
    let mut tasks = Vec::new();
    for number in 0..16 {
        let (repository, content) = (Arc::clone(&repository), content.clone());
        tasks.push(tokio::spawn(async move {
            repository.put_blob(&Upload::bytes(content)).await.unwrap();
            let own = artifact(&repository, &format!("own {number}"), None).await;
            repository.put_manifest(&own, &[tag(&format!("own-{number}"))]).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(repository.tags().await.unwrap().len(), 16);
    let (digest, size) = (BlobDigest::of(&content), content.len() as u64);
    assert!(repository.blob_bytes(&digest, size).await.unwrap().unwrap() == content);
}

async fn what_is_deleted_is_gone(repository: Shared) {
    let subject = artifact(&repository, "subject", None).await;
    repository.put_manifest(&subject, &[tag("subject")]).await.unwrap();
    let about = artifact(&repository, "about", Some(&subject)).await;
    repository.put_manifest(&about, &[]).await.unwrap();
    assert!(repository.delete_manifest(&about.digest.into()).await.unwrap());
    assert!(!repository.delete_manifest(&about.digest.into()).await.unwrap());
    assert_eq!(repository.manifest(&about.digest.into()).await.unwrap(), None);
    assert_eq!(repository.referrers(&subject.digest, None).await.unwrap(), []);
    assert!(repository.delete_manifest(&subject.digest.into()).await.unwrap());
    assert_eq!(repository.manifest(&Target::Tag(tag("subject"))).await.unwrap(), None);
    let blob = Upload::bytes("deleted");
    repository.put_blob(&blob).await.unwrap();
    assert!(repository.delete_blob(&blob.digest).await.unwrap());
    assert_eq!(repository.blob_size(&blob.digest).await.unwrap(), None);
    assert!(!repository.delete_blob(&blob.digest).await.unwrap());
}
