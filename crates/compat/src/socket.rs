//! A process's own generic netlink socket, which stays the kernel's. A message for ip_vs is not sent
//! but handed to rvsd, and what rvsd answers is sent *from the socket to itself*, so that it waits in
//! the socket's own receive queue among what else the kernel sends.
//!
//! Sending to oneself needs `CAP_NET_ADMIN`, as all commands of ip_vs do. A queue that is full is
//! made longer: the kernel produces a dump as fast as it is read, here it waits as a whole.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, bind, getsockname, sendto, sockopt};

use crate::netlink::{Asker, Recipient, answer, family_entry, split};

/// The longest that a receive queue is made.
const LONGEST_QUEUE: usize = 1 << 30;

/// Whether it is a generic netlink socket.
pub fn is_generic(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::NETLINK)
        && sockopt::socket_protocol(fd) == Ok(Some(GENERIC))
}

/// The socket's port, 0 if it has none yet.
pub fn own_port(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let addr = getsockname(fd)?;
    Ok(SocketAddrNetlink::try_from(addr).map_err(|_| Errno::INVAL)?.pid())
}

/// The socket's port; it gets one if it has none yet, as the kernel gives one to who sends.
pub fn port(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let port = own_port(fd)?;
    if port != 0 {
        return Ok(port);
    }
    bind(fd, &SocketAddrNetlink::new(0, 0))?;
    own_port(fd)
}

/// Whether an address, as `sendto` and `connect` take it, is the kernel's; so is none, by default.
pub fn is_kernel(addr: &[u8]) -> bool {
    // nl_pid and nl_groups
    addr.is_empty() || addr.get(4..12) == Some(&[0; 8])
}

/// Whether something in a datagram to the kernel is for ip_vs: then it is for [`send`].
pub fn concerns(datagram: &[u8]) -> bool {
    split(datagram).any(|(_, _, recipient)| recipient != Recipient::Kernel)
}

/// Sends a datagram to where its messages belong. When this returns, all answers of rvsd can be
/// received.
pub fn send(
    fd: BorrowedFd<'_>,
    datagram: &[u8],
    flags: SendFlags,
    cap_ack: bool,
    rvsd: &Path,
) -> Result<(), Errno> {
    let asker = Asker { port: port(fd)?, cap_ack };
    for (bytes, message, recipient) in split(datagram) {
        if recipient == Recipient::Ipvs {
            for part in answer(rvsd, &message, asker) {
                deliver(fd, asker.port, &part)?;
            }
            continue;
        }
        if recipient == Recipient::Families
            && let Some(entry) = family_entry(rvsd, &message, asker)
        {
            deliver(fd, asker.port, &entry)?;
        }
        sendto(fd, bytes, flags, &SocketAddrNetlink::new(0, 0))?;
    }
    Ok(())
}

/// Puts a datagram into the socket's own receive queue.
fn deliver(fd: BorrowedFd<'_>, port: u32, datagram: &[u8]) -> Result<(), Errno> {
    let to = SocketAddrNetlink::new(port, 0);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendto(fd, datagram, flags, &to) {
            Err(Errno::AGAIN) => {
                let size = sockopt::socket_recv_buffer_size(fd)?;
                if size >= LONGEST_QUEUE {
                    return Err(Errno::NOBUFS);
                }
                // The kernel doubles what it is told.
                sockopt::set_socket_recv_buffer_size_force(fd, size)?;
            }
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}
