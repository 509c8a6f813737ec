//! Fragments: RFC 791 section 3.2, RFC 8200 section 4.5. The kernel puts datagrams together before
//! IPVS sees them (`ip_vs_gather_frags`); here the first fragment, which has the ports, is balanced
//! like a whole packet and leaves a note by which the others follow it.
//!
//! ```text
//!  first ─► resolve ─► note ─► as any packet (its checksum covers the whole datagram)
//!  other ─► note? ─hit──────► addresses, TTL ─► out
//!             └─miss─► of a service or destination? ─no─► the host
//!                        └─yes─► rvsd holds it until the note is there
//! ```
//!
//! An ICMP error's first fragment has what it quotes, so it is translated as a whole one is (its checksum
//! covers all of the message, but what changes lies in the first).
//!
//! `tests/oracle/recorded/fragment.jsonl` and `fragment_other.jsonl` have what the kernel sends.

use core::cell::Cell;

use rvs_wire::{
    Fragment as Header, IcmpError, Ipv4, Ipv6, Ports, Sctp, SctpChunk, Tcp, Udp, protocol,
};

use crate::addr::{Addr, V4, V6};
use crate::conn::Word;
use crate::env::{Env, Tables};
use crate::flow::{Flow, Ip, L3, mark, transport, v6};
use crate::headers;
use crate::layout::{CONFIG_FWMARK, Conn, Key, ServiceAddr};
use crate::packet::Packet;
use crate::pipeline::{Forward, NOBODY, Verdict, counted};
use crate::reason::Reason;
use crate::time::{Tick, ticks};
use crate::types::Family;

/// Elements of `NOTES`. The kernel drops the one that was not used for longest.
pub const NOTES: u32 = 16_384;
/// Seconds for which the fragments of a datagram can follow its first. Shorter than the kernel's
/// 30 (`ipfrag_time`): identifications come round, and a note of the datagram before misleads.
pub const LIFETIME: u32 = 4;
/// Words of [`Slow::gate`].
const GATE: usize = 1024;

/// What the fragments of a datagram have in common: the key of `NOTES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NoteKey {
    /// Source address.
    pub src: [u32; 4],
    /// Destination address.
    pub dst: [u32; 4],
    /// Identification, as it lies in the packet; of IPv4 in the low half.
    pub id_be: u32,
    /// Protocol number, and in the high half the IP version.
    pub protocol: u32,
}

/// Where a datagram's first fragment went: the value of `NOTES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Note {
    /// When it was left.
    pub tick: u32,
    /// Forwarding method and direction, as in a connection's entry; or [`PASSED`], [`DROPPED`].
    pub word: u32,
    /// Index into `DESTS`.
    pub dest: u32,
    /// The ports as they lie in the packet.
    pub ports: [u16; 2],
    /// The new destination address, in replies the new source address.
    pub target: [u32; 4],
}

/// In [`Note::word`]: the datagram was left to the host.
pub const PASSED: u32 = 0;
/// In [`Note::word`]: the datagram was dropped.
pub const DROPPED: u32 = 1;

impl Note {
    /// Whether it still holds.
    #[inline(always)]
    pub const fn is_fresh(&self, now: Tick) -> bool {
        now.0.wrapping_sub(self.tick) <= ticks(LIFETIME)
    }
}

/// `SLOW`, one element: the way to rvsd, and what takes it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slow {
    /// Index of the device behind which rvsd reads; 0 if there is none.
    pub ifindex: Cell<u32>,
    /// Tick from which on rvsd is taken for dead.
    pub until: Cell<u32>,
    /// Tick from which on no client is expected: see [`app`](crate::app).
    pub expects: Cell<u32>,
    /// Unused.
    pub reserved: [Cell<u32>; 13],
    /// One bit a hash of an address: whether it is a service's or that of a masqueraded
    /// destination. Fragments of others are never held up.
    pub gate: [Cell<u64>; GATE],
}

impl Default for Slow {
    fn default() -> Self {
        Self {
            ifindex: Cell::default(),
            until: Cell::default(),
            expects: Cell::default(),
            reserved: core::array::from_fn(|_| Cell::default()),
            gate: core::array::from_fn(|_| Cell::default()),
        }
    }
}

