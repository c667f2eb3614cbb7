//! Commands that run too long, are silent, leave processes, or whose program dies.

use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use drystone_builder::sandbox::{Command, Ending, Limit, Resources, Root, SandboxError, Session};

use crate::world::{self, session, shell};

pub const TESTS: &[(&str, fn())] = &[
    ("time_and_silence_limits_end_a_command", time_limits),
    ("what_a_command_leaves_running_is_killed", survivors),
    ("a_fork_bomb_stays_within_its_limit", fork_bomb),
    ("each_resource_is_limited", resources),
    ("memory_is_limited_without_control_groups_too", own_watch),
    ("a_limit_of_processors_is_what_programs_see", processors),
    ("inputs_cannot_be_changed", inputs),
    ("output_goes_to_the_log_and_the_tail", output),
    ("a_missing_program_is_an_error_and_a_failing_one_is_not", endings),
    ("a_killed_program_leaves_no_process", killed),
    ("closing_a_root_ends_what_runs_in_it", closing),
    ("a_root_after_another_has_nothing_of_it", after_another),
    ("a_session_leaves_no_control_group", groups),
];

/// The name under which this program starts a session and waits to be killed.
const VICTIM: &str = "drystone-sandbox-victim";

fn time_limits() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let mut command = Command::new(["sh", "-c", "sleep 100 & sleep 100"]);
    command.time_limit = Some(Duration::from_millis(200));
    let begin = Instant::now();
    assert_eq!(root.execute(&command, None).unwrap().ending, Ending::Limit(Limit::Time));
    let script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; sleep 100";
    let mut command = Command::new(["sh", "-c", script]);
    command.silence_limit = Some(Duration::from_millis(400));
    let finished = root.execute(&command, None).unwrap();
    assert_eq!(finished.ending, Ending::Limit(Limit::Silence));
    assert_eq!(finished.tail, b"1\n2\n3\n4\n5\n6\n");
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(shell(&root, "cd /proc; echo [0-9]*").split_whitespace().count(), 2);
    root.close().unwrap();
}

fn survivors() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let finished = root.execute(&Command::new(["/probe", "daemon"]), None).unwrap();
    assert!(finished.success());
    assert_eq!(finished.tail, b"left\n");
    assert_eq!(shell(&root, "cd /proc; echo [0-9]*").split_whitespace().count(), 2);
    root.close().unwrap();
}

fn fork_bomb() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let finished = root.execute(&Command::new(["/probe", "forks"]), None).unwrap();
    let count: u32 = String::from_utf8(finished.tail).unwrap().trim().parse().unwrap();
    assert!((100..4096).contains(&count), "{count}");
    assert_eq!(shell(&root, "echo alive"), "alive\n");
    root.close().unwrap();
}

/// A bomb of each kind ends by its limit, and the root goes on.
fn resources() {
    const MIB: u64 = 1 << 20;
    let none = Resources::default();
    let cases = [
        ("fill", Resources { disk: Some(20 * MIB), ..none }, Limit::Disk),
        ("files", Resources { disk: Some(20 * MIB), ..none }, Limit::Disk),
        ("memory", Resources { memory: Some(64 * MIB), ..none }, Limit::Memory),
        ("forks", Resources { processes: Some(50), ..none }, Limit::Processes),
        ("spin", Resources { cpu_time: Some(Duration::from_millis(300)), ..none }, Limit::CpuTime),
    ];
    let session = session();
    for &storage in world::storages() {
        for (probe, resources, limit) in cases {
            let place = world::fresh();
            let request = world::request(&place, &[&world::world().base], Some(storage));
            let root = session.open_root(&request).unwrap();
            let mut command = Command::new(["/probe", probe]);
            command.resources = resources;
            command.time_limit = Some(Duration::from_secs(60));
            let mut finished = root.execute(&command, None).unwrap();
            if probe == "forks" && finished.success() {
                // It ended by itself between two looks.
                finished.ending = Ending::Limit(Limit::Processes);
            }
            assert_eq!(finished.ending, Ending::Limit(limit), "{probe} with {storage:?}");
            let words = command.describe(finished.ending);
            assert!(words.contains("limit of "), "{words}");
            assert_eq!(shell(&root, "echo alive"), "alive\n");
            root.close().unwrap();
            session.remove(&place.join("upper")).unwrap();
        }
    }
}

