//! The outer headers of a tunneled packet: IP in IP, 4 in 4 (RFC 2003), 6 in 6, 4 in 6 (RFC 2473)
//! and 6 in 4 (RFC 4213); GUE (draft-ietf-intarea-gue); GRE (RFC 2784). Follows
//! `ip_vs_tunnel_xmit`, `ip_vs_gue_encap` and `ip_vs_gre_encap`;
//! `tests/oracle/recorded/tunnel.jsonl`.
//!
//! ```text
//!  ipip │ Ethernet │ IP                          │ packet
//!  gue  │ Ethernet │ IP │ UDP │ GUE              │ packet
//!  gre  │ Ethernet │ IP │ GRE │ with a checksum: │ packet
//!                                  GreChecksum
//! ```

pub mod checksum;

use rvs_wire::checksum::fold;
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Gre, GreChecksum, Gue, Ipv4, Ipv6, Udp, protocol};
use zerocopy::network_endian::U16;

use crate::env::Env;
use crate::flow::{Flow, Ip, L3, ipv6_first_word};
use crate::layout::Dest;
use crate::packet::Packet;
use crate::pipeline::Way;
use crate::table;
use crate::types::Family;

/// `IP_VS_CONN_F_TUNNEL_TYPE_GUE`
const GUE: u32 = 1;
/// `IP_VS_CONN_F_TUNNEL_TYPE_GRE`
const GRE: u32 = 2;

/// Source ports of GUE tunnels: the kernel's default `ip_local_port_range`.
const SOURCE_PORTS: (u64, u64) = (32_768, 60_999);

/// How a destination's packets are encapsulated, in one word.
///
/// ```text
/// │ 31 .. 16  UDP port, network byte order │ 9  pieces │ 8  checksum │ 7 .. 0  type │
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel(pub u32);

impl Tunnel {
    const CHECKSUM: u32 = 1 << 8;
    const PIECES: u32 = 1 << 9;

    /// From what `ipvsadm` says: the type (0 ipip, 1 gue, 2 gre), the port of a GUE tunnel in host
    /// order, and `IP_VS_TUNNEL_ENCAP_FLAG_*`. A remote checksum (`--tun-remcsum`) is a checksum
    /// here: it differs only for packets whose checksum a device is to finish, and no eBPF program
    /// can take that order back.
    pub const fn new(kind: u8, port: u16, flags: u16) -> Self {
        let checksum = match kind as u32 {
            GUE => flags & 3 != 0,
            GRE => flags & 1 != 0,
            _ => false,
        };
        let port = (port.to_be() as u32) << 16;
        Self(port | if checksum { Self::CHECKSUM } else { 0 } | kind as u32)
    }

    /// The same, where packets of IPv4 that must not be cut and are too big for the tunnel go through it
    /// in pieces of the outer packet (`pmtu_disc` 0), or are answered.
    #[must_use]
    pub const fn in_pieces(self, pieces: bool) -> Self {
        Self(self.0 & !Self::PIECES | if pieces { Self::PIECES } else { 0 })
    }

    /// Whether such packets go through in pieces.
    #[inline(always)]
    pub const fn takes_pieces(self) -> bool {
        self.0 & Self::PIECES != 0
    }

    #[inline(always)]
    const fn kind(self) -> u32 {
        self.0 & 0xff
    }

    /// Whether UDP.
    #[inline(always)]
    pub const fn is_gue(self) -> bool {
        self.kind() == GUE
    }

    /// Whether GRE.
    #[inline(always)]
    pub const fn is_gre(self) -> bool {
        self.kind() == GRE
    }

    /// Whether an outer header has a checksum of the whole packet.
    #[inline(always)]
    pub const fn has_checksum(self) -> bool {
        self.0 & Self::CHECKSUM != 0
    }

    /// Bytes between the outer IP header and the packet.
    #[inline(always)]
    pub const fn header_len(self) -> u32 {
        match self.kind() {
            GUE => (Udp::LEN + Gue::LEN) as u32,
            GRE if self.has_checksum() => (Gre::LEN + GreChecksum::LEN) as u32,
            GRE => Gre::LEN as u32,
            _ => 0,
        }
    }

    /// Protocol number in the outer IP header, for a packet of `family`.
    #[inline(always)]
    const fn protocol(self, family: Family) -> u8 {
        match self.kind() {
            GUE => protocol::UDP,
            GRE => protocol::GRE,
            _ => inner_protocol(family),
        }
    }
}

/// Protocol number of an encapsulated packet of `family`.
#[inline(always)]
const fn inner_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => protocol::IPIP,
        Family::V6 => protocol::IPV6,
    }
}

/// ECN of the outer header (RFC 3168, section 9.1.1, full functionality): a congestion mark on the
/// inner header is not copied out, ECT(0) takes its place.
#[inline(always)]
const fn outer_tos(tos: u8) -> u8 {
    if tos & 3 == 3 { tos & !3 | 2 } else { tos }
}

