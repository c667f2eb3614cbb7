//! What is varied when a step runs again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use drystone_store::tar::MTIME;

use crate::sandbox::{DirectoryOrder, Disguise, RootRequest, ShiftedClock, Shown};

/// How far the other clock is ahead: another year, month, day, weekday, hour, minute and second.
const AHEAD: i64 = 400 * 86400 + 7 * 3600 + 13 * 60 + 29;
/// The process number that the first command's follows.
const PROCESS_NUMBER: u32 = 4000;
/// Where random numbers start when they are held.
const SEED: u64 = 0x6472_7973_746f_6e65;

/// One thing that a script may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The wall clock, and times of files that the step makes.
    Clock,
    /// The order in which directories are listed.
    DirectoryOrder,
    /// Inode numbers, sizes of directories and blocks.
    Inodes,
    /// Number and model of processors.
    Processors,
    /// The kernel's release, boot id, time since boot, size of memory.
    Kernel,
    /// The addresses at which programs are laid out.
    Addresses,
    /// Process numbers.
    Processes,
    /// The user that the script runs as.
    User,
    /// Where the source stands.
    BuildFolder,
    /// The locale.
    Locale,
    /// The time zone.
    TimeZone,
    /// The file mode creation mask.
    Umask,
    /// The host name.
    HostName,
    /// The order of variables.
    Environment,
}

impl Kind {
    /// All kinds; those that hosts differ in come first.
    pub const ALL: [Self; 14] = [
        Self::Clock,
        Self::DirectoryOrder,
        Self::Inodes,
        Self::Processors,
        Self::Kernel,
        Self::Addresses,
        Self::Processes,
        Self::User,
        Self::BuildFolder,
        Self::Locale,
        Self::TimeZone,
        Self::Umask,
        Self::HostName,
        Self::Environment,
    ];

    /// The kinds that differ between hosts although there is a sandbox.
    pub fn of_hosts() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kind| !kind.is_fixed()).collect()
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::DirectoryOrder => "directory-order",
            Self::Inodes => "inodes",
            Self::Processors => "processors",
            Self::Kernel => "kernel",
            Self::Addresses => "addresses",
            Self::Processes => "processes",
            Self::User => "user",
            Self::BuildFolder => "build-folder",
            Self::Locale => "locale",
            Self::TimeZone => "time-zone",
            Self::Umask => "umask",
            Self::HostName => "host-name",
            Self::Environment => "environment-order",
        }
    }

    /// Whether the sandbox gives every build the same: who depends on it builds the same with
    /// Drystone everywhere, and perhaps something else without.
    pub const fn is_fixed(self) -> bool {
        matches!(
            self,
            Self::User
                | Self::BuildFolder
                | Self::Locale
                | Self::TimeZone
                | Self::Umask
                | Self::HostName
                | Self::Environment
        )
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("not one of {}", known.join(", "))
        })
    }
}

/// The surroundings of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variation {
    kinds: BTreeSet<Kind>,
    holds_random: bool,
    /// When the run began, in seconds since 1970.
    since: i64,
    /// Whether another clock is that of files too.
    has_files: bool,
    /// Whether the clock stands still, at the date of all files, and directories are sorted.
    is_settled: bool,
}

impl Variation {
    /// The usual surroundings.
    pub const fn none() -> Self {
        Self {
            kinds: BTreeSet::new(),
            holds_random: false,
            since: 0,
            has_files: true,
            is_settled: false,
        }
    }

    /// Varies these kinds, in a run that begins now.
    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(now.as_secs()).unwrap_or(0);
        Self { kinds: kinds.into_iter().collect(), since, ..Self::none() }
    }

    /// The second run of a step that is built twice: another clock, other process numbers and another
    /// order of directories, which is the file system's own on each machine.
    pub fn second_run() -> Self {
        // Hardly a package asks how old a file is that it has just made, and every one looks at many.
        Self { has_files: false, ..Self::of([Kind::Clock, Kind::Processes, Kind::DirectoryOrder]) }
    }

    /// This one with a clock that stands still at the date that all files have, and with directories
    /// in the order of names. What notes the time of its making, or files as they are listed, notes
    /// the same each time, on every machine.
    pub fn settled(mut self) -> Self {
        self.kinds.retain(|kind| !matches!(kind, Kind::Clock | Kind::DirectoryOrder));
        Self { is_settled: true, has_files: true, since: Self::of([]).since, ..self }
    }

    /// Varies nothing, and gives the same random numbers every time.
    pub fn with_held_random() -> Self {
        Self { holds_random: true, ..Self::none() }
    }

    /// Whether this kind is varied.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Sets a root up.
    pub fn apply_to_root(&self, request: &mut RootRequest) {
        let shown = match self.is_settled {
            true => Shown::Stopped(MTIME.cast_signed()),
            false => Shown::Ahead(AHEAD),
        };
        let clock = ShiftedClock { shown, since: self.since, files: self.has_files };
        let directories = match self.is_settled {
            true => Some(DirectoryOrder::Sorted),
            false => self.has(Kind::DirectoryOrder).then_some(DirectoryOrder::Backwards),
        };
        request.disguise = Disguise {
            clock: (self.has(Kind::Clock) || self.is_settled).then_some(clock),
            directories,
            other_inodes: self.has(Kind::Inodes),
            other_kernel: self.has(Kind::Kernel),
            one_processor: self.has(Kind::Processors),
            random_addresses: self.has(Kind::Addresses),
            random_seed: self.holds_random.then_some(SEED),
            reverse_environment: self.has(Kind::Environment),
            umask: self.has(Kind::Umask).then_some(0o077),
            build_folder: self.has(Kind::BuildFolder).then(|| OTHER_FOLDER[1..].to_owned()),
        };
        if self.has(Kind::Processes) {
            request.pid_base = Some(PROCESS_NUMBER);
        }
        if self.has(Kind::HostName) {
            OTHER_HOST.clone_into(&mut request.hostname);
        }
    }

    /// Changes variables that the sandbox sets.
    pub fn apply_to_environment(&self, environment: &mut BTreeMap<String, String>) {
        if self.has(Kind::Locale) {
            environment.insert("LC_ALL".into(), "C".into());
        }
        if self.has(Kind::TimeZone) {
            // Needs no table of zones: fourteen hours and a half ahead of UTC.
            environment.insert("TZ".into(), format!("{OTHER_ZONE}-14:30"));
        }
    }

    /// The name of the user that recipes run as. The number stays: the source's tree belongs to it.
    pub fn user(&self) -> &'static str {
        if self.has(Kind::User) { OTHER_USER } else { "builder" }
    }

    /// Where `/build` stands.
    pub fn build_folder(&self) -> &'static str {
        if self.has(Kind::BuildFolder) { OTHER_FOLDER } else { "/build" }
    }
}

/// What stands in the place of fixed values; also what is looked for in files.
pub(super) const OTHER_FOLDER: &str = "/elsewhere";
pub(super) const OTHER_HOST: &str = "check-host";
pub(super) const OTHER_USER: &str = "checker";
pub(super) const OTHER_ZONE: &str = "CHK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("clocks".parse::<Kind>().is_err());
        assert_eq!(Kind::of_hosts().len(), 7);
    }

    #[test]
    fn the_usual_surroundings_are_those_of_a_build() {
        let mut request = RootRequest::configure(Vec::new(), "u".into(), "w".into());
        Variation::none().apply_to_root(&mut request);
        assert_eq!(request.disguise, Disguise::default());
        assert_eq!((request.pid_base, request.hostname.as_str()), (None, "localhost"));
        assert_eq!(Variation::none().user(), "builder");
    }
}
