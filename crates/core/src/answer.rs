//! Packets of real servers that belong to no connection: with `nat_icmp_send` they are answered by
//! ICMP port unreachable. Follows `ip_vs_has_real_service`; `tests/oracle/recorded/nat_icmp_send.jsonl`.

use rvs_wire::{protocol, tcp_flags};

use crate::addr::Addr;
use crate::env::Tables;
use crate::flow::Flow;
use crate::layout::{Config, REAL_SERVER_ENGINE, ServiceAddr};
use crate::proto::sctp;
use crate::sched::NONE;
use crate::sysctl::Sysctl;

/// Whether a packet of no connection is answered: a real server's, but one that ends a connection. With
/// `conntrack` none is: netfilter may know it by a source of its own, to which the server replies.
#[inline(always)]
pub fn is_due<A: Addr, E: Tables<A>>(env: &E, config: &Config, flow: &Flow<A>) -> bool {
    config.sysctl(Sysctl::NatIcmpSend) != 0
        && config.sysctl(Sysctl::Conntrack) == 0
        && !is_end(flow)
        && server(env, flow) != NONE
}

/// Whether it is a TCP packet that resets, or one of SCTP that begins with an ABORT.
#[inline(always)]
fn is_end<A: Copy>(flow: &Flow<A>) -> bool {
    match flow.key.protocol as u8 {
        protocol::TCP => flow.tcp_flags & tcp_flags::RST != 0,
        protocol::SCTP => sctp::Chunks(flow.tcp_flags).begins_with_abort(),
        _ => false,
    }
}

/// Index of the destination that sent the packet: one of a service of its protocol, or of a service by
/// mark; [`NONE`] if it is from elsewhere.
#[inline(always)]
fn server<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let mut from = ServiceAddr::new(flow.key.src, flow.key.sport_be, flow.key.protocol as u8);
    let found = env.real_server(&from).or_else(|| {
        from.protocol = 0;
        env.real_server(&from)
    });
    found.map_or(NONE, |dest| dest & !REAL_SERVER_ENGINE)
}

/// The address that errors about packets of the real server come from: the one by which the director
/// reaches it.
#[inline(always)]
pub fn source<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> Option<[u32; 4]> {
    env.dest(server(env, flow)).map(|dest| dest.tunnel_source.get())
}
