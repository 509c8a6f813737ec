//! Shortest expected delay: the available destination with the least load for its weight once it
//! had the new connection. Only active connections count. Follows `ip_vs_sed.c`.

use super::{NONE, entry};
use crate::env::{Env, Visit};
use crate::layout::{Dest, Version};

/// Load with the new connection (`ip_vs_sed_dest_overhead`).
#[inline(always)]
pub(super) fn overhead(dest: &Dest) -> u64 {
    dest.active.get() as u64 + 1
}

struct Least<E> {
    env: E,
    first_row: u32,
    found: u32,
    load: u64,
    weight: u64,
}

impl<E: Env> Visit for Least<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if row.weight == 0 || dest.overload.get() != 0 {
            return true;
        }
        let (load, weight) = (overhead(dest), row.weight as u64);
        if self.found == NONE || self.load.wrapping_mul(weight) > load.wrapping_mul(self.weight) {
            self.found = index;
            self.load = load;
            self.weight = weight;
        }
        true
    }
}

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    let first_row = version.first_row.get();
    let mut least = Least { env: *env, first_row, found: NONE, load: 0, weight: 1 };
    env.repeat(version.rows.get(), &mut least);
    least.found
}
