//! Correcting what the kernel answered, and what it is asked.

use std::mem::offset_of;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Pid;

use super::super::super::disguise::{DirectoryOrder, Disguise, ShiftedClock, Shown};
use super::calls::Call;
use super::memory;

/// Turned over in inode numbers.
const INODE_BITS: u64 = 0x002a_5a5a;
/// Files made by the run are not newer than this after its start, in seconds.
const LONGEST_RUN: i64 = 60 * 86400;
/// Added to the time since boot, in seconds.
const LONGER_UP: i64 = 3_141_592;
/// What `uname` says.
pub(super) const RELEASE: &str = "7.77.7-check";
pub(super) const VERSION: &str = "#1 SMP check Thu Jan  1 00:00:00 UTC 2060";

/// Bytes that stand before and after a call: they are put back when it has ended.
pub(super) type Changed = Option<(u64, Vec<u8>)>;

impl ShiftedClock {
    /// A file's time as commands see it.
    const fn shown(self, seconds: i64) -> i64 {
        let is_fresh = self.files && seconds >= self.since && seconds < self.since + LONGEST_RUN;
        if is_fresh { seconds + self.ahead_at(seconds) } else { seconds }
    }

    /// A time that a command gives at a true time, as it is in truth.
    const fn meant(self, seconds: i64, now: i64) -> i64 {
        let (start, ahead) = match self.shown {
            // A command may mean a moment before its own start.
            Shown::Ahead(ahead) => (self.since + ahead - 86400, ahead),
            // An input's time is the very one at which clocks are stopped.
            Shown::Stopped(time) => (time + 1, time - now),
        };
        let is_now = seconds >= start && seconds < start + LONGEST_RUN;
        if is_now { seconds - ahead } else { seconds }
    }

    /// Changes seconds, and the parts of a second after them.
    fn correct(self, time: &mut [u8]) {
        change(time, 0, |now| now + self.ahead_at(now));
        if let Shown::Stopped(_) = self.shown {
            change(time, 8, |_| 0);
        }
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(0)
}

/// Before a call: corrects what is given to the kernel.
pub(super) fn before(disguise: &Disguise, pid: Pid, call: Call, arguments: [u64; 6]) -> Changed {
    let clock = disguise.clock?;
    // Where numbers of seconds stand, from the argument on.
    let (address, seconds): (u64, &[usize]) = match call {
        Call::Utimensat | Call::TimerUntil => (arguments[2], &[0, 16]),
        Call::Futimesat => (arguments[2], &[0, 16]),
        Call::Utimes => (arguments[1], &[0, 16]),
        Call::Utime => (arguments[1], &[0, 8]),
        Call::SleepUntil => (arguments[2], &[0]),
        Call::FutexUntil => (arguments[3], &[0]),
        _ => return None,
    };
    // An itimerspec is an interval and then a time.
    let seconds = if call == Call::TimerUntil { &seconds[1..] } else { seconds };
    let length = seconds.last()? + 8;
    let old = (address != 0).then(|| memory::read(pid, address, length))??;
    let mut new = old.clone();
    let now = now();
    for &place in seconds {
        change(&mut new, place, |seconds| clock.meant(seconds, now));
    }
    if new == old {
        return None;
    }
    memory::write(pid, address, &new);
    Some((address, old))
}

/// After a call that succeeded: corrects what the kernel answered. `Some` is another result.
pub(super) fn after(
    disguise: &Disguise,
    pid: Pid,
    call: Call,
    arguments: [u64; 6],
    result: i64,
    drawn: &mut u64,
) -> Option<i64> {
    let correct = |address: u64, length: usize, correction: &mut dyn FnMut(&mut [u8])| {
        if address == 0 || length == 0 {
            return;
        }
        if let Some(mut bytes) = memory::read(pid, address, length) {
            correction(&mut bytes);
            memory::write(pid, address, &bytes);
        }
    };
    let length = usize::try_from(result).unwrap_or(0);
    match call {
        Call::ClockGettime | Call::Gettimeofday => {
            let clock = disguise.clock?;
            let place = if call == Call::ClockGettime { arguments[1] } else { arguments[0] };
            correct(place, 16, &mut |it| clock.correct(it));
        }
        Call::Time => {
            let ahead = disguise.clock?.ahead_at(result);
            correct(arguments[0], 8, &mut |it| change(it, 0, |now| now + ahead));
            return Some(result + ahead);
        }
        Call::Stat | Call::StatAt => {
            let place = if call == Call::Stat { arguments[1] } else { arguments[2] };
            correct(place, size_of::<libc::stat>(), &mut |it| stat(disguise, it));
        }
        Call::Statx => {
            correct(arguments[4], size_of::<libc::statx>(), &mut |it| statx(disguise, it));
        }
        Call::Getdents => correct(arguments[1], length, &mut |it| entries(disguise, it)),
        Call::Uname => correct(arguments[0], size_of::<libc::utsname>(), &mut uname),
        Call::Sysinfo => correct(arguments[0], size_of::<libc::sysinfo>(), &mut sysinfo),
        Call::Getrandom => {
            let seed = disguise.random_seed.unwrap_or(0);
            correct(arguments[0], length, &mut |it| fill(it, seed, drawn));
        }
        _ => {}
    }
    None
}

/// Changes a signed number of 64 bits.
fn change(bytes: &mut [u8], place: usize, change: impl Fn(i64) -> i64) {
    if let Some((word, _)) = bytes.get_mut(place..).and_then(<[u8]>::split_first_chunk_mut::<8>) {
        *word = change(i64::from_ne_bytes(*word)).to_ne_bytes();
    }
}

fn change_unsigned(bytes: &mut [u8], place: usize, change: impl Fn(u64) -> u64) {
    if let Some((word, _)) = bytes.get_mut(place..).and_then(<[u8]>::split_first_chunk_mut::<8>) {
        *word = change(u64::from_ne_bytes(*word)).to_ne_bytes();
    }
}

fn is_directory(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR
}

fn stat(disguise: &Disguise, bytes: &mut [u8]) {
    if let Some(clock) = disguise.clock {
        for place in [
            offset_of!(libc::stat, st_atime),
            offset_of!(libc::stat, st_mtime),
            offset_of!(libc::stat, st_ctime),
        ] {
            change(bytes, place, |seconds| clock.shown(seconds));
        }
    }
    if disguise.other_inodes {
        let at = offset_of!(libc::stat, st_mode);
        let mode = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).copied();
        let is_directory = is_directory(u32::from_ne_bytes(mode.unwrap_or_default()));
        change_unsigned(bytes, offset_of!(libc::stat, st_ino), |inode| inode ^ INODE_BITS);
        change(bytes, offset_of!(libc::stat, st_blocks), |blocks| blocks + 8);
        if is_directory {
            change(bytes, offset_of!(libc::stat, st_size), |size| size + 4096);
        }
    }
}

