//! Control groups: limits that the kernel keeps, where this process may make groups.
//!
//! With version 2 a group is made beside or above this process's own, in the nearest one that the
//! process may write to and that hands the memory controller on; with version 1 (and as root) in
//! this process's own group of each controller. Where neither works the sandbox watches by itself.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Resources;
use super::messages::Entrance;

/// How long the kernel may take to see that a group is empty.
const REMOVAL: Duration = Duration::from_millis(100);

/// How names of groups begin; the id of the process that made one follows.
const PREFIX: &str = "drystone-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The version of the interface: names of files differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    version: Version,
    memory: PathBuf,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

/// A group for the processes of one root; removed when dropped.
#[derive(Debug)]
pub(super) struct Group(Place);

/// The host's files that tell about groups.
struct Host<'a> {
    groups: &'a str,
    mounts: &'a str,
}

impl Place {
    /// The place of this process, if it may make groups; otherwise why it may not.
    pub(super) fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let host =
            Host { groups: &read("/proc/self/cgroup"), mounts: &read("/proc/self/mountinfo") };
        match (host.two(), host.one()) {
            (Ok(place), _) | (Err(_), Some(Ok(place))) => Ok(place),
            (Err(_), Some(Err(reason))) | (Err(reason), None) => Err(reason),
        }
    }

    /// Removes the groups of programs that were killed. Those with processes in them resist.
    pub(super) fn sweep(&self) {
        for place in [Some(&self.memory), self.pids.as_ref(), self.cpu.as_ref()] {
            let entries = place.and_then(|place| fs::read_dir(place).ok());
            for entry in entries.into_iter().flatten().flatten() {
                let name = entry.file_name();
                let maker = name
                    .to_str()
                    .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
                let is_alive = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
                if maker.is_some_and(|pid| !is_alive(pid)) {
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// What was found, for people.
    pub(super) fn describe(&self) -> String {
        let version = match self.version {
            Version::One => "version 1",
            Version::Two => "version 2",
        };
        format!("{version}, below {}", self.memory.display())
    }

    /// Makes a group without processes.
    pub(super) fn create(&self) -> io::Result<Group> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let below = |place: &PathBuf| place.join(&name);
        let group = Group(Self {
            version: self.version,
            memory: below(&self.memory),
            pids: self.pids.as_ref().map(below),
            cpu: self.cpu.as_ref().map(below),
        });
        for directory in group.directories() {
            fs::create_dir(directory)?;
        }
        Ok(group)
    }
}

impl Group {
    /// The directories, each once.
    fn directories(&self) -> Vec<&Path> {
        let Place { memory, pids, cpu, .. } = &self.0;
        let mut all: Vec<&Path> = vec![memory];
        all.extend(pids.iter().chain(cpu).map(PathBuf::as_path));
        all.dedup();
        all
    }

    /// How a process enters the group without being moved: the kernel moves no process before each
    /// processor has passed a point of rest, which takes it some 10 ms, but one may be born in a
    /// group of version 2, and since Linux 5.18 a thread may enter groups of version 1 by itself.
    pub(super) fn entrance(&self) -> io::Result<(Entrance, Vec<OwnedFd>)> {
        let (entrance, open): (_, fn(&Path) -> io::Result<fs::File>) = match self.0.version {
            Version::One => (Entrance::Tasks, |directory| {
                fs::File::options().write(true).open(directory.join("tasks"))
            }),
            Version::Two => (Entrance::Birth, |directory| fs::File::open(directory)),
        };
        let opened = self.directories().into_iter().map(|it| open(it).map(OwnedFd::from));
        Ok((entrance, opened.collect::<io::Result<_>>()?))
    }

    /// Moves a process into the group, as every kernel can.
    pub(super) fn move_in(&self, pid: u32) -> io::Result<()> {
        let mut directories = self.directories().into_iter();
        directories.try_for_each(|it| fs::write(it.join("cgroup.procs"), pid.to_string()))
    }

    /// Sets the limits of the next command. Only the memory's must be kept; for the others there
    /// are other means.
    pub(super) fn limit(&self, resources: &Resources) -> io::Result<()> {
        let Place { version, memory, pids, cpu, .. } = &self.0;
        let two = *version == Version::Two;
        let number = |value: Option<u64>, none: &str| {
            value.map_or_else(|| none.to_owned(), |value| value.to_string())
        };
        let none = if two { "max" } else { "-1" };
        let file = if two { "memory.max" } else { "memory.limit_in_bytes" };
        let set = || fs::write(memory.join(file), number(resources.memory, none));
        let lowered = set();
        let swap = if two { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
        // Many kernels do not count swap.
        let limit = if two { resources.memory.map(|_| 0) } else { resources.memory };
        let _ = fs::write(memory.join(swap), number(limit, none));
        // Version 1 allows no more memory than memory and swap together: what is raised comes second.
        lowered.or_else(|_| set())?;
        if let Some(pids) = pids {
            // Its init and the spawner count as well.
            let most = resources.processes.map(|most| u64::from(most) + 2);
            let _ = fs::write(pids.join("pids.max"), number(most, "max"));
        }
        if let Some(cpu) = cpu {
            let quota = number(resources.cpus.map(|cpus| u64::from(cpus) * 100_000), none);
            let _ = match two {
                true => fs::write(cpu.join("cpu.max"), format!("{quota} 100000")),
                false => fs::write(cpu.join("cpu.cfs_quota_us"), quota),
            };
        }
        Ok(())
    }

    /// How many processes the kernel has killed since there was no memory left for them.
    pub(super) fn killed(&self) -> u64 {
        let file = match self.0.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.0.memory.join(file)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .find_map(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in self.directories() {
            let (mut pause, mut waited) = (Duration::from_micros(100), Duration::ZERO);
            while let Err(error) = fs::remove_dir(directory)
                && error.kind() == io::ErrorKind::ResourceBusy
                && waited < REMOVAL
            {
                std::thread::sleep(pause);
                waited += pause;
                pause *= 2;
            }
        }
    }
}

impl Host<'_> {
    /// This process's group of a hierarchy: version 2's has no controllers in its line.
    fn group(&self, controller: Option<&str>) -> Option<&str> {
        self.groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            match controller {
                None => controllers.is_empty().then_some(path),
                Some(name) => controllers.split(',').any(|it| it == name).then_some(path),
            }
        })
    }

    /// Where a hierarchy is mounted, and the group that stands there: fields 4 and 5 of a line of
    /// mountinfo (proc(5)), kind and options after its ` - `.
    fn mount(&self, controller: Option<&str>) -> Option<(&str, &str)> {
        self.mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let (root, place) = {
                let mut fields = before.split(' ').skip(3);
                (fields.next()?, fields.next()?)
            };
            let mut fields = after.split(' ');
            let (kind, options) = (fields.next()?, fields.nth(1)?);
            let fits = match controller {
                None => kind == "cgroup2",
                Some(name) => kind == "cgroup" && options.split(',').any(|it| it == name),
            };
            fits.then_some((root, place))
        })
    }

    /// The directory of this process's group, and where its hierarchy is mounted.
    fn directory(&self, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
        let group = self.group(controller)?;
        let (root, place) = self.mount(controller)?;
        let below = match root {
            "/" => group,
            root => group.strip_prefix(root).unwrap_or("/"),
        };
        Some((Path::new(place).join(below.trim_start_matches('/')), place.into()))
    }

    fn two(&self) -> Result<Place, String> {
        let (own, top) = self.directory(None).ok_or("no cgroup file system is mounted")?;
        let hands_on = |directory: &Path, controller: &str| {
            fs::read_to_string(directory.join("cgroup.subtree_control"))
                .is_ok_and(|text| text.split_whitespace().any(|it| it == controller))
        };
        let mut reason = "no group hands the memory controller on".to_owned();
        for directory in own.ancestors().take_while(|directory| directory.starts_with(&top)) {
            if !hands_on(directory, "memory") {
                continue;
            }
            match try_directory(directory) {
                Ok(()) => {
                    let with = |name| hands_on(directory, name).then(|| directory.to_owned());
                    return Ok(Place {
                        version: Version::Two,
                        memory: directory.to_owned(),
                        pids: with("pids"),
                        cpu: with("cpu"),
                    });
                }
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    /// `None` where version 1 has no memory controller.
    fn one(&self) -> Option<Result<Place, String>> {
        let (memory, _) = self.directory(Some("memory"))?;
        if let Err(why) = try_directory(&memory) {
            return Some(Err(why));
        }
        let with = |name| {
            let (directory, _) = self.directory(Some(name))?;
            try_directory(&directory).is_ok().then_some(directory)
        };
        let (pids, cpu) = (with("pids"), with("cpu"));
        let place = Place { version: Version::One, pids, cpu, memory };
        Some(Ok(place))
    }
}

/// Whether a group can be made in a directory, and processes moved into it.
fn try_directory(directory: &Path) -> Result<(), String> {
    let refused = |error: io::Error| format!("{}: {error}", directory.display());
    let procs = directory.join("cgroup.procs");
    fs::File::options().write(true).open(procs).map_err(refused)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let trial = directory.join(format!("{PREFIX}{}-trial-{number}", std::process::id()));
    fs::create_dir(&trial).map_err(refused)?;
    fs::remove_dir(&trial).map_err(refused)
}

/// How much memory this process may hope for: the host's, or the limit of its own group.
pub(super) fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = Host { groups: &read("/proc/self/cgroup"), mounts: &read("/proc/self/mountinfo") };
    let own = [(None, "memory.max"), (Some("memory"), "memory.limit_in_bytes")];
    let limits = own.into_iter().filter_map(|(controller, file)| {
        let (directory, _) = host.directory(controller)?;
        fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok()
    });
    limits.chain([total]).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system of version 2 as a user's session has it: the nearest group does not hand the
    /// memory controller on, the one above does.
    #[test]
    fn the_nearest_group_that_hands_memory_on_is_taken() {
        let top = tempfile::tempdir().unwrap();
        let place = top.path().display().to_string();
        let slice = top.path().join("user.slice/app.slice");
        let own = slice.join("run.scope");
        fs::create_dir_all(&own).unwrap();
        for (directory, control) in [(&own, ""), (&slice, "cpu memory pids\n")] {
            fs::write(directory.join("cgroup.subtree_control"), control).unwrap();
            fs::write(directory.join("cgroup.procs"), "").unwrap();
        }
        let host = Host {
            groups: "1:name=systemd:/x\n0::/user.slice/app.slice/run.scope\n",
            mounts: &format!(
                "20 1 0:5 / /proc rw - proc proc rw\n\
                 30 1 0:27 / {place} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
            ),
        };
        let found = host.two().unwrap();
        assert_eq!(found.memory, slice);
        assert_eq!(found.pids.as_ref(), Some(&slice));
        let group = found.create().unwrap();
        let (entrance, doors) = group.entrance().unwrap();
        assert_eq!((entrance, doors.len()), (Entrance::Birth, 1));
        group.move_in(7).unwrap();
        let directory = group.directories()[0].to_owned();
        assert_eq!(group.directories().len(), 1);
        let resources = Resources {
            memory: Some(4096),
            processes: Some(9),
            cpus: Some(2),
            ..Resources::default()
        };
        group.limit(&resources).unwrap();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("cgroup.procs"), "7");
        assert_eq!((&*read("memory.max"), &*read("memory.swap.max")), ("4096", "0"));
        assert_eq!((&*read("pids.max"), &*read("cpu.max")), ("11", "200000 100000"));
        assert_eq!(group.killed(), 0);
        fs::write(directory.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        assert_eq!(group.killed(), 2);
        // A group that a killed program left goes; what is in use, and what others made, stays.
        for name in ["drystone-4194305-0", "drystone-x", "other-4194305"] {
            fs::create_dir(slice.join(name)).unwrap();
        }
        found.sweep();
        let left = |name: &str| slice.join(name).exists();
        assert!(!left("drystone-4194305-0") && left("drystone-x") && left("other-4194305"));
        assert!(directory.exists());
        group.limit(&Resources::default()).unwrap();
        assert_eq!((&*read("memory.max"), &*read("cpu.max")), ("max", "max 100000"));
    }

    /// In a container the own group stands where the file system is mounted.
    #[test]
    fn a_mount_may_show_a_part_of_the_hierarchy() {
        let host = Host {
            groups: "4:memory:/docker/abc\n",
            mounts: "30 1 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        };
        let (own, _) = host.directory(Some("memory")).unwrap();
        assert_eq!(own, Path::new("/sys/fs/cgroup/memory"));
        assert!(host.two().is_err());
    }
}
