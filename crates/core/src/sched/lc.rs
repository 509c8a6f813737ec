//! Least connection: the available destination with the least load, weights ignored.
//! Follows `ip_vs_lc.c`.

use super::{NONE, overhead};
use crate::env::{Env, Fold};
use crate::layout::{Row, Version};

struct Least<E> {
    env: E,
    found: u32,
    load: u64,
}

impl<E: Env> Fold for Least<E> {
    #[inline(always)]
    fn take(&mut self, index: u32, row: &Row) {
        let Some(dest) = self.env.dest(row.dest) else { return };
        if row.weight == 0 || dest.overload.get() != 0 {
            return;
        }
        let load = overhead(dest);
        if self.found == NONE || load < self.load {
            self.found = index;
            self.load = load;
        }
    }
}

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    let mut least = Least { env: *env, found: env.unknown(NONE), load: env.unknown(0).into() };
    env.fold(version, &mut least);
    least.found
}
