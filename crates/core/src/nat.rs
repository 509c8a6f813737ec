//! Masquerading: one address and one port replaced, checksums brought up to date incrementally
//! (RFC 1624, RFC 3022). Follows `ip_vs_nat_xmit`, `tcp_dnat_handler` and `handle_response`.

use rvs_wire::checksum::{Delta, fold};
use rvs_wire::{Ports, Tcp, Udp, Word, protocol};

use crate::addr::Addr;
use crate::flow::{Flow, Ip, L3};
use crate::packet::Packet;

/// Replaces the destination of a client's packet, or the source of a `reply`, by `addr` and
/// `port_be`, and takes one off the TTL. `None` if a header is out of reach.
#[inline(always)]
pub fn rewrite<A: Ip, P: Packet>(
    packet: &mut P,
    flow: &Flow<A>,
    reply: bool,
    addr: A,
    port_be: u16,
) -> Option<()> {
    let old = if reply { flow.key.src } else { flow.key.dst };
    let pseudo = old.delta(addr, Delta::NONE);
    let ports = packet.at_mut::<Ports>(flow.l4)?;
    let port = if reply { &mut ports.src_be } else { &mut ports.dst_be };
    let new = port_be.to_ne_bytes();
    let header = Delta::NONE.word(*port, new);
    *port = new;
    let is_udp = flow.key.protocol == protocol::UDP as u32;
    // UDP over IPv6 needs a checksum (but for the tunnels of RFC 6935), so a zero stays as it is.
    if !packet.fix_checksum(checksum_at(flow), is_udp, pseudo, header) {
        return None;
    }
    A::rewrite(packet, reply, addr)
}

/// Offset of the transport checksum from the start of the frame.
#[inline(always)]
pub fn checksum_at<A>(flow: &Flow<A>) -> u32 {
    let is_udp = flow.key.protocol == protocol::UDP as u32;
    flow.l4 + if is_udp { Udp::CHECKSUM } else { Tcp::CHECKSUM } as u32
}

/// Whether the transport checksum is still only that of the pseudo header, as a sender leaves it
/// for a device to finish (CHECKSUM_PARTIAL). XDP sees no sign of it but this; one finished
/// checksum in 65,536 looks the same.
#[inline(always)]
pub fn is_unfinished<A: Addr, P: Packet>(packet: &P, flow: &Flow<A>) -> bool {
    let Some(Word(field)) = packet.at(checksum_at(flow)) else { return false };
    let len = flow.len.wrapping_sub(flow.l4.wrapping_sub(L3));
    let tail = (len as u16).to_be() as u64 + (flow.key.protocol as u16).to_be() as u64;
    let sum = flow.key.src.sum() + flow.key.dst.sum() + tail;
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    fold(sum as u32) == u16::from_ne_bytes(*field)
}
