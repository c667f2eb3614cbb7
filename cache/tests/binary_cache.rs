//! Realisations are shared with a folder and found there again.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod suite;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use drystone_cache::attestation::{Attestation, BuildContext, SandboxMode};
use drystone_cache::binary_cache::{
    Caches, Inventory, Share, Shared, Subject, realisation_tag, share,
};
use drystone_cache::descriptor::{Descriptor, Manifest};
use drystone_cache::folder::Folder;
use drystone_cache::key::SecretKey;
use drystone_cache::reference::{Location, Target};
use drystone_cache::registry::{Registries, Settings};
use drystone_cache::repository::{Repository, Upload};
use drystone_cache::small_blobs;
use drystone_cache::traffic::Kind;
use drystone_cache::trust::{Trust, TrustedKey};
use drystone_store::derivation::Derivation;
use drystone_store::digest::{BlobDigest, DerivationId, DiffId, TreeHash};
use drystone_store::layer::{Compression, Layer};
use drystone_store::path::StorePath;
use drystone_store::realisation::{ListingRef, Output, Realisation};
use drystone_store::substituter::{Substitute, Substituter as _, Wanted};
use suite::fake::{Fake, Profile};
use tokio::runtime::Runtime;

const NOW: i64 = 1_800_000_000;

/// Builders, a folder that is their cache, and the files that their stores would have.
struct World {
    runtime: Runtime,
    folder: tempfile::TempDir,
    cache: Arc<dyn Repository>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blobs")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let cache = Arc::new(Folder::new(folder.path().join("cache")));
        Self { runtime, cache, folder }
    }

    fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.folder.path().join("blobs").join(digest.to_hex())
    }

    /// A blob of a builder's store.
    fn blob(&self, text: &str) -> (BlobDigest, u64) {
        let digest = BlobDigest::of(text.as_bytes());
        fs::write(self.blob_path(&digest), text).unwrap();
        (digest, text.len() as u64)
    }

    /// A package that was imported; `seed` tells packages apart, `tree` what came of them.
    fn package(&self, seed: u8, tree: u8, compressions: &[Compression]) -> Attestation {
        let derivation = Derivation { outputs: vec!["data".into()], ..Derivation::new("deb", 1) }
            .with_inputs([TreeHash::from_bytes([seed; 32])]);
        let diff_id = DiffId::from_bytes([tree; 32]);
        let layer = |compression: &Compression| {
            let (digest, size) = self.blob(&format!("layer {tree} {compression:?}"));
            Layer { compression: *compression, digest, size, diff_id }
        };
        let (listing, size) = self.blob(&format!("listing {tree}"));
        let output = Output {
            path: StorePath::new(TreeHash::from_bytes([tree; 32]), "package-1.0"),
            diff_id,
            size: 10_240,
            layers: compressions.iter().map(layer).collect(),
            listing: ListingRef { digest: listing, size },
            references: Vec::new(),
        };
        let outputs = [("data".to_owned(), output)].into();
        Attestation {
            realisation: Realisation { derivation: derivation.id(), outputs },
            derivation,
            context: BuildContext { sandbox: SandboxMode::Unused, emulation: false },
        }
    }

    fn share(&self, key: &SecretKey, attestations: &[&Attestation]) -> Shared {
        let one = |attestation: &&Attestation| Share {
            envelope: attestation.sign(key).unwrap(),
            derivation: attestation.derivation.id(),
            outputs: attestation.realisation.outputs.values().cloned().collect(),
            is_pinned: true,
            is_whole: false,
            is_lost: false,
        };
        let shares: Vec<Share> = attestations.iter().map(one).collect();
        let part = |digest: &BlobDigest| Some(self.blob_path(digest));
        let public = key.public();
        let subjects = [subject()];
        let done = share(&self.cache, &shares, &part, &[], &subjects, &public);
        self.runtime.block_on(done)
    }

    fn caches(&self, keys: &[&SecretKey], threshold: usize) -> Caches {
        let keys = keys.iter().map(|key| TrustedKey::new(key.public()));
        let trust = match keys.len() {
            0 => Trust::nobody(),
            _ => Trust::new(keys, threshold).unwrap(),
        };
        let (repositories, runtime) = (vec![Arc::clone(&self.cache)], self.runtime.handle());
        Caches::new(repositories, trust, NOW, vec![subject()], runtime.clone())
    }

    /// Removes the bundles' tags, so that realisations are asked for one by one.
    fn forget_bundles(&self) {
        let done = async {
            for tag in self.cache.tags().await.unwrap() {
                if tag.as_str().starts_with("bundle-") {
                    self.cache.delete_manifest(&Target::Tag(tag)).await.unwrap();
                }
            }
        };
        self.runtime.block_on(done);
    }

    fn requests(&self) -> u64 {
        self.cache.counts().values().map(|count| count.requests).sum()
    }
}

