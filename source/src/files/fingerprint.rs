//! Whether inputs changed, told by `stat` alone.
//!
//! A stamp keeps device, inode, size, mode, mtime and ctime of a path that was read: of files for
//! their content, of directories for their names, of `.gitignore` files for their rules, and of
//! places where such a file might appear.
//!
//! **Racily clean**, as in git's index: a file that is written twice within one tick of the file
//! system's clock, and read in between, keeps the times of the first write. A stamp therefore
//! counts only if the file's times were older, by more than a tick, than the clock when its stamp
//! was taken, which is before its content was read. Ticks are taken as 20 ms (a coarse kernel clock
//! at 100 Hz, twice), or 2 s where times are in whole seconds (FAT, old network file systems). An
//! input that is racily clean makes [`Fingerprint::unchanged`] say no; the caller then reads and
//! hashes everything again, and the new fingerprint is no longer racy. Times of the future, from
//! a server with another clock, are racy for as long as they are in the future.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01. Used to compare with file times, never in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(i64);

const SECOND: i64 = 1_000_000_000;
const FINE_TICK: i64 = 20_000_000;
const COARSE_TICK: i64 = 2 * SECOND;

impl Timestamp {
    /// A time in nanoseconds since 1970-01-01.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn of(seconds: i64, nanoseconds: i64) -> Self {
        Self(seconds.saturating_mul(SECOND).saturating_add(nanoseconds))
    }

    /// Whether a file changed at `self` might have been written again, unseen, after `taken`.
    const fn is_racy_at(self, taken: Self) -> bool {
        let tick = if self.0 % SECOND == 0 { COARSE_TICK } else { FINE_TICK };
        self.0.saturating_add(tick) >= taken.0
    }
}

/// What stood at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StampState {
    /// Nothing.
    Absent,
    /// Something; what, does not matter.
    Exists,
    /// This.
    Present {
        /// Device number.
        device: u64,
        /// Inode number.
        inode: u64,
        /// Size in bytes.
        size: u64,
        /// Type and permission bits.
        mode: u32,
        /// Last change of content.
        mtime: Timestamp,
        /// Last change of content or attributes.
        ctime: Timestamp,
        /// When this was asked.
        taken: Timestamp,
    },
}

impl StampState {
    fn of(metadata: &Metadata, taken: Timestamp) -> Self {
        Self::Present {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mode: metadata.mode(),
            mtime: Timestamp::of(metadata.mtime(), metadata.mtime_nsec()),
            ctime: Timestamp::of(metadata.ctime(), metadata.ctime_nsec()),
            taken,
        }
    }

    /// Whether content may have changed without a change of what a stamp shows.
    pub const fn is_racy(&self) -> bool {
        match self {
            Self::Present { mtime, ctime, taken, .. } => {
                mtime.is_racy_at(*taken) || ctime.is_racy_at(*taken)
            }
            Self::Absent | Self::Exists => false,
        }
    }

    /// Whether `now` shows the same, whenever it was asked.
    fn same(&self, now: &Self) -> bool {
        match (self, now) {
            (
                Self::Present { device, inode, size, mode, mtime, ctime, .. },
                Self::Present {
                    device: device_now,
                    inode: inode_now,
                    size: size_now,
                    mode: mode_now,
                    mtime: mtime_now,
                    ctime: ctime_now,
                    ..
                },
            ) => {
                (device, inode, size, mode, mtime, ctime)
                    == (device_now, inode_now, size_now, mode_now, mtime_now, ctime_now)
            }
            (Self::Exists, now) => *now != Self::Absent,
            (before, now) => before == now,
        }
    }
}

/// One path and what stood there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The path on disk.
    pub path: PathBuf,
    /// What stood there, a link not followed.
    pub state: StampState,
}

/// Everything that was looked at, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    stamps: Vec<Stamp>,
}

fn look(path: &Path) -> io::Result<(StampState, Option<Metadata>)> {
    let taken = Timestamp::now();
    match path.symlink_metadata() {
        Ok(metadata) => Ok((StampState::of(&metadata, taken), Some(metadata))),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok((StampState::Absent, None))
        }
        Err(error) => Err(error),
    }
}

impl Fingerprint {
    /// The stamps, by path.
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// Stamps one more path, such as `image.toml` itself. Must come before it is read.
    pub fn record(&mut self, path: &Path) -> io::Result<()> {
        let (state, _) = look(path)?;
        self.put(path, state);
        Ok(())
    }

    fn put(&mut self, path: &Path, state: StampState) {
        let at = self.stamps.binary_search_by(|stamp| stamp.path.as_path().cmp(path));
        match at {
            Ok(known) => self.stamps[known].state = state,
            Err(at) => self.stamps.insert(at, Stamp { path: path.to_owned(), state }),
        }
    }

