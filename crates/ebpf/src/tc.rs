//! The TC hook: the complete feature set on any device. Packets here may be super-packets (GSO)
//! and carry checksums that are yet to be computed (CHECKSUM_PARTIAL), so the kernel's helpers
//! update checksums and add headers. Where the neighbour is not resolved yet, the kernel resolves
//! it and holds the packet meanwhile (`bpf_redirect_neigh`).

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_load_bytes,
    bpf_skb_pull_data, bpf_skb_vlan_pop,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::answer;
use rvs_core::env::{Env, Tables};
use rvs_core::flow::{Flow, Ip, L3};
use rvs_core::headers::MOST_OFFSET;
use rvs_core::packet::{Header, Packet};
use rvs_core::pipeline::{Forward, Verdict, Way, commit, count, resolve};
use rvs_core::reason::Reason;
use rvs_core::tunnel::{self, Tunnel};
use rvs_core::types::Family;
use rvs_wire::checksum::Delta;
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Tcp, protocol};

use crate::bypass;
use crate::cover;
use crate::engine;
use crate::env::Kernel;
use crate::icmp::{self, Message};
use crate::local;
use crate::maps::{
    self, BYPASS_PROGRAM, ENGINE_PROGRAM, EXTENDED_PROGRAM, FRAGMENT_PROGRAM, RELATED_PROGRAM,
    TRACKED_PROGRAM,
};
use crate::related;
use crate::rewrite::rewrite;
use crate::route::{self, LOOPBACK, Reply, Route};
use crate::{extended, fragment, slow, tracked};

/// Go on to the next program, then the host: `TCX_NEXT`, `TC_ACT_UNSPEC`.
pub const NEXT: i32 = -1;
/// `TC_ACT_SHOT`
pub const SHOT: i32 = 2;

/// Offset at which a header may begin at most: always so of what lies behind extension headers, so
/// that LLVM has nothing to compare.
pub const MOST: u32 = 2 * MOST_OFFSET + 1;
/// Bytes that must be readable directly: Ethernet, IPv4 with all options, TCP.
pub const HEADERS: u32 = 14 + 60 + 20;

/// `pkt_type` of a frame for this host alone.
const PACKET_HOST: u32 = 0;
/// `pkt_type` of a frame for another host's MAC address.
const PACKET_OTHERHOST: u32 = 3;

/// `gso_size` of a super-packet whose segments are as long as each is (SCTP).
const GSO_BY_FRAGS: u32 = 0xffff;

/// The VLAN's number in a tag.
const VLAN_ID: u32 = 0xfff;

const BPF_F_PSEUDO_HDR: u64 = 0x10;
const BPF_F_MARK_MANGLED_0: u64 = 0x20;
const BPF_ADJ_ROOM_MAC: u32 = 1;
const BPF_F_ADJ_ROOM_FIXED_GSO: u64 = 1;
const BPF_F_ADJ_ROOM_ENCAP_L3_IPV4: u64 = 2;
const BPF_F_ADJ_ROOM_ENCAP_L3_IPV6: u64 = 4;
const BPF_F_ADJ_ROOM_ENCAP_L4_GRE: u64 = 8;
const BPF_F_ADJ_ROOM_ENCAP_L4_UDP: u64 = 16;

/// An skb's frame.
#[derive(Clone, Copy)]
pub struct Frame(pub *mut __sk_buff);

impl Frame {
    #[inline(always)]
    fn pointer<T>(&self, offset: u32) -> Option<*mut T> {
        // SAFETY: the context is valid for the whole run.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        // Headers lie near the start; the verifier wants to know that of an offset from memory.
        if offset > MOST {
            return None;
        }
        let start = data + offset as usize;
        if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
    }

    /// Makes `len` bytes, or the whole frame if it is shorter, directly accessible. Not of a
    /// super-packet whose data lies in a list of segments (SCTP's): they must stay as they are, and
    /// the headers lie in front of them.
    #[inline(always)]
    pub fn pull(&self, len: u32) {
        // SAFETY: the context is valid for the whole run.
        let linear = unsafe { (*self.0).data_end.wrapping_sub((*self.0).data) };
        if linear < len && self.gso_size() != GSO_BY_FRAGS {
            // SAFETY: plain arguments; on failure the bounds checks see what there is.
            unsafe { bpf_skb_pull_data(self.0, self.frame_len().min(len)) };
        }
    }

