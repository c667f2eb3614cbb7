//! Which ids of the host stand for ids 0 to 65535 inside the sandbox.
//!
//! ```text
//! inside        outside
//! 0 .. 65535    a range of subordinate (or otherwise unused) ids
//! 65536         the caller, so that the helper may use the caller's directories; commands run in
//!               a further namespace that knows only 0 .. 65535
//! ```

use std::io;
use std::process::Command;

use super::{Isolation, SandboxError};

/// How many ids a sandbox has.
pub const ID_COUNT: u32 = 65536;

/// Where root takes its range when `/etc/subuid` names none: high above the ids that accounts and
/// container tools are given.
const ROOT_BASE: u32 = 0x7000_0000;
/// How many ranges from [`ROOT_BASE`] on are tried for one that nobody else has.
const ROOT_TRIES: u32 = 1024;

/// `count` consecutive ids from `inside` on stand for those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

/// How the maps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Into `/proc/PID/uid_map`, with the caller's own privilege.
    Direct,
    /// By the set-uid programs `newuidmap` and `newgidmap`.
    Programs,
    /// Not at all: there is no namespace.
    Nothing,
}

/// The id maps of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    uid: Vec<Extent>,
    gid: Vec<Extent>,
    method: Method,
}

impl IdMap {
    /// Finds the ids that this process may use.
    ///
    /// Root takes its subordinate range from `/etc/subuid` and `/etc/subgid`, else the first free
    /// range from 0x70000000 on; inside another user namespace that is too small for that, ids
    /// stand for themselves. Anyone else needs 65536 subordinate ids and `newuidmap`.
    ///
    /// # Errors
    /// [`SandboxError::Host`] with the command that provides what is missing.
    pub fn discover() -> Result<Self, SandboxError> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 {
            let map = |kind: Kind, caller| root_extents(kind, caller);
            return Ok(Self {
                uid: map(Kind::User, uid)?,
                gid: map(Kind::Group, gid)?,
                method: Method::Direct,
            });
        }
        let name = user_name(uid);
        let own = |kind: Kind, caller| user_extents(kind, name.as_deref(), uid, caller);
        let map = Self {
            uid: own(Kind::User, uid)?,
            gid: own(Kind::Group, gid)?,
            method: Method::Programs,
        };
        for program in ["newuidmap", "newgidmap"] {
            find_program(program).ok_or_else(|| missing_program(program, None))?;
        }
        Ok(map)
    }

    /// The ids as they are, for a session without namespaces.
    ///
    /// # Errors
    /// [`SandboxError::Host`] when this process is not root, or has fewer than 65536 ids.
    pub fn without_namespaces() -> Result<Self, SandboxError> {
        if !rustix::process::geteuid().is_root() {
            return Err(SandboxError::Host {
                problem: "without a sandbox only root can build, since files get owners".to_owned(),
                mend: "run as root, in a container made for it".to_owned(),
                source: None,
            });
        }
        let itself = |kind: Kind| match exists(&mapped(kind), 0) {
            true => Ok(vec![Extent { inside: 0, outside: 0, count: ID_COUNT }]),
            false => Err(too_few(kind)),
        };
        Ok(Self { uid: itself(Kind::User)?, gid: itself(Kind::Group)?, method: Method::Nothing })
    }

    /// Whether sessions with this map have namespaces.
    pub(super) fn isolation(&self) -> Isolation {
        match self.method {
            Method::Nothing => Isolation::None,
            Method::Direct | Method::Programs => Isolation::Namespaces,
        }
    }

    /// The host's (uid, gid) that stands for 0:0 inside.
    pub fn root_outside(&self) -> (u32, u32) {
        let first = |extents: &[Extent]| extents.first().map_or(0, |extent| extent.outside);
        (first(&self.uid), first(&self.gid))
    }

    /// Writes the maps of the new user namespace that the process `pid` is in.
    pub(super) fn apply(&self, pid: u32) -> Result<(), SandboxError> {
        match self.method {
            Method::Direct => {
                write_map(pid, "uid_map", &self.uid)?;
                write_map(pid, "gid_map", &self.gid)
            }
            Method::Programs => {
                run_program("newuidmap", pid, &self.uid)?;
                run_program("newgidmap", pid, &self.gid)
            }
            Method::Nothing => Ok(()),
        }
    }
}

