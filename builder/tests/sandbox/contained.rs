//! What a command must not be able to do or see: one named test for each, for both profiles.
//!
//! All run inside, in the same program under another name: `/probe contained`. Each is a function
//! that fails with what it got hold of.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

use drystone_builder::sandbox::{Command, Profile};

use crate::world::{self, session};

macro_rules! call {
    ($call:expr $(, $argument:expr)*) => {
        // SAFETY: every call is expected to be refused; none is given memory to write to.
        unsafe { libc::syscall($call $(, $argument)*) }
    };
}

type Outcome = Result<(), String>;

/// A name, and what is tried.
type Probe = (&'static str, fn() -> Outcome);

/// The variable in which the host's secrets and addresses are told to the probes.
const FACTS: &str = "FACTS";

/// Every probe.
pub const PROBES: &[Probe] = &[
    ("network_of_the_host_inet", || unreachable("tcp")),
    ("network_of_the_host_inet6", || unreachable("tcp6")),
    ("network_outside", || refuse_connection("192.0.2.1:80")),
    ("network_outside_inet6", || refuse_connection("[2001:db8::1]:80")),
    ("network_udp_outside", udp),
    ("network_only_loopback_is_there", interfaces),
    ("socket_abstract_of_the_host", abstract_socket),
    ("socket_path_of_the_host", || absent(&fact("socket"))),
    ("socket_raw", || no_socket(libc::AF_INET, libc::SOCK_RAW, 1)),
    ("socket_raw_inet6", || no_socket(libc::AF_INET6, libc::SOCK_RAW, 58)),
    ("socket_packet", || no_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("socket_vsock", || no_socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("socket_alg", || no_socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("socket_bluetooth", || no_socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)),
    ("socket_can", || no_socket(libc::AF_CAN, libc::SOCK_RAW, 1)),
    ("socket_tipc", || no_socket(libc::AF_TIPC, libc::SOCK_RDM, 0)),
    ("socket_rds", || no_socket(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)),
    ("socket_xdp", || no_socket(libc::AF_XDP, libc::SOCK_RAW, 0)),
    ("socket_key", || no_socket(libc::AF_KEY, libc::SOCK_RAW, 2)),
    ("socket_nfc", || no_socket(libc::AF_NFC, libc::SOCK_SEQPACKET, 1)),
    ("netlink_audit", netlink_audit),
    ("host_file", || absent(&fact("file"))),
    ("host_home", || absent("/home")),
    ("host_folder_by_the_way_up", || absent(&format!("/../../..{}", fact("file")))),
    ("host_program", || absent("/usr/bin/strace")),
    ("host_root_through_init", || unreadable("/proc/1/root/etc")),
    ("host_folder_through_init", || unreadable("/proc/1/cwd")),
    ("descriptors_of_init", descriptors_of_init),
    ("environment_of_init", || unreadable("/proc/1/environ")),
    ("memory_of_init", || unreadable("/proc/1/mem")),
    ("maps_of_init", || unreadable("/proc/1/maps")),
    ("processes_of_the_host", processes),
    ("signals_to_the_host", || denied(call!(libc::SYS_kill, number("pid"), 0))),
    ("signals_to_init", kill_init),
    ("ptrace_init", || denied(call!(libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0))),
    ("ptrace_itself", || denied(call!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0))),
    ("process_vm_readv", || denied(call!(libc::SYS_process_vm_readv, 1, 0, 0, 0, 0, 0))),
    ("process_vm_writev", || denied(call!(libc::SYS_process_vm_writev, 1, 0, 0, 0, 0, 0))),
    ("pidfd_getfd", pidfd_getfd),
    ("descriptors_inherited", descriptors),
    ("environment_inherited", environment),
    ("standard_input", standard_input),
    ("terminal_of_the_host", || no_open("/dev/tty", libc::O_RDWR)),
    ("terminal_input_pushed", || denied(call!(libc::SYS_ioctl, 0, 0x5412, c"x".as_ptr()))),
    ("terminal_input_pushed_console", || denied(call!(libc::SYS_ioctl, 0, 0x541c, c"x".as_ptr()))),
    ("devices", devices),
    ("device_block_made", || no_node(libc::S_IFBLK, 0x0801)),
    ("device_character_made", || no_node(libc::S_IFCHR, 0x0103)),
    ("device_memory", || absent("/dev/mem")),
    ("device_disk", || absent("/dev/vda")),
    ("device_fuse", || absent("/dev/fuse")),
    ("device_kvm", || absent("/dev/kvm")),
    ("setuid_gives_nothing", setuid),
    ("capabilities_ambient", || status("CapAmb:", &["0000000000000000"])),
    ("capabilities_inheritable", || status("CapInh:", &["0000000000000000"])),
    ("capabilities_bounding", || status("CapBnd:", &["00000000800400fb", "0000000000000000"])),
    ("no_new_privileges", || status("NoNewPrivs:", &["1"])),
    ("seccomp_on", || status("Seccomp:", &["2"])),
    ("groups_of_the_caller", groups),
    ("ids_of_the_caller", ids),
    ("mount", || denied(call!(libc::SYS_mount, 0, c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0))),
    ("umount", || denied(call!(libc::SYS_umount2, c"/tmp".as_ptr(), 0))),
    ("pivot_root", || denied(call!(libc::SYS_pivot_root, c"/tmp".as_ptr(), c"/tmp".as_ptr()))),
    ("move_mount", || denied(call!(libc::SYS_move_mount, -1, 0, -1, 0, 0))),
    ("fsopen", || denied(call!(libc::SYS_fsopen, c"proc".as_ptr(), 0))),
    ("fsmount", || denied(call!(libc::SYS_fsmount, -1, 0, 0))),
    ("fsconfig", || denied(call!(libc::SYS_fsconfig, -1, 0, 0, 0, 0))),
    ("fspick", || denied(call!(libc::SYS_fspick, -100, c"/".as_ptr(), 0))),
    ("open_tree", || denied(call!(libc::SYS_open_tree, -100, c"/tmp".as_ptr(), 1))),
    ("mount_setattr", || denied(call!(libc::SYS_mount_setattr, -100, c"/".as_ptr(), 0, 0, 0))),
    ("unshare_user", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWUSER))),
    ("unshare_mount", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWNS))),
    ("unshare_network", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWNET))),
    ("unshare_process", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWPID))),
    ("unshare_ipc", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWIPC))),
    ("unshare_host_name", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWUTS))),
    ("unshare_cgroup", || denied(call!(libc::SYS_unshare, libc::CLONE_NEWCGROUP))),
    ("unshare_time", || denied(call!(libc::SYS_unshare, 0x80))),
    ("clone_user", || denied(call!(libc::SYS_clone, libc::CLONE_NEWUSER | 17, 0, 0, 0, 0))),
    ("clone3", || denied(call!(libc::SYS_clone3, 0, 0))),
    ("setns", || denied(call!(libc::SYS_setns, 0, 0))),
    ("keyctl", || denied(call!(libc::SYS_keyctl, 0, -3, 0))),
    ("add_key", || {
        denied(call!(libc::SYS_add_key, c"user".as_ptr(), c"x".as_ptr(), c"y".as_ptr(), 1, -3))
    }),
    ("request_key", || {
        denied(call!(libc::SYS_request_key, c"user".as_ptr(), c"x".as_ptr(), 0, -3))
    }),
    ("bpf", || denied(call!(libc::SYS_bpf, 0, 0, 0))),
    ("perf_event_open", || denied(call!(libc::SYS_perf_event_open, 0, 0, -1, -1, 0))),
    ("userfaultfd", || denied(call!(libc::SYS_userfaultfd, 1))),
    ("io_uring", || denied(call!(libc::SYS_io_uring_setup, 1, 0))),
    ("kexec_load", || denied(call!(libc::SYS_kexec_load, 0, 0, 0, 0))),
    ("kexec_file_load", || denied(call!(libc::SYS_kexec_file_load, -1, -1, 0, 0, 0))),
    ("init_module", || denied(call!(libc::SYS_init_module, 0, 0, c"".as_ptr()))),
    ("finit_module", || denied(call!(libc::SYS_finit_module, -1, c"".as_ptr(), 0))),
    ("delete_module", || denied(call!(libc::SYS_delete_module, c"x".as_ptr(), 0))),
    ("reboot", || denied(call!(libc::SYS_reboot, 0, 0, 0, 0))),
    ("swapon", || denied(call!(libc::SYS_swapon, c"/tmp".as_ptr(), 0))),
    ("swapoff", || denied(call!(libc::SYS_swapoff, c"/tmp".as_ptr()))),
    ("settimeofday", || denied(call!(libc::SYS_settimeofday, 0, 0))),
    ("clock_settime", || denied(call!(libc::SYS_clock_settime, 0, 0))),
    ("clock_adjtime", || denied(call!(libc::SYS_clock_adjtime, 0, 0))),
    ("adjtimex", || denied(call!(libc::SYS_adjtimex, 0))),
    ("sethostname", || denied(call!(libc::SYS_sethostname, c"x".as_ptr(), 1))),
    ("setdomainname", || denied(call!(libc::SYS_setdomainname, c"x".as_ptr(), 1))),
    ("personality_unknown", || denied(call!(libc::SYS_personality, 0x0040_0000))),
    ("quotactl", || denied(call!(libc::SYS_quotactl, 0, 0, 0, 0))),
    ("acct", || denied(call!(libc::SYS_acct, 0))),
    ("syslog", || denied(call!(libc::SYS_syslog, 3, 0, 0))),
    ("name_to_handle_at", || denied(call!(libc::SYS_name_to_handle_at, -100, 0, 0, 0, 0))),
    ("open_by_handle_at", || denied(call!(libc::SYS_open_by_handle_at, -100, 0, 0))),
    ("fanotify", || denied(call!(libc::SYS_fanotify_init, 0, 0))),
    ("vhangup", || denied(call!(libc::SYS_vhangup))),
    ("scheduling_in_real_time", real_time),
    ("priority_raised", || denied(call!(libc::SYS_setpriority, 0, 0, -20))),
    ("proc_sys_written", || no_open("/proc/sys/kernel/core_pattern", libc::O_WRONLY)),
    ("proc_sys_host_name_written", || no_open("/proc/sys/kernel/hostname", libc::O_WRONLY)),
    ("proc_sysrq", || silent("/proc/sysrq-trigger")),
    ("proc_kernel_memory", || silent("/proc/kcore")),
    ("proc_kernel_addresses", || silent("/proc/kallsyms")),
    ("proc_kernel_modules", || silent("/proc/modules")),
    ("proc_kernel_log", || silent("/proc/kmsg")),
    ("proc_kernel_command_line", || silent("/proc/cmdline")),
    ("proc_keys", || silent("/proc/keys")),
    ("proc_timers", || silent("/proc/timer_list")),
    ("proc_disks", || silent("/proc/partitions")),
    ("proc_disk_statistics", || silent("/proc/diskstats")),
    ("proc_interrupts", || silent("/proc/interrupts")),
    ("proc_swaps", || silent("/proc/swaps")),
    ("proc_mounts", mounts),
    ("proc_group", group),
    ("proc_uid_map", uid_map),
    ("sys_empty", sys),
    ("cgroup_file_system", || absent("/sys/fs/cgroup/cgroup.procs")),
    ("shared_memory_of_the_host", shared_memory),
    ("host_name", host_name),
    ("umask", umask),
    ("locale_and_time_zone", locale),
    ("working_directory", || same(&std::env::current_dir().unwrap().display().to_string(), "/")),
    ("core_dumps", || limit(libc::RLIMIT_CORE, 1)),
    ("open_files_limit", || limit(libc::RLIMIT_NOFILE, 4096)),
    ("processes_limit", || limit(libc::RLIMIT_NPROC, 4096)),
    ("locked_memory_limit", || limit(libc::RLIMIT_MEMLOCK, 8 << 20)),
    ("file_size_limit_of_the_caller", || limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY)),
    ("own_session", own_session),
    ("dev_is_small", dev),
    ("chroot_leads_nowhere", chroot),
];

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A call that must not even have been looked at.
fn denied(result: libc::c_long) -> Outcome {
    match (result, errno()) {
        (0.., _) => Err(format!("it worked: {result}")),
        (_, libc::EPERM | libc::ENOSYS | libc::EACCES | libc::ESRCH) => Ok(()),
        (_, errno) => Err(format!("it got as far as error {errno}")),
    }
}

