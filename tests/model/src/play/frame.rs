//! Frames, built by a library that is not ours: so are all checksums that RVS must get right.

use std::net::IpAddr;

use etherparse::{PacketBuilder, SlicedPacket};
use rvs_core::types::Protocol;

use super::Sent;
use crate::{Fate, Packet};

/// Length of an Ethernet header.
const L3: usize = 14;
/// What senders give a packet, and what it has after the director.
pub(super) const TTL: u8 = 64;

/// A packet with so many bytes of payload, and its length filled in.
pub(super) fn build(packet: &Packet, payload: usize, ttl: u8) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let builder = match (packet.src.ip(), packet.dst.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), ttl),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), ttl),
        _ => panic!("mixed address families"),
    };
    let (src, dst, payload) = (packet.src.port(), packet.dst.port(), vec![0x5a; payload]);
    let mut bytes = Vec::new();
    if packet.protocol == Protocol::Udp {
        builder.udp(src, dst).write(&mut bytes, &payload).expect("memory");
        return bytes;
    }
    let mut tcp = builder.tcp(src, dst, 1000, 65_000);
    for flag in packet.flags.chars() {
        tcp = match flag {
            'S' => tcp.syn(),
            'A' => tcp.ack(2000),
            'F' => tcp.fin(),
            'R' => tcp.rst(),
            'P' => tcp.psh(),
            other => panic!("no flag {other}"),
        };
    }
    tcp.write(&mut bytes, &payload).expect("memory");
    bytes
}

/// Length from the IP header on.
pub(super) fn len(frame: &[u8]) -> u64 {
    (frame.len() - L3) as u64
}

/// Whether what a data path did with a packet is what the model says; else what is wrong.
pub(super) fn check(
    packet: &Packet,
    payload: usize,
    fate: Fate,
    sent: &Sent,
) -> Result<(), String> {
    let like = |packet: Packet| build(&packet, payload, TTL - 1);
    let expected = match fate {
        Fate::Left => return same(&Sent::Left, sent),
        Fate::Refused => return same(&Sent::Refused, sent),
        Fate::Lost => return same(&Sent::Dropped, sent),
        Fate::Masqueraded(dst) => like(Packet { dst, ..*packet }),
        Fate::Answered(src) => like(Packet { src, ..*packet }),
        Fate::Routed | Fate::Tunneled(_) => like(*packet),
    };
    let Sent::On(frame) = sent else { return Err(format!("{sent:?}, by the model {fate:?}")) };
    let (found, expected) = (frame.get(L3..).unwrap_or_default(), &expected[L3..]);
    let right = match fate {
        Fate::Tunneled(to) => found.ends_with(expected) && outer_destination(frame) == Some(to),
        _ => found == expected,
    };
    if right {
        return Ok(());
    }
    Err(format!("by the model {fate:?}\n expected {expected:02x?}\n found    {found:02x?}"))
}

fn same(expected: &Sent, found: &Sent) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{found:?}, by the model {expected:?}")) }
}

fn outer_destination(frame: &[u8]) -> Option<IpAddr> {
    use etherparse::NetSlice::{Ipv4, Ipv6};
    match SlicedPacket::from_ethernet(frame).ok()?.net? {
        Ipv4(ip) => Some(ip.header().destination_addr().into()),
        Ipv6(ip) => Some(ip.header().destination_addr().into()),
        _ => None,
    }
}
