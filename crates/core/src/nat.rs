//! Masquerading: one address and one port replaced, checksums brought up to date incrementally
//! (RFC 1624, RFC 3022). Follows `ip_vs_nat_xmit`, `tcp_dnat_handler` and `handle_response`.
//!
//! SCTP's checksum has no pseudo header: it changes with the port only. Zero is what a sender leaves
//! for a device to finish, or none at all (RFC 9653): it stays.

use rvs_wire::checksum::{Delta, fold};
use rvs_wire::{Ports, Sctp, Tcp, Udp, Word, crc32c, protocol};

use crate::addr::Addr;
use crate::flow::{Flow, Ip, L3};
use crate::layout::Conn;
use crate::packet::Packet;

/// How the headers of a packet that is sent on change.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Change {
    /// Nothing but the TTL: direct routing, which the kernel counts as a hop.
    Hop,
    /// A client's packet gets the destination's address and port.
    Destination,
    /// A destination's packet gets the virtual address and port as its source.
    Source,
}

/// Makes a change of addresses to those of the entry. `None` if a header is out of reach.
#[inline(always)]
pub fn apply<A: Ip, P: Packet>(
    packet: &mut P,
    flow: &Flow<A>,
    entry: &Conn<A>,
    change: Change,
) -> Option<()> {
    if change == Change::Hop {
        return A::decrement_ttl(packet);
    }
    let port_be = entry.target_port_be.get() as u16;
    rewrite(packet, flow, change == Change::Source, entry.target.get(), port_be)
}

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
    if flow.key.protocol == protocol::SCTP as u32 {
        let len = flow.len.wrapping_sub(flow.l4.wrapping_sub(L3));
        if !sctp(packet, flow.l4, len, reply, port_be) {
            return None;
        }
        return A::rewrite(packet, reply, addr);
    }
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

/// Replaces a port of the SCTP packet of `len` bytes at `l4`. False if its header is out of reach.
///
/// Inlined: a frame of its own, 32 bytes on Linux 6.1, would exceed the kernel's stack.
#[inline(always)]
fn sctp<P: Packet>(packet: &mut P, l4: u32, len: u32, reply: bool, port_be: u16) -> bool {
    let Some(header) = packet.at_mut::<Sctp>(l4) else { return false };
    let old = header.ports;
    let [a, b] = port_be.to_ne_bytes();
    let new = if reply { [a, b, old[2], old[3]] } else { [old[0], old[1], a, b] };
    header.ports = new;
    if header.checksum != [0; 4] && new != old {
        header.checksum = crc32c::replace_first(header.checksum, len, old, new);
    }
    true
}

/// Offset of the checksum of TCP or UDP from the start of the frame.
#[inline(always)]
pub fn checksum_at<A>(flow: &Flow<A>) -> u32 {
    let is_udp = flow.key.protocol == protocol::UDP as u32;
    flow.l4 + if is_udp { Udp::CHECKSUM } else { Tcp::CHECKSUM } as u32
}

/// Whether the transport checksum is still only that of the pseudo header (SCTP: zero), as a sender
/// leaves it for a device to finish (CHECKSUM_PARTIAL). XDP sees no sign of it but this; one finished
/// checksum in 65,536 looks the same.
#[inline(always)]
pub fn is_unfinished<A: Addr, P: Packet>(packet: &P, flow: &Flow<A>) -> bool {
    if flow.key.protocol == protocol::SCTP as u32 {
        return packet.at::<Sctp>(flow.l4).is_some_and(|header| header.checksum == [0; 4]);
    }
    let Some(Word(field)) = packet.at(checksum_at(flow)) else { return false };
    let len = flow.len.wrapping_sub(flow.l4.wrapping_sub(L3));
    let tail = (len as u16).to_be() as u64 + (flow.key.protocol as u16).to_be() as u64;
    let sum = flow.key.src.sum() + flow.key.dst.sum() + tail;
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    fold(sum as u32) == u16::from_ne_bytes(*field)
}
