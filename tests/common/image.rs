//! A root file system as a table, read from image tarballs and from plain ones.
//!
//! Written for the tests alone: it shares no code with the product, so that a mistake in one of them shows.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Directory,
    File { sha256: String, size: u64 },
    Link(String),
    Other(String),
}

/// A path's entry; hard links are the file that they name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub content: Content,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// The path that carries the content, when this one is a hard link.
    pub same_as: Option<String>,
    /// `security.capability` in hexadecimal.
    pub capability: Option<String>,
    /// The bytes of small files.
    pub bytes: Vec<u8>,
}

impl Node {
    /// Whether two entries look the same to a program: content, mode and owner.
    pub fn looks_like(&self, other: &Self) -> bool {
        let is_link = matches!(self.content, Content::Link(_));
        self.content == other.content
            && (self.mode == other.mode || is_link)
            && (self.uid, self.gid) == (other.uid, other.gid)
            && self.capability == other.capability
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub fn link(&self) -> Option<&str> {
        match &self.content {
            Content::Link(target) => Some(target),
            _ => None,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Directory => write!(out, "directory")?,
            Content::File { sha256, size } => write!(out, "file {size} {}", &sha256[..12])?,
            Content::Link(target) => write!(out, "link {target}")?,
            Content::Other(kind) => write!(out, "{kind}")?,
        }
        write!(out, " {:o} {}:{}", self.mode, self.uid, self.gid)
    }
}

/// Paths without a leading slash, and what they are.
#[derive(Debug, Clone, Default)]
pub struct RootTree(pub BTreeMap<String, Node>);

/// Files up to this size keep their bytes for messages and checks.
const KEPT_BYTES: u64 = 1 << 20;

impl RootTree {
    /// The merged layers of an image tarball's single image, each compared with its `diff_id`.
    pub fn of_image(tarball: &Path) -> Self {
        let members = Members::of(tarball);
        let manifest = members.json("manifest.json");
        let image = &manifest[0];
        let config = members.json(image["Config"].as_str().unwrap());
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        let layers = image["Layers"].as_array().unwrap();
        assert_eq!(layers.len(), diff_ids.len());
        assert_eq!(
            config["history"].as_array().map(Vec::len),
            Some(diff_ids.len()),
            "some registries refuse a history of another length"
        );
        let mut root = Self::default();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let mut bytes =
                Hashing::new(MultiGzDecoder::new(members.open(layer.as_str().unwrap())));
            root.stack(&mut bytes);
            std::io::copy(&mut bytes, &mut std::io::sink()).unwrap();
            assert_eq!(format!("sha256:{}", bytes.finish()), diff_id.as_str().unwrap());
        }
        root
    }

    /// The config of an image tarball's single image.
    pub fn config_of(tarball: &Path) -> Value {
        let members = Members::of(tarball);
        let manifest = members.json("manifest.json");
        members.json(manifest[0]["Config"].as_str().unwrap())
    }

    /// How many layers an image tarball's single image has.
    pub fn layers_of(tarball: &Path) -> Vec<String> {
        let manifest = Members::of(tarball).json("manifest.json");
        let layers = manifest[0]["Layers"].as_array().unwrap();
        layers.iter().map(|layer| layer.as_str().unwrap().to_owned()).collect()
    }

    /// A plain tarball of a root.
    pub fn of_tarball(tarball: &Path) -> Self {
        let mut root = Self::default();
        root.stack(BufReader::new(File::open(tarball).unwrap()));
        root
    }

    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// The entry of a path that must be there.
    #[track_caller]
    pub fn at(&self, path: &str) -> &Node {
        self.get(path).unwrap_or_else(|| panic!("/{path} is missing"))
    }

