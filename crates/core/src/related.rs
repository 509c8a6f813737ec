//! ICMP errors about packets of a connection: the error goes where the packet's sender is, and both
//! its own addresses and those that it quotes are translated back. Follows `ip_vs_in_icmp`,
//! `ip_vs_out_icmp` and `ip_vs_nat_icmp`; `tests/oracle/recorded/related.jsonl`.
//!
//! ```text
//!   IP  router ─► VIP                            IP  router ─► real server
//!       ICMP error                       ─►          ICMP error
//!            quotes  IP VIP ─► client                     quotes  IP real server ─► client
//! ```
//!
//! The quoted packet turned around is one of the connection's other direction, and found as such.

use rvs_wire::checksum::Delta;
use rvs_wire::{Fragment as Header, IcmpError, Ipv4, Ipv6, Ports, protocol};

use crate::addr::{Addr, V4, V6};
use crate::env::{Env, Tables};
use crate::flow::{Flow, Ip, L3, v6};
use crate::headers;
use crate::layout::Key;
use crate::packet::Packet;
use crate::pipeline::{self, Forward, Verdict, of_entry};
use crate::reason::Reason;
use crate::sysctl::Sysctl;
use crate::table;
use crate::types::Family;

/// An ICMP error about a TCP, UDP or SCTP packet.
#[derive(Clone, Copy, Debug)]
pub struct Related<A> {
    /// The error, under the key of the quoted packet turned around.
    pub flow: Flow<A>,
    /// The error's own source.
    pub src: A,
    /// The error's own destination.
    pub dst: A,
    /// Offset of the quoted IP header.
    pub quote: u32,
    /// Offset of the quoted ports.
    pub ports: u32,
}

/// What differs between the IP versions.
pub trait Errors: Ip {
    /// Where an error's headers and those that it quotes are, in a word of its own kind; 0 if it is
    /// none. A step before [`related`](Self::related): following extension headers takes stack.
    fn outline<P: Packet, E: Env>(env: &E, packet: &P) -> u32;

    /// Reads an ICMP error; why not, if it is none or quotes what is not balanced.
    fn related<P: Packet>(packet: &P, outline: u32) -> Result<Related<Self>, Reason>;

    /// Replaces the quoted packet's destination (`reply`) or source, and brings the checksum in the
    /// quoted header up to date. What that changes in the ICMP checksum.
    fn rewrite_quote<P: Packet>(
        packet: &mut P,
        quote: u32,
        reply: bool,
        addr: Self,
    ) -> Option<Delta>;
}

/// The connection that the error is about; `alone` is what [`open`] said.
#[inline(always)]
pub fn resolve<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    related: &Related<A>,
    alone: bool,
) -> Verdict<'e, A> {
    let entry = if alone { env.passing() } else { table::entry(env, env.find(&related.flow.key)) };
    match entry {
        Some(entry) => of_entry(env, entry),
        None => Verdict::Pass(Reason::Icmp),
    }
}

/// Whether errors open connections at all (`schedule_icmp`).
#[inline(always)]
pub fn may_open<E: Env>(env: &E) -> bool {
    env.config().is_some_and(|config| config.sysctl(Sysctl::ScheduleIcmp) != 0)
}

/// Opens a connection for an error about a packet, [`Related::flow`], of none, if there is a service:
/// the error is taken for a packet that opens connections. Whether the connection is there for this
/// error alone, or why the error is dropped.
#[inline(always)]
pub fn open<A: Addr, E: Tables<A>>(env: &E, flow: &mut Flow<A>) -> Result<bool, Reason> {
    let Some(config) = env.config() else { return Ok(false) };
    if env.find(&flow.key) != 0 {
        return Ok(false);
    }
    pipeline::schedule_error(env, config, flow)
}

