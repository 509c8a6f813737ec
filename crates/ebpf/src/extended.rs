//! Packets with IPv4 options or IPv6 extension headers; TC only. A program of its own, called by tail
//! call: they are rare, and finding what lies behind those headers costs others nothing.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::env::Tables;
use rvs_core::flow::Flow;
use rvs_core::headers::MOST_OFFSET;
use rvs_core::packet::Packet as _;
use rvs_core::pipeline::resolve;
use rvs_core::reason::Reason;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet, Tcp};

use crate::env::Kernel;
use crate::tc::{self, Frame, pass};
use crate::{fragment, icmp, related, slow};

/// What the program that was attached returns to itself: it is to call [`rvs_extended`].
pub const PENDING: i32 = 1 << 19;

/// Balances a packet as `rvs_tc` does others.
#[classifier]
pub fn rvs_extended(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(MOST_OFFSET + size_of::<Tcp>() as u32);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        balance::<V4>(frame)
    } else {
        balance::<V6>(frame)
    };
    tc::finally(&ctx, action)
}

#[inline(never)]
fn balance<A: icmp::Errors>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let mut flow = Flow::default();
    match parse::<A>(frame, &mut flow) {
        BALANCE => {
            let verdict = resolve(&Kernel, &mut flow);
            slow::show(frame, &flow, &verdict)
                .unwrap_or_else(|| tc::act::<A, true>(frame, &flow, &verdict))
        }
        action => action,
    }
}

/// What [`parse`] returns of a packet that can be balanced.
pub const BALANCE: i32 = 0;

/// What to do with the packet. A function of its own, whose stack frame is gone when the packet is
/// sent; of a `Result` here the verifier refuses the type information.
#[inline(never)]
pub fn parse<A: icmp::Errors>(frame: Frame, flow: &mut Flow<A>) -> i32 {
    match A::parse_all(&Kernel, &frame) {
        Ok(parsed) => {
            *flow = parsed;
            BALANCE
        }
        Err(Reason::Icmp) => related::PENDING,
        Err(Reason::Fragment) => fragment::PENDING,
        Err(reason) => pass(reason),
    }
}
