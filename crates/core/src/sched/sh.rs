//! Source hashing: the client's address chooses a bucket of a table that is filled with the
//! destinations in proportion to their weights. Follows `ip_vs_sh.c`.

use super::{NONE, available, fold, hash_fold};
use crate::addr::Addr;
use crate::env::{Env, Visit};
use crate::layout::{HASH_SIZE, Key, Version};
use crate::types::ServiceFlags;

/// Walks the table from the home bucket on until a bucket's destination is available
/// (`ip_vs_sh_get_fallback`).
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
        let bucket = bucket(self.addr, self.port, offset.wrapping_add(self.home) % HASH_SIZE);
        self.found =
            available(&self.env, self.first_row, self.rows, self.table.wrapping_add(bucket));
        self.found == NONE
    }
}

/// `ip_vs_sh_hashkey`; `addr` and `port` in host order.
#[inline(always)]
fn bucket(addr: u32, port: u32, offset: u32) -> u32 {
    offset.wrapping_add(hash_fold(port.wrapping_add(addr))) % HASH_SIZE
}

#[inline(always)]
pub(super) fn pick<A: Addr, E: Env>(env: &E, version: &Version, key: &Key<A>) -> u32 {
    let flags = version.flags.get();
    let addr = fold(key.src);
    let with_port = flags & ServiceFlags::SCHED2.bits() != 0;
    let port = if with_port { u16::from_be(key.sport_be) as u32 } else { 0 };
    let (first_row, rows, table) =
        (version.first_row.get(), version.rows.get(), version.table.get());
    let home = bucket(addr, port, 0);
    let found = available(env, first_row, rows, table.wrapping_add(home));
    if found != NONE || flags & ServiceFlags::SCHED1.bits() == 0 || rows == 0 {
        return found;
    }
    let mut fallback =
        Fallback { env: *env, first_row, rows, table, addr, port, home, found: NONE };
    env.repeat(HASH_SIZE, &mut fallback);
    fallback.found
}

/// The table: word `i` is the row of bucket `i`. Each destination in turn takes as many buckets
/// as it has weight, one at least, around and around (`ip_vs_sh_reassign`).
pub fn fill(weights: &[u32], table: &mut [u32]) {
    let (mut row, mut taken) = (0usize, 0u32);
    for word in table {
        *word = if weights.is_empty() { NONE } else { row as u32 };
        taken += 1;
        if weights.get(row).is_some_and(|weight| taken >= *weight) {
            row = (row + 1) % weights.len();
            taken = 0;
        }
    }
}
