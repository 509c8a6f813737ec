//! The connection table between runs: counted, and emptied.

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

/// Forgets the flows from number `first` on, and all of them with 0. Nothing else may use the table
/// at this moment.
pub fn clear(maps: &Maps, family: Family, first: u32) {
    match family {
        Family::V4 => clear_in(&maps.conns4, first, 0),
        Family::V6 => clear_in(&maps.conns6, first, 3),
    }
    for dest in maps.dests.iter().filter(|_| first == 0) {
        dest.active.set(0);
        dest.inactive.set(0);
    }
}

/// `last` is the index of the last word of an address.
fn clear_in<A: Addr>(sets: &[ConnSet<A>], first: u32, last: usize) {
    let client = |addr: A| CLIENT_PREFIX.contains(&(u32::from_be(addr.to_words()[0]) >> 16));
    let flow = |conn: &Conn<A>| {
        let key = conn.key.get();
        let sends = client(key.src);
        let (addr, port) = if sends { (key.src, key.sport_be) } else { (key.dst, key.dport_be) };
        (u32::from_be(addr.to_words()[last]) & 0xffff) << 16 | u32::from(u16::from_be(port))
    };
    for set in sets {
        for conn in &set.ways {
            if first == 0 {
                conn.overflow.set(0);
            }
            if conn.word.get() != FREE && flow(conn) >= first {
                conn.word.set(FREE);
                conn.key.set(Default::default());
            }
        }
    }
}
