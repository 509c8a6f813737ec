//! The filter: a classic BPF program that runs before each system call.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF, c_long, sock_filter, sock_fprog,
};

/// `AUDIT_ARCH_*` of this machine.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGS: u32 = 16;

/// The range in which the low half of an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub argument: u32,
    /// The least value.
    pub least: u32,
    /// The greatest.
    pub most: u32,
}

/// System calls to be answered: by number, and by arguments that must fit all conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `SYS_*`
    pub call: c_long,
    /// On its arguments; at most three.
    pub conditions: Vec<Condition>,
}

fn step(code: u32, k: u32, on_true: usize, on_false: usize) -> sock_filter {
    sock_filter { code: code as u16, jt: on_true as u8, jf: on_false as u8, k }
}

fn load(offset: u32) -> sock_filter {
    step(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

/// The program: each rule's steps in turn, of which one that does not fit leads to the next rule.
fn program(rules: &[Rule]) -> Vec<sock_filter> {
    let (jump, end) = (BPF_JMP | BPF_K, BPF_RET | BPF_K);
    // System calls of another architecture, of 32-bit programs, are the kernel's.
    let mut program =
        vec![load(ARCH_AT), step(jump | BPF_JEQ, ARCH, 1, 0), step(end, SECCOMP_RET_ALLOW, 0, 0)];
    for Rule { call, conditions } in rules {
        // Each condition is three steps; the last step of a rule is its verdict.
        let length = 3 * conditions.len() + 1;
        program.push(load(NR));
        program.push(step(jump | BPF_JEQ, *call as u32, 0, length));
        for (index, Condition { argument, least, most }) in conditions.iter().enumerate() {
            let rest = length - 3 * index - 2;
            program.push(load(ARGS + 8 * argument));
            program.push(step(jump | BPF_JGE, *least, 0, rest));
            program.push(step(jump | BPF_JGT, *most, rest - 1, 0));
        }
        program.push(step(end, SECCOMP_RET_USER_NOTIF, 0, 0));
    }
    program.push(step(end, SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// Puts the filter in force for this thread and what it starts. It cannot be removed. Returns what
/// the system calls are answered by ([`Listener`](crate::Listener)): until it is in the hands of who
/// answers, none that fits a rule may be made.
pub fn install(rules: &[Rule]) -> io::Result<OwnedFd> {
    match set_filter(&program(rules)) {
        // Without CAP_SYS_ADMIN it takes the promise that no program gains rights by being started.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            rustix::thread::set_no_new_privs(true)?;
            set_filter(&program(rules))
        }
        other => other,
    }
}

fn set_filter(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // Once a call was taken note of, only the program's end takes it back (Linux 5.19).
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` and the steps that it points to are valid for reads of their lengths; the
    // kernel copies them and writes nothing.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does (socket filters' semantics, of which it uses four steps).
    fn run(program: &[sock_filter], call: u32, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&call.to_ne_bytes());
        data[4..8].copy_from_slice(&ARCH.to_ne_bytes());
        for (index, arg) in args.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut at, mut word) = (0, 0u32);
        loop {
            let step = program[at];
            let (code, k) = (u32::from(step.code), step.k);
            at += 1;
            let jump = |is_true: bool| usize::from(if is_true { step.jt } else { step.jf });
            if code == BPF_LD | BPF_W | BPF_ABS {
                let k = k as usize;
                word = u32::from_ne_bytes(data[k..k + 4].try_into().expect("four bytes"));
            } else if code == BPF_RET | BPF_K {
                return k;
            } else if code == BPF_JMP | BPF_K | BPF_JEQ {
                at += jump(word == k);
            } else if code == BPF_JMP | BPF_K | BPF_JGE {
                at += jump(word >= k);
            } else {
                assert_eq!(code, BPF_JMP | BPF_K | BPF_JGT);
                at += jump(word > k);
            }
        }
    }

    #[test]
    fn calls_are_answered_that_fit_a_rule() {
        let is = |argument, value| Condition { argument, least: value, most: value };
        let rules = [
            Rule { call: 41, conditions: vec![is(0, 16), is(2, 16)] },
            Rule { call: 44, conditions: vec![Condition { argument: 0, least: 960, most: 1023 }] },
            Rule { call: 257, conditions: vec![] },
        ];
        let program = program(&rules);
        for (call, args, answered) in [
            (41, [16, 3, 16, 0, 0, 0], true),
            (41, [16, 3, 0, 0, 0, 0], false),
            (41, [2, 3, 16, 0, 0, 0], false),
            (44, [960, 0, 0, 0, 0, 0], true),
            (44, [1023, 0, 0, 0, 0, 0], true),
            (44, [959, 0, 0, 0, 0, 0], false),
            (44, [1024, 0, 0, 0, 0, 0], false),
            (257, [0, 0, 0, 0, 0, 0], true),
            (258, [0, 0, 0, 0, 0, 0], false),
        ] {
            let expected = if answered { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ALLOW };
            assert_eq!(run(&program, call, args), expected, "{call} {args:?}");
        }
    }
}
