//! Which package has a file: archives list that in `Contents` indexes (Debian's repository format).

use std::io::{BufRead as _, BufReader};

use super::observe::Transfers;
use super::{Plan, ResolveError, Resolver};
use crate::lock::Lock;
use crate::spec::{Image, Platform};
use drystone_source::debian::archive::ArchiveError;

/// The most packages that are named.
const MOST_NAMED: usize = 3;

/// A file that something looked for and did not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFile {
    /// Folders below one of which it is looked for, without a leading slash.
    pub folders: &'static [&'static str],
    /// The end of its path: a name, or several parts such as `openssl/ssl.h`.
    pub tail: String,
}

impl MissingFile {
    /// How well a path answers: the number of folders between, fewest first; `None` if it does not.
    fn distance(&self, path: &str) -> Option<usize> {
        let folder = path.strip_suffix(self.tail.as_str())?.strip_suffix('/')?;
        let wanted = |top: &&&str| {
            folder.strip_prefix(**top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let top = self.folders.iter().filter(wanted).max_by_key(|top| top.len())?;
        Some(folder[top.len()..].matches('/').count())
    }
}

impl Resolver<'_> {
    /// The packages of an image's suite that have a file, best first; a few of them at most. Their
    /// index has some ten megabytes, for packages that are the same everywhere some thirty more.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] when a Release or index cannot be had or proved.
    pub async fn packages_with(
        &self,
        image: &Image,
        lock: &Lock,
        platform: Platform,
        file: &MissingFile,
    ) -> Result<Vec<String>, ResolveError> {
        let Some(debian) = &image.debian else { return Ok(Vec::new()) };
        let locked = lock.images.get(&image.name).and_then(|image| image.suite.as_ref());
        let suite = locked.unwrap_or(&debian.suite);
        let plan = Plan::new(self, debian, suite, Some(lock))?;
        let archive = self.prove(&plan.wanted(suite, "")?).await?;
        let transfers = Transfers::new(self.progress);
        let indexes = self.indexes(&archive, &transfers);
        for architecture in [platform.debian_name(), "all"] {
            let mut found = Vec::new();
            for component in &archive.components {
                let fetched = indexes.contents(component.as_str(), architecture).await;
                let fetched = fetched.map_err(|source| archive.failed(source))?;
                let Some((path, packed)) = fetched else { continue };
                let file = file.clone();
                let search = tokio::task::spawn_blocking(move || search(&packed, &file));
                let search = search.await.map_err(ResolveError::worker)?;
                found.extend(
                    search.map_err(|source| {
                        archive.failed(ArchiveError::Decompress { path, source })
                    })?,
                );
            }
            found.sort();
            let mut names: Vec<String> = Vec::new();
            for (.., name) in found {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names.truncate(MOST_NAMED);
            if !names.is_empty() {
                return Ok(names);
            }
        }
        Ok(Vec::new())
    }
}

/// How far from its folder the file stands, whether the package's name does not speak of it, the name's
/// length and the name: the least is the best.
type Rank = (usize, bool, usize, String);

/// The packages that have a file, in the lines of an index: a path, spaces, and
/// `[[AREA/]SECTION/]PACKAGE` with commas between.
fn search(packed: &[u8], file: &MissingFile) -> std::io::Result<Vec<Rank>> {
    let mut reader = BufReader::with_capacity(1 << 16, flate2::read::MultiGzDecoder::new(packed));
    let (mut line, mut found) = (Vec::new(), Vec::new());
    let (stem, _) = file.tail.rsplit_once('.').unwrap_or((&file.tail, ""));
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let Ok(line) = std::str::from_utf8(&line) else { continue };
        let Some((path, owners)) = line.trim_end().rsplit_once([' ', '\t']) else { continue };
        let Some(distance) = file.distance(path.trim_end()) else { continue };
        for owner in owners.split(',') {
            let name = owner.rsplit('/').next().unwrap_or(owner).to_owned();
            found.push((distance, !name.contains(stem), name.len(), name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn named(text: &str, file: &MissingFile) -> Vec<String> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text.as_bytes()).unwrap();
        let mut found = search(&writer.finish().unwrap(), file).unwrap();
        found.sort();
        found.into_iter().map(|(.., name)| name).collect()
    }

    #[test]
    fn packages_are_named_best_first() {
        let text = "usr/bin/cmake      \tdevel/cmake\n\
                    usr/share/bash-completion/completions/cmake devel/cmake-data\n\
                    usr/include/linux/zlib.h kernel/linux-libc-dev\n\
                    usr/include/zlib.h libdevel/zlib1g-dev,libdevel/zlib-odd-dev\n\
                    usr/include/my folder/zlib.h libdevel/spaced\n\
                    usr/include/x86_64-linux-gnu/openssl/ssl.h  libdevel/libssl-dev\n\
                    no-owner\n";
        let program = MissingFile { folders: &["usr/bin", "usr/sbin"], tail: "cmake".into() };
        assert_eq!(named(text, &program), ["cmake"]);
        let header = |tail: &str| MissingFile { folders: &["usr/include"], tail: tail.into() };
        assert_eq!(
            named(text, &header("zlib.h")),
            ["zlib1g-dev", "zlib-odd-dev", "spaced", "linux-libc-dev"]
        );
        assert_eq!(named(text, &header("openssl/ssl.h")), ["libssl-dev"]);
        assert_eq!(named(text, &header("lib.h")), Vec::<String>::new(), "whole names only");
    }

    #[test]
    fn a_damaged_index_is_an_error() {
        let file = MissingFile { folders: &["usr/bin"], tail: "x".into() };
        assert!(search(b"no gzip", &file).is_err());
    }
}
