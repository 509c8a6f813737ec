//! Shortest expected delay: the available destination with the least load for its weight once it
//! had the new connection. Only active connections count. Follows `ip_vs_sed.c`.

use super::least_for_weight;
use crate::env::Env;
use crate::layout::{Dest, Version};

/// Load with the new connection (`ip_vs_sed_dest_overhead`).
#[inline(always)]
fn delay(dest: &Dest) -> u64 {
    dest.active.get() as u64 + 1
}

#[inline(always)]
pub(super) fn pick<E: Env>(env: &E, version: &Version) -> u32 {
    least_for_weight(env, version, delay)
}
