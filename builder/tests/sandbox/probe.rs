//! A program that runs inside the sandbox and tries what must not work. It is this very test
//! program under another name, so it needs no tools.

use std::ffi::CString;

/// Becomes the probe when started as such.
pub fn main_if_requested() {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() != Some("/probe") {
        return;
    }
    match arguments.next().as_deref() {
        Some("contained") => crate::contained::main(),
        Some("fill") => fill(),
        Some("files") => files(),
        Some("memory") => memory(),
        Some("spin") => spin(),
        Some("denied") => denied(),
        Some("network") => network(),
        Some("forks") => forks(),
        Some("daemon") => daemon(),
        Some("xattr") => xattr(),
        Some("deep") => deep(),
        Some("clocks") => clocks(),
        Some("random") => random(),
        other => panic!("no such probe: {other:?}"),
    }
    std::process::exit(0);
}

/// Prints what every way to ask for the time says.
fn clocks() {
    let ask = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is a valid place to write to.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec
    };
    println!("realtime {}", ask(libc::CLOCK_REALTIME));
    println!("coarse {}", ask(libc::CLOCK_REALTIME_COARSE));
    println!("monotonic {}", ask(libc::CLOCK_MONOTONIC));
    // SAFETY: a null pointer asks for the result alone.
    println!("time {}", unsafe { libc::time(std::ptr::null_mut()) });
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: the time is a valid place to write to.
    unsafe { libc::gettimeofday(&raw mut time, std::ptr::null_mut()) };
    println!("gettimeofday {}", time.tv_sec);
}

/// Prints random numbers of the system call, and of the device.
fn random() {
    let mut bytes = [0_u8; 20];
    // SAFETY: the buffer has the length that is given.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    println!("{}", bytes.map(|byte| format!("{byte:02x}")).concat());
    let mut device = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut device, &mut bytes).unwrap();
    println!("{}", bytes.map(|byte| format!("{byte:02x}")).concat());
}

fn say(name: &str, result: libc::c_long) {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    println!("{name} {}", if result < 0 { errno } else { 0 });
}

macro_rules! attempt {
    ($name:literal, $call:expr $(, $argument:expr)*) => {
        // SAFETY: every call is expected to be refused; none is given memory to write to.
        say($name, unsafe { libc::syscall($call $(, $argument)*) })
    };
}

/// Prints each call's name and error number (0 for success).
fn denied() {
    let (path, proc) = (CString::new("/tmp").unwrap(), CString::new("proc").unwrap());
    let (node, none) = (CString::new("/tmp/node").unwrap(), std::ptr::null::<u8>());
    attempt!("mount", libc::SYS_mount, proc.as_ptr(), path.as_ptr(), proc.as_ptr(), 0, none);
    attempt!("umount2", libc::SYS_umount2, path.as_ptr(), 0);
    attempt!("pivot_root", libc::SYS_pivot_root, path.as_ptr(), path.as_ptr());
    attempt!("fsopen", libc::SYS_fsopen, proc.as_ptr(), 0);
    attempt!("open_tree", libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), 1);
    let block = libc::S_IFBLK | 0o600;
    attempt!("mknod-block", libc::SYS_mknodat, libc::AT_FDCWD, node.as_ptr(), block, 0x0801);
    let character = libc::S_IFCHR | 0o600;
    attempt!("mknod-char", libc::SYS_mknodat, libc::AT_FDCWD, node.as_ptr(), character, 0x0103);
    attempt!("mknod-whiteout", libc::SYS_mknodat, libc::AT_FDCWD, node.as_ptr(), character, 0);
    attempt!("unshare-user", libc::SYS_unshare, libc::CLONE_NEWUSER);
    attempt!("unshare-mount", libc::SYS_unshare, libc::CLONE_NEWNS);
    attempt!("unshare-time", libc::SYS_unshare, 0x80);
    attempt!("clone-user", libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0);
    attempt!("setns", libc::SYS_setns, 0, 0);
    attempt!("keyctl", libc::SYS_keyctl, 0, -3, 0);
    attempt!("add_key", libc::SYS_add_key, proc.as_ptr(), proc.as_ptr(), none, 0, -3);
    attempt!("bpf", libc::SYS_bpf, 0, none, 0);
    attempt!("perf_event_open", libc::SYS_perf_event_open, none, 0, -1, -1, 0);
    attempt!("ptrace", libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0);
    attempt!("process_vm_readv", libc::SYS_process_vm_readv, 1, none, 0, none, 0, 0);
    attempt!("io_uring_setup", libc::SYS_io_uring_setup, 1, none);
    attempt!("userfaultfd", libc::SYS_userfaultfd, 0);
    attempt!("init_module", libc::SYS_init_module, none, 0, path.as_ptr());
    attempt!("kexec_load", libc::SYS_kexec_load, 0, 0, none, 0);
    attempt!("reboot", libc::SYS_reboot, 0, 0, 0, none);
    attempt!("clock_settime", libc::SYS_clock_settime, 0, none);
    attempt!("settimeofday", libc::SYS_settimeofday, none, none);
    attempt!("sethostname", libc::SYS_sethostname, path.as_ptr(), 1);
    attempt!("swapon", libc::SYS_swapon, path.as_ptr(), 0);
    attempt!("syslog", libc::SYS_syslog, 3, none, 0);
    attempt!("open_by_handle_at", libc::SYS_open_by_handle_at, -1, none, 0);
    #[cfg(target_arch = "x86_64")]
    {
        attempt!("iopl", libc::SYS_iopl, 3);
        attempt!("x32-getpid", 0x4000_0000 + libc::SYS_getpid);
        attempt!("x32-mount", 0x4000_0000 + libc::SYS_mount, none, none, none, 0, none);
    }
    attempt!("clone3", libc::SYS_clone3, none, 0);
    // What must work.
    let fifo = libc::S_IFIFO | 0o600;
    attempt!("mknod-fifo", libc::SYS_mknodat, libc::AT_FDCWD, node.as_ptr(), fifo, 0);
    attempt!("chroot", libc::SYS_chroot, c"/".as_ptr());
}