fn same(found: &str, expected: &str) -> Outcome {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} and not {expected:?}")),
    }
}

fn fact(name: &str) -> String {
    let facts = std::env::var(FACTS).unwrap();
    let value = facts.split(' ').find_map(|fact| fact.strip_prefix(name)?.strip_prefix('='));
    value.unwrap().to_owned()
}

fn number(name: &str) -> libc::c_long {
    fact(name).parse().unwrap()
}

fn absent(path: &str) -> Outcome {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(format!("{path} is there")),
        Err(_) => Ok(()),
    }
}

fn no_open(path: &str, flags: libc::c_int) -> Outcome {
    let path = CString::new(path).unwrap();
    // SAFETY: the path is a string.
    match unsafe { libc::open(path.as_ptr(), flags) } {
        -1 => Ok(()),
        _ => Err("it could be opened".to_owned()),
    }
}

/// Neither listed nor read.
fn unreadable(path: &str) -> Outcome {
    if let Ok(entries) = std::fs::read_dir(path) {
        return Err(format!(
            "listed: {:?}",
            entries.flatten().map(|it| it.file_name()).collect::<Vec<_>>()
        ));
    }
    match std::fs::read(path) {
        Ok(bytes) if !bytes.is_empty() => Err(format!("read {} bytes", bytes.len())),
        _ => Ok(()),
    }
}

