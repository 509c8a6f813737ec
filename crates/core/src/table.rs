//! The connection table: set-associative, one cache line an entry, full keys, no locks.
//!
//! A seeded hash gives a key its home sets: one in each of the first two parts of the table, some in
//! the last. The first part fits into a CPU's second-level cache, the second into its third, the last
//! is all the rest. An insert takes the first free place; a set that it finds full it marks as
//! overflowed, and a look-up goes on only while sets are marked. So few connections lie close together
//! in however large a table.
//!
//! A word for each set has a tag for each way, of its key's hash, and the mark: of all connections' own
//! cache lines only that of the one that is looked for is touched. The words of the first two parts lie
//! together (`TAGS4`, `TAGS6`), eight to a cache line and so always near; those of the last, which would be
//! too many for that, lie in their sets, on the page that is needed anyway. ARCHITECTURE.md has the
//! measurements behind this.

use core::cell::Cell;

use crate::addr::{Addr, V4};
use crate::conn::{BUSY, FREE, Word};
use crate::env::Tables;
use crate::layout::{Conn, ConnSet, ENTRIES, Key, PROBES, Parts, WAYS, split_entry};
use crate::types::ForwardMethod;

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
/// The first probe that is in the last part.
const LAST: u64 = 2;

/// The tag of a way that nobody has.
const UNTAGGED: u64 = 0;
/// Bits of a way's byte that are its tag.
const TAG: u64 = 0x7f;
/// In a set's word: an insert found it full and went on.
const OVERFLOWED: u64 = 1 << 63;

/// Where a key may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the set.
    pub set: u32,
    /// Its tag, from 1 to 127. No other key in the set has the same: a look-up compares one key at most.
    pub tag: u64,
}

/// Sets of a table with room for so many connections, and how many of them have their tags in a map of their
/// own. Both maps together take [`ENTRIES`] cache lines a connection, with IPv4.
pub const fn sets(connections: u32) -> (u32, u32) {
    let sets = connections / WAYS as u32 * ENTRIES;
    let (near, middle) = first_parts(sets);
    let words = (near + middle) * size_of::<u64>() as u32;
    let sets = sets - words.div_ceil(size_of::<ConnSet<V4>>() as u32);
    let (near, middle) = first_parts(sets);
    (sets, near + middle)
}

/// Sets that a table has at least: one in each part.
pub const LEAST_SETS: u32 = 3;

/// Sets of the first two parts of a table of so many.
const fn first_parts(sets: u32) -> (u32, u32) {
    let (near, middle) = (sets / 8, sets / 4);
    let near = if near == 0 { 1 } else { near };
    let middle = if middle == 0 { 1 } else { middle };
    (if near < NEAR { near } else { NEAR }, if middle < MIDDLE { middle } else { MIDDLE })
}

/// Divides a table of so many sets, [`LEAST_SETS`] or more.
pub fn divide(parts: &Parts, sets: u32) {
    let (near, middle) = first_parts(sets);
    parts.near.set(near);
    parts.middle.set(middle);
    parts.last.set(sets - near - middle);
}

/// The word of a set's tags: a byte for each way, 0 while nobody has it, else its key's tag. Whoever changes
/// one from 0 has claimed the way.
#[inline(always)]
fn tags<A: Addr, E: Tables<A>>(env: &E, set: u32, apart: bool) -> Option<&Cell<u64>> {
    if apart { env.tags(set) } else { Some(&env.set(set)?.ways.first()?.tags) }
}

/// The place of this probe for a key whose hash was [`turned`] for it.
#[inline(always)]
fn place(probe: u64, hash: u64, parts: &Parts) -> Place {
    let (near, middle) = (parts.near.get(), parts.middle.get());
    let (start, len) = match probe {
        0 => (0, near),
        1 => (near, middle),
        _ => (near + middle, parts.last.get()),
    };
    // Scaled down instead of divided.
    let set = start + (((hash >> 32) * len as u64) >> 32) as u32;
    // Scaled, too: a branch here would be two paths for the verifier in each probe.
    Place { set, tag: 1 + (((hash & 0xffff) * TAG) >> 16) }
}

/// A key's hash for the next probe: each takes other bits of it. Of neighbours that overflow, each goes its
/// own way.
#[inline(always)]
fn turned(hash: u64) -> u64 {
    hash.rotate_left(24)
}

/// 1 in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The tags of all ways.
const TAGS: u64 = TAG * ONES;

/// The highest bit of each byte of `tags` whose tag is `tag`.
#[inline(always)]
fn matches(tags: u64, tag: u64) -> u64 {
    let differ = (tags ^ tag.wrapping_mul(ONES)) & TAGS;
    !(differ.wrapping_add(TAGS) | TAGS)
}

