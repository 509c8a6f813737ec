//! Never queue: the first available destination without an active connection, else the one with
//! the shortest expected delay ([`sed`](super::sed)). Follows `ip_vs_nq.c`.

use super::{NONE, entry};
use crate::env::{Env, Visit};
use crate::layout::Version;

struct Idle<E> {
    env: E,
    first_row: u32,
    found: u32,
}

impl<E: Env> Visit for Idle<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some((row, dest)) = entry(&self.env, self.first_row, index) else { return false };
        if row.weight == 0 || dest.overload.get() != 0 || dest.active.get() != 0 {
            return true;
        }
        self.found = index;
        false
    }
}

/// The first available destination without an active connection, or [`NONE`].
#[inline(always)]
pub(super) fn idle<E: Env>(env: &E, version: &Version) -> u32 {
    let mut idle = Idle { env: *env, first_row: version.first_row.get(), found: NONE };
    env.repeat(version.rows.get(), &mut idle);
    idle.found
}