fn subject() -> Subject {
    Subject { image: "team/image".to_owned(), platform: "linux/amd64".to_owned() }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&format!("builder-{seed}"), &[seed; 32]).unwrap()
}

fn wanted(ids: &[DerivationId]) -> Vec<Wanted> {
    ids.iter().map(|id| Wanted::from(*id)).collect()
}

fn is(substitute: &Substitute, attestation: &Attestation) -> bool {
    substitute.realisation == attestation.realisation
        && substitute.derivation == attestation.derivation
}

#[test]
fn what_is_shared_is_found() {
    let world = World::new();
    let (one, two) =
        (world.package(1, 11, &[Compression::Gzip1]), world.package(2, 12, &[Compression::Store1]));
    let shared = world.share(&key(1), &[&one, &two]);
    assert_eq!((shared.written, shared.existed, shared.blobs), (2, 0, 6), "{shared:?}");
    assert_eq!(shared.failed, Vec::<String>::new());
    let unknown = world.package(3, 13, &[]).derivation.id();
    let ids = [one.derivation.id(), two.derivation.id(), unknown];
    for has_bundle in [true, false] {
        let caches = world.caches(&[&key(1)], 1);
        let found = caches.find(&wanted(&ids));
        assert_eq!(found.len(), 2);
        for attestation in [&one, &two] {
            let substitute = found.iter().find(|it| is(it, attestation)).unwrap();
            assert!(substitute.is_trusted);
            assert_eq!(substitute.attestations, [attestation.sign(&key(1)).unwrap().to_json()]);
        }
        let looked = caches.looked();
        assert_eq!((looked.found, looked.missed), (2, 1), "with a bundle: {has_bundle}");
        let layer = &one.realisation.outputs["data"].layers[0];
        let mut bytes = Vec::new();
        assert!(caches.fetch(0, &layer.digest, layer.size, &mut bytes).unwrap());
        assert_eq!(bytes, b"layer 11 Gzip1");
        assert_eq!((caches.looked().blobs, caches.looked().bytes), (1, layer.size));
        world.forget_bundles();
    }
}

#[test]
fn sharing_again_writes_nothing_and_more_compressions_are_added() {
    let world = World::new();
    let plain = world.package(1, 11, &[Compression::Gzip1]);
    world.share(&key(1), &[&plain]);
    let writes = |world: &World| {
        let counts = world.cache.counts();
        counts.get(&Kind::ManifestWrite).map_or(0, |count| count.requests)
    };
    let before = writes(&world);
    let again = world.share(&key(1), &[&plain]);
    assert_eq!((again.written, again.existed, again.blobs), (0, 1, 0));
    assert_eq!(writes(&world), before, "not even the bundle");

    // However many there are, the bundle says that they are there.
    let many = World::new();
    let packages: Vec<Attestation> =
        (1..50).map(|seed| many.package(seed, seed, &[Compression::Gzip1])).collect();
    let packages: Vec<&Attestation> = packages.iter().collect();
    many.share(&key(1), &packages);
    let before = many.requests();
    assert_eq!(many.share(&key(1), &packages).existed, 49);
    assert!(many.requests() - before < 10, "{}", many.requests() - before);

    let both = world.package(1, 11, &[Compression::Gzip1, Compression::Zstd1]);
    let more = world.share(&key(1), &[&both]);
    assert_eq!((more.written, more.existed), (1, 0));
    // Who has one form only takes none away.
    let fewer = world.share(&key(1), &[&plain]);
    assert_eq!((fewer.written, fewer.existed), (0, 1));
    world.forget_bundles();
    let found = world.caches(&[&key(1)], 1).find(&wanted(&[both.derivation.id()]));
    assert!(is(&found[0], &both));

    // Another form, of as many: the tag stays, and the bundle promises nothing that is not there.
    let other = World::new();
    let zstd = other.package(1, 11, &[Compression::Zstd1]);
    other.share(&key(1), &[&other.package(1, 11, &[Compression::Gzip1])]);
    let kept = other.share(&key(1), &[&zstd]);
    assert_eq!((kept.written, kept.existed), (0, 1));
    let found = other.caches(&[&key(1)], 1).find(&wanted(&[zstd.derivation.id()]));
    assert!(is(&found[0], &other.package(1, 11, &[Compression::Gzip1])));
}

