//! Masquerading: one address and one port replaced, checksums brought up to date incrementally
//! (RFC 1624, RFC 3022). Follows `ip_vs_nat_xmit`, `tcp_dnat_handler` and `handle_response`.

use rvs_wire::checksum::Delta;
use rvs_wire::{Ports, Tcp, Udp, protocol};

use crate::flow::{Flow, Ip};
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
    let field = if is_udp { Udp::CHECKSUM } else { Tcp::CHECKSUM } as u32;
    // UDP over IPv6 needs a checksum (but for the tunnels of RFC 6935), so a zero stays as it is.
    if !packet.fix_checksum(flow.l4 + field, is_udp, pseudo, header) {
        return None;
    }
    A::rewrite(packet, reply, addr)
}
