//! Base images from a registry that lies, lacks things or sends too much.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::Write;

use drystone_builder::base::{BaseError, BaseImages, BaseSource, SourceError};
use drystone_builder::spec::{ImageReference, Platform};
use drystone_store::digest::BlobDigest;
use drystone_store::store::Store;
use serde_json::{Value, json};

const OCI: &str = "application/vnd.oci.image";

/// Documents by digest; what is asked for can be made another thing.
#[derive(Default)]
struct Fake {
    contents: BTreeMap<BlobDigest, Vec<u8>>,
    /// Served in place of everything.
    lie: Option<Vec<u8>>,
}

impl Fake {
    fn add(&mut self, value: &Value) -> (BlobDigest, u64) {
        let bytes = value.to_string().into_bytes();
        let (digest, size) = (BlobDigest::of(&bytes), bytes.len() as u64);
        self.contents.insert(digest, bytes);
        (digest, size)
    }

    /// An image with these layers, by media type; its manifest.
    fn image(&mut self, layers: &[&str], diff_ids: usize) -> BlobDigest {
        let diff_ids = vec![BlobDigest::of(b"diff").to_string(); diff_ids];
        let config = json!({
            "os": "linux", "architecture": "amd64", "created": "2020-01-01T00:00:00.5Z",
            "config": { "OnBuild": ["RUN true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let (digest, size) = self.add(&config);
        let layer = |kind: &&str| json!({ "mediaType": kind, "digest": BlobDigest::of(b"layer"), "size": 5 });
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": format!("{OCI}.config.v1+json"), "digest": digest, "size": size },
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        self.add(&manifest).0
    }

    fn index(&mut self, manifest: BlobDigest) -> BlobDigest {
        let entry = json!({
            "mediaType": "x", "digest": manifest, "size": 1,
            "platform": { "os": "linux", "architecture": "amd64" },
        });
        self.add(&json!({ "schemaVersion": 2, "manifests": [entry] })).0
    }
}

impl BaseSource for Fake {
    fn manifest(
        &self,
        _: &ImageReference,
        digest: Option<&BlobDigest>,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let found = digest.and_then(|digest| self.contents.get(digest));
        Ok(self.lie.clone().or_else(|| found.cloned()))
    }

    fn blob(
        &self,
        _: &ImageReference,
        digest: &BlobDigest,
        _: u64,
        writer: &mut dyn Write,
    ) -> Result<bool, SourceError> {
        let Some(bytes) = self.lie.as_ref().or_else(|| self.contents.get(digest)) else {
            return Ok(false);
        };
        writer.write_all(bytes)?;
        Ok(true)
    }
}

struct World {
    store: Store,
    from: ImageReference,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let from = ImageReference::new("registry.example.com/team/base:1").unwrap();
        Self { store, from, _folder: folder }
    }

    fn open(
        &self,
        fake: Option<&Fake>,
        digest: &BlobDigest,
    ) -> Result<drystone_builder::base::Base, BaseError> {
        let source = fake.map(|fake| fake as &dyn BaseSource);
        let images = BaseImages { store: &self.store, source };
        images.open(&self.from, digest, Platform::default_platform())
    }
}

fn images<'a>(world: &'a World, fake: &'a Fake) -> BaseImages<'a> {
    BaseImages { store: &world.store, source: Some(fake) }
}

const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

#[test]
fn what_was_read_once_is_known_without_network() {
    let (world, mut fake) = (World::new(), Fake::default());
    let manifest = fake.image(&[GZIP], 1);
    let index = fake.index(manifest);
    assert!(matches!(world.open(None, &index), Err(BaseError::Offline { .. })));
    let base = world.open(Some(&fake), &index).unwrap();
    assert_eq!((base.manifest, base.documents.len()), (manifest, 3));
    assert_eq!(base.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(base.created(), Some(1_577_836_800));
    assert!(base.has_triggers());
    assert_eq!(world.open(None, &index).unwrap().layers, base.layers);
}

#[test]
fn nothing_that_a_registry_says_is_believed_unproved() {
    let (world, mut fake) = (World::new(), Fake::default());
    let manifest = fake.image(&[GZIP], 1);
    fake.lie = Some(b"{\"schemaVersion\":2}".to_vec());
    assert!(matches!(world.open(Some(&fake), &manifest), Err(BaseError::Mismatch { .. })));
    fake.lie = None;
    let base = world.open(Some(&fake), &manifest).unwrap();
    let layer = &base.layers[0];
    let missing = images(&world, &fake).fetch_layer(&base, layer);
    assert!(matches!(missing, Err(BaseError::Missing { .. })), "{missing:?}");
    fake.lie = Some(b"wrong".to_vec());
    assert!(images(&world, &fake).fetch_layer(&base, layer).is_err());
    fake.lie = Some(b"layer and more".to_vec());
    let long = images(&world, &fake).fetch_layer(&base, layer);
    assert!(matches!(long, Err(BaseError::Source { .. })), "{long:?}");
    assert!(!world.store.has_blob(&layer.digest), "what is wrong never becomes visible");
    fake.lie = Some(b"layer".to_vec());
    images(&world, &fake).fetch_layer(&base, layer).unwrap();
}

#[test]
fn what_cannot_be_stood_on_is_told_apart() {
    let (world, mut fake) = (World::new(), Fake::default());
    let foreign = fake.image(&["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"], 1);
    assert!(matches!(world.open(Some(&fake), &foreign), Err(BaseError::Unsuitable { .. })));
    let uneven = fake.image(&[GZIP], 2);
    assert!(matches!(world.open(Some(&fake), &uneven), Err(BaseError::Malformed { .. })));
    let tall = fake.image(&[GZIP; 101], 101);
    assert!(matches!(world.open(Some(&fake), &tall), Err(BaseError::Unsuitable { .. })));
    let good = fake.image(&[GZIP], 1);
    let inner = fake.index(good);
    let nested = fake.index(inner);
    assert!(matches!(world.open(Some(&fake), &nested), Err(BaseError::Unsuitable { .. })));
}
