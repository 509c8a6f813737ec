//! Fragments; TC only, to which XDP leaves all of them. A program of its own, called by tail call,
//! for the stack's sake.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::conn::Word;
use rvs_core::env::{Env, Tables};
use rvs_core::flow::{Flow, L3};
use rvs_core::fragment::{self, Content, Fragment, Fragments, follow, is_relevant};
use rvs_core::headers::MOST_OFFSET;
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::{Forward, Verdict, resolve};
use rvs_core::reason::Reason;
use rvs_core::tracked::is_left;
use rvs_core::types::Family;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet, Fragment as Header, Ipv4, Tcp, protocol};

use crate::env::Kernel;
use crate::icmp;
use crate::local;
use crate::maps;
use crate::related;
use crate::route::{self, Reply};
use crate::slow;
use crate::tc::{self, Frame, drop, pass};
use crate::tracked;

/// What the program that was attached returns to itself: it is to call [`rvs_fragment`].
pub const PENDING: i32 = 1 << 20;

/// Bytes that must be readable directly: extension headers, the fragment header, TCP.
pub const HEADERS: u32 = MOST_OFFSET + (Header::LEN + size_of::<Tcp>()) as u32;

/// Where this CPU keeps the fragment that it is at, or the packet that an ICMP error is about.
pub trait Scratch: Sized {
    /// The place.
    fn place() -> Option<*mut Fragment<Self>>;
}

impl Scratch for V4 {
    #[inline(always)]
    fn place() -> Option<*mut Fragment<Self>> {
        maps::FRAGMENT4.get_ptr_mut(0)
    }
}

impl Scratch for V6 {
    #[inline(always)]
    fn place() -> Option<*mut Fragment<Self>> {
        maps::FRAGMENT6.get_ptr_mut(0)
    }
}

/// Balances a fragment.
#[classifier]
pub fn rvs_fragment(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        balance::<V4>(frame)
    } else {
        balance::<V6>(frame)
    };
    tc::finally(&ctx, action)
}

#[inline(always)]
fn balance<A: Fragments + Scratch + icmp::Errors>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let Some(place) = A::place() else { return drop(Reason::Inconsistent) };
    // SAFETY: this CPU's own element; nothing else uses it until the packet is done.
    let fragment = unsafe { &mut *place };
    match read(&frame, fragment) {
        READ => {}
        refused if refused == Reason::TinyFragment as u32 => return tiny::<A>(frame),
        refused => return pass(Reason::from_number(refused)),
    }
    if fragment.first { first(frame, fragment) } else { rest(frame, fragment) }
}

/// What [`read`] returns if it is no number of a reason.
const READ: u32 = u32::MAX;

/// Reads the frame's headers. A function of its own for its stack frame, which is then not below
/// those of what comes after.
#[inline(never)]
fn read<A: Fragments>(frame: &Frame, fragment: &mut Fragment<A>) -> u32 {
    // LLVM would pass what is read of the context instead of the context, as numbers.
    match A::fragment(&Kernel, &Frame(core::hint::black_box(frame.0))) {
        Ok(read) => {
            *fragment = read;
            READ
        }
        Err(reason) => reason as u32,
    }
}

/// A first fragment goes the way of any packet: of an ICMP message that of errors.
#[inline(never)]
fn first<A: Fragments + icmp::Errors>(frame: Frame, fragment: &mut Fragment<A>) -> i32
where
    Kernel: Tables<A>,
{
    let verdict = match fragment.content() {
        Content::Ports => resolve(&Kernel, &mut fragment.flow),
        Content::Icmp => return related::PENDING,
        Content::Other => Verdict::Pass(Reason::Fragment),
    };
    // The engine reads whole datagrams.
    if let Verdict::Pass(reason) = &verdict
        // SAFETY: a live reference. LLVM would read it before it knows that there is a reason, not a
        // pointer to a connection ("invalid size of register fill"), if it were not volatile.
        && unsafe { core::ptr::from_ref(reason).read_volatile() } == Reason::PuntEngine
    {
        return tiny::<A>(frame);
    }
    if let Err(reason) = fragment::note(&Kernel, fragment, &verdict) {
        return drop(reason);
    }
    if let Verdict::Forward(forward) = &verdict
        && is_left(Word(forward.entry.word.get()), frame.is_on_loopback())
    {
        return tracked::PENDING;
    }
    tc::act::<A, true>(frame, &fragment.flow, &verdict)
}

