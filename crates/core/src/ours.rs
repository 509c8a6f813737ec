//! Which packets cannot be ours, by their addresses: a look at one word or two in place of a search of
//! the connection table, whose misses cost most where it is full.
//!
//! A Bloom filter of one hash, of the virtual addresses (packets to them) and the destinations'
//! (replies from them). Addresses stay in it after services and destinations have gone, because
//! connections outlive both; an address too many costs a search.

use crate::addr::Addr;
use crate::layout::{ADDRESS_WORDS, Config, Key};

/// The word and the bit of an address.
#[inline(always)]
fn place<A: Addr>(addr: A) -> (usize, u32) {
    let hash = addr.mix().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((hash >> 6) as usize & (ADDRESS_WORDS - 1), hash as u32 & 63)
}

#[inline(always)]
fn is_known<A: Addr>(config: &Config, addr: A) -> bool {
    let (word, bit) = place(addr);
    config.addresses.get(word).is_some_and(|word| word.get() >> bit & 1 != 0)
}

/// Whether a packet with these addresses may belong to a service or a connection.
#[inline(always)]
pub fn may_be<A: Addr>(config: &Config, key: &Key<A>) -> bool {
    is_known(config, key.dst) || is_known(config, key.src)
}

/// From now on packets to and from `addr` may be ours. To be called before any can be.
pub fn note<A: Addr>(config: &Config, addr: A) {
    let (word, bit) = place(addr);
    if let Some(word) = config.addresses.get(word) {
        word.set(word.get() | 1 << bit);
    }
}

/// From now on every packet may be ours: services by mark have no address.
pub fn note_all(config: &Config) {
    for word in &config.addresses {
        word.set(u64::MAX);
    }
}
