//! ICMP errors about packets of connections, translated and sent on; TC only. A program of its own,
//! called by tail call, for the stack's sake and because it is rare.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::env::Tables;
use rvs_core::flow::{Flow, L3};
use rvs_core::fragment::{self, Fate, fate};
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::{Verdict, count};
use rvs_core::reason::Reason;
use rvs_core::related::{self, Errors};
use rvs_core::tracked::is_translated;
use rvs_core::types::Family;
use rvs_wire::checksum::fold;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet, protocol};

use crate::cover;
use crate::env::Kernel;
use crate::fragment::Scratch;
use crate::local;
use crate::route::{self, Reply};
use crate::slow;
use crate::tc::{self, Frame, drop, pass};

/// What the program that was attached returns to itself: it is to call [`rvs_related`].
pub const PENDING: i32 = 1 << 17;

/// Bytes that must be readable directly: an error rarely has more.
pub const HEADERS: u32 = tc::MOST;

/// Sends an ICMP error on to the sender of the packet that it quotes.
#[classifier]
pub fn rvs_related(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        forward::<V4>(frame)
    } else {
        forward::<V6>(frame)
    };
    if action == cover::PENDING { cover::call(&ctx) } else { action }
}

/// The steps, each of a stack frame that is not below the others'.
#[inline(always)]
fn forward<A: Errors + Scratch>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let outline = outline::<A>(frame);
    let alone = match open::<A>(frame, outline) {
        Ok(alone) => alone,
        Err(action) => return action,
    };
    if is_about_tracked::<A>(frame, outline, alone) {
        return pass(Reason::Tracked);
    }
    if is_broken::<A>(frame, outline, alone) {
        return drop(Reason::BadChecksum);
    }
    translate::<A>(frame, outline, alone)
}

/// See [`Errors::outline`].
#[inline(never)]
pub fn outline<A: Errors>(frame: Frame) -> u32 {
    // LLVM would pass what is read of the context instead of the context, as numbers.
    A::outline(&Kernel, &Frame(core::hint::black_box(frame.0)))
}

/// See [`related::open`].
#[inline(never)]
fn open<A: Errors + Scratch>(frame: Frame, outline: u32) -> Result<bool, i32>
where
    Kernel: Tables<A>,
{
    if !related::may_open(&Kernel) {
        return Ok(false);
    }
    let Some(place) = A::place() else { return Ok(false) };
    // SAFETY: this CPU's own element; nothing else uses it until the packet is done.
    let flow = unsafe { &mut (*place).flow };
    if quoted::<A>(&frame, outline, flow) {
        related::open(&Kernel, flow).map_err(drop)
    } else {
        Ok(false)
    }
}

/// Reads what the error is about. A function of its own for its stack frame: scheduling is not on top
/// of it.
#[inline(never)]
fn quoted<A: Errors>(frame: &Frame, outline: u32, flow: &mut Flow<A>) -> bool {
    // LLVM would pass what is read of the context instead of the context.
    let frame = Frame(core::hint::black_box(frame.0));
    match A::related(&frame, outline) {
        Ok(related) => {
            *flow = related.flow;
            true
        }
        Err(_) => false,
    }
}

/// Whether netfilter translates the error.
#[inline(never)]
fn is_about_tracked<A: Errors>(frame: Frame, outline: u32, alone: bool) -> bool
where
    Kernel: Tables<A>,
{
    // LLVM would pass what is read of the context instead of the context.
    let frame = Frame(core::hint::black_box(frame.0));
    match A::related(&frame, outline) {
        Ok(related) => is_translated(&related::resolve(&Kernel, &related, alone)),
        Err(_) => false,
    }
}

/// Whether the error is about a masqueraded connection's packet and its checksum is wrong: the kernel,
/// which changes it, drops it then.
#[inline(never)]
fn is_broken<A: Errors>(frame: Frame, outline: u32, alone: bool) -> bool
where
    Kernel: Tables<A>,
{
    // Only the whole message has a checksum: its receiver finds out.
    if related::is_piece(outline) {
        return false;
    }
    let Ok(related) = A::related(&frame, outline) else { return false };
    let flow = &related.flow;
    let len = flow.len.wrapping_sub(flow.l4.wrapping_sub(L3));
    let pseudo = match A::FAMILY {
        Family::V4 => 0,
        Family::V6 => {
            let tail = (len as u16).to_be() as u64 + (protocol::ICMPV6 as u16).to_be() as u64;
            let sum = related.src.sum() + related.dst.sum() + tail;
            let sum = (sum & 0xffff_ffff) + (sum >> 32);
            let sum = (sum & 0xffff_ffff) + (sum >> 32);
            fold(sum as u32) as u32
        }
    };
    if cover::sum(&frame, flow.l4, len).is_some_and(|sum| fold(sum + pseudo) == 0xffff) {
        return false;
    }
    matches!(
        related::resolve(&Kernel, &related, alone),
        Verdict::Forward(forward) if forward.is_masqueraded()
    )
}

/// Notes what becomes of an error's first fragment, for the others. [`rvs_fragment`] has read its
/// headers.
///
/// [`rvs_fragment`]: crate::fragment::rvs_fragment
#[inline(never)]
fn remember<A: Errors + Scratch>(fate: &Fate<A>)
where
    Kernel: Tables<A>,
{
    let Some(place) = A::place() else { return };
    // SAFETY: this CPU's own element; nothing else uses it until the packet is done.
    fragment::remember(&Kernel, unsafe { &*place }, *fate);
}

#[inline(never)]
fn translate<A: Errors + Scratch>(mut frame: Frame, outline: u32, alone: bool) -> i32
where
    Kernel: Tables<A>,
{
    let related = match A::related(&frame, outline) {
        Ok(related) => related,
        Err(reason) => {
            if related::is_piece(outline) {
                remember(&fate::<A>(&Verdict::Pass(reason)));
            }
            return pass(reason);
        }
    };
    let verdict = related::resolve(&Kernel, &related, alone);
    if related::is_piece(outline) {
        remember(&fate(&verdict));
    }
    let forward = match verdict {
        Verdict::Forward(forward) => forward,
        Verdict::Pass(reason) => return pass(reason),
        Verdict::Drop(reason) => return drop(reason),
    };
    // No error is ever sent about an error: RFC 1122 section 3.2.2, RFC 4443 section 2.4.
    let flow = &related.flow;
    let way = forward.way(flow);
    let len = flow.len + way.extra;
    let Some(route) =
        route::lookup(frame.0, Reply::of(&forward, &related.src), way.family, way.dst, len as u16)
    else {
        return drop(Reason::Inconsistent);
    };
    let masqueraded = forward.is_masqueraded();
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
        route::FRAG_NEEDED => {
            let mtu = (route.hop.mtu as u32).saturating_sub(way.extra);
            return slow::cut_or_drop::<A>(frame, mtu);
        }
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
    // Errors are never sent in pieces.
    tc::finish(&mut frame, &route, flow, &forward, &way, 0)
}
