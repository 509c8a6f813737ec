//! The connection table between runs: counted, and emptied.

use std::cell::Cell;

use rvs_core::addr::Addr;
use rvs_core::conn::{FREE, Word};
use rvs_core::layout::{Conn, ConnSet};
use rvs_core::types::Family;
use rvs_datapath::Maps;

/// First two bytes of the clients' addresses, IPv4 and IPv6.
const CLIENT_PREFIX: [u32; 2] = [0xac10, 0xfd99];

/// Live entries.
pub fn live(maps: &Maps, family: Family) -> usize {
    fn count<A: Addr>(sets: &[ConnSet<A>]) -> usize {
        let entries = sets.iter().flat_map(|set| &set.ways);
        entries.filter(|conn| Word(conn.word.get()).is_live()).count()
    }
    match family {
        Family::V4 => count(&maps.conns4),
        Family::V6 => count(&maps.conns6),
    }
}

/// Entries that nobody can take, those that have ended and were not cleared yet included, IPv4.
pub fn taken(maps: &Maps) -> usize {
    maps.conns4.iter().flat_map(|set| &set.ways).filter(|conn| conn.word.get() != FREE).count()
}

/// How many of these flows have a live entry that their client's packets find, IPv4.
pub fn live_flows(maps: &Maps, flows: std::ops::Range<u32>) -> usize {
    let entries = maps.conns4.iter().flat_map(|set| &set.ways);
    let live = entries.filter(|conn| Word(conn.word.get()).is_live());
    live.filter(|conn| sends(conn) && flows.contains(&flow(conn, 0))).count()
}

/// Whether an entry's packets come from a client.
fn sends<A: Addr>(conn: &Conn<A>) -> bool {
    CLIENT_PREFIX.contains(&(u32::from_be(conn.key.get().src.to_words()[0]) >> 16))
}

/// The flow of an entry; `last` is the index of the last word of an address.
fn flow<A: Addr>(conn: &Conn<A>, last: usize) -> u32 {
    let key = conn.key.get();
    let (addr, port) = if sends(conn) { (key.src, key.sport_be) } else { (key.dst, key.dport_be) };
    rvs_bench_ebpf::flow(u32::from_be(addr.to_words()[last]) as u16, u16::from_be(port))
}

/// Forgets the flows from number `first` on, and all of them with 0. Nothing else may use the table
/// at this moment.
pub fn clear(maps: &Maps, family: Family, first: u32) {
    match family {
        Family::V4 => clear_in(&maps.conns4, &maps.tags4, first, 0),
        Family::V6 => clear_in(&maps.conns6, &maps.tags6, first, 3),
    }
    for dest in maps.dests.iter().filter(|_| first == 0) {
        dest.active.set(0);
        dest.inactive.set(0);
    }
}

/// `last` is the index of the last word of an address.
fn clear_in<A: Addr>(sets: &[ConnSet<A>], tags: &[Cell<u64>], first: u32, last: usize) {
    let in_sets = sets.iter().skip(tags.len()).map(|set| &set.ways[0].tags);
    for (set, tags) in sets.iter().zip(tags.iter().chain(in_sets)) {
        for (way, conn) in set.ways.iter().enumerate() {
            if conn.word.get() != FREE && flow(conn, last) >= first {
                tags.set(tags.get() & !(0x7f << (8 * way)));
                conn.word.set(FREE);
                conn.key.set(Default::default());
            }
        }
        if first == 0 {
            // Marks of sets that were full.
            tags.set(0);
        }
    }
}

/// Whether so many entries are as many as were wanted: in a table that is made for no more, all sets in
/// reach of one in ten thousand are full, of one in a thousand at most in small ones.
pub fn holds(found: u32, wanted: u32) -> bool {
    found <= wanted && found >= wanted - wanted.div_ceil(1000)
}