    /// Whether it is on the loopback interface: nobody but the director itself sent it.
    #[inline(always)]
    pub fn is_on_loopback(&self) -> bool {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*self.0).ifindex == LOOPBACK }
    }

    /// Bytes of data in the segments of a super-packet; 0 if it is none.
    #[inline(always)]
    pub fn gso_size(&self) -> u32 {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*self.0).gso_size }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn word_at(&self, offset: u32) -> u16 {
        let mut bytes = [0u8; 2];
        // SAFETY: the helper checks the offset and writes two bytes.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), 2) };
        u16::from_be_bytes(bytes)
    }

    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        // SAFETY: the context is valid for the whole run.
        Some(unsafe { (*self.0).mark })
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

    #[inline(always)]
    fn fix_checksum(&mut self, offset: u32, optional: bool, pseudo: Delta, header: Delta) -> bool {
        let flags = if optional { BPF_F_MARK_MANGLED_0 } else { 0 };
        // The header's own change needs no fixing where the checksum is not computed yet; the
        // pseudo header's does. The helper knows which it is.
        if header != Delta::NONE {
            let sum = header.sum() as u64;
            // SAFETY: plain arguments; the helper checks the offset.
            if unsafe { bpf_l4_csum_replace(self.0, offset, 0, sum, flags) } != 0 {
                return false;
            }
        }
        let (sum, flags) = (pseudo.sum() as u64, flags | BPF_F_PSEUDO_HDR);
        // SAFETY: plain arguments; the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.0, offset, 0, sum, flags) == 0 }
    }
}

/// The program for TC ingress.
#[classifier]
pub fn rvs_tc(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).pkt_type } == PACKET_OTHERHOST {
        return pass(Reason::OtherHost);
    }
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).vlan_present } != 0 && !is_priority_only(&frame) {
        return pass(Reason::Vlan);
    }
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    let action = match ethernet.ethertype.get() {
        ETHERTYPE_IPV4 => balance::<V4>(frame),
        ETHERTYPE_IPV6 => balance::<V6>(frame),
        _ => pass(Reason::NotIp),
    };
    if action == extended::PENDING {
        // SAFETY: the context is this program's own. It returns only if the call failed.
        unsafe { maps::PROGRAMS.tail_call(&ctx, EXTENDED_PROGRAM) };
        return pass(Reason::ExtensionHeader);
    }
    finally(&ctx, action)
}

/// Whether the frame's tag names no VLAN, only a priority; then it is taken off, or the packet would
/// leave with it. Other tags, which the kernel has taken out of the frame by now, are for the VLAN's
/// own interface, where the packet arrives next.
#[inline(never)]
fn is_priority_only(frame: &Frame) -> bool {
    // LLVM would pass what is read of the context instead of the context.
    let frame = Frame(core::hint::black_box(frame.0));
    // SAFETY: the context is valid for the whole run; the helper takes nothing else.
    unsafe { (*frame.0).vlan_tci & VLAN_ID == 0 && bpf_skb_vlan_pop(frame.0) == 0 }
}

/// Calls the program that `action` asks for, if it does, as the last thing that a program does.
#[inline(always)]
pub fn finally(ctx: &TcContext, action: i32) -> i32 {
    // What asks for a program is above all others.
    if action < icmp::PENDING {
        return action;
    }
    if action == tracked::PENDING {
        // SAFETY: the context is the program's own. It returns only if the call failed.
        unsafe { maps::PROGRAMS.tail_call(ctx, TRACKED_PROGRAM) };
        return pass(Reason::PuntTracked);
    }
    if action == fragment::PENDING {
        // SAFETY: as above.
        unsafe { maps::PROGRAMS.tail_call(ctx, FRAGMENT_PROGRAM) };
        return pass(Reason::Fragment);
    }
    if action == related::PENDING {
        // SAFETY: as above.
        unsafe { maps::PROGRAMS.tail_call(ctx, RELATED_PROGRAM) };
        return pass(Reason::Icmp);
    }
    if action == engine::PENDING {
        // SAFETY: as above.
        unsafe { maps::PROGRAMS.tail_call(ctx, ENGINE_PROGRAM) };
        return pass(Reason::PuntEngine);
    }
    called(ctx, action)
}

