//! Least connection: the available destination with the least load, weights ignored.
//! Follows `ip_vs_lc.c`.

use super::{NONE, entry, overhead};
use crate::env::{Env, Fold};
use crate::layout::Version;

struct Least<E> {
    env: E,
    first_row: u32,
    found: u32,
    load: u64,
}

impl<E: Env> Fold for Least<E> {
    #[inline(always)]
    fn take(&mut self, index: u32) {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return };
        if row.weight == 0 || dest.overload.get() != 0 {
            return;
        }
        let load = overhead(dest);
        if load < self.load {
            self.found = index;
            self.load = load;
        }
    }
}

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    let mut least =
        Least { env: *env, first_row: version.first_row.get(), found: NONE, load: u64::MAX };
    env.fold(version.rows.get(), &mut least);
    least.found
}
