//! The whole image as one derivation, which a binary cache is asked for first.
//!
//! Its id is known from files alone: image.toml and the files of recipes, the lock, everything of
//! the project that enters or is built, and this program. Its output holds the image's documents,
//! so an image that nobody changed costs one look-up and no step of a build. An output that was
//! found must be believed for all that the image stands on, which is therefore part of it.
//!
//! Names, tags and caches never change an image, so they are no part of the id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use drystone_store::derivation::{Derivation, canonical_json};
use drystone_store::digest::{BlobDigest, DerivationId, DiffId};
use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use drystone_store::store::Store;
use drystone_store::tree::TreePath;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::recipes::{needed, recipe_stamp, wanted_by_image};
use super::{BuildError, BuildRequest, LocalFiles};
use crate::image::{Image as OciImage, ImageSet, JsonBlob, LayerRef};
use crate::recipe::{LocalSource, RecipeError};
use crate::spec::{Image, Name};
use drystone_source::files::{ContentSource, Fingerprint, SourceTree};

/// The builder's name.
pub const BUILDER: &str = "image";
/// Its version: rises whenever its output's form can change.
const VERSION: u32 = 1;
/// The sources that this program was made of.
const SOURCES: &str = env!("DRYSTONE_SOURCES");
/// The file of the output.
const FILE: &str = "image.json";
/// The most bytes of that file.
const MOST: u64 = 16 << 20;
/// Keys of image.toml that never change an image; platforms are asked for each time.
const WITHOUT: [&str; 5] = ["name", "tag", "lock", "cache", "platforms"];

/// An image that is known by what it would be made of.
#[derive(Debug)]
pub struct WholeImage {
    /// The derivation.
    pub derivation: Derivation,
    /// What was read of the project.
    pub fingerprints: Vec<Fingerprint>,
    /// How many files `.gitignore` kept out.
    pub ignored_files: usize,
}

/// The keys that vouched for each derivation that an image stands on; none for those that were made
/// by who signs the image itself.
pub type StandsOn = BTreeMap<DerivationId, BTreeSet<String>>;

impl WholeImage {
    /// What a request asks for; `None` for images that are not known by files alone: those on a base
    /// image. `written` are files that builds write, which are no source.
    pub fn of(request: &BuildRequest<'_>, written: &[PathBuf]) -> Result<Option<Self>, BuildError> {
        let image = request.image;
        if image.from.is_some() {
            return Ok(None);
        }
        let mut fingerprints = Vec::new();
        let mut ignored_files = 0;
        let mut hasher = blake3::Hasher::new();
        let mut take = |what: &str, tree: SourceTree| {
            hasher.update(format!("{what}\n").as_bytes());
            hash(&mut hasher, &tree)?;
            fingerprints.push(tree.fingerprint);
            ignored_files += tree.ignored;
            Ok::<(), BuildError>(())
        };
        take("files", LocalFiles::of_project(image)?)?;
        let recipes = recipes(request)?;
        for name in &recipes {
            let local = LocalSource::of(image, name.as_str(), &image.recipes[name], written);
            let tree = local.and_then(|local| local.read(name.as_str()));
            take(name.as_str(), tree.map_err(RecipeError::from)?)?;
        }
        let Some(definition) = definition(image, &recipes, &mut fingerprints) else {
            return Ok(None);
        };
        let lock = request.platforms.iter().map(|platform| {
            let lock = request.lock.canonical(&image.name, *platform);
            (platform.to_string(), lock.unwrap_or_default())
        });
        let lock: Value = Value::Object(lock.collect());
        let digest = |value: &Value| blake3::hash(canonical_json(value).as_bytes()).to_hex();
        let platforms: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
        let derivation = Derivation::new(BUILDER, VERSION)
            .with_arg("compression", request.compression.id())
            .with_arg("created", request.created)
            .with_arg("definition", digest(&definition).as_str())
            .with_arg("lock", digest(&lock).as_str())
            .with_arg("platforms", platforms)
            .with_arg("program", SOURCES)
            .with_arg("sources", hasher.finalize().to_hex().as_str());
        Ok(Some(Self { derivation, fingerprints, ignored_files }))
    }
}

/// The recipes that are built for a request.
fn recipes(request: &BuildRequest<'_>) -> Result<BTreeSet<Name>, BuildError> {
    let image = request.image;
    let mut all = BTreeSet::new();
    for &platform in request.platforms {
        let wanted = wanted_by_image(image, platform);
        all.extend(needed(image, platform, wanted)?.into_keys());
    }
    Ok(all)
}

/// image.toml and the files of recipes, without comments and layout; `None` when one of them cannot
/// be read any more.
fn definition(
    image: &Image,
    recipes: &BTreeSet<Name>,
    fingerprints: &mut Vec<Fingerprint>,
) -> Option<Value> {
    let mut all: Value = toml::from_str(image.text.text()).ok()?;
    for key in WITHOUT {
        all.as_object_mut()?.remove(key);
    }
    let mut files = BTreeMap::new();
    for name in recipes {
        let recipe = &image.recipes[name];
        let Some(file) = &recipe.file else { continue };
        fingerprints.extend(recipe_stamp(image, recipe).ok()?);
        let text = std::fs::read_to_string(file.below(&image.directory)).ok()?;
        let recipe: Value = toml::from_str(&text).ok()?;
        files.insert(name.to_string(), recipe);
    }
    Some(json!([all, files]))
}

