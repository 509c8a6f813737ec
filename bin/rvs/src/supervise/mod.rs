//! `rvs run --static`: a second process answers those system calls of a program that librvs_ipvs.so
//! would take the place of, by seccomp user notification.
//!
//! ```text
//!  rvs run --static ──starts──► rvs-supervisor ──starts──► rvs-supervisor   (no child of the program)
//!       │ installs the filter                                  │
//!       │ ── its pid and the listener's number ──────────────► │ takes the listener (pidfd_getfd)
//!       │ ◄─────────────────────────────────────────── "ok" ── │
//!       ▼ exec PROGRAM                                         ▼ answers while a process has the filter
//! ```
//!
//! Generic netlink sockets are given high numbers, so that of all that a program sends and receives
//! only what goes through those is looked at.

mod calls;
mod memory;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libc::c_long;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, getrlimit, pidfd_getfd, pidfd_open,
};
use rvs_seccomp::{Condition, Listener, Rule};

use calls::Supervisor;

/// Numbers for generic netlink sockets, below what select(2) can take.
const SLOTS: RangeInclusive<u32> = 960..=1023;
/// How often it is looked at whether who waits for a datagram is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The calls that are looked at.
fn rules() -> Vec<Rule> {
    let is = |argument, value: i32| {
        let value = value.cast_unsigned();
        Condition { argument, least: value, most: value }
    };
    let slot = Condition { argument: 0, least: *SLOTS.start(), most: *SLOTS.end() };
    let options = Condition {
        argument: 2,
        least: rvs_compat::sockopt::BASE.cast_unsigned(),
        most: rvs_compat::sockopt::BASE.cast_unsigned() + 15,
    };
    let rule =
        |call: c_long, conditions: &[Condition]| Rule { call, conditions: conditions.to_vec() };
    let mut rules =
        vec![rule(libc::SYS_socket, &[is(0, libc::AF_NETLINK), is(2, libc::NETLINK_GENERIC)])];
    for call in [
        libc::SYS_connect,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_write,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_read,
    ] {
        rules.push(rule(call, &[slot]));
    }
    for call in [libc::SYS_setsockopt, libc::SYS_getsockopt] {
        rules.push(rule(call, &[is(1, libc::IPPROTO_IP), options]));
    }
    // What is asked about open files (AT_EMPTY_PATH) is not about a path.
    let paths = Condition { argument: 3, least: 0, most: libc::AT_EMPTY_PATH.cast_unsigned() - 1 };
    for call in rvs_seccomp::ASKING {
        let is_stat = *call == libc::SYS_newfstatat;
        rules.push(rule(*call, if is_stat { std::slice::from_ref(&paths) } else { &[] }));
    }
    for call in [libc::SYS_openat, libc::SYS_getxattr, libc::SYS_lgetxattr] {
        rules.push(rule(call, &[]));
    }
    #[cfg(target_arch = "x86_64")]
    rules.push(rule(libc::SYS_open, &[]));
    rules
}

/// Puts this process, and the program that it becomes, under supervision.
pub fn begin(rvsd: &Path) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit <= u64::from(*SLOTS.end()) {
        bail!("--static needs {} descriptors a process (ulimit -n)", SLOTS.end() + 1);
    }
    let (mut ours, theirs) = UnixStream::pair()?;
    let start = Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg(rvsd)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .status()
        .context("cannot start the supervisor")?;
    if !start.success() {
        bail!("the supervisor did not start ({start})");
    }
    let listener = rvs_seccomp::install(&rules()).context("cannot install a seccomp filter")?;
    // From here on this process must make no call that is looked at, until the answer.
    writeln!(ours, "{} {}", std::process::id(), listener.as_raw_fd())?;
    let mut answer = String::new();
    ours.read_to_string(&mut answer)?;
    match answer.as_str() {
        "ok" => Ok(()),
        "" => bail!("the supervisor ended"),
        error => bail!("{error}"),
    }
}

/// The name that the supervisor is started under.
const NAME: &str = "rvs-supervisor";

/// Its arguments, if this process is the supervisor.
pub fn arguments() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os();
    (words.next()? == NAME).then(|| words.collect())
}

/// The supervisor's part. Its arguments are the control socket, and whether it is nobody's child yet;
/// else it starts one that is.
pub fn supervise(arguments: &[OsString]) -> Result<()> {
    let rvsd = arguments.first().context("no control socket")?;
    if arguments.len() == 1 {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).arg(rvsd).arg("detached");
        // It reads its stdin as this process would, and outlives it.
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        return Ok(());
    }
    // No signal of the program's terminal is meant for this process.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut program = UnixStream::from(stdin);
    let listener = match take_listener(&program) {
        Ok(listener) => listener,
        Err(error) => {
            write!(program, "the supervisor cannot answer for this process: {error:#}")?;
            return Err(error);
        }
    };
    write!(program, "ok")?;
    // Both descriptors of it: the program waits for the end.
    program.shutdown(std::net::Shutdown::Both)?;
    serve(Supervisor::new(listener, Path::new(rvsd)))
}

fn take_listener(program: &UnixStream) -> Result<Listener> {
    let mut line = String::new();
    BufReader::new(program).read_line(&mut line)?;
    let (pid, number) = line.trim().split_once(' ').context("no program to supervise")?;
    let pid = Pid::from_raw(pid.parse()?).context("a bad process id")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let listener = pidfd_getfd(process, number.parse()?, PidfdGetfdFlags::empty());
    Ok(Listener::from(listener.context("cannot take its descriptor (ptrace rights)")?))
}

/// Answers until no process has the filter any more.
fn serve(mut supervisor: Supervisor) -> Result<()> {
    loop {
        let timeout = match supervisor.deadline() {
            _ if supervisor.waiting.is_empty() => None,
            Some(at) => Some(at.saturating_duration_since(Instant::now()).min(LOOK)),
            None => Some(LOOK),
        };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut fds = vec![PollFd::new(&supervisor.listener, PollFlags::IN)];
        fds.extend(supervisor.waiting.iter().map(|w| PollFd::new(&w.socket, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for system calls"),
        }
        let events = fds[0].revents();
        drop(fds);
        supervisor.resume();
        if events.contains(PollFlags::IN) {
            match supervisor.listener.receive() {
                Ok(call) => supervisor.answer(call)?,
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("cannot receive a system call"),
            }
        } else if events.contains(PollFlags::HUP) {
            return Ok(());
        }
    }
}
