//! Images on disk, read for comparing: an OCI layout (image specification 1.1) in a folder or in
//! one tarball. Layers are streamed; a digest that does not fit is an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use drystone_source::debian::control::paragraphs;
use drystone_store::digest::{BlobDigest, FileHash, Sha256Reader};
use drystone_store::layer::Compression;
use serde::Deserialize;
use serde_json::Value;

use super::content::{Content, FileFact, LayerFact};
use crate::diagnostics::{Failure, Family};

/// A manifest or configuration is small; more is none.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// dpkg's status of a large system has some MiB.
const STATUS_LIMIT: u64 = 64 << 20;
const REFERENCE: &str = "org.opencontainers.image.ref.name";
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Where an image's blobs are.
pub struct Source {
    path: PathBuf,
    /// For a tarball: place and size of each file in it.
    members: Option<BTreeMap<String, (u64, u64)>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<PlatformParts>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct PlatformParts {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl PlatformParts {
    fn text(&self) -> String {
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}"));
        format!("{}/{}{}", self.os, self.architecture, variant.unwrap_or_default())
    }
}

impl Source {
    /// An OCI layout.
    pub fn layout(path: &Path) -> Result<Self, Failure> {
        if !path.join("index.json").exists() {
            let message = format!("{} is no OCI layout: it has no index.json", path.display());
            return Err(Failure::usage(message));
        }
        Ok(Self { path: path.to_owned(), members: None })
    }

    /// A tarball with an OCI layout in it.
    pub fn archive(path: &Path) -> Result<Self, Failure> {
        let read = |error| Failure::path("read", path, error);
        let file = File::open(path).map_err(read)?;
        let mut members = BTreeMap::new();
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek().map_err(read)? {
            let entry = entry.map_err(|_| unknown(path))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.trim_start_matches("./").to_owned();
            members.insert(name, (entry.raw_file_position(), entry.size()));
        }
        if !members.contains_key("index.json") {
            return Err(unknown(path));
        }
        Ok(Self { path: path.to_owned(), members: Some(members) })
    }

    /// The platforms of an image.
    pub fn platforms(&self, image: Option<&str>) -> Result<Vec<String>, Failure> {
        let found = self.manifests(image)?;
        found.iter().map(|descriptor| self.platform_of(descriptor)).collect()
    }

    /// What an image holds on a platform.
    pub fn content(&self, image: Option<&str>, platform: &str) -> Result<Content, Failure> {
        for descriptor in self.manifests(image)? {
            if self.platform_of(&descriptor)? == platform {
                return self.read(&descriptor);
            }
        }
        Err(Failure::usage(format!("{} has no image for {platform}", self.path.display())))
    }

    fn read(&self, descriptor: &Descriptor) -> Result<Content, Failure> {
        let manifest: Manifest = self.document(descriptor)?;
        let config: Value = self.document(&manifest.config)?;
        let mut content = Content { config: config.get("config").cloned(), ..Content::default() };
        let mut root = Root::default();
        for layer in &manifest.layers {
            content.layers.push(LayerFact { digest: layer.digest.clone(), size: layer.size });
            content.bytes += layer.size;
            self.layer(layer, &mut root)?;
        }
        content.packages = root.packages();
        content.files = Some(root.files);
        Ok(content)
    }

    fn layer(&self, layer: &Descriptor, root: &mut Root) -> Result<(), Failure> {
        let damaged = |error: io::Error| {
            let message = format!("layer {} of {} is damaged", layer.digest, self.path.display());
            Failure::new(Family::Integrity, format!("{message}: {error}"))
        };
        let mut blob = Sha256Reader::new(self.open(&layer.digest)?);
        match layer.media_type.rsplit(['+', '.']).next() {
            Some("gzip") => {
                let stream = Compression::Gzip1.decompress(&mut blob).map_err(damaged)?;
                root.stack(stream).map_err(damaged)?;
            }
            Some("zstd") => {
                let stream = Compression::Zstd1.decompress(&mut blob).map_err(damaged)?;
                root.stack(stream).map_err(damaged)?;
            }
            _ => root.stack(&mut blob).map_err(damaged)?,
        }
        check(blob, &layer.digest).map_err(damaged)
    }

