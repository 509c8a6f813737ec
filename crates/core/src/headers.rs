//! What lies between an IP header and its payload: IPv4 options (RFC 791, section 3.1) and IPv6
//! extension headers (RFC 8200, section 4). Only what the host would go on with is balanced; what it
//! drops or answers is left to it. Follows `ip_options_compile`, `ipv6_find_hdr` and
//! `ip6_parse_tlv`; `tests/oracle/recorded/headers.jsonl`.

use rvs_wire::{Ipv4, Word, protocol};

use crate::env::{Env, Visit};
use crate::flow::L3;
use crate::packet::Packet;
use crate::reason::Reason;

/// Extension headers that are followed; the kernel follows any number.
const MOST: u32 = 24;
/// How far from the start of the frame the header behind them may begin, a power of two less one.
pub const MOST_OFFSET: u32 = 1023;
/// Bytes of options of IPv4.
const MOST_OPTIONS: u32 = 40;
/// Options of a hop-by-hop header but for padding, and bytes of padding in a row
/// (`IP6_DEFAULT_MAX_HBH_OPTS_CNT`).
const MOST_HOP_OPTIONS: u32 = 8;
const MOST_PADDING: u32 = 7;

/// Where the options of a list are, and how far it was read.
#[derive(Clone, Copy)]
struct List<'p, P> {
    packet: &'p P,
    /// Offset of the next option from the start of the frame.
    at: u32,
    /// Offset of what follows the list.
    end: u32,
    /// Options that were not padding.
    options: u32,
    /// Bytes of padding just before `at`.
    padding: u32,
    /// 1 where the host is to look at it.
    odd: u32,
}

impl<'p, P: Packet> List<'p, P> {
    #[inline(always)]
    fn new(packet: &'p P, at: u32, end: u32) -> Self {
        Self { packet, at, end, options: 0, padding: 0, odd: 0 }
    }

    /// The byte `offset` bytes on, out of a word: lists begin and end at even offsets. Of a single
    /// byte the verifier does not see that it lies in the packet ("offset is outside of the packet"),
    /// once LLVM has made `>=` of the comparison, or has moved the pointer by the odd offset.
    #[inline(always)]
    fn byte(&self, offset: u32) -> Option<u32> {
        let at = self.at + offset;
        let Word(bytes) = self.packet.at(at & !1)?;
        let word = core::hint::black_box(u16::from_be_bytes(*bytes) as u32);
        Some(if at & 1 == 0 { word >> 8 } else { word & 0xff })
    }

    /// Ends the loop: the host is to look at it.
    #[inline(always)]
    fn give_up(&mut self) -> bool {
        self.odd = 1;
        false
    }
}

/// Options of IPv4.
struct V4Options<'p, P>(List<'p, P>);

impl<P: Packet> Visit for V4Options<'_, P> {
    #[inline(always)]
    fn visit(&mut self, _: u32) -> bool {
        let list = &mut self.0;
        if list.at >= list.end {
            return false;
        }
        let Some(kind) = list.byte(0) else { return list.give_up() };
        match kind {
            // End of options, no operation.
            0 => return false,
            1 => list.at += 1,
            // Loose and strict source routes: the host drops them unless told otherwise.
            131 | 137 => return list.give_up(),
            _ => {
                let Some(len) = list.byte(1) else { return list.give_up() };
                if len < 2 || list.at + len > list.end || !fits(list, kind, len) {
                    return list.give_up();
                }
                list.at += len;
            }
        }
        true
    }
}

/// Whether an option of IPv4 with this length is one that the host accepts: record route (7),
/// timestamp (68), router alert (148), any other.
#[inline(always)]
fn fits<P: Packet>(list: &List<'_, P>, kind: u32, len: u32) -> bool {
    let first = match kind {
        7 => 4,
        68 => 5,
        148 => return len >= 4,
        _ => return true,
    };
    let Some(pointer) = list.byte(2) else { return false };
    len + 1 >= first && pointer >= first && (pointer > len || pointer + 3 <= len)
}

/// Whether a packet with the IPv4 options that a header of `header` bytes has may be balanced.
#[inline(always)]
pub fn options<P: Packet, E: Env>(env: &E, packet: &P, header: u32) -> Result<(), Reason> {
    let mut list = V4Options(List::new(packet, L3 + Ipv4::LEN as u32, L3 + header));
    env.repeat(MOST_OPTIONS, &mut list);
    if list.0.odd == 0 { Ok(()) } else { Err(Reason::ExtensionHeader) }
}

/// Options of a hop-by-hop header.
struct HopOptions<'p, P, E>(List<'p, P>, E);

