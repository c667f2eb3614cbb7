//! Disguises: what commands are told instead of the truth.

use std::time::{SystemTime, UNIX_EPOCH};

use drystone_builder::sandbox::{
    Command, DirectoryOrder, Disguise, RootRequest, ShiftedClock, Shown,
};

use crate::world::{self, session, shell};

pub const TESTS: &[(&str, fn())] = &[
    ("another_clock_is_told_to_every_program", clock),
    ("a_stopped_clock_stands_still_and_waits_end", stopped),
    ("files_times_follow_the_clock_both_ways", file_times),
    ("directories_are_listed_backwards", directories),
    ("another_kernel_and_processor_are_told_of", kernel),
    ("held_random_numbers_come_again", random),
    ("a_disguise_changes_no_process_number", numbers),
    ("signals_and_stops_reach_traced_commands", signals),
];

const AHEAD: i64 = 400 * 86400;

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn clock_ahead() -> Disguise {
    let clock = Some(ShiftedClock { shown: Shown::Ahead(AHEAD), since: now(), files: true });
    Disguise { clock, ..Disguise::default() }
}

/// What a script prints under a disguise; `None`, said aloud, where this host does not trace.
fn disguised(disguise: Disguise, script: &str) -> Option<String> {
    let (session, place) = (session(), world::fresh());
    let mut request: RootRequest = world::request(&place, &[&world::world().base], None);
    request.disguise = disguise;
    let root = session.open_root(&request).unwrap();
    if let Some(problem) = root.undisguised() {
        println!("skipped: this host does not let commands be traced: {problem}");
        return None;
    }
    let said = shell(&root, script);
    root.close().unwrap();
    Some(said)
}

fn clock() {
    // The probe asks through the vDSO if it finds one, the C library's functions, and the kernel.
    let Some(said) = disguised(clock_ahead(), "/probe clocks; /probe clocks") else { return };
    let expected = now() + AHEAD;
    let mut asked = 0;
    for line in said.lines() {
        let (name, seconds) = line.split_once(' ').unwrap();
        let seconds: i64 = seconds.parse().unwrap();
        match name {
            "monotonic" => assert!(seconds < AHEAD / 2, "{line}"),
            _ => assert!((expected - 120..=expected + 5).contains(&seconds), "{line}: {expected}"),
        }
        asked += 1;
    }
    assert_eq!(asked, 10, "{said}");
}

fn stopped() {
    let shown = Shown::Stopped(315_532_800);
    let clock = Some(ShiftedClock { shown, since: now(), files: true });
    let script = "cd /tmp; echo > a; stat -c %Y a; touch -d '2001-01-01 00:00:00 UTC' b; \
                  stat -c %Y b; sleep 1; /probe clocks";
    let Some(said) = disguised(Disguise { clock, ..Disguise::default() }, script) else { return };
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("315532800"), "a file that is made");
    assert_eq!(lines.next(), Some("978307200"), "a time that is given");
    let asked: Vec<&str> = lines.filter(|line| !line.starts_with("monotonic")).collect();
    assert!(asked.len() > 3, "{said}");
    assert!(asked.iter().all(|line| line.ends_with(" 315532800")), "{said}");
}

fn file_times() {
    let script = "cd /tmp; echo > a; stat -c %Y a; touch -r a b; stat -c %Y b /etc/dir/a; \
                  cp -p a c; stat -c %Y c";
    let Some(said) = disguised(clock_ahead(), script) else { return };
    let times: Vec<i64> = said.lines().map(|line| line.parse().unwrap()).collect();
    let [made, touched, given, copied] = times[..] else { panic!("{said}") };
    assert!((now() + AHEAD - made).abs() < 120, "{said}");
    assert_eq!((touched, given, copied), (made, 315_532_800, made), "{said}");
}

fn directories() {
    let list = "ls -U /etc/dir | cat";
    let plain = disguised(Disguise::default(), list).unwrap();
    let reverse = Disguise { directories: Some(DirectoryOrder::Backwards), ..Disguise::default() };
    let Some(turned) = disguised(reverse, list) else { return };
    let (mut plain, turned): (Vec<&str>, Vec<&str>) =
        (plain.lines().collect(), turned.lines().collect());
    plain.reverse();
    assert_eq!((plain.len(), &plain), (3, &turned));
}

fn kernel() {
    let disguise = Disguise {
        other_kernel: true,
        one_processor: true,
        other_inodes: true,
        ..Disguise::default()
    };
    let script = "uname -r; cat /proc/sys/kernel/osrelease; cat /proc/cpuinfo /proc/stat; touch /tmp/mark; ls /tmp";
    let Some(said) = disguised(disguise, script) else { return };
    assert!(said.starts_with("7.77.7-check\n7.77.7-check\n"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("processor\t")).count(), 1, "{said}");
    assert!(!said.contains("\ncpu1 ") && said.ends_with("\nmark\n"), "{said}");
}

fn random() {
    let held = Disguise { random_seed: Some(7), ..Disguise::default() };
    let script = "/probe random";
    let Some(first) = disguised(held.clone(), script) else { return };
    assert_eq!(disguised(held, script).unwrap(), first);
    let free = disguised(Disguise::default(), script).unwrap();
    for (held, free) in first.lines().zip(free.lines()) {
        assert_ne!(held, free);
    }
}

fn numbers() {
    let script = "echo $$; sh -c 'echo $$'; true | sh -c 'echo $$'";
    let plain = disguised(Disguise::default(), script).unwrap();
    let Some(traced) = disguised(clock_ahead(), script) else { return };
    assert_eq!(plain, traced);
}

/// Handlers, job control, and a command that ends while others are stopped.
fn signals() {
    let script = "trap 'echo handled' USR1; kill -USR1 $$; \
                  sh -c 'kill -STOP $$; echo continued' & sleep 0.3; kill -CONT $!; wait $!; \
                  sh -c 'kill -TERM $$' || echo $?; sleep 60 & sh -c 'kill -STOP $$' & true";
    let Some(said) = disguised(clock_ahead(), script) else { return };
    assert_eq!(said, "handled\ncontinued\n143\n");
    let (session, place) = (session(), world::fresh());
    let mut request = world::request(&place, &[&world::world().base], None);
    request.disguise = clock_ahead();
    let root = session.open_root(&request).unwrap();
    let mut command = Command::new(["sleep", "60"]);
    command.time_limit = Some(std::time::Duration::from_millis(300));
    let finished = root.execute(&command, None).unwrap();
    assert_eq!(
        finished.ending,
        drystone_builder::sandbox::Ending::Limit(drystone_builder::sandbox::Limit::Time)
    );
}
