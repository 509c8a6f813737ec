//! Connections that netfilter tracks (`conntrack`): it translates their packets, which are only accounted
//! for here. Follows `ip_vs_nfct.c`.
//!
//! ```text
//!  ingress: client ─► virtual address ── priority: which destination ──► prerouting: rvsd's rules ─► destination
//!  egress:  client ◄─ virtual address ◄──────────── postrouting ◄─────────────────────── destination
//! ```
//!
//! By direct routing and tunnels nothing is translated, and netfilter sees clients' packets alone. They come
//! back by the device of marked packets, and are accounted for then:
//!
//! ```text
//!  ingress: client ─► virtual address ── priority: to be tracked ──► prerouting: a mark ─► routing: rvs0
//!  egress of rvs0 ─► ingress of the loopback: on to the destination
//! ```
//!
//! A client on the director itself: what it sends netfilter lets pass untracked, so that it can come in by the
//! loopback as a client's from elsewhere. What it gets netfilter has routed to that device as well, once it knows
//! the client, which the programs would not find by an address that MASQUERADE took:
//!
//! ```text
//!  client ─► virtual address: output, untracked ─► loopback, twice ── priority ──► prerouting ─► destination
//!  client ◄─ virtual address: loopback ◄─ egress of rvs0 ◄── routing: rvs0 ◄── prerouting: a mark ◄─ destination
//! ```
//!
//! Of a connection that another director told of, netfilter learns by the client's first packet. Until then
//! its reply entry has no [`TRACKED`], and what the destination sends is translated here.

use crate::addr::Addr;
use crate::conn::{REPLY, SYNCED, TRACKED, Word};
use crate::env::Tables;
use crate::flow::Flow;
use crate::layout::{CONFIG_COMES_BACK, CONFIG_OWN4, CONFIG_OWN6, Config, Conn, Key};
use crate::ours;
use crate::pipeline::{Forward, Verdict, change, of_entry, partner};
use crate::sysctl::Sysctl;
use crate::table;
use crate::types::{Family, ForwardMethod};

/// In a packet's priority, above the destination's index: netfilter is to translate it.
pub const PRIORITY: u32 = 0x7200_0000;
/// In a packet's priority: a destination's, of a connection that netfilter knows; or it is dropped, as it
/// would reach the client with the destination's address.
pub const REPLY_PRIORITY: u32 = 0x7300_0000;
/// In a packet's priority: netfilter is to track it, and nothing else.
pub const DIRECT_PRIORITY: u32 = 0x7300_0001;
/// In a packet's priority: the director's own, that netfilter did not track as it was sent.
pub const OWN_PRIORITY: u32 = 0x7300_0002;
/// Bits that tell one of these priorities from others.
pub const PRIORITY_MASK: u32 = 0xfe00_0000;
/// In a packet's mark, until it is routed: back to the programs. In place of what the host has there.
pub const MARK: u32 = 0x7200_0000;
/// Bits of [`MARK`].
pub const MARK_MASK: u32 = 0xff00_0000;
/// In [`PRIORITY`]: the packet keeps its port, as it has not the destination's.
pub const KEEPS_PORT: u32 = 1 << 23;

/// [`TRACKED`] if a new connection, forwarded by this method, is tracked: all are, but those without a
/// destination.
#[inline(always)]
pub fn flag<A: Addr, E: Tables<A>>(env: &E, method: u32) -> u32 {
    let Some(config) = env.config() else { return 0 };
    if config.sysctl(Sysctl::Conntrack) == 0 {
        return 0;
    }
    let comes_back = config.flags.get() & CONFIG_COMES_BACK != 0;
    let tracks = method == ForwardMethod::Masquerade as u32
        || method != ForwardMethod::Bypass as u32 && comes_back;
    if tracks { TRACKED } else { 0 }
}

/// Whether netfilter translates the packet.
#[inline(always)]
pub fn is_translated<A: Copy>(verdict: &Verdict<'_, A>) -> bool {
    match verdict {
        Verdict::Forward(forward) => {
            let word = Word(forward.entry.word.get());
            word.has(TRACKED) && is_masqueraded(word)
        }
        _ => false,
    }
}