/// The word of the gate and the bit in it for an address, as [`Addr::to_words`] has it.
#[inline(always)]
pub const fn gate(addr: [u32; 4]) -> (usize, u64) {
    let mixed =
        addr[0] ^ addr[1].rotate_left(7) ^ addr[2].rotate_left(13) ^ addr[3].rotate_left(19);
    let hash = mixed.wrapping_mul(0x9e37_79b1) >> 16;
    ((hash >> 6) as usize & (GATE - 1), 1 << (hash & 63))
}

impl Slow {
    /// Whether rvsd reads now.
    #[inline(always)]
    pub fn is_open(&self, now: Tick) -> bool {
        self.ifindex.get() != 0 && (self.until.get().wrapping_sub(now.0) as i32) > 0
    }

    /// Whether a client may be expected to connect.
    #[inline(always)]
    pub fn expects(&self, now: Tick) -> bool {
        (self.expects.get().wrapping_sub(now.0) as i32) > 0
    }

    /// Whether the address may be one of ours.
    #[inline(always)]
    fn admits(&self, addr: [u32; 4]) -> bool {
        let (word, bit) = gate(addr);
        self.gate.get(word).is_some_and(|cell| cell.get() & bit != 0)
    }
}

/// What a frame on its way to rvsd and back carries in place of its destination's MAC address.
///
/// ```text
/// │ interface index, 4 bytes │ what to cut it to, 2 bytes │
/// ```
///
/// A tunnel's packet that is sent in pieces carries a random number in place of its source's MAC
/// address, which is the pieces' identification if they are of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The interface that it came by and goes back to; [`OUT`](Self::OUT) if its pieces leave by the
    /// route of their destination.
    pub ifindex: u32,
    /// Length, from the IP header on, that its pieces may have; 0 if it is a fragment that waits, or
    /// [`INSPECT`](Self::INSPECT), [`LEAVING`](Self::LEAVING), [`SEGMENT`](Self::SEGMENT).
    pub mtu: u16,
}

impl Ticket {
    /// As [`mtu`](Self::mtu): to be inspected for an application, as a whole. No MTU is so small.
    pub const INSPECT: u16 = 1;

    /// As [`mtu`](Self::mtu): the same of a packet that was about to leave by the interface. The MAC address that it
    /// was to be sent to is in its source's place meanwhile.
    pub const LEAVING: u16 = 3;

    /// As [`mtu`](Self::mtu): a segment of a super-packet that no program can tunnel. The kernel has
    /// cut it on its way to rvsd, which has nothing to do.
    pub const SEGMENT: u16 = 2;

    /// As [`ifindex`](Self::ifindex): no interface has this index.
    pub const OUT: u32 = 0;