/// Translates the error of a masqueraded connection and takes one off its TTL. `None` if a header
/// is out of reach.
///
/// The checksum of the quoted packet is left as it was, as the kernel leaves it.
#[inline(always)]
pub fn rewrite<A: Errors, P: Packet>(
    packet: &mut P,
    related: &Related<A>,
    forward: &Forward<'_, A>,
) -> Option<()> {
    let (addr, port) = (forward.entry.target.get(), forward.entry.target_port_be.get() as u16);
    let reply = forward.reply;
    let quoted = A::rewrite_quote(packet, related.quote, reply, addr)?;
    let ports = packet.at_mut::<Ports>(related.ports)?;
    let field = if reply { &mut ports.dst_be } else { &mut ports.src_be };
    let header = quoted.word(*field, port.to_ne_bytes());
    *field = port.to_ne_bytes();
    // Only ICMPv6 sums a pseudo header up.
    let old = if reply { related.src } else { related.dst };
    let pseudo = match A::FAMILY {
        Family::V4 => Delta::NONE,
        Family::V6 => old.delta(addr, Delta::NONE),
    };
    let checksum = related.flow.l4 + IcmpError::CHECKSUM as u32;
    if !packet.fix_checksum(checksum, false, pseudo, header) {
        return None;
    }
    A::rewrite(packet, reply, addr)
}

/// In an outline: the error is the first fragment of one.
const PIECE: u32 = 1 << 28;

/// Whether an error with this outline is the first fragment of one.
#[inline(always)]
pub const fn is_piece(outline: u32) -> bool {
    outline & PIECE != 0
}

/// Why a packet that is no error about a connection's packet is left alone.
const OTHER: Reason = Reason::Icmp;

/// The error, once its headers were found: `src` and `dst` are its own, `quoted` the quoted
/// packet's source and destination, its ports at offset `ports`.
#[inline(always)]
fn read<A: Addr, P: Packet>(
    packet: &P,
    flow: Flow<A>,
    quoted: (A, A, u8),
    (quote, ports): (u32, u32),
) -> Result<Related<A>, Reason> {
    let (from, to, proto) = quoted;
    if proto != protocol::TCP && proto != protocol::UDP && proto != protocol::SCTP {
        return Err(OTHER);
    }
    let at = packet.at::<Ports>(ports).ok_or(OTHER)?;
    let key = Key {
        src: to,
        dst: from,
        sport_be: u16::from_ne_bytes(at.dst_be),
        dport_be: u16::from_ne_bytes(at.src_be),
        protocol: proto as u32,
    };
    Ok(Related { src: flow.key.src, dst: flow.key.dst, flow: Flow { key, ..flow }, quote, ports })
}

/// The flow of a packet that has no ports.
#[inline(always)]
fn portless<A>(src: A, dst: A, l4: u32, len: u32, ttl: u8, tos: u8) -> Flow<A> {
    let key = Key { src, dst, sport_be: 0, dport_be: 0, protocol: 0 };
    Flow { key, l4, len, tcp_flags: 0, ttl, tos, dont_fragment: true, marked: true, mark: 0 }
}

impl Errors for V4 {
    #[inline(always)]
    fn outline<P: Packet, E: Env>(_: &E, packet: &P) -> u32 {
        let fragment = packet.at::<Ipv4>(L3).map_or(0, |ip| ip.fragment.get());
        if fragment & Ipv4::FRAGMENT == 0 { 1 } else { 1 | PIECE }
    }

    #[inline(always)]
    fn related<P: Packet>(packet: &P, _: u32) -> Result<Related<Self>, Reason> {
        let ip = packet.at::<Ipv4>(L3).ok_or(Reason::Malformed)?;
        let (l4, len) = (L3 + ip.header_len(), ip.total_len.get() as u32);
        let (src, dst) = (V4(u32::from_ne_bytes(ip.src)), V4(u32::from_ne_bytes(ip.dst)));
        let flow = portless(src, dst, l4, len, ip.ttl, ip.tos);
        let icmp = packet.at::<IcmpError>(l4).ok_or(OTHER)?;
        // Destination unreachable, source quench, time exceeded.
        if !matches!(icmp.kind, 3 | 4 | 11) {
            return Err(OTHER);
        }
        let quote = l4 + IcmpError::LEN as u32;
        let inner = packet.at::<Ipv4>(quote).ok_or(OTHER)?;
        let header = inner.header_len();
        if inner.version_ihl >> 4 != 4
            || header < Ipv4::LEN as u32
            || inner.fragment.get() & Ipv4::OFFSET != 0
        {
            return Err(OTHER);
        }
        let from = V4(u32::from_ne_bytes(inner.src));
        let to = V4(u32::from_ne_bytes(inner.dst));
        read(packet, flow, (from, to, inner.protocol), (quote, quote + header))
    }

