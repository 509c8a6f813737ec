//! The way out, by the kernel's own routing table, looked up once a tick and CPU for each
//! destination: a change of routes or neighbours is seen a tick later at the latest, 134 ms, whether
//! rvsd runs or not.
//!
//! Policy routing may ask where a packet comes from. A client's packet is the host's own to it, from no
//! address yet, as to IPVS (`ip_vs_get_out_rt`); a reply comes from the virtual address, or, without
//! `snat_reroute`, from its real server and by its interface (`ip_vs_route_me_harder`;
//! `tests/oracle/recorded/snat_reroute.jsonl`).

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, bpf_fib_lookup as FibParams, bpf_redir_neigh, xdp_md};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use rvs_core::addr::Addr;
use rvs_core::env::Env as _;
use rvs_core::layout::Conn;
use rvs_core::pipeline::Forward;
use rvs_core::sysctl::Sysctl;
use rvs_core::time::Tick;
use rvs_core::types::Family;
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

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
    /// Stands for the source: [`Addr::mix`] of a reply's new one, 0 for none. Only addresses that rvsd
    /// was given are ever a source, so that no stranger can make two of them equal.
    source: u64,
    dst: [u32; 4],
    /// When it was given; 0 if it is not to be used again.
    tick: u32,
    /// Interface; [`LOOPBACK`] after [`NOT_FORWARDED`].
    pub ifindex: u32,
    /// MTU: of the way out, or the one that was too small, after [`FRAG_NEEDED`].
    pub mtu: u16,
    /// `AF_INET` or `AF_INET6`.
    family: u8,
    /// The neighbour's family: a gateway's may be another.
    next_family: u8,
    /// The neighbour's MAC address.
    pub dmac: [u8; 6],
    /// The interface's MAC address.
    pub smac: [u8; 6],
    /// The neighbour, words in network byte order.
    next: [u32; 4],
}

// One cache line.
const _: () = assert!(size_of::<Hop>() == 64);

/// The context of a hook's programs.
pub trait Hook: Copy {
    /// For helpers.
    fn raw(self) -> *mut c_void;
    /// Index of the interface that the packet came by.
    fn ingress(self) -> u32;
}

impl Hook for *mut __sk_buff {
    #[inline(always)]
    fn raw(self) -> *mut c_void {
        self.cast()
    }

    #[inline(always)]
    fn ingress(self) -> u32 {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*self).ifindex }
    }
}

impl Hook for *mut xdp_md {
    #[inline(always)]
    fn raw(self) -> *mut c_void {
        self.cast()
    }

    #[inline(always)]
    fn ingress(self) -> u32 {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*self).ingress_ifindex }
    }
}

/// A reply that is to be routed.
pub struct Reply<'p, A: Addr> {
    /// Its entry, whose target is the virtual address.
    pub entry: &'p Conn<A>,
    /// The source that it came with.
    pub src: &'p A,
}

impl<'p, A: Addr> Reply<'p, A> {
    /// The packet that `forward` is about and that came from `src`, if it is a reply.
    #[inline(always)]
    pub fn of(forward: &Forward<'p, A>, src: &'p A) -> Option<Self> {
        if forward.reply { Some(Self { entry: forward.entry, src }) } else { None }
    }
}

/// Elements of `HOPS`, a power of two.
pub const HOPS: u32 = 1024;

