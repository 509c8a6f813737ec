//! The maps as `rvs-core` sees them from user space: the sweeper ends connections by the same code
//! that the programs run.

use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rvs_core::addr::{V4, V6};
use rvs_core::env::{Env, Tables, Visit};
use rvs_core::layout::{
    Asked, CallId, Config, Conn, ConnSet, Dest, DestStats, MarkRule, Parts, Row, ServiceAddr, Slot,
    Version,
};
use rvs_core::reason::Reason;
use rvs_core::time::Tick;

use crate::maps::Maps;

/// Shared memory, the kernel's clock, real atomics.
#[derive(Clone, Copy)]
pub struct Shared<'m>(pub &'m Maps);

/// The current tick of the clock that the programs use.
pub fn now() -> Tick {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Tick::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

fn atomic32(cell: &Cell<u32>) -> &AtomicU32 {
    // SAFETY: an aligned word of shared memory, valid while the cell is borrowed; everybody who
    // changes it at the same time does so atomically.
    unsafe { AtomicU32::from_ptr(cell.as_ptr()) }
}

fn atomic64(cell: &Cell<u64>) -> &AtomicU64 {
    // SAFETY: as for `atomic32`.
    unsafe { AtomicU64::from_ptr(cell.as_ptr()) }
}

/// Stores a word after everything that was written before it.
pub fn store(cell: &Cell<u32>, value: u32) {
    atomic32(cell).store(value, Ordering::Release);
}

impl Env for Shared<'_> {
    fn now(&self) -> Tick {
        now()
    }

    fn random(&self) -> u32 {
        // The keys are random, and others each time.
        RandomState::new().build_hasher().finish() as u32
    }

    fn config(&self) -> Option<&Config> {
        self.0.config.first()
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.0.slots.get(index as usize)
    }

    fn version(&self, index: u32) -> Option<&Version> {
        self.0.versions.get(index as usize)
    }

    fn row(&self, _: u32) -> Option<&Row> {
        // Scheduling is the programs' business.
        None
    }

    fn table(&self, _: u32) -> Option<u32> {
        None
    }

    fn mark_rule(&self, _: u32) -> Option<&MarkRule> {
        None
    }

    fn dest(&self, index: u32) -> Option<&Dest> {
        self.0.dests.get(index as usize)
    }

    fn stats(&self, _: u32) -> Option<&DestStats> {
        // Per CPU: out of user space's reach as memory.
        None
    }

    fn asked(&self) -> Option<&Asked> {
        // No packet passes here.
        None
    }

    fn call_id_at(&self, index_plus_one: u32) -> Option<&CallId> {
        self.0.call_ids.get(index_plus_one.checked_sub(1)? as usize)
    }

    fn count(&self, _: Reason) {}

    fn compare_exchange(&self, cell: &Cell<u32>, old: u32, new: u32) -> u32 {
        let result = atomic32(cell).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        result.unwrap_or_else(|held| held)
    }

    fn compare_exchange64(&self, cell: &Cell<u64>, old: u64, new: u64) -> u64 {
        let result = atomic64(cell).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        result.unwrap_or_else(|held| held)
    }

    fn add(&self, cell: &Cell<u32>, delta: u32) {
        atomic32(cell).fetch_add(delta, Ordering::Relaxed);
    }

    fn add64(&self, cell: &Cell<u64>, delta: u64) {
        atomic64(cell).fetch_add(delta, Ordering::Release);
    }

    fn or64(&self, cell: &Cell<u64>, bits: u64) {
        atomic64(cell).fetch_or(bits, Ordering::Relaxed);
    }

    fn repeat<V: Visit>(&self, count: u32, visitor: &mut V) {
        for index in 0..count {
            if !visitor.visit(index) {
                break;
            }
        }
    }
}

impl Tables<V4> for Shared<'_> {
    fn set(&self, index: u32) -> Option<&ConnSet<V4>> {
        self.0.conns4.get(index as usize)
    }

    fn tags(&self, set: u32) -> Option<&Cell<u64>> {
        self.0.tags4.get(set as usize)
    }

    fn passing(&self) -> Option<&Conn<V4>> {
        // No packet passes here.
        None
    }

    fn parts<'c>(&self, config: &'c Config) -> &'c Parts {
        &config.parts4
    }

    fn service(&self, _: &ServiceAddr<V4>) -> Option<u32> {
        None
    }

    fn real_server(&self, _: &ServiceAddr<V4>) -> Option<u32> {
        None
    }
}

impl Tables<V6> for Shared<'_> {
    fn set(&self, index: u32) -> Option<&ConnSet<V6>> {
        self.0.conns6.get(index as usize)
    }

    fn tags(&self, set: u32) -> Option<&Cell<u64>> {
        self.0.tags6.get(set as usize)
    }

    fn passing(&self) -> Option<&Conn<V6>> {
        // No packet passes here.
        None
    }

    fn parts<'c>(&self, config: &'c Config) -> &'c Parts {
        &config.parts6
    }

    fn service(&self, _: &ServiceAddr<V6>) -> Option<u32> {
        None
    }

    fn real_server(&self, _: &ServiceAddr<V6>) -> Option<u32> {
        None
    }
}
