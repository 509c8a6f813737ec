//! ICMP errors about packets of connections, translated and sent on; TC only. A program of its own,
//! called by tail call, for the stack's sake and because it is rare.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::env::Tables;
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::{Verdict, count};
use rvs_core::reason::Reason;
use rvs_core::related::{self, Errors};
use rvs_core::types::ForwardMethod;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet};

use crate::cover;
use crate::env::Kernel;
use crate::local;
use crate::route;
use crate::tc::{self, Frame, drop, pass};

/// What the program that was attached returns to itself: it is to call [`rvs_related`].
pub const PENDING: i32 = 1 << 17;

/// Ethernet, IPv4 with all options, ICMP, and of the quoted packet the same and its ports.
pub const HEADERS: u32 = 14 + 60 + 8 + 60 + 4;

/// Sends an ICMP error on to the sender of the packet that it quotes.
#[classifier]
pub fn rvs_related(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        translate::<V4>(frame)
    } else {
        translate::<V6>(frame)
    };
    if action == cover::PENDING { cover::call(&ctx) } else { action }
}

#[inline(never)]
fn translate<A: Errors>(mut frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let related = match A::related(&frame) {
        Ok(related) => related,
        Err(reason) => return pass(reason),
    };
    let forward = match related::resolve(&Kernel, &related) {
        Verdict::Forward(forward) => forward,
        Verdict::Pass(reason) => return pass(reason),
        Verdict::Drop(reason) => return drop(reason),
    };
    // No error is ever sent about an error: RFC 1122 section 3.2.2, RFC 4443 section 2.4.
    let flow = &related.flow;
    let way = forward.way(flow);
    let len = flow.len + way.extra;
    let Some(route) = route::lookup(frame.0.cast(), way.family, way.dst, len as u16) else {
        return drop(Reason::Inconsistent);
    };
    let masqueraded = forward.reply || forward.method == ForwardMethod::Masquerade as u32;
    if route.result == route::NOT_FORWARDED {
        count(&Kernel, flow, &forward);
        if masqueraded && related::rewrite(&mut frame, &related, &forward).is_none() {
            return drop(Reason::RewriteFailed);
        }
        return local::hand_over(frame, forward.reply);
    }
    if flow.ttl <= 1 {
        return drop(Reason::TtlExceeded);
    }
    match route.result {
        route::SUCCESS | route::NO_NEIGHBOUR => {}
        route::FRAG_NEEDED => return drop(Reason::TooBig),
        _ => return drop(Reason::NoRoute),
    }
    count(&Kernel, flow, &forward);
    let rewritten = if way.extra != 0 {
        tc::encapsulate(&mut frame, flow, &forward, &way)
    } else if masqueraded {
        related::rewrite(&mut frame, &related, &forward)
    } else {
        A::decrement_ttl(&mut frame)
    };
    if rewritten.is_none() {
        return drop(Reason::RewriteFailed);
    }
    tc::finish(&mut frame, &route, &forward, &way)
}