/// Calls the program that finishes the packet, if `action` asks for one.
#[inline(always)]
pub fn called(ctx: &TcContext, action: i32) -> i32 {
    if action == icmp::PENDING {
        return icmp::call(ctx);
    }
    if action == cover::PENDING {
        return cover::call(ctx);
    }
    if action == bypass::PENDING {
        // SAFETY: the context is the program's own. It returns only if the call failed.
        unsafe { maps::PROGRAMS.tail_call(ctx, BYPASS_PROGRAM) };
        return drop(Reason::NoDest);
    }
    action
}

/// Counts the packet and leaves it to the host.
#[inline(always)]
pub fn pass(reason: Reason) -> i32 {
    Kernel.count(reason);
    NEXT
}

/// Counts the packet and drops it.
#[inline(always)]
pub fn drop(reason: Reason) -> i32 {
    Kernel.count(reason);
    SHOT
}

#[inline(never)]
fn balance<A: icmp::Errors>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let mut flow = match A::parse(&frame) {
        Ok(flow) => flow,
        Err(Reason::Icmp) => return related::PENDING,
        Err(Reason::Fragment) => return fragment::PENDING,
        Err(Reason::ExtensionHeader) => return extended::PENDING,
        Err(reason) => return pass(reason),
    };
    let verdict = resolve(&Kernel, &mut flow);
    slow::show(frame, &flow, &verdict).unwrap_or_else(|| act::<A, true>(frame, &flow, &verdict))
}

/// Does with the packet what was decided. With `COMMIT` its connection is accounted for, not only
/// the packet.
#[inline(always)]
pub fn act<A: icmp::Errors, const COMMIT: bool>(
    frame: Frame,
    flow: &Flow<A>,
    verdict: &Verdict<'_, A>,
) -> i32
where
    Kernel: Tables<A>,
{
    let Verdict::Forward(forward) = verdict else { return refuse(frame, flow, verdict) };
    if forward.dest.mtu.get() != 0 && refuse_too_big(frame, flow, forward) {
        return icmp::PENDING;
    }
    send::<A, COMMIT>(frame, flow, forward)
}

/// Does not send the packet on.
#[inline(always)]
pub fn refuse<A: icmp::Errors>(frame: Frame, flow: &Flow<A>, verdict: &Verdict<'_, A>) -> i32
where
    Kernel: Tables<A>,
{
    match *verdict {
        Verdict::Forward(_) => NEXT,
        Verdict::Pass(Reason::PuntEngine) => engine::PENDING,
        Verdict::Pass(reason) => {
            local::leave_unclaimed(frame);
            pass(reason)
        }
        Verdict::Drop(Reason::NoDest) if bypass::is_on() => bypass::PENDING,
        Verdict::Drop(Reason::NoDest) => unreachable(flow),
        Verdict::Drop(Reason::RealServer) => answer(frame, flow),
        Verdict::Drop(reason) => drop(reason),
    }
}

/// Answers a real server's packet of no connection, as it were once it was routed: what cannot go on
/// anyway is left to the host, which says so. Nobody is told about what was sent to many.
#[inline(never)]
fn answer<A: icmp::Errors>(mut frame: Frame, flow: &Flow<A>) -> i32
where
    Kernel: Tables<A>,
{
    // A super-packet came in pieces that fitted. Of a length of 0 the kernel makes the frame's.
    let is_whole = flow.dont_fragment && frame.gso_size() == 0;
    let len = if is_whole { flow.len.min(u16::MAX as u32) as u16 } else { 1 };
    let dst = flow.key.dst.to_words();
    let Some(route) = route::lookup::<A, _>(frame.0, None, A::FAMILY, dst, len) else {
        return drop(Reason::Inconsistent);
    };
    let source = match route.result {
        route::NOT_FORWARDED => flow.key.dst.to_words(),
        route::SUCCESS | route::NO_NEIGHBOUR if flow.ttl > 1 => {
            let source = answer::source(&Kernel, flow);
            let (Some(source), Some(())) = (source, A::decrement_ttl(&mut frame)) else {
                return drop(Reason::RealServer);
            };
            source
        }
        _ => return pass(Reason::NotOurs),
    };
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).pkt_type } != PACKET_HOST {
        return drop(Reason::RealServer);
    }
    Kernel.count(Reason::RealServer);
    icmp::request(flow, &Message { kind: A::PORT_UNREACHABLE, info: 0, source })
}

