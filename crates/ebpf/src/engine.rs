//! Packets that a persistence engine has to read before they are balanced; TC only. A program of its
//! own, called by tail call, for the stack's sake and because only first packets come here.

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::env::{Env, Tables};
use rvs_core::flow::{Flow, L3};
use rvs_core::headers::MOST_OFFSET;
use rvs_core::packet::Packet as _;
use rvs_core::pe::{self, Payload};
use rvs_core::pipeline::{mark, refusal};
use rvs_core::reason::Reason;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet, Tcp, Udp, protocol};

use crate::env::Kernel;
use crate::extended;
use crate::icmp::Errors;
use crate::maps::{self, ONCE_PROGRAM, TC_PROGRAM};
use crate::tc::{self, Frame};

/// What the program that was attached returns to itself: it is to call [`rvs_engine`].
pub const PENDING: i32 = 1 << 21;
/// What [`rvs_engine`] returns to itself: it is to call `rvs_tc`.
pub const AGAIN: i32 = 1 << 22;
/// The same: it is to call [`rvs_once`].
pub const ONCE: i32 = 1 << 23;

/// Bytes of payload that are copied at once; a power of two.
const PIECE: u32 = 256;

/// Reads a packet's Call-ID and enters its connection, which [`rvs_tc`](tc::rvs_tc) then finds.
#[classifier]
pub fn rvs_engine(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(MOST_OFFSET + size_of::<Tcp>() as u32);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return tc::pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        balance::<V4>(frame)
    } else {
        balance::<V6>(frame)
    };
    entered(&ctx, action, Reason::PuntEngine)
}

/// Sends a packet by the program that `action` asks for, once its connection was entered; the packet is
/// left to the host, for this reason, if that cannot be called.
#[inline(always)]
pub fn entered(ctx: &TcContext, action: i32, reason: Reason) -> i32 {
    if action == AGAIN {
        // SAFETY: the context is the program's own. It returns only if the call failed.
        unsafe { maps::PROGRAMS.tail_call(ctx, TC_PROGRAM) };
        return tc::pass(reason);
    }
    if action == ONCE {
        // SAFETY: as above.
        unsafe { maps::PROGRAMS.tail_call(ctx, ONCE_PROGRAM) };
        return tc::pass(reason);
    }
    tc::called(ctx, action)
}

/// Sends a packet that leaves no connection behind, once [`rvs_engine`] chose its destination.
#[classifier]
pub fn rvs_once(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(MOST_OFFSET + size_of::<Tcp>() as u32);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return tc::pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        once::<V4>(frame)
    } else {
        once::<V6>(frame)
    };
    tc::called(&ctx, action)
}

#[inline(never)]
fn once<A: Errors>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    let mut flow = Flow::default();
    match extended::parse::<A>(frame, &mut flow) {
        extended::BALANCE => tc::act::<A, false>(frame, &flow, &pe::once(&Kernel)),
        action => action,
    }
}

/// The steps, each a global function, for the verifier and for the stack, which finds the packet's
/// headers in a map.
#[inline(always)]
fn balance<A: Steps>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    if !read_packet::<A>(frame) {
        return tc::pass(Reason::Malformed);
    }
    let Some(flow) = A::flow() else { return tc::pass(Reason::Inconsistent) };
    let mut code = A::choose(flow);
    if code == pe::SERVER {
        code = A::choose_for_server(flow);
    }
    if code == pe::GO_ON {
        code = A::enter(flow);
    }
    match code {
        pe::GO_ON => ONCE,
        pe::AGAIN => AGAIN,
        _ => tc::refuse(frame, flow, &refusal(code)),
    }
}

/// The steps of an address family.
pub trait Steps: Errors {
    /// Where the headers of this CPU's packet lie.
    fn flow() -> Option<&'static mut Flow<Self>>;
    /// See [`pe::choose`].
    fn choose(flow: &Flow<Self>) -> u32;
    /// See [`pe::choose_for_server`].
    fn choose_for_server(flow: &mut Flow<Self>) -> u32;
    /// See [`pe::enter`].
    fn enter(flow: &Flow<Self>) -> u32;
}

