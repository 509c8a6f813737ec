//! The end of an IP-in-IP tunnel at a real server, for kernels without tunnel devices: raw sockets
//! take the outer packets (protocols 4 and 41, over IPv4 and IPv6), a TUN device gives the inner
//! ones to the kernel.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, socket_with};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::service::TICK;
use super::{Host, LabError, Service, Stop};

/// The TUN device's name.
const DEVICE: &str = "decap0";

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

struct Tunnel {
    device: SyncDevice,
    /// Sockets, and whether what they receive begins with the outer header, as it does for IPv4.
    sockets: Vec<(OwnedFd, bool)>,
}

impl Tunnel {
    fn open() -> io::Result<Self> {
        let device = DeviceBuilder::new().name(DEVICE).build_sync()?;
        let mut sockets = Vec::new();
        for (family, has_header) in [(AddressFamily::INET, true), (AddressFamily::INET6, false)] {
            for protocol in [ipproto::IPIP, ipproto::IPV6] {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
                sockets.push((socket, has_header));
            }
        }
        Ok(Self { device, sockets })
    }

    fn run(&self, checksums: Checksums, stop: &Stop) {
        let mut buffer = vec![0; 128 * 1024];
        let tick = Timespec::try_from(TICK).expect("a fraction of a second");
        while !stop.is_set() {
            let sockets = self.sockets.iter();
            let mut fds: Vec<PollFd<'_>> =
                sockets.map(|(socket, _)| PollFd::new(socket, PollFlags::IN)).collect();
            if poll(&mut fds, Some(&tick)).is_err() {
                continue;
            }
            for (socket, has_header) in &self.sockets {
                self.drain(socket, *has_header, checksums, &mut buffer);
            }
        }
    }

    fn drain(&self, socket: &OwnedFd, has_header: bool, checksums: Checksums, buffer: &mut [u8]) {
        while let Ok((length, _)) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            let packet = &mut buffer[..length];
            let outer = match (has_header, packet.first()) {
                (true, Some(first)) => usize::from(first & 0x0f) * 4,
                _ => 0,
            };
            let Some(inner) = packet.get_mut(outer..) else { continue };
            if checksums == Checksums::Complete {
                complete_checksum(inner);
            }
            // The kernel refuses what is no IP packet; a real tunnel device drops it as well.
            let _ = self.device.send(inner);
        }
    }
}

/// Completes a TCP or UDP checksum that is the sum of the pseudo header and nothing else.
fn complete_checksum(packet: &mut [u8]) {
    let Some((protocol, addresses, start)) = layer4(packet) else { return };
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return,
    };
    let Some(segment) = packet.get(start..) else { return };
    let Some(&[high, low]) = segment.get(offset..offset + 2) else { return };
    let length = u32::try_from(segment.len()).expect("shorter than the buffer");
    let pseudo = sum(&packet[addresses]) + u32::from(protocol) + length;
    if fold(pseudo) != u16::from_be_bytes([high, low]) {
        return;
    }
    // The field is the pseudo header's share of the sum already.
    let checksum = match !fold(sum(segment)) {
        0 => 0xffff,
        other => other,
    };
    packet[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Protocol, range of the addresses and begin of the transport header; none for a fragment and for
/// IPv6 with extension headers, which no sender leaves to a device.
fn layer4(packet: &[u8]) -> Option<(u8, std::ops::Range<usize>, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
            let start = usize::from(packet[0] & 0x0f) * 4;
            (fragment == 0 && packet.len() >= 20).then(|| (packet[9], 12..20, start))
        }
        6 => (packet.len() >= 40).then(|| (packet[6], 8..40, 40)),
        _ => None,
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::complete_checksum;

    /// UDP 10.0.0.1:1 -> 10.0.0.2:2 with the bytes "hi", checksum as given.
    fn udp(checksum: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 10]);
        packet.extend(checksum.to_be_bytes());
        packet.extend(b"hi");
        packet
    }

    /// 0a00 + 0001 + 0a00 + 0002 + protocol 17 + length 10.
    const PSEUDO: u16 = 0x141e;

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut packet = udp(PSEUDO);
        complete_checksum(&mut packet);
        // 141e + 0001 + 0002 + 000a + 6869 = 7c94
        assert_eq!(packet, udp(!0x7c94));
    }

    #[test]
    fn a_complete_or_wrong_checksum_is_left_alone() {
        for checksum in [!0x7c94, 0x1234, 0] {
            let mut packet = udp(checksum);
            complete_checksum(&mut packet);
            assert_eq!(packet, udp(checksum));
        }
    }

    #[test]
    fn a_truncated_packet_is_left_alone() {
        for length in 0..30 {
            let mut packet = udp(PSEUDO);
            packet.truncate(length);
            let before = packet.clone();
            complete_checksum(&mut packet);
            assert_eq!(packet, before, "{length} bytes");
        }
    }
}
