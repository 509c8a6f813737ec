//! Weighted random twos choice: of two destinations drawn at random, by weight, the one with the
//! lower load for its weight. Follows `ip_vs_twos.c`.

use super::{NONE, entry, overhead};
use crate::env::{Env, Visit};
use crate::layout::Version;

/// Sum of the weights of the available rows, and the last of those.
struct Total<E> {
    env: E,
    first_row: u32,
    weight: u64,
    last: u32,
}

impl<E: Env> Visit for Total<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if row.weight > 0 && dest.overload.get() == 0 {
            self.weight = self.weight.wrapping_add(row.weight as u64);
            self.last = index;
        }
        true
    }
}

/// Two points on the line of all weights, and the rows in which they lie.
struct Draw<E> {
    env: E,
    first_row: u32,
    /// What is left of the way to each. A sum of the weights passed would have a greater lower
    /// bound after each row, and the verifier would follow every row as a state of its own ("the
    /// sequence of 8193 jumps is too complex").
    left: [u64; 2],
    found: [u32; 2],
}

impl<E: Env> Visit for Draw<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if row.weight == 0 || dest.overload.get() != 0 {
            return true;
        }
        let weight = row.weight as u64;
        for (left, found) in self.left.iter_mut().zip(&mut self.found) {
            if *found != NONE {
                continue;
            }
            if *left > weight {
                *left = left.wrapping_sub(weight);
            } else {
                *found = index;
            }
        }
        let [first, second] = self.found;
        first == NONE || second == NONE
    }
}

/// The sum of the weights of the available rows, and the last of those or [`NONE`].
#[inline(always)]
fn total<E: Env>(env: &E, first_row: u32, rows: u32) -> (u64, u32) {
    let mut total = Total { env: *env, first_row, weight: 0, last: NONE };
    env.repeat(rows, &mut total);
    (total.weight, total.last)
}

/// The rows at two points on the line of all weights; [`NONE`] beyond its end.
#[inline(always)]
fn draw<E: Env>(env: &E, first_row: u32, rows: u32, left: [u64; 2]) -> [u32; 2] {
    let mut two =
        Draw { env: *env, first_row, left, found: [NONE; 2].map(|found| env.unknown(found)) };
    env.repeat(rows, &mut two);
    two.found
}

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    let (first_row, rows) = (version.first_row.get(), version.rows.get());
    let (weights, last) = total(env, first_row, rows);
    if last == NONE {
        return NONE;
    }
    // From 0 to the sum of the weights, both included, as the kernel draws.
    let point = || (env.random() as u64).wrapping_mul(weights.wrapping_add(1)) >> 32;
    let [first, second] = draw(env, first_row, rows, [point(), point()]);
    if first == NONE {
        // Weights changed meanwhile on another CPU.
        return last;
    }
    let of = |index| {
        let (row, dest) = entry(env, first_row, index)?;
        Some((overhead(dest), row.weight as u64))
    };
    match (of(first), of(second)) {
        (Some((load1, weight1)), Some((load2, weight2)))
            if weight2.wrapping_mul(load1) > weight1.wrapping_mul(load2) =>
        {
            second
        }
        _ => first,
    }
}
