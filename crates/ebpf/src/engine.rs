//! Packets that a persistence engine has to read before they are balanced; TC only. A program of its
//! own, called by tail call, for the stack's sake and because only first packets come here.

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{V4, V6};
use rvs_core::env::Tables;
use rvs_core::flow::L3;
use rvs_core::packet::Packet as _;
use rvs_core::pe::{self, Payload};
use rvs_core::reason::Reason;
use rvs_wire::{ETHERTYPE_IPV4, Ethernet, Udp, protocol};

use crate::env::Kernel;
use crate::icmp::Errors;
use crate::maps;
use crate::tc::{self, Frame, HEADERS};

/// What the program that was attached returns to itself: it is to call [`rvs_engine`].
pub const PENDING: i32 = 1 << 19;

/// Bytes of payload that are copied at once; a power of two.
const PIECE: u32 = 256;

/// Reads a packet's Call-ID, and does with it what is done with others.
#[classifier]
pub fn rvs_engine(ctx: TcContext) -> i32 {
    let frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return tc::pass(Reason::Malformed) };
    let action = if ethernet.ethertype.get() == ETHERTYPE_IPV4 {
        balance::<V4>(frame)
    } else {
        balance::<V6>(frame)
    };
    tc::called(&ctx, action)
}

/// The steps: each parses the packet anew, for none is to keep it on the stack below another's.
#[inline(always)]
fn balance<A: Errors>(frame: Frame) -> i32
where
    Kernel: Tables<A>,
{
    read_call_id::<A>(frame);
    let mut code = choose::<A>(frame);
    if code == pe::SERVER {
        code = choose_for_server::<A>(frame);
    }
    if code == pe::GO_ON {
        code = enter::<A>(frame);
    }
    finish::<A>(frame, code)
}

/// What a step says of a packet that cannot be parsed is of no consequence: the last one passes it.
#[inline(never)]
fn choose<A: Errors>(frame: Frame) -> u32
where
    Kernel: Tables<A>,
{
    match A::parse(&frame) {
        Ok(flow) => pe::choose(&Kernel, &flow),
        Err(_) => pe::GO_ON,
    }
}

#[inline(never)]
fn choose_for_server<A: Errors>(frame: Frame) -> u32
where
    Kernel: Tables<A>,
{
    match A::parse(&frame) {
        Ok(mut flow) => pe::choose_for_server(&Kernel, &mut flow),
        Err(_) => pe::GO_ON,
    }
}

#[inline(never)]
fn enter<A: Errors>(frame: Frame) -> u32
where
    Kernel: Tables<A>,
{
    match A::parse(&frame) {
        Ok(mut flow) => pe::enter(&Kernel, &mut flow),
        Err(_) => pe::GO_ON,
    }
}

#[inline(never)]
fn finish<A: Errors>(frame: Frame, code: u32) -> i32
where
    Kernel: Tables<A>,
{
    match A::parse(&frame) {
        Ok(flow) => tc::act(frame, &flow, pe::finish(&Kernel, &flow, code)),
        Err(reason) => tc::pass(reason),
    }
}

#[inline(never)]
fn read_call_id<A: Errors>(frame: Frame) {
    let Ok(flow) = A::parse(&frame) else { return };
    let start = flow.l4 + Udp::LEN as u32;
    let end = L3.wrapping_add(flow.len);
    let udp = flow.key.protocol == protocol::UDP as u32;
    read(&frame, start, if udp && end > start { end - start } else { 0 });
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