macro_rules! steps {
    ($addr:ty: $map:ident, $choose:ident, $choose_for_server:ident, $enter:ident) => {
        impl Steps for $addr {
            #[inline(always)]
            fn flow() -> Option<&'static mut Flow<Self>> {
                // SAFETY: this CPU's own, and nothing else refers to it while a program runs.
                maps::$map.get_ptr_mut(0).map(|flow| unsafe { &mut *flow })
            }

            #[inline(always)]
            fn choose(flow: &Flow<Self>) -> u32 {
                $choose(flow)
            }

            #[inline(always)]
            fn choose_for_server(flow: &mut Flow<Self>) -> u32 {
                $choose_for_server(flow)
            }

            #[inline(always)]
            fn enter(flow: &Flow<Self>) -> u32 {
                $enter(flow)
            }
        }

        /// See [`pe::choose`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $choose(flow: *const Flow<$addr>) -> u32 {
            // SAFETY: the verifier proves that it spans a flow if it is not null.
            unsafe { flow.as_ref() }.map_or(pe::AGAIN, |flow| pe::choose(&Kernel, flow))
        }

        /// See [`pe::choose_for_server`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $choose_for_server(flow: *mut Flow<$addr>) -> u32 {
            // SAFETY: as above; nothing else refers to it.
            unsafe { flow.as_mut() }.map_or(pe::AGAIN, |flow| pe::choose_for_server(&Kernel, flow))
        }

        /// See [`pe::enter`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $enter(flow: *const Flow<$addr>) -> u32 {
            // SAFETY: as above.
            unsafe { flow.as_ref() }.map_or(pe::AGAIN, |flow| pe::enter(&Kernel, flow))
        }
    };
}
steps!(V4: FLOW4, rvs_choose4, rvs_choose_for_server4, rvs_enter4);
steps!(V6: FLOW6, rvs_choose6, rvs_choose_for_server6, rvs_enter6);

/// Puts the packet's headers and its Call-ID where the steps find them. False if it has no headers,
/// which is not so: they were read before.
#[inline(never)]
fn read_packet<A: Steps>(frame: Frame) -> bool
where
    Kernel: Tables<A>,
{
    let (Some(flow), Ok(parsed)) = (A::flow(), A::parse_all(&Kernel, &frame)) else { return false };
    let start = parsed.l4 + Udp::LEN as u32;
    let end = L3.wrapping_add(parsed.len);
    let udp = parsed.key.protocol == protocol::UDP as u32;
    *flow = parsed;
    if let Some(config) = Kernel.config() {
        mark(&Kernel, config, flow);
    }
    read(&frame, start, if udp && end > start { end - start } else { 0 });
    true
}

/// The payload of an skb, from offset `start` on, `len` bytes long.
struct Pieces {
    frame: Frame,
    start: u32,
    len: u32,
}

impl Payload for Pieces {
    #[inline(always)]
    fn byte(&mut self, offset: u32) -> u8 {
        let Some(piece) = maps::SCRATCH.get_ptr_mut(0) else { return 0 };
        let piece = piece.cast::<u8>();
        if offset & (PIECE - 1) == 0 {
            load(
                &self.frame,
                self.start.wrapping_add(offset),
                self.len.wrapping_sub(offset),
                piece,
            );
        }
        // SAFETY: within the first piece of the element, which is longer; this CPU's own.
        unsafe { piece.add((offset & (PIECE - 1)) as usize).read() }
    }
}

/// Copies the first of `left` bytes from offset `at` on, at most a piece, at least one. False if the
/// packet has fewer.
#[inline(always)]
fn load(frame: &Frame, at: u32, left: u32, to: *mut u8) -> bool {
    // 1 to 256 in a form that LLVM does not rewrite into one that Linux 6.1 cannot follow.
    let len = (core::hint::black_box(left.min(PIECE).wrapping_sub(1)) & (PIECE - 1)) + 1;
    // SAFETY: `len` bytes fit.
    unsafe { bpf_skb_load_bytes(frame.0.cast(), at, to.cast(), len) == 0 }
}

/// Puts the Call-ID of the datagram at offset `start` where the core looks for it, or none.
#[inline(always)]
fn read(frame: &Frame, start: u32, len: u32) {
    let Some(asked) = maps::ASKED.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own element.
    let call_id = unsafe { &(*asked).call_id };
    call_id.len.set(0);
    let (at, found) = pe::find_call_id(&Kernel, Pieces { frame: *frame, start, len }, len);
    if found == 0 {
        return;
    }
    for word in &call_id.words {
        word.set(0);
    }
    if load(frame, start.wrapping_add(at), found, call_id.words.as_ptr().cast_mut().cast()) {
        call_id.len.set(found);
    }
}