    /// As the MAC address.
    #[inline(always)]
    pub const fn to_mac(self) -> [u8; 6] {
        let ([a, b, c, d], [e, f]) = (self.ifindex.to_ne_bytes(), self.mtu.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// The inverse of [`to_mac`](Self::to_mac).
    #[inline(always)]
    pub const fn from_mac([a, b, c, d, e, f]: [u8; 6]) -> Self {
        let (ifindex, mtu) = (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
        Self { ifindex, mtu }
    }
}

/// The memory that fragments need beside [`Tables`].
pub trait Notes: Env {
    /// The `SLOW` element.
    fn slow(&self) -> Option<&Slow>;
    /// The note with this key.
    fn note(&self, key: &NoteKey) -> Option<Note>;
    /// Leaves a note, in place of any other with its key.
    fn leave(&self, key: &NoteKey, note: &Note);
}

/// A fragment.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<A> {
    /// What its headers say; without a transport header the ports and flags are 0. The protocol is that
    /// behind all extension headers, which only the first fragment tells.
    pub flow: Flow<A>,
    /// What it shares with the others.
    pub key: NoteKey,
    /// Whether it is the first.
    pub first: bool,
}

/// What lies in a datagram, by its first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A transport header whose ports decide.
    Ports,
    /// An ICMP message: [`related`](crate::related) decides.
    Icmp,
    /// What is the host's.
    Other,
}

impl<A> Fragment<A> {
    /// What lies in the datagram, if this is its first fragment.
    #[inline(always)]
    pub const fn content(&self) -> Content {
        match self.flow.key.protocol as u8 {
            protocol::TCP | protocol::UDP | protocol::SCTP => Content::Ports,
            protocol::ICMP | protocol::ICMPV6 => Content::Icmp,
            _ => Content::Other,
        }
    }
}

/// What differs between the IP versions.
pub trait Fragments: Ip {
    /// Reads the headers of a frame that [`Ip::parse`] or [`Ip::parse_all`] called a fragment.
    fn fragment<P: Packet, E: Env>(env: &E, packet: &P) -> Result<Fragment<Self>, Reason>;
}

/// Bytes that a first fragment must have of its transport header and what is behind it. Of IPv4 rvsd
/// puts the datagram together if it is shorter.
#[inline(always)]
const fn least(proto: u8) -> usize {
    match proto {
        protocol::TCP => size_of::<Tcp>(),
        protocol::SCTP => Sctp::LEN + size_of::<SctpChunk>(),
        // An error with what it quotes.
        protocol::ICMP => IcmpError::LEN + Ipv4::LEN + Udp::LEN,
        _ => 0,
    }
}

/// Whether a datagram with this number in its IP header, or fragment header, may be one that is
/// balanced.
#[inline(always)]
const fn is_followed(number: u8) -> bool {
    const ICMP: u8 = protocol::ICMP;
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP | ICMP | protocol::ICMPV6)
        || headers::is_extension(number)
}

/// A fragment, once its IP headers were read: `offset` and `more` say which, `shared` what is in its
/// IP header or fragment header.
#[inline(always)]
fn read<A: Addr, P: Packet>(
    packet: &P,
    mut flow: Flow<A>,
    (id_be, shared): (u32, u8),
    offset: u16,
    more: bool,
) -> Result<Fragment<A>, Reason> {
    if !is_followed(shared) {
        return Err(Reason::Fragment);
    }
    let end = L3.wrapping_add(flow.len);
    // Every piece but the last is a multiple of eight bytes, and none is empty.
    let data = end.wrapping_sub(flow.l4);
    if flow.l4 >= end || more && data & 7 != 0 {
        return Err(Reason::Malformed);
    }
    let first = offset == 0;
    let version = if matches!(A::FAMILY, Family::V4) { 4 << 16 } else { 6 << 16 };
    let key = NoteKey {
        src: flow.key.src.to_words(),
        dst: flow.key.dst.to_words(),
        id_be,
        protocol: version | shared as u32,
    };
    let proto = flow.key.protocol as u8;
    if first && data < least(proto) as u32 {
        return Err(Reason::TinyFragment);
    }
    if first && matches!(proto, protocol::TCP | protocol::UDP | protocol::SCTP) {
        let (Ports { src_be, dst_be }, tcp_flags) = transport(packet, flow.l4, proto, end)?;
        flow.key.sport_be = u16::from_ne_bytes(src_be);
        flow.key.dport_be = u16::from_ne_bytes(dst_be);
        flow.tcp_flags = tcp_flags;
    }
    Ok(Fragment { flow, key, first })
}

/// The flow of a packet whose ports are yet unknown.
#[inline(always)]
fn portless<A: Addr, P: Packet>(
    packet: &P,
    src: A,
    dst: A,
    proto: u8,
    (l4, len): (u32, u32),
) -> Flow<A> {
    let key = Key { src, dst, sport_be: 0, dport_be: 0, protocol: proto as u32 };
    let (marked, mark) = mark(packet);
    let (ttl, tos, dont_fragment) = (0, 0, true);
    Flow { key, l4, len, tcp_flags: 0, ttl, tos, dont_fragment, marked, mark }
}

