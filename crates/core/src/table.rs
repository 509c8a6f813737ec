//! The connection table: set-associative, one cache line an entry, full keys, no locks.
//!
//! A seeded hash gives a key its home sets: one in each of the first two parts of the table, some in
//! the last. The first part fits into a CPU's second-level cache, the second into its third, the last
//! is all the rest. An insert takes the first free place; a set that it finds full it marks as
//! overflowed, and a look-up goes on only while sets are marked. So few connections lie close together
//! in however large a table. A byte of each key's hash lies at the head of its set: other connections'
//! cache lines are not touched. ARCHITECTURE.md has the measurements behind this.

use crate::addr::Addr;
use crate::conn::{BUSY, FREE, Word};
use crate::env::Tables;
use crate::layout::{Conn, ConnSet, Key, PROBES, WAYS, split_entry};

/// Spreads a key over 64 bits; `seed` keeps outsiders from choosing colliding flows.
#[inline(always)]
pub fn hash<A: Addr>(key: &Key<A>, seed: u64) -> u64 {
    let ports = (key.sport_be as u64) << 32 | (key.dport_be as u64) << 16 | key.protocol as u64;
    let mut h = seed ^ key.src.mix();
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 32;
    h ^= key.dst.mix().rotate_left(32) ^ ports;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^= h >> 29;
    h = h.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 32
}

/// Sets of the first part, at most: 256 KiB with IPv4, room for 4,096 entries.
const NEAR: u32 = 1 << 9;
/// Sets of the second part, at most: 8 MiB with IPv4, room for 131,072 entries.
const MIDDLE: u32 = 1 << 14;
/// The probe that is the first in the last part.
const LAST: u32 = 2;

/// The set of this probe for a key with this hash in a table of so many sets. Each probe of the last
/// part takes other bits of the hash: of neighbours that overflow, each goes its own way.
#[inline(always)]
fn place(probe: u32, hash: u64, sets: u32) -> u32 {
    let (near, middle) = (NEAR.min(sets / 8), MIDDLE.min(sets / 4));
    let (start, len) = match probe {
        0 => (0, near),
        1 => (near, middle),
        _ => (near + middle, sets - near - middle),
    };
    let bits = hash.rotate_left(16 * probe.saturating_sub(LAST)) >> 32;
    // Scaled down instead of divided.
    start + ((bits * len as u64) >> 32) as u32
}

/// What of a key's hash lies at the head of its set.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    hash as u8
}

#[inline(always)]
fn same<A: Addr>(a: Key<A>, b: &Key<A>) -> bool {
    a.src == b.src
        && a.dst == b.dst
        && a.sport_be == b.sport_be
        && a.dport_be == b.dport_be
        && a.protocol == b.protocol
}

/// The live entry with this key, and its index.
#[inline(always)]
pub fn find<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<(&'e Conn<A>, u32)> {
    let config = env.config()?;
    let hash = hash(key, config.seed.get());
    for probe in 0..PROBES {
        let index = place(probe, hash, env.sets(config));
        let set = env.set(index)?;
        let head = set.ways.first()?;
        for (way, (conn, tagged)) in set.ways.iter().zip(&head.tags).enumerate() {
            if tagged.get() == tag(hash)
                && same(conn.key.get(), key)
                && Word(conn.word.get()).is_live()
            {
                if size_of::<Conn<A>>() > 64 {
                    // The second cache line, on its way while the first is read.
                    core::hint::black_box(conn.control.get());
                }
                return Some((conn, index * WAYS as u32 + way as u32));
            }
        }
        if head.overflow.get() == 0 {
            return None;
        }
    }
    None
}

/// Claims a free entry of one of the key's sets for the caller to fill in and publish; `None` if
/// all the sets in reach are full. The entry's key is written, its word is `BUSY`.
#[inline(always)]
pub fn claim<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<(&'e Conn<A>, u32)> {
    let config = env.config()?;
    let hash = hash(key, config.seed.get());
    for probe in 0..PROBES {
        let index = place(probe, hash, env.sets(config));
        let set = env.set(index)?;
        let head = set.ways.first()?;
        for (way, (conn, tagged)) in set.ways.iter().zip(&head.tags).enumerate() {
            if conn.word.get() == FREE && env.compare_exchange(&conn.word, FREE, BUSY) == FREE {
                conn.key.set(*key);
                tagged.set(tag(hash));
                return Some((conn, index * WAYS as u32 + way as u32));
            }
        }
        if head.overflow.get() == 0 {
            head.overflow.set(1);
        }
    }
    None
}

/// The first set of the table's last part that a key may lie in.
#[inline(always)]
pub fn home<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<&'e ConnSet<A>> {
    let config = env.config()?;
    env.set(place(LAST, hash(key, config.seed.get()), env.sets(config)))
}

/// The entry with this index, plus one; `None` for 0.
#[inline(always)]
pub fn entry<A: Addr, E: Tables<A>>(env: &E, index_plus_one: u32) -> Option<&Conn<A>> {
    if index_plus_one == 0 {
        return None;
    }
    let (set, way) = split_entry(index_plus_one - 1);
    env.set(set)?.ways.get(way)
}

/// Makes a claimed entry visible, everything written before it included.
#[inline(always)]
pub fn publish<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, word: Word) {
    env.compare_exchange(&conn.word, BUSY, word.0);
}

/// Gives a claimed entry back that was never published.
#[inline(always)]
pub fn abandon<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) {
    conn.key.set(Key::default());
    conn.pair.set(0);
    conn.dest.set(0);
    env.compare_exchange(&conn.word, BUSY, FREE);
}