    /// Stacks one layer: its deletions hide what is below, never its own entries.
    fn stack(&mut self, layer: impl Read) {
        let mut own: BTreeMap<String, Node> = BTreeMap::new();
        // umoci leaves out the two empty blocks at the end of a deletion's layer.
        let layer = layer.chain(std::io::repeat(0).take(1024));
        for entry in tar::Archive::new(layer).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
            if path.is_empty() || path == "." {
                continue;
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = if parent.is_empty() {
                    hidden.to_owned()
                } else {
                    format!("{parent}/{hidden}")
                };
                self.0.remove(&hidden);
                self.remove_below(&hidden);
            } else {
                let node = node(&mut entry, &own);
                own.insert(path, node);
            }
        }
        for (path, node) in own {
            if node.content != Content::Directory {
                self.remove_below(&path);
            }
            self.0.insert(path, node);
        }
    }

    fn remove_below(&mut self, path: &str) {
        let prefix = format!("{path}/");
        let below = self.0.range(prefix.clone()..).map(|(other, _)| other);
        let below: Vec<String> =
            below.take_while(|other| other.starts_with(&prefix)).cloned().collect();
        below.iter().for_each(|path| drop(self.0.remove(path)));
    }
}

fn node(entry: &mut tar::Entry<'_, impl Read>, own: &BTreeMap<String, Node>) -> Node {
    let capability = entry.pax_extensions().unwrap().and_then(|mut records| {
        records.find_map(|record| {
            let record = record.unwrap();
            (record.key_bytes() == b"SCHILY.xattr.security.capability")
                .then(|| record.value_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
        })
    });
    let target = entry.link_name_bytes().map(|name| String::from_utf8(name.into_owned()).unwrap());
    let kind = entry.header().entry_type();
    if kind == EntryType::Link {
        let target = target.unwrap().trim_start_matches("./").to_owned();
        let same = own.get(&target).unwrap_or_else(|| panic!("hard link to missing {target}"));
        return Node { same_as: Some(target), ..same.clone() };
    }
    let size = entry.header().entry_size().unwrap();
    let mut bytes = Vec::new();
    let content = match kind {
        EntryType::Directory => Content::Directory,
        EntryType::Symlink => Content::Link(target.unwrap()),
        EntryType::Regular | EntryType::Continuous => {
            let mut reader = Hashing::new(&mut *entry);
            if size <= KEPT_BYTES {
                reader.read_to_end(&mut bytes).unwrap();
            } else {
                std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            }
            Content::File { sha256: reader.finish(), size }
        }
        other => Content::Other(format!("{other:?}")),
    };
    let header = entry.header();
    Node {
        content,
        mode: header.mode().unwrap() & 0o7777,
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        same_as: None,
        capability,
        bytes,
    }
}

/// Lays an image tarball's single image out in a new folder, as root, with owners and modes.
pub fn unpack(tarball: &Path, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let members = Members::of(tarball);
    for layer in RootTree::layers_of(tarball) {
        let mut archive = tar::Archive::new(MultiGzDecoder::new(members.open(&layer)));
        archive.set_preserve_ownerships(true);
        archive.set_preserve_permissions(true);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            // A slash at the end would follow a link.
            let path: PathBuf = folder.join(entry.path().unwrap()).components().collect();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match name.strip_prefix(".wh.") {
                None => {
                    // What is no directory replaces one with all below it, and the reverse.
                    let is_directory = entry.header().entry_type() == EntryType::Directory;
                    let differs = |found: std::fs::Metadata| found.is_dir() != is_directory;
                    if path.symlink_metadata().is_ok_and(differs) {
                        remove(&path);
                    }
                    entry.unpack_in(folder).unwrap();
                }
                Some(".wh..opq") => {
                    let hidden = std::fs::read_dir(path.parent().unwrap()).unwrap();
                    hidden.for_each(|entry| remove(&entry.unwrap().path()));
                }
                Some(hidden) => remove(&path.with_file_name(hidden)),
            }
        }
    }
}

/// Removes what a layer hides.
fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Where the members of an uncompressed tarball lie.
struct Members {
    file: File,
    places: BTreeMap<String, (u64, u64)>,
}

impl Members {
    fn of(tarball: &Path) -> Self {
        let file = File::open(tarball).unwrap_or_else(|error| panic!("{tarball:?}: {error}"));
        let mut places = BTreeMap::new();
        for entry in tar::Archive::new(&file).entries_with_seek().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            places.insert(name, (entry.raw_file_position(), entry.size()));
        }
        Self { file, places }
    }

    fn open(&self, name: &str) -> impl Read + '_ {
        let (start, size) = self.places[name];
        let mut file = &self.file;
        file.seek(std::io::SeekFrom::Start(start)).unwrap();
        BufReader::with_capacity(1 << 17, file.take(size))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_reader(self.open(name)).unwrap()
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    fn finish(self) -> String {
        self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
