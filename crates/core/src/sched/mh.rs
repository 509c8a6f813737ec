//! Maglev hashing: the client's address chooses a place of a table in which each destination has a
//! share by its weight, and keeps most of its places when others come and go. Follows
//! `ip_vs_mh.c`.

use super::{NONE, available, fold};
use crate::addr::Addr;
use crate::env::{Env, Visit};
use crate::layout::{Key, MH_SIZE, Version};
use crate::types::ServiceFlags;

/// Places a destination fills at most in a turn are of this many bits (`IP_VS_MH_TAB_BITS`).
const TURN_BITS: u32 = 6;

const HASH1: u64 = 2_654_435_761;
const HASH2: u64 = 2_654_446_892;

/// SipHash-1-3 of four bytes, as the kernel's `hsiphash_1u32` on 64-bit machines. The reference is
/// Aumasson and Bernstein, "SipHash: a fast short-input PRF".
#[inline(always)]
fn hsiphash(value: u32, seed: u64) -> u32 {
    let (mut v0, mut v1, mut v2, mut v3) = (
        0x736f_6d65_7073_6575 ^ seed,
        0x646f_7261_6e64_6f6d ^ seed,
        0x6c79_6765_6e65_7261 ^ seed,
        0x7465_6462_7974_6573 ^ seed,
    );
    let round = |v: [u64; 4]| {
        let [mut v0, mut v1, mut v2, mut v3] = v;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v1);
        v0 = v0.wrapping_add(v3);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.rotate_left(32);
        [v0, v1, v2, v3]
    };
    let block = 4 << 56 | value as u64;
    v3 ^= block;
    [v0, v1, v2, v3] = round([v0, v1, v2, v3]);
    v0 ^= block;
    v2 ^= 0xff;
    [v0, v1, v2, v3] = round([v0, v1, v2, v3]);
    [v0, v1, v2, v3] = round([v0, v1, v2, v3]);
    [v0, v1, v2, v3] = round([v0, v1, v2, v3]);
    (v0 ^ v1 ^ v2 ^ v3) as u32
}

/// `ip_vs_mh_hashkey`; `addr` (folded) and `port` in host order.
#[inline(always)]
fn hash(addr: u32, port: u32, seed: u64, offset: u32) -> u32 {
    hsiphash(offset.wrapping_add(port).wrapping_add(addr), seed)
}

/// Walks from place to place until one has an available destination (`ip_vs_mh_get_fallback`).
struct Fallback<E> {
    env: E,
    first_row: u32,
    rows: u32,
    table: u32,
    addr: u32,
    port: u32,
    home: u32,
    found: u32,
}

impl<E: Env> Visit for Fallback<E> {
    #[inline(always)]
    fn visit(&mut self, offset: u32) -> bool {
        let offset = offset.wrapping_add(self.home) % MH_SIZE;
        let place = hash(self.addr, self.port, HASH1, offset) % MH_SIZE;
        self.found =
            available(&self.env, self.first_row, self.rows, self.table.wrapping_add(place));
        self.found == NONE
    }
}

#[inline(always)]
pub(super) fn pick<A: Addr, E: Env>(env: &E, version: &Version, key: &Key<A>) -> u32 {
    let flags = version.flags.get();
    let addr = fold(key.src);
    let with_port = flags & ServiceFlags::SCHED2.bits() != 0;
    let port = if with_port { u16::from_be(key.sport_be) as u32 } else { 0 };
    let (first_row, rows, table) =
        (version.first_row.get(), version.rows.get(), version.table.get());
    let home = hash(addr, port, HASH1, 0) % MH_SIZE;
    let found = available(env, first_row, rows, table.wrapping_add(home));
    if found != NONE || flags & ServiceFlags::SCHED1.bits() == 0 || rows == 0 {
        return found;
    }
    let mut fallback =
        Fallback { env: *env, first_row, rows, table, addr, port, home, found: NONE };
    env.repeat(MH_SIZE, &mut fallback);
    fallback.found
}

/// Where a destination is next to be entered into the table.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    next: u32,
    skip: u32,
    turns: u32,
}

impl Place {
    /// Of the destination with this address (network byte order), port (host order) and weight;
    /// `gcd` and `greatest` are those of all weights, 0 and 0 if none is positive
    /// (`ip_vs_mh_permutate`).
    pub fn new<A: Addr>(addr: A, port: u16, weight: u32, gcd: u32, greatest: u32) -> Self {
        let (addr, port) = (fold(addr), port as u32);
        let next = hash(addr, port, HASH1, 0) % MH_SIZE;
        let skip = hash(addr, port, HASH2, 0) % (MH_SIZE - 1) + 1;
        let gcd = gcd.max(1);
        let bits = u32::BITS - (greatest / gcd).leading_zeros();
        let turns = (weight / gcd) >> bits.saturating_sub(TURN_BITS);
        Self { next, skip, turns: turns.max((weight != 0) as u32) }
    }
}

/// The table: word `i` is the row at place `i`. Each destination in turn takes as many places as it
/// has turns, the next free ones in its own order (`ip_vs_mh_populate`).
pub fn fill(places: &mut [Place], table: &mut [u32]) {
    table.fill(NONE);
    if places.iter().all(|place| place.turns == 0) {
        return;
    }
    let size = table.len() as u32;
    let mut left = table.len();
    loop {
        for (row, place) in (0..).zip(places.iter_mut()) {
            for _ in 0..place.turns {
                // `size` is a prime, so that every step leads through all places.
                while table.get(place.next as usize).is_some_and(|taken| *taken != NONE) {
                    place.next = (place.next + place.skip) % size;
                }
                if let Some(word) = table.get_mut(place.next as usize) {
                    *word = row;
                }
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
    }
}