/// Hashes what was walked: the entries as they stand, and the contents of files.
fn hash(hasher: &mut blake3::Hasher, tree: &SourceTree) -> Result<(), BuildError> {
    for source in &tree.entries {
        let entry = &source.entry;
        // The kind's form at hand will do: the id names the very sources of this program.
        let (path, mode, kind) = (&entry.path, entry.mode, &entry.kind);
        let (uid, gid, implied) = (entry.uid, entry.gid, source.implied);
        let line = format!("{path:?} {mode:o} {uid} {gid} {implied} {kind:?}\n");
        hasher.update(line.as_bytes());
        match &source.content {
            ContentSource::None => {}
            ContentSource::Inline(bytes) => {
                hasher.update(blake3::hash(bytes).as_bytes());
            }
            ContentSource::Path(file) => {
                let failed = |source| BuildError::Content { path: path.clone(), source };
                let mut content = blake3::Hasher::new();
                content.update_reader(File::open(file).map_err(failed)?).map_err(failed)?;
                hasher.update(content.finalize().as_bytes());
            }
        }
    }
    Ok(())
}

/// The output's file.
#[derive(Serialize, Deserialize)]
struct Document {
    images: Vec<DocumentImage>,
    stands_on: StandsOn,
}

#[derive(Serialize, Deserialize)]
struct DocumentImage {
    platform: String,
    config: String,
    manifest: String,
    layers: Vec<DocumentLayer>,
}

#[derive(Serialize, Deserialize)]
struct DocumentLayer {
    digest: BlobDigest,
    size: u64,
    diff_id: DiffId,
    uncompressed_size: Option<u64>,
    compression: Compression,
    title: String,
}

/// Keeps an image in the store as what its derivation gave.
pub fn remember_image(
    store: &Store,
    derivation: &Derivation,
    set: &ImageSet,
    stands_on: StandsOn,
) -> Result<(), BuildError> {
    let text = |blob: &JsonBlob| String::from_utf8_lossy(&blob.bytes).into_owned();
    let images = set.images().iter().map(|image| {
        let layers = image.layers.iter().map(|layer| {
            Some(DocumentLayer {
                digest: layer.digest,
                size: layer.size,
                diff_id: layer.diff_id,
                uncompressed_size: layer.uncompressed_size,
                compression: compression_of(layer.media_type)?,
                title: layer.title.clone(),
            })
        });
        Some(DocumentImage {
            platform: image.platform.to_string(),
            config: text(&image.config),
            manifest: text(&image.manifest),
            layers: layers.collect::<Option<_>>()?,
        })
    });
    let Some(images) = images.collect::<Option<_>>() else { return Ok(()) };
    let document = Document { images, stands_on };
    let bytes = serde_json::to_vec(&document).expect("strings, numbers and text keys");
    let mut spool = store.spool();
    let path = TreePath::new(FILE).expect("a valid path");
    spool.add_file(path, 0o644, &bytes)?;
    let output = store.add_tree(BUILDER, Compression::Store1, &mut spool)?;
    store.put_realisation(derivation, [("out".to_owned(), output)])?;
    Ok(())
}

/// The compression of a layer's media type.
fn compression_of(media_type: &str) -> Option<Compression> {
    let all = [Compression::Gzip1, Compression::Zstd1];
    all.into_iter().find(|compression| compression.media_type() == media_type)
}

/// Reads the image that a realisation of its derivation holds, and what it stands on. `None` when
/// its parts do not fit together: what cannot be used is built.
pub fn remembered_image(
    store: &Store,
    output: &Output,
) -> Result<Option<(ImageSet, StandsOn)>, BuildError> {
    let mut bytes = Vec::new();
    store.read_tree(output, |entry, content| {
        if entry.path.as_str() == FILE {
            let read = content.take(MOST).read_to_end(&mut bytes);
            read.map_err(|source| BuildError::Content { path: entry.path.clone(), source })?;
        }
        Ok::<(), BuildError>(())
    })?;
    let Ok(document) = serde_json::from_slice::<Document>(&bytes) else { return Ok(None) };
    let images = document.images.into_iter().map(image);
    let Some(images) = images.collect::<Option<Vec<_>>>() else { return Ok(None) };
    Ok(ImageSet::new(images).ok().map(|set| (set, document.stands_on)))
}

fn image(document: DocumentImage) -> Option<OciImage> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Blob,
        layers: Vec<Blob>,
    }
    #[derive(Deserialize)]
    struct Blob {
        digest: BlobDigest,
        size: u64,
    }
    let config = JsonBlob::new(document.config.into_bytes());
    let manifest: Manifest = serde_json::from_str(&document.manifest).ok()?;
    let layers: Vec<LayerRef> = document
        .layers
        .into_iter()
        .map(|layer| LayerRef {
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            uncompressed_size: layer.uncompressed_size,
            media_type: layer.compression.media_type(),
            title: layer.title,
        })
        .collect();
    let said = manifest.layers.iter().map(|blob| (blob.digest, blob.size));
    let is_whole = manifest.config.digest == config.digest
        && manifest.config.size == config.size()
        && said.eq(layers.iter().map(|layer| (layer.digest, layer.size)));
    let platform = document.platform.parse().ok()?;
    let manifest = JsonBlob::new(document.manifest.into_bytes());
    is_whole.then_some(OciImage { platform, config, manifest, layers })
}
