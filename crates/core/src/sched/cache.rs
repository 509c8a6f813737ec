//! What lblc and lblcr remember: which destinations an address was given before. It lies in the
//! connection table, as entries of their own kind that no packet finds and nobody lists.
//!
//! ```text
//!  lblc    ENTRY {address, slot, generation} ─dest─► destination
//!  lblcr   SET   {address, slot, generation} ─pair─► MEMBER ─pair─► MEMBER ─pair─► 0    newest first
//!                       ▲                        control │   dest ─► destination
//!                       └────────────────────────────────┘
//! ```
//!
//! Packets add members and mark them as gone; only the sweeper unlinks and ends them. A change of
//! the scheduler gives a service a new generation, and with it an empty cache.

use super::overhead;
use crate::addr::Addr;
use crate::conn::{CACHE, Word};
use crate::env::{Env, Tables, Visit};
use crate::layout::{Conn, Dest, Key, Version};
use crate::sweep::Swept;
use crate::sysctl::Sysctl;
use crate::table;
use crate::time::{Tick, ticks};
use crate::types::ForwardMethod;

/// In place of the protocol in the key of an entry or set, and in that of a member.
const CACHE_KEY: u32 = 0x200;
const MEMBER_KEY: u32 = 0x400;

/// State of a cache entry: what it is.
pub(super) const ENTRY: u32 = 0;
/// lblcr's, of an address: `expires` is when it was used last, `control` when it changed last.
pub const SET: u32 = 1;
pub(super) const MEMBER: u32 = 2;
/// A member that its set has lost.
pub(super) const GONE: u32 = 3;

/// Seconds between the kernel's looks at what is unused: nothing goes earlier than that
/// (`CHECK_EXPIRE_INTERVAL`, `COUNT_FOR_FULL_EXPIRATION`).
const CHECK: u32 = 30 * 60;
/// Entries of a service above which those that are idle for [`IDLE`] go: 16 for each bucket of the
/// kernel's table.
const CROWD: u32 = 16 * 1024;
/// Seconds (`ENTRY_TIMEOUT`).
const IDLE: u32 = 6 * 60;

/// The service that a connection is scheduled for, and the version of it that is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index in `SLOTS`.
    pub slot: u32,
    /// Index in `VERSIONS`.
    pub version: u32,
}

/// The key of what is remembered of `addr`.
#[inline(always)]
pub(super) fn key<A: Addr>(addr: A, slot: u32, generation: u64) -> Key<A> {
    Key {
        src: A::default(),
        dst: addr,
        sport_be: slot as u16,
        dport_be: generation as u16,
        protocol: CACHE_KEY | slot >> 16 << 16,
    }
}

/// The key of a member: nobody looks for it, but it has to lie somewhere.
#[inline(always)]
pub(super) fn member_key<A: Addr>(addr: A, dest: u32) -> Key<A> {
    Key {
        src: A::default(),
        dst: addr,
        sport_be: dest as u16,
        dport_be: (dest >> 16) as u16,
        protocol: MEMBER_KEY,
    }
}

/// The word of a cache entry of this kind.
#[inline(always)]
pub(super) const fn word(kind: u32) -> Word {
    Word::live(kind, ForwardMethod::Masquerade, CACHE)
}

/// Notes that an entry or set was used.
#[inline(always)]
pub(super) fn touch<A: Addr, E: Env>(env: &E, entry: &Conn<A>) {
    let now = env.now().0;
    if entry.expires.get() != now {
        entry.expires.set(now);
    }
}

/// Notes a destination in an entry or member.
#[inline(always)]
pub(super) fn remember<A: Addr>(entry: &Conn<A>, index: u32, dest: &Dest) {
    entry.dest.set(index);
    entry.target.set(A::from_words(dest.addr.get()));
    entry.target_port_be.set(dest.port_be.get());
}

/// Whether the place in `DESTS` still holds the destination that the entry means: places are given
/// to others, and entries do not keep them.
#[inline(always)]
pub(super) fn means<A: Addr>(entry: &Conn<A>, dest: &Dest) -> bool {
    A::from_words(dest.addr.get()) == entry.target.get()
        && dest.port_be.get() == entry.target_port_be.get()
}

/// Looks for a destination that is less than half full.
struct Spare<E> {
    env: E,
    first_row: u32,
    found: bool,
}

impl<E: Env> Visit for Spare<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = super::entry(&self.env, self.first_row, index) else {
            return false;
        };
        self.found = (dest.active.get() as u64) * 2 < row.weight as u64;
        !self.found
    }
}

