//! Netfilter, as rvsd needs it: a table of nftables that translates what the programs leave to it, and
//! connection tracking entries to be forgotten. By netlink: nft(8) need not be there.

mod conntrack;
mod expression;
mod table;

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::set_socket_send_buffer_size_force;
use rvs_netlink::attr::Writer;
use rvs_netlink::message::{ERROR, Message, Messages, raw};

use crate::HostError;

pub use conntrack::Tracked;
pub use table::TABLE;

/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLM_F_ACK`
const ACK: u16 = 4;
/// `NLM_F_CREATE`
const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
const APPEND: u16 = 0x800;

/// Where packets with a priority are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The priority.
    pub priority: u32,
    /// The new destination address.
    pub addr: IpAddr,
    /// The new port; 0 if packets keep theirs.
    pub port: u16,
}

/// What clients send packets to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Virtual {
    /// Protocol number.
    pub protocol: u8,
    /// The virtual address.
    pub addr: IpAddr,
    /// The virtual port; 0 if it is every port.
    pub port: u16,
}

/// A socket to netfilter.
pub struct Netfilter {
    socket: Socket,
    sequence: u32,
    /// Bytes that fit the socket's buffer.
    room: usize,
}

impl Netfilter {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, HostError> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // A system's default is at least that.
        const ROOM: usize = 64 << 10;
        Ok(Self { socket, sequence: 0, room: ROOM })
    }

    /// Sees to it that so many bytes can be sent at once: a batch is one datagram.
    fn make_room(&mut self, len: usize) -> Result<(), HostError> {
        // What the kernel keeps of it for itself.
        const OWN: usize = 4096;
        if len + OWN > self.room {
            // The kernel takes twice of it.
            set_socket_send_buffer_size_force(&self.socket, len / 2 + OWN)
                .map_err(io::Error::from)?;
            self.room = len + OWN;
        }
        Ok(())
    }

    /// Sends what `build` makes with a new sequence number, and gives the first answer to it to `read`;
    /// the kernel's refusal is an error. Of a batch's answers the first says whether all was done.
    fn ask<T>(
        &mut self,
        what: &'static str,
        build: impl FnOnce(u32) -> Vec<u8>,
        read: impl FnOnce(&Message<'_>) -> T,
    ) -> Result<T, HostError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = build(self.sequence);
        self.make_room(request.len())?;
        self.socket.send(&request, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut answers = Messages(&datagram).filter(|m| m.sequence == self.sequence);
            let Some(answer) = answers.next() else { continue };
            return match answer.errno().filter(|errno| answer.kind == ERROR && *errno != 0) {
                Some(errno) => {
                    Err(HostError::Refused { what, reason: io::Error::from_raw_os_error(errno) })
                }
                None => Ok(read(&answer)),
            };
        }
    }
}

/// A message to a part of netfilter: `nfgenmsg`, then attributes.
fn message(kind: u16, flags: u16, sequence: u32, head: (u8, u16), attributes: &Writer) -> Vec<u8> {
    let (family, resource) = head;
    let [high, low] = resource.to_be_bytes();
    raw(kind, REQUEST | flags, sequence, 0, &[&[family, 0, high, low], attributes.bytes()])
}

/// The bytes of an address as packets have them.
fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// `None` if what was asked about is not there.
fn absent<T>(answer: Result<T, HostError>) -> Result<Option<T>, HostError> {
    match answer {
        Err(HostError::Refused { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(answer) => Ok(Some(answer)),
    }
}
