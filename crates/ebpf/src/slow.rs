//! The slow path: a frame goes to rvsd, which decides and puts it back; TC only.
//!
//! ```text
//!  interface ─► rvs_tc ─► redirect ─► TAP device ─► rvsd reads, holds, cuts
//!      ▲                                                    │ writes
//!      └──── rvs_back: redirect to ingress ◄── TAP device ◄─┘
//! ```
//!
//! The destination's MAC address, which is the interface's own, carries a [`Ticket`] meanwhile. A tunnel's
//! packet that is sent in pieces (`pmtu_disc` 0) comes here as it would have left, and `rvs_back` sends them.

use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::V6;
use rvs_core::app;
use rvs_core::conn::{APP, TRACKED, Word};
use rvs_core::env::{Env, Tables};
use rvs_core::flow::{Flow, Ip, L3};
use rvs_core::fragment::{Notes, Ticket};
use rvs_core::layout::INTERFACE_KNOWN;
use rvs_core::packet::Packet;
use rvs_core::pipeline::Verdict;
use rvs_core::reason::Reason;
use rvs_core::tracked::is_left;
use rvs_core::types::Family;
use rvs_wire::{Ethernet, Ipv4, Ipv6, Tcp};

use crate::env::Kernel;
use crate::maps;
use crate::route;
use crate::tc::{self, Frame, HEADERS, drop};
use crate::tracked;

/// Elements of `SLOW_BUDGET`: sources, and all together.
pub const BUDGETS: u32 = SOURCES + 1;
/// Sources are told apart by so many values of a hash.
const SOURCES: u32 = 256;
/// Frames a tick (134 ms) and CPU that sources with one hash may send to rvsd.
const SOURCE_BUDGET: u32 = 1024;
/// Frames a tick and CPU that all may send.
const BUDGET: u32 = 4096;
/// `tc_index` of a packet that rvsd has inspected: only programs of this host can write it.
const INSPECTED: u32 = 0x7276;
/// `BPF_F_INGRESS`
const BPF_F_INGRESS: u64 = 1;

/// Takes one from what may be sent in this tick.
#[inline(always)]
fn is_within(index: u32, most: u32, now: u32) -> bool {
    let Some(budget) = maps::SLOW_BUDGET.get_ptr_mut(index) else { return false };
    // SAFETY: this CPU's own element.
    let [tick, sent] = unsafe { *budget };
    let sent = if tick == now { sent } else { 0 };
    // SAFETY: this CPU's own element.
    unsafe { *budget = [now, sent.saturating_add(1)] };
    sent < most
}

/// Whether another frame of this source may be sent in this tick.
#[inline(always)]
fn may_send(source: u32, now: u32) -> bool {
    let bucket = source.wrapping_mul(0x9e37_79b1) >> 24;
    is_within(bucket, SOURCE_BUDGET, now) && is_within(SOURCES, BUDGET, now)
}

/// Whether rvsd reads.
#[inline(always)]
pub fn is_open() -> bool {
    Kernel.slow().is_some_and(|slow| slow.is_open(Kernel.now()))
}

/// Hands a tunnel's packet, about one from `source`, to rvsd, which sends it in pieces of `mtu` bytes
/// at most.
#[inline(never)]
pub fn send_in_pieces(frame: Frame, ethertype: u16, source: u32, mtu: u32) -> i32 {
    // LLVM would pass what is read of the context instead of the context, as numbers.
    let mut frame = Frame(core::hint::black_box(frame.0));
    let Some(slow) = Kernel.slow() else { return drop(Reason::Inconsistent) };
    if !may_send(source, Kernel.now().0) {
        return drop(Reason::FragmentLimit);
    }
    let Some(ethernet) = frame.at_mut::<Ethernet>(0) else { return drop(Reason::RewriteFailed) };
    ethernet.dst = Ticket { ifindex: Ticket::OUT, mtu: mtu as u16 }.to_mac();
    let [a, b, c, d] = Kernel.random().to_ne_bytes();
    ethernet.src = [a, b, c, d, 0, 0];
    ethernet.ethertype.set(ethertype);
    Kernel.count(Reason::SlowTooBig);
    // SAFETY: plain arguments.
    unsafe { bpf_redirect(slow.ifindex.get(), 0) as i32 }
}

