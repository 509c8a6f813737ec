//! The end of a tunnel at a real server, for kernels without tunnel devices: raw sockets take the
//! outer packets (IP in IP, GUE, GRE, over IPv4 and IPv6), a TUN device gives the inner ones to the
//! kernel.

mod checksum;

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, socket_with, sockopt,
};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::service::TICK;
use super::{Host, LabError, Service, Stop};
use checksum::{complete, fold, sum};

/// The TUN device's name.
const DEVICE: &str = "decap0";

/// The port that GUE packets are taken at.
pub const GUE_PORT: u16 = 6080;

/// The longest packet that is no super-packet. Checksums of super-packets' outer headers are those
/// of the segments that they were to be cut into.
const LONGEST: usize = 1500;

/// Bytes of packets that wait at a socket at most: more than a window of TCP.
const ROOM: usize = 16 << 20;

/// What to do with an inner packet whose TCP or UDP checksum its sender left to the device
/// (CHECKSUM_PARTIAL): it has the sum of the pseudo header only. A kernel's tunnel device knows
/// that from the packet's metadata, which a raw socket does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Complete it: what a kernel does when senders offload checksums.
    Complete,
    /// Leave it, so that the kernel drops the packet: when senders offload nothing (XDP), such a
    /// checksum is a fault.
    Keep,
}

impl Host {
    /// Starts a decapsulator in this host. The virtual address has to be on its `lo`.
    pub fn serve_decap(&self, checksums: Checksums) -> Result<Service, LabError> {
        self.serve(Tunnel::open, move |tunnel, stop| tunnel.run(checksums, stop))
    }
}

/// Decapsulates for ever in the current namespace.
pub fn decapsulate(checksums: Checksums) -> io::Result<()> {
    Tunnel::open()?.run(checksums, &Stop::default());
    Ok(())
}

/// What stands between the outer IP header and the inner packet.
#[derive(Clone, Copy)]
enum Shim {
    None,
    Gue,
    Gre,
}

/// A raw socket.
struct Receiver {
    socket: OwnedFd,
    /// Whether what it receives begins with the outer header, as it does for IPv4.
    has_header: bool,
    shim: Shim,
}

struct Tunnel {
    device: SyncDevice,
    receivers: Vec<Receiver>,
    /// Takes the port, so that the kernel does not call it unreachable.
    _port: UdpSocket,
}

impl Tunnel {
    fn open() -> io::Result<Self> {
        let device = DeviceBuilder::new().name(DEVICE).build_sync()?;
        let kinds = [
            (ipproto::IPIP, Shim::None),
            (ipproto::IPV6, Shim::None),
            (ipproto::UDP, Shim::Gue),
            (ipproto::GRE, Shim::Gre),
        ];
        let mut receivers = Vec::new();
        for (family, has_header) in [(AddressFamily::INET, true), (AddressFamily::INET6, false)] {
            for (protocol, shim) in kinds {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
                sockopt::set_socket_recv_buffer_size_force(&socket, ROOM)?;
                receivers.push(Receiver { socket, has_header, shim });
            }
        }
        Ok(Self { device, receivers, _port: UdpSocket::bind(("::", GUE_PORT))? })
    }

    fn run(&self, checksums: Checksums, stop: &Stop) {
        let mut buffer = vec![0; 128 * 1024];
        let tick = Timespec::try_from(TICK).expect("a fraction of a second");
        while !stop.is_set() {
            let sockets = self.receivers.iter().map(|receiver| &receiver.socket);
            let mut fds: Vec<PollFd<'_>> =
                sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
            if poll(&mut fds, Some(&tick)).is_err() {
                continue;
            }
            for receiver in &self.receivers {
                self.drain(receiver, checksums, &mut buffer);
            }
        }
    }

    fn drain(&self, receiver: &Receiver, checksums: Checksums, buffer: &mut [u8]) {
        let socket = &receiver.socket;
        while let Ok((length, _)) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            let packet = &mut buffer[..length];
            let outer = match (receiver.has_header, packet.first()) {
                (true, Some(first)) => usize::from(first & 0x0f) * 4,
                _ => 0,
            };
            let Some(shim) = shim_len(receiver.shim, packet, outer) else { continue };
            let Some(inner) = packet.get_mut(outer + shim..) else { continue };
            if checksums == Checksums::Complete {
                complete(inner);
            }
            if packet.len() <= LONGEST && !is_right(receiver, packet, outer) {
                continue;
            }
            // The kernel refuses what is no IP packet; a real tunnel device drops it as well.
            let _ = self.device.send(&packet[outer + shim..]);
        }
    }
}

/// Length of the header at `start`; none if it is not a tunnel's.
fn shim_len(shim: Shim, packet: &[u8], start: usize) -> Option<usize> {
    let header = packet.get(start..)?;
    match shim {
        Shim::None => Some(0),
        // A GUE packet for our port: variant 0, no control message; its options are skipped.
        Shim::Gue => {
            let port = u16::from_be_bytes([*header.get(2)?, *header.get(3)?]);
            let first = *header.get(8)?;
            (port == GUE_PORT && first & 0xe0 == 0).then_some(12 + usize::from(first & 0x1f) * 4)
        }
        // Of the flags only that of a checksum; version 0.
        Shim::Gre => match header.get(..2)? {
            [0, 0] => Some(4),
            [0x80, 0] => Some(8),
            _ => None,
        },
    }
}

/// Whether the checksum in the tunnel's header is right, or there is none. UDP's is not looked at
/// over IPv6, where a raw socket does not show the addresses that it covers.
fn is_right(receiver: &Receiver, packet: &[u8], start: usize) -> bool {
    let covered = &packet[start..];
    let pseudo = match receiver.shim {
        Shim::Gre if covered[0] & 0x80 != 0 => 0,
        Shim::Gue if receiver.has_header && covered[6..8] != [0, 0] => {
            sum(&packet[12..20]) + 17 + sum(&covered[4..6])
        }
        _ => return true,
    };
    fold(pseudo + sum(covered)) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::{Shim, shim_len};

    #[test]
    fn headers_of_other_tunnels_are_refused() {
        let gue = |first| [0x80, 0, 0x17, 0xc0, 0, 12, 0, 0, first, 4, 0, 0];
        assert_eq!(shim_len(Shim::Gue, &gue(0), 0), Some(12));
        assert_eq!(shim_len(Shim::Gue, &gue(2), 0), Some(20));
        assert_eq!(shim_len(Shim::Gue, &gue(0x20), 0), None, "a control message");
        assert_eq!(shim_len(Shim::Gue, &[0; 12], 0), None, "another port");
        assert_eq!(shim_len(Shim::Gre, &[0, 0, 8, 0], 0), Some(4));
        assert_eq!(shim_len(Shim::Gre, &[0x80, 0, 8, 0], 0), Some(8));
        assert_eq!(shim_len(Shim::Gre, &[0x20, 0, 8, 0], 0), None, "a key");
    }
}
