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
use super::xz;
use crate::source::fetch::{DownloadObserver, Downloader, FetchError, shown};

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

/// Fetches the package index of a component and architecture, as the Release lists it.
///
/// The smallest form that can be read is used: xz, else gzip, else plain. It is proved before it is
/// decompressed; what comes out is held to the size and digest that the Release states for it.
///
/// # Errors
///
/// [`ArchiveError`]; [`ArchiveError::NoIndex`] when the Release lists none.
pub async fn fetch_packages_index(
    downloader: &Downloader,
    mirror: &Url,
    suite: &str,
    release: &(dyn ReleaseFiles + Sync),
    component: &str,
    architecture: &str,
    observer: &dyn DownloadObserver,
) -> Result<PackagesIndex, ArchiveError> {
    let folder = if suite.ends_with('/') {
        String::new()
    } else {
        format!("{component}/binary-{architecture}/")
    };
    let plain = format!("{folder}Packages");
    let found = Form::ALL.iter().find_map(|form| {
        let path = format!("{plain}{}", form.suffix());
        release.file(&path).map(|(sha256, size)| (*form, path, sha256, size))
    });
    let Some((form, path, sha256, size)) = found else {
        return Err(ArchiveError::NoIndex {
            suite: suite.to_owned(),
            component: component.to_owned(),
            architecture: architecture.to_owned(),
        });
    };
    let name = format!("{suite} {component} {architecture} packages");
    let listed = Listed { mirror, suite, by_hash: release.by_hash(), path: &path, sha256, size };
    let packed = listed.fetch(downloader, &name, observer).await?;
    let stated = release.file(&plain);
    let worker = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || unpack(form, &packed, &path, stated))
    };
    let bytes = worker.await.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        Err(ArchiveError::Decompress { path: path.clone(), source })
    })?;
    Ok(PackagesIndex { bytes, path, sha256 })
}

/// Fetches the index of the files that an architecture's packages have: its path, and its bytes as
/// gzip packs them. `None` where the Release lists none.
///
/// # Errors
///
/// [`ArchiveError::Fetch`].
pub async fn fetch_contents(
    downloader: &Downloader,
    mirror: &Url,
    suite: &str,
    release: &(dyn ReleaseFiles + Sync),
    component: &str,
    architecture: &str,
    observer: &dyn DownloadObserver,
) -> Result<Option<(String, Bytes)>, ArchiveError> {
    // Some archives have one index for all components.
    let places =
        [format!("{component}/Contents-{architecture}.gz"), format!("Contents-{architecture}.gz")];
    let found = places.into_iter().find_map(|path| release.file(&path).map(|it| (path, it)));
    let Some((path, (sha256, size))) = found else { return Ok(None) };
    let name = format!("{suite} {component} {architecture} contents");
    let listed = Listed { mirror, suite, by_hash: release.by_hash(), path: &path, sha256, size };
    let packed = listed.fetch(downloader, &name, observer).await?;
    Ok(Some((path, packed)))
}

/// A file that a Release lists.
struct Listed<'a> {
    mirror: &'a Url,
    suite: &'a str,
    by_hash: bool,
    /// Relative to the Release.
    path: &'a str,
    sha256: BlobDigest,
    size: u64,
}

impl Listed<'_> {
    async fn fetch(
        &self,
        downloader: &Downloader,
        name: &str,
        observer: &dyn DownloadObserver,
    ) -> Result<Bytes, ArchiveError> {
        let Self { suite, path, sha256, .. } = self;
        let suite_folder = suite_folder(suite);
        let address = |path: &str| address_of(self.mirror, &format!("{suite_folder}/{path}"));
        let folder =
            path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let mut urls = Vec::new();
        if self.by_hash {
            // Immune to a mirror that is just being updated.
            urls.push(address(&format!("{folder}by-hash/SHA256/{}", sha256.to_hex())));
        }
        urls.push(address(path));
        let fetched = downloader.fetch_verified(name, &urls, *sha256, self.size, observer);
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