impl Fragments for V4 {
    #[inline(always)]
    fn fragment<P: Packet, E: Env>(env: &E, packet: &P) -> Result<Fragment<Self>, Reason> {
        let ip = packet.at::<Ipv4>(L3).ok_or(Reason::Malformed)?;
        headers::options(env, packet, ip.header_len())?;
        let (src, dst) = (V4(u32::from_ne_bytes(ip.src)), V4(u32::from_ne_bytes(ip.dst)));
        let place = (L3 + ip.header_len(), ip.total_len.get() as u32);
        let mut flow = portless(packet, src, dst, ip.protocol, place);
        let fragment = ip.fragment.get();
        (flow.ttl, flow.tos) = (ip.ttl, ip.tos);
        flow.dont_fragment = fragment & Ipv4::DF != 0;
        let id_be = u16::from_ne_bytes(zerocopy::transmute!(ip.id)) as u32;
        let (offset, more) = (fragment & Ipv4::OFFSET, fragment & Ipv4::MORE != 0);
        read(packet, flow, (id_be, ip.protocol), offset, more)
    }
}

impl Fragments for V6 {
    #[inline(always)]
    fn fragment<P: Packet, E: Env>(env: &E, packet: &P) -> Result<Fragment<Self>, Reason> {
        let ip = packet.at::<Ipv6>(L3).ok_or(Reason::Malformed)?;
        let (src, dst) = (v6(ip.src), v6(ip.dst));
        let (ttl, tos) = (ip.hop_limit, (ip.version_class_flow.get() >> 20) as u8);
        let len = ip.payload_len.get() as u32 + Ipv6::LEN as u32;
        // The chain before it was found to be in order.
        let (next, at) = headers::follow(env, packet, ip.next_header, L3 + Ipv6::LEN as u32);
        if next != protocol::FRAGMENT {
            return Err(Reason::Malformed);
        }
        let header = packet.at::<Header>(at).ok_or(Reason::Malformed)?;
        let shared = header.next_header;
        let (place, id_be) =
            (header.offset.get(), u32::from_ne_bytes(zerocopy::transmute!(header.id)));
        let (offset, more) = (place & Header::OFFSET, place & Header::MORE != 0);
        // Only the first has the headers that follow: RFC 8200, section 4.5.
        let (mut proto, mut l4) = (shared, at + Header::LEN as u32);
        if offset == 0 && headers::is_extension(shared) {
            (proto, l4) = headers::follow(env, packet, shared, l4);
        }
        let mut flow = portless(packet, src, dst, proto, (l4, len));
        (flow.ttl, flow.tos) = (ttl, tos);
        read(packet, flow, (id_be, shared), offset, more)
    }
}

/// Whether masquerading would change what SCTP's checksum covers: how that changes depends on the
/// datagram's length, which a first fragment does not tell.
#[inline(always)]
fn breaks_crc<A: Ip>(flow: &Flow<A>, forward: &Forward<'_, A>) -> bool {
    let old = if forward.reply { flow.key.sport_be } else { flow.key.dport_be };
    flow.key.protocol == protocol::SCTP as u32
        && forward.is_masqueraded()
        && forward.entry.target_port_be.get() as u16 != old
}

/// Notes what becomes of a first fragment, for the others. What is none of ours leaves a note only
/// where others of its datagram would be held up. `Err`: it is to be dropped, whatever the verdict.
#[inline(always)]
pub fn note<A: Ip, E: Tables<A> + Notes>(
    env: &E,
    fragment: &Fragment<A>,
    verdict: &Verdict<'_, A>,
) -> Result<(), Reason> {
    let breaks = match verdict {
        Verdict::Forward(forward) => breaks_crc(&fragment.flow, forward),
        _ => false,
    };
    if breaks {
        remember(env, fragment, Fate { word: DROPPED, ..fate(verdict) });
        return Err(Reason::FragmentSctp);
    }
    remember(env, fragment, fate(verdict));
    Ok(())
}

/// What became of a first fragment: as in a [`Note`].
#[derive(Clone, Copy, Debug)]
pub struct Fate<A> {
    /// See [`Note::word`].
    pub word: u32,
    /// See [`Note::dest`].
    pub dest: u32,
    /// See [`Note::target`].
    pub target: A,
}

