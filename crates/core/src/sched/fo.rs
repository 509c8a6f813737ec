//! Weighted fail-over: the available destination with the greatest weight, the first of equals.
//! Follows `ip_vs_fo.c`.

use super::{NONE, entry};
use crate::env::{Env, Visit};
use crate::layout::Version;

/// The available row with the greatest weight.
pub(super) struct Greatest<E> {
    env: E,
    first_row: u32,
    found: u32,
    /// Its weight; 0 if none is available.
    pub(super) weight: u32,
}

impl<E: Env> Visit for Greatest<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if dest.overload.get() == 0 && row.weight > self.weight {
            self.found = index;
            self.weight = row.weight;
        }
        true
    }
}

#[inline(always)]
pub(super) fn greatest<E: Env>(env: &E, version: &Version) -> Greatest<E> {
    let first_row = version.first_row.get();
    let mut greatest = Greatest { env: *env, first_row, found: NONE, weight: 0 };
    env.repeat(version.rows.get(), &mut greatest);
    greatest
}

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    greatest(env, version).found
}