    /// The manifests of the image that was named, or of the only one.
    fn manifests(&self, image: Option<&str>) -> Result<Vec<Descriptor>, Failure> {
        let bytes = self.bytes("index.json")?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|_| unknown(&self.path))?;
        let name = |descriptor: &Descriptor| {
            descriptor.annotations.get(REFERENCE).cloned().unwrap_or_default()
        };
        let suits = |descriptor: &&Descriptor| match image {
            None => true,
            Some(image) => {
                let name = name(descriptor);
                name == image || name.rsplit_once(':').is_some_and(|(name, _)| name == image)
            }
        };
        let found: Vec<&Descriptor> = index.manifests.iter().filter(suits).collect();
        match found.as_slice() {
            [] => Err(Failure::usage(format!("{} has no such image", self.path.display()))),
            [only] if only.media_type.contains("index") || only.media_type.contains("list") => {
                Ok(self.document::<Index>(only)?.manifests)
            }
            [only] => Ok(vec![(*only).clone()]),
            _ => {
                let names: Vec<String> = found.iter().map(|found| name(found)).collect();
                let message = format!("{} has several images", self.path.display());
                Err(Failure::usage(message)
                    .hint(format!("choose one with `--image`: {}", names.join(", "))))
            }
        }
    }

    fn platform_of(&self, descriptor: &Descriptor) -> Result<String, Failure> {
        if let Some(platform) = &descriptor.platform {
            return Ok(platform.text());
        }
        let manifest: Manifest = self.document(descriptor)?;
        let platform: PlatformParts = self.document(&manifest.config)?;
        Ok(platform.text())
    }

    /// A JSON blob, its digest checked.
    fn document<T: for<'de> Deserialize<'de>>(
        &self,
        descriptor: &Descriptor,
    ) -> Result<T, Failure> {
        let damaged = |problem: String| {
            let message = format!("{} of {}: {problem}", descriptor.digest, self.path.display());
            Failure::new(Family::Integrity, message)
        };
        let bytes = self.bytes(&blob_name(&descriptor.digest)?)?;
        let actual = BlobDigest::of(&bytes).to_string();
        if actual != descriptor.digest {
            return Err(damaged(format!("its content has the digest {actual}")));
        }
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.open_file(name)?
            .take(DOCUMENT_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::path("read", &self.path, error))?;
        Ok(bytes)
    }

    fn open(&self, digest: &str) -> Result<Box<dyn Read + Send>, Failure> {
        self.open_file(&blob_name(digest)?)
    }

    fn open_file(&self, name: &str) -> Result<Box<dyn Read + Send>, Failure> {
        let missing = || {
            let message = format!("{} lacks {name}", self.path.display());
            Failure::new(Family::Integrity, message)
        };
        let Some(members) = &self.members else {
            let path = self.path.join(name);
            return match File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
                Err(error) => Err(Failure::path("read", &path, error)),
            };
        };
        let (place, size) = *members.get(name).ok_or_else(missing)?;
        let read = |error| Failure::path("read", &self.path, error);
        let mut file = File::open(&self.path).map_err(read)?;
        file.seek(SeekFrom::Start(place)).map_err(read)?;
        Ok(Box::new(file.take(size)))
    }
}

fn unknown(path: &Path) -> Failure {
    Failure::usage(format!("{} is no image that this command can read", path.display())).hint(
        "it compares image.lock and image.toml files, tarballs that drystone wrote, and OCI layouts",
    )
}

/// The file of a blob. Digests come from outside and become paths, so their form is checked.
fn blob_name(digest: &str) -> Result<String, Failure> {
    match digest.parse::<BlobDigest>() {
        Ok(digest) => Ok(format!("blobs/sha256/{}", digest.to_hex())),
        Err(error) => Err(Failure::new(Family::Integrity, error.to_string())),
    }
}

/// Reads the rest and compares.
fn check(stream: Sha256Reader<impl Read>, expected: &str) -> io::Result<()> {
    let (_, digest) = stream.finish()?;
    let actual = BlobDigest::from_bytes(digest).to_string();
    if actual == expected {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("its digest is {actual}")))
}

/// The root that layers stack up to.
#[derive(Default)]
struct Root {
    files: BTreeMap<String, FileFact>,
    status: BTreeMap<String, String>,
}