    /// Stamps a file that was just written by this process. So that nobody need wait for the tick's
    /// end, the file gets a time of change that no write within the tick can give it: one nanosecond
    /// more. Where the file system keeps no such time the stamp is racily clean, as others are.
    pub fn record_written(&mut self, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(path)?;
        let written = file.metadata()?.modified()?;
        let sealed = written + Duration::from_nanos(1);
        file.set_modified(sealed)?;
        let (mut state, metadata) = look(path)?;
        let is_sealed = metadata.and_then(|it| it.modified().ok()) == Some(sealed);
        if let StampState::Present { mtime, ctime, taken, .. } = &mut state
            && is_sealed
        {
            let newest = (*mtime).max(*ctime);
            *taken =
                Timestamp((*taken).max(newest).0.saturating_add(COARSE_TICK).saturating_add(1));
        }
        self.put(path, state);
        Ok(())
    }

    /// Whether nothing changed since: every path shows what it showed, and none is racily clean.
    /// An input that cannot be asked counts as changed.
    pub fn unchanged(&self) -> bool {
        self.stamps.iter().all(|stamp| {
            !stamp.state.is_racy() && look(&stamp.path).is_ok_and(|(now, _)| stamp.state.same(&now))
        })
    }
}

/// Collects stamps while a walk goes on. The first stamp of a path stays: it is the one taken
/// before the path was read.
#[derive(Debug, Default)]
pub struct Recorder {
    stamps: BTreeMap<PathBuf, StampState>,
}

impl Recorder {
    /// Stamps a path and gives its metadata, links not followed.
    pub fn metadata(&mut self, path: &Path) -> io::Result<Option<Metadata>> {
        let (state, metadata) = look(path)?;
        let known = self.stamps.entry(path.to_owned()).or_insert(state);
        if *known == StampState::Exists {
            *known = state;
        }
        Ok(metadata)
    }

    /// Notes whether there is anything at a path.
    pub fn exists(&mut self, path: &Path) -> io::Result<bool> {
        let (state, metadata) = look(path)?;
        let state = if metadata.is_some() { StampState::Exists } else { state };
        self.stamps.entry(path.to_owned()).or_insert(state);
        Ok(metadata.is_some())
    }

    /// The fingerprint of everything that was asked.
    pub fn finish(self) -> Fingerprint {
        let stamps = self.stamps.into_iter().map(|(path, state)| Stamp { path, state }).collect();
        Fingerprint { stamps }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_stamped_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.tar");
        // Each write is within the tick of the one before, and of the same size.
        for number in 0..200 {
            fs::write(&path, format!("{number:04}")).unwrap();
            let mut fingerprint = Fingerprint::default();
            fingerprint.record_written(&path).unwrap();
            assert!(fingerprint.unchanged());
            fs::write(&path, format!("{:04}", number + 1000)).unwrap();
            assert!(!fingerprint.unchanged(), "{number}");
        }
    }

    /// A file whose times lie well in the past of its stamp.
    fn settled() -> (tempfile::TempDir, PathBuf, Fingerprint) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "one").unwrap();
        std::thread::sleep(Duration::from_millis(60));
        let mut fingerprint = Fingerprint::default();
        for path in [directory.path(), &file, &directory.path().join("absent")] {
            fingerprint.record(path).unwrap();
        }
        (directory, file, fingerprint)
    }

    #[test]
    fn an_untouched_input_is_unchanged() {
        let (_directory, _, fingerprint) = settled();
        assert!(fingerprint.unchanged());
        let json = serde_json::to_string(&fingerprint).unwrap();
        let read: Fingerprint = serde_json::from_str(&json).unwrap();
        assert_eq!(read, fingerprint);
        assert!(read.unchanged());
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        let changes: [fn(&Path, &Path); 5] = [
            |_, file| fs::write(file, "two").unwrap(),
            |directory, _| fs::write(directory.join("absent"), "").unwrap(),
            |_, file| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(file, mode).unwrap();
            },
            |_, file| fs::remove_file(file).unwrap(),
            |directory, file| {
                // Same size, and the mtime put back: the ctime still tells.
                let times = fs::metadata(file).unwrap().modified().unwrap();
                fs::write(directory.join("new"), "two").unwrap();
                fs::rename(directory.join("new"), file).unwrap();
                fs::File::open(file).unwrap().set_modified(times).unwrap();
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let (directory, file, fingerprint) = settled();
            change(directory.path(), &file);
            assert!(!fingerprint.unchanged(), "change {index}");
        }
    }

    #[test]
    fn a_file_just_written_is_racy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let mut fingerprint = Fingerprint::default();
        fs::write(&file, "one").unwrap();
        fingerprint.record(&file).unwrap();
        assert!(!fingerprint.unchanged(), "it may have been written again within one tick");
        std::thread::sleep(Duration::from_millis(60));
        fingerprint.record(&file).unwrap();
        assert!(fingerprint.unchanged());
    }

    #[test]
    fn whole_seconds_have_longer_ticks() {
        let time = |nanoseconds| Timestamp::from_nanoseconds(nanoseconds);
        assert!(time(5 * SECOND).is_racy_at(time(6 * SECOND)));
        assert!(!time(5 * SECOND).is_racy_at(time(8 * SECOND)));
        assert!(!time(5 * SECOND + 1).is_racy_at(time(6 * SECOND)));
        assert!(time(9 * SECOND + 1).is_racy_at(time(6 * SECOND)), "the future");
    }
}