#[test]
fn artifacts_and_tags_are_frozen() {
    let world = World::new();
    let package = world.package(1, 11, &[Compression::Gzip1, Compression::Store1]);
    world.share(&key(1), &[&package]);
    let id = package.derivation.id();
    let public = key(1).public().id();
    let tags: Vec<String> = world
        .runtime
        .block_on(world.cache.tags())
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut expected = vec![
        subject().tag(public).to_string(),
        realisation_tag(&id, None).to_string(),
        realisation_tag(&id, Some(public)).to_string(),
    ];
    expected.sort();
    assert_eq!(tags, expected);
    assert_eq!(tags[0], "bundle-8b0232877b031765a26267838d28f033-34750f98bd59fcfc");
    for tag in [realisation_tag(&id, None), realisation_tag(&id, Some(public))] {
        let manifest = world.runtime.block_on(world.cache.manifest(&Target::Tag(tag))).unwrap();
        let text = String::from_utf8(manifest.unwrap().bytes.to_vec()).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/realisation.manifest.json");
        let golden = fs::read_to_string(path).unwrap_or_default();
        assert!(golden.trim_end() == text, "it is now:\n{text}");
    }
}

#[test]
fn fewer_keys_than_must_agree_are_not_believed() {
    let world = World::new();
    let package = world.package(1, 11, &[Compression::Gzip1]);
    let ids = [package.derivation.id()];
    world.share(&key(1), &[&package]);
    assert!(world.caches(&[&key(1), &key(2)], 2).find(&wanted(&ids)).is_empty());
    assert!(world.caches(&[&key(2)], 1).find(&wanted(&ids)).is_empty(), "a stranger's");
    assert!(world.caches(&[], 1).find(&wanted(&ids)).is_empty(), "nobody is trusted");
    world.share(&key(2), &[&package]);
    let found = world.caches(&[&key(1), &key(2)], 2).find(&wanted(&ids));
    assert!(found[0].is_trusted && is(&found[0], &package));
    // One payload with both signatures.
    assert_eq!(found[0].attestations.len(), 1);
    assert_eq!(found[0].attestations[0].matches("\"keyid\"").count(), 2);
}

#[test]
fn builders_that_disagree_are_reported_and_not_believed() {
    let world = World::new();
    let (one, other) =
        (world.package(1, 11, &[Compression::Gzip1]), world.package(1, 12, &[Compression::Gzip1]));
    assert_eq!(one.derivation.id(), other.derivation.id());
    world.share(&key(1), &[&one]);
    world.share(&key(2), &[&other]);
    let caches = world.caches(&[&key(1), &key(2)], 2);
    assert!(caches.find(&wanted(&[one.derivation.id()])).is_empty());
    let said = caches.looked().disagreements;
    assert_eq!(said.len(), 1);
    for words in ["builder-1 built", "builder-2 built", &one.derivation.id().to_string()] {
        assert!(said[0].contains(words), "{said:?}");
    }
    // Who trusts one of them only sees no disagreement.
    let caches = world.caches(&[&key(2)], 1);
    assert!(is(&caches.find(&wanted(&[one.derivation.id()]))[0], &other));
}

#[test]
fn without_keys_only_pinned_trees_are_answered_and_marked() {
    let world = World::new();
    let package = world.package(1, 11, &[Compression::Gzip1]);
    world.share(&key(1), &[&package]);
    let mut question = Wanted::from(package.derivation.id());
    question.pinned.insert("data".to_owned(), TreeHash::from_bytes([11; 32]));
    let found = world.caches(&[], 1).find(&[question]);
    assert!(is(&found[0], &package) && !found[0].is_trusted);
}

