//! The way out, by the kernel's own routing table, looked up once a tick and CPU for each
//! destination: a change of routes or neighbours is seen a tick later at the latest, 134 ms, whether
//! rvsd runs or not.

use core::ffi::c_void;

use aya_ebpf::bindings::{bpf_fib_lookup as FibParams, bpf_redir_neigh};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use rvs_core::env::Env as _;
use rvs_core::time::Tick;
use rvs_core::types::Family;

use crate::env::Kernel;
use crate::maps;

/// `BPF_FIB_LKUP_RET_SUCCESS`
pub const SUCCESS: u32 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`
pub const NO_NEIGHBOUR: u32 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`
pub const FRAG_NEEDED: u32 = 8;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`: local, or no unicast route.
pub const NOT_FORWARDED: u32 = 4;

/// Looks up as if the host itself sent: the loopback's index as the incoming interface. That is
/// what IPVS does (`ip_route_output_key`), and it asks for forwarding to be on only on `lo`, which
/// rvsd switches on, not on the interface that the packet came in by.
pub const LOOPBACK: u32 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A way out.
pub struct Route {
    /// The helper's answer.
    pub result: u32,
    /// When it was asked for.
    pub now: Tick,
    /// What it said, until this CPU asks again.
    pub hop: &'static Hop,
}

/// `HOPS`: the latest answer for one of the destinations that share the place.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Hop {
    dst: [u32; 4],
    /// When it was given; 0 if it is not to be used again.
    tick: u32,
    /// `AF_INET` or `AF_INET6`.
    family: u32,
    /// Interface; [`LOOPBACK`] after [`NOT_FORWARDED`].
    pub ifindex: u32,
    /// MTU: of the way out, or the one that was too small, after [`FRAG_NEEDED`].
    pub mtu: u32,
    /// The neighbour's MAC address.
    pub dmac: [u8; 6],
    /// The interface's MAC address.
    pub smac: [u8; 6],
    /// The neighbour's family: a gateway's may be another.
    next_family: u32,
    /// The neighbour, words in network byte order.
    next: [u32; 4],
}

/// Elements of `HOPS`, a power of two.
pub const HOPS: u32 = 1024;

/// Routes a packet of `len` bytes from the IP header on to `dst` (words in network byte order).
/// With `len` 0 the MTU is not looked at. `None` never happens.
#[inline(always)]
pub fn lookup(ctx: *mut c_void, family: Family, dst: [u32; 4], len: u16) -> Option<Route> {
    let now = Kernel.now();
    let [a, b, c, d] = dst;
    let index = (a ^ b ^ c ^ d).wrapping_mul(0x9e37_79b1) >> (32 - HOPS.trailing_zeros());
    let hop = maps::HOPS.get_ptr_mut(index)?;
    let family = if matches!(family, Family::V4) { AF_INET } else { AF_INET6 };
    // SAFETY: this CPU's own element; nothing writes it while the packet is processed but `ask`.
    let known = unsafe { &*hop };
    let [e, f, g, h] = known.dst;
    let result = if known.tick == now.0
        && (a, b, c, d) == (e, f, g, h)
        && known.family == family as u32
        && len as u32 <= known.mtu
    {
        if known.ifindex == LOOPBACK { NOT_FORWARDED } else { SUCCESS }
    } else {
        // SAFETY: as above.
        let place = unsafe { &mut *hop };
        (place.dst, place.tick, place.family) = (dst, now.0, family as u32);
        ask(ctx, place, len)
    };
    // SAFETY: as above.
    Some(Route { result, now, hop: unsafe { &*hop } })
}

/// Asks the kernel. A function of its own: its stack frame is not below those of what comes after.
#[inline(never)]
fn ask(ctx: *mut c_void, hop: &mut Hop, len: u16) -> u32 {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut params: FibParams = unsafe { core::mem::zeroed() };
    params.family = hop.family as u8;
    params.ifindex = LOOPBACK;
    params.__bindgen_anon_1.tot_len = len;
    if params.family == AF_INET {
        params.__bindgen_anon_4.ipv4_dst = hop.dst[0];
    } else {
        params.__bindgen_anon_4.ipv6_dst = hop.dst;
    }
    // SAFETY: `params` is a live struct of the size that is passed.
    let result = unsafe { bpf_fib_lookup(ctx, &mut params, size_of::<FibParams>() as i32, 0) };
    if result == NOT_FORWARDED as i64 {
        (hop.ifindex, hop.mtu) = (LOOPBACK, u32::MAX);
        return NOT_FORWARDED;
    }
    if result != SUCCESS as i64 || len == 0 {
        hop.tick = 0;
    }
    hop.ifindex = params.ifindex;
    // SAFETY: both members of the union are a `u16`.
    hop.mtu = unsafe { params.__bindgen_anon_1.mtu_result } as u32;
    (hop.dmac, hop.smac) = (params.dmac, params.smac);
    hop.next_family = params.family as u32;
    // SAFETY: IPv4 look-ups leave an IPv4 next hop in the first word.
    hop.next = unsafe { params.__bindgen_anon_4.ipv6_dst };
    result as u32
}

impl Hop {
    /// Whether the destination is the neighbour itself, not behind a router.
    #[inline(always)]
    pub fn is_direct(&self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.dst, self.next);
        self.family == self.next_family && (a, b, c, d) == (e, f, g, h)
    }

    /// The next hop for `bpf_redirect_neigh`.
    #[inline(always)]
    pub fn neighbour(&self) -> bpf_redir_neigh {
        // SAFETY: all-zero is a valid value of this plain struct.
        let mut neighbour: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        neighbour.nh_family = self.next_family;
        neighbour.__bindgen_anon_1.ipv6_nh = self.next;
        neighbour
    }
}
