//! A repository in a folder: an OCI image layout (OCI image specification 1.1, `image-layout.md`).
//!
//! ```text
//! oci-layout              the mark of a layout
//! index.json              one descriptor a tag (`org.opencontainers.image.ref.name`), and one for
//!                         each manifest that was written without a tag
//! blobs/sha256/HEX        blobs and manifests
//! ```
//!
//! Several processes may write at once: a file gets its name when it is whole and on disk, and the
//! index changes under a lock on the folder, the same that `build --oci-layout` takes. What others
//! wrote into the index stays as it is. Referrers are found by the tag of their subject.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::descriptor::{Descriptor, INDEX_MEDIA_TYPE, MOST_MANIFEST_BYTES, Manifest};
use crate::error::RegistryError;
use crate::reference::{Location, RepositoryName, Tag, Target};
use crate::referrers;
use crate::repository::{Pending, Repository, Source, Stored, Upload};
use crate::stream::{self, BlobStream, Check, Verified};
use crate::traffic::{Counts, Kind, Traffic};

const REFERENCE_ANNOTATION: &str = "org.opencontainers.image.ref.name";
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The most bytes of an index that are read: some hundred thousand manifests.
const MOST_INDEX_BYTES: u64 = 256 << 20;

/// A repository in a folder. Clones share it and its counts.
#[derive(Debug, Clone)]
pub struct Folder {
    path: Arc<PathBuf>,
    location: Arc<Location>,
    traffic: Traffic,
}

impl Folder {
    /// The repository in a folder; nothing is read or made yet. The first write makes it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            location: Arc::new(Location::Folder(path.clone())),
            path: Arc::new(path),
            traffic: Traffic::new(),
        }
    }

    /// Removes blobs that nothing in the index leads to, how many and of how many bytes. Those
    /// younger than `age` stay: somebody may be about to name them.
    ///
    /// # Errors
    /// Files that cannot be read or removed; a manifest that cannot be understood, since what it
    /// keeps is not known.
    pub async fn sweep(&self, age: Duration) -> Result<(u64, u64), RegistryError> {
        self.blocking(Kind::Delete, move |layout| layout.sweep(age)).await
    }

    /// Runs what blocks on a thread of its own.
    fn blocking<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl FnOnce(&Layout) -> Result<T, RegistryError> + Send + 'static,
    ) -> Pending<'static, T> {
        self.traffic.request(kind);
        let layout = Layout { path: Arc::clone(&self.path) };
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&layout)).await;
            done.map_err(RegistryError::Task)?
        })
    }

    async fn receive(&self, upload: &Upload) -> Result<Stored, RegistryError> {
        let (digest, size) = (upload.digest, upload.size);
        let target = self.blocking(Kind::BlobWrite, move |layout| {
            let path = layout.blob_path(&digest);
            match size_of(&path)? {
                Some(present) if present == size => Ok(None),
                _ => {
                    layout.make()?;
                    Ok(Some(path))
                }
            }
        });
        let Some(target) = target.await? else { return Ok(Stored::Existed) };
        let place = format!("{} in {}", digest, self.location);
        let blob = open(&upload.source, digest, size, &place).await?;
        let verified = Verified::new(blob, place, digest, size, Check::Digest);
        stream::write_file(verified.boxed(), &target).await?;
        self.traffic.sent(Kind::BlobWrite, size);
        Ok(Stored::Pushed)
    }

    async fn open_blob(
        &self,
        digest: BlobDigest,
        size: u64,
        check: Check,
    ) -> Result<Option<BlobStream>, RegistryError> {
        let place = format!("{digest} in {}", self.location);
        let found = self.blocking(Kind::BlobRead, move |layout| {
            let path = layout.blob_path(&digest);
            Ok(size_of(&path)?.map(|size| (path, size)))
        });
        let Some((path, actual)) = found.await? else { return Ok(None) };
        if actual != size {
            return Err(RegistryError::Size { place, digest, expected: size, actual });
        }
        let traffic = self.traffic.clone();
        let counted = stream::from_file(path, 0).inspect(move |piece| {
            let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            traffic.received(Kind::BlobRead, bytes);
        });
        Ok(Some(Verified::new(counted.boxed(), place, digest, size, check).boxed()))
    }
}

