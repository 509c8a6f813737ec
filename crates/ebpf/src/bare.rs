//! Packets of devices without an Ethernet header, as the far ends of tunnels are: they get one, which the
//! kernel takes off before anybody else sees it. TC only.

use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_skb_change_head, bpf_skb_load_bytes_relative, bpf_skb_store_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::reason::Reason;
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv6};

use crate::maps::{self, TC_PROGRAM};
use crate::tc;

/// `BPF_F_INGRESS`
const INGRESS: u64 = 1;
/// `BPF_HDR_START_NET`
const HDR_START_NET: u32 = 1;
/// Where IPv4 has its total length, and IPv6 the length of what follows its header.
const TOTAL_LEN: u32 = 2;
const PAYLOAD_LEN: u32 = 4;
/// Where Ethernet has its type.
const ETHERTYPE: u32 = 12;

/// `tc_index` of a packet whose outer headers were taken off: only programs of this host can write it.
const UNCOVERED: u32 = 0x7277;

/// The program for TC ingress of such a device.
#[classifier]
pub fn rvs_bare(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid for the whole run.
    let (ethertype, len) = unsafe { ((*skb).protocol as u16, (*skb).len) };
    let (offset, header) = match u16::from_be(ethertype) {
        ETHERTYPE_IPV4 => (TOTAL_LEN, 0),
        ETHERTYPE_IPV6 => (PAYLOAD_LEN, Ipv6::LEN as u32),
        _ => return tc::pass(Reason::NotIp),
    };
    let mut bytes = [0u8; 2];
    let place = bytes.as_mut_ptr().cast();
    // SAFETY: the helper checks the offset and writes two bytes.
    if unsafe { bpf_skb_load_bytes_relative(skb.cast(), offset, place, 2, HDR_START_NET) } != 0 {
        return tc::pass(Reason::Malformed);
    }
    // GRE's devices leave what was around the packet in front of it. Coming in anew it has lost that.
    // SAFETY: as above; a plain number that nobody else uses before the packet comes back.
    if unsafe { (*skb).tc_index } == UNCOVERED {
        unsafe { (*skb).tc_index = 0 };
    } else if len > u16::from_be_bytes(bytes) as u32 + header {
        // SAFETY: as above.
        unsafe { (*skb).tc_index = UNCOVERED };
        // SAFETY: plain arguments.
        return unsafe { bpf_redirect((*skb).ifindex, INGRESS) as i32 };
    }
    let place = (&raw const ethertype).cast();
    // SAFETY: plain arguments, and two bytes to read.
    let covered = unsafe {
        bpf_skb_change_head(skb, size_of::<Ethernet>() as u32, 0) == 0
            && bpf_skb_store_bytes(skb.cast(), ETHERTYPE, place, 2, 0) == 0
    };
    if covered {
        // SAFETY: the context is this program's own. It returns only if the call failed.
        unsafe { maps::PROGRAMS.tail_call(&ctx, TC_PROGRAM) };
    }
    tc::pass(Reason::Malformed)
}
