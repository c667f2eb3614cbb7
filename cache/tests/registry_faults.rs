//! Registries that fail, lie, stall and lead astray: nothing wrong is ever stored, no secret goes
//! where it does not belong, and what can still be done is done.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod suite;

use std::sync::Arc;
use std::time::{Duration, Instant};

use drystone_cache::credentials::{Credential, Credentials};
use drystone_cache::descriptor::{MANIFEST_MEDIA_TYPE, Manifest};
use drystone_cache::error::RegistryError;
use drystone_cache::reference::{Host, Location, Tag, Target};
use drystone_cache::registry::{Registries, Settings};
use drystone_cache::repository::{Repository, Stored, Upload};
use drystone_cache::stream;
use drystone_store::digest::BlobDigest;
use suite::fake::{Fake, Fault, Profile};

const GOOD: Profile = Profile {
    referrers: Some(100),
    mounts: true,
    relative_location: false,
    most: None,
    deletes: true,
    limit: None,
    page: 50,
};

fn settings() -> Settings {
    Settings {
        attempts: 4,
        idle_timeout: Duration::from_millis(400),
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(2500),
        proxies: false,
        ..Settings::default()
    }
}

fn host(fake: &Fake) -> Host {
    Host::new(&format!("127.0.0.1:{}", fake.port)).unwrap()
}

fn open(fake: &Fake, settings: Settings) -> Arc<dyn Repository> {
    let location: Location = format!("{}/team/app", host(fake)).parse().unwrap();
    Registries::new(settings).open(&location)
}

fn with_credential(fake: &Fake, credential: Credential) -> Settings {
    Settings { credentials: Credentials::fixed(host(fake), credential), ..settings() }
}

fn ann(password: &str) -> Credential {
    Credential::new("ann", password)
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// The differences that the registries' documentation names. They were not asked themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_kinds_of_registries_keep_the_contract() {
    let profiles = [
        (
            "one that can do everything, in small pages",
            Profile { referrers: Some(1), page: 7, ..GOOD },
        ),
        // Docker Hub: limits requests (429), no referrers API, no deletes.
        ("Docker Hub", Profile { referrers: None, deletes: false, limit: Some(13), ..GOOD }),
        // GHCR: relative locations, no referrers API, mounts answered 202, no deletes by the API.
        (
            "GHCR",
            Profile {
                referrers: None,
                mounts: false,
                relative_location: true,
                deletes: false,
                ..GOOD
            },
        ),
        // ECR: mounts are answered 202 unless the account allows them.
        ("ECR", Profile { mounts: false, ..GOOD }),
        // Quay: all of 1.1, behind proxies that limit the size of a request.
        ("Quay", Profile { most: Some(18 << 20), ..GOOD }),
    ];
    for (name, profile) in profiles {
        println!("as {name}");
        let fake = Fake::start(profile);
        let registries = Registries::new(settings());
        let number = std::cell::Cell::new(0);
        let make = || {
            number.set(number.get() + 1);
            let location = format!("{}/team/r{}", host(&fake), number.get());
            registries.open(&location.parse().unwrap())
        };
        suite::holds(&make, suite::Abilities { deletes: profile.deletes }).await;
    }
}

#[tokio::test]
async fn a_broken_download_is_continued() {
    let content = noise(300_000);
    for fault in [Fault::Truncate(100_000), Fault::Stall(100_000), Fault::Truncate(0)] {
        let fake = Fake::start(GOOD);
        let digest = fake.put("team/app", &content);
        fake.fault("GET", "/blobs/", 2, fault);
        let repository = open(&fake, settings());
        let read = repository.blob_bytes(&digest, 300_000).await.unwrap().unwrap();
        assert!(read == content);
        let gets = fake
            .seen()
            .into_iter()
            .filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/"));
        assert_eq!(gets.count(), 3);
    }
    // A server that does not continue: what is known is passed over.
    let fake = Fake::start(GOOD);
    let digest = fake.put("team/app", &content);
    fake.fault("GET", "/blobs/", 1, Fault::Truncate(100_000));
    fake.fault("GET", "/blobs/", 1, Fault::IgnoreRange);
    let read = open(&fake, settings()).blob_bytes(&digest, 300_000).await.unwrap().unwrap();
    assert!(read == content);
    // One that never gets on.
    fake.fault("GET", "/blobs/", 99, Fault::Truncate(0));
    let error = open(&fake, settings()).blob_bytes(&digest, 300_000).await.unwrap_err();
    assert!(!error.is_verification_failure(), "{error}");
}

