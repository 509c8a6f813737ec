//! The XDP hook: the fast path in full. What needs the stack's help (an unresolved neighbour, an
//! ICMP error) goes, untouched and uncounted, on to the TC program of the same interface.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use rvs_core::addr::{V4, V6};
use rvs_core::conn::{APP, TRACKED, Word};
use rvs_core::env::{Env, Tables};
use rvs_core::flow::{Flow, Ip, L3};
use rvs_core::layout::{INTERFACE_KNOWN, INTERFACE_NO_TX, INTERFACE_XDP};
use rvs_core::nat;
use rvs_core::packet::{Header, Packet};
use rvs_core::pipeline::{Forward, Verdict, Way, commit, resolve_first};
use rvs_core::reason::Reason;
use rvs_core::tunnel::{self, checksum};
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};

use crate::env::Kernel;
use crate::maps;
use crate::route::{self, Reply, Route};

/// A frame in XDP's hands.
struct Frame(*mut xdp_md);

impl Frame {
    #[inline(always)]
    fn pointer<T>(&self, offset: u32) -> Option<*mut T> {
        // SAFETY: the context is valid for the whole run.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        // Headers lie near the start; the verifier wants to know that of an offset from memory.
        if offset > 255 {
            return None;
        }
        let start = data + offset as usize;
        if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the context is valid for the whole run.
        unsafe { bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        // SAFETY: the context is valid for the whole run.
        let linear = unsafe { (*self.0).data_end.wrapping_sub((*self.0).data) };
        len <= linear || len <= self.frame_len()
    }

    #[inline(always)]
    fn word_at(&self, offset: u32) -> u16 {
        let mut bytes = [0u8; 2];
        // SAFETY: the helper checks the offset and writes two bytes or, on failure, none.
        unsafe { bpf_xdp_load_bytes(self.0, offset, bytes.as_mut_ptr().cast(), 2) };
        u16::from_be_bytes(bytes)
    }

    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        None
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: u32) -> Option<&T> {
        // SAFETY: the bytes are inside the packet; `T` takes any bytes at any alignment.
        self.pointer(offset).map(|p| unsafe { &*p })
    }

    #[inline(always)]
    fn at_mut<T: Header>(&mut self, offset: u32) -> Option<&mut T> {
        // SAFETY: as for `at`; the packet is this program's alone.
        self.pointer(offset).map(|p| unsafe { &mut *p })
    }
}

/// The program for XDP.
#[xdp(frags)]
pub fn rvs_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame(ctx.ctx);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    // SAFETY: the context is valid for the whole run.
    let interface = maps::INTERFACES.get(unsafe { (*frame.0).ingress_ifindex });
    if !interface.is_some_and(|i| i.flags & INTERFACE_KNOWN == 0 || i.mac == ethernet.dst) {
        return pass(Reason::OtherHost);
    }
    match ethernet.ethertype.get() {
        ETHERTYPE_IPV4 => balance::<V4>(frame),
        ETHERTYPE_IPV6 => balance::<V6>(frame),
        _ => pass(Reason::NotIp),
    }
}