    #[inline(always)]
    fn rewrite_quote<P: Packet>(
        packet: &mut P,
        quote: u32,
        reply: bool,
        addr: Self,
    ) -> Option<Delta> {
        let ip = packet.at_mut::<Ipv4>(quote)?;
        let field = if reply { &mut ip.dst } else { &mut ip.src };
        let delta = V4(u32::from_ne_bytes(*field)).delta(addr, Delta::NONE);
        *field = addr.0.to_ne_bytes();
        ip.checksum_be = delta.apply(ip.checksum_be);
        // The quoted header's checksum takes up what its address changes in the ICMP checksum.
        Some(Delta::NONE)
    }
}

impl Errors for V6 {
    /// ```text
    /// │ 28  PIECE │ 27 .. 20  quoted protocol │ 19 .. 10  offset of its header │ 9 .. 0  of the ICMP header │
    /// ```
    #[inline(always)]
    fn outline<P: Packet, E: Env>(env: &E, packet: &P) -> u32 {
        let Some(ip) = packet.at::<Ipv6>(L3) else { return 0 };
        let (mut proto, mut l4) =
            headers::follow(env, packet, ip.next_header, L3 + Ipv6::LEN as u32);
        let mut piece = 0;
        if proto == protocol::FRAGMENT {
            let Some(header) = packet.at::<Header>(l4) else { return 0 };
            if header.offset.get() & Header::OFFSET != 0 {
                return 0;
            }
            piece = PIECE;
            (proto, l4) = headers::follow(env, packet, header.next_header, l4 + Header::LEN as u32);
        }
        if proto != protocol::ICMPV6 {
            return 0;
        }
        let quote = l4 + IcmpError::LEN as u32;
        let Some(inner) = packet.at::<Ipv6>(quote) else { return piece };
        let at = quote + Ipv6::LEN as u32;
        let (proto, ports) = headers::follow(env, packet, inner.next_header, at);
        piece | (proto as u32) << 20 | ports << 10 | l4
    }

    #[inline(always)]
    fn related<P: Packet>(packet: &P, outline: u32) -> Result<Related<Self>, Reason> {
        let ip = packet.at::<Ipv6>(L3).ok_or(Reason::Malformed)?;
        let len = ip.payload_len.get() as u32 + Ipv6::LEN as u32;
        let (src, dst) = (v6(ip.src), v6(ip.dst));
        let tos = (ip.version_class_flow.get() >> 20) as u8;
        if outline & !PIECE == 0 {
            return Err(OTHER);
        }
        let l4 = outline & headers::MOST_OFFSET;
        let flow = portless(src, dst, l4, len, ip.hop_limit, tos);
        let icmp = packet.at::<IcmpError>(l4).ok_or(OTHER)?;
        // RFC 4443, section 2.1: messages from 128 on are informational.
        if icmp.kind >= 128 {
            return Err(OTHER);
        }
        let quote = l4 + IcmpError::LEN as u32;
        let inner = packet.at::<Ipv6>(quote).ok_or(OTHER)?;
        if inner.version_class_flow.get() >> 28 != 6 {
            return Err(OTHER);
        }
        let (from, to) = (v6(inner.src), v6(inner.dst));
        let (proto, ports) = ((outline >> 20) as u8, outline >> 10 & headers::MOST_OFFSET);
        read(packet, flow, (from, to, proto), (quote, ports))
    }

    #[inline(always)]
    fn rewrite_quote<P: Packet>(
        packet: &mut P,
        quote: u32,
        reply: bool,
        addr: Self,
    ) -> Option<Delta> {
        let ip = packet.at_mut::<Ipv6>(quote)?;
        let field = if reply { &mut ip.dst } else { &mut ip.src };
        let delta = v6(*field).delta(addr, Delta::NONE);
        *field = zerocopy::transmute!(addr.0);
        Some(delta)
    }
}
