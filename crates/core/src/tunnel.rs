//! The outer header of IP-in-IP: 4 in 4 (RFC 2003), 6 in 6, 4 in 6 (RFC 2473) and 6 in 4
//! (RFC 4213). Follows `ip_vs_tunnel_xmit` and `ip_vs_tunnel_xmit_v6`.

use rvs_wire::checksum::fold;
use rvs_wire::{Ipv4, Ipv6, protocol};
use zerocopy::network_endian::U16;

use crate::flow::{Flow, ipv6_first_word};
use crate::types::Family;

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

/// An IPv4 header around the packet of `flow`, whose TTL was already decremented to `ttl`.
/// Addresses are in network byte order; `id` distinguishes packets that may be fragmented.
#[inline(always)]
pub fn ipv4<A: crate::addr::Addr>(flow: &Flow<A>, ttl: u8, src: u32, dst: u32, id: u16) -> Ipv4 {
    // An IPv6 packet has no such flag to copy; the kernel leaves the outer one clear then.
    let dont_fragment = flow.dont_fragment && matches!(A::FAMILY, Family::V4);
    let (fragment, id) = if dont_fragment { (Ipv4::DF, 0) } else { (0, id) };
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        tos: outer_tos(flow.tos),
        total_len: U16::new(flow.len as u16 + Ipv4::LEN as u16),
        id: U16::new(id),
        fragment: U16::new(fragment),
        ttl,
        protocol: inner_protocol(A::FAMILY),
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
    let words: [u16; 10] = zerocopy::transmute!(*ip);
    let mut sum = 0u32;
    for word in words {
        sum = sum.wrapping_add(word as u32);
    }
    (!fold(sum)).to_ne_bytes()
}

/// An IPv6 header around the packet of `flow`.
#[inline(always)]
pub fn ipv6<A: crate::addr::Addr>(
    flow: &Flow<A>,
    hop_limit: u8,
    src: [u32; 4],
    dst: [u32; 4],
) -> Ipv6 {
    Ipv6 {
        version_class_flow: ipv6_first_word(outer_tos(flow.tos)),
        payload_len: U16::new(flow.len as u16),
        next_header: inner_protocol(A::FAMILY),
        hop_limit,
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
}
