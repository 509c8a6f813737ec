//! From a frame to what decides its way: addresses, ports, flags. Both IP versions.

use rvs_wire::checksum::Delta;
use rvs_wire::{ETHERNET_LEN, Ipv4, Ipv6, Ports, Sctp, Tcp, Udp, protocol};
use zerocopy::network_endian::U32;

use crate::addr::{Addr, V4, V6};
use crate::layout::Key;
use crate::packet::Packet;
use crate::proto::sctp::Chunks;
use crate::reason::Reason;

/// Where the IP header starts.
pub const L3: u32 = ETHERNET_LEN as u32;

/// What a packet's headers say.
#[derive(Clone, Copy, Debug)]
pub struct Flow<A> {
    /// Addresses, ports and protocol.
    pub key: Key<A>,
    /// Offset of the transport header from the start of the frame.
    pub l4: u32,
    /// Length from the IP header on, in bytes.
    pub len: u32,
    /// TCP flags; of SCTP what its [`Chunks`] say; 0 for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Whether routers must not fragment the packet (always so with IPv6).
    pub dont_fragment: bool,
    /// Whether the packet's mark is known.
    pub marked: bool,
    /// The packet's mark (fwmark); 0 if it has none or it is not known.
    pub mark: u32,
}

/// What differs between the IP versions on the packet path.
pub trait Ip: Addr {
    /// Reads the headers of a frame of this version; why not, if it is none that can be balanced.
    fn parse<P: Packet>(packet: &P) -> Result<Flow<Self>, Reason>;

    /// Writes the new source (`reply`) or destination address into the IP header and takes one
    /// off the TTL. `None` if the header is out of reach.
    fn rewrite<P: Packet>(packet: &mut P, reply: bool, addr: Self) -> Option<()>;

    /// Takes one off the TTL or hop limit: for direct routing, and before a tunnel.
    fn decrement_ttl<P: Packet>(packet: &mut P) -> Option<()>;
}

/// Ports and TCP flags, for a transport header that must lie within the first `end` bytes.
#[inline(always)]
fn transport<P: Packet>(packet: &P, l4: u32, proto: u8, end: u32) -> Result<(Ports, u8), Reason> {
    match proto {
        protocol::TCP => {
            let tcp = packet.at::<Tcp>(l4).ok_or(Reason::Malformed)?;
            if l4 + size_of::<Tcp>() as u32 > end || tcp.data_offset >> 4 < 5 {
                return Err(Reason::Malformed);
            }
            Ok((Ports { src_be: tcp.src_be, dst_be: tcp.dst_be }, tcp.flags))
        }
        protocol::UDP => {
            let udp = packet.at::<Udp>(l4).ok_or(Reason::Malformed)?;
            if l4 + Udp::LEN as u32 > end {
                return Err(Reason::Malformed);
            }
            Ok((Ports { src_be: udp.src_be, dst_be: udp.dst_be }, 0))
        }
        protocol::SCTP => {
            let ports = packet.at::<Ports>(l4).ok_or(Reason::Malformed)?;
            if l4 + Sctp::LEN as u32 > end {
                return Err(Reason::Malformed);
            }
            Ok((*ports, Chunks::read(packet, l4, end).0))
        }
        protocol::ICMP | protocol::ICMPV6 => Err(Reason::Icmp),
        _ => Err(Reason::OtherProtocol),
    }
}

#[inline(always)]
fn mark<P: Packet>(packet: &P) -> (bool, u32) {
    let mark = packet.mark();
    (mark.is_some(), mark.unwrap_or_default())
}

#[inline(always)]
fn key<A: Addr>(src: A, dst: A, ports: Ports, proto: u8) -> Key<A> {
    Key {
        src,
        dst,
        sport_be: u16::from_ne_bytes(ports.src_be),
        dport_be: u16::from_ne_bytes(ports.dst_be),
        protocol: proto as u32,
    }
}

