//! Bills of materials: what is in an image, as SPDX 2.3 and CycloneDX 1.5 write it.
//!
//! ```text
//! lock, control and copyright files, [files], recipes' sources ──> Bill ──> spdx::document
//!                                                                   └──> cyclonedx::document
//! ```
//!
//! A bill is known from the graph and not guessed from an image's files. Documents are functions of
//! it: no random number, and no time but the image's own. Both are canonical JSON.

pub mod cyclonedx;
pub mod licence;
pub mod purl;
pub mod source;
pub mod spdx;

#[cfg(test)]
mod tests;

use drystone_store::digest::BlobDigest;
use sha2::Digest as _;

use licence::Licence;
use source::Source;

/// The version of the program that documents name as their maker.
const PROGRAM_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is in the image of one platform.
#[derive(Debug, Clone)]
pub struct Bill {
    /// The image's name.
    pub name: String,
    /// The image's tag.
    pub tag: String,
    /// The image's platform, as `linux/amd64`.
    pub platform: String,
    /// The digest of the image's manifest, where it is known.
    pub manifest: Option<BlobDigest>,
    /// The image's `created`, in seconds since 1970.
    pub created: i64,
    /// The packages, sorted by name.
    pub packages: Vec<Package>,
    /// The files that the project adds, sorted by path.
    pub files: Vec<File>,
    /// What recipes fetched, sorted.
    pub sources: Vec<Source>,
}

/// A Debian package of an image.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its own architecture: `all`, or the platform's.
    pub architecture: String,
    /// The source package that it was built from.
    pub source: String,
    /// The version of the source package.
    pub source_version: String,
    /// Whose package it is: `debian`, `ubuntu`, or the name of a repository of image.toml.
    pub vendor: String,
    /// The codename of the distribution's release.
    pub distribution: Option<String>,
    /// SHA-256 of the `.deb`.
    pub sha256: BlobDigest,
    /// Who maintains it.
    pub maintainer: Option<String>,
    /// Its project's address.
    pub homepage: Option<String>,
    /// The first line of its description.
    pub summary: Option<String>,
    /// What its copyright file says.
    pub licence: Licence,
    /// Names of packages of this image that it needs, sorted.
    pub needs: Vec<String>,
}

impl Package {
    /// Its package URL.
    pub fn purl(&self) -> String {
        purl::deb(
            &self.vendor,
            &self.name,
            &self.version,
            &self.architecture,
            self.distribution.as_deref(),
        )
    }
}

/// A file that the project adds.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path in the image, with `/` in front.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: BlobDigest,
    /// Where it was fetched from, without credentials.
    pub url: Option<String>,
}

/// A UUID that a document's content gives (RFC 9562, version 8): the same bill has the same one, in
/// whatever year and on whatever host.
fn uuid(kind: &str, content: &str) -> String {
    let digest = sha2::Sha256::digest(format!("{kind}\n{content}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A time as both formats write it; one that has no text form becomes the first of all.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
