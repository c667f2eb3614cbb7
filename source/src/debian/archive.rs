//! Files of a Debian archive, each proved before it is used: Release by its signature, indexes by
//! the Release.
//!
//! ```text
//! BASE/dists/SUITE/InRelease                                   signed
//!      └─ SHA256 ─ COMPONENT/binary-ARCH/Packages.xz, .gz       digest and size, also under
//!                  COMPONENT/binary-ARCH/by-hash/SHA256/HEX     Acquire-By-Hash
//! ```
//!
//! Format: Debian's repository format. This module reads no field of a Release; whoever does hands
//! what it needs in as [`ReleaseFiles`].

use std::io::{self, Read};

use bytes::Bytes;
use drystone_store::digest::BlobDigest;
use url::Url;

use super::mirror::address_of;
use super::openpgp::{Keyring, SignatureError, Verified, verify_clearsigned, verify_detached};
use super::release::Release;
use super::xz;
use crate::fetch::{DownloadObserver, Downloader, FetchError, shown};

/// The largest Release that is read, in bytes; Debian's largest has 0.3 MB.
const RELEASE_LIMIT: u64 = 16 << 20;

/// The largest index after decompression, in bytes; Debian's largest has 60 MB.
const INDEX_LIMIT: u64 = 1 << 30;

/// A failure to obtain a proved file of an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A download failed.
    #[error("cannot fetch {what}")]
    Fetch {
        /// The file, as people call it.
        what: String,
        /// Why.
        source: FetchError,
    },
    /// The mirror has neither `InRelease` nor `Release` with `Release.gpg`.
    #[error("{mirror} has no signed Release for suite `{suite}`")]
    NoRelease {
        /// The mirror's base, without credentials.
        mirror: String,
        /// The suite.
        suite: String,
    },
    /// The Release is not signed as it must be.
    #[error("the Release at {url} cannot be trusted")]
    Signature {
        /// Its address, without credentials.
        url: String,
        /// Why not.
        source: SignatureError,
    },
    /// The Release lists no package index for a component and architecture.
    #[error("suite `{suite}` has no packages of component `{component}` for {architecture}")]
    NoIndex {
        /// The suite.
        suite: String,
        /// The component.
        component: String,
        /// The architecture.
        architecture: String,
    },
    /// An index cannot be decompressed.
    #[error("cannot decompress {path}")]
    Decompress {
        /// The index, relative to the Release.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// An index grows beyond its stated size, or any sensible one.
    #[error("{path} has more than {limit} bytes after decompression")]
    TooLarge {
        /// The index, relative to the Release.
        path: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// An index decompresses to something else than the Release says.
    #[error("{path} has the wrong content after decompression: expected {expected}, got {actual}")]
    Content {
        /// The index, relative to the Release.
        path: String,
        /// The digest in the Release.
        expected: BlobDigest,
        /// The digest of what came out.
        actual: BlobDigest,
    },
}

/// What a Release says of its files.
pub trait ReleaseFiles {
    /// Whether files are also offered under `by-hash` (`Acquire-By-Hash: yes`).
    fn by_hash(&self) -> bool;

    /// SHA-256 and size in bytes of a file, by its path relative to the Release.
    fn file(&self, path: &str) -> Option<(BlobDigest, u64)>;
}

impl ReleaseFiles for Release {
    fn by_hash(&self) -> bool {
        self.acquire_by_hash
    }

    fn file(&self, path: &str) -> Option<(BlobDigest, u64)> {
        self.files.get(path).map(|file| (file.digest, file.size))
    }
}

/// A Release with a good signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRelease {
    /// The signed text.
    pub text: String,
    /// SHA-256 of the file that holds it: `InRelease`, or `Release` where there is no other.
    pub sha256: BlobDigest,
    /// Fingerprints of the keys that signed it, upper-case hexadecimal.
    pub signers: Vec<String>,
    /// Where it came from, without credentials.
    pub url: String,
}