fn statx(disguise: &Disguise, bytes: &mut [u8]) {
    if let Some(clock) = disguise.clock {
        for place in [
            offset_of!(libc::statx, stx_atime),
            offset_of!(libc::statx, stx_btime),
            offset_of!(libc::statx, stx_ctime),
            offset_of!(libc::statx, stx_mtime),
        ] {
            change(bytes, place, |seconds| clock.shown(seconds));
        }
    }
    if disguise.other_inodes {
        let at = offset_of!(libc::statx, stx_mode);
        let mode = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).copied();
        let is_directory = is_directory(u16::from_ne_bytes(mode.unwrap_or_default()).into());
        change_unsigned(bytes, offset_of!(libc::statx, stx_ino), |inode| inode ^ INODE_BITS);
        change_unsigned(bytes, offset_of!(libc::statx, stx_blocks), |blocks| blocks + 8);
        if is_directory {
            change_unsigned(bytes, offset_of!(libc::statx, stx_size), |size| size + 4096);
        }
    }
}

/// Turns over what one call answered of a directory. Each place keeps its position, by which
/// programs come back to it.
fn entries(disguise: &Disguise, bytes: &mut [u8]) {
    // struct linux_dirent64: inode, position, length of the record, type, name.
    const POSITION: usize = 8;
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut records = Vec::new();
    let mut rest: &[u8] = bytes;
    while let Some(length) = rest.get(LENGTH..).and_then(<[u8]>::first_chunk::<2>) {
        let length = usize::from(u16::from_ne_bytes(*length));
        let Some(record) = rest.get(..length).filter(|_| length > NAME) else { return };
        records.push(record.to_vec());
        rest = &rest[length..];
    }
    let positions: Vec<Vec<u8>> =
        records.iter().map(|record| record[POSITION..LENGTH].to_vec()).collect();
    match disguise.directories {
        Some(DirectoryOrder::Backwards) => records.reverse(),
        Some(DirectoryOrder::Sorted) => {
            records.sort_by(|one, two| one[NAME..].cmp(&two[NAME..]));
        }
        None => {}
    }
    let mut turned = Vec::with_capacity(bytes.len());
    for (mut record, position) in records.into_iter().zip(positions) {
        record[POSITION..LENGTH].copy_from_slice(&position);
        if disguise.other_inodes {
            change_unsigned(&mut record, 0, |inode| inode ^ INODE_BITS);
        }
        turned.extend(record);
    }
    if turned.len() == bytes.len() {
        bytes.copy_from_slice(&turned);
    }
}