/// What becomes of a packet by this verdict.
#[inline(always)]
pub fn fate<A: Addr>(verdict: &Verdict<'_, A>) -> Fate<A> {
    match verdict {
        Verdict::Forward(forward) => Fate {
            word: forward.entry.word.get(),
            dest: forward.entry.dest.get(),
            target: forward.entry.target.get(),
        },
        Verdict::Pass(_) => Fate { word: PASSED, dest: 0, target: A::default() },
        Verdict::Drop(_) => Fate { word: DROPPED, dest: 0, target: A::default() },
    }
}

/// Leaves a note. See [`note`]; also for ICMP messages, in which no checksum depends on the length of
/// what follows.
#[inline(always)]
pub fn remember<A: Addr, E: Tables<A> + Notes>(env: &E, fragment: &Fragment<A>, fate: Fate<A>) {
    let Fate { word, dest, target } = fate;
    if word == PASSED && !is_relevant(env, fragment) {
        return;
    }
    let Key { sport_be, dport_be, .. } = fragment.flow.key;
    let (tick, ports, target) = (env.now().0, [sport_be, dport_be], target.to_words());
    env.leave(&fragment.key, &Note { tick, word, dest, ports, target });
}

/// Whether a fragment may belong to a service or to a reply.
#[inline(always)]
pub fn is_relevant<A: Addr, E: Tables<A> + Notes>(env: &E, fragment: &Fragment<A>) -> bool {
    let Some(slow) = env.slow() else { return false };
    if slow.admits(fragment.key.dst) || slow.admits(fragment.key.src) {
        return true;
    }
    let mark = fragment.flow.mark;
    let marks = env.config().is_some_and(|config| config.flags.get() & CONFIG_FWMARK != 0);
    marks && mark != 0 && env.service(&ServiceAddr::fwmark(mark)).is_some()
}

/// What a fragment without a transport header is to do; `None` if its first has not passed yet.
/// The flow gets the ports that the first has.
#[inline(always)]
pub fn follow<'e, A: Addr, E: Tables<A> + Notes>(
    env: &'e E,
    now: Tick,
    fragment: &mut Fragment<A>,
) -> Option<Verdict<'e, A>> {
    let note = env.note(&fragment.key).filter(|note| note.is_fresh(now))?;
    if note.word == PASSED {
        return Some(Verdict::Pass(Reason::Fragment));
    }
    if note.word == DROPPED {
        return Some(Verdict::Drop(Reason::FragmentDropped));
    }
    [fragment.flow.key.sport_be, fragment.flow.key.dport_be] = note.ports;
    let (Some(dest), Some(entry)) = (env.dest(note.dest), env.passing()) else {
        return Some(Verdict::Drop(Reason::Inconsistent));
    };
    let word = Word(note.word);
    let entry: &'e Conn<A> = entry;
    entry.word.set(word.0);
    entry.dest.set(note.dest);
    entry.target.set(A::from_words(note.target));
    let reply = word.has(crate::conn::REPLY);
    // The place has become another destination's meanwhile.
    if !reply && note.dest != NOBODY && A::from_words(dest.addr.get()).to_words() != note.target {
        return Some(Verdict::Drop(Reason::DestGone));
    }
    let (dest_index, method) = (counted(dest, note.dest), word.forward());
    Some(Verdict::Forward(Forward { entry, dest, dest_index, method, reply }))
}

/// Counts what a fragment adds to the datagram that its first was counted as, and that it was seen.
#[inline(always)]
pub fn count<A: Addr, E: Env>(env: &E, flow: &Flow<A>, forward: &Forward<'_, A>) {
    env.count(Reason::FragmentSent);
    if forward.dest_index != NOBODY
        && let Some(stats) = env.stats(forward.dest_index)
    {
        let bytes = if forward.reply { &stats.out_bytes } else { &stats.in_bytes };
        let data = flow.len.wrapping_sub(flow.l4.wrapping_sub(L3));
        bytes.set(bytes.get().wrapping_add(data as u64));
    }
}

/// Rewrites a fragment without a transport header; see [`Forward::rewrite`].
#[inline(always)]
pub fn rewrite<A: Ip, P: Packet>(packet: &mut P, forward: &Forward<'_, A>) -> Option<()> {
    if forward.is_masqueraded() {
        A::rewrite(packet, forward.reply, forward.entry.target.get())
    } else {
        A::decrement_ttl(packet)
    }
}