#[tokio::test]
async fn lies_are_told_and_never_stored() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(100_000);
    for (fault, whole) in [(Fault::Lie, true), (Fault::Endless, false)] {
        let fake = Fake::start(GOOD);
        let digest = fake.put("team/app", &content);
        fake.fault("GET", "/blobs/", 9, fault);
        let repository = open(&fake, settings());
        let blob = repository.blob(&digest, 100_000).await.unwrap().unwrap();
        let error = stream::write_file(blob, &folder.path().join("blob")).await.unwrap_err();
        assert!(error.is_verification_failure(), "{error}");
        assert_eq!(matches!(error, RegistryError::Mismatch { .. }), whole);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Who hashes by himself is spared the hash, and nothing else.
        let unhashed = repository.unhashed_blob(&digest, 100_000).await.unwrap().unwrap();
        assert_eq!(stream::collect(unhashed).await.is_ok(), whole);
    }
    let fake = Fake::start(GOOD);
    let digest = fake.put("team/app", &content);
    let other = fake.put("team/app", b"other");
    for wrong in [99_999, 100_001] {
        let error = open(&fake, settings()).blob_bytes(&digest, wrong).await.unwrap_err();
        assert!(matches!(error, RegistryError::Size { .. }), "{error}");
    }
    // A registry that says that it stored something else.
    let stated = format!("Docker-Content-Digest: {other}");
    fake.fault("PUT", "/blobs/uploads/", 1, Fault::Answer(201, stated.clone(), String::new()));
    let upload = Upload::bytes("new");
    let error = open(&fake, settings()).put_blob(&upload).await.unwrap_err();
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
    let manifest = Manifest::new(MANIFEST_MEDIA_TYPE, "{}");
    fake.fault("PUT", "/manifests/", 1, Fault::Answer(201, stated, String::new()));
    let error = open(&fake, settings()).put_manifest(&manifest, &[]).await.unwrap_err();
    assert!(error.is_verification_failure(), "{error}");
}

#[tokio::test]
async fn manifests_are_bounded_and_checked() {
    let fake = Fake::start(GOOD);
    let repository = open(&fake, settings());
    let tag = |text: &str| Target::Tag(Tag::new(text).unwrap());
    fake.put_manifest("team/app", "huge", &vec![b' '; (4 << 20) + 1]);
    let error = repository.manifest(&tag("huge")).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    fake.fault("GET", "/manifests/endless", 1, Fault::Endless);
    fake.put_manifest("team/app", "endless", b"{}");
    let error = repository.manifest(&tag("endless")).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    fake.put_manifest("team/app", "lie", b"{\"a\":1}");
    fake.fault("GET", "/manifests/", 2, Fault::Lie);
    for target in [tag("lie"), BlobDigest::of(b"{\"a\":1}").into()] {
        let error = repository.manifest(&target).await.unwrap_err();
        assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
    }
    // Nested beyond all reason: bytes like any others, and no panic where they are looked into.
    let deep = "[".repeat(1 << 20);
    fake.put_manifest("team/app", "deep", deep.as_bytes());
    let found = repository.manifest(&tag("deep")).await.unwrap().unwrap();
    assert!(found.json().is_err());
    repository.put_manifest(&found, &[]).await.unwrap();
    let subject = BlobDigest::of(b"subject");
    fake.fault("GET", "/referrers/", 1, Fault::Answer(200, String::new(), deep));
    let error = repository.referrers(&subject, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Malformed { .. }), "{error}");
}

/// docker-registry refuses a manifest while another client writes one of its blobs once more.
#[tokio::test]
async fn a_manifest_that_raced_is_written_again() {
    let fake = Fake::start(GOOD);
    let repository = open(&fake, settings());
    let manifest = Manifest::new(MANIFEST_MEDIA_TYPE, "{}");
    let refusal = |code: &str, message: &str| {
        let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\"}}]}}");
        Fault::Answer(400, String::new(), body)
    };
    let raced = refusal("DIGEST_INVALID", "provided digest did not match uploaded content");
    fake.fault("PUT", "/manifests/", 2, raced);
    repository.put_manifest(&manifest, &[Tag::new("raced").unwrap()]).await.unwrap();
    let before = fake.seen().len();
    fake.fault("PUT", "/manifests/", 9, refusal("MANIFEST_INVALID", "manifest invalid"));
    let error = repository.put_manifest(&manifest, &[]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error}");
    assert_eq!(fake.seen().len() - before, 1, "what is invalid stays so");
}

