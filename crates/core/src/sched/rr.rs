//! Round robin: the next destination in the list that has weight and is not overloaded.
//! Follows `ip_vs_rr.c`.

use super::{NONE, RETRIES, entry};
use crate::env::{Env, Visit};
use crate::layout::Version;

/// Finds the first available row at or after `start`, around the end of the list.
struct Next<E> {
    env: E,
    first_row: u32,
    rows: u32,
    start: u32,
    found: u32,
}

impl<E: Env> Visit for Next<E> {
    #[inline(always)]
    fn visit(&mut self, step: u32) -> bool {
        let mut index = self.start.wrapping_add(step);
        if index >= self.rows {
            index = index.wrapping_sub(self.rows);
        }
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if row.weight == 0 || dest.overload.get() != 0 {
            return true;
        }
        self.found = index;
        false
    }
}

/// The state word holds the index after the row picked last; 0 is the head of the list.
#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    let rows = version.rows.get();
    let mut found = NONE;
    for _ in 0..RETRIES {
        let position = version.state.get();
        let start = if position as u32 >= rows { 0 } else { position as u32 };
        let mut next =
            Next { env: *env, first_row: version.first_row.get(), rows, start, found: NONE };
        env.repeat(rows, &mut next);
        found = next.found;
        if found == NONE {
            return NONE;
        }
        let after = found as u64 + 1;
        if env.compare_exchange64(&version.state, position, after) == position {
            break;
        }
    }
    found
}

/// The position for a list that `moved` maps old indices into: the destination picked last stays
/// the last one; if it is gone, the one before it (`ip_vs_rr_del_dest`).
pub fn carry(position: u64, moved: impl Fn(u32) -> Option<u32>) -> u64 {
    let mut last = position as u32;
    while last > 0 {
        if let Some(index) = moved(last - 1) {
            return index as u64 + 1;
        }
        last -= 1;
    }
    0
}
