//! Sockets to rvsd and to the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

/// Room for the answers to a batch: the kernel drops what does not fit.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Connects to the rvsd at `path`.
pub(super) fn unix(path: &Path) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Connects to the kernel's generic netlink.
pub(super) fn netlink() -> io::Result<OwnedFd> {
    let protocol = rustix::net::netlink::GENERIC;
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    // Bounded by net.core.rmem_max without CAP_NET_ADMIN, which changes need anyway.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}