#[tokio::test]
async fn lists_without_end_and_pages_elsewhere_are_refused() {
    let fake = Fake::start(GOOD);
    let repository = open(&fake, settings());
    for link in ["</v2/team/app/tags/list?n=1000>", "<http://127.0.0.2:1/v2/x>", "<file:///etc>"] {
        let headers = format!("Link: {link}; rel=\"next\"");
        let page = Fault::Answer(200, headers, "{\"tags\":[\"a\"]}".to_owned());
        fake.fault("GET", "/tags/list", 1, page);
        let error = repository.tags().await.unwrap_err();
        assert!(matches!(error, RegistryError::Malformed { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_upload_is_continued() {
    let content = noise(3_000_000);
    let upload = Upload::bytes(content.clone());
    let sent = |fake: &Fake| -> usize { fake.seen().iter().map(|seen| seen.body).sum() };

    // Broken twice, each time with a part received.
    let fake = Fake::start(GOOD);
    fake.fault("PUT", "/blobs/uploads/", 1, Fault::HangUp(1_000_000));
    fake.fault("PATCH", "/blobs/uploads/", 1, Fault::HangUp(1_000_000));
    let stored = open(&fake, settings()).put_blob(&upload).await.unwrap();
    assert_eq!(stored, Stored::Pushed);
    assert!(fake.blob("team/app", &upload.digest).unwrap() == content);
    assert_eq!(sent(&fake), 3_000_000, "no byte is received twice");

    // The registry forgets the upload: it begins anew.
    let fake = Fake::start(GOOD);
    fake.fault("PUT", "/blobs/uploads/", 1, Fault::HangUp(1_000_000));
    fake.fault("GET", "/blobs/uploads/", 1, Fault::Forget);
    open(&fake, settings()).put_blob(&upload).await.unwrap();
    assert!(fake.blob("team/app", &upload.digest).unwrap() == content);
    assert_eq!(sent(&fake), 4_000_000);

    // Only the answer is lost.
    let fake = Fake::start(GOOD);
    fake.fault("PUT", "/blobs/uploads/", 1, Fault::LoseAnswer);
    open(&fake, settings()).put_blob(&upload).await.unwrap();
    assert_eq!(sent(&fake), 3_000_000, "what is there is not sent again");

    // It never works.
    let fake = Fake::start(GOOD);
    fake.fault("PUT", "/blobs/uploads/", 99, Fault::HangUp(0));
    let error = open(&fake, settings()).put_blob(&upload).await.unwrap_err();
    assert!(matches!(error, RegistryError::Transport { .. }), "{error}");
    assert_eq!(fake.blob("team/app", &upload.digest), None);
}

#[tokio::test]
async fn copies_continue_when_their_source_breaks() {
    let (from, to) = (Fake::start(GOOD), Fake::start(GOOD));
    let content = noise(500_000);
    let digest = from.put("team/app", &content);
    from.fault("GET", "/blobs/", 2, Fault::Truncate(100_000));
    to.fault("PUT", "/blobs/uploads/", 1, Fault::HangUp(200_000));
    let upload = Upload::copy(digest, 500_000, open(&from, settings()));
    open(&to, settings()).put_blob(&upload).await.unwrap();
    assert!(to.blob("team/app", &digest).unwrap() == content);
    // A source that lies is to blame, and its lie goes nowhere.
    let (from, to) = (Fake::start(GOOD), Fake::start(GOOD));
    from.put("team/app", &content);
    from.fault("GET", "/blobs/", 99, Fault::Lie);
    let upload = Upload::copy(digest, 500_000, open(&from, settings()));
    let error = open(&to, settings()).put_blob(&upload).await.unwrap_err();
    println!("{error}");
    assert_eq!(to.blob("team/app", &digest), None);
}

#[tokio::test]
async fn overload_is_waited_for_but_not_for_ever() {
    let fake = Fake::start(GOOD);
    let digest = fake.put("team/app", b"hello");
    let busy = |seconds: u32| Fault::Answer(429, format!("Retry-After: {seconds}"), String::new());
    fake.fault("HEAD", "/blobs/", 2, Fault::Answer(503, String::new(), String::new()));
    fake.fault("HEAD", "/blobs/", 1, busy(1));
    let start = Instant::now();
    assert_eq!(open(&fake, settings()).blob_size(&digest).await.unwrap(), Some(5));
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
    for (wait, requests) in [(0, 4), (3600, 1)] {
        let before = fake.seen().len();
        fake.fault("HEAD", "/blobs/", requests, busy(wait));
        let error = open(&fake, settings()).blob_size(&digest).await.unwrap_err();
        assert!(matches!(error, RegistryError::Status { status: 429, .. }), "{error}");
        let heads = fake.seen().into_iter().skip(before).filter(|seen| seen.method == "HEAD");
        assert_eq!(heads.count(), requests, "an hour is not waited for");
    }
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_renewed() {
    let fake = Fake::start(GOOD);
    fake.want_tokens(300);
    let tokens =
        |fake: &Fake| fake.seen().iter().filter(|seen| seen.path.starts_with("/token")).count();
    let repository = open(&fake, with_credential(&fake, ann("hunter2")));
    for content in ["one", "two", "three"] {
        repository.put_blob(&Upload::bytes(content)).await.unwrap();
    }
    assert_eq!(tokens(&fake), 2, "one to read and one to write");
    // They expire while a blob is sent.
    fake.expire();
    repository.put_blob(&Upload::bytes("four")).await.unwrap();
    fake.fault("PUT", "/blobs/uploads/", 1, Fault::Answer(401, String::new(), String::new()));
    repository.put_blob(&Upload::bytes("five")).await.unwrap();
    assert!(fake.blob("team/app", &BlobDigest::of(b"five")).is_some());

    let fake = Fake::start(GOOD);
    fake.want_tokens(300);
    let identity = Credential::IdentityToken("long-lived".to_owned());
    open(&fake, with_credential(&fake, identity)).put_blob(&Upload::bytes("x")).await.unwrap();
    // A token that is as good as over is not used twice.
    let fake = Fake::start(GOOD);
    fake.want_tokens(0);
    let repository = open(&fake, with_credential(&fake, ann("hunter2")));
    repository.put_blob(&Upload::bytes("one")).await.unwrap();
    assert!(tokens(&fake) > 2);
}

#[tokio::test]
async fn wrong_credentials_are_denied_without_being_shown() {
    let fake = Fake::start(GOOD);
    fake.want_tokens(300);
    for settings in [
        with_credential(&fake, ann("not-the-password")),
        with_credential(&fake, Credential::IdentityToken("not-the-password".to_owned())),
        settings(),
    ] {
        let shown = format!("{settings:?}");
        let error = open(&fake, settings).put_blob(&Upload::bytes("x")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { status: 401, .. }), "{error}");
        assert!(!format!("{error} {error:?} {shown}").contains("not-the-password"));
    }
    let before = fake.seen().len();
    assert!(before < 20, "a wrong password is not tried again and again: {before}");
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_host() {
    let (fake, other) = (Fake::start(GOOD), Fake::start(GOOD));
    fake.want_tokens(300);
    let digest = fake.put("team/app", b"hello");
    other.put("team/app", b"hello");
    let path = format!("/v2/team/app/blobs/{digest}");
    let location = format!("Location: http://127.0.0.1:{}{path}", other.port);
    let repository = open(&fake, with_credential(&fake, ann("hunter2")));
    assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(5));
    fake.fault("GET", "/blobs/", 1, Fault::Answer(307, location.clone(), String::new()));
    let read = repository.blob_bytes(&digest, 5).await.unwrap().unwrap();
    assert_eq!(read, "hello");
    // The other host asks for credentials, and names a token server of its own.
    other.want_tokens(300);
    fake.fault("GET", "/blobs/", 1, Fault::Answer(307, location, String::new()));
    let error = repository.blob_bytes(&digest, 5).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    // An upload is led away.
    let location =
        format!("Location: http://127.0.0.1:{}/v2/team/app/blobs/uploads/u1", other.port);
    fake.fault("POST", "/blobs/uploads/", 9, Fault::Answer(202, location, String::new()));
    repository.put_blob(&Upload::bytes("x")).await.unwrap_err();
    assert!(!other.seen().is_empty());
    for seen in other.seen() {
        assert!(!seen.headers.contains_key("authorization"), "{seen:?}");
        assert!(!seen.path.starts_with("/token"), "{seen:?}");
    }
}

#[tokio::test]
async fn registries_that_cannot_delete_say_so() {
    let fake = Fake::start(Profile { deletes: false, ..GOOD });
    let digest = fake.put("team/app", b"hello");
    fake.put_manifest("team/app", "x", b"{}");
    let repository = open(&fake, settings());
    let error = repository.delete_blob(&digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }), "{error}");
    let target = Target::Tag(Tag::new("x").unwrap());
    let error = repository.delete_manifest(&target).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn other_hosts_are_asked_over_tls_only() {
    let fake = Fake::start(GOOD);
    // A name of this machine that does not look like one.
    let name = format!("127.0.0.1.nip.invalid:{}/x", fake.port);
    let repository = Registries::new(settings()).open(&name.parse().unwrap());
    let error = repository.tags().await.unwrap_err();
    assert!(format!("{error}").contains("https://127.0.0.1.nip.invalid"), "{error}");
    assert!(fake.seen().is_empty());
}
