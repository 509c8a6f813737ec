//! ICMP errors to the sender of a packet that cannot go on: it is cut to what the error quotes and
//! two headers are put in front. RFC 792, RFC 1812 section 4.3.2, RFC 4443; TC only.

use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::addr::{Addr, V4, V6};
use rvs_core::env::Env;
use rvs_core::flow::{Flow, L3, ipv6_first_word};
use rvs_core::limit;
use rvs_core::nat;
use rvs_core::packet::Packet;
use rvs_core::reason::Reason;
use rvs_core::tunnel;
use rvs_core::types::Family;
use rvs_wire::checksum::fold;
use rvs_wire::network_endian::{U16, U32};
use rvs_wire::{IcmpError, Ipv4, Ipv6, Sctp, Word, crc32c, protocol};

use crate::env::Kernel;
use crate::local;
use crate::maps::{self, ICMP_PROGRAM};
use crate::rewrite::Rewrite;
use crate::route;
use crate::slow;
use crate::tc::{self, Frame, SHOT};

/// Hop limit of the errors.
const TTL: u8 = 64;
/// The most that `bpf_csum_diff` takes at once on older kernels.
const PIECE: u32 = 512;
/// `BPF_ADJ_ROOM_MAC`
const BPF_ADJ_ROOM_MAC: u32 = 1;

/// Type and code of the errors in each family's numbering.
pub trait Errors: Rewrite {
    /// No destination can take the packet.
    const PORT_UNREACHABLE: (u8, u8);
    /// The TTL or hop limit ran out.
    const TIME_EXCEEDED: (u8, u8);
    /// The packet is larger than the way on allows.
    const TOO_BIG: (u8, u8);
    /// How much of the packet an error quotes at most, in bytes.
    const QUOTE: u32;
    /// Length of the IP and ICMP headers.
    const HEADERS: u32;
}

impl Errors for V4 {
    const PORT_UNREACHABLE: (u8, u8) = (3, 3);
    const TIME_EXCEEDED: (u8, u8) = (11, 0);
    const TOO_BIG: (u8, u8) = (3, 4);
    const QUOTE: u32 = 548;
    const HEADERS: u32 = (Ipv4::LEN + IcmpError::LEN) as u32;
}

impl Errors for V6 {
    const PORT_UNREACHABLE: (u8, u8) = (1, 4);
    const TIME_EXCEEDED: (u8, u8) = (3, 0);
    const TOO_BIG: (u8, u8) = (2, 0);
    const QUOTE: u32 = 1232;
    const HEADERS: u32 = (Ipv6::LEN + IcmpError::LEN) as u32;
}

/// What an error says.
pub struct Message {
    /// Type and code.
    pub kind: (u8, u8),
    /// The MTU, for [`Errors::TOO_BIG`].
    pub info: u32,
    /// Who says it: words in network byte order.
    pub source: [u32; 4],
}

/// A message and the packet that it is about, on their way to [`rvs_icmp`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request {
    family: u8,
    kind: u8,
    code: u8,
    /// DSCP and ECN of the packet.
    tos: u8,
    info: u32,
    /// Length of the packet from its IP header on.
    len: u32,
    source: [u32; 4],
    /// The packet's sender.
    dst: [u32; 4],
}

/// What [`request`] returns: the program that was attached is to call [`rvs_icmp`].
pub const PENDING: i32 = 1 << 16;

/// Leaves the message for [`rvs_icmp`]. A program of its own, called by tail call from the very
/// bottom of the stack: the frames of both do not fit into 512 bytes.
#[inline(always)]
pub fn request<A: Errors>(flow: &Flow<A>, message: &Message) -> i32 {
    let Some(place) = maps::ICMP_REQUEST.get_ptr_mut(0) else { return SHOT };
    let request = Request {
        family: if matches!(A::FAMILY, Family::V4) { 4 } else { 6 },
        kind: message.kind.0,
        code: message.kind.1,
        tos: flow.tos,
        info: message.info,
        len: flow.len,
        source: message.source,
        dst: flow.key.src.to_words(),
    };
    // SAFETY: this CPU's own element.
    unsafe { *place = request };
    PENDING
}

/// Calls [`rvs_icmp`], as the last thing that a program does.
#[inline(always)]
pub fn call(ctx: &TcContext) -> i32 {
    // SAFETY: the context is the program's own. It returns only if the call failed.
    unsafe { maps::PROGRAMS.tail_call(ctx, ICMP_PROGRAM) };
    SHOT
}

