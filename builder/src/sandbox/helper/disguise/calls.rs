//! The system calls that a disguise corrects, and under which numbers and conditions.

use super::super::super::disguise::Disguise;

/// What is to be done about a call; its number travels from the filter to the tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Call {
    /// A `timespec` is answered at argument 1.
    ClockGettime = 1,
    /// A `timeval` is answered at argument 0.
    Gettimeofday,
    /// Seconds are answered, and written at argument 0.
    Time,
    /// A `stat` is answered at argument 1.
    Stat,
    /// A `stat` is answered at argument 2.
    StatAt,
    /// A `statx` is answered at argument 4.
    Statx,
    /// Directory entries are answered at argument 1.
    Getdents,
    /// A `utsname` is answered at argument 0.
    Uname,
    /// A `sysinfo` is answered at argument 0.
    Sysinfo,
    /// Random bytes are answered at argument 0.
    Getrandom,
    /// Two `timespec` are given at argument 2.
    Utimensat,
    /// Two `timeval` are given at argument 1.
    Utimes,
    /// Two `timeval` are given at argument 2.
    Futimesat,
    /// Two numbers of seconds are given at argument 1.
    Utime,
    /// A `timespec` to wait until is given at argument 2.
    SleepUntil,
    /// A `timespec` to wait until is given at argument 3.
    FutexUntil,
    /// An `itimerspec` is given at argument 2.
    TimerUntil,
}

impl Call {
    const ALL: [Self; 17] = [
        Self::ClockGettime,
        Self::Gettimeofday,
        Self::Time,
        Self::Stat,
        Self::StatAt,
        Self::Statx,
        Self::Getdents,
        Self::Uname,
        Self::Sysinfo,
        Self::Getrandom,
        Self::Utimensat,
        Self::Utimes,
        Self::Futimesat,
        Self::Utime,
        Self::SleepUntil,
        Self::FutexUntil,
        Self::TimerUntil,
    ];

    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|call| *call as u64 == number)
    }
}

/// When a call is of interest, by one of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Argument 0 names a clock that tells the time of day.
    WallClock,
    /// Argument 0 names such a clock and argument 1 has the lowest bit: an absolute time.
    WallClockAbsolute,
    /// This argument has one of these bits.
    Bits(u8, u32),
}

/// The calls that a disguise is about.
pub(super) fn calls(disguise: &Disguise) -> Vec<(libc::c_long, Call, When)> {
    let mut calls = Vec::new();
    if disguise.clock.is_some() {
        calls.extend(CLOCK);
        #[cfg(target_arch = "x86_64")]
        calls.extend(OLD_CLOCK);
    }
    if disguise.clock.is_some_and(|clock| clock.files) || disguise.other_inodes {
        calls.extend(FILES);
        #[cfg(target_arch = "x86_64")]
        calls.extend(OLD_FILES);
    }
    if disguise.directories.is_some() || disguise.other_inodes {
        calls.push((libc::SYS_getdents64, Call::Getdents, When::Always));
    }
    if disguise.other_kernel {
        calls.push((libc::SYS_uname, Call::Uname, When::Always));
        calls.push((libc::SYS_sysinfo, Call::Sysinfo, When::Always));
    }
    if disguise.random_seed.is_some() {
        calls.push((libc::SYS_getrandom, Call::Getrandom, When::Always));
    }
    calls
}

/// FUTEX_CLOCK_REALTIME: the time to wait until is one of the wall clock.
const FUTEX_WALL_CLOCK: u32 = 256;

const CLOCK: [(libc::c_long, Call, When); 6] = [
    (libc::SYS_clock_gettime, Call::ClockGettime, When::WallClock),
    (libc::SYS_gettimeofday, Call::Gettimeofday, When::Always),
    (libc::SYS_utimensat, Call::Utimensat, When::Always),
    (libc::SYS_clock_nanosleep, Call::SleepUntil, When::WallClockAbsolute),
    (libc::SYS_futex, Call::FutexUntil, When::Bits(1, FUTEX_WALL_CLOCK)),
    // TFD_TIMER_ABSTIME and TIMER_ABSTIME are one bit.
    (libc::SYS_timerfd_settime, Call::TimerUntil, When::Bits(1, 1)),
];

const FILES: [(libc::c_long, Call, When); 3] = [
    (libc::SYS_newfstatat, Call::StatAt, When::Always),
    (libc::SYS_fstat, Call::Stat, When::Always),
    (libc::SYS_statx, Call::Statx, When::Always),
];

#[cfg(target_arch = "x86_64")]
const OLD_CLOCK: [(libc::c_long, Call, When); 4] = [
    (libc::SYS_time, Call::Time, When::Always),
    (libc::SYS_utimes, Call::Utimes, When::Always),
    (libc::SYS_futimesat, Call::Futimesat, When::Always),
    (libc::SYS_utime, Call::Utime, When::Always),
];

#[cfg(target_arch = "x86_64")]
const OLD_FILES: [(libc::c_long, Call, When); 2] =
    [(libc::SYS_stat, Call::Stat, When::Always), (libc::SYS_lstat, Call::Stat, When::Always)];