/// Files in memory count, and no control group is needed: a limit of processes has none.
fn own_watch() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let mut command = Command::new(["sh", "-c", "head -c 100000000 /dev/zero > /tmp/x; sleep 20"]);
    command.resources = Resources { memory: Some(64 << 20), ..Resources::default() };
    command.control_groups = false;
    let finished = root.execute(&command, None).unwrap();
    assert_eq!(finished.ending, Ending::Limit(Limit::Memory));
    shell(&root, "rm /tmp/x");
    command.argv = vec!["/probe".into(), "memory".into()];
    let finished = root.execute(&command, None).unwrap();
    assert_eq!(finished.ending, Ending::Limit(Limit::Memory));
    root.close().unwrap();
}

fn processors() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let mut command = Command::new(["sh", "-c", "cat /proc/self/status"]);
    command.resources = Resources { cpus: Some(1), ..Resources::default() };
    command.capture = true;
    let text = String::from_utf8(root.execute(&command, None).unwrap().output).unwrap();
    let allowed = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert!(allowed.trim().parse::<u32>().is_ok(), "one processor: {allowed}");
    root.close().unwrap();
}

/// Whatever a command does to its root, the trees below stay as they are.
fn inputs() {
    let state = |path: &std::path::Path| {
        let listed = std::process::Command::new("find")
            .arg(path)
            .args(["-printf", "%p %m %U %G %s %T@ %C@ %l\n"])
            .output()
            .unwrap();
        assert!(listed.status.success());
        listed.stdout
    };
    let before = state(&world::world().base);
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    shell(
        &root,
        "echo x > /etc/dir/a; rm /etc/dir/b; chmod 700 /etc/dir; chown 5:5 /etc/dir/c; \
         ln /usr/share/one /etc/linked; echo y >> /etc/linked; mv /etc/kept /etc/moved 2>/dev/null || true; \
         touch /usr/bin/sh; rm -r /usr/share",
    );
    root.close().unwrap();
    assert!(before == state(&world::world().base), "the trees were changed");
}

fn output() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; echo end >&2";
    let mut log = tempfile::tempfile().unwrap();
    let finished = root.execute(&Command::new(["sh", "-c", script]), Some(&log)).unwrap();
    assert!(finished.tail.ends_with(b"line 4999\nend\n"));
    assert_eq!(finished.tail.len(), 16 << 10);
    let mut text = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 5001);
    root.close().unwrap();
}

fn endings() {
    let (session, place) = (session(), world::fresh());
    let root = world::open(&session, &place);
    match root.execute_simple(&["no-such-program"]) {
        Err(SandboxError::Start { program, source, .. }) => {
            assert_eq!(program, "no-such-program");
            assert_eq!(source.raw_os_error(), Some(libc::ENOENT));
        }
        other => panic!("{other:?}"),
    }
    let mut command = Command::new(["true"]);
    command.directory = "/none".into();
    assert!(matches!(root.execute(&command, None), Err(SandboxError::Start { .. })));
    assert_eq!(root.execute_simple(&["sh", "-c", "exit 7"]).unwrap(), Ending::Exit(7));
    assert_eq!(root.execute_simple(&["sh", "-c", "kill -9 $$"]).unwrap(), Ending::Signal(9));
    assert_eq!(root.execute_simple(&["true"]).unwrap(), Ending::Exit(0));
    root.close().unwrap();
    let mut missing = world::request(&place, &[&place.join("none")], None);
    missing.work = place.join("other");
    let error = session.open_root(&missing).unwrap_err();
    assert!(matches!(error, SandboxError::Io { .. }), "{error}");
}

/// Whether a process with this argument runs anywhere on the host.
pub fn runs(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().any(|entry| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|word| word == argument.as_bytes())
    })
}

