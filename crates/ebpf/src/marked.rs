//! Packets that netfilter marked, which TC ingress sees too early: rvsd has them routed to a device
//! of its own, whose egress turns them round into the loopback, where `rvs_tc` sees their mark. And replies to
//! clients on the director, of connections that netfilter tracks.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::flow::Ip;
use rvs_core::packet::Packet as _;
use rvs_core::reason::Reason;
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};

use crate::local::to_loopback;
use crate::tc::{Frame, HEADERS, drop};
use crate::tracked;

/// The program for that device's egress. Nothing else is to leave by it.
#[classifier]
pub fn rvs_marked(ctx: TcContext) -> i32 {
    let mut frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return drop(Reason::Malformed) };
    let ethertype = ethernet.ethertype.get();
    // SAFETY: the context is valid for the whole run.
    let was_routed = unsafe { (*frame.0).ingress_ifindex } != 0;
    let restored = match ethertype {
        ETHERTYPE_IPV4 if was_routed => V4::restore_ttl(&mut frame),
        ETHERTYPE_IPV6 if was_routed => V6::restore_ttl(&mut frame),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Some(()),
        _ => None,
    };
    match restored {
        Some(()) if tracked::is_own_reply(frame) => tracked::give_back(frame),
        Some(()) => to_loopback(&mut frame),
        None => drop(Reason::NotIp),
    }
}
