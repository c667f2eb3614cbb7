//! Whether this host can run the sandbox, and the exact mend where it cannot; for `doctor`.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::Place;
use super::identity::find_program;
use super::obstacle;
use super::{Command, IdMap, RootRequest, SandboxError, Session, Storage};
use drystone_store::with_causes;

/// Free space below which builds are likely to fail, in bytes.
const LOW_SPACE: u64 = 2 << 30;

/// One thing that the sandbox needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// Whether it is as the sandbox needs it.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it: a command, or a sentence. Only where `ok` is false.
    pub mend: Option<String>,
}

impl Check {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into(), mend: None }
    }

    fn bad(name: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into(), mend: Some(mend.into()) }
    }

    fn failed(name: &'static str, error: &SandboxError) -> Self {
        let mend = error.mend().unwrap_or("see the message");
        Self::bad(name, with_causes(error), mend)
    }
}

/// Checks everything, in order of dependence. `directory` is where the store is or will be; the
/// last checks really start a sandbox below it, for which `main` must call
/// [`super::helper_main_if_requested`] first.
pub fn preflight(directory: &Path) -> Vec<Check> {
    let mut checks = vec![namespaces(), seccomp(), space(directory), limits()];
    let map = IdMap::discover();
    checks.push(identities(&map));
    if let Ok(map) = map {
        checks.extend(trial(&map, directory));
    }
    checks
}

fn namespaces() -> Check {
    const NAME: &str = "user namespaces";
    match obstacle::find(None) {
        Some(found) => Check::bad(NAME, found.problem, found.mend),
        None => Check::good(NAME, "allowed"),
    }
}

fn seccomp() -> Check {
    const NAME: &str = "system call filter";
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Check::good(NAME, "allowed"),
        _ => {
            Check::bad(NAME, "the kernel has no seccomp", "use a kernel with CONFIG_SECCOMP_FILTER")
        }
    }
}

fn space(directory: &Path) -> Check {
    const NAME: &str = "disk space";
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(existing) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            let detail = format!("cannot look at {}: {error}", existing.display());
            return Check::bad(NAME, detail, "choose another DRYSTONE_STORE");
        }
    };
    let detail = format!("{} MiB free in {}", free >> 20, existing.display());
    if free < LOW_SPACE {
        return Check::bad(NAME, detail, "drystone store gc, or choose another DRYSTONE_STORE");
    }
    Check::good(NAME, detail)
}

/// Builds work either way, so nothing is to be mended.
fn limits() -> Check {
    const NAME: &str = "limits";
    match Place::find() {
        Ok(place) => Check::good(NAME, format!("kept by control groups {}", place.describe())),
        Err(why) => {
            Check::good(NAME, format!("watched by drystone, without control groups: {why}"))
        }
    }
}

fn identities(map: &Result<IdMap, SandboxError>) -> Check {
    const NAME: &str = "subordinate ids";
    match map {
        Ok(map) => {
            let (uid, gid) = map.root_outside();
            let program = find_program("newuidmap")
                .map_or_else(String::new, |path| format!(", {}", path.display()));
            Check::good(NAME, format!("0:0 inside is {uid}:{gid} outside{program}"))
        }
        Err(error) => Check::failed(NAME, error),
    }
}

/// Really starts a session and a root.
fn trial(map: &IdMap, directory: &Path) -> Vec<Check> {
    const START: &str = "sandbox";
    let session = match Session::start(map) {
        Ok(session) => session,
        Err(error) => return vec![Check::failed(START, &error)],
    };
    let place = match trial_directory(directory) {
        Ok(place) => place,
        Err(error) => {
            let detail = format!("cannot write below {}: {error}", directory.display());
            return vec![Check::bad(START, detail, "choose another DRYSTONE_STORE")];
        }
    };
    let checks = trial_root(&session, place.path());
    for name in ["upper", "work", "lower"] {
        // What resists is removed with the rest below, or reported there by nobody: a trial.
        let _ = session.remove(&place.path().join(name));
    }
    checks
}

fn trial_directory(directory: &Path) -> std::io::Result<tempfile::TempDir> {
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/tmp"));
    tempfile::Builder::new().prefix(".drystone-doctor-").tempdir_in(existing)
}

fn trial_root(session: &Session, place: &Path) -> Vec<Check> {
    const START: &str = "sandbox";
    const OVERLAY: &str = "overlay";
    let lower: PathBuf = place.join("lower");
    let made = session.create_directory(&lower);
    let request = RootRequest::configure(vec![lower], place.join("upper"), place.join("work"));
    let root = match made.and_then(|()| session.open_root(&request)) {
        Ok(root) => root,
        Err(error) => return vec![Check::failed(START, &error)],
    };
    // The root is empty, so "not found" is what a working sandbox says.
    let start = match root.execute(&Command::new(["/none"]), None) {
        Err(SandboxError::Start { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            Check::good(START, "namespaces, mounts and limits work")
        }
        Err(error) => Check::failed(START, &error),
        Ok(finished) => Check::bad(START, format!("{:?}", finished.ending), "report this"),
    };
    let overlay = match (root.storage(), root.overlay_refusal()) {
        (Storage::Overlay, _) => Check::good(OVERLAY, "allowed"),
        (Storage::Copy, refusal) => Check::bad(
            OVERLAY,
            format!("refused ({}); builds copy whole roots instead", refusal.unwrap_or("unknown")),
            "put DRYSTONE_STORE on ext4, xfs, btrfs or a tmpfs, not on a container's own overlay \
             (a volume, for example)",
        ),
    };
    let _ = root.close();
    vec![start, overlay]
}