impl Ip for V4 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Flow<Self>, Reason> {
        let ip = packet.at::<Ipv4>(L3).ok_or(Reason::Malformed)?;
        let header = ip.header_len();
        let len = ip.total_len.get() as u32;
        if ip.version_ihl >> 4 != 4
            || header < Ipv4::LEN as u32
            || len < header
            || !packet.holds(L3 + len)
        {
            return Err(Reason::Malformed);
        }
        match ip.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP => {}
            _ => return Err(Reason::OtherProtocol),
        }
        let fragment = ip.fragment.get();
        if fragment & Ipv4::FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        let (ttl, tos, proto) = (ip.ttl, ip.tos, ip.protocol);
        let (src, dst) = (V4(u32::from_ne_bytes(ip.src)), V4(u32::from_ne_bytes(ip.dst)));
        let l4 = L3 + header;
        let (ports, tcp_flags) = transport(packet, l4, proto, L3 + len)?;
        let dont_fragment = fragment & Ipv4::DF != 0;
        let key = key(src, dst, ports, proto);
        let (marked, mark) = mark(packet);
        Ok(Flow { key, l4, len, tcp_flags, ttl, tos, dont_fragment, marked, mark })
    }

    #[inline(always)]
    fn rewrite<P: Packet>(packet: &mut P, reply: bool, addr: Self) -> Option<()> {
        let ip = packet.at_mut::<Ipv4>(L3)?;
        let field = if reply { &mut ip.src } else { &mut ip.dst };
        let delta = V4(u32::from_ne_bytes(*field)).delta(addr, Delta::NONE);
        *field = addr.0.to_ne_bytes();
        let ttl = ip.ttl.wrapping_sub(1);
        let delta = delta.word([ip.ttl, ip.protocol], [ttl, ip.protocol]);
        ip.ttl = ttl;
        ip.checksum_be = delta.apply(ip.checksum_be);
        Some(())
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(packet: &mut P) -> Option<()> {
        let ip = packet.at_mut::<Ipv4>(L3)?;
        let ttl = ip.ttl.wrapping_sub(1);
        let delta = Delta::NONE.word([ip.ttl, ip.protocol], [ttl, ip.protocol]);
        ip.ttl = ttl;
        ip.checksum_be = delta.apply(ip.checksum_be);
        Some(())
    }
}

/// Raw words of an address in a header.
#[inline(always)]
pub(crate) fn v6(bytes: [u8; 16]) -> V6 {
    V6(zerocopy::transmute!(bytes))
}

impl Ip for V6 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Flow<Self>, Reason> {
        let ip = packet.at::<Ipv6>(L3).ok_or(Reason::Malformed)?;
        let version_class_flow = ip.version_class_flow.get();
        let payload = ip.payload_len.get() as u32;
        // A zero length is a jumbogram: a GSO packet of more than 64 KiB (TC only).
        let len = if payload == 0 {
            packet.frame_len().wrapping_sub(L3)
        } else {
            payload + Ipv6::LEN as u32
        };
        if version_class_flow >> 28 != 6 || !packet.holds(L3.wrapping_add(len)) {
            return Err(Reason::Malformed);
        }
        let proto = ip.next_header;
        match proto {
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMPV6 => {}
            44 => return Err(Reason::Fragment),
            0 | 43 | 60 | 51 => return Err(Reason::ExtensionHeader),
            _ => return Err(Reason::OtherProtocol),
        }
        let (ttl, tos) = (ip.hop_limit, (version_class_flow >> 20) as u8);
        let (src, dst) = (v6(ip.src), v6(ip.dst));
        let l4 = L3 + Ipv6::LEN as u32;
        let (ports, tcp_flags) = transport(packet, l4, proto, L3.wrapping_add(len))?;
        let key = key(src, dst, ports, proto);
        let (marked, mark) = mark(packet);
        Ok(Flow { key, l4, len, tcp_flags, ttl, tos, dont_fragment: true, marked, mark })
    }

    #[inline(always)]
    fn rewrite<P: Packet>(packet: &mut P, reply: bool, addr: Self) -> Option<()> {
        let ip = packet.at_mut::<Ipv6>(L3)?;
        *(if reply { &mut ip.src } else { &mut ip.dst }) = zerocopy::transmute!(addr.0);
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        Some(())
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(packet: &mut P) -> Option<()> {
        let ip = packet.at_mut::<Ipv6>(L3)?;
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        Some(())
    }
}

/// First word of an IPv6 header with this traffic class.
#[inline(always)]
pub fn ipv6_first_word(tos: u8) -> U32 {
    U32::new(6 << 28 | (tos as u32) << 20)
}