/// Sends the error that was requested about the packet.
#[classifier]
pub fn rvs_icmp(ctx: TcContext) -> i32 {
    // SAFETY: this CPU's own element, written by the program that called.
    let Some(request) = maps::ICMP_REQUEST.get_ptr(0).map(|p| unsafe { &*p }) else { return SHOT };
    let frame = Frame(ctx.skb.skb);
    let (four, kind) = (request.family == 4, (request.kind, request.code));
    if kind == (if four { V4::TOO_BIG } else { V6::TOO_BIG }) {
        // What may be cut is, by rvsd, if there is one.
        if four && let Some(action) = slow::cut(frame, request.info) {
            return action;
        }
        Kernel.count(Reason::TooBig);
    }
    if four { send::<V4>(frame, request) } else { send::<V6>(frame, request) }
}

/// Turns the frame into an ICMP error about itself and sends it back, if the host's limits allow it.
#[inline(always)]
fn send<A: Errors>(mut frame: Frame, request: &Request) -> i32 {
    // What is sent is short enough for any way; of a length of 0 the kernel would make the frame's.
    let Some(route) = route::lookup::<A, _>(frame.0, None, A::FAMILY, request.dst, 1) else {
        return SHOT;
    };
    let is_local = route.result == route::NOT_FORWARDED;
    if !is_local && route.result != route::SUCCESS && route.result != route::NO_NEIGHBOUR {
        return SHOT;
    }
    let error = limit::Error {
        family: A::FAMILY,
        kind: (request.kind, request.code),
        to: request.dst,
        is_local,
        is_neighbour: route.hop.is_direct(),
    };
    if !limit::allows(&Kernel, &error) || build::<A>(&mut frame, request).is_none() {
        return SHOT;
    }
    Kernel.count(Reason::IcmpSent);
    if is_local {
        return local::to_loopback(&mut frame);
    }
    tc::transmit(&mut frame, &route)
}

/// Cuts the frame to what is quoted and writes the headers.
#[inline(always)]
fn build<A: Errors>(frame: &mut Frame, request: &Request) -> Option<()> {
    let Request { kind, code, info, source, dst, .. } = *request;
    let (quoted, quote) = quotation::<A>(frame, request.len.min(A::QUOTE))?;
    let room = A::HEADERS as i32;
    // SAFETY: plain arguments.
    if unsafe { bpf_skb_change_tail(frame.0, L3 + quoted, 0) } != 0
        || unsafe { bpf_skb_adjust_room(frame.0, room, BPF_ADJ_ROOM_MAC, 0) } != 0
    {
        return None;
    }
    frame.pull(L3 + A::HEADERS);
    let mut error = IcmpError { kind, code, checksum_be: [0, 0], info: U32::new(info) };
    let [a, b, c, d]: [u16; 4] = rvs_wire::transmute!(error);
    let mut sum = quote + a as u32 + b as u32 + c as u32 + d as u32;
    if matches!(A::FAMILY, Family::V4) {
        error.checksum_be = (!fold(sum)).to_ne_bytes();
        let mut ip = Ipv4 {
            version_ihl: 0x45,
            // Internet control, and of the packet's own what RFC 1349 calls the type of service.
            tos: 0xc0 | request.tos & 0x1e,
            total_len: U16::new((quoted + A::HEADERS) as u16),
            id: U16::new(Kernel.random() as u16),
            fragment: U16::new(0),
            ttl: TTL,
            protocol: protocol::ICMP,
            checksum_be: [0, 0],
            src: source[0].to_ne_bytes(),
            dst: dst[0].to_ne_bytes(),
        };
        ip.checksum_be = tunnel::ipv4_checksum(&ip);
        *frame.at_mut::<Ipv4>(L3)? = ip;
        *frame.at_mut::<IcmpError>(L3 + Ipv4::LEN as u32)? = error;
    } else {
        let len = quoted + IcmpError::LEN as u32;
        // The pseudo header of RFC 8200, section 8.1. Without a loop: Linux 6.1 finds a back-edge.
        let addrs = V6(source).sum() + V6(dst).sum();
        let addrs = (addrs & 0xffff_ffff) + (addrs >> 32);
        let addrs = (addrs & 0xffff_ffff) + (addrs >> 32);
        sum = sum.wrapping_add(fold(addrs as u32) as u32);
        sum = sum
            .wrapping_add((len as u16).to_be() as u32)
            .wrapping_add((protocol::ICMPV6 as u16).to_be() as u32);
        error.checksum_be = (!fold(sum)).to_ne_bytes();
        *frame.at_mut::<Ipv6>(L3)? = Ipv6 {
            version_class_flow: ipv6_first_word(0),
            payload_len: U16::new(len as u16),
            next_header: protocol::ICMPV6,
            hop_limit: TTL,
            src: rvs_wire::transmute!(source),
            dst: rvs_wire::transmute!(dst),
        };
        *frame.at_mut::<IcmpError>(L3 + Ipv6::LEN as u32)? = error;
    }
    Some(())
}