/// Whether a packet of the director's own, not tracked as it was sent, is netfilter's: nobody else knows the
/// loopback's addresses.
#[inline(always)]
pub fn is_own<A: Addr>(config: &Config, family: Family, forward: &Forward<'_, A>) -> bool {
    let flag = if matches!(family, Family::V4) { CONFIG_OWN4 } else { CONFIG_OWN6 };
    let loops =
        forward.entry.key.get().src.is_loopback() || forward.entry.target.get().is_loopback();
    config.flags.get() & flag != 0 && !forward.reply && !loops
}

/// Whether the packet of an entry with this word is netfilter's, to be translated or tracked. What comes by
/// the loopback it has tracked.
#[inline(always)]
pub fn is_left(word: Word, on_loopback: bool) -> bool {
    word.has(TRACKED) && (is_masqueraded(word) || !on_loopback)
}

#[inline(always)]
fn is_masqueraded(word: Word) -> bool {
    word.forward() == ForwardMethod::Masquerade as u32
}

/// The connection of a client's packet as it comes in, or of a real server's.
#[inline(always)]
pub fn incoming<'e, A: Addr, E: Tables<A>>(env: &'e E, flow: &Flow<A>) -> Option<Forward<'e, A>> {
    let verdict = of_entry(env, table::entry(env, env.find(&flow.key))?);
    match verdict {
        Verdict::Forward(forward) if Word(forward.entry.word.get()).has(TRACKED) => Some(forward),
        _ => None,
    }
}

/// The connection of a packet that leaves, translated, for a client.
#[inline(always)]
pub fn outgoing<'e, A: Addr, E: Tables<A>>(env: &'e E, flow: &Flow<A>) -> Option<Forward<'e, A>> {
    let key = flow.key.turned();
    env.config().filter(|config| ours::may_be(config, &key))?;
    let conn = table::entry(env, env.find(&key))?;
    let word = Word(conn.word.get());
    if !word.has(TRACKED) || word.has(REPLY) {
        return None;
    }
    match of_entry(env, partner(env, conn)?) {
        // What was translated here has been counted.
        Verdict::Forward(forward) if Word(forward.entry.word.get()).has(TRACKED) => Some(forward),
        _ => None,
    }
}

/// Leaves replies to netfilter as well, from a client's first packet on.
#[inline(always)]
pub fn meet<A: Addr, E: Tables<A>>(env: &E, entry: &Conn<A>) {
    if Word(entry.word.get()).has(SYNCED)
        && let Some(reply) = partner(env, entry)
    {
        change(env, reply, |word| Word(word.0 | TRACKED));
    }
}

/// What tells netfilter the destination of a connection.
#[inline(always)]
pub fn priority<A: Copy>(forward: &Forward<'_, A>) -> u32 {
    let own = forward.dest.port_be.get() as u16;
    let keeps = own == 0 || forward.entry.target_port_be.get() as u16 != own;
    let index = forward.entry.dest.get() & (KEEPS_PORT - 1);
    PRIORITY | index | if keeps { KEEPS_PORT } else { 0 }
}

/// Translates a connection here from now on: one of the director's own that netfilter cannot get from here.
#[inline(always)]
pub fn give_up<A: Addr, E: Tables<A>>(env: &E, entry: &Conn<A>) {
    for entry in [Some(entry), partner(env, entry)].into_iter().flatten() {
        change(env, entry, |word| Word(word.0 & !TRACKED));
    }
}

/// A connection that ended and that netfilter may still send packets of to its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended<A> {
    /// What the client's packets have.
    pub key: Key<A>,
    /// The source of replies to it as netfilter knows it: the destination's address, or what the client's
    /// packets were sent to.
    pub target: A,
}

/// What netfilter is to forget with `conn`, which has ended: unless another has taken its place whose packets
/// get the same address.
pub fn ended<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) -> Option<Ended<A>> {
    let word = Word(conn.word.get());
    if !word.has(TRACKED) || word.has(REPLY) {
        return None;
    }
    let key = conn.key.get();
    let masqueraded = is_masqueraded(word);
    let target = if masqueraded { conn.target.get() } else { key.dst };
    let same = |next: &Conn<A>| {
        masqueraded == is_masqueraded(Word(next.word.get()))
            && (!masqueraded || next.dest.get() == conn.dest.get())
    };
    let taken = table::entry(env, env.find(&key)).is_some_and(same);
    if taken { None } else { Some(Ended { key, target }) }
}
