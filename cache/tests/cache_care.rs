//! Caches are read whole, checked byte by byte, copied, mended and pruned: in folders, in Debian's
//! docker-registry, and in registries that allow less.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod suite;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drystone_cache::attachment::{self, Attachment, PROVENANCE_TYPE, SIGNATURE_TYPE};
use drystone_cache::attestation::{Attestation, BuildContext, SandboxMode};
use drystone_cache::binary_cache::{
    Checked, Inventory, ProblemKind, Share, Subject, check, prunable, prune, realisation_tag,
    repair, share, sync,
};
use drystone_cache::descriptor::Descriptor;
use drystone_cache::dsse::{Envelope, IN_TOTO};
use drystone_cache::error::RegistryError;
use drystone_cache::folder::Folder;
use drystone_cache::key::SecretKey;
use drystone_cache::reference::{Tag, Target};
use drystone_cache::registry::{Registries, Settings};
use drystone_cache::repository::Upload;
use drystone_cache::trust::{Trust, TrustedKey};
use drystone_store::derivation::Derivation;
use drystone_store::digest::BlobDigest;
use drystone_store::layer::Compression;
use drystone_store::realisation::Realisation;
use drystone_store::store::Store;
use drystone_store::tree::TreePath;
use suite::Shared;
use suite::fake::{Fake, Profile};
use suite::peer::DockerRegistry;

const NOW: i64 = 1_800_000_000;

/// A builder with a store of its own.
struct Builder {
    folder: tempfile::TempDir,
    store: Store,
}

impl Builder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    fn cache(&self, name: &str) -> Shared {
        Arc::new(Folder::new(self.folder.path().join(name)))
    }

    fn blob(&self, cache: &str, digest: &BlobDigest) -> PathBuf {
        self.folder.path().join(cache).join("blobs/sha256").join(digest.to_hex())
    }

    fn build(&self, text: &str) -> Attestation {
        let mut spool = self.store.spool();
        spool.add_file(TreePath::new("etc/text").unwrap(), 0o644, text.as_bytes()).unwrap();
        let output = self.store.add_tree("sample", Compression::Gzip1, &mut spool).unwrap();
        let derivation = Derivation { outputs: vec!["out".into()], ..Derivation::new("files", 1) };
        let derivation = derivation.with_arg("text", text);
        let outputs = [("out".to_owned(), output)].into();
        Attestation {
            realisation: Realisation { derivation: derivation.id(), outputs },
            derivation,
            context: BuildContext { sandbox: SandboxMode::Unused, emulation: false },
        }
    }

    async fn share(&self, to: &Shared, image: &str, built: &[&Attestation], key: &SecretKey) {
        let shares: Vec<Share> = built
            .iter()
            .map(|one| Share {
                envelope: one.sign(key).unwrap(),
                derivation: one.derivation.id(),
                outputs: one.realisation.outputs.values().cloned().collect(),
                is_pinned: false,
                is_whole: false,
                is_lost: false,
            })
            .collect();
        let part = |digest: &BlobDigest| Some(self.store.blob_path(digest));
        let done = share(to, &shares, &part, &[], &[subject(image)], &key.public()).await;
        assert_eq!(done.failed, Vec::<String>::new());
    }
}

fn subject(image: &str) -> Subject {
    Subject { image: image.to_owned(), platform: "linux/amd64".to_owned() }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&format!("builder-{seed}"), &[seed; 32]).unwrap()
}

fn trust(seed: u8) -> Trust {
    Trust::new([TrustedKey::new(key(seed).public())], 1).unwrap()
}

async fn checked(cache: &Shared) -> (Inventory, Checked) {
    let inventory = Inventory::read(cache, None).await.unwrap();
    let checked = check(cache, &inventory, &trust(1), &|_, _| {}).await.unwrap();
    (inventory, checked)
}