/// How much of the packet is quoted, `most` bytes if nothing is against it, and the sum of that as its
/// receiver will see it. A checksum that the packet's sender left to a device is finished in the
/// quotation, for no program can take the order back.
#[inline(always)]
fn quotation<A: Errors>(frame: &Frame, most: u32) -> Option<(u32, u32)> {
    let (mut quoted, mut finished) = (most, 0);
    if let Ok(flow) = A::parse_all(&Kernel, frame)
        && nat::is_unfinished(frame, &flow)
    {
        if flow.key.protocol != protocol::SCTP as u32 {
            return Some((most, sum_of_unfinished::<A>(frame, nat::checksum_at(&flow))?));
        }
        // SCTP's is no sum, and one of zero may be meant (RFC 9653). So little is quoted that it is left
        // out, which the kernel refuses if a device is to write there; then it is the header's alone.
        let Sctp { ports, tag, .. } = *frame.at::<Sctp>(flow.l4)?;
        quoted = flow.l4 - L3 + Sctp::CHECKSUM as u32;
        // SAFETY: plain arguments.
        if unsafe { bpf_skb_change_tail(frame.0, L3 + quoted, 0) } != 0 {
            quoted = flow.l4 - L3 + Sctp::LEN as u32;
            let crc = crc32c::of_header(ports, rvs_wire::transmute!(tag));
            let [low, high]: [u16; 2] = rvs_wire::transmute!(crc);
            finished = low as u32 + high as u32;
        }
    }
    Some((quoted, sum_of_quote(frame, quoted)? + finished))
}

/// Sum of a quoted packet whose checksum, `at` so many bytes from the frame's start, a device finishes.
/// However much of the packet is left, it adds up to minus what its checksum field holds now.
#[inline(always)]
fn sum_of_unfinished<A: Errors>(frame: &Frame, at: u32) -> Option<u32> {
    let Word(field) = frame.at(at)?;
    let rest = !u16::from_ne_bytes(*field) as u32;
    // An IPv4 header adds up to nothing.
    if matches!(A::FAMILY, Family::V4) {
        return Some(rest);
    }
    let words: [u16; 20] = rvs_wire::transmute!(*frame.at::<Ipv6>(L3)?);
    let mut sum = rest;
    for word in words {
        sum = sum.wrapping_add(word as u32);
    }
    Some(fold(sum) as u32)
}

/// Sum of the first `quoted` bytes from the IP header on, folded.
#[inline(always)]
fn sum_of_quote(frame: &Frame, quoted: u32) -> Option<u32> {
    let scratch = maps::SCRATCH.get_ptr_mut(0)?.cast::<u8>();
    // Bounds in a form that LLVM does not rewrite into one that Linux 6.1 cannot follow.
    let quoted = core::hint::black_box(quoted) & 0x7ff;
    if quoted < 28 {
        return None;
    }
    // The last word is padded with zeros.
    // SAFETY: 2044 and a word more fit; this CPU's own element.
    unsafe { scratch.add((quoted & !3) as usize).cast::<u32>().write_volatile(0) };
    // SAFETY: `quoted` bytes fit.
    if unsafe { bpf_skb_load_bytes(frame.0.cast(), L3, scratch.cast(), quoted) } != 0 {
        return None;
    }
    let size = core::hint::black_box((quoted + 3) & !3) & 0xffc;
    let sum = add_piece(scratch, size, 0, 0);
    let sum = add_piece(scratch, size, PIECE, sum);
    let sum = add_piece(scratch, size, 2 * PIECE, sum);
    let sum = add_piece(scratch, size, 3 * PIECE, sum);
    Some(fold(sum) as u32)
}

/// `sum` and what of the first `size` bytes of `scratch` lies in the piece at `start`.
#[inline(always)]
fn add_piece(scratch: *mut u8, size: u32, start: u32, sum: u32) -> u32 {
    if size <= start {
        return sum;
    }
    let rest = core::hint::black_box(size - start);
    let len = if rest >= PIECE { PIECE } else { rest & (PIECE - 1) };
    // SAFETY: four pieces are as long as the element.
    unsafe {
        let from = scratch.add(start as usize).cast();
        bpf_csum_diff(core::ptr::null_mut(), 0, from, len, sum) as u32
    }
}
