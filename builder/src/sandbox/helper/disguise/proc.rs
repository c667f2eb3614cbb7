//! Files of `/proc` that tell about the machine, with another machine in them.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::super::super::disguise::Disguise;
use super::super::super::error::{At, Failure};
use super::answer::{RELEASE, VERSION};

/// Where the files stand while they are mounted; it is covered anyway.
const PLACE: &str = "/tmp";
/// Random bytes that each opening of the device gives, when they are held.
const HELD_BYTES: usize = 1 << 20;
/// Added to the time since boot, in seconds.
const LONGER_UP: u64 = 3_141_592;
const BOOT_ID: &str = "5e0c0ffe-cafe-4bad-a55e-000000000077";

type Change = fn(&str, &Disguise) -> Option<String>;

const FILES: [(&str, Change); 8] = [
    ("/proc/cpuinfo", |text, disguise| disguise.one_processor.then(|| processors(text))),
    ("/proc/stat", |text, disguise| {
        (disguise.one_processor || disguise.other_kernel).then(|| statistics(text, disguise))
    }),
    ("/proc/meminfo", |text, disguise| disguise.other_kernel.then(|| memory(text))),
    ("/proc/uptime", |text, disguise| disguise.other_kernel.then(|| uptime(text))),
    ("/proc/version", |_, disguise| {
        disguise.other_kernel.then(|| format!("Linux version {RELEASE} (check@check) {VERSION}\n"))
    }),
    ("/proc/sys/kernel/osrelease", |_, disguise| {
        disguise.other_kernel.then(|| format!("{RELEASE}\n"))
    }),
    ("/proc/sys/kernel/version", |_, disguise| {
        disguise.other_kernel.then(|| format!("{VERSION}\n"))
    }),
    ("/proc/sys/kernel/random/boot_id", |_, disguise| {
        disguise.other_kernel.then(|| format!("{BOOT_ID}\n"))
    }),
];

/// Covers the files that a disguise is about, after `/proc` is otherwise as it will be.
pub(in super::super) fn cover(disguise: &Disguise) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for (path, change) in FILES {
        let Ok(text) = fs::read_to_string(path) else { continue };
        texts.extend(change(&text, disguise).map(|text| (path, text)));
    }
    let texts = texts.into_iter().map(|(path, text)| (path, text.into_bytes()));
    let mut files: Vec<(&str, Vec<u8>)> = texts.collect();
    if let Some(seed) = disguise.random_seed {
        // Not zeros: perl takes a seed of zero for none, and asks the clock instead.
        let mut random = vec![0; HELD_BYTES];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut random);
        files.extend(["/dev/random", "/dev/urandom"].map(|path| (path, random.clone())));
    }
    if files.is_empty() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", PLACE, "tmpfs", flags, c"mode=0755").at("mount a tmpfs on", PLACE)?;
    let covered = files.iter().enumerate().try_for_each(|(number, (path, bytes))| {
        let file = Path::new(PLACE).join(number.to_string());
        fs::write(&file, bytes).at("write", &file)?;
        mount(&file, *path, "", MountFlags::BIND, None).at("cover", path)
    });
    unmount(PLACE, UnmountFlags::DETACH).at("unmount", PLACE)?;
    covered
}

/// One processor, of a model that no host has.
fn processors(text: &str) -> String {
    const TOLD: [&str; 7] =
        ["model name", "cpu MHz", "cache size", "bogomips", "BogoMIPS", "microcode", "CPU part"];
    let first = text.split("\n\n").next().unwrap_or_default();
    let lines = first.lines().map(|line| match line.split_once(':') {
        Some((name, _)) if TOLD.contains(&name.trim()) => format!("{name}: 777.77 check\n"),
        _ => format!("{line}\n"),
    });
    lines.collect::<String>() + "\n"
}

fn statistics(text: &str, disguise: &Disguise) -> String {
    let is_other = |line: &&str| {
        let number = line.strip_prefix("cpu").and_then(|rest| rest.split(' ').next());
        !number.is_some_and(|number| !number.is_empty() && number != "0")
    };
    let lines = text.lines().filter(|line| !disguise.one_processor || is_other(line));
    lines
        .map(|line| match line.strip_prefix("btime ").and_then(|time| time.parse::<u64>().ok()) {
            Some(time) if disguise.other_kernel => {
                format!("btime {}\n", time.saturating_sub(LONGER_UP))
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

fn memory(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let total = line.strip_prefix("MemTotal:").and_then(|rest| rest.split_whitespace().next());
        match total.and_then(|total| total.parse::<u64>().ok()) {
            Some(total) => format!("MemTotal:       {} kB\n", total / 2 + 4),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

fn uptime(text: &str) -> String {
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0.0_f64));
    let (up, idle) = (numbers.next().unwrap_or(0.0), numbers.next().unwrap_or(0.0));
    #[allow(clippy::cast_precision_loss, reason = "the number is small")]
    let more = LONGER_UP as f64;
    format!("{:.2} {idle:.2}\n", up + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_told_of() {
        let cpu = "processor\t: 0\nmodel name\t: Fast\nflags\t\t: a b\n\nprocessor\t: 1\n\n";
        assert_eq!(
            processors(cpu),
            "processor\t: 0\nmodel name\t: 777.77 check\nflags\t\t: a b\n\n"
        );
        let one = Disguise { one_processor: true, ..Disguise::default() };
        let stat = "cpu  1 2\ncpu0 1 2\ncpu1 0 0\nbtime 4000000\n";
        assert_eq!(statistics(stat, &one), "cpu  1 2\ncpu0 1 2\nbtime 4000000\n");
        let kernel = Disguise { other_kernel: true, ..Disguise::default() };
        assert_eq!(statistics(stat, &kernel), "cpu  1 2\ncpu0 1 2\ncpu1 0 0\nbtime 858408\n");
        assert_eq!(
            memory("MemTotal: 100 kB\nMemFree: 1 kB\n"),
            "MemTotal:       54 kB\nMemFree: 1 kB\n"
        );
        assert_eq!(uptime("1.50 2.00\n"), "3141593.50 2.00\n");
    }
}