fn wait_until_gone(argument: &str) {
    let begin = Instant::now();
    while runs(argument) {
        assert!(begin.elapsed() < Duration::from_secs(5), "{argument} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a command in a root and reports it, when started as the victim.
pub fn victim_if_requested() {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() != Some(VICTIM) {
        return;
    }
    let mut next = || arguments.next().unwrap();
    // With a prefix, so that this process's own arguments are not what is looked for.
    let (place, base, seconds) = (next(), next(), format!("9{}", next()));
    let script = format!("sleep {seconds} & sleep {seconds}");
    let session = session();
    let request = world::request(place.as_ref(), &[base.as_ref()], None);
    let root = session.open_root(&request).unwrap();
    let waiter = std::thread::spawn(move || {
        while !runs(&seconds) {
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("ready");
    });
    let _ = root.execute_simple(&["sh", "-c", &script]);
    let _ = waiter.join();
    std::process::exit(0);
}

fn killed() {
    let place = world::fresh();
    let argument = format!("{:06}", std::process::id());
    let seconds = format!("9{argument}");
    let mut victim = std::process::Command::new("/proc/self/exe")
        .arg0(VICTIM)
        .arg(&place)
        .arg(&world::world().base)
        .arg(&argument)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until_gone(&seconds);
    let upper = place.join("upper").to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&upper));
    session().remove(&place).unwrap();
}

fn closing() {
    let session = session();
    let root = world::open(&session, &world::fresh());
    let seconds = format!("8{:06}", std::process::id());
    ends_with_session(session, &root, &seconds, &format!("sleep {seconds}"));
}

/// One supervisor serves them both.
fn after_another() {
    let (session, place, next) = (session(), world::fresh(), world::fresh());
    let root = world::open(&session, &place);
    let script = "echo x > /tmp/x; echo x > /build/x; echo x > /etc/x; /probe daemon";
    let mut command = Command::new(["sh", "-e", "-c", script]);
    command.resources = Resources { memory: Some(32 << 20), ..Resources::default() };
    command.resources.processes = Some(20);
    assert!(root.execute(&command, None).unwrap().success());
    root.close().unwrap();
    let place = place.to_string_lossy().into_owned();
    for process in std::fs::read_dir("/proc").unwrap() {
        let mounts = process.unwrap().path().join("mountinfo");
        let mounts = std::fs::read_to_string(mounts).unwrap_or_default();
        assert!(!mounts.contains(&place), "a mount of the closed root is left:\n{mounts}");
    }
    let root = world::open(&session, &next);
    assert_eq!(shell(&root, "echo /tmp/* /build/* /etc/x"), "/tmp/* /build/* /etc/x\n");
    assert!(shell(&root, "ls /etc").split_whitespace().all(|name| name != "x"));
    assert_eq!(shell(&root, "cd /proc; echo [0-9]*").split_whitespace().count(), 2);
    // More memory and more processes than the first one's limits.
    let many = "sleep 1 & ".repeat(40);
    shell(&root, &format!("head -c 100000000 /dev/zero > /tmp/x; {many} wait"));
    root.close().unwrap();
}

fn groups() {
    if std::env::var_os("NEXTEST").is_none() {
        println!("skipped: other tests of this process have groups (run it with cargo-nextest)");
        return;
    }
    let session = session();
    let first = world::open(&session, &world::fresh());
    let second = world::open(&session, &world::fresh());
    let mut command = Command::new(["true"]);
    command.resources = Resources { memory: Some(64 << 20), ..Resources::default() };
    assert!(first.execute(&command, None).unwrap().success());
    assert!(second.execute(&command, None).unwrap().success());
    println!("groups while roots are open: {:?}", own_groups());
    first.close().unwrap();
    drop(second);
    drop(session);
    assert_eq!(own_groups(), Vec::<std::path::PathBuf>::new());
}

/// The control groups that this process has made.
fn own_groups() -> Vec<std::path::PathBuf> {
    let prefix = format!("drystone-{}-", std::process::id());
    let all = walkdir::WalkDir::new("/sys/fs/cgroup").into_iter().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// What a script runs for so many seconds must be gone once its session is.
pub fn ends_with_session(session: Session, root: &Root, seconds: &str, script: &str) {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| root.execute_simple(&["sh", "-c", script]));
        while !runs(seconds) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The session's end is everything's end, whoever still waits.
        drop(session);
        assert!(running.join().unwrap().is_err());
    });
    wait_until_gone(seconds);
}
