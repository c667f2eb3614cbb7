//! The system calls that commands are denied.
//!
//! What a command needs to build and configure software is allowed; what makes mounts, devices and
//! namespaces, reaches into the kernel or into other processes, or changes the machine fails with
//! EPERM, as it does for any unprivileged process. `clone3` fails with ENOSYS, since its flags are
//! out of a filter's sight and C libraries then fall back to `clone`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::super::Isolation;

/// Always denied.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Flags of `clone` and `unshare` that make namespaces. `CLONE_NEWTIME` is a signal number to
/// `clone`, so it stands apart.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Terminal requests that put text into another process's input: TIOCSTI and TIOCLINUX.
const INJECTING_REQUESTS: [u64; 2] = [0x5412, 0x541c];

/// Compiles the filter. Where there is no namespace of the network, there is no network either.
pub(super) fn compile(isolation: Isolation) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for &call in DENIED {
        rules.insert(call, Vec::new());
    }
    for flag in NAMESPACES {
        let flag = u64::from(flag.unsigned_abs());
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            rules.entry(call).or_default().push(masked(0, flag, flag)?);
        }
    }
    let time = u64::from(CLONE_NEWTIME.unsigned_abs());
    rules.entry(libc::SYS_unshare).or_default().push(masked(0, time, time)?);
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        let (mask, kind) = (u64::from(libc::S_IFMT), u64::from(kind));
        rules.entry(libc::SYS_mknodat).or_default().push(masked(2, mask, kind)?);
        #[cfg(target_arch = "x86_64")]
        rules.entry(libc::SYS_mknod).or_default().push(masked(1, mask, kind)?);
    }
    for request in INJECTING_REQUESTS {
        rules.entry(libc::SYS_ioctl).or_default().push(masked(1, u64::from(u32::MAX), request)?);
    }
    rules.insert(libc::SYS_personality, vec![other_personality()?]);
    let denied = errno_action(libc::EPERM);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture()?)?;
    let mut program = prelude(match isolation {
        Isolation::Namespaces => &FAMILIES,
        Isolation::None => &LOCAL_FAMILIES,
    });
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// Any personality but Linux's own, that of 32-bit machines, and either of both with the old
/// version number or with fixed addresses; asking for the current one is no change.
fn other_personality() -> Result<SeccompRule, seccompiler::BackendError> {
    const LINUX32: u64 = 0x0008;
    const UNAME26: u64 = 0x0002_0000;
    const NO_RANDOMIZE: u64 = 0x0004_0000;
    let known = [0, LINUX32, UNAME26, UNAME26 | LINUX32]
        .into_iter()
        .flat_map(|known| [known, known | NO_RANDOMIZE])
        .chain([u64::from(u32::MAX)]);
    let conditions = known
        .map(|known| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, known))
        .collect::<Result<_, _>>()?;
    SeccompRule::new(conditions)
}

fn errno_action(errno: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

fn architecture() -> Result<TargetArch, seccompiler::BackendError> {
    std::env::consts::ARCH.try_into()
}

/// `argument & mask == value`, in the argument's low 32 bits.
fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let operation = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)?;
    SeccompRule::new(vec![condition])
}

/// The address families that commands may use: this host's own programs, the loopback device of
/// the network namespace, and what tells its addresses. Others reach the kernel or, as those of
/// virtual machines do, other hosts, whatever the namespace.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Those that stay on this host, with or without a namespace.
const LOCAL_FAMILIES: [libc::c_int; 1] = [libc::AF_UNIX];

/// Instructions ahead of the filter: `clone3`, and on x86-64 every call of the x32 interface
/// (whose numbers the filter would not know), fail with ENOSYS, and sockets of other than
/// these families as if the kernel had none such. They run before the filter checks
/// the architecture; another architecture's call with such a number fails the same way.
fn prelude(families: &[libc::c_int]) -> BpfProgram {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    #[cfg(target_arch = "x86_64")]
    const JUMP_IF_NOT_BELOW: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let no_family = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.unsigned_abs();
    // The low half of the first argument (struct seccomp_data in linux/seccomp.h).
    const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    let mut program = vec![
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, clone3),
        step(RETURN, 0, 0, missing),
    ];
    #[cfg(target_arch = "x86_64")]
    {
        const X32: u32 = 0x4000_0000;
        program.push(step(JUMP_IF_NOT_BELOW, 0, 1, X32));
        program.push(step(RETURN, 0, 0, missing));
    }
    let socket = u32::try_from(libc::SYS_socket).unwrap_or(u32::MAX);
    let count = u8::try_from(families.len()).unwrap_or(u8::MAX);
    program.push(step(JUMP_IF_EQUAL, 0, count + 2, socket));
    program.push(step(LOAD_NUMBER, 0, 0, FIRST_ARGUMENT));
    for (left, family) in (1..=count).rev().zip(families) {
        program.push(step(JUMP_IF_EQUAL, left, 0, family.unsigned_abs()));
    }
    program.push(step(RETURN, 0, 0, no_family));
    program
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_compiles_within_the_kernels_limit() {
        let program = super::compile(super::Isolation::Namespaces).unwrap();
        assert!(program.len() < 4096, "{} instructions", program.len());
    }
}