fn uname(bytes: &mut [u8]) {
    for (place, text) in [
        (offset_of!(libc::utsname, release), RELEASE),
        (offset_of!(libc::utsname, version), VERSION),
    ] {
        if let Some(field) = bytes.get_mut(place..place + 65) {
            field.fill(0);
            field[..text.len()].copy_from_slice(text.as_bytes());
        }
    }
}

fn sysinfo(bytes: &mut [u8]) {
    change(bytes, offset_of!(libc::sysinfo, uptime), |uptime| uptime + LONGER_UP);
    change_unsigned(bytes, offset_of!(libc::sysinfo, totalram), |total| total / 2 + 4096);
}

/// Fills with numbers that follow from the seed and from how many were drawn before (splitmix64).
pub(super) fn fill(bytes: &mut [u8], seed: u64, drawn: &mut u64) {
    for chunk in bytes.chunks_mut(8) {
        *drawn += 1;
        let mut word = seed.wrapping_add(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(word ^ (word >> 31)).to_ne_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were_given() {
        let shown = Shown::Ahead(400 * 86400);
        let clock = ShiftedClock { shown, since: 1_700_000_000, files: true };
        assert_eq!(clock.shown(315_532_800), 315_532_800, "an input's time is its own");
        for truth in [clock.since, clock.since + 3600] {
            assert_eq!(clock.meant(clock.shown(truth), truth), truth);
        }
        assert_eq!(clock.meant(315_532_800, clock.since), 315_532_800);
        assert_eq!(clock.meant(5, clock.since), 5, "a monotonic time stays");
    }

    #[test]
    fn a_stopped_clock_shows_one_time() {
        let shown = Shown::Stopped(315_532_800);
        let clock = ShiftedClock { shown, since: 1_700_000_000, files: true };
        let mut time = [1_700_000_001_i64.to_ne_bytes(), 999_i64.to_ne_bytes()].concat();
        clock.correct(&mut time);
        assert_eq!(time, [315_532_800_i64.to_ne_bytes(), 0_i64.to_ne_bytes()].concat());
        assert_eq!(clock.shown(1_700_000_001), 315_532_800);
        assert_eq!(clock.shown(1_600_000_000), 1_600_000_000, "a file from before the run");
        let later = clock.meant(315_532_800 + 5, 1_700_000_009);
        assert_eq!(later, 1_700_000_014, "waiting takes its time");
        assert_eq!(clock.meant(315_532_800, 1_700_000_009), 315_532_800);
    }

    #[test]
    fn directories_are_turned_over_and_keep_their_positions() {
        let record = |inode: u64, position: u64, name: &[u8]| {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            let mut record = [&inode.to_ne_bytes()[..], &position.to_ne_bytes()].concat();
            record.extend(u16::try_from(length).unwrap().to_ne_bytes());
            record.push(8);
            record.extend(name);
            record.resize(length, 0);
            record
        };
        let listed = [record(1, 10, b"a"), record(2, 20, b"a longer name"), record(3, 30, b"c")];
        let turned = [record(3, 10, b"c"), record(2, 20, b"a longer name"), record(1, 30, b"a")];
        let ordered = |order| Disguise { directories: Some(order), ..Disguise::default() };
        let disguise = ordered(DirectoryOrder::Backwards);
        let mut bytes = listed.concat();
        entries(&disguise, &mut bytes);
        assert_eq!(bytes, turned.concat());
        // A name ends with a zero, and what comes after it is no part of it.
        entries(&ordered(DirectoryOrder::Sorted), &mut bytes);
        let sorted = [record(1, 10, b"a"), record(2, 20, b"a longer name"), record(3, 30, b"c")];
        assert_eq!(bytes, sorted.concat());
        let mut damaged = vec![0; 24];
        entries(&disguise, &mut damaged);
        assert_eq!(damaged, vec![0; 24]);
    }
}