/// Routes a packet of `len` bytes from the IP header on to `dst` (words in network byte order).
/// With `len` 0 the MTU is not looked at. `None` never happens.
#[inline(always)]
pub fn lookup<A: Addr, H: Hook>(
    ctx: H,
    reply: Option<Reply<'_, A>>,
    family: Family,
    dst: [u32; 4],
    len: u16,
) -> Option<Route> {
    let now = Kernel.now();
    let source = reply.as_ref().map_or(0, |reply| reply.entry.target.get().mix());
    let [a, b, c, d] = dst;
    let mixed = a ^ b ^ c ^ d ^ source as u32 ^ (source >> 32) as u32;
    let index = mixed.wrapping_mul(0x9e37_79b1) >> (32 - HOPS.trailing_zeros());
    let hop = maps::HOPS.get_ptr_mut(index)?;
    let family = if matches!(family, Family::V4) { AF_INET } else { AF_INET6 };
    // SAFETY: this CPU's own element; nothing writes it while the packet is processed but `ask`.
    let known = unsafe { &*hop };
    let [e, f, g, h] = known.dst;
    let result = if known.tick == now.0
        && (a, b, c, d) == (e, f, g, h)
        && known.source == source
        && known.family == family
        && len <= known.mtu
    {
        if known.ifindex == LOOPBACK { NOT_FORWARDED } else { SUCCESS }
    } else {
        // SAFETY: as above.
        let place = unsafe { &mut *hop };
        (place.dst, place.tick, place.family) = (dst, now.0, family);
        place.source = source;
        {
            let (entry, src) =
                reply.map_or((None, None), |reply| (Some(reply.entry), Some(reply.src)));
            ask(ctx, place, len, entry, src)
        }
    };
    // SAFETY: as above.
    Some(Route { result, now, hop: unsafe { &*hop } })
}

/// What the helper is asked. It is zeroed word by word: of LLVM's function for that the stack has no room.
#[repr(align(8))]
struct Question(FibParams);

/// Asks the kernel; `entry` and `src` of a reply, as in [`Reply`]. A function of its own: its stack frame is
/// not below those of what comes after.
#[inline(never)]
fn ask<A: Addr, H: Hook>(
    ctx: H,
    hop: &mut Hop,
    len: u16,
    entry: Option<&Conn<A>>,
    src: Option<&A>,
) -> u32 {
    let mut question = MaybeUninit::<Question>::uninit();
    for index in 0..size_of::<Question>() / 8 {
        // SAFETY: one of the words that the struct consists of.
        unsafe { question.as_mut_ptr().cast::<u64>().add(index).write_volatile(0) };
    }
    // SAFETY: all-zero is a valid value of this plain struct.
    let params = unsafe { &mut question.assume_init_mut().0 };
    params.family = hop.family;
    params.ifindex = LOOPBACK;
    if let (Some(entry), Some(src)) = (entry, src) {
        if Kernel.config().is_none_or(|config| config.sysctl(Sysctl::SnatReroute) != 0) {
            params.__bindgen_anon_3.ipv6_src = entry.target.get().to_words();
        } else {
            params.__bindgen_anon_3.ipv6_src = src.to_words();
            params.ifindex = ctx.ingress();
            // The source that it would be remembered by is the other.
            hop.tick = 0;
        }
    }
    params.__bindgen_anon_1.tot_len = len;
    if params.family == AF_INET {
        params.__bindgen_anon_4.ipv4_dst = hop.dst[0];
    } else {
        params.__bindgen_anon_4.ipv6_dst = hop.dst;
    }
    // SAFETY: `params` is a live struct of the size that is passed.
    let result = unsafe { bpf_fib_lookup(ctx.raw(), params, size_of::<FibParams>() as i32, 0) };
    if result == NOT_FORWARDED as i64 {
        (hop.ifindex, hop.mtu) = (LOOPBACK, u16::MAX);
        return NOT_FORWARDED;
    }
    if result != SUCCESS as i64 || len == 0 {
        hop.tick = 0;
    }
    hop.ifindex = params.ifindex;
    // SAFETY: both members of the union are a `u16`.
    hop.mtu = unsafe { params.__bindgen_anon_1.mtu_result };
    (hop.dmac, hop.smac) = (params.dmac, params.smac);
    hop.next_family = params.family;
    // SAFETY: IPv4 look-ups leave an IPv4 next hop in the first word.
    hop.next = unsafe { params.__bindgen_anon_4.ipv6_dst };
    result as u32
}

impl Hop {
    /// The EtherType of what goes this way. It is read here, late, where the family that was looked up is
    /// a constant over calls to Linux 6.1's verifier, which keeps one side of what depends on it.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        if self.family == AF_INET { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
    }

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
        neighbour.nh_family = self.next_family as u32;
        neighbour.__bindgen_anon_1.ipv6_nh = self.next;
        neighbour
    }
}
