//! The one tarball that every engine reads.
//!
//! ```text
//! oci-layout  index.json  manifest.json          what readers look for first
//! blobs/  blobs/sha256/                          directories
//! blobs/sha256/<config>  <manifest>  [<index>]   the documents
//! blobs/sha256/<layer>...                        the layers, each once, lowest first
//! ```
//!
//! `index.json` serves containerd, skopeo (`oci-archive:`), podman and newer docker; `manifest.json` serves
//! docker before 25 and skopeo's `docker-archive:`. The latter knows no platforms, so it names
//! the image of the first one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::Serialize;

use super::tarball::Tarball;
use super::{Output, OutputError};
use crate::image::LayerRef;
use crate::image::manifest::{Descriptor, index_json};

/// The content of the file `oci-layout` (OCI image specification 1.1, `image-layout.md`).
pub(super) const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Where layouts keep their blobs.
pub(super) const BLOB_DIRECTORY: &str = "blobs/sha256/";

/// The annotation by which containerd, podman and docker name an image of a layout.
pub(super) const ENGINE_NAME_ANNOTATION: &str = "io.containerd.image.name";

/// The annotation by which skopeo and umoci select an image of a layout.
pub(super) const REFERENCE_ANNOTATION: &str = "org.opencontainers.image.ref.name";

impl Output<'_> {
    /// The descriptor of the image with its names, as a layout's index holds it.
    pub(super) fn named_descriptor(&self) -> Descriptor {
        let mut descriptor = self.set.descriptor();
        let names = [
            (ENGINE_NAME_ANNOTATION, self.name.canonical()),
            (REFERENCE_ANNOTATION, self.name.to_string()),
        ];
        descriptor.annotations.extend(names.map(|(key, value)| (key.to_owned(), value)));
        descriptor
    }

    /// Opens a layer's blob and checks that it has the size that the manifest promises.
    pub(super) fn open_layer(&self, layer: &LayerRef) -> Result<File, OutputError> {
        let path = (self.blob_path)(&layer.digest);
        let file = File::open(&path).map_err(OutputError::io("read", &path))?;
        let actual = file.metadata().map_err(OutputError::io("read", &path))?.len();
        if actual != layer.size {
            let (digest, expected) = (layer.digest, layer.size);
            return Err(OutputError::BlobSize { digest, path, expected, actual });
        }
        Ok(file)
    }
}

/// An entry of docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: [String; 1],
    layers: Vec<String>,
}

fn docker_manifest(output: &Output<'_>) -> Vec<u8> {
    let image = &output.set.images()[0];
    let path = |hex: String| format!("{BLOB_DIRECTORY}{hex}");
    let document = [DockerImage {
        config: path(image.config.digest.to_hex()),
        repo_tags: [output.name.to_string()],
        layers: image.layers.iter().map(|layer| path(layer.digest.to_hex())).collect(),
    }];
    serde_json::to_vec(&document).expect("strings always serialise")
}

/// Writes the tarball into a stream: a pipe, a socket, a file.
///
/// Into files and pipes the kernel copies the layers by itself, without passing them through this
/// process, and shares blocks where the file system can.
///
/// # Errors
/// A layer that cannot be read or has the wrong size; a stream that takes no more.
pub fn write_archive<W: Write>(output: &Output<'_>, stream: W) -> Result<W, OutputError> {
    Ok(lay_out(output, stream, copy_layer)?.0)
}

/// The size of the tarball in bytes.
fn archive_size(output: &Output<'_>) -> Result<u64, OutputError> {
    Ok(lay_out(output, io::sink(), |_, _, _| Ok(()))?.1)
}

/// Puts down all parts in their order; `put` gives a layer's content. Returns the size as well.
fn lay_out<W: Write>(
    output: &Output<'_>,
    stream: W,
    put: impl Fn(&Output<'_>, &LayerRef, &mut W) -> Result<(), OutputError>,
) -> Result<(W, u64), OutputError> {
    let failed = |source| OutputError::Stream { source };
    let mut tarball = Tarball::new(stream);
    tarball.file("oci-layout", LAYOUT_FILE).map_err(failed)?;
    let index = index_json(&[output.named_descriptor()], &BTreeMap::new());
    tarball.file("index.json", &index).map_err(failed)?;
    tarball.file("manifest.json", &docker_manifest(output)).map_err(failed)?;
    tarball.directory("blobs/").map_err(failed)?;
    tarball.directory(BLOB_DIRECTORY).map_err(failed)?;
    for document in output.set.documents() {
        let path = format!("{BLOB_DIRECTORY}{}", document.digest.to_hex());
        tarball.file(&path, &document.bytes).map_err(failed)?;
    }
    for layer in output.set.layers() {
        let path = format!("{BLOB_DIRECTORY}{}", layer.digest.to_hex());
        tarball.begin_file(&path, layer.size).map_err(failed)?;
        put(output, layer, tarball.inner())?;
        tarball.end_file(layer.size).map_err(failed)?;
    }
    tarball.finish().map_err(failed)
}

fn copy_layer<W: Write>(
    output: &Output<'_>,
    layer: &LayerRef,
    stream: &mut W,
) -> Result<(), OutputError> {
    let failed = |source| OutputError::Stream { source };
    let file = output.open_layer(layer)?;
    // The standard library's copy uses copy_file_range, sendfile or splice where they work.
    let actual = io::copy(&mut (&file).take(layer.size), stream).map_err(failed)?;
    if actual != layer.size {
        let (digest, expected) = (layer.digest, layer.size);
        let path = (output.blob_path)(&layer.digest);
        return Err(OutputError::BlobSize { digest, path, expected, actual });
    }
    Ok(())
}

/// Writes the tarball into a file, which appears whole or not at all; returns its size in bytes.
///
/// Something that is no regular file (a pipe, a terminal) is written to directly. Nothing is
/// synced to disk: a tarball can be made again at any time, so a power failure costs no data.
///
/// # Errors
/// As [`write_archive`], with the path.
pub fn write_archive_file(output: &Output<'_>, path: &Path) -> Result<u64, OutputError> {
    let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        let open = File::options().write(true).open(path);
        write_archive(output, open.map_err(OutputError::io("write", path))?)?;
        return Ok(0);
    }
    let mut temporary = temporary_beside(path)?;
    let relate = |error| match error {
        OutputError::Stream { source } => OutputError::io("write", path)(source),
        other => other,
    };
    reserve(temporary.as_file(), archive_size(output)?).map_err(OutputError::io("write", path))?;
    write_archive(output, temporary.as_file_mut()).map_err(relate)?;
    let size = temporary.as_file().metadata().map_err(OutputError::io("write", path))?.len();
    temporary.persist(path).map_err(|error| OutputError::io("rename", path)(error.error))?;
    Ok(size)
}

/// Has the file system find the blocks of a file at once. A full disk shows before anything is
/// written; and ext4, which sees to blocks of its own when a file takes another's place, has none
/// left to find, which takes it longer than the copy.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
        // Some file systems cannot; writing finds the blocks then.
        _ => Ok(()),
    }
}

/// A file in the directory of `path` with the usual permissions; it goes away unless persisted.
pub(super) fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile, OutputError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".drystone-").suffix(".tmp").permissions(std::fs::Permissions::from_mode(0o666));
    builder.tempfile_in(directory).map_err(OutputError::io("create", path))
}

#[cfg(test)]
mod tests;