/// Tells a packet's sender that no destination is available.
#[inline(always)]
pub fn unreachable<A: icmp::Errors>(flow: &Flow<A>) -> i32 {
    Kernel.count(Reason::NoDest);
    let source = flow.key.dst.to_words();
    icmp::request(flow, &Message { kind: A::PORT_UNREACHABLE, info: 0, source })
}

/// Length that must fit the MTU: the packet's, or for a super-packet that of its segments. When
/// the kernel segments a tunneled TCP super-packet it makes room for the outer header by itself.
#[inline(always)]
fn length<A: Ip>(frame: &Frame, flow: &Flow<A>, forward: &Forward<'_, A>, way: &Way) -> u32 {
    let gso = frame.gso_size();
    if gso == 0 {
        return flow.len + way.extra;
    }
    let headers = flow.l4.wrapping_sub(L3);
    if gso == GSO_BY_FRAGS {
        // Its segments were cut to the sender's MTU, and nothing tells how long they are. No tunnel
        // takes it.
        return if way.extra == 0 { headers } else { u16::MAX as u32 };
    }
    if flow.key.protocol == protocol::TCP as u32 {
        let tcp = frame.at::<Tcp>(flow.l4).map_or(20, |tcp| ((tcp.data_offset >> 4) as u32) * 4);
        let extra = if has_fixed_segments(flow, forward.tunnel()) { way.extra } else { 0 };
        headers + tcp + gso + extra
    } else {
        headers + 8 + gso + way.extra
    }
}

/// Asks for an error about a packet that is too big for the route's own MTU; false if it fits.
///
/// A function of its own for its stack frame, which is then not below that of `send`: on Linux 6.1
/// no word is left there for what outlives the look-up of the route.
#[inline(never)]
fn refuse_too_big<A: icmp::Errors>(frame: Frame, flow: &Flow<A>, forward: &Forward<'_, A>) -> bool {
    let way = forward.way(flow);
    let mtu = forward.exceeded_mtu(length(&frame, flow, forward, &way));
    // One whose segments' length nobody knows is for `send`.
    if mtu == 0
        || frame.gso_size() == GSO_BY_FRAGS
        || forward.takes_pieces(flow, &way) && slow::is_open()
    {
        return false;
    }
    let info = mtu.saturating_sub(way.extra);
    let source = flow.key.dst.to_words();
    icmp::request(flow, &Message { kind: A::TOO_BIG, info, source }) == icmp::PENDING
}

/// Routes, accounts, rewrites and sends the packet.
///
/// A function of its own for its stack frame: scheduling, whose frames are deep as well, is then
/// not on top of it.
#[inline(never)]
fn send<A: icmp::Errors, const COMMIT: bool>(
    mut frame: Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
) -> i32
where
    Kernel: Tables<A>,
{
    let way = forward.way(flow);
    // Errors about a client's packet come from the virtual address, as the host's own would.
    let source =
        if forward.reply { forward.dest.tunnel_source.get() } else { flow.key.dst.to_words() };
    let len = length(&frame, flow, forward, &way).min(u16::MAX as u32) as u16;
    let Some(route) =
        route::lookup(frame.0, Reply::of(forward, &flow.key.src), way.family, way.dst, len)
    else {
        return drop(Reason::Inconsistent);
    };
    if route.result == route::NOT_FORWARDED {
        return local::deliver(frame, flow, forward, route.now);
    }
    if flow.ttl <= 1 {
        Kernel.count(Reason::TtlExceeded);
        return icmp::request(flow, &Message { kind: A::TIME_EXCEEDED, info: 0, source });
    }
    match route.result {
        route::SUCCESS | route::NO_NEIGHBOUR => {}
        route::FRAG_NEEDED if frame.gso_size() == GSO_BY_FRAGS => {
            return slow::segment(frame, flow).unwrap_or_else(|| drop(Reason::TooBig));
        }
        route::FRAG_NEEDED if forward.takes_pieces(flow, &way) && slow::is_open() => {}
        route::FRAG_NEEDED => {
            let info = (route.hop.mtu as u32).saturating_sub(way.extra);
            return icmp::request(flow, &Message { kind: A::TOO_BIG, info, source });
        }
        _ => return drop(Reason::NoRoute),
    }
    // Nobody could answer it: `crosses_local_route_boundary`.
    if frame.is_on_loopback() && flow.key.src.is_loopback() {
        return drop(Reason::NoRoute);
    }
    if COMMIT {
        commit(&Kernel, route.now, flow, forward);
    } else {
        count(&Kernel, flow, forward);
    }
    let rewritten = if way.extra != 0 {
        encapsulate(&mut frame, flow, forward, &way)
    } else {
        rewrite(&mut frame, flow, forward)
    };
    if rewritten.is_none() {
        return drop(Reason::RewriteFailed);
    }
    finish(&mut frame, &route, flow, forward, &way, len as u32)
}