/// A package index, decompressed and proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagesIndex {
    /// Its text, as bytes.
    pub bytes: Vec<u8>,
    /// The file that was used, relative to the Release (`main/binary-amd64/Packages.xz`).
    pub path: String,
    /// SHA-256 of that file.
    pub sha256: BlobDigest,
}

/// The folder of a suite below a mirror's base; a suite with a final `/` is a flat repository's.
fn suite_folder(suite: &str) -> String {
    if suite.ends_with('/') {
        suite.trim_end_matches('/').to_owned()
    } else {
        format!("dists/{suite}")
    }
}

/// Fetches a suite's Release and proves its signature at `now` (seconds since 1970).
///
/// Whether it is the right one (origin, codename), new enough and still valid is for the caller.
///
/// # Errors
///
/// [`ArchiveError::NoRelease`] when there is none, [`ArchiveError::Signature`] when no signature by
/// a key of `keyring` is acceptable, [`ArchiveError::Fetch`] when the mirror fails.
pub async fn fetch_release(
    downloader: &Downloader,
    mirror: &Url,
    suite: &str,
    keyring: &Keyring,
    now: i64,
) -> Result<VerifiedRelease, ArchiveError> {
    let folder = suite_folder(suite);
    let fetch = async |name: &str| {
        let url = address_of(mirror, &format!("{folder}/{name}"));
        let bytes = downloader.fetch_bytes(&url, RELEASE_LIMIT).await;
        let what = format!("{name} of suite `{suite}`");
        let bytes = bytes.map_err(|source| ArchiveError::Fetch { what, source })?;
        Ok((bytes, shown(&url)))
    };
    let trusted = |content: &Bytes, url: String, verified: Result<Verified, SignatureError>| {
        let sha256 = BlobDigest::of(content);
        match verified {
            Ok(Verified { text, signers }) => Ok(VerifiedRelease { text, sha256, signers, url }),
            Err(source) => Err(ArchiveError::Signature { url, source }),
        }
    };
    if let (Some(message), url) = fetch("InRelease").await? {
        let verified = verify_clearsigned(&message, keyring, now);
        return trusted(&message, url, verified);
    }
    let (Some(release), url) = fetch("Release").await? else {
        return Err(ArchiveError::NoRelease { mirror: shown(mirror), suite: suite.to_owned() });
    };
    let (Some(signatures), _) = fetch("Release.gpg").await? else {
        return Err(ArchiveError::NoRelease { mirror: shown(mirror), suite: suite.to_owned() });
    };
    let verified = verify_detached(&release, &signatures, keyring, now);
    trusted(&release, url, verified)
}

/// The indexes of a suite: where they are fetched from, and the Release that they are proved by.
pub struct Indexes<'a> {
    /// Fetches them.
    pub downloader: &'a Downloader,
    /// The archive's mirror.
    pub mirror: &'a Url,
    /// The suite; with a final `/` a flat repository's.
    pub suite: &'a str,
    /// What the suite's Release lists.
    pub release: &'a (dyn ReleaseFiles + Sync),
    /// Hears how it goes.
    pub observer: &'a dyn DownloadObserver,
}