/// Opens what is to be written, from its beginning.
pub(crate) async fn open(
    source: &Source,
    digest: BlobDigest,
    size: u64,
    place: &str,
) -> Result<BlobStream, RegistryError> {
    let failed = |source| RegistryError::Source { place: place.to_owned(), source };
    match source {
        Source::Bytes(bytes) => {
            let bytes = bytes.clone();
            Ok(futures_util::stream::once(std::future::ready(Ok(bytes))).boxed())
        }
        Source::File(path) => Ok(stream::from_file(path.clone(), 0)),
        Source::Repository(from) => match from.blob(&digest, size).await {
            Ok(Some(blob)) => Ok(blob),
            Ok(None) => {
                let place = format!("{digest} in {}", from.location());
                Err(failed(Box::new(RegistryError::Missing { place })))
            }
            Err(error) => Err(failed(Box::new(error))),
        },
    }
}

impl Repository for Folder {
    fn location(&self) -> &Location {
        &self.location
    }

    fn counts(&self) -> Counts {
        self.traffic.counts()
    }

    fn manifest<'a>(&'a self, target: &'a Target) -> Pending<'a, Option<Manifest>> {
        let (target, traffic) = (target.clone(), self.traffic.clone());
        self.blocking(Kind::ManifestRead, move |layout| {
            let manifest = layout.manifest(&target)?;
            let bytes = manifest.as_ref().map_or(0, |manifest| manifest.bytes.len() as u64);
            traffic.received(Kind::ManifestRead, bytes);
            Ok(manifest)
        })
    }

    fn put_manifest<'a>(&'a self, manifest: &'a Manifest, tags: &'a [Tag]) -> Pending<'a, ()> {
        let (manifest, tags) = (manifest.clone(), tags.to_vec());
        self.traffic.sent(Kind::ManifestWrite, manifest.bytes.len() as u64);
        self.blocking(Kind::ManifestWrite, move |layout| layout.put_manifest(&manifest, &tags))
    }

    fn delete_manifest<'a>(&'a self, target: &'a Target) -> Pending<'a, bool> {
        let target = target.clone();
        self.blocking(Kind::Delete, move |layout| layout.delete_manifest(&target))
    }

    fn blob_size<'a>(&'a self, digest: &'a BlobDigest) -> Pending<'a, Option<u64>> {
        let digest = *digest;
        self.blocking(Kind::BlobCheck, move |layout| size_of(&layout.blob_path(&digest)))
    }

    fn blob_checked<'a>(
        &'a self,
        digest: &'a BlobDigest,
        size: u64,
        check: Check,
    ) -> Pending<'a, Option<BlobStream>> {
        Box::pin(self.open_blob(*digest, size, check))
    }

    fn put_blob<'a>(&'a self, upload: &'a Upload) -> Pending<'a, Stored> {
        Box::pin(self.receive(upload))
    }

    fn mount<'a>(
        &'a self,
        _digest: &'a BlobDigest,
        _from: &'a RepositoryName,
    ) -> Pending<'a, bool> {
        // A folder is one repository: there is nothing to mount from.
        Box::pin(std::future::ready(Ok(false)))
    }

    fn delete_blob<'a>(&'a self, digest: &'a BlobDigest) -> Pending<'a, bool> {
        let digest = *digest;
        self.blocking(Kind::Delete, move |layout| remove(&layout.blob_path(&digest)))
    }

    fn tags(&self) -> Pending<'_, Vec<Tag>> {
        self.blocking(Kind::Tags, Layout::tags)
    }

    fn referrers<'a>(
        &'a self,
        subject: &'a BlobDigest,
        artifact_type: Option<&'a str>,
    ) -> Pending<'a, Vec<Descriptor>> {
        let target = Target::Tag(Tag::of_referrers(subject));
        let artifact_type = artifact_type.map(str::to_owned);
        let place = format!("{target} in {}", self.location);
        self.blocking(Kind::Referrers, move |layout| match layout.manifest(&target)? {
            Some(list) => referrers::read(&list.bytes, &place, artifact_type.as_deref()),
            None => Ok(Vec::new()),
        })
    }
}

/// The files of a layout; all calls block.
struct Layout {
    path: Arc<PathBuf>,
}