/// The lowest of these bits.
#[inline(always)]
fn lowest(matches: u64) -> u64 {
    matches & matches.wrapping_neg()
}

/// The way that one such bit stands for.
#[inline(always)]
fn way_of(bit: u64) -> u32 {
    // The bit moves the way's number into the highest byte. The mask is for the verifier.
    ((bit >> 7).wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32 & (WAYS as u32 - 1)
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
    let mut hash = hash(key, config.seed.get());
    for probe in 0..PROBES {
        let place = place(probe, hash, env.parts(config));
        let tags = tags(env, place.set, probe < LAST)?.get();
        let tagged = matches(tags, place.tag);
        if tagged != 0 {
            let way = way_of(tagged);
            let conn = env.set(place.set)?.ways.get(way as usize)?;
            let word = Word(conn.word.get());
            if same(conn.key.get(), key) && word.is_live() {
                if size_of::<Conn<A>>() > 64 && word.forward() == ForwardMethod::Masquerade as u32 {
                    // The second cache line, on its way while the first is read.
                    core::hint::black_box(conn.control.get());
                }
                return Some((conn, place.set * WAYS as u32 + way));
            }
        }
        if tags & OVERFLOWED == 0 {
            return None;
        }
        hash = turned(hash);
    }
    None
}

/// Claims a free entry of one of the key's sets for the caller to fill in and publish; `None` if
/// all the sets in reach are full. The entry's key is written, its word is `BUSY`.
#[inline(always)]
pub fn claim<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<(&'e Conn<A>, u32)> {
    let config = env.config()?;
    let mut hash = hash(key, config.seed.get());
    for probe in 0..PROBES {
        let place = place(probe, hash, env.parts(config));
        let word = tags(env, place.set, probe < LAST)?;
        let tags = word.get();
        let free = matches(tags, UNTAGGED);
        if free != 0 && matches(tags, place.tag) == 0 {
            let way = way_of(lowest(free));
            let claimed = tags | place.tag << (8 * way);
            // Who loses a race for the set goes on to the next.
            if env.compare_exchange64(word, tags, claimed) == tags {
                let conn = env.set(place.set)?.ways.get(way as usize)?;
                conn.word.set(BUSY);
                conn.key.set(*key);
                return Some((conn, place.set * WAYS as u32 + way));
            }
        }
        if tags & OVERFLOWED == 0 {
            env.or64(word, OVERFLOWED);
        }
        hash = turned(hash);
    }
    None
}

/// The first place of a key in the table's last part.
#[inline(always)]
pub fn home<A: Addr, E: Tables<A>>(env: &E, key: &Key<A>) -> Option<Place> {
    let config = env.config()?;
    let hash = turned(turned(hash(key, config.seed.get())));
    Some(place(LAST, hash, env.parts(config)))
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

/// Gives a claimed entry back that was never published; its index plus one.
#[inline(always)]
pub fn abandon<A: Addr, E: Tables<A>>(env: &E, number: u32) {
    let Some(conn) = entry(env, number) else { return };
    conn.key.set(Key::default());
    conn.pair.set(0);
    conn.dest.set(0);
    free(env, number, BUSY);
}

/// Gives back the way of an entry, whose word is still `word` and whose index plus one is `number`.
#[inline(always)]
pub fn free<A: Addr, E: Tables<A>>(env: &E, number: u32, word: u32) {
    let (set, way) = split_entry(number - 1);
    let Some(config) = env.config() else { return };
    let parts = env.parts(config);
    let apart = set < parts.near.get() + parts.middle.get();
    let (Some(conn), Some(tags)) = (entry(env, number), tags(env, set, apart)) else { return };
    if env.compare_exchange(&conn.word, word, FREE) == word {
        // Nobody else changes a tag that is not 0.
        env.add64(tags, (tags.get() & TAG << (8 * way)).wrapping_neg());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_way_with_a_tag_is_found() {
        for mark in [0, OVERFLOWED] {
            let tags = u64::from_le_bytes([3, 1, 0, 7, 127, 7, 0, 1]) | mark;
            for (tag, way) in [(3, 0), (1, 1), (0, 2), (7, 3), (127, 4)] {
                assert_eq!(way_of(lowest(matches(tags, tag))), way, "{tag}");
            }
            assert_eq!(matches(tags, 9), 0);
            assert_eq!(way_of(matches(TAGS >> 8 | mark, UNTAGGED)), 7);
        }
    }
}