#[test]
fn what_was_put_under_a_tag_by_somebody_else_is_replaced() {
    let world = World::new();
    let (one, two) =
        (world.package(1, 11, &[Compression::Gzip1]), world.package(2, 12, &[Compression::Gzip1]));
    world.share(&key(1), &[&one, &two]);
    world.forget_bundles();
    let public = key(1).public().id();
    // The second one is replayed as the first.
    let tag = |it: &Attestation| realisation_tag(&it.derivation.id(), Some(public));
    let replay = async {
        let manifest = world.cache.manifest(&Target::Tag(tag(&two))).await.unwrap().unwrap();
        world.cache.put_manifest(&manifest, &[tag(&one)]).await.unwrap();
    };
    world.runtime.block_on(replay);
    let ids = [one.derivation.id()];
    assert!(world.caches(&[&key(1)], 1).find(&wanted(&ids)).is_empty());
    let shared = world.share(&key(1), &[&one, &two]);
    assert_eq!((shared.written, shared.existed), (1, 1), "{shared:?}");
    world.forget_bundles();
    assert!(is(&world.caches(&[&key(1)], 1).find(&wanted(&ids))[0], &one));
}

#[test]
fn a_cache_that_fails_is_given_up_and_fails_nothing() {
    let world = World::new();
    fs::create_dir(world.folder.path().join("cache")).unwrap();
    fs::write(world.folder.path().join("cache/index.json"), "no index").unwrap();
    let caches = world.caches(&[&key(1)], 1);
    let ids: Vec<DerivationId> =
        (0..100).map(|seed| world.package(seed, seed, &[]).derivation.id()).collect();
    assert!(caches.find(&wanted(&ids)).is_empty());
    let asked = world.requests();
    // Those that were under way when it was given up are still answered.
    assert!((3..=40).contains(&asked), "{asked}");
    assert!(caches.find(&wanted(&ids)).is_empty());
    assert_eq!(world.requests(), asked, "it is not asked again");
    assert_eq!(caches.looked().missed, 200);
    let shared = world.share(&key(1), &[&world.package(1, 11, &[Compression::Gzip1])]);
    assert_eq!(shared.written, 0);
    assert!(!shared.failed.is_empty());
}

/// A registry may refuse a manifest while one of its blobs is written again, and each byte costs.
#[test]
fn what_realisations_have_in_common_is_sent_once() {
    let fake =
        Fake::start(Profile { mounts: true, deletes: true, page: 1000, ..Profile::default() });
    let location: Location = format!("127.0.0.1:{}/team/app", fake.port).parse().unwrap();
    let settings = Settings { proxies: false, ..Settings::default() };
    let world = World { cache: Registries::new(settings).open(&location), ..World::new() };
    let packages: Vec<Attestation> =
        (1..=40).map(|seed| world.package(seed, 11, &[Compression::Gzip1])).collect();
    let shared = world.share(&key(1), &packages.iter().collect::<Vec<_>>());
    assert_eq!((shared.written, shared.failed), (40, Vec::new()));
    // An envelope for each, the layer and the listing.
    assert_eq!(shared.blobs, 42);
    let seen = fake.seen();
    let opened = seen.iter().filter(|seen| seen.method == "POST").count();
    // The empty configuration, the bundle and the small blobs beside it belong to all.
    assert_eq!(opened, 45);
}

/// Fetches a package's layer and listing, which must be what they are; the blobs that were read.
fn fetched(world: &World, packages: &[Attestation]) -> u64 {
    let reads = || world.cache.counts().get(&Kind::BlobRead).map_or(0, |count| count.requests);
    let caches = world.caches(&[&key(1)], 1);
    let ids: Vec<DerivationId> = packages.iter().map(|it| it.derivation.id()).collect();
    assert_eq!(caches.find(&wanted(&ids)).len(), packages.len());
    let before = reads();
    for package in packages {
        let output = &package.realisation.outputs["data"];
        let layer = &output.layers[0];
        for (digest, size) in
            [(layer.digest, layer.size), (output.listing.digest, output.listing.size)]
        {
            let mut bytes = Vec::new();
            assert!(caches.fetch(0, &digest, size, &mut bytes).unwrap());
            assert_eq!(bytes, fs::read(world.blob_path(&digest)).unwrap());
        }
    }
    assert_eq!(caches.looked().blobs, 2 * packages.len() as u64);
    reads() - before
}

