//! The way out, by the kernel's own routing table.

use core::ffi::c_void;

use aya_ebpf::bindings::{bpf_fib_lookup as FibParams, bpf_redir_neigh};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use rvs_core::types::Family;

/// `BPF_FIB_LKUP_RET_SUCCESS`
pub const SUCCESS: i64 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`
pub const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`
pub const FRAG_NEEDED: i64 = 8;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`: local, or no unicast route.
pub const NOT_FORWARDED: i64 = 4;

/// Looks up as if the host itself sent: the loopback's index as the incoming interface. That is
/// what IPVS does (`ip_route_output_key`), and it asks for forwarding to be on only on `lo`, which
/// rvsd switches on, not on the interface that the packet came in by.
const LOOPBACK: u32 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A way out.
pub struct Route {
    /// The helper's answer.
    pub result: i64,
    /// Interface, addresses, MTU.
    pub params: FibParams,
}

/// Routes a packet of `len` bytes from the IP header on to `dst` (words in network byte order).
/// With `len` 0 the MTU is not looked at.
#[inline(always)]
pub fn lookup(ctx: *mut c_void, family: Family, dst: [u32; 4], len: u16) -> Route {
    // SAFETY: all-zero is a valid value of this plain struct. It is filled in where it stays: a copy
    // of it would not fit the stack.
    let mut route = Route { result: 0, params: unsafe { core::mem::zeroed() } };
    route.params.ifindex = LOOPBACK;
    route.params.__bindgen_anon_1.tot_len = len;
    if matches!(family, Family::V4) {
        route.params.family = AF_INET;
        route.params.__bindgen_anon_4.ipv4_dst = dst[0];
    } else {
        route.params.family = AF_INET6;
        route.params.__bindgen_anon_4.ipv6_dst = dst;
    }
    // SAFETY: `params` is a live struct of the size that is passed.
    route.result =
        unsafe { bpf_fib_lookup(ctx, &mut route.params, size_of::<FibParams>() as i32, 0) };
    route
}

impl Route {
    /// The MTU that was too small, after [`FRAG_NEEDED`].
    #[inline(always)]
    pub fn mtu(&self) -> u16 {
        // SAFETY: both members of the union are a `u16`.
        unsafe { self.params.__bindgen_anon_1.mtu_result }
    }

    /// The next hop for `bpf_redirect_neigh`.
    #[inline(always)]
    pub fn next_hop(&self) -> bpf_redir_neigh {
        // SAFETY: all-zero is a valid value of this plain struct.
        let mut hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        hop.nh_family = self.params.family as u32;
        if self.params.family == AF_INET {
            // SAFETY: IPv4 look-ups leave an IPv4 next hop here.
            hop.__bindgen_anon_1.ipv4_nh = unsafe { self.params.__bindgen_anon_4.ipv4_dst };
        } else {
            // SAFETY: every bit pattern is an address.
            hop.__bindgen_anon_1.ipv6_nh = unsafe { self.params.__bindgen_anon_4.ipv6_dst };
        }
        hop
    }
}