impl Layout {
    fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.to_hex())
    }

    fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    /// Makes the layout where there is none; anything but a layout or an empty folder is refused.
    fn make(&self) -> Result<(), RegistryError> {
        let mark = self.path.join("oci-layout");
        let is_new = match fs::read(&mark) {
            Ok(text) => {
                let layout: Value = serde_json::from_slice(&text)
                    .map_err(|error| self.not_a_layout(&mark, error.to_string()))?;
                match layout["imageLayoutVersion"].as_str() {
                    Some("1.0.0") => false,
                    version => {
                        let reason = format!("its version is {version:?}");
                        return Err(self.not_a_layout(&mark, reason));
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.check_empty()?;
                true
            }
            Err(error) => return Err(RegistryError::file("read", mark)(error)),
        };
        let blobs = self.path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(RegistryError::file("create", blobs))?;
        match is_new {
            true => stream::write_whole(&mark, LAYOUT_FILE),
            false => Ok(()),
        }
    }

    fn check_empty(&self) -> Result<(), RegistryError> {
        let entries = match fs::read_dir(&*self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RegistryError::file("read", &*self.path)(error)),
        };
        // What a run that was killed left behind, or another one is making, is not foreign.
        let is_ours = |name: &str| {
            matches!(name, "blobs" | "oci-layout" | "index.json") || name.starts_with(".drystone-")
        };
        let mut names = entries.flatten().map(|entry| entry.file_name());
        match names.find(|name| !name.to_str().is_some_and(is_ours)) {
            Some(name) => {
                Err(self.not_a_layout(&self.path, format!("it holds {}", name.display())))
            }
            None => Ok(()),
        }
    }

    /// Removes blobs that nothing leads to.
    fn sweep(&self, age: Duration) -> Result<(u64, u64), RegistryError> {
        let index = match File::open(&*self.path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, 0)),
            Err(error) => return Err(RegistryError::file("read", &*self.path)(error)),
        };
        index.lock().map_err(RegistryError::file("lock", &*self.path))?;
        let kept = self.reachable()?;
        let folder = self.path.join("blobs/sha256");
        let (mut count, mut bytes) = (0, 0);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, 0)),
            Err(error) => return Err(RegistryError::file("list", folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(RegistryError::file("list", &folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // What has another name is not ours, or still being written.
            let Some(digest) = BlobDigest::from_hex(name) else { continue };
            let metadata = fs::metadata(&path).map_err(RegistryError::file("look at", &path))?;
            let modified = metadata.modified().map_err(RegistryError::file("look at", &path))?;
            let is_young = modified.elapsed().is_ok_and(|elapsed| elapsed < age);
            if !kept.contains(&digest) && !is_young && remove(&path)? {
                count += 1;
                bytes += metadata.len();
            }
        }
        Ok((count, bytes))
    }

    /// The digests that the index leads to: manifests, and all that they name.
    fn reachable(&self) -> Result<BTreeSet<BlobDigest>, RegistryError> {
        let digest_of = |entry: &Value| {
            entry["digest"].as_str().and_then(|text| text.parse::<BlobDigest>().ok())
        };
        let mut reached = BTreeSet::new();
        let mut open: Vec<BlobDigest> = self.entries()?.iter().filter_map(digest_of).collect();
        while let Some(digest) = open.pop() {
            if !reached.insert(digest) {
                continue;
            }
            let path = self.blob_path(&digest);
            let Some(bytes) = read_bounded(&path, MOST_MANIFEST_BYTES)? else { continue };
            let manifest: Value = serde_json::from_slice(&bytes)
                .map_err(|error| self.not_a_layout(&path, error.to_string()))?;
            reached.extend(digest_of(&manifest["config"]));
            for list in ["layers", "blobs"] {
                let entries = manifest[list].as_array().into_iter().flatten();
                reached.extend(entries.filter_map(digest_of));
            }
            open.extend(
                manifest["manifests"].as_array().into_iter().flatten().filter_map(digest_of),
            );
        }
        Ok(reached)
    }

    fn not_a_layout(&self, path: &Path, reason: String) -> RegistryError {
        RegistryError::NotALayout { path: path.to_owned(), reason }
    }

    fn index(&self) -> Result<Option<Value>, RegistryError> {
        let path = self.index_path();
        let Some(text) = read_bounded(&path, MOST_INDEX_BYTES)? else { return Ok(None) };
        let index: Value = serde_json::from_slice(&text)
            .map_err(|error| self.not_a_layout(&path, error.to_string()))?;
        match index.get("manifests").is_some_and(Value::is_array) {
            true => Ok(Some(index)),
            false => Err(self.not_a_layout(&path, "it has no list of manifests".to_owned())),
        }
    }

    fn entries(&self) -> Result<Vec<Value>, RegistryError> {
        let index = self.index()?;
        Ok(match index.and_then(|mut index| Some(index.get_mut("manifests")?.take())) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        })
    }

    fn manifest(&self, target: &Target) -> Result<Option<Manifest>, RegistryError> {
        let found = self.manifest_now(target)?;
        match (target, found) {
            // The tag may have moved, and what it named gone, between the two reads.
            (Target::Tag(_), None) => self.manifest_now(target),
            (_, found) => Ok(found),
        }
    }

    fn manifest_now(&self, target: &Target) -> Result<Option<Manifest>, RegistryError> {
        let entries = self.entries()?;
        let found = entries.iter().find(|entry| is_named(entry, target));
        let digest = match (target, found) {
            (Target::Digest(digest), _) => *digest,
            (Target::Tag(_), None) => return Ok(None),
            (Target::Tag(tag), Some(entry)) => {
                let digest = entry["digest"].as_str().and_then(|digest| digest.parse().ok());
                digest.ok_or_else(|| {
                    let reason = format!("the digest of {tag} cannot be read");
                    self.not_a_layout(&self.index_path(), reason)
                })?
            }
        };
        let path = self.blob_path(&digest);
        let Some(bytes) = read_bounded(&path, MOST_MANIFEST_BYTES)? else { return Ok(None) };
        let manifest = Manifest::new("", bytes);
        if manifest.digest != digest {
            let (place, actual) = (path.display().to_string(), manifest.digest);
            return Err(RegistryError::Mismatch { place, expected: digest, actual });
        }
        let stated = found.and_then(|entry| entry["mediaType"].as_str()).map(str::to_owned);
        let own = || manifest.shape().ok()?.media_type;
        // A blob that says nowhere that it is a manifest is none.
        Ok(stated.or_else(own).map(|media_type| Manifest { media_type, ..manifest }))
    }

    fn put_manifest(&self, manifest: &Manifest, tags: &[Tag]) -> Result<(), RegistryError> {
        check_size(manifest, &self.path)?;
        self.make()?;
        self.write_blob(manifest)?;
        self.change(|entries| {
            let mut names: Vec<Tag> = tags.to_vec();
            if let Some(subject) = manifest.subject() {
                self.list(entries, &subject, |list| referrers::with(list, manifest))?;
            }
            let named = |entry: &Value| *entry == entry_of(manifest, tag_of(entry));
            if names.is_empty() {
                let target = Target::Digest(manifest.digest);
                if !entries.iter().any(|entry| is_named(entry, &target)) {
                    entries.push(entry_of(manifest, None));
                    return Ok(true);
                }
                return Ok(false);
            }
            names.retain(|tag| {
                let target = Target::Tag(tag.clone());
                !entries.iter().any(|entry| is_named(entry, &target) && named(entry))
            });
            // A manifest that has a tag needs no entry without one.
            let digest = manifest.digest.to_string();
            entries.retain(|entry| {
                let moved = names.iter().any(|tag| tag_of(entry) == Some(tag.as_str()));
                let bare = tag_of(entry).is_none() && entry["digest"] == *digest;
                !moved && !bare
            });
            entries.extend(names.iter().map(|tag| entry_of(manifest, Some(tag.as_str()))));
            Ok(true)
        })
    }

    fn write_blob(&self, manifest: &Manifest) -> Result<(), RegistryError> {
        let path = self.blob_path(&manifest.digest);
        let present = read_bounded(&path, MOST_MANIFEST_BYTES).ok().flatten();
        match present.is_some_and(|bytes| bytes == manifest.bytes) {
            true => Ok(()),
            false => stream::write_whole(&path, &manifest.bytes),
        }
    }

    /// Replaces the list of a subject's referrers.
    fn list(
        &self,
        entries: &mut Vec<Value>,
        subject: &BlobDigest,
        change: impl FnOnce(Option<&Manifest>) -> Option<Manifest>,
    ) -> Result<(), RegistryError> {
        let tag = Tag::of_referrers(subject);
        let target = Target::Tag(tag.clone());
        let before = self.manifest(&target)?;
        let Some(after) = change(before.as_ref()) else { return Ok(()) };
        check_size(&after, &self.path)?;
        self.write_blob(&after)?;
        entries.retain(|entry| !is_named(entry, &target));
        entries.push(entry_of(&after, Some(tag.as_str())));
        if let Some(before) = before {
            // Lists are ours alone, so an old one is of no use to anybody.
            let old = Target::Digest(before.digest);
            if !entries.iter().any(|entry| is_named(entry, &old)) {
                remove(&self.blob_path(&before.digest))?;
            }
        }
        Ok(())
    }

    fn delete_manifest(&self, target: &Target) -> Result<bool, RegistryError> {
        let Some(manifest) = self.manifest(target)? else { return Ok(false) };
        self.change(|entries| {
            entries.retain(|entry| !is_named(entry, target));
            match (target, manifest.subject()) {
                (Target::Digest(digest), Some(subject)) => {
                    self.list(entries, &subject, |list| referrers::without(list, digest))?;
                }
                (Target::Tag(_), _) => {
                    let rest = Target::Digest(manifest.digest);
                    if !entries.iter().any(|entry| is_named(entry, &rest)) {
                        entries.push(entry_of(&manifest, None));
                    }
                }
                _ => {}
            }
            Ok(true)
        })?;
        if let Target::Digest(digest) = target {
            remove(&self.blob_path(digest))?;
        }
        Ok(true)
    }

    fn tags(&self) -> Result<Vec<Tag>, RegistryError> {
        let entries = self.entries()?;
        let tags = entries.iter().filter_map(|entry| Tag::new(tag_of(entry)?).ok());
        let mut tags: Vec<Tag> = tags.collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// Changes the list of the index under the lock; `false` from `change` leaves it as it is.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Value>) -> Result<bool, RegistryError>,
    ) -> Result<(), RegistryError> {
        let folder = File::open(&*self.path).map_err(RegistryError::file("read", &*self.path))?;
        folder.lock().map_err(RegistryError::file("lock", &*self.path))?;
        let mut index = self.index()?.unwrap_or_else(
            || json!({"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": []}),
        );
        let Some(Value::Array(entries)) = index.get_mut("manifests") else { return Ok(()) };
        let before = entries.clone();
        change(entries)?;
        match *entries == before {
            true => Ok(()),
            false => stream::write_whole(&self.index_path(), index.to_string().as_bytes()),
        }
    }
}

