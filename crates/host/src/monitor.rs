//! News of the host.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::HostError;

/// What changed since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Interfaces came, went, or changed.
    pub links: bool,
    /// Routes or addresses did.
    pub routes: bool,
}

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Types of link messages: `RTM_NEWLINK`, `RTM_DELLINK`.
const LINK_MESSAGES: [u16; 2] = [16, 17];

/// A socket that becomes readable when something changes.
pub struct Monitor(Socket);

impl Monitor {
    /// Subscribes to changes of interfaces, addresses and routes.
    pub fn open() -> Result<Self, HostError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Takes in all news. Lost news count as everything changed.
    pub fn drain(&mut self) -> Result<Changes, HostError> {
        let mut changes = Changes::default();
        loop {
            match self.0.recv_from_full() {
                Ok((datagram, _)) => {
                    let kind = datagram.get(4..6).and_then(|b| b.try_into().ok());
                    match kind.map(u16::from_ne_bytes) {
                        Some(kind) if LINK_MESSAGES.contains(&kind) => changes.links = true,
                        _ => changes.routes = true,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                    changes = Changes { links: true, routes: true };
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The socket overran.
const ENOBUFS: i32 = 105;

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
