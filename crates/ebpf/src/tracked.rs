//! Packets of connections that netfilter tracks (`conntrack`): those that it translates are accounted for
//! here and left to the stack, as are others, which come back by the loopback; TC only. Programs of their
//! own: they are called, or attached, for such connections alone.

use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::conn::{APP, Word};
use rvs_core::env::{Env as _, Tables};
use rvs_core::flow::Flow;
use rvs_core::fragment::Fragments;
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::commit;
use rvs_core::reason::Reason;
use rvs_core::tracked::{
    DIRECT_PRIORITY, OWN_PRIORITY, REPLY_PRIORITY, give_up, incoming, is_own, meet, outgoing,
    priority,
};
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};

use crate::engine::{AGAIN, Steps};
use crate::env::Kernel;
use crate::fragment::HEADERS;
use crate::local::{to_loopback, unclaim};
use crate::maps::{self, LOCAL_PROGRAM, TC_PROGRAM};
use crate::route::LOOPBACK;
use crate::slow;
use crate::tc::{Frame, NEXT, drop, pass};

/// What the program that was attached returns to itself: it is to call [`rvs_tracked`].
pub const PENDING: i32 = 1 << 25;

/// `tc_index` of a packet of the director's own that netfilter did not track, turned round into the loopback: its
/// priority gets lost on the way. Only programs of this host can write it.
const UNTRACKED: u32 = 0x7277;
/// The same once nothing tells netfilter any more that it is not to track it.
const FRESH: u32 = 0x7278;

/// Leaves a packet that came in to netfilter, and tells it the destination.
#[classifier]
pub fn rvs_tracked(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        leave::<V4>(frame)
    } else {
        leave::<V6>(frame)
    };
    if action != AGAIN {
        return action;
    }
    // SAFETY: the context is the program's own. It returns only if the call failed.
    unsafe { maps::PROGRAMS.tail_call(&ctx, TC_PROGRAM) };
    pass(Reason::Inconsistent)
}

/// The director's own packets come by the loopback, and go once more the way of others' if they can.
#[inline(never)]
fn leave<A: Steps + Fragments>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let Some(flow) = A::flow() else { return pass(Reason::Inconsistent) };
    if !read::<A>(frame, flow) {
        return pass(Reason::Malformed);
    }
    // It ended meanwhile.
    let Some(forward) = incoming(&Kernel, flow) else { return pass(Reason::NoConnection) };
    if frame.is_on_loopback() && !is_fresh(frame) {
        let own = Kernel.config().is_some_and(|config| is_own(config, A::FAMILY, &forward));
        if own && is_untracked(frame) {
            return refresh(frame);
        }
        give_up(&Kernel, forward.entry);
        return AGAIN;
    }
    if forward.reply {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*frame.0).priority = REPLY_PRIORITY };
        return pass(Reason::Tracked);
    }
    if !forward.is_masqueraded() {
        unclaim(frame);
        // SAFETY: as above.
        unsafe { (*frame.0).priority = DIRECT_PRIORITY };
        return pass(Reason::Tracked);
    }
    commit(&Kernel, Kernel.now(), flow, &forward);
    meet(&Kernel, forward.entry);
    // SAFETY: the context is valid for the whole run.
    unsafe { (*frame.0).priority = priority(&forward) };
    NEXT
}

/// Whether netfilter did not track a packet of the director's own.
#[inline(always)]
fn is_untracked(frame: Frame) -> bool {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*frame.0).priority == OWN_PRIORITY || (*frame.0).tc_index == UNTRACKED }
}

/// Has such a packet come in once more, as if its sender were elsewhere: the redirection takes off it that it is
/// not to be tracked.
#[inline(always)]
fn refresh(mut frame: Frame) -> i32 {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*frame.0).tc_index = FRESH };
    to_loopback(&mut frame)
}