/// Writes the outer headers of `way.extra` bytes, for which there is room behind the Ethernet
/// header, in front of the packet of `flow`, whose TTL was decremented already. A checksum that
/// covers the packet is left zero. `None` if the room is out of reach.
#[inline(always)]
pub fn write<A: Ip, P: Packet, E: Env>(
    env: &E,
    packet: &mut P,
    flow: &Flow<A>,
    dest: &Dest,
    way: &Way,
) -> Option<()> {
    let tunnel = Tunnel(dest.tunnel.get());
    let src = dest.tunnel_source.get();
    let shim = if matches!(way.family, Family::V4) {
        *packet.at_mut::<Ipv4>(L3)? =
            ipv4(flow, tunnel, way.extra, (src[0], way.dst[0]), || env.random() as u16);
        L3 + Ipv4::LEN as u32
    } else {
        *packet.at_mut::<Ipv6>(L3)? = ipv6(flow, tunnel, way.extra, src, way.dst);
        L3 + Ipv6::LEN as u32
    };
    if tunnel.is_gue() {
        *packet.at_mut::<Udp>(shim)? = Udp {
            src_be: source_port(env, flow).to_be_bytes(),
            dst_be: ((tunnel.0 >> 16) as u16).to_ne_bytes(),
            len: U16::new((flow.len + tunnel.header_len()) as u16),
            checksum_be: [0, 0],
        };
        let protocol = inner_protocol(A::FAMILY);
        *packet.at_mut::<Gue>(shim + Udp::LEN as u32)? =
            Gue { variant_control_hlen: 0, protocol, flags: U16::new(0) };
    } else if tunnel.is_gre() {
        let flags = U16::new(if tunnel.has_checksum() { Gre::CHECKSUM } else { 0 });
        let ethertype = match A::FAMILY {
            Family::V4 => U16::new(ETHERTYPE_IPV4),
            Family::V6 => U16::new(ETHERTYPE_IPV6),
        };
        *packet.at_mut::<Gre>(shim)? = Gre { flags, ethertype };
        if tunnel.has_checksum() {
            *packet.at_mut::<GreChecksum>(shim + Gre::LEN as u32)? =
                GreChecksum { checksum_be: [0, 0], reserved: [0, 0] };
        }
    }
    Some(())
}

/// A UDP source port that is the same for all packets of a flow, so that routers and network cards
/// spread flows and reorder none (`udp_flow_src_port`).
#[inline(always)]
fn source_port<A: Ip, E: Env>(env: &E, flow: &Flow<A>) -> u16 {
    let seed = env.config().map_or(0, |config| config.seed.get());
    let hash = table::hash(&flow.key, seed) & 0xffff_ffff;
    let (first, last) = SOURCE_PORTS;
    (first + ((hash * (last - first)) >> 32)) as u16
}

/// An IPv4 header around the packet of `flow`, from and to addresses in network byte order. `id`
/// distinguishes packets that may be fragmented.
#[inline(always)]
fn ipv4<A: Ip>(
    flow: &Flow<A>,
    tunnel: Tunnel,
    extra: u32,
    (src, dst): (u32, u32),
    id: impl Fn() -> u16,
) -> Ipv4 {
    // An IPv6 packet has no such flag to copy; the kernel leaves the outer one clear then.
    let dont_fragment =
        flow.dont_fragment && matches!(A::FAMILY, Family::V4) && !tunnel.takes_pieces();
    let (fragment, id) = if dont_fragment { (Ipv4::DF, 0) } else { (0, id()) };
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        tos: outer_tos(flow.tos),
        total_len: U16::new((flow.len + extra) as u16),
        id: U16::new(id),
        fragment: U16::new(fragment),
        ttl: flow.ttl.wrapping_sub(1),
        protocol: tunnel.protocol(A::FAMILY),
        checksum_be: [0, 0],
        src: src.to_ne_bytes(),
        dst: dst.to_ne_bytes(),
    };
    ip.checksum_be = ipv4_checksum(&ip);
    ip
}

/// Checksum of a header without options whose checksum field is zero.
#[inline(always)]
pub fn ipv4_checksum(ip: &Ipv4) -> [u8; 2] {
    let words: [u32; 5] = zerocopy::transmute!(*ip);
    let mut sum = 0u64;
    for word in words {
        sum = sum.wrapping_add(word as u64);
    }
    (!fold((sum & 0xffff) as u32 + (sum >> 16 & 0xffff) as u32 + (sum >> 32) as u32)).to_ne_bytes()
}

/// An IPv6 header around the packet of `flow`.
#[inline(always)]
fn ipv6<A: Ip>(flow: &Flow<A>, tunnel: Tunnel, extra: u32, src: [u32; 4], dst: [u32; 4]) -> Ipv6 {
    Ipv6 {
        version_class_flow: ipv6_first_word(outer_tos(flow.tos)),
        payload_len: U16::new((flow.len + extra - Ipv6::LEN as u32) as u16),
        next_header: tunnel.protocol(A::FAMILY),
        hop_limit: flow.ttl.wrapping_sub(1),
        src: zerocopy::transmute!(src),
        dst: zerocopy::transmute!(dst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_congestion_mark_stays_inside() {
        assert_eq!([0x00, 0x01, 0x02, 0x03, 0xb8, 0xbb].map(outer_tos), [0, 1, 2, 2, 0xb8, 0xba]);
    }

    #[test]
    fn header_lengths_are_those_of_type_and_flags() {
        let len = |kind, flags| Tunnel::new(kind, 6080, flags).header_len();
        assert_eq!([0, 1, 2, 3].map(|flags| len(0, flags)), [0; 4]);
        assert_eq!([0, 1, 2, 3].map(|flags| len(1, flags)), [12; 4]);
        assert_eq!([0, 1, 2, 3].map(|flags| len(2, flags)), [4, 8, 4, 8]);
    }
}
