//! Receiving and answering system calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{
    SECCOMP_ADDFD_FLAG_SEND, SECCOMP_ADDFD_FLAG_SETFD, SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_ID_VALID, SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND, c_int,
    seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp,
};

/// Who answers.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names it in the answer.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// `SYS_*`
    pub number: i64,
    /// Its arguments.
    pub args: [u64; 6],
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The call returns this.
    Value(i64),
    /// The call fails with this errno.
    Error(i32),
    /// The kernel does what was asked.
    Continue,
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// The next call; waits for one. An error of kind `NotFound`: it was taken back meanwhile.
    pub fn receive(&self) -> io::Result<Call> {
        // SAFETY: a structure of integers, for which zero is a value; the kernel demands zeros.
        let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
        let into = &raw mut call;
        // SAFETY: the operation writes a structure of this type.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, into) })?;
        let (number, args) = (i64::from(call.data.nr), call.data.args);
        Ok(Call { id: call.id, thread: call.pid, number, args })
    }

    /// Answers a call. One that was taken back, as its thread was killed, is no error.
    pub fn reply(&self, id: u64, reply: Reply) -> io::Result<()> {
        let (val, error, flags) = match reply {
            Reply::Value(value) => (value, 0, 0),
            Reply::Error(errno) => (0, -errno, 0),
            Reply::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let answer = seccomp_notif_resp { id, val, error, flags };
        let from = &raw const answer;
        // SAFETY: the operation reads a structure of this type.
        done(unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, from) })
    }

    /// Answers a call with a descriptor: a duplicate of `fd` in the calling process, under the number
    /// `at` or any.
    pub fn give(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        at: Option<u32>,
        close_on_exec: bool,
    ) -> io::Result<()> {
        let set = if at.is_some() { SECCOMP_ADDFD_FLAG_SETFD } else { 0 };
        let gift = seccomp_notif_addfd {
            id,
            flags: (SECCOMP_ADDFD_FLAG_SEND | set) as u32,
            srcfd: fd.as_raw_fd() as u32,
            newfd: at.unwrap_or_default(),
            newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        let from = &raw const gift;
        // SAFETY: the operation reads a structure of this type.
        done(unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ADDFD, from) })
    }

    /// Whether the call still waits: what was read of its process until now was indeed that
    /// process's.
    pub fn is_waiting(&self, id: u64) -> bool {
        let from = &raw const id;
        // SAFETY: the operation reads a 64-bit number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ID_VALID, from) == 0 }
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn done(result: c_int) -> io::Result<()> {
    check(result).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Whether a netlink socket has `NETLINK_CAP_ACK` set.
pub fn cap_ack(socket: BorrowedFd<'_>) -> bool {
    const NETLINK_CAP_ACK: c_int = 10;
    let (mut value, mut length): (c_int, _) = (0, size_of::<c_int>() as libc::socklen_t);
    let (fd, into) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: `value` and `length` are valid for writes, and `length` is the size of `value`.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_NETLINK, NETLINK_CAP_ACK, into, &raw mut length) };
    result == 0 && value != 0
}
