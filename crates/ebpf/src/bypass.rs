//! Packets that found no destination and may go to their own address (`cache_bypass`); TC only. A
//! program of its own, called by tail call, for the stack's sake and because only first packets come here.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::bypass;
use rvs_core::env::{Env, Tables};
use rvs_core::flow::Flow;
use rvs_core::fragment::Fragments;
use rvs_core::packet::Packet as _;
use rvs_core::pe;
use rvs_core::pipeline::{dropped, mark, refusal};
use rvs_core::reason::Reason;
use rvs_core::types::Family;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet};

use crate::engine::{self, Steps};
use crate::env::Kernel;
use crate::fragment::HEADERS;
use crate::route;
use crate::tc::{self, Frame};

/// What the program that was attached returns to itself: it is to call [`rvs_bypass`].
pub const PENDING: i32 = 1 << 24;

/// Whether packets that find no destination may go to their own address.
#[inline(always)]
pub fn is_on() -> bool {
    bypass::is_on::<V4, _>(&Kernel)
}

/// Enters a connection without a destination, which [`rvs_tc`](tc::rvs_tc) then finds.
#[classifier]
pub fn rvs_bypass(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return tc::pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        enter::<V4>(frame)
    } else {
        enter::<V6>(frame)
    };
    engine::entered(&ctx, action, Reason::NoDest)
}

/// The steps, each of a stack frame that is not below the others'.
#[inline(always)]
fn enter<A: Open>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let Some(flow) = A::flow() else { return tc::drop(Reason::Inconsistent) };
    if !read(frame, flow) {
        return tc::pass(Reason::Malformed);
    }
    // An IPv6 address of the director's is as good as any to the kernel, until the packet is to leave.
    if matches!(A::FAMILY, Family::V4) && !leads_away(frame, flow) {
        return tc::unreachable(flow);
    }
    match A::open(flow) {
        pe::GO_ON => engine::ONCE,
        pe::AGAIN => engine::AGAIN,
        code if code == dropped(Reason::NoDest) => tc::unreachable(flow),
        code => tc::refuse(frame, flow, &refusal(code)),
    }
}

/// Reads the packet's headers, or those of a first fragment. False if it has none, which is not so: they
/// were read before.
#[inline(never)]
fn read<A: Steps + Fragments>(frame: Frame, flow: &mut Flow<A>) -> bool
where
    Kernel: Tables<A>,
{
    // LLVM would pass what is read of the context instead of the context.
    let frame = Frame(core::hint::black_box(frame.0));
    let read = match A::parse_all(&Kernel, &frame) {
        Err(Reason::Fragment) => A::fragment(&Kernel, &frame).map(|fragment| fragment.flow),
        read => read,
    };
    let Ok(read) = read else { return false };
    *flow = read;
    if let Some(config) = Kernel.config() {
        mark(&Kernel, config, flow);
    }
    true
}

/// Whether a route leads to the packet's address, out of the director.
#[inline(never)]
fn leads_away<A: Steps>(frame: Frame, flow: &Flow<A>) -> bool {
    let frame = Frame(core::hint::black_box(frame.0));
    route::lookup::<A, _>(frame.0, None, A::FAMILY, flow.key.dst.to_words(), 0)
        .is_some_and(|route| route.result != route::NOT_FORWARDED)
}

/// [`bypass::open`] of an address family, a global function: the verifier follows it once.
trait Open: Steps + Fragments {
    /// See [`bypass::open`].
    fn open(flow: &Flow<Self>) -> u32;
}

macro_rules! global {
    ($addr:ty: $open:ident) => {
        /// See [`bypass::open`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $open(flow: *const Flow<$addr>) -> u32 {
            // SAFETY: the verifier proves that it spans a flow if it is not null.
            unsafe { flow.as_ref() }
                .map_or(dropped(Reason::Inconsistent), |flow| bypass::open(&Kernel, flow))
        }

        impl Open for $addr {
            #[inline(always)]
            fn open(flow: &Flow<Self>) -> u32 {
                $open(flow)
            }
        }
    };
}
global!(V4: rvs_open4);
global!(V6: rvs_open6);
