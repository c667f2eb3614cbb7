//! The filter that stops the calls of a disguise for the tracer. It stands beside the one that
//! denies calls: the kernel takes the stricter answer of the two.

use seccompiler::{BpfProgram, sock_filter};

use super::super::super::disguise::Disguise;
use super::calls::{When, calls};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_BITS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// CLOCK_REALTIME, its coarse and alarm forms, and CLOCK_TAI.
const WALL_CLOCKS: [u32; 4] = [0, 5, 8, 11];

/// Compiles the filter of a disguise; programs of another architecture pass it untouched.
pub(in super::super) fn compile(disguise: &Disguise) -> BpfProgram {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let allow = step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let mut program =
        vec![step(LOAD, 0, 0, ARCH), step(IF_EQUAL, 1, 0, ARCHITECTURE), allow.clone()];
    for (number, call, when) in calls(disguise) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let trace = step(RETURN, 0, 0, libc::SECCOMP_RET_TRACE | u32::from(call as u16));
        let mut body = conditions(when);
        body.push(trace);
        body.push(allow.clone());
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        program.push(step(LOAD, 0, 0, NUMBER));
        program.push(step(IF_EQUAL, 0, length, number));
        program.extend(body);
    }
    program.push(allow);
    program
}

/// Instructions that skip the next one unless the condition holds.
fn conditions(when: When) -> Vec<sock_filter> {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let argument = |number: u8| ARGUMENTS + 8 * u32::from(number);
    let mut program = Vec::new();
    match when {
        When::Always => {}
        When::Bits(number, bits) => {
            program.push(step(LOAD, 0, 0, argument(number)));
            program.push(step(IF_BITS, 0, 1, bits));
        }
        When::WallClock | When::WallClockAbsolute => {
            let is_absolute = when == When::WallClockAbsolute;
            // How far the end of a list of comparisons is away.
            let more = if is_absolute { 2 } else { 0 };
            program.push(step(LOAD, 0, 0, argument(0)));
            for (at, clock) in (0_u8..).zip(WALL_CLOCKS) {
                let rest = 3 - at;
                let (yes, no) = if rest == 0 { (0, 1 + more) } else { (rest, 0) };
                program.push(step(IF_EQUAL, yes, no, clock));
            }
            if is_absolute {
                program.push(step(LOAD, 0, 0, argument(1)));
                program.push(step(IF_BITS, 0, 1, 1));
            }
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::super::super::super::disguise::{Disguise, ShiftedClock, Shown};
    use super::*;

    /// Runs a program as the kernel does.
    fn evaluate(program: &[sock_filter], number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(u32::try_from(number).unwrap().to_le_bytes());
        data.extend(ARCHITECTURE.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    let place = step.k as usize;
                    value = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
                }
                IF_EQUAL => at += jump(value == step.k),
                IF_BITS => at += jump(value & step.k != 0),
                RETURN => return step.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn calls_are_traced_by_number_and_argument() {
        let clock = Some(ShiftedClock { shown: Shown::Ahead(1), since: 0, files: true });
        let program = compile(&Disguise { clock, other_kernel: true, ..Disguise::default() });
        let is_traced = |number, arguments: [u64; 6]| {
            evaluate(&program, number, arguments) & 0xffff_0000 == libc::SECCOMP_RET_TRACE
        };
        for clock in [0, 5, 8, 11] {
            assert!(is_traced(libc::SYS_clock_gettime, [clock, 0, 0, 0, 0, 0]), "{clock}");
            assert!(is_traced(libc::SYS_clock_nanosleep, [clock, 1, 0, 0, 0, 0]), "{clock}");
        }
        for clock in [1, 2, 3, 4, 6, 7, 9] {
            assert!(!is_traced(libc::SYS_clock_gettime, [clock, 0, 0, 0, 0, 0]), "{clock}");
            assert!(!is_traced(libc::SYS_clock_nanosleep, [clock, 1, 0, 0, 0, 0]), "{clock}");
        }
        assert!(!is_traced(libc::SYS_clock_nanosleep, [0; 6]), "a relative time stays");
        assert!(is_traced(libc::SYS_futex, [0, 265, 0, 0, 0, 0]));
        assert!(!is_traced(libc::SYS_futex, [0, 9, 0, 0, 0, 0]));
        assert!(is_traced(libc::SYS_uname, [0; 6]) && is_traced(libc::SYS_newfstatat, [0; 6]));
        assert!(!is_traced(libc::SYS_getdents64, [0; 6]) && !is_traced(libc::SYS_read, [0; 6]));
        let clock = Some(ShiftedClock { shown: Shown::Ahead(1), since: 0, files: false });
        let program = compile(&Disguise { clock, ..Disguise::default() });
        assert_eq!(evaluate(&program, libc::SYS_newfstatat, [0; 6]), libc::SECCOMP_RET_ALLOW);
    }
}
