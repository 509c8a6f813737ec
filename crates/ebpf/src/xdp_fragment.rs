//! Fragments at the XDP hook. A program of its own, called by tail call, for the stack's sake. What
//! comes before its first goes on to TC.

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use rvs_core::addr::{V4, V6};
use rvs_core::env::{Env, Tables};
use rvs_core::fragment::{self, Fragment, Fragments, follow};
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::{Verdict, resolve};
use rvs_core::reason::Reason;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet};

use crate::env::Kernel;
use crate::fragment::{READ, Scratch, fill};
use crate::route;
use crate::xdp::{self, Frame, drop, pass};

/// What the program that was attached returns to itself: it is to call [`rvs_xdp_fragment`].
pub const PENDING: u32 = 1 << 19;

/// Balances a fragment.
#[xdp(frags)]
pub fn rvs_xdp_fragment(ctx: XdpContext) -> u32 {
    let frame = Frame(ctx.ctx);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        balance::<V4>(frame)
    } else {
        balance::<V6>(frame)
    }
}

#[inline(always)]
fn balance<A: Fragments + Scratch>(frame: Frame) -> u32
where
    Kernel: Tables<A>,
{
    let Some(place) = A::place() else { return drop(Reason::Inconsistent) };
    // SAFETY: this CPU's own element; nothing else uses it until the packet is done.
    let fragment = unsafe { &mut *place };
    match read(&frame, fragment) {
        READ => {}
        refused if refused == Reason::TinyFragment as u32 => return pass(Reason::PuntFragment),
        refused => return pass(Reason::from_number(refused)),
    }
    if fragment.first { first(frame, fragment) } else { rest(frame, fragment) }
}

/// Reads the frame's headers; see `fragment::read`.
#[inline(never)]
fn read<A: Fragments>(frame: &Frame, fragment: &mut Fragment<A>) -> u32 {
    fill(&Frame(core::hint::black_box(frame.0)), fragment)
}

/// A first fragment goes the way of any packet. What is passed on TC takes note of.
#[inline(never)]
fn first<A: Fragments>(frame: Frame, fragment: &Fragment<A>) -> u32
where
    Kernel: Tables<A>,
{
    let verdict = resolve(&Kernel, &fragment.flow);
    if !matches!(verdict, Verdict::Pass(_) | Verdict::Drop(Reason::NoDest)) {
        fragment::note(&Kernel, fragment, &verdict);
    }
    xdp::carry_out(frame, &fragment.flow, &verdict)
}

/// The others follow it.
#[inline(never)]
fn rest<A: Fragments>(mut frame: Frame, fragment: &mut Fragment<A>) -> u32
where
    Kernel: Tables<A>,
{
    let forward = match follow(&Kernel, Kernel.now(), fragment) {
        Some(Verdict::Forward(forward)) => forward,
        Some(Verdict::Pass(reason)) => return pass(reason),
        Some(Verdict::Drop(reason)) => return drop(reason),
        None => return pass(Reason::PuntFragment),
    };
    let flow = &fragment.flow;
    if flow.ttl <= 1 {
        return drop(Reason::TtlExceeded);
    }
    let way = forward.way(flow);
    let len = flow.len + way.extra;
    let Some(route) = route::lookup(frame.0.cast(), way.family, way.dst, len as u16) else {
        return drop(Reason::Inconsistent);
    };
    match route.result {
        route::SUCCESS => {}
        route::NO_NEIGHBOUR => return pass(Reason::PuntNeighbour),
        route::FRAG_NEEDED => return pass(Reason::PuntIcmp),
        route::NOT_FORWARDED => return pass(Reason::LocalDest),
        _ => return drop(Reason::NoRoute),
    }
    if forward.exceeded_mtu(len) != 0 {
        return pass(Reason::PuntIcmp);
    }
    if way.extra != 0 && forward.tunnel().has_checksum() {
        return pass(Reason::PuntChecksum);
    }
    if !xdp::takes_xdp(&frame, route.hop.ifindex) {
        return pass(Reason::PuntDevice);
    }
    fragment::count(&Kernel, flow, &forward);
    let rewritten = if way.extra != 0 {
        xdp::encapsulate(&mut frame, flow, &forward, &way)
    } else {
        fragment::rewrite(&mut frame, &forward)
    };
    if rewritten.is_none() {
        return drop(Reason::RewriteFailed);
    }
    xdp::transmit(&mut frame, &route, way.family)
}