/// Whether a destination has more active connections than weight while another one is less than
/// half full (`is_overloaded`).
#[inline(always)]
pub(super) fn is_overloaded<E: Env>(env: &E, version: &Version, dest: &Dest) -> bool {
    if dest.active.get() <= dest.weight.get() {
        return false;
    }
    let mut spare = Spare { env: *env, first_row: version.first_row.get(), found: false };
    env.repeat(version.rows.get(), &mut spare);
    spare.found
}

/// Enters what is remembered of an address, `expires` and what the caller has set already apart.
/// The number of entries is the service's, members not counted.
#[inline(always)]
pub(super) fn publish<A: Addr, E: Tables<A>>(env: &E, place: Place, entry: &Conn<A>, kind: u32) {
    if let Some(slot) = env.slot(place.slot) {
        env.add(&slot.cached, 1);
    }
    table::publish(env, entry, word(kind));
}

/// Load and weight of a destination, to be compared.
#[derive(Clone, Copy)]
pub(super) struct Load {
    load: u64,
    weight: u64,
}

impl Load {
    #[inline(always)]
    pub(super) fn of(dest: &Dest) -> Self {
        Self { load: overhead(dest), weight: dest.weight.get() as u64 }
    }

    /// Nobody's. See [`Env::unknown`].
    #[inline(always)]
    pub(super) fn unknown<E: Env>(env: &E) -> Self {
        Self { load: env.unknown(0).into(), weight: env.unknown(0).into() }
    }

    /// Whether `self` carries more for its weight than `other`.
    #[inline(always)]
    pub(super) fn exceeds(self, other: Self) -> bool {
        self.load.wrapping_mul(other.weight) > other.load.wrapping_mul(self.weight)
    }
}

/// What becomes of a cache entry. Entries and sets end once they were not used for the time that the
/// settings say, or with the service's generation; members with their set.
pub(crate) fn sweep<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, now: Tick) -> Swept {
    let word = Word(conn.word.get());
    let ends = match word.state() {
        MEMBER | GONE => !has_set(env, conn),
        kind => !is_used(env, conn, kind, now),
    };
    if !ends {
        if word.state() == SET {
            prune(env, conn);
        }
        return Swept::Live;
    }
    if env.compare_exchange(&conn.word, word.0, word.dead().0) != word.0 {
        return Swept::Live;
    }
    if matches!(word.state(), ENTRY | SET)
        && let Some(slot) = env.slot(slot_of(conn.key.get()))
    {
        env.add(&slot.cached, u32::MAX);
    }
    Swept::Dead
}

fn slot_of<A: Addr>(key: Key<A>) -> u32 {
    key.protocol >> 16 << 16 | key.sport_be as u32
}

/// Whether the set that a member names is still that of its address.
fn has_set<A: Addr, E: Tables<A>>(env: &E, member: &Conn<A>) -> bool {
    table::entry(env, member.control.get()).is_some_and(|set| {
        let word = Word(set.word.get());
        let is_set = word.is_live() && word.has(CACHE) && word.state() == SET;
        is_set && set.key.get().dst == member.key.get().dst
    })
}

fn is_used<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, kind: u32, now: Tick) -> bool {
    let key = conn.key.get();
    let Some(slot) = env.slot(slot_of(key)).filter(|slot| slot.version.get() != 0) else {
        return false;
    };
    let version = env.version(slot.version.get());
    if version.is_none_or(|version| version.state.get() as u16 != key.dport_be) {
        return false;
    }
    let sysctl = if kind == SET { Sysctl::LblcrExpiration } else { Sysctl::LblcExpiration };
    let timeout = timeout(env, sysctl).max(ticks(CHECK));
    let crowded = slot.cached.get() > CROWD;
    let timeout = if crowded { timeout.min(ticks(IDLE)) } else { timeout };
    !now.reached(Tick(conn.expires.get()).after(timeout))
}

/// The ticks that a setting in seconds stands for; none for less than no time.
#[inline(always)]
pub(super) fn timeout<E: Env>(env: &E, sysctl: Sysctl) -> u32 {
    let seconds = env.config().map_or(0, |config| config.sysctl(sysctl));
    ticks(seconds.max(0) as u32)
}

/// Unlinks the members that a set has lost. If a packet puts a member in front meanwhile, the rest
/// is done next time.
fn prune<A: Addr, E: Tables<A>>(env: &E, set: &Conn<A>) {
    let mut link = &set.pair;
    while let Some(member) = table::entry::<A, E>(env, link.get()) {
        let word = Word(member.word.get());
        if !word.is_live() || !word.has(CACHE) {
            break;
        }
        if word.state() != GONE {
            link = &member.pair;
            continue;
        }
        let number = link.get();
        if env.compare_exchange(link, number, member.pair.get()) != number {
            break;
        }
        // It names no set any more, so the sweeper ends it.
        member.control.set(0);
    }
}