/// Not there, or without content.
fn silent(path: &str) -> Outcome {
    use std::io::Read as _;
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
    let mut bytes = [0; 64];
    match file.read(&mut bytes) {
        Ok(0) | Err(_) => Ok(()),
        Ok(count) => Err(String::from_utf8_lossy(&bytes[..count]).into_owned()),
    }
}

fn refuse_connection(address: &str) -> Outcome {
    let address = address.parse().unwrap();
    let limit = std::time::Duration::from_secs(2);
    match std::net::TcpStream::connect_timeout(&address, limit) {
        Ok(_) => Err("connected".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err("a packet went somewhere".to_owned())
        }
        Err(_) => Ok(()),
    }
}

fn unreachable(name: &str) -> Outcome {
    match fact(name).as_str() {
        "none" => Ok(()),
        address => refuse_connection(address),
    }
}

fn udp() -> Outcome {
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return Ok(()) };
    match socket.send_to(b"x", "192.0.2.1:53") {
        Ok(_) => Err("sent".to_owned()),
        Err(_) => Ok(()),
    }
}

fn interfaces() -> Outcome {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> =
        text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    // Kernels put tunnels that are down and lead nowhere beside it.
    match names.iter().find(|name| name.starts_with("eth") || name.starts_with("en")) {
        Some(name) => Err(format!("{name} of {names:?}")),
        None => Ok(()),
    }
}

