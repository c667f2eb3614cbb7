//! Programs of other architectures: what runs them on this host.
//!
//! The kernel hands a foreign program to a user-mode emulator that is registered with it
//! (`binfmt_misc`). The emulator must have been opened when it was registered (flag F), since the
//! sandbox's root does not hold it. Since Linux 6.7 a user namespace may have registrations of its
//! own, so a session can make one without changing the host.

use std::fs;
use std::path::Path;

use rustix::system::uname;

/// Where the host's registrations are.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// Folders of emulators, as Debian, Fedora and others have them.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];

/// How programs of an architecture look, and who runs them.
struct Machine {
    /// Debian's name.
    debian: &'static str,
    /// QEMU's name.
    qemu: &'static str,
    is_64_bit: bool,
    is_big_endian: bool,
    /// `e_machine` of ELF.
    number: u16,
}

const fn machine(debian: &'static str, qemu: &'static str, bits: u8, number: u16) -> Machine {
    Machine { debian, qemu, is_64_bit: bits == 64, is_big_endian: false, number }
}

/// The architectures that images can be built for.
const MACHINES: [Machine; 10] = [
    machine("amd64", "x86_64", 64, 62),
    machine("arm64", "aarch64", 64, 183),
    machine("armel", "arm", 32, 40),
    machine("armhf", "arm", 32, 40),
    machine("i386", "i386", 32, 3),
    machine("loong64", "loongarch64", 64, 258),
    machine("mips64el", "mips64el", 64, 8),
    machine("ppc64el", "ppc64le", 64, 21),
    machine("riscv64", "riscv64", 64, 243),
    Machine { is_big_endian: true, ..machine("s390x", "s390x", 64, 22) },
];

/// Whether the host's kernel runs programs of an architecture (by Debian's name) in a root that
/// does not hold the emulator.
pub fn is_registered(architecture: &str) -> bool {
    let Some(machine) = find(architecture) else { return false };
    let path = Path::new(REGISTERED).join(format!("qemu-{}", machine.qemu));
    fs::read_to_string(path).is_ok_and(|text| is_usable(&text))
}

/// Whether a registration, as the kernel shows it, is enabled and opened its emulator in advance.
fn is_usable(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
    text.starts_with("enabled") && flags.contains('F')
}

/// What to register in a namespace of one's own, if this host has an emulator for the architecture
/// and a kernel that allows that.
pub fn registration(architecture: &str) -> Option<String> {
    let machine = find(architecture)?;
    let kernel = uname();
    let release = kernel.release().to_string_lossy();
    let emulator = format!("qemu-{}-static", machine.qemu);
    let emulator =
        FOLDERS.iter().map(|folder| Path::new(folder).join(&emulator)).find(|it| it.is_file())?;
    has_own_registrations(&release).then(|| line(machine, &emulator))
}

fn find(architecture: &str) -> Option<&'static Machine> {
    MACHINES.iter().find(|machine| machine.debian == architecture)
}

/// Linux 6.7 and later.
fn has_own_registrations(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(7))
}

/// The line that the kernel wants: name, first bytes, which of their bits count, emulator, flags.
/// Programs and shared objects (position-independent programs) differ in one bit of `e_type`.
fn line(machine: &Machine, emulator: &Path) -> String {
    let class = if machine.is_64_bit { 2 } else { 1 };
    let order = if machine.is_big_endian { 2 } else { 1 };
    let half = |number: u16| match machine.is_big_endian {
        true => number.to_be_bytes(),
        false => number.to_le_bytes(),
    };
    let mut magic = vec![0x7f, b'E', b'L', b'F', class, order, 1, 0];
    let mut mask = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];
    magic.extend([0; 8]);
    mask.extend([0xff; 8]);
    magic.extend([half(2), half(machine.number)].concat());
    mask.extend([half(0xfffe), half(0xffff)].concat());
    let escaped =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let (magic, mask) = (escaped(&magic), escaped(&mask));
    format!(":qemu-{}:M::{magic}:{mask}:{}:PF", machine.qemu, emulator.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's own line for qemu-aarch64 (qemu-user-static, binfmt.d), but for path and flags.
    #[test]
    fn the_line_is_that_of_distributions() {
        let ours = line(find("arm64").unwrap(), Path::new("/usr/bin/qemu-aarch64-static"));
        assert_eq!(
            ours,
            r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:PF"
        );
        let s390x = line(find("s390x").unwrap(), Path::new("/q"));
        assert!(s390x.contains(r"\x00\x02\x00\x16:") && s390x.contains(r"\xff\xfe\xff\xff:"));
    }

    #[test]
    fn only_an_emulator_that_was_opened_in_advance_will_do() {
        let text = |flags| format!("enabled\ninterpreter /usr/bin/q\nflags: {flags}\noffset 0\n");
        assert!(is_usable(&text("POF")) && is_usable(&text("F")));
        assert!(!is_usable(&text("PO")) && !is_usable(""));
        assert!(!is_usable(&text("F").replace("enabled", "disabled")));
    }

    #[test]
    fn kernels_are_told_apart() {
        for release in ["6.7.0", "6.18.44-x", "7.0", "10.1.2", "6.7-rc1"] {
            assert!(has_own_registrations(release), "{release}");
        }
        for release in ["6.6.99", "6.1.0-49-amd64", "5.15", "", "x"] {
            assert!(!has_own_registrations(release), "{release}");
        }
    }
}
