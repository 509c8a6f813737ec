//! Schedulers: which destination gets a new connection. One file each, named as the kernel's.
//!
//! A scheduler is a fold over the service's rows: a [`Visit`](crate::env::Visit) with a flat
//! state, driven by a plain loop natively and by `bpf_loop` in the kernel. What must outlast a
//! packet (the position of rr and wrr) is one 64-bit word in the version, changed by
//! compare-exchange.

pub mod lc;
pub mod rr;
pub mod sh;
pub mod wlc;
pub mod wrr;

use crate::addr::Addr;
use crate::env::Env;
use crate::layout::{Dest, Key, Row, Version};
use crate::types::Scheduler;

/// No row.
pub const NONE: u32 = u32::MAX;

/// How often a pick is tried again when another CPU moved the scheduler's position meanwhile.
/// After that the pick stands and the position is the other CPU's.
const RETRIES: u32 = 4;

/// Index in the version's rows of the destination for a new connection, or [`NONE`]. `addr` is
/// the client's address.
#[inline(always)]
pub fn pick<A: Addr, E: Env>(env: &E, version: &Version, key: &Key<A>) -> u32 {
    let scheduler = version.scheduler.get();
    if scheduler == Scheduler::Rr as u32 {
        rr::pick(env, version)
    } else if scheduler == Scheduler::Wrr as u32 {
        wrr::pick(env, version)
    } else if scheduler == Scheduler::Lc as u32 {
        lc::pick(env, version)
    } else if scheduler == Scheduler::Wlc as u32 {
        wlc::pick(env, version)
    } else if scheduler == Scheduler::Sh as u32 {
        sh::pick(env, version, key)
    } else {
        NONE
    }
}

/// Row `index` of a version and its destination.
#[inline(always)]
fn entry<E: Env>(env: &E, first: u32, index: u32) -> Option<(&Row, &Dest)> {
    let row = env.row(first.wrapping_add(index))?;
    Some((row, env.dest(row.dest)?))
}

/// Load of a destination: an active connection weighs as much as 256 inactive ones
/// (`ip_vs_dest_conn_overhead`).
#[inline(always)]
fn overhead(dest: &Dest) -> u64 {
    ((dest.active.get() as u64) << 8).wrapping_add(dest.inactive.get() as u64)
}
