//! Destination hashing: the packet's destination address chooses a bucket of a table that is
//! filled with the destinations in turn, weights aside. Follows `ip_vs_dh.c`.

use super::{NONE, available, fold, hash_fold};
use crate::addr::Addr;
use crate::env::Env;
use crate::layout::{HASH_SIZE, Key, Version};

#[inline(always)]
pub(super) fn pick<A: Addr, E: Env>(env: &E, version: &Version, key: &Key<A>) -> u32 {
    let bucket = hash_fold(fold(key.dst)) % HASH_SIZE;
    let (first_row, rows) = (version.first_row.get(), version.rows.get());
    available(env, first_row, rows, version.table.get().wrapping_add(bucket))
}

/// The table: word `i` is the row of bucket `i` (`ip_vs_dh_reassign`).
pub fn fill(rows: u32, table: &mut [u32]) {
    for (bucket, word) in (0..).zip(table) {
        *word = if rows == 0 { NONE } else { bucket % rows };
    }
}