/// Prints what each address family and abstract socket of the host answers.
fn network() {
    use std::os::linux::net::SocketAddrExt;
    for name in std::env::args().skip(2) {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let reached = std::os::unix::net::UnixStream::connect_addr(&address).is_ok();
        println!("abstract {reached}");
    }
    for address in ["127.0.0.1:80", "192.0.2.1:80", "[::1]:80", "[2001:db8::1]:80"] {
        let reached = std::net::TcpStream::connect(address);
        println!("{address} {:?}", reached.err().and_then(|error| error.raw_os_error()));
    }
    for family in [libc::AF_PACKET, libc::AF_INET, libc::AF_VSOCK] {
        // SAFETY: the call takes numbers only.
        let raw = unsafe { libc::socket(family, libc::SOCK_RAW, 1) };
        println!("raw {family} {}", raw >= 0);
    }
    let answers = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|own| std::net::TcpStream::connect(own.local_addr()?).map(drop));
    println!("loopback {}", answers.is_ok());
}

/// Forks until the kernel refuses; prints how often that worked.
fn forks() {
    let mut count = 0;
    loop {
        // SAFETY: the child only sleeps.
        match unsafe { libc::fork() } {
            -1 => break,
            0 => loop {
                // SAFETY: waiting touches nothing.
                unsafe { libc::pause() };
            },
            _ => count += 1,
        }
        assert!(count < 100_000, "no limit");
    }
    println!("{count}");
}

/// Writes until it is stopped, in bits that cost little.
fn fill() {
    let mut file = std::fs::File::create("/etc/large").unwrap();
    let bytes = vec![7; 1 << 20];
    loop {
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Makes empty files until it is stopped.
fn files() {
    std::fs::create_dir("/etc/many").unwrap();
    for number in 0_u64.. {
        std::fs::File::create(format!("/etc/many/{number}")).unwrap();
    }
}

/// Takes memory until it is stopped, in a child, so that the command itself goes on.
fn memory() {
    // SAFETY: this process has one thread.
    if unsafe { libc::fork() } == 0 {
        let mut kept = Vec::new();
        loop {
            kept.push(vec![7_u8; 1 << 20]);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    let mut status = 0;
    // SAFETY: the status is a valid place to write to.
    unsafe { libc::wait(&raw mut status) };
}

/// Takes processor time in two processes until it is stopped.
fn spin() {
    // SAFETY: this process has one thread.
    unsafe { libc::fork() };
    loop {
        std::hint::black_box(0);
    }
}

/// Leaves a process of an own session behind that holds the output open and ignores signals.
fn daemon() {
    // SAFETY: the child only ignores signals and sleeps.
    if unsafe { libc::fork() } == 0 {
        unsafe {
            libc::setsid();
            for signal in 1..31 {
                libc::signal(signal, libc::SIG_IGN);
            }
            loop {
                libc::pause();
            }
        }
    }
    println!("left");
}

/// Sets an attribute and a file capability, as maintainer scripts do.
fn xattr() {
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr("/etc/dir/a", "security.capability", &CAPABILITY, flags).unwrap();
    rustix::fs::setxattr("/etc/dir/a", "user.kept", b"value", flags).unwrap();
}

/// Makes directories deeper than any path may be.
fn deep() {
    std::env::set_current_dir("/etc").unwrap();
    for _ in 0..3000 {
        std::fs::create_dir("dddd").unwrap();
        std::env::set_current_dir("dddd").unwrap();
    }
}