/// Whether the packet has come in once more; only once.
#[inline(always)]
fn is_fresh(frame: Frame) -> bool {
    // SAFETY: the context is valid for the whole run.
    let fresh = unsafe { (*frame.0).tc_index } == FRESH;
    if fresh {
        // SAFETY: as above.
        unsafe { (*frame.0).tc_index = 0 };
    }
    fresh
}

/// Notes what is to be known on the loopback of a packet that is turned round into it.
#[inline(always)]
pub fn remember(frame: Frame) {
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).priority } == OWN_PRIORITY {
        // SAFETY: as above.
        unsafe { (*frame.0).tc_index = UNTRACKED };
    }
}

/// Whether what leaves by the device of marked packets is a reply to a client on the director.
#[inline(always)]
pub fn is_own_reply(frame: Frame) -> bool {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*frame.0).priority == REPLY_PRIORITY }
}

/// Sends such a reply, which has the virtual address again, by the loopback, where it counts: elsewhere its source
/// were a martian. It is not redirected to the loopback's ingress, as what netfilter knows of it would be taken off
/// it.
#[inline(always)]
pub fn give_back(mut frame: Frame) -> i32 {
    // Else the loopback would route it where it was routed before.
    unclaim(frame);
    let Some(ethernet) = frame.at_mut::<Ethernet>(0) else { return drop(Reason::RewriteFailed) };
    (ethernet.dst, ethernet.src) = ([0; 6], [0; 6]);
    // SAFETY: the context is valid for the whole run.
    unsafe { (*frame.0).priority = 0 };
    // SAFETY: plain arguments.
    unsafe { bpf_redirect(LOOPBACK, 0) as i32 }
}

/// Reads the packet's headers, or those of a first fragment. False if it has none of those that are
/// balanced.
#[inline(never)]
fn read<A: Fragments>(frame: Frame, flow: &mut Flow<A>) -> bool {
    // LLVM would pass what is read of the context instead of the context.
    let frame = Frame(core::hint::black_box(frame.0));
    let read = match A::parse_all(&Kernel, &frame) {
        Err(Reason::Fragment) => A::fragment(&Kernel, &frame).and_then(|fragment| {
            if fragment.first { Ok(fragment.flow) } else { Err(Reason::Fragment) }
        }),
        read => read,
    };
    let Ok(read) = read else { return false };
    *flow = read;
    true
}

/// The program for TC egress while connections are tracked: accounts for replies, which have the virtual
/// address again; then what [`rvs_local`](crate::local::rvs_local) does.
#[classifier]
pub fn rvs_replies(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    // What has a tag was counted as it left the VLAN's own interface.
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).vlan_present } == 0 {
        frame.pull(HEADERS);
        let Some(ethernet) = frame.at::<Ethernet>(0) else { return NEXT };
        let action = match ethernet.ethertype.get() {
            ETHERTYPE_IPV4 => account::<V4>(frame),
            ETHERTYPE_IPV6 => account::<V6>(frame),
            _ => return NEXT,
        };
        if action != NEXT {
            return action;
        }
    }
    // The loopback has its own packets for rvs_tc.
    // SAFETY: as above.
    if unsafe { (*frame.0).ingress_ifindex } == 0 && !frame.is_on_loopback() {
        // SAFETY: the context is the program's own. It returns only if the call failed.
        unsafe { maps::PROGRAMS.tail_call(&ctx, LOCAL_PROGRAM) };
    }
    NEXT
}

/// [`NEXT`] unless rvsd is to see the packet first.
#[inline(never)]
fn account<A: Steps + Fragments>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let Some(flow) = A::flow() else { return NEXT };
    if read::<A>(frame, flow)
        && let Some(forward) = outgoing(&Kernel, flow)
    {
        if Word(forward.entry.word.get()).has(APP)
            && let Some(action) = slow::inspect_leaving(frame, flow)
        {
            return action;
        }
        commit(&Kernel, Kernel.now(), flow, &forward);
    }
    NEXT
}
