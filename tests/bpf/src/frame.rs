//! Frames to and from the programs, built and read by a library that is not ours.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, SlicedPacket};
use rvs_core::types::Protocol;

use crate::{DIRECTOR, NEIGHBOUR};

/// TCP flags of a built frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// The SYN that opens a connection.
pub const SYN: Flags = Flags { syn: true, ack: false, fin: false, rst: false };
/// A plain acknowledgement.
pub const ACK: Flags = Flags { syn: false, ack: true, fin: false, rst: false };
/// A reset without acknowledgement.
pub const RST: Flags = Flags { syn: false, ack: false, fin: false, rst: true };

/// A frame with correct checksums and TTL 64.
pub fn build(
    protocol: Protocol,
    src: SocketAddr,
    dst: SocketAddr,
    flags: Flags,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(NEIGHBOUR, DIRECTOR);
    let builder = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => builder.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => builder.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("mixed address families"),
    };
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Tcp => {
            let mut tcp = builder.tcp(src.port(), dst.port(), 1000, 65_000);
            if flags.syn {
                tcp = tcp.syn();
            }
            if flags.ack {
                tcp = tcp.ack(2000);
            }
            if flags.fin {
                tcp = tcp.fin();
            }
            if flags.rst {
                tcp = tcp.rst();
            }
            tcp.write(&mut bytes, payload)
        }
        Protocol::Udp => builder.udp(src.port(), dst.port()).write(&mut bytes, payload),
        Protocol::Sctp => panic!("no SCTP frames"),
    }
    .expect("writing to memory");
    bytes
}

/// What an IP packet says, its checksums found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Transport payload.
    pub payload: Vec<u8>,
}

/// Reads a frame; panics where a checksum is wrong.
pub fn read(frame: &[u8]) -> Read {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a whole frame");
    read_sliced(&sliced)
}

/// Reads a packet from its IP header on.
pub fn read_ip(packet: &[u8]) -> Read {
    read_sliced(&SlicedPacket::from_ip(packet).expect("a whole packet"))
}

fn read_sliced(sliced: &SlicedPacket<'_>) -> Read {
    use etherparse::{NetSlice, TransportSlice};
    let (src, dst, ttl): (IpAddr, IpAddr, u8) = match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 checksum");
            (header.source.into(), header.destination.into(), header.time_to_live)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
        }
        other => panic!("not IP: {other:?}"),
    };
    let (sport, dport, payload, expected, found) =
        match sliced.transport.as_ref().expect("a transport header") {
            TransportSlice::Tcp(tcp) => {
                let (header, payload) = (tcp.to_header(), tcp.payload());
                let sum = match (src, dst) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload)
                    }
                    (IpAddr::V6(s), IpAddr::V6(d)) => {
                        header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload)
                    }
                    _ => unreachable!("one IP header"),
                };
                let sum = sum.expect("a short payload");
                (tcp.source_port(), tcp.destination_port(), payload, sum, tcp.checksum())
            }
            TransportSlice::Udp(udp) => {
                let (header, payload) = (udp.to_header(), udp.payload());
                let sum = match (src, dst) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload)
                    }
                    (IpAddr::V6(s), IpAddr::V6(d)) => {
                        header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload)
                    }
                    _ => unreachable!("one IP header"),
                };
                let sum = sum.expect("a short payload");
                (udp.source_port(), udp.destination_port(), payload, sum, udp.checksum())
            }
            other => panic!("not TCP or UDP: {other:?}"),
        };
    assert_eq!(found, expected, "transport checksum of {src}:{sport} -> {dst}:{dport}");
    Read {
        src: SocketAddr::new(src, sport),
        dst: SocketAddr::new(dst, dport),
        ttl,
        payload: payload.to_vec(),
    }
}

/// The bytes of a recorded frame, which is written in hexadecimal.
pub fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// The same, sent to the director of these tests.
pub fn for_director(hex: &str) -> Vec<u8> {
    let mut frame = from_hex(hex);
    frame[..6].copy_from_slice(&DIRECTOR);
    frame
}

/// One's complement sum of all bytes; 0xffff where a checksum in them is right.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}
