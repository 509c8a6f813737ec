//! What the programs and the measuring process share: keys, the set-associative table's layout
//! and the packet that carries a run's parameters in and its counts out.
#![no_std]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `Entry::word`: nobody's.
pub const FREE: u32 = 0;
/// `Entry::word`: being filled in.
pub const BUSY: u32 = 1;
/// `Entry::word`: look-ups find it.
pub const LIVE: u32 = 2;
/// `Entry::word`: ended, cleared after an RCU grace period.
pub const DEAD: u32 = 3;

/// Sets that a look-up visits at most.
pub const PROBES: usize = 4;

/// A flow: {src, dst} and {sport, dport, proto, pad}, as two words.
pub type Key = [u64; 2];

/// The key of flow number `flow`; different for each number.
#[inline(always)]
pub fn key(flow: u32) -> Key {
    let src = flow.wrapping_mul(0x9e37_79b1) as u64;
    let sport = ((flow >> 9) ^ flow) as u16 as u64;
    [src | 0x0909_630a << 32, sport | 0x5000 << 16 | 6 << 32]
}

/// Spreads a key over 64 bits.
#[inline(always)]
pub fn hash(key: Key, seed: u64) -> u64 {
    let mut h = (key[0] ^ seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 32;
    h = (h ^ key[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 32
}

/// One cache line: a connection. `W` and `D` are cells of 32 and 64 bits in the kernel, atomics in
/// user space.
#[repr(C, align(64))]
pub struct Entry<W, D> {
    /// [`FREE`], [`BUSY`], [`LIVE`] or [`DEAD`].
    pub word: W,
    /// When user space is to end it.
    pub expires: W,
    /// The full key.
    pub key: [D; 2],
    /// Here the key once more, so that a look-up can prove whose entry it read.
    pub data: [D; 4],
    /// In a set's way 0: an insert found the set full and went on to the next.
    pub overflow: W,
    /// Unused.
    pub pad: W,
}

/// A set of the table: the map's value.
#[repr(C)]
pub struct Set<W, D, const WAYS: usize> {
    /// Its entries.
    pub ways: [Entry<W, D>; WAYS],
}

/// The hash maps' value.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Value {
    /// As in [`Entry`].
    pub word: u32,
    /// As in [`Entry`].
    pub expires: u32,
    /// The key once more.
    pub data: [u64; 5],
}

/// The packet of a test run. A repeat finds it as the last one left it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Run {
    /// State of the generator that picks flows.
    pub random: u64,
    /// Seed of the hash.
    pub seed: u64,
    /// Sets of the table less one.
    pub mask: u32,
    /// First flow.
    pub first: u32,
    /// Number of flows.
    pub range: u32,
    /// Flows taken in order so far.
    pub next: u32,
    /// `expires` of inserted entries.
    pub expires: u32,
    /// `hold` only: calls of the clock, 35 ns each, between a look-up and the use of the entry.
    pub pause: u32,
    /// Flows found, or inserted, or deleted.
    pub done: u64,
    /// Not found, no place, not there.
    pub missed: u64,
    /// Found, with another flow's data.
    pub wrong: u64,
    /// Keeps the compiler from dropping the empty wrapper.
    pub sum: u64,
}

impl Run {
    /// A flow at random.
    #[inline(always)]
    pub fn pick(&mut self) -> Key {
        self.random =
            self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        key(self.first.wrapping_add(((self.random >> 32) * self.range as u64 >> 32) as u32))
    }

    /// The next flow in order.
    #[inline(always)]
    pub fn step(&mut self) -> Key {
        let flow = self.first.wrapping_add(self.next);
        self.next = self.next.wrapping_add(1);
        key(flow)
    }
}
