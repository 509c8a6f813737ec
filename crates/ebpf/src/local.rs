//! What the director itself sends and gets; TC only.
//!
//! A client on the director whose packets leave by an interface (those to an address of its own come
//! by the loopback anyway) has them turned round into the loopback, where `rvs_tc` treats them like
//! any that come in. What is for a client here, and has a source that may be the director's own
//! address, reaches the stack by the loopback as well: elsewhere it were a martian.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_set_tunnel_key};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::conn::{APP, Word};
use rvs_core::env::{Env as _, Tables};
use rvs_core::flow::{Flow, Ip};
use rvs_core::headers::MOST_OFFSET;
use rvs_core::layout::CONFIG_FWMARK;
use rvs_core::local::{Outgoing, outgoing};
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::{Forward, Verdict, commit};
use rvs_core::reason::Reason;
use rvs_core::related::{self, Errors};
use rvs_core::time::Tick;
use rvs_core::tracked::is_translated;
use rvs_core::types::ForwardMethod;
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Tcp};

use crate::env::Kernel;
use crate::maps::{self, LOCAL_EXTENDED_PROGRAM, LOCAL_ICMP_PROGRAM};
use crate::related::{HEADERS as QUOTED, outline};
use crate::rewrite::{Rewrite, rewrite};
use crate::route::LOOPBACK;
use crate::tc::{Frame, HEADERS, NEXT, drop};
use crate::{slow, tracked};

/// `BPF_F_INGRESS`
const INGRESS: u64 = 1;
/// What [`rvs_local`] returns to itself: it is to call [`rvs_local_icmp`].
const ICMP: i32 = 1 << 20;
/// The same: it is to call [`rvs_local_extended`].
const EXTENDED: i32 = 1 << 21;

/// The program for TC egress. Packets that came in by an interface, whether the stack forwards them
/// or the programs there sent them on, cost nothing but this call.
#[classifier]
pub fn rvs_local(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).ingress_ifindex } != 0 {
        return NEXT;
    }
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return NEXT };
    let action = match ethernet.ethertype.get() {
        ETHERTYPE_IPV4 => leave::<V4>(frame),
        ETHERTYPE_IPV6 => leave::<V6>(frame),
        _ => NEXT,
    };
    finally(&ctx, action)
}

/// Calls the program that `action` asks for, if it does.
#[inline(always)]
fn finally(ctx: &TcContext, action: i32) -> i32 {
    let program = match action {
        ICMP => LOCAL_ICMP_PROGRAM,
        EXTENDED => LOCAL_EXTENDED_PROGRAM,
        action => return action,
    };
    // SAFETY: the context is the program's own. It returns only if the call failed.
    unsafe { maps::PROGRAMS.tail_call(ctx, program) };
    NEXT
}

/// The same for packets with IPv4 options or IPv6 extension headers.
#[classifier]
pub fn rvs_local_extended(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(MOST_OFFSET + size_of::<Tcp>() as u32);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return NEXT };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        leave_extended::<V4>(frame)
    } else {
        leave_extended::<V6>(frame)
    };
    finally(&ctx, action)
}

#[inline(never)]
fn leave_extended<A: Rewrite>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let mut flow = Flow::default();
    match parse_all::<A>(frame, &mut flow) {
        DEPART => depart(frame, flow),
        action => action,
    }
}

/// What [`parse_all`] returns of a packet that was parsed.
const DEPART: i32 = 0;

/// A function of its own for its stack frame, without a `Result`: see `extended`.
#[inline(never)]
fn parse_all<A: Ip>(frame: Frame, flow: &mut Flow<A>) -> i32 {
    match A::parse_all(&Kernel, &frame) {
        Ok(parsed) => {
            *flow = parsed;
            DEPART
        }
        Err(Reason::Icmp) => ICMP,
        Err(_) => NEXT,
    }
}

#[inline(never)]
fn leave<A: Rewrite>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    match A::parse(&frame) {
        Ok(flow) => depart(frame, flow),
        Err(Reason::Icmp) => ICMP,
        Err(Reason::ExtensionHeader) => EXTENDED,
        Err(_) => NEXT,
    }
}

/// What becomes of a packet that the director sends.
#[inline(always)]
fn depart<A: Rewrite>(mut frame: Frame, mut flow: Flow<A>) -> i32
where
    Kernel: Tables<A>,
{
    match outgoing(&Kernel, &mut flow) {
        // A client's data connection, which an FTP server announced.
        Outgoing::Other if slow::is_expected(&flow) => to_loopback(&mut frame),
        Outgoing::Other => NEXT,
        Outgoing::Request => {
            tracked::remember(frame);
            to_loopback(&mut frame)
        }
        Outgoing::Reply(forward) => {
            // It comes back to ingress, as a real server's elsewhere.
            if Word(forward.entry.word.get()).has(APP)
                && let Some(action) = slow::inspect(frame, &flow)
            {
                return action;
            }
            commit(&Kernel, Kernel.now(), &flow, &forward);
            match translate(&mut frame, &flow, &forward) {
                Some(()) => NEXT,
                None => drop(Reason::RewriteFailed),
            }
        }
    }
}

