//! Destination hashing: the packet's destination address chooses a bucket of a table that is
//! filled with the destinations in turn, weights aside. Follows `ip_vs_dh.c`.

use super::{NONE, entry, fold, hash_fold};
use crate::addr::Addr;
use crate::env::Env;
use crate::layout::{HASH_SIZE, Key, Version};

#[inline(always)]
pub(super) fn pick<A: Addr, E: Env>(env: &E, version: &Version, key: &Key<A>) -> u32 {
    let bucket = hash_fold(fold(key.dst)) % HASH_SIZE;
    let Some(index) = env.table(version.table.get().wrapping_add(bucket)) else { return NONE };
    if index >= version.rows.get() {
        return NONE;
    }
    match entry(env, version.first_row.get(), index) {
        Some((row, dest)) if row.weight > 0 && dest.overload.get() == 0 => index,
        _ => NONE,
    }
}

/// The table: word `i` is the row of bucket `i` (`ip_vs_dh_reassign`).
pub fn fill(rows: u32, table: &mut [u32]) {
    for (bucket, word) in (0..).zip(table) {
        *word = if rows == 0 { NONE } else { bucket % rows };
    }
}