impl Root {
    fn stack(&mut self, stream: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = name.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() {
                continue;
            }
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", &path));
            if last == OPAQUE {
                self.remove_below(folder);
            } else if let Some(hidden) = last.strip_prefix(WHITEOUT) {
                let hidden = if folder.is_empty() {
                    hidden.to_owned()
                } else {
                    format!("{folder}/{hidden}")
                };
                self.remove_below(&hidden);
                self.files.remove(&hidden);
                self.status.remove(&hidden);
            } else {
                let fact = self.fact(&path, &mut entry)?;
                if fact.kind != "directory" {
                    self.remove_below(&path);
                }
                self.files.insert(path, fact);
            }
        }
        Ok(())
    }

    fn remove_below(&mut self, folder: &str) {
        let start = format!("{folder}/");
        let below = |path: &String| path.starts_with(&start);
        self.files.retain(|path, _| !below(path));
        self.status.retain(|path, _| !below(path));
    }

    fn fact(&mut self, path: &str, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<FileFact> {
        let header = entry.header();
        let (mode, uid, gid) = (header.mode()?, header.uid()?, header.gid()?);
        let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let (kind, content, size) = match header.entry_type() {
            tar::EntryType::Directory => ("directory", String::new(), 0),
            tar::EntryType::Symlink => ("symlink", link.unwrap_or_default(), 0),
            tar::EntryType::Link => ("hard link", link.unwrap_or_default(), 0),
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let (hash, size) = self.content(path, entry)?;
                ("file", hash, size)
            }
            _ => ("special", String::new(), 0),
        };
        Ok(FileFact { kind, mode: mode & 0o7777, uid, gid, size, content })
    }

    /// A file's hash and size. dpkg's status files are kept: they name the packages.
    fn content(&mut self, path: &str, entry: &mut impl Read) -> io::Result<(String, u64)> {
        let is_status = path == "var/lib/dpkg/status" || path.starts_with("var/lib/dpkg/status.d/");
        if is_status && !path.ends_with(".md5sums") {
            let mut bytes = Vec::new();
            entry.take(STATUS_LIMIT).read_to_end(&mut bytes)?;
            let hash = FileHash::of(&bytes).to_string();
            let size = bytes.len() as u64;
            self.status.insert(path.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
            return Ok((hash, size));
        }
        let mut hasher = blake3::Hasher::new();
        let size = io::copy(entry, &mut hasher)?;
        Ok((FileHash::from_bytes(*hasher.finalize().as_bytes()).to_string(), size))
    }

    fn packages(&self) -> BTreeMap<String, String> {
        let mut packages = BTreeMap::new();
        for text in self.status.values() {
            for paragraph in paragraphs(text).map_while(Result::ok) {
                let installed = paragraph
                    .value("Status")
                    .is_none_or(|status| status.split_whitespace().last() == Some("installed"));
                if let (Some(name), Some(version), true) =
                    (paragraph.value("Package"), paragraph.value("Version"), installed)
                {
                    packages.insert(name.to_owned(), version.to_owned());
                }
            }
        }
        packages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn layers_stack_with_their_deletions() {
        let mut root = Root::default();
        root.stack(layer(&[("etc/a", "1"), ("etc/b/c", "2"), ("var/x/y", "3")]).as_slice())
            .unwrap();
        root.stack(
            layer(&[("etc/.wh.b", ""), ("var/x/.wh..wh..opq", ""), ("etc/a", "11")]).as_slice(),
        )
        .unwrap();
        let left: Vec<_> =
            root.files.iter().map(|(path, fact)| (path.as_str(), fact.size)).collect();
        assert_eq!(left, [("etc/a", 2)]);
    }

    #[test]
    fn packages_come_from_either_kind_of_status() {
        let mut root = Root::default();
        let full = "Package: a\nStatus: install ok installed\nVersion: 1\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
        root.stack(
            layer(&[
                ("var/lib/dpkg/status", full),
                ("var/lib/dpkg/status.d/b", "Package: b\nVersion: 2\n"),
                ("var/lib/dpkg/status.d/b.md5sums", "x"),
            ])
            .as_slice(),
        )
        .unwrap();
        let packages: Vec<_> = root.packages().into_iter().collect();
        assert_eq!(packages, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    }

    #[test]
    fn digests_that_are_none_never_become_paths() {
        for digest in ["../../etc/passwd", "sha256:../x", "sha512:00", ""] {
            assert!(blob_name(digest).is_err());
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        for bytes in [b"hello".to_vec(), layer(&[("a", "b")])] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Source::archive(&path).err().unwrap().family, Family::Usage);
        }
        assert_eq!(Source::layout(directory.path()).err().unwrap().family, Family::Usage);
    }
}