/// Turns ICMP errors of the director's own about packets of connections round into the loopback,
/// where `rvs_related` translates them.
#[classifier]
pub fn rvs_local_icmp(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(QUOTED);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return NEXT };
    if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        turn_errors::<V4>(frame)
    } else {
        turn_errors::<V6>(frame)
    }
}

#[inline(never)]
fn turn_errors<A: Errors>(mut frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let Ok(related) = A::related(&frame, outline::<A>(frame)) else { return NEXT };
    match related::resolve(&Kernel, &related, false) {
        verdict if is_translated(&verdict) => NEXT,
        Verdict::Forward(_) => to_loopback(&mut frame),
        _ => NEXT,
    }
}

/// Accounts for a packet whose destination, or client, is the director itself, and hands it to the
/// stack. Direct routing and tunneling to the director leave it as it is, and nobody takes anything
/// off its TTL (`IP_VS_CONN_F_LOCALNODE`; `tests/oracle/recorded/local.jsonl`).
///
/// Inlined: on Linux 6.1 a frame between those of `send` and `rewrite` were one too many.
#[inline(always)]
pub fn deliver<A: Rewrite>(
    mut frame: Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
    now: Tick,
) -> i32
where
    Kernel: Tables<A>,
{
    let masqueraded = forward.is_masqueraded();
    // What has no destination goes to other hosts only (`IP_VS_RT_MODE_NON_LOCAL`).
    if forward.method == ForwardMethod::Bypass as u32 {
        return drop(Reason::NoRoute);
    }
    // From elsewhere nothing gets to an address of the loopback ("DNAT to loopback address").
    if masqueraded && !frame.is_on_loopback() && forward.entry.target.get().is_loopback() {
        return drop(Reason::NoRoute);
    }
    commit(&Kernel, now, flow, forward);
    if masqueraded && translate(&mut frame, flow, forward).is_none() {
        return drop(Reason::RewriteFailed);
    }
    hand_over(frame, forward.reply)
}

/// Masquerades without taking anything off the TTL.
#[inline(always)]
fn translate<A: Rewrite>(
    frame: &mut Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
) -> Option<()> {
    rewrite(frame, flow, forward)?;
    A::restore_ttl(frame)
}

/// Leaves a packet that is for the director itself to the stack: where it is, unless it is for a
/// client, whose packets have the virtual address as their source, or netfilter may mark it and have
/// it routed to us once more.
#[inline(always)]
pub fn hand_over(mut frame: Frame, for_client: bool) -> i32 {
    if (for_client || may_be_marked()) && !frame.is_on_loopback() {
        to_loopback(&mut frame)
    } else {
        NEXT
    }
}

/// Keeps the stack from looking for the socket of a packet that netfilter may yet mark before it
/// routes it ("early demux"): forwarding, by which marked packets come to us, drops what a socket has
/// claimed. The stack does not look while a packet has a route, and this one's, for tunnels, says
/// nothing: it is replaced by the real one.
#[inline(always)]
pub fn leave_unclaimed(frame: Frame) {
    if may_be_marked() && !frame.is_on_loopback() {
        unclaim(frame);
    }
}

/// The same of any packet that is to come back to us.
#[inline(never)]
pub fn unclaim(frame: Frame) {
    // The shortest form of a `bpf_tunnel_key`: the tunnel's number and an address.
    let mut key = [0u32; 2];
    let size = size_of_val(&key) as u32;
    // SAFETY: `key` is live and has the size that is passed; the helper reads no more.
    unsafe { bpf_skb_set_tunnel_key(frame.0, key.as_mut_ptr().cast(), size, 0) };
}

/// Whether packets are routed to us by their marks.
#[inline(always)]
fn may_be_marked() -> bool {
    Kernel.config().is_some_and(|config| config.flags.get() & CONFIG_FWMARK != 0)
}

/// Lets the frame come in by the loopback.
#[inline(always)]
pub fn to_loopback(frame: &mut Frame) -> i32 {
    // The loopback's MAC address: with another the frame were another host's.
    let Some(ethernet) = frame.at_mut::<Ethernet>(0) else { return drop(Reason::RewriteFailed) };
    (ethernet.dst, ethernet.src) = ([0; 6], [0; 6]);
    // SAFETY: plain arguments.
    unsafe { bpf_redirect(LOOPBACK, INGRESS) as i32 }
}