#[test]
fn small_blobs_come_in_one_request_and_one_by_one_where_these_are_lost() {
    let world = World::new();
    let packages: Vec<Attestation> =
        (1..=20).map(|seed| world.package(seed, seed, &[Compression::Gzip1])).collect();
    world.share(&key(1), &packages.iter().collect::<Vec<_>>());
    assert_eq!(fetched(&world, &packages), 1);

    // Who shares the same and has no bytes of it leaves them there; one package more is added.
    let one_more = world.package(21, 21, &[Compression::Gzip1]);
    let all: Vec<Attestation> = packages.iter().cloned().chain([one_more]).collect();
    for package in &packages {
        let output = &package.realisation.outputs["data"];
        fs::rename(world.blob_path(&output.layers[0].digest), world.folder.path().join("x"))
            .unwrap();
        world.share(&key(1), &packages.iter().collect::<Vec<_>>());
        world.share(&key(1), &all.iter().collect::<Vec<_>>());
        fs::rename(world.folder.path().join("x"), world.blob_path(&output.layers[0].digest))
            .unwrap();
    }
    assert_eq!(fetched(&world, &all), 1);

    let tag = Target::Tag(subject().tag(key(1).public().id()));
    let manifest = world.runtime.block_on(world.cache.manifest(&tag)).unwrap().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let small = &manifest["layers"][1];
    assert_eq!(small["mediaType"], "application/vnd.drystone.blobs.v1");
    let digest = small["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let path = world.folder.path().join("cache/blobs/sha256").join(digest);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [&bytes[..bytes.len() - 1], b"?"].concat()).unwrap();
    assert_eq!(fetched(&world, &all), 1 + 2 * all.len() as u64, "what is damaged is not used");
    let inventory = world.runtime.block_on(Inventory::read(&world.cache, None)).unwrap();
    assert_eq!(inventory.unreadable.len(), 1, "a check of the cache tells it");
    fs::remove_file(&path).unwrap();
    assert_eq!(fetched(&world, &all), 1 + 2 * all.len() as u64);
}

#[test]
fn only_bundles_make_readers_fetch_small_blobs() {
    let world = World::new();
    let package = world.package(1, 11, &[Compression::Gzip1]);
    world.share(&key(1), &[&package]);
    world.forget_bundles();
    let id = package.derivation.id();
    let tag = realisation_tag(&id, Some(key(1).public().id()));
    let add = async {
        let bytes = Bytes::from_static(b"{\"drystone-blobs\":1}\n");
        let manifest = world.cache.manifest(&Target::Tag(tag.clone())).await.unwrap().unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let more = Descriptor::of(small_blobs::MEDIA_TYPE, &bytes);
        let more = serde_json::json!({"digest": more.digest, "mediaType": more.media_type, "size": more.size});
        json["layers"].as_array_mut().unwrap().push(more);
        world.cache.put_blob(&Upload::bytes(bytes)).await.unwrap();
        let manifest = Manifest::new(manifest.media_type, json.to_string());
        world.cache.put_manifest(&manifest, &[tag]).await.unwrap();
    };
    world.runtime.block_on(add);
    // The layer and the listing, and nothing that only this manifest names.
    assert_eq!(fetched(&world, &[package]), 2);
}

#[test]
fn what_the_builder_lacks_streams_from_another_cache() {
    let world = World::new();
    let package = world.package(1, 11, &[Compression::Gzip1]);
    world.share(&key(1), &[&package]);
    let copy: Arc<dyn Repository> = Arc::new(Folder::new(world.folder.path().join("copy")));
    let one = Share {
        envelope: package.sign(&key(1)).unwrap(),
        derivation: package.derivation.id(),
        outputs: package.realisation.outputs.values().cloned().collect(),
        is_pinned: true,
        is_whole: false,
        is_lost: false,
    };
    let nothing = |_: &BlobDigest| None;
    let public = key(2).public();
    let from = [Arc::clone(&world.cache)];
    let shares = [one];
    let done = share(&copy, &shares, &nothing, &from, &[], &public);
    let shared = world.runtime.block_on(done);
    assert_eq!((shared.written, shared.blobs), (1, 3), "{shared:?}");
    let done = share(&copy, &shares, &nothing, &[], &[], &public);
    assert_eq!(world.runtime.block_on(done).existed, 1);
    let away: Arc<dyn Repository> = Arc::new(Folder::new(world.folder.path().join("away")));
    let done = share(&away, &shares, &nothing, &[], &[], &public);
    let shared = world.runtime.block_on(done);
    assert_eq!(shared.written, 0);
    assert!(shared.failed[0].contains("does not exist"), "{shared:?}");
}