fn kinds(checked: &Checked) -> Vec<ProblemKind> {
    let mut kinds: Vec<ProblemKind> = checked.problems.iter().map(|it| it.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_thing_is_told_by_its_kind() {
    let builder = Builder::new();
    let (one, two) = (builder.build("one"), builder.build("two"));
    let layer = |it: &Attestation| it.realisation.outputs["out"].layers[0].digest;
    let listing = one.realisation.outputs["out"].listing.digest;

    let cache = builder.cache("good");
    builder.share(&cache, "shop", &[&one, &two], &key(1)).await;
    builder.share(&cache, "shop", &[&one], &key(2)).await;
    let (inventory, found) = checked(&cache).await;
    assert_eq!(found.problems, []);
    assert_eq!((found.realisations, found.bundles, found.blobs), (3, 2, 4));
    // Two artifacts and a bundle of each key; only one key is known.
    assert_eq!((found.signatures, found.unchecked_signatures), (4, 2));
    let of_image = Inventory::read(&cache, Some(&[subject("shop")])).await.unwrap();
    assert_eq!(of_image.realisations.len(), inventory.realisations.len());
    let of_other = Inventory::read(&cache, Some(&[subject("other")])).await.unwrap();
    assert_eq!((of_other.realisations.len(), of_other.bundles.len()), (0, 0));

    for (name, digest, kind) in [
        ("lost-layer", layer(&one), ProblemKind::Missing),
        ("lost-listing", listing, ProblemKind::Missing),
        ("bad-layer", layer(&two), ProblemKind::Damaged),
    ] {
        let cache = builder.cache(name);
        builder.share(&cache, "shop", &[&one, &two], &key(1)).await;
        let path = builder.blob(name, &digest);
        match kind {
            ProblemKind::Missing => fs::remove_file(&path).unwrap(),
            _ => {
                let mut bytes = fs::read(&path).unwrap();
                bytes[20] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        let (inventory, found) = checked(&cache).await;
        assert_eq!(kinds(&found), [kind], "{name}: {:?}", found.problems);
        assert!(found.problems.iter().all(|it| it.blob == Some(digest)));
        // Only what is wrong goes, and whoever has it shares it again.
        let repaired = repair(&cache, &inventory, &found).await.unwrap();
        assert_eq!(repaired.failed, Vec::<String>::new());
        assert_eq!(repaired.tags.len(), 2, "the realisation and the bundle: {:?}", repaired.tags);
        builder.share(&cache, "shop", &[&one, &two], &key(1)).await;
        assert_eq!(checked(&cache).await.1.problems, [], "{name}");
    }

    // Signed, and about something else: another derivation, another tree's layer.
    let cache = builder.cache("replayed");
    builder.share(&cache, "shop", &[&one, &two], &key(1)).await;
    let tag = |it: &Attestation| realisation_tag(&it.derivation.id(), Some(key(1).public().id()));
    let manifest = cache.manifest(&Target::Tag(tag(&two))).await.unwrap().unwrap();
    cache.put_manifest(&manifest, &[tag(&one)]).await.unwrap();
    let found = checked(&cache).await.1;
    assert!(kinds(&found).contains(&ProblemKind::Attestation), "{:?}", found.problems);

    let cache = builder.cache("swapped");
    let mut lie = builder.build("one");
    let other = two.realisation.outputs["out"].layers[0].clone();
    let own = &mut lie.realisation.outputs.get_mut("out").unwrap().layers[0];
    (own.digest, own.size) = (other.digest, other.size);
    builder.share(&cache, "shop", &[&lie], &key(1)).await;
    let found = checked(&cache).await.1;
    assert_eq!(kinds(&found), [ProblemKind::Content], "{:?}", found.problems);

    // A tag without an artifact of ours.
    let cache = builder.cache("foreign");
    builder.share(&cache, "shop", &[&one], &key(1)).await;
    let foreign = suite::artifact(&cache, "foreign", None).await;
    cache.put_manifest(&foreign, &[tag(&one), Tag::new("v1").unwrap()]).await.unwrap();
    let (inventory, found) = checked(&cache).await;
    assert_eq!(inventory.others, 1);
    assert!(kinds(&found).contains(&ProblemKind::Unreadable), "{:?}", found.problems);
    assert!(kinds(&found).contains(&ProblemKind::Unheld), "{:?}", found.problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_are_copied_and_bundles_joined() {
    let Some(registry) = DockerRegistry::start("") else { return };
    let registries = Registries::new(Settings { proxies: false, ..Settings::default() });
    let open = |name: &str| {
        registries.open(&format!("127.0.0.1:{}/{name}", registry.port).parse().unwrap())
    };
    let builder = Builder::new();
    let (one, two) = (builder.build("one"), builder.build("two"));
    let folder = builder.cache("folder");
    builder.share(&folder, "shop", &[&one], &key(1)).await;
    let remote = open("team/cache");
    builder.share(&remote, "shop", &[&two], &key(1)).await;
    let inventory = Inventory::read(&folder, None).await.unwrap();
    let synced = sync(&folder, &inventory, &remote, &|_, _| {}).await.unwrap();
    // The attestation, the listing and the layer.
    assert_eq!((synced.written, synced.blobs, synced.bundles), (1, 3, 1), "{synced:?}");
    let (joined, found) = checked(&remote).await;
    assert_eq!(found.problems, []);
    assert_eq!(joined.bundled().count(), 2, "the bundle has both");
    assert_eq!(joined.bundles[0].small.iter().count(), 4, "and each one's listing and layer");
    let tag = realisation_tag(&one.derivation.id(), Some(key(1).public().id()));
    let target = Target::Tag(tag);
    let (here, there) = (folder.manifest(&target).await, remote.manifest(&target).await);
    assert_eq!(here.unwrap(), there.unwrap(), "byte for byte");
    let again = sync(&folder, &inventory, &remote, &|_, _| {}).await.unwrap();
    assert_eq!((again.written, again.existed, again.bundles), (0, 1, 0), "{again:?}");
    // Within a registry nothing is sent.
    let mirror = open("team/mirror");
    let synced = sync(&remote, &joined, &mirror, &|_, _| {}).await.unwrap();
    assert_eq!((synced.written, synced.blobs, synced.mounted), (2, 0, 6), "{synced:?}");

    // What the source has lost is told, and not promised.
    fs::remove_file(builder.blob("folder", &one.realisation.outputs["out"].layers[0].digest))
        .unwrap();
    let other = builder.cache("other");
    let synced = sync(&folder, &inventory, &other, &|_, _| {}).await.unwrap();
    assert_eq!((synced.written, synced.failed.len(), synced.bundles), (0, 1, 0), "{synced:?}");
    assert_eq!(other.tags().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pruning_keeps_what_bundles_name_and_needs_deletes() {
    let builder = Builder::new();
    let (one, two) = (builder.build("one"), builder.build("two"));
    let registry = DockerRegistry::start("");
    let registries = Registries::new(Settings { proxies: false, ..Settings::default() });
    let open = |port: u16| registries.open(&format!("127.0.0.1:{port}/cache").parse().unwrap());
    let mut caches = vec![builder.cache("pruned")];
    caches.extend(registry.as_ref().map(|registry| open(registry.port)));
    for cache in &caches {
        builder.share(cache, "shop", &[&one], &key(1)).await;
        builder.share(cache, "old", &[&one, &two], &key(1)).await;
        // The same realisations under another name: one manifest, two tags.
        builder.share(cache, "twin", &[&one], &key(1)).await;
        let inventory = Inventory::read(cache, None).await.unwrap();
        let unknown = prunable(&inventory, &[subject("shop"), subject("none")]);
        assert_eq!(unknown.unknown, [subject("none")]);
        let plan = prunable(&inventory, &[subject("shop")]);
        assert_eq!(plan.tags().len(), 3, "{:?}", plan.tags());
        prune(cache, &plan).await.unwrap();
        let (left, found) = checked(cache).await;
        assert_eq!(found.problems, []);
        let left: Vec<_> = left.realisations.iter().map(|it| it.derivation).collect();
        assert_eq!(left, [one.derivation.id()]);
    }
    // A folder's blobs go when they are old enough, and what is named stays.
    let folder = Folder::new(builder.folder.path().join("pruned"));
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(folder.sweep(day).await.unwrap().0, 0);
    let blobs = builder.folder.path().join("pruned/blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - 2 * day).unwrap();
    }
    let (count, bytes) = folder.sweep(day).await.unwrap();
    assert!(count >= 4 && bytes > 100, "{count} {bytes}");
    assert_eq!(checked(&caches[0]).await.1.problems, []);
    // A manifest that cannot be understood: what it keeps is not known.
    let index = builder.folder.path().join("pruned/index.json");
    let text = fs::read_to_string(&index).unwrap();
    let broken = Upload::bytes("no manifest");
    caches[0].put_blob(&broken).await.unwrap();
    let entry = format!("\"manifests\":[{{\"digest\":\"{}\",\"size\":11}},", broken.digest);
    fs::write(&index, text.replace("\"manifests\":[", &entry)).unwrap();
    assert!(matches!(folder.sweep(day).await, Err(RegistryError::NotALayout { .. })));

    let fake = Fake::start(Profile { mounts: true, page: 50, ..Profile::default() });
    let stubborn = open(fake.port);
    builder.share(&stubborn, "old", &[&one], &key(1)).await;
    builder.share(&stubborn, "shop", &[&two], &key(1)).await;
    let plan = prunable(&Inventory::read(&stubborn, None).await.unwrap(), &[subject("shop")]);
    let error = prune(&stubborn, &plan).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_are_listed_with_and_without_an_api() {
    let registries = Registries::new(Settings { proxies: false, ..Settings::default() });
    let open = |port: u16| registries.open(&format!("127.0.0.1:{port}/app").parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let with_api =
        Fake::start(Profile { referrers: Some(2), deletes: true, page: 50, ..Profile::default() });
    let without = Fake::start(Profile { page: 50, ..Profile::default() });
    let registry = DockerRegistry::start("");
    let mut all = vec![
        (Arc::new(Folder::new(folder.path().join("layout"))) as Shared, true),
        (open(with_api.port), true),
        (open(without.port), false),
    ];
    all.extend(registry.as_ref().map(|registry| (open(registry.port), true)));
    for (repository, deletes) in all {
        println!("{}", repository.location());
        let image = suite::artifact(&repository, "image", None).await;
        repository.put_manifest(&image, &[Tag::new("v1").unwrap()]).await.unwrap();
        let subject = Descriptor::new(&image.media_type, image.digest, image.bytes.len() as u64);
        let bill = Attachment::document("application/spdx+json", "{}".to_owned());
        let statement = format!(
            "{{\"_type\":\"https://in-toto.io/Statement/v1\",\
             \"predicateType\":\"https://slsa.dev/provenance/v1\",\
             \"subject\":[{{\"digest\":{{\"sha256\":\"{}\"}}}}]}}",
            image.digest.to_hex()
        );
        let envelope = Envelope::sign(IN_TOTO, statement.clone().into_bytes(), &key(1));
        let other = Envelope::sign(IN_TOTO, statement.replace('0', "1").into_bytes(), &key(1));
        for attachment in
            [bill.clone(), Attachment::provenance(&envelope), Attachment::provenance(&other), bill]
        {
            attachment::attach(&repository, &subject, &attachment).await.unwrap();
        }
        assert!(attachment::sign(&repository, &subject, &key(1)).await.unwrap());
        assert!(attachment::sign(&repository, &subject, &key(2)).await.unwrap());
        assert!(!attachment::sign(&repository, &subject, &key(1)).await.unwrap());
        let vouched =
            attachment::signers(&repository, &image.digest, &trust(1), NOW).await.unwrap();
        assert_eq!((vouched.signatures, vouched.refused.len()), (2, 1));
        assert_eq!(vouched.signers, [key(1).public()].into());
        let attached =
            attachment::attached(&repository, &image.digest, &trust(1), NOW).await.unwrap();
        let mut signers: Vec<Option<usize>> =
            attached.iter().map(|it| it.signers.as_ref().map(|keys| keys.len())).collect();
        signers.sort();
        // The bill; provenance of this image; provenance that is another one's.
        assert_eq!(signers, [None, Some(0), Some(1)]);
        let kinds = |kind: &'static str| repository.referrers(&image.digest, Some(kind));
        assert_eq!(kinds(PROVENANCE_TYPE).await.unwrap().len(), 2);
        // What was replaced when the second one signed is gone where that is possible.
        let signatures = kinds(SIGNATURE_TYPE).await.unwrap().len();
        assert_eq!(signatures, if deletes { 1 } else { 2 });
    }
}
