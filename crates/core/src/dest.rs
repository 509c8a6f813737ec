//! A destination's counts of connections, and the overload mark with its hysteresis.
//! Follows `ip_vs_bind_dest` and `ip_vs_unbind_dest`.

use core::cell::Cell;

use crate::conn::{INACTIVE, TEMPLATE, Word};
use crate::env::Env;
use crate::layout::Dest;

/// The counter that an entry with this word stands in.
#[inline(always)]
pub fn counter(dest: &Dest, word: Word) -> &Cell<u32> {
    if word.has(TEMPLATE) {
        &dest.persist
    } else if word.has(INACTIVE) {
        &dest.inactive
    } else {
        &dest.active
    }
}

/// Counts a new entry in.
#[inline(always)]
pub fn bind<E: Env>(env: &E, dest: &Dest, word: Word) {
    env.add(counter(dest, word), 1);
    let upper = dest.upper.get();
    if upper != 0 && total(dest) >= upper && dest.overload.get() == 0 {
        dest.overload.set(1);
    }
}

/// Counts an ended entry out.
#[inline(always)]
pub fn unbind<E: Env>(env: &E, dest: &Dest, word: Word) {
    env.add(counter(dest, word), u32::MAX);
    relieve(dest);
}

/// Counts a packet in and out that leaves no connection behind: to its destination it is one for a
/// moment, which may be one too many.
#[inline(always)]
pub fn pass(dest: &Dest) {
    let upper = dest.upper.get();
    if upper != 0 && total(dest).wrapping_add(1) >= upper {
        dest.overload.set(1);
        relieve(dest);
    }
}

/// Gives a destination other thresholds, which hold for the connections that it has
/// (`tests/oracle/recorded/thresholds.jsonl`).
pub fn set_thresholds(dest: &Dest, upper: u32, lower: u32) {
    dest.upper.set(upper);
    dest.lower.set(lower);
    if upper != 0 && total(dest) >= upper {
        dest.overload.set(1);
    } else {
        relieve(dest);
    }
}

/// Ends an overload that is over: below the lower threshold, or three quarters of the upper one.
#[inline(always)]
fn relieve(dest: &Dest) {
    if dest.overload.get() == 0 {
        return;
    }
    let (total, upper, lower) = (total(dest), dest.upper.get(), dest.lower.get());
    let relieved = if lower != 0 {
        total < lower
    } else if upper != 0 {
        (total as u64) * 4 < (upper as u64) * 3
    } else {
        true
    };
    if relieved {
        dest.overload.set(0);
    }
}

/// Connections of either kind (`ip_vs_dest_totalconns`).
#[inline(always)]
pub fn total(dest: &Dest) -> u32 {
    dest.active.get().wrapping_add(dest.inactive.get())
}
