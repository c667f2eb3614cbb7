//! Watching how much a root grows, since few file systems could be asked to keep a limit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, Dir, FileType, Mode};

use super::super::error::{At, Failure};
use super::super::request::Storage;
use super::directory::DIRECTORY;

/// The shortest time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest time without a thorough look.
const LONGEST: Duration = Duration::from_secs(30);
/// Looking may take one part in so many of the time.
const SHARE: u32 = 30;
/// What a file counts at least, in bytes: its inode and its name are something too.
const LEAST: u64 = 4096;

/// A thread that looks; its descriptor is readable once the limit is exceeded.
pub(super) struct DiskWatch {
    exceeded: Arc<OwnedFd>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl DiskWatch {
    /// Starts to watch a directory that may grow by `limit` bytes. What an overlay's holds was
    /// written by commands; a copy's is counted at first.
    pub(super) fn start(
        directory: &OwnedFd,
        limit: u64,
        storage: Storage,
    ) -> Result<Self, Failure> {
        let exceeded = eventfd(0, EventfdFlags::CLOEXEC).at("watch", "the disk")?;
        let exceeded = Arc::new(exceeded);
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let directory = directory.try_clone().at("watch", "the disk")?;
        let mut look = Look { directory, limit, stop: Arc::clone(&stop) };
        let said = Arc::clone(&exceeded);
        let thread = std::thread::Builder::new().spawn(move || {
            if storage == Storage::Copy {
                let size = size(&look.directory, 0, u64::MAX);
                look.limit = look.limit.saturating_add(size);
            }
            if look.until_exceeded() {
                let _ = rustix::io::write(&*said, &1_u64.to_ne_bytes());
            }
        });
        Ok(Self { exceeded, stop, thread: Some(thread.at("watch", "the disk")?) })
    }
}

impl AsFd for DiskWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exceeded.as_fd()
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Look {
    directory: OwnedFd,
    limit: u64,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Look {
    /// Looks from time to time; `false` when it was told to stop.
    fn until_exceeded(&self) -> bool {
        let (mut pause, mut seen) = (INTERVAL, None);
        loop {
            if self.stops_within(pause) {
                return false;
            }
            let free = self.free();
            if let (Some((when, size, before)), Some(free)) = (seen, free) {
                // Where the disk holds hardly more than it did, nobody has written much.
                let when: Instant = when;
                let room = self.limit.saturating_sub(size);
                if when.elapsed() < LONGEST && before < free + room / 4 {
                    continue;
                }
            }
            let begin = Instant::now();
            let size = size(&self.directory, 0, self.limit);
            if size > self.limit {
                return true;
            }
            seen = free.map(|free| (Instant::now(), size, free));
            pause = INTERVAL.max(begin.elapsed() * SHARE);
        }
    }

    fn stops_within(&self, pause: Duration) -> bool {
        let stop = self.stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stop, _) = self
            .stop
            .1
            .wait_timeout_while(stop, pause, |stop| !*stop)
            .unwrap_or_else(PoisonError::into_inner);
        *stop
    }

    /// What is free on the disk, in bytes; files that are left count as well.
    fn free(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory).ok()?;
        let files = stat.f_ffree.saturating_mul(LEAST);
        Some(stat.f_bfree.saturating_mul(stat.f_frsize).saturating_add(files))
    }
}

/// The size of a directory, `sum` being counted already; not exact once it is above
/// `limit`. What
/// vanishes meanwhile counts nothing.
fn size(directory: &OwnedFd, mut sum: u64, limit: u64) -> u64 {
    let Ok(entries) = Dir::read_from(directory) else { return sum };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let Ok(stat) = rustix::fs::statat(directory, name, flags) else { continue };
        #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
        let (blocks, links) = (stat.st_blocks as u64 * 512, (stat.st_nlink as u64).max(1));
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        sum += match is_directory {
            true => blocks.max(LEAST),
            false => blocks.max(LEAST) / links,
        };
        if sum > limit {
            return sum;
        }
        if is_directory
            && let Ok(inner) = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())
        {
            sum = size(&inner, sum, limit);
        }
    }
    sum
}