fn abstract_socket() -> Outcome {
    use std::os::linux::net::SocketAddrExt;
    let name = fact("abstract");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    match std::os::unix::net::UnixStream::connect_addr(&address) {
        Ok(_) => Err("connected".to_owned()),
        Err(_) => Ok(()),
    }
}

fn no_socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Outcome {
    // SAFETY: the call takes numbers only.
    match (unsafe { libc::socket(family, kind, protocol) }, errno()) {
        (0.., _) => Err("made".to_owned()),
        (_, libc::EAFNOSUPPORT | libc::EPERM | libc::EACCES) => Ok(()),
        (_, errno) => Err(format!("it got as far as error {errno}")),
    }
}

/// The kernel's audit lines come from other processes than ours.
fn netlink_audit() -> Outcome {
    // SAFETY: the call takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 9) };
    if socket < 0 {
        return Ok(());
    }
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = 16;
    address.nl_groups = 1;
    let size = u32::try_from(std::mem::size_of_val(&address)).unwrap();
    // SAFETY: the address is as large as is said.
    match unsafe { libc::bind(socket, (&raw const address).cast(), size) } {
        0 => Err("listens to audit lines".to_owned()),
        _ => Ok(()),
    }
}

/// Their numbers may be listed where files are nobody's; what they are, and they, may not be had.
fn descriptors_of_init() -> Outcome {
    for number in 0..1024 {
        let path = format!("/proc/1/fd/{number}");
        if let Ok(target) = std::fs::read_link(&path) {
            return Err(format!("{path} is {}", target.display()));
        }
        if std::fs::File::open(&path).is_ok() {
            return Err(format!("{path} could be opened"));
        }
    }
    Ok(())
}

fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn processes() -> Outcome {
    // Init, the probe, and its child that runs this.
    match pids().len() {
        3 => Ok(()),
        count => Err(format!("{count} processes in sight")),
    }
}

/// What has no handler does not reach init, and this process would not survive its end.
fn kill_init() -> Outcome {
    for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM] {
        // SAFETY: the call takes numbers only.
        unsafe { libc::kill(1, signal) };
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    let state = std::fs::read_to_string("/proc/1/stat").unwrap();
    match state.rsplit_once(") ").unwrap().1.starts_with('T') {
        true => Err("init is stopped".to_owned()),
        false => Ok(()),
    }
}

fn pidfd_getfd() -> Outcome {
    // SAFETY: both calls take numbers only.
    let (pidfd, taken) = unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, 1, 0);
        (pidfd, libc::syscall(libc::SYS_pidfd_getfd, pidfd, 3, 0))
    };
    match (pidfd, taken) {
        (_, 0..) => Err("a descriptor of init".to_owned()),
        _ => Ok(()),
    }
}

fn descriptors() -> Outcome {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut numbers: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    numbers.sort();
    // The fourth is the directory that is being listed.
    same(&numbers.join(" "), "0 1 2 3")
}

fn environment() -> Outcome {
    let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    let mut names = names;
    names.sort();
    same(&names.join(" "), "FACTS FORCE_SOURCE_DATE HOME LC_ALL PATH SOURCE_DATE_EPOCH TZ")
}

fn standard_input() -> Outcome {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    same(&format!("{bytes:?}"), "[]")
}

fn devices() -> Outcome {
    let mut names: Vec<String> = std::fs::read_dir("/dev")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    same(&names.join(" "), expected)
}

fn no_node(kind: libc::mode_t, device: libc::dev_t) -> Outcome {
    let path = CString::new("/tmp/node").unwrap();
    // SAFETY: the path is a string.
    denied(i64::from(unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) }))
}

/// A copy of this program, set-uid to another user, must run as this one.
fn setuid() -> Outcome {
    let before = id("Uid:");
    std::fs::copy("/probe", "/tmp/raised").unwrap();
    let path = CString::new("/tmp/raised").unwrap();
    // SAFETY: the path is a string.
    unsafe {
        libc::chown(path.as_ptr(), 7, 7);
        libc::chmod(path.as_ptr(), 0o6755);
    }
    let output = std::process::Command::new("/tmp/raised")
        .env_clear()
        .env("RAISED", "1")
        .output()
        .map_err(|error| error.to_string())?;
    std::fs::remove_file("/tmp/raised").unwrap();
    same(&String::from_utf8_lossy(&output.stdout), &before)
}

fn id(field: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().to_owned()
}