fn check_size(manifest: &Manifest, path: &Path) -> Result<(), RegistryError> {
    match manifest.bytes.len() as u64 > MOST_MANIFEST_BYTES {
        true => {
            let place = format!("a manifest for {}", path.display());
            Err(RegistryError::TooLarge { place, limit: MOST_MANIFEST_BYTES })
        }
        false => Ok(()),
    }
}

fn entry_of(manifest: &Manifest, tag: Option<&str>) -> Value {
    let mut descriptor =
        Descriptor::new(&manifest.media_type, manifest.digest, manifest.bytes.len() as u64);
    descriptor.artifact_type = manifest.subject().and_then(|_| manifest.descriptor().artifact_type);
    if let Some(tag) = tag {
        descriptor.annotations.insert(REFERENCE_ANNOTATION.to_owned(), tag.to_owned());
    }
    serde_json::to_value(descriptor).expect("texts and numbers always serialise")
}

/// The name of an entry. `build --oci-layout` writes `NAME:TAG`, which is no tag and is left alone.
fn tag_of(entry: &Value) -> Option<&str> {
    entry["annotations"][REFERENCE_ANNOTATION].as_str()
}

fn is_named(entry: &Value, target: &Target) -> bool {
    match target {
        Target::Tag(tag) => tag_of(entry) == Some(tag.as_str()),
        Target::Digest(digest) => entry["digest"] == *digest.to_string(),
    }
}

fn size_of(path: &Path) -> Result<Option<u64>, RegistryError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RegistryError::file("read", path)(error)),
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Option<Bytes>, RegistryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RegistryError::file("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(RegistryError::file("read", path))?;
    match bytes.len() as u64 > limit {
        true => Err(RegistryError::TooLarge { place: path.display().to_string(), limit }),
        false => Ok(Some(bytes.into())),
    }
}

fn remove(path: &Path) -> Result<bool, RegistryError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(RegistryError::file("remove", path)(error)),
    }
}
