//! Weighted round robin: passes over the list with a falling current weight; each pass takes the
//! destinations that weigh at least that much. Follows `ip_vs_wrr.c`; instead of walking passes
//! that take nobody, it computes the current weight of the next one that does.

use super::{NONE, RETRIES, entry, fo};
use crate::env::{Env, Visit};
use crate::layout::Version;

/// The first row that is available and weighs at least `current`.
struct Next<E> {
    env: E,
    first_row: u32,
    current: u32,
    found: u32,
}

impl<E: Env> Visit for Next<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if dest.overload.get() != 0 || row.weight < self.current {
            return true;
        }
        self.found = index;
        false
    }
}

/// Index of the first such row from `start` on, or [`NONE`].
#[inline(always)]
fn next<E: Env>(env: &E, version: &Version, start: u32, current: u32) -> u32 {
    let first_row = version.first_row.get().wrapping_add(start);
    let mut next = Next { env: *env, first_row, current, found: NONE };
    env.repeat(version.rows.get().saturating_sub(start), &mut next);
    if next.found == NONE { NONE } else { start.wrapping_add(next.found) }
}

/// The state word: index after the row picked last in the low half (0 is the head of the list),
/// the current weight in the high half.
#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    let (max, gcd) = (version.wrr_max.get(), version.wrr_gcd.get());
    if max == 0 || gcd == 0 {
        return NONE;
    }
    let mut found = NONE;
    for _ in 0..RETRIES {
        let state = version.state.get();
        let (start, mut current) = (state as u32, (state >> 32) as u32);
        if current == 0 {
            current = max;
        }
        found = next(env, version, start, current);
        if found == NONE {
            let greatest = fo::greatest(env, version).weight;
            if greatest == 0 {
                // A search in vain ends at the head of the list, unless it was on the last pass and past
                // the head (`tests/oracle/recorded/wrr_full.jsonl`).
                if start == 0 || current > gcd {
                    env.compare_exchange64(&version.state, state, (max as u64) << 32);
                }
                return NONE;
            }
            current = next_weight(current, max, gcd, greatest);
            found = next(env, version, 0, current);
            if found == NONE {
                return NONE;
            }
        }
        let new = (current as u64) << 32 | (found as u64 + 1);
        if env.compare_exchange64(&version.state, state, new) == state {
            break;
        }
    }
    found
}

/// The current weight of the next pass that takes a destination of weight `greatest` or less:
/// one step of `gcd` down, from 1 back to `max`, and on down to where somebody qualifies.
#[inline(always)]
fn next_weight(current: u32, max: u32, gcd: u32, greatest: u32) -> u32 {
    let mut next = if current > gcd { current - gcd } else { max };
    if next > greatest {
        let steps = (next - greatest).div_ceil(gcd.max(1));
        next = next.saturating_sub(steps.wrapping_mul(gcd)).max(1);
    }
    next
}

/// `wrr_max` and `wrr_gcd` of a version with these weights.
pub fn limits(weights: impl Iterator<Item = u32> + Clone) -> (u32, u32) {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let divisor = weights.clone().filter(|w| *w > 0).fold(0, gcd).max(1);
    let max = weights.max().unwrap_or(0);
    (if max == 0 { 0 } else { max - (divisor - 1) }, divisor)
}

/// The state for a changed list: back to its head; the current weight stays where the new limits
/// allow it (`ip_vs_wrr_dest_changed`).
pub fn carry(state: u64, max: u32, gcd: u32) -> u64 {
    let mut current = (state >> 32) as u32;
    if current > max || current == 0 {
        current = max;
    } else if gcd > 1 {
        current = current / gcd * gcd + 1;
    }
    (current as u64) << 32
}
