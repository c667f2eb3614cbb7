//! Why a host refuses namespaces, and what its owner can do about it.

use std::fs;

/// The kinds of namespaces that a sandbox is made of, as `/proc/sys/user` calls them.
const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// What was found.
    pub(super) problem: String,
    /// A command, or a sentence.
    pub(super) mend: String,
}

impl Obstacle {
    fn new(problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { problem: problem.into(), mend: mend.into() }
    }

    /// A kernel setting with a value that is in the way.
    fn setting(key: &str, value: &str, better: &str) -> Self {
        Self::new(format!("{key} is {value}"), format!("sudo sysctl -w {key}={better}"))
    }
}

/// What is in the way, given the kernel's answer where one was asked; `None` when nothing is seen
/// and nothing was refused.
pub(super) fn find(refusal: Option<i32>) -> Option<Obstacle> {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let status = read("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    Facts {
        root: rustix::process::geteuid().is_root(),
        most: KINDS.map(|kind| read(&format!("/proc/sys/user/max_{kind}_namespaces"))),
        unprivileged: read("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        filtered: field("Seccomp:") == "2",
        confined: read("/proc/self/attr/apparmor/current")
            .filter(|profile| profile != "unconfined" && !profile.is_empty()),
    }
    .obstacle(refusal)
}

/// What the kernel says of this process.
#[derive(Debug, Clone, Default)]
struct Facts {
    root: bool,
    /// The most namespaces of each of [`KINDS`].
    most: [Option<String>; 7],
    /// Debian's own setting.
    unprivileged: Option<String>,
    /// Ubuntu's own setting.
    apparmor: Option<String>,
    /// Whether a system call filter is on, as containers have one.
    filtered: bool,
    /// The AppArmor profile that this process is under.
    confined: Option<String>,
}

impl Facts {
    fn obstacle(&self, refusal: Option<i32>) -> Option<Obstacle> {
        for (kind, most) in KINDS.iter().zip(&self.most) {
            if most.as_deref() == Some("0") {
                let key = format!("user.max_{kind}_namespaces");
                return Some(Obstacle::setting(&key, "0", "15000"));
            }
        }
        if !self.root && self.unprivileged.as_deref() == Some("0") {
            return Some(Obstacle::setting("kernel.unprivileged_userns_clone", "0", "1"));
        }
        if !self.root && self.apparmor.as_deref() == Some("1") {
            const KEY: &str = "kernel.apparmor_restrict_unprivileged_userns";
            let mend = format!(
                "give drystone an AppArmor profile with `userns,` in /etc/apparmor.d, or: sudo \
                 sysctl -w {KEY}=0"
            );
            return Some(Obstacle::new(format!("{KEY} is 1"), mend));
        }
        self.refused(refusal?)
    }

    /// No setting is to blame, and yet the kernel refused.
    fn refused(&self, errno: i32) -> Option<Obstacle> {
        const CONTAINER: &str = "in a container, allow unshare and mount (docker: --security-opt \
                                 seccomp=unconfined --security-opt apparmor=unconfined; or \
                                 --privileged)";
        let obstacle = match errno {
            libc::ENOSPC | libc::EUSERS => Obstacle::new(
                "as many namespaces, or as deep ones, as the kernel allows are in use",
                "raise the user.max_*_namespaces of sysctl, or start drystone in fewer containers \
                 inside each other",
            ),
            libc::EINVAL | libc::ENOSYS => Obstacle::new(
                "the kernel was built without namespaces",
                "use a kernel with CONFIG_USER_NS, CONFIG_PID_NS and CONFIG_NET_NS",
            ),
            _ => match &self.confined {
                Some(profile) if !self.filtered => Obstacle::new(
                    format!("the AppArmor profile {profile} refuses them"),
                    format!("allow `userns,` and `mount,` in that profile, or: {CONTAINER}"),
                ),
                _ if self.filtered => {
                    Obstacle::new("a system call filter (seccomp) refuses them", CONTAINER)
                }
                _ => Obstacle::new("the kernel refuses them", CONTAINER),
            },
        };
        Some(obstacle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each thing that hosts are known to forbid namespaces by, and what is said of it.
    #[test]
    fn each_obstacle_is_told_from_the_others() {
        let on = |text: &str| Some(text.to_owned());
        let fine = || Facts {
            most: KINDS.map(|_| on("15000")),
            unprivileged: on("1"),
            apparmor: on("0"),
            confined: None,
            ..Facts::default()
        };
        let mut most = KINDS.map(|_| on("15000"));
        most[3] = on("0");
        let denied = Some(libc::EPERM);
        let cases = [
            (
                Facts { most, ..fine() },
                None,
                "user.max_net_namespaces is 0",
                "sysctl -w user.max_net",
            ),
            (
                Facts { unprivileged: on("0"), ..fine() },
                None,
                "kernel.unprivileged_userns_clone is 0",
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                Facts { apparmor: on("1"), ..fine() },
                None,
                "kernel.apparmor_restrict_unprivileged_userns is 1",
                "`userns,`",
            ),
            (Facts { filtered: true, ..fine() }, denied, "seccomp", "seccomp=unconfined"),
            (
                Facts { confined: on("docker-default (enforce)"), ..fine() },
                denied,
                "docker-default",
                "`userns,`",
            ),
            (fine(), denied, "the kernel refuses them", "--privileged"),
            (fine(), Some(libc::ENOSPC), "as many namespaces", "user.max_"),
            (fine(), Some(libc::EINVAL), "built without", "CONFIG_USER_NS"),
        ];
        for (facts, refusal, problem, mend) in cases {
            let found = facts.obstacle(refusal).unwrap();
            assert!(found.problem.contains(problem), "{found:?}");
            assert!(found.mend.contains(mend), "{found:?}");
        }
        assert_eq!(fine().obstacle(None), None);
        let root = Facts { root: true, unprivileged: on("0"), apparmor: on("1"), ..fine() };
        assert_eq!(root.obstacle(None), None, "these do not bind root");
    }
}
