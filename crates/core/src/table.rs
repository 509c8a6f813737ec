//! The connection table: set-associative, one cache line an entry, full keys, no locks.
//!
//! A seeded hash gives a key its home set and a step. An insert that finds the home set full
//! marks it as overflowed and goes on by the step, [`PROBES`] sets in all; a look-up follows only
//! while sets are marked. ARCHITECTURE.md has the measurement behind this choice.

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

/// Home set of a key with this hash among so many, and the odd step to the next set: of neighbours
/// that overflow, each goes its own way. Halves of the hash are scaled down instead of divided.
#[inline(always)]
fn path(hash: u64, sets: u32) -> (u32, u32) {
    let below = |end: u32, half: u64| ((half * end as u64) >> 32) as u32;
    (below(sets, hash >> 32), below(sets, hash & 0xffff_ffff) | 1)
}

/// The next set of a path.
#[inline(always)]
fn next(index: u32, step: u32, sets: u32) -> u32 {
    let index = index.wrapping_add(step);
    if index >= sets { index.wrapping_sub(sets) } else { index }
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
    let sets = env.sets(config);
    let (mut index, step) = path(hash(key, config.seed.get()), sets);
    for _ in 0..PROBES {
        let set = env.set(index)?;
        for (way, conn) in set.ways.iter().enumerate() {
            if same(conn.key.get(), key) && Word(conn.word.get()).is_live() {
                if size_of::<Conn<A>>() > 64 {
                    // The second cache line, on its way while the first is read.
                    core::hint::black_box(conn.control.get());
                }
                return Some((conn, index * WAYS as u32 + way as u32));
            }
        }
        if set.ways.first()?.overflow.get() == 0 {
            return None;
        }
        index = next(index, step, sets);
    }
    None
}

/// Claims a free entry near the key's home set for the caller to fill in and publish; `None` if
/// all the sets in reach are full. The entry's key is written, its word is `BUSY`.
#[inline(always)]
pub fn claim<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<(&'e Conn<A>, u32)> {
    let config = env.config()?;
    let sets = env.sets(config);
    let (mut index, step) = path(hash(key, config.seed.get()), sets);
    for _ in 0..PROBES {
        let set = env.set(index)?;
        for (way, conn) in set.ways.iter().enumerate() {
            if conn.word.get() == FREE && env.compare_exchange(&conn.word, FREE, BUSY) == FREE {
                conn.key.set(*key);
                return Some((conn, index * WAYS as u32 + way as u32));
            }
        }
        let overflow = &set.ways.first()?.overflow;
        if overflow.get() == 0 {
            overflow.set(1);
        }
        index = next(index, step, sets);
    }
    None
}

/// The set that a key is looked up in first.
#[inline(always)]
pub fn home<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<&'e ConnSet<A>> {
    let config = env.config()?;
    env.set(path(hash(key, config.seed.get()), env.sets(config)).0)
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