/// Which of the two kinds of ids.
#[derive(Debug, Clone, Copy)]
enum Kind {
    User,
    Group,
}

impl Kind {
    const fn subordinate_file(self) -> &'static str {
        match self {
            Self::User => "/etc/subuid",
            Self::Group => "/etc/subgid",
        }
    }

    const fn own_map(self) -> &'static str {
        match self {
            Self::User => "/proc/self/uid_map",
            Self::Group => "/proc/self/gid_map",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::User => "--add-subuids",
            Self::Group => "--add-subgids",
        }
    }
}

/// One line of `/etc/subuid` or `/etc/subgid` (subuid(5)): `owner:first:count`.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    owner: String,
    first: u32,
    count: u32,
}

fn parse_ranges(text: &str) -> Vec<Range> {
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().filter(|owner| !owner.is_empty())?.to_owned();
        let first = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        fields.next().is_none().then_some(Range { owner, first, count })
    };
    text.lines().filter_map(parse).collect()
}

fn read_ranges(kind: Kind) -> Vec<Range> {
    parse_ranges(&std::fs::read_to_string(kind.subordinate_file()).unwrap_or_default())
}

fn with_caller(first: u32, caller: u32) -> Vec<Extent> {
    vec![
        Extent { inside: 0, outside: first, count: ID_COUNT },
        Extent { inside: ID_COUNT, outside: caller, count: 1 },
    ]
}

fn owned_range(ranges: &[Range], name: Option<&str>, uid: u32) -> Option<u32> {
    let number = uid.to_string();
    ranges
        .iter()
        .find(|range| {
            (Some(range.owner.as_str()) == name || range.owner == number) && range.count >= ID_COUNT
        })
        .map(|range| range.first)
}

fn root_extents(kind: Kind, caller: u32) -> Result<Vec<Extent>, SandboxError> {
    let (ranges, mapped) = (read_ranges(kind), mapped(kind));
    let exists = |first: u32| exists(&mapped, first);
    if let Some(first) = owned_range(&ranges, Some("root"), 0).filter(|&first| exists(first)) {
        return Ok(with_caller(first, caller));
    }
    let free = (0..ROOT_TRIES)
        .map(|step| ROOT_BASE + step * ID_COUNT)
        .find(|&first| exists(first) && !ranges.iter().any(|range| overlaps(range, first)));
    if let Some(first) = free {
        return Ok(with_caller(first, caller));
    }
    if exists(0) {
        return Ok(vec![Extent { inside: 0, outside: 0, count: ID_COUNT }]);
    }
    Err(too_few(kind))
}

/// As (first, count) the ids that exist in the namespace that this process is in.
fn mapped(kind: Kind) -> Vec<(u32, u32)> {
    std::fs::read_to_string(kind.own_map())
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let first = fields.next()?.parse().ok()?;
            Some((first, fields.nth(1)?.parse().ok()?))
        })
        .collect()
}

/// Whether the 65536 ids from `first` on do.
fn exists(mapped: &[(u32, u32)], first: u32) -> bool {
    mapped.iter().any(|&(start, count)| {
        first >= start
            && u64::from(first) + u64::from(ID_COUNT) <= u64::from(start) + u64::from(count)
    })
}

fn too_few(kind: Kind) -> SandboxError {
    SandboxError::Host {
        problem: format!("{} gives this container fewer than 65536 ids", kind.own_map()),
        mend: "start the container with at least 65536 mapped ids, or outside a user namespace"
            .to_owned(),
        source: None,
    }
}

fn overlaps(range: &Range, first: u32) -> bool {
    u64::from(range.first) < u64::from(first) + u64::from(ID_COUNT)
        && u64::from(first) < u64::from(range.first) + u64::from(range.count)
}