impl<P: Packet, E: Env> Visit for HopOptions<'_, P, E> {
    #[inline(always)]
    fn visit(&mut self, _: u32) -> bool {
        let list = &mut self.0;
        if list.at >= list.end {
            return false;
        }
        let Some(kind) = list.byte(0) else { return list.give_up() };
        if kind == 0 {
            (list.at, list.padding) = (list.at + 1, list.padding + 1);
        } else {
            let Some(len) = list.byte(1).map(|len| len + 2) else { return list.give_up() };
            if list.at + len > list.end {
                return list.give_up();
            }
            if kind == 1 {
                list.padding += len;
                if list.padding <= MOST_PADDING && !is_blank(list, len) {
                    return list.give_up();
                }
            } else {
                // The two high bits say what is done about an option that nobody knows: 0, nothing.
                // The host knows CALIPSO (7), and what a router alert (5) looks like.
                let odd = kind >> 6 != 0 || kind == 7 || kind == 5 && len != 4;
                (list.options, list.padding) = (list.options + 1, 0);
                if odd || self.1.unknown(list.options) > MOST_HOP_OPTIONS {
                    return list.give_up();
                }
            }
            list.at += len;
        }
        self.1.unknown(list.padding) <= MOST_PADDING || list.give_up()
    }
}

/// Whether padding of `len` bytes, at most seven, is zero (RFC 4942, section 2.1.9.5).
#[inline(always)]
fn is_blank<P: Packet>(list: &List<'_, P>, len: u32) -> bool {
    let blank = |at| at >= len || list.byte(at) == Some(0);
    blank(2) && blank(3) && blank(4) && blank(5) && blank(6)
}

/// Whether the host would go on after the hop-by-hop header at `at`.
#[inline(never)]
fn hop_by_hop<P: Packet, E: Env>(env: &E, packet: &P, at: u32) -> bool {
    let Some(Word([_, len])) = packet.at(at) else { return false };
    let mut list = HopOptions(List::new(packet, at + 2, at + (*len as u32 + 1) * 8), *env);
    // Between two options there is padding that may be of single bytes.
    env.repeat((MOST_HOP_OPTIONS + 1) * (MOST_PADDING + 1), &mut list);
    list.0.odd == 0 && list.0.at == list.0.end
}

/// A chain of extension headers.
struct Chain<'p, P> {
    packet: &'p P,
    /// Number of the header at `at`.
    next: u32,
    at: u32,
}

/// Whether this is the number of an extension header that is followed; fragment headers are not.
#[inline(always)]
pub const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::AUTHENTICATION | protocol::OPTIONS
    )
}

impl<P: Packet> Visit for Chain<'_, P> {
    #[inline(always)]
    fn visit(&mut self, _: u32) -> bool {
        if !is_extension(self.next as u8) {
            return false;
        }
        let Some(Word([next, len])) = self.packet.at(self.at) else { return false };
        // RFC 4302, section 2.2: words, less two.
        let is_ah = self.next == protocol::AUTHENTICATION as u32;
        let len = if is_ah { (*len as u32 + 2) * 4 } else { (*len as u32 + 1) * 8 };
        if self.at + len > MOST_OFFSET {
            return false;
        }
        self.at += len;
        self.next = *next as u32;
        true
    }
}

/// Follows the chain that begins with header `first` at offset `at`: the number of the first header
/// that is none of it, and its offset. The number is still one of an extension header where the chain
/// is too long or cut short.
#[inline(always)]
pub fn follow<P: Packet, E: Env>(env: &E, packet: &P, first: u8, at: u32) -> (u8, u32) {
    let packed = chain(env, packet, first, at);
    // A mask that the verifier sees: LLVM compares the whole word with bounds of the offset, or leaves
    // an offset where no pointer came about.
    (packed as u8, core::hint::black_box(packed >> 8) & MOST_OFFSET)
}

/// [`follow`] in one word. A function of its own for its stack frame.
#[inline(never)]
fn chain<P: Packet, E: Env>(env: &E, packet: &P, first: u8, at: u32) -> u32 {
    let mut chain = Chain { packet, next: first as u32, at };
    env.repeat(MOST, &mut chain);
    chain.at << 8 | chain.next & 0xff
}

/// The same for the packet itself, whose hop-by-hop header, if it has one, the host must accept.
#[inline(always)]
pub fn extensions<P: Packet, E: Env>(
    env: &E,
    packet: &P,
    first: u8,
    at: u32,
) -> Result<(u8, u32), Reason> {
    if first == protocol::HOP_BY_HOP && !hop_by_hop(env, packet, at) {
        return Err(Reason::ExtensionHeader);
    }
    Ok(follow(env, packet, first, at))
}