/// Hands the frame to rvsd. `source` is a word of the sender's address, `mtu` what to cut to, or
/// 0. `None` if no rvsd reads, or it could not put the frame back.
#[inline(never)]
pub fn hand_over(frame: Frame, reason: Reason, source: u32, mtu: u32) -> Option<i32> {
    let now = Kernel.now();
    let device = Kernel.slow().filter(|slow| slow.is_open(now))?.ifindex.get();
    // SAFETY: the context is valid for the whole run.
    let (ifindex, tagged) = unsafe { ((*frame.0).ifindex, (*frame.0).vlan_present) };
    if tagged != 0 || maps::INTERFACES.get(ifindex)?.flags & INTERFACE_KNOWN == 0 {
        return None;
    }
    if !may_send(source, now.0) {
        return Some(drop(Reason::FragmentLimit));
    }
    let mut frame = frame;
    let ethernet = frame.at_mut::<Ethernet>(0)?;
    let ticket = Ticket { ifindex, mtu: mtu as u16 };
    if ticket.mtu == Ticket::LEAVING {
        ethernet.src = ethernet.dst;
    }
    ethernet.dst = ticket.to_mac();
    Kernel.count(reason);
    // SAFETY: plain arguments.
    Some(unsafe { bpf_redirect(device, 0) as i32 })
}

/// Hands an IPv4 packet without DF to rvsd, to be cut into fragments of `mtu` bytes at most.
#[inline(never)]
pub fn cut(frame: Frame, mtu: u32) -> Option<i32> {
    let ip = frame.at::<Ipv4>(L3)?;
    // A super-packet was cut by its sender already; its segments are what is too big.
    if ip.fragment.get() & Ipv4::DF != 0 || frame.gso_size() != 0 {
        return None;
    }
    hand_over(frame, Reason::SlowTooBig, u32::from_ne_bytes(ip.src), mtu)
}

/// The same of what nobody is told about: dropped if it cannot be cut.
#[inline(never)]
pub fn cut_or_drop<A: Ip>(frame: Frame, mtu: u32) -> i32 {
    let cut = match A::FAMILY {
        Family::V4 => cut(frame, mtu),
        Family::V6 => None,
    };
    cut.unwrap_or_else(|| drop(Reason::TooBig))
}

/// Hands a super-packet to rvsd that cannot be tunneled as it is (SCTP's): the kernel cuts it into its
/// segments for rvsd's device, and they come back one by one.
#[inline(never)]
pub fn segment<A: Ip>(frame: Frame, flow: &Flow<A>) -> Option<i32> {
    let [a, b, ..] = flow.key.src.to_words();
    hand_over(frame, Reason::SlowTooBig, a ^ b, Ticket::SEGMENT.into())
}

/// Hands the packet to netfilter if that translates it, or to rvsd if an application helper is to see it
/// first, as far as the verdict tells.
#[inline(always)]
pub fn show<A: Ip>(frame: Frame, flow: &Flow<A>, verdict: &Verdict<'_, A>) -> Option<i32>
where
    Kernel: Tables<A>,
{
    match verdict {
        Verdict::Forward(forward) if Word(forward.entry.word.get()).has(APP | TRACKED) => {
            let word = Word(forward.entry.word.get());
            // What netfilter will translate for the client is read as it leaves.
            if word.has(APP)
                && !(word.has(TRACKED) && forward.reply)
                && let Some(action) = inspect(frame, flow)
            {
                return Some(action);
            }
            is_left(word, frame.is_on_loopback()).then_some(tracked::PENDING)
        }
        Verdict::Pass(Reason::NotOurs) => meet(frame, flow),
        _ => None,
    }
}

/// Hands data of a connection with an application helper to rvsd, which may change it. `None` if
/// there is none, or rvsd has seen it.
#[inline(never)]
pub fn inspect<A: Ip>(frame: Frame, flow: &Flow<A>) -> Option<i32> {
    show_data(frame, flow, flow.key.src, Ticket::INSPECT)
}

/// The same of a packet that leaves for a client, which netfilter has translated.
#[inline(never)]
pub fn inspect_leaving<A: Ip>(frame: Frame, flow: &Flow<A>) -> Option<i32> {
    show_data(frame, flow, flow.key.dst, Ticket::LEAVING)
}

/// Hands a packet to rvsd that has data, unless it was there. `addr` is the client's or the server's.
#[inline(always)]
fn show_data<A: Ip>(frame: Frame, flow: &Flow<A>, addr: A, what: u16) -> Option<i32> {
    // LLVM would pass what is read of the context instead of the context, as numbers.
    let frame = Frame(core::hint::black_box(frame.0));
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*frame.0).tc_index } == INSPECTED {
        // SAFETY: as above; a plain number that nobody else uses before the packet leaves.
        unsafe { (*frame.0).tc_index = 0 };
        return None;
    }
    let header = ((frame.at::<Tcp>(flow.l4)?.data_offset >> 4) as u32) * 4;
    if flow.len <= flow.l4.wrapping_sub(L3) + header {
        return None;
    }
    let [a, b, ..] = addr.to_words();
    hand_over(frame, Reason::SlowApp, a ^ b, what.into())
}