#[inline(always)]
fn pass(reason: Reason) -> u32 {
    Kernel.count(reason);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn drop(reason: Reason) -> u32 {
    Kernel.count(reason);
    xdp_action::XDP_DROP
}

/// Inlined: on some processors a return costs as much as all the rest that packets of others do.
#[inline(always)]
fn balance<A: Ip>(frame: Frame) -> u32
where
    Kernel: Tables<A>,
{
    let mut flow = match A::parse(&frame) {
        Ok(flow) => flow,
        Err(Reason::Fragment) => return pass(Reason::PuntFragment),
        Err(reason) => return pass(reason),
    };
    match resolve_first(&Kernel, &mut flow) {
        Verdict::Forward(forward) => send(frame, &flow, &forward),
        Verdict::Pass(reason) => pass(reason),
        // The sender is told by ICMP, which TC can do.
        Verdict::Drop(Reason::NoDest | Reason::RealServer) => pass(Reason::PuntIcmp),
        Verdict::Drop(reason) => drop(reason),
    }
}

/// Routes, accounts, rewrites and sends the packet.
///
/// A function of its own for its stack frame: scheduling, whose frames are deep as well, is then
/// not on top of it.
#[inline(never)]
fn send<A: Ip>(mut frame: Frame, flow: &Flow<A>, forward: &Forward<'_, A>) -> u32
where
    Kernel: Tables<A>,
{
    if flow.ttl <= 1 {
        return pass(Reason::PuntIcmp);
    }
    let word = Word(forward.entry.word.get());
    if word.has(APP | TRACKED) {
        return pass(if word.has(APP) { Reason::PuntApp } else { Reason::PuntTracked });
    }
    if nat::is_unfinished(&frame, flow) {
        return pass(Reason::PuntChecksum);
    }
    let way = forward.way(flow);
    let len = flow.len + way.extra;
    let Some(route) =
        route::lookup(frame.0, Reply::of(forward, &flow.key.src), way.family, way.dst, len as u16)
    else {
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
    // Where the headers do not say what the packet adds up to, TC reads it to its end.
    if forward.is_covered(&way) && checksum::promised(&frame, L3, 0).is_none() {
        return pass(Reason::PuntChecksum);
    }
    if !takes_xdp(&frame, route.hop.ifindex) {
        return pass(Reason::PuntDevice);
    }
    commit(&Kernel, route.now, flow, forward);
    let rewritten = if way.extra != 0 {
        encapsulate(&mut frame, flow, forward, &way)
    } else {
        forward.rewrite(&mut frame, flow)
    };
    if rewritten.is_none() {
        return drop(Reason::RewriteFailed);
    }
    let action = transmit(&mut frame, &route);
    // Asked anew: Linux 6.1 takes an answer that was kept for a constant (ARCHITECTURE.md).
    if forward.is_covered(&way) && cover(&mut frame).is_none() {
        return drop(Reason::RewriteFailed);
    }
    action
}

/// Whether frames can leave by this interface: the one they came by, or one that takes what XDP
/// redirects. Others would drop them where nobody counts it.
#[inline(always)]
fn takes_xdp(frame: &Frame, ifindex: u32) -> bool {
    // SAFETY: the context is valid for the whole run.
    if ifindex == unsafe { (*frame.0).ingress_ifindex } {
        return true;
    }
    maps::INTERFACES.get(ifindex).is_some_and(|i| i.flags & INTERFACE_XDP != 0)
}

/// Puts the outer headers in front.
#[inline(always)]
fn encapsulate<A: Ip>(
    frame: &mut Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
    way: &Way,
) -> Option<()> {
    A::decrement_ttl(frame)?;
    // SAFETY: the context is valid; the helper checks the headroom.
    if unsafe { bpf_xdp_adjust_head(frame.0, -(way.extra as i32)) } != 0 {
        return None;
    }
    tunnel::write(&Kernel, frame, flow, forward.dest, way)
}

/// Writes the checksum in an outer header around a packet that adds up to what its headers say. A
/// function of its own to keep `send`'s stack frame small.
#[inline(never)]
fn cover(frame: &mut Frame) -> Option<()> {
    // LLVM would pass what is read of the context instead of the context, as numbers: "R1 invalid
    // mem access 'scalar'".
    let mut frame = Frame(core::hint::black_box(frame.0));
    let outer = checksum::outer(&frame)?;
    if outer.write_promised(&mut frame, 0)? { Some(()) } else { None }
}

/// Writes the Ethernet header and sends the frame out.
#[inline(always)]
fn transmit(frame: &mut Frame, route: &Route) -> u32 {
    let Some(ethernet) = frame.at_mut::<Ethernet>(0) else {
        return drop(Reason::RewriteFailed);
    };
    ethernet.set_addresses(route.hop.dmac, route.hop.smac);
    ethernet.ethertype.set(route.hop.ethertype());
    // SAFETY: the context is valid for the whole run.
    let ingress = unsafe { (*frame.0).ingress_ifindex };
    let bounces = || maps::INTERFACES.get(ingress).is_some_and(|i| i.flags & INTERFACE_NO_TX == 0);
    if route.hop.ifindex == ingress && bounces() {
        return xdp_action::XDP_TX;
    }
    // SAFETY: plain arguments.
    unsafe { bpf_redirect(route.hop.ifindex, 0) as u32 }
}