fn status(field: &str, allowed: &[&str]) -> Outcome {
    let found = id(field);
    match allowed.contains(&found.as_str()) {
        true => Ok(()),
        false => Err(found),
    }
}

fn groups() -> Outcome {
    same(&id("Groups:"), "")
}

fn ids() -> Outcome {
    let found = id("Uid:");
    match found.split_whitespace().all(|part| part == "0" || part == "1000") {
        true => Ok(()),
        false => Err(found),
    }
}

fn real_time() -> Outcome {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter lives until the call is done.
    denied(i64::from(unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter)
    }))
}

fn mounts() -> Outcome {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let host = fact("place");
    match text.lines().find(|line| line.contains(&host)) {
        Some(line) => Err(line.to_owned()),
        None => Ok(()),
    }
}

fn group() -> Outcome {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    match text.lines().find(|line| !line.ends_with(":/")) {
        Some(line) => Err(line.to_owned()),
        None => Ok(()),
    }
}

fn uid_map() -> Outcome {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    same(&words.join(" "), "0 0 65536")
}

fn sys() -> Outcome {
    let count = std::fs::read_dir("/sys").unwrap().count();
    same(&count.to_string(), "0")?;
    match std::fs::write("/sys/x", "x") {
        Ok(()) => Err("written".to_owned()),
        Err(_) => Ok(()),
    }
}

fn shared_memory() -> Outcome {
    // SAFETY: the call takes numbers only.
    let found = unsafe { libc::shmget(i32::try_from(number("shm")).unwrap(), 1, 0) };
    match found {
        -1 => Ok(()),
        _ => Err("found".to_owned()),
    }
}

fn host_name() -> Outcome {
    let mut name = [0; 64];
    // SAFETY: the length is the buffer's own.
    unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    let end = name.iter().position(|&byte| byte == 0).unwrap();
    same(&String::from_utf8_lossy(&name[..end]), "localhost")
}

fn umask() -> Outcome {
    // SAFETY: the call takes a number only.
    let mask = unsafe { libc::umask(0o022) };
    same(&format!("{mask:o}"), "22")
}

fn locale() -> Outcome {
    let get = |name| std::env::var(name).unwrap_or_default();
    same(&get("LC_ALL"), "C.UTF-8")?;
    same(&get("TZ"), "UTC")?;
    same(&get("SOURCE_DATE_EPOCH"), "315532800")
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> Outcome {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is what the call wants.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    let is_fixed = most != libc::RLIM_INFINITY || limit.rlim_cur == limit.rlim_max;
    match limit.rlim_max <= most && limit.rlim_cur <= most && is_fixed {
        true => Ok(()),
        false => Err(format!("{} of {}", limit.rlim_cur, limit.rlim_max)),
    }
}

/// The leader of this session is in the namespace: nobody outside is signalled with it.
fn own_session() -> Outcome {
    // SAFETY: the calls take numbers only.
    let session = unsafe { libc::getsid(0) };
    match session > 0 {
        true => Ok(()),
        false => Err("the session is the host's".to_owned()),
    }
}

fn dev() -> Outcome {
    match std::fs::write("/dev/shm/../filled", vec![0; 1 << 20]) {
        Ok(()) => Err("a megabyte fits".to_owned()),
        Err(_) => Ok(()),
    }
}

/// Who may chroot may leave a chroot; what is above is the sandbox's root and nothing else.
fn chroot() -> Outcome {
    // SAFETY: the paths are strings.
    unsafe {
        if libc::mkdir(c"/tmp/inner".as_ptr(), 0o755) != 0
            || libc::chroot(c"/tmp/inner".as_ptr()) != 0
        {
            return Ok(());
        }
        for _ in 0..32 {
            libc::chdir(c"..".as_ptr());
        }
        libc::chroot(c".".as_ptr());
    }
    match Path::new("/probe").exists() && !Path::new(&fact("file")).exists() {
        true => Ok(()),
        false => Err("the way up leads out".to_owned()),
    }
}

/// Says who runs, when started as a set-uid program.
pub fn raised_if_requested() {
    if std::env::var_os("RAISED").is_some() {
        print!("{}", id("Uid:"));
        std::process::exit(0);
    }
}

/// Runs every probe, each in a process of its own, and prints how it came out.
pub fn main() {
    for (name, run) in PROBES {
        // SAFETY: this process has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let said = match run() {
                Ok(()) => format!("{name} contained\n"),
                Err(leak) => format!("{name} {}\n", leak.replace('\n', " ")),
            };
            print!("{said}");
            let _ = std::io::Write::flush(&mut std::io::stdout());
            // SAFETY: nothing is to be run down.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the status is a valid place to write to.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        if status != 0 {
            println!("{name} ended with status {status}");
        }
    }
}

