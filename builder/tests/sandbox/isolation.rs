//! What a command can see and reach.

use std::os::fd::AsRawFd;

use drystone_builder::sandbox::{Command, Profile, Storage};

use crate::world::{self, session, shell};

pub const TESTS: &[(&str, fn())] = &[
    ("forbidden_system_calls_fail_with_eperm", denied),
    ("capabilities_are_exactly_those_of_the_profile", capabilities),
    ("there_is_no_network", network),
    ("nothing_of_the_host_is_visible", host),
    ("environment_and_descriptors_are_not_inherited", inheritance),
    ("proc_and_sys_are_harmless", proc),
    ("file_capabilities_and_attributes_are_kept", attributes),
    ("the_pid_base_is_as_asked", pid_base),
    ("commands_run_as_the_user_asked_for", owner),
    ("the_host_passes_its_own_checks", preflight),
];

fn probe(arguments: &[&str], profile: Profile) -> String {
    let (session, place) = (session(), world::fresh());
    let mut request = world::request(&place, &[&world::world().base], None);
    request.profile = profile;
    let root = session.open_root(&request).unwrap();
    let mut command = Command::new(["/probe"].iter().chain(arguments).copied());
    command.capture = true;
    let finished = root.execute(&command, None).unwrap();
    let said = String::from_utf8_lossy(&finished.tail).into_owned();
    assert!(finished.success(), "{:?} {said}", finished.ending);
    root.close().unwrap();
    String::from_utf8(finished.output).unwrap()
}

fn denied() {
    for profile in [Profile::Configure, Profile::Recipe] {
        let said = probe(&["denied"], profile);
        assert!(said.lines().count() > 30, "{said}");
        for line in said.lines() {
            let (name, errno) = line.split_once(' ').unwrap();
            let expected = match name {
                "clone3" | "x32-getpid" | "x32-mount" => libc::ENOSYS,
                "mknod-fifo" => 0,
                "chroot" if profile == Profile::Configure => 0,
                _ => libc::EPERM,
            };
            assert_eq!(errno, expected.to_string(), "{name} as {profile:?}");
        }
    }
}

fn capabilities() {
    let (session, place) = (session(), world::fresh());
    for (profile, bits) in
        [(Profile::Configure, "00000000800400fb"), (Profile::Recipe, "0000000000000000")]
    {
        let mut request = world::request(&place, &[&world::world().base], None);
        request.profile = profile;
        let root = session.open_root(&request).unwrap();
        let status = shell(&root, "cat /proc/self/status");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(name), bits, "{name} as {profile:?}");
        }
        for name in ["CapInh:", "CapAmb:"] {
            assert_eq!(field(name), "0000000000000000", "{name}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        root.close().unwrap();
    }
}

fn network() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("drystone-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let said = probe(&["network", &name], Profile::Configure);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "abstract false");
    assert_eq!(lines.len(), 9);
    for line in &lines[1..5] {
        assert!(line.contains("Some("), "{line}");
    }
    assert_eq!(lines[8], "loopback true", "postfix and many a test suite count on it");
    for line in &lines[5..8] {
        assert!(line.ends_with("false"), "{line}");
    }
}

fn host() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    assert_eq!(
        shell(&root, "ls /"),
        "bin\nbuild\ndev\netc\nlib\nlib64\nprobe\nproc\nsbin\nsys\ntmp\nusr\n"
    );
    assert_eq!(
        shell(&root, "ls /dev"),
        "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
    assert_eq!(shell(&root, "ls /sys /tmp /build"), "/build:\n\n/sys:\n\n/tmp:\n");
    assert_eq!(shell(&root, "uname -n"), "localhost\n");
    assert_eq!(shell(&root, "umask"), "0022\n");
    assert_eq!(shell(&root, "echo test > /dev/null; head -c 2 /dev/zero | cat >/dev/null"), "");
    // Only init, this shell and cat.
    assert_eq!(shell(&root, "cd /proc; echo [0-9]*").split_whitespace().count(), 2);
    let mounts = shell(&root, "cat /proc/self/mountinfo");
    let temporary = place.to_string_lossy();
    assert!(!mounts.contains(&*temporary), "no path of the host: {mounts}");
    let escaped = shell(&root, "ls /proc/1/root/ /proc/1/cwd/ /proc/1/fd 2>&1 || true");
    assert!(escaped.contains("ermission denied"), "{escaped}");
    assert_eq!(shell(&root, "cat /proc/1/environ 2>/dev/null || true"), "");
    let maps = shell(&root, "cat /proc/self/uid_map");
    assert_eq!(maps.split_whitespace().collect::<Vec<_>>(), ["0", "0", "65536"]);
    root.close().unwrap();
}