/// The others follow it.
#[inline(never)]
fn rest<A: Fragments + icmp::Errors>(mut frame: Frame, fragment: &mut Fragment<A>) -> i32
where
    Kernel: Tables<A>,
{
    let forward = match follow(&Kernel, Kernel.now(), fragment) {
        Some(Verdict::Forward(forward)) => forward,
        Some(Verdict::Pass(reason)) => return pass(reason),
        Some(Verdict::Drop(reason)) => return drop(reason),
        None => return wait(frame, fragment),
    };
    let flow = &fragment.flow;
    if is_left(Word(forward.entry.word.get()), frame.is_on_loopback()) {
        if forward.reply || !forward.is_masqueraded() {
            return pass(Reason::Tracked);
        }
        fragment::count(&Kernel, flow, &forward);
        return tc::NEXT;
    }
    let way = forward.way(flow);
    let len = flow.len + way.extra;
    let Some(route) =
        route::lookup(frame.0, Reply::of(&forward, &flow.key.src), way.family, way.dst, len as u16)
    else {
        return drop(Reason::Inconsistent);
    };
    if route.result == route::NOT_FORWARDED {
        return deliver(frame, flow, &forward);
    }
    // No error is sent about a fragment that is not the first: RFC 1122 section 3.2.2.
    if flow.ttl <= 1 {
        return drop(Reason::TtlExceeded);
    }
    let mut mtu = forward.exceeded_mtu(len);
    match route.result {
        route::SUCCESS | route::NO_NEIGHBOUR => {}
        route::FRAG_NEEDED => mtu = route.hop.mtu as u32,
        _ => return drop(Reason::NoRoute),
    }
    let in_pieces = forward.takes_pieces(flow, &way) && slow::is_open();
    if mtu != 0 && !in_pieces {
        return slow::cut_or_drop::<A>(frame, mtu.saturating_sub(way.extra));
    }
    fragment::count(&Kernel, flow, &forward);
    let rewritten = if way.extra != 0 {
        tc::encapsulate(&mut frame, flow, &forward, &way)
    } else {
        fragment::rewrite(&mut frame, &forward)
    };
    if rewritten.is_none() {
        return drop(Reason::RewriteFailed);
    }
    tc::finish(&mut frame, &route, flow, &forward, &way, len)
}

/// A fragment whose destination, or client, is the director itself: see [`local::deliver`].
#[inline(always)]
fn deliver<A: Fragments>(mut frame: Frame, flow: &Flow<A>, forward: &Forward<'_, A>) -> i32
where
    Kernel: Tables<A>,
{
    if forward.is_masqueraded() {
        let rewritten = fragment::rewrite(&mut frame, forward);
        if rewritten.and_then(|()| A::restore_ttl(&mut frame)).is_none() {
            return drop(Reason::RewriteFailed);
        }
    }
    fragment::count(&Kernel, flow, forward);
    local::hand_over(frame, forward.reply)
}

/// A fragment whose first has not passed yet.
#[inline(never)]
fn wait<A: Fragments>(frame: Frame, fragment: &Fragment<A>) -> i32
where
    Kernel: Tables<A>,
{
    if !is_relevant(&Kernel, fragment) {
        return pass(Reason::Fragment);
    }
    let [a, b, ..] = fragment.key.src;
    slow::hand_over(frame, Reason::SlowFragment, a ^ b, 0).unwrap_or_else(|| pass(Reason::Fragment))
}

/// A first fragment that ends within the transport header, as no sender makes them: rvsd puts the
/// datagram together. Of IPv6 it is dropped: RFC 8200, section 4.5.
#[inline(never)]
fn tiny<A: Fragments>(frame: Frame) -> i32 {
    if matches!(A::FAMILY, Family::V6) {
        return drop(Reason::TinyFragment);
    }
    let (source, proto) = frame
        .at::<Ipv4>(L3)
        .map_or((0, protocol::TCP), |ip| (u32::from_ne_bytes(ip.src), ip.protocol));
    slow::hand_over(frame, Reason::SlowFragment, source, 0).unwrap_or_else(|| {
        // It may be a ping.
        if proto == protocol::ICMP { pass(Reason::Fragment) } else { drop(Reason::TinyFragment) }
    })
}