/// Puts the outer headers in front. A function of its own to keep `send`'s stack frame small.
#[inline(never)]
pub fn encapsulate<A: Ip>(
    frame: &mut Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
    way: &Way,
) -> Option<()> {
    A::decrement_ttl(frame)?;
    let tunnel = forward.tunnel();
    let mut flags = if matches!(way.family, Family::V4) {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    };
    if tunnel.is_gue() {
        flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
    } else if tunnel.is_gre() {
        flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
    }
    if has_fixed_segments(flow, tunnel) {
        flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
    }
    // SAFETY: plain arguments.
    let done = unsafe { bpf_skb_adjust_room(frame.0, way.extra as i32, BPF_ADJ_ROOM_MAC, flags) };
    if done != 0 {
        return None;
    }
    tunnel::write(&Kernel, frame, flow, forward.dest, way)
}

/// Whether a super-packet's segments keep their length in a tunnel. Those of TCP shrink to make
/// room for the outer headers, but where a checksum covers them: all full is all alike.
#[inline(always)]
fn has_fixed_segments<A: Ip>(flow: &Flow<A>, tunnel: Tunnel) -> bool {
    flow.key.protocol != protocol::TCP as u32 || tunnel.has_checksum()
}

/// Sends the frame, `len` bytes with its outer headers, out as [`transmit`] does; if it is too big for the
/// tunnel, by way of rvsd. If the outer header has a checksum, the result asks for
/// [`rvs_cover`](crate::cover::rvs_cover), which computes it first.
#[inline(always)]
pub fn finish<A: Ip>(
    frame: &mut Frame,
    route: &Route,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
    way: &Way,
    len: u32,
) -> i32 {
    let mtu = if forward.takes_pieces(flow, way) { too_small(route, forward, len) } else { 0 };
    let action = if mtu != 0 {
        let [source, ..] = flow.key.src.to_words();
        slow::send_in_pieces(*frame, route.hop.ethertype(), source, mtu)
    } else {
        transmit(frame, route)
    };
    // Not asked before: see `xdp::send`.
    if forward.is_covered(way) && action == cover::REDIRECT { cover::PENDING } else { action }
}

/// The MTU that a packet of `len` bytes is too big for; 0 if it fits.
#[inline(always)]
fn too_small<A: Ip>(route: &Route, forward: &Forward<'_, A>, len: u32) -> u32 {
    let mtu = forward.exceeded_mtu(len);
    let limit = route.hop.mtu as u32;
    if route.result != route::FRAG_NEEDED || mtu != 0 && mtu < limit {
        return mtu;
    }
    limit
}

/// Sends the frame out: with the neighbour's address, or by way of its resolution.
#[inline(always)]
pub fn transmit(frame: &mut Frame, route: &Route) -> i32 {
    if route.result == route::NO_NEIGHBOUR {
        let mut hop = route.hop.neighbour();
        // SAFETY: `hop` is a live struct of the size that is passed.
        return unsafe {
            bpf_redirect_neigh(route.hop.ifindex, &mut hop, size_of_val(&hop) as i32, 0) as i32
        };
    }
    let Some(ethernet) = frame.at_mut::<Ethernet>(0) else {
        return drop(Reason::RewriteFailed);
    };
    ethernet.set_addresses(route.hop.dmac, route.hop.smac);
    ethernet.ethertype.set(route.hop.ethertype());
    // SAFETY: plain arguments.
    unsafe { bpf_redirect(route.hop.ifindex, 0) as i32 }
}