fn user_extents(
    kind: Kind,
    name: Option<&str>,
    uid: u32,
    caller: u32,
) -> Result<Vec<Extent>, SandboxError> {
    let Some(first) = owned_range(&read_ranges(kind), name, uid) else {
        let name = name.map_or_else(|| uid.to_string(), str::to_owned);
        return Err(SandboxError::Host {
            problem: format!(
                "user {name} has no 65536 subordinate ids in {}",
                kind.subordinate_file()
            ),
            mend: format!("sudo usermod {} 100000-165535 {name}", kind.option()),
            source: None,
        });
    };
    Ok(with_caller(first, caller))
}

fn user_name(uid: u32) -> Option<String> {
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut buffer = vec![0; 16 << 10];
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is valid for the call, and the length is the buffer's own.
    let status = unsafe {
        libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so the entry is filled and its name is a string in the buffer.
    let name = unsafe { std::ffi::CStr::from_ptr(entry.assume_init().pw_name) };
    name.to_str().ok().map(str::to_owned)
}

fn write_map(pid: u32, file: &str, extents: &[Extent]) -> Result<(), SandboxError> {
    let path = format!("/proc/{pid}/{file}");
    let lines: String = extents
        .iter()
        .map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count))
        .collect();
    std::fs::write(&path, lines).map_err(|error| SandboxError::Host {
        problem: format!("writing {path} was refused"),
        mend: "give the process CAP_SETUID, CAP_SETGID and CAP_SETFCAP, or run as a user with \
               subordinate ids"
            .to_owned(),
        source: Some(error),
    })
}

/// Finds a program in `PATH` or in the usual directories.
pub(super) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"].map(Into::into))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

fn missing_program(program: &str, source: Option<io::Error>) -> SandboxError {
    SandboxError::Host {
        problem: format!("{program} is not installed"),
        mend: "sudo apt-get install uidmap".to_owned(),
        source,
    }
}

fn run_program(program: &str, pid: u32, extents: &[Extent]) -> Result<(), SandboxError> {
    let path = find_program(program).ok_or_else(|| missing_program(program, None))?;
    let numbers = extents.iter().flat_map(|extent| [extent.inside, extent.outside, extent.count]);
    let output = Command::new(&path)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .map_err(|error| missing_program(program, Some(error)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SandboxError::Host {
        problem: format!("{program} failed: {said}"),
        mend: program_mend(&path),
        source: None,
    })
}

/// What is wrong with one of the set-uid programs.
fn program_mend(path: &std::path::Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    const NO_SETUID_MOUNT: u64 = 2;
    let place = path.display();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line.trim_end() == "NoNewPrivs:\t1") {
        return format!(
            "this process may gain no privileges (no_new_privs), so {place} has none: start \
             drystone without it (docker: not with --security-opt no-new-privileges)"
        );
    }
    let is_nosuid =
        rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.bits() & NO_SETUID_MOUNT != 0);
    if is_nosuid {
        return format!("{place} is on a file system that is mounted nosuid: mount it without");
    }
    let mut value = [0; 64];
    let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut value).is_ok();
    let is_setuid = std::fs::metadata(path).is_ok_and(|it| it.mode() & 0o4000 != 0);
    match is_setuid || has_capabilities {
        true => {
            "check that the ranges in /etc/subuid and /etc/subgid are this user's, and overlap \
                 no one's"
                .to_owned()
        }
        false => format!("sudo chmod u+s {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_the_rest_is_ignored() {
        let ranges = parse_ranges("ann:100000:65536\n\n1001:200000:70000\nbad\nx:y:z\na:1:2:3\n");
        assert_eq!(ranges.len(), 2);
        assert_eq!(owned_range(&ranges, Some("ann"), 5), Some(100_000));
        assert_eq!(owned_range(&ranges, Some("bob"), 1001), Some(200_000));
        assert_eq!(owned_range(&ranges, Some("bob"), 7), None);
        assert_eq!(owned_range(&parse_ranges("ann:1:65535"), Some("ann"), 5), None, "too few");
    }

    #[test]
    fn a_range_that_touches_another_is_not_free() {
        let range = Range { owner: "a".into(), first: 0x7000_0000, count: 10 };
        assert!(overlaps(&range, 0x7000_0000));
        assert!(!overlaps(&range, 0x7001_0000));
    }
}