type Results = BTreeMap<String, String>;

/// What all probes of a profile found.
fn results(profile: Profile) -> &'static Results {
    static CONFIGURE: OnceLock<Results> = OnceLock::new();
    static RECIPE: OnceLock<Results> = OnceLock::new();
    match profile {
        Profile::Configure => CONFIGURE.get_or_init(|| run_once(profile)),
        Profile::Recipe => RECIPE.get_or_init(|| run_once(profile)),
    }
}

/// nextest starts a process for each test: the first one of a run leaves the results to the others.
fn run_once(profile: Profile) -> Results {
    let Some(run) = std::env::var_os("NEXTEST_RUN_ID") else { return parse(&run_all(profile)) };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("contained-{}-{profile:?}", run.display()));
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.lock().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    if text.is_empty() {
        text = run_all(profile);
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }
    parse(&text)
}

fn parse(text: &str) -> Results {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
}

fn run_all(profile: Profile) -> String {
    use std::os::linux::net::SocketAddrExt;
    let (session, place) = (session(), world::fresh());
    // Things of the host, each of which a probe looks for.
    let (file, socket) = (place.join("secret"), place.join("socket"));
    std::fs::write(&file, "secret").unwrap();
    let name = format!("drystone-contained-{}-{profile:?}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let _path = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let four = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let six = std::net::TcpListener::bind("[::1]:0");
    let six_address =
        six.as_ref().map_or("none".to_owned(), |it| it.local_addr().unwrap().to_string());
    let key = i32::try_from(std::process::id()).unwrap();
    // SAFETY: the call takes numbers only.
    let shared = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
    // A descriptor that any program started carelessly would inherit.
    // SAFETY: the descriptor is open.
    let leaked = unsafe { libc::dup(four.as_raw_fd()) };
    let facts = format!(
        "file={} socket={} place={} abstract={name} tcp={} tcp6={six_address} pid={} shm={key}",
        file.display(),
        socket.display(),
        place.display(),
        four.local_addr().unwrap(),
        std::process::id(),
    );
    let mut request = world::request(&place, &[&world::world().base], None);
    request.profile = profile;
    let root = session.open_root(&request).unwrap();
    let mut command = Command::new(["/probe", "contained"]);
    command.env.insert(FACTS.to_owned(), facts);
    command.capture = true;
    // Where the kernel keeps limits, its groups must not show.
    command.resources.memory = Some(1 << 30);
    if profile == Profile::Recipe {
        command.owner = (1000, 1000);
    }
    let finished = root.execute(&command, None).unwrap();
    let tail = String::from_utf8_lossy(&finished.tail).into_owned();
    assert!(finished.success(), "{:?} {tail}", finished.ending);
    root.close().unwrap();
    // SAFETY: both were made above.
    unsafe {
        libc::close(leaked);
        libc::shmctl(shared, libc::IPC_RMID, std::ptr::null_mut());
    }
    String::from_utf8(finished.output).unwrap()
}

/// Fails with what a probe got hold of.
pub fn check(profile: Profile, name: &str) {
    let outcome = results(profile).get(name).map_or("it did not run", String::as_str);
    assert_eq!(outcome, "contained", "{name} as {profile:?}");
}