/// Whether it is the first packet of a client that is expected.
#[inline(always)]
pub fn is_expected<A: Ip>(flow: &Flow<A>) -> bool
where
    Kernel: Tables<A>,
{
    app::opens(&flow.key, flow.tcp_flags)
        && Kernel.slow().is_some_and(|slow| slow.expects(Kernel.now()))
        && Kernel.find(&app::expectation(&flow.key)) != 0
}

/// Hands the first packet of a client that is expected to rvsd, which enters the connection. `None`
/// if it is not expected.
#[inline(never)]
pub fn meet<A: Ip>(frame: Frame, flow: &Flow<A>) -> Option<i32>
where
    Kernel: Tables<A>,
{
    if !is_expected(flow) {
        return None;
    }
    let [a, b, ..] = flow.key.src.to_words();
    hand_over(frame, Reason::SlowApp, a ^ b, Ticket::INSPECT.into())
}

/// Sends a piece of a tunnel's packet.
#[inline(never)]
fn out(mut frame: Frame) -> i32 {
    frame.pull(HEADERS);
    let (family, dst) = if let Some(ip) = frame.at::<Ipv4>(L3).filter(|ip| ip.version_ihl >> 4 == 4)
    {
        (Family::V4, [u32::from_ne_bytes(ip.dst), 0, 0, 0])
    } else if let Some(ip) = frame.at::<Ipv6>(L3) {
        (Family::V6, rvs_wire::transmute!(ip.dst))
    } else {
        return drop(Reason::Malformed);
    };
    // The kernel takes a length of 0 for the frame's.
    let Some(route) = route::lookup::<V6, _>(frame.0, None, family, dst, 1) else {
        return drop(Reason::Inconsistent);
    };
    match route.result {
        route::SUCCESS | route::NO_NEIGHBOUR => tc::transmit(&mut frame, &route),
        _ => drop(Reason::NoRoute),
    }
}

/// The program for ingress of rvsd's device: puts a frame back where it came from, at ingress or at egress, or
/// sends it out.
#[classifier]
pub fn rvs_back(ctx: TcContext) -> i32 {
    let mut frame = Frame(ctx.skb.skb);
    frame.pull(size_of::<Ethernet>() as u32);
    let Some(ethernet) = frame.at_mut::<Ethernet>(0) else { return drop(Reason::Malformed) };
    let ticket = Ticket::from_mac(ethernet.dst);
    let leaving = ticket.mtu == Ticket::LEAVING;
    if ticket.mtu == Ticket::INSPECT || leaving {
        // SAFETY: the context is valid for the whole run. The number stays with the packet.
        unsafe { (*ctx.skb.skb).tc_index = INSPECTED };
    }
    if ticket.ifindex == Ticket::OUT {
        return out(frame);
    }
    match maps::INTERFACES.get(ticket.ifindex) {
        Some(interface) if interface.flags & INTERFACE_KNOWN != 0 => {
            let flags = if leaving {
                (ethernet.dst, ethernet.src) = (ethernet.src, interface.mac);
                0
            } else {
                ethernet.dst = interface.mac;
                BPF_F_INGRESS
            };
            // SAFETY: plain arguments.
            unsafe { bpf_redirect(ticket.ifindex, flags) as i32 }
        }
        _ => drop(Reason::Inconsistent),
    }
}