impl Indexes<'_> {
    /// Fetches the package index of a component and architecture, as the Release lists it.
    ///
    /// The smallest form that can be read is used: xz, else gzip, else plain. It is proved before it
    /// is decompressed; what comes out is held to the size and digest that the Release states for it.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; [`ArchiveError::NoIndex`] when the Release lists none.
    pub async fn packages(
        &self,
        component: &str,
        architecture: &str,
    ) -> Result<PackagesIndex, ArchiveError> {
        let Self { suite, release, .. } = self;
        let plain = match suite.ends_with('/') {
            true => "Packages".to_owned(),
            false => format!("{component}/binary-{architecture}/Packages"),
        };
        let found = Form::ALL.iter().find_map(|form| {
            let path = format!("{plain}{}", form.suffix());
            release.file(&path).map(|file| (*form, path, file))
        });
        let Some((form, path, file)) = found else {
            return Err(ArchiveError::NoIndex {
                suite: (*suite).to_owned(),
                component: component.to_owned(),
                architecture: architecture.to_owned(),
            });
        };
        let name = format!("{suite} {component} {architecture} packages");
        let packed = self.fetch(&name, &path, file).await?;
        let stated = release.file(&plain);
        let worker = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || unpack(form, &packed, &path, stated))
        };
        let bytes = worker.await.unwrap_or_else(|error| {
            let source = io::Error::other(error);
            Err(ArchiveError::Decompress { path: path.clone(), source })
        })?;
        Ok(PackagesIndex { bytes, path, sha256: file.0 })
    }

    /// Fetches the index of the files that an architecture's packages have: its path, and its bytes
    /// as gzip packs them. `None` where the Release lists none.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Fetch`].
    pub async fn contents(
        &self,
        component: &str,
        architecture: &str,
    ) -> Result<Option<(String, Bytes)>, ArchiveError> {
        let plain = format!("Contents-{architecture}.gz");
        // Some archives have one index for all components.
        let places = [format!("{component}/{plain}"), plain];
        let listed = |path: String| self.release.file(&path).map(|file| (path, file));
        let Some((path, file)) = places.into_iter().find_map(listed) else { return Ok(None) };
        let name = format!("{} {component} {architecture} contents", self.suite);
        let packed = self.fetch(&name, &path, file).await?;
        Ok(Some((path, packed)))
    }

    /// Fetches a file that the Release lists, by its path relative to it.
    async fn fetch(
        &self,
        name: &str,
        path: &str,
        (sha256, size): (BlobDigest, u64),
    ) -> Result<Bytes, ArchiveError> {
        let suite = self.suite;
        let suite_folder = suite_folder(suite);
        let address = |path: &str| address_of(self.mirror, &format!("{suite_folder}/{path}"));
        let mut urls = Vec::new();
        if self.release.by_hash() {
            let folder = path.rfind('/').map_or("", |end| &path[..=end]);
            // Immune to a mirror that is just being updated.
            urls.push(address(&format!("{folder}by-hash/SHA256/{}", sha256.to_hex())));
        }
        urls.push(address(path));
        let fetched = self.downloader.fetch_verified(name, &urls, sha256, size, self.observer);
        fetched
            .await
            .map_err(|source| ArchiveError::Fetch { what: format!("{path} of `{suite}`"), source })
    }
}

/// The compressions of an index, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Xz,
    Gzip,
    Plain,
}

impl Form {
    const ALL: [Self; 3] = [Self::Xz, Self::Gzip, Self::Plain];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Xz => ".xz",
            Self::Gzip => ".gz",
            Self::Plain => "",
        }
    }
}

fn unpack(
    form: Form,
    packed: &[u8],
    path: &str,
    stated: Option<(BlobDigest, u64)>,
) -> Result<Vec<u8>, ArchiveError> {
    let limit = stated.map_or(INDEX_LIMIT, |(_, size)| size.min(INDEX_LIMIT));
    let damaged = |source| ArchiveError::Decompress { path: path.to_owned(), source };
    let mut reader: Box<dyn Read + '_> = match form {
        Form::Xz => Box::new(xz::xz(packed).map_err(damaged)?),
        Form::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Form::Plain => Box::new(packed),
    };
    // Reserve what is likely, not what a Release may claim.
    let mut bytes = Vec::with_capacity(usize::try_from(limit.min(128 << 20)).unwrap_or_default());
    reader.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > limit {
        return Err(ArchiveError::TooLarge { path: path.to_owned(), limit });
    }
    if let Some((expected, _)) = stated {
        let actual = BlobDigest::of(&bytes);
        if expected != actual {
            return Err(ArchiveError::Content { path: path.to_owned(), expected, actual });
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