fn inheritance() {
    // A descriptor that would be inherited by any program started carelessly.
    let file = tempfile::tempfile().unwrap();
    // SAFETY: the descriptor is open.
    let leaked = unsafe { libc::dup(file.as_raw_fd()) };
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let mut command = Command::new(["env"]);
    command.capture = true;
    let finished = root.execute(&command, None).unwrap();
    assert_eq!(
        String::from_utf8(finished.output).unwrap(),
        "FORCE_SOURCE_DATE=1\nHOME=/root\nLC_ALL=C.UTF-8\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         SOURCE_DATE_EPOCH=315532800\nTZ=UTC\n"
    );
    // The fourth is the directory that is being listed.
    assert_eq!(shell(&root, "ls /proc/self/fd"), "0\n1\n2\n3\n");
    assert_eq!(shell(&root, "cat"), "", "standard input is empty");
    // SAFETY: it was made above.
    unsafe { libc::close(leaked) };
    let first = shell(&root, "cat /proc/self/maps | head -1");
    assert_eq!(first, shell(&root, "cat /proc/self/maps | head -1"), "no randomisation");
    root.close().unwrap();
}

fn proc() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let refused =
        shell(&root, "echo x > /proc/sys/kernel/hostname 2>/dev/null && echo yes || echo no");
    assert_eq!(refused, "no\n");
    assert_eq!(shell(&root, "cat /proc/keys /proc/kmsg /proc/timer_list 2>/dev/null; true"), "");
    assert_eq!(shell(&root, "head -c 1 /proc/kcore 2>/dev/null || true"), "");
    assert_eq!(shell(&root, "mkdir /sys/x 2>/dev/null || echo no"), "no\n");
    root.close().unwrap();
}

fn attributes() {
    let mut seen = Vec::new();
    for &storage in world::storages() {
        let (session, place) = (session(), world::fresh());
        let lower = [world::world().base.clone()];
        let root = session.open_root(&world::request(&place, &[&lower[0]], Some(storage))).unwrap();
        let finished = root.execute(&Command::new(["/probe", "xattr"]), None).unwrap();
        assert!(finished.success(), "{}", String::from_utf8_lossy(&finished.tail));
        root.close().unwrap();
        let scan = session.scan(&place.join("upper"), &lower, storage).unwrap();
        let entry = scan.entries().last().unwrap().entry.clone();
        assert_eq!(entry.path.as_str(), "etc/dir/a");
        assert_eq!(entry.xattrs["user.kept"], b"value");
        let capability = &entry.xattrs["security.capability"];
        assert_eq!(capability.len(), 20, "version 2, without a root id");
        assert_eq!(capability[..6], [1, 0, 0, 2, 0, 4]);
        seen.push(entry);
    }
    assert_eq!(seen.first(), seen.last());
}

fn pid_base() {
    let (session, place) = (session(), world::fresh());
    let mut request = world::request(&place, &[&world::world().base], None);
    request.pid_base = Some(4000);
    let root = session.open_root(&request).unwrap();
    assert_eq!(shell(&root, "echo $$"), "4001\n");
    root.close().unwrap();
}

fn owner() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let mut command = Command::new(["id"]);
    (command.owner, command.capture) = ((33, 44), true);
    let finished = root.execute(&command, None).unwrap();
    assert_eq!(finished.output, b"uid=33 gid=44 groups=44\n");
    command.argv = vec!["sh".into(), "-c".into(), "echo x > /etc/x".into()];
    assert!(!root.execute(&command, None).unwrap().success());
    root.close().unwrap();
}

fn preflight() {
    let checks = drystone_builder::sandbox::preflight(&world::fresh());
    for check in &checks {
        println!("{check:?}");
        let excused = check.name == "overlay" && world::storages() == [Storage::Copy];
        assert!(check.ok || excused, "{check:?}");
        assert_eq!(check.ok, check.mend.is_none());
    }
    assert_eq!(checks.len(), 7);
}
