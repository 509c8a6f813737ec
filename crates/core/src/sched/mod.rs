//! Schedulers: which destination gets a new connection. One file each, named as the kernel's.
//!
//! A scheduler is a fold over the service's rows: a [`Visit`](crate::env::Visit) with a flat
//! state, driven by a plain loop natively and by `bpf_loop` in the kernel. What must outlast a
//! packet (the position of rr and wrr) is one 64-bit word in the version, changed by
//! compare-exchange.

pub mod cache;
pub mod dh;
pub mod fo;
pub mod lblc;
pub mod lblcr;
pub mod lc;
pub mod mh;
pub mod nq;
pub mod ovf;
pub mod rr;
pub mod sed;
pub mod sh;
pub mod twos;
pub mod wlc;
pub mod wrr;

use crate::addr::Addr;
use crate::env::{Env, Fold, Tables, Visit};
use crate::layout::{Dest, HASH_SIZE, Key, MH_SIZE, Row, Version};
use crate::types::Scheduler;

pub use cache::Place;

/// No row.
pub const NONE: u32 = u32::MAX;

/// How often a pick is tried again when another CPU moved the scheduler's position meanwhile.
/// After that the pick stands and the position is the other CPU's.
const RETRIES: u32 = 4;

/// Index in the version's rows of the destination for a new connection, or [`NONE`].
#[inline(always)]
pub fn pick<A: Addr, E: Env>(env: &E, version: &Version, key: &Key<A>) -> u32 {
    match Scheduler::from_number(version.scheduler.get()) {
        Some(Scheduler::Rr) => rr::pick(env, version),
        Some(Scheduler::Wrr) => wrr::pick(env, version),
        Some(Scheduler::Sh) => sh::pick(env, version, key),
        Some(Scheduler::Dh) => dh::pick(env, version, key),
        Some(Scheduler::Mh) => mh::pick(env, version, key),
        Some(Scheduler::Twos) => twos::pick(env, version),
        // `pick_cached` is for these.
        Some(Scheduler::Lblc | Scheduler::Lblcr) => NONE,
        Some(_) => env.compare(version),
        None => NONE,
    }
}

/// [`pick`] of the schedulers that compare all destinations and look at nothing else. [`Env::compare`] is how
/// to call it.
#[inline(always)]
pub fn compare<E: Env>(env: &E, version: &Version) -> u32 {
    let scheduler = Scheduler::from_number(version.scheduler.get());
    if scheduler == Some(Scheduler::Nq) {
        let idle = nq::idle(env, version);
        if idle != NONE {
            return idle;
        }
    }
    match scheduler {
        Some(Scheduler::Lc) => lc::pick(env, version),
        Some(Scheduler::Wlc) => wlc::pick(env, version),
        Some(Scheduler::Sed | Scheduler::Nq) => sed::pick(env, version),
        Some(Scheduler::Fo) => fo::pick(env, version),
        Some(Scheduler::Ovf) => ovf::pick(env, version),
        _ => NONE,
    }
}

/// Whether [`pick_cached`] is to be asked, not [`pick`].
#[inline(always)]
pub fn remembers(version: &Version) -> bool {
    let number = version.scheduler.get();
    number == Scheduler::Lblc as u32 || number == Scheduler::Lblcr as u32
}

/// The same for the schedulers that remember: a step of its own before the connection is made, for
/// the sake of the kernel's stack. [`Tables::cached`] is how to call it.
#[inline(always)]
pub fn pick_cached<A: Addr, E: Tables<A>>(env: &E, key: &Key<A>, place: Place) -> u32 {
    let Some(version) = env.version(place.version) else { return NONE };
    if version.scheduler.get() == Scheduler::Lblcr as u32 {
        lblcr::pick(env, version, place, key.dst)
    } else {
        lblc::pick(env, version, place, key.dst)
    }
}

/// The row of the destination with this index in `DESTS`, if the version has it; else [`NONE`].
#[inline(always)]
pub(crate) fn row_of<E: Env>(env: &E, version: &Version, dest: u32) -> u32 {
    let mut row = RowOf { env: *env, first_row: version.first_row.get(), dest, found: NONE };
    env.repeat(version.rows.get(), &mut row);
    row.found
}

/// See [`row_of`].
struct RowOf<E> {
    env: E,
    first_row: u32,
    dest: u32,
    found: u32,
}

impl<E: Env> Visit for RowOf<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some(row) = self.env.row(self.first_row.wrapping_add(index)) else { return false };
        if row.dest == self.dest {
            self.found = index;
            return false;
        }
        true
    }
}

/// An address as the hashing schedulers take it: its words exclusive-or, in host order.
#[inline(always)]
fn fold<A: Addr>(addr: A) -> u32 {
    let [a, b, c, d] = addr.to_words();
    u32::from_be(a ^ b ^ c ^ d)
}

/// The kernel's `hash_32` to eight bits.
#[inline(always)]
fn hash_fold(value: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> 24
}

/// Words of the table in which a scheduler looks rows up; 0 if it has none.
pub const fn table_len(scheduler: Scheduler) -> u32 {
    match scheduler {
        Scheduler::Sh | Scheduler::Dh => HASH_SIZE,
        Scheduler::Mh => MH_SIZE,
        _ => 0,
    }
}

/// Row `index` of a version and its destination.
#[inline(always)]
pub(crate) fn entry<E: Env>(env: &E, first: u32, index: u32) -> Option<(&Row, &Dest)> {
    let row = env.row(first.wrapping_add(index))?;
    Some((row, env.dest(row.dest)?))
}

/// Load of a destination: an active connection weighs as much as 256 inactive ones
/// (`ip_vs_dest_conn_overhead`).
#[inline(always)]
fn overhead(dest: &Dest) -> u64 {
    ((dest.active.get() as u64) << 8).wrapping_add(dest.inactive.get() as u64)
}

/// The row that word `index` of `TABLES` names, if it can take a connection; else [`NONE`].
#[inline(always)]
fn available<E: Env>(env: &E, first_row: u32, rows: u32, index: u32) -> u32 {
    let Some(index) = env.table(index) else { return NONE };
    if index >= rows {
        return NONE;
    }
    match entry(env, first_row, index) {
        Some((row, dest)) if row.weight > 0 && dest.overload.get() == 0 => index,
        _ => NONE,
    }
}

/// Finds the row with the least load for its weight, by cross-multiplication.
struct Least<E, L> {
    env: E,
    load_of: L,
    found: u32,
    load: u64,
    weight: u64,
}

impl<E: Env, L: Fn(&Dest) -> u64> Fold for Least<E, L> {
    #[inline(always)]
    fn take(&mut self, index: u32, row: &Row) {
        let Some(dest) = self.env.dest(row.dest) else { return };
        if row.weight == 0 || dest.overload.get() != 0 {
            return;
        }
        let (load, weight) = ((self.load_of)(dest), row.weight as u64);
        if self.found == NONE || self.load.wrapping_mul(weight) > load.wrapping_mul(self.weight) {
            self.found = index;
            self.load = load;
            self.weight = weight;
        }
    }
}

/// The first available row with the least load for its weight, or [`NONE`].
#[inline(always)]
fn least_for_weight<E: Env>(env: &E, version: &Version, load_of: impl Fn(&Dest) -> u64) -> u32 {
    let (load, weight) = (env.unknown(0).into(), env.unknown(1).into());
    let mut least = Least { env: *env, load_of, found: env.unknown(NONE), load, weight };
    env.fold(version, &mut least);
    least.found
}
