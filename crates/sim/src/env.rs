//! Plain memory as `rvs-core` sees it. There is one thread: an atomic operation is a plain one.

use std::cell::Cell;

use rvs_core::addr::{V4, V6};
use rvs_core::env::{Env, Tables, Visit};
use rvs_core::fragment::{NOTES, Note, NoteKey, Notes, Slow};
use rvs_core::layout::{
    Asked, CallId, Config, Conn, ConnSet, Dest, DestStats, MarkRule, Parts, Row, ServiceAddr, Slot,
    Version,
};
use rvs_core::limit::{Limiter, Limits, Moment, Receiver};
use rvs_core::reason::Reason;
use rvs_core::time::Tick;
use rvs_tables::{Memory, ServiceHash};

use crate::plain::Plain;

fn exchange<T: Copy + PartialEq>(cell: &Cell<T>, old: T, new: T) -> T {
    let held = cell.get();
    if held == old {
        cell.set(new);
    }
    held
}

impl Env for &Plain {
    fn now(&self) -> Tick {
        Memory::now(*self)
    }

    fn random(&self) -> u32 {
        // Marsaglia's xorshift, of period 2³² - 1.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.replace(x)
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)
    }

    fn version(&self, index: u32) -> Option<&Version> {
        self.versions.get(index as usize)
    }

    fn row(&self, index: u32) -> Option<&Row> {
        self.rows.get(index as usize)
    }

    fn table(&self, index: u32) -> Option<u32> {
        self.tables.get(index as usize).copied()
    }

    fn mark_rule(&self, index: u32) -> Option<&MarkRule> {
        self.marks.get(index as usize)
    }

    fn dest(&self, index: u32) -> Option<&Dest> {
        self.dests.get(index as usize)
    }

    fn stats(&self, dest: u32) -> Option<&DestStats> {
        self.stats.get(dest as usize)
    }

    fn asked(&self) -> Option<&Asked> {
        Some(&self.asked)
    }

    fn call_id_at(&self, index_plus_one: u32) -> Option<&CallId> {
        self.call_ids.get(index_plus_one.checked_sub(1)? as usize)
    }

    fn count(&self, reason: Reason) {
        if let Some(counter) = self.reasons.get(reason as usize) {
            counter.set(counter.get() + 1);
        }
    }

    fn compare_exchange(&self, cell: &Cell<u32>, old: u32, new: u32) -> u32 {
        exchange(cell, old, new)
    }

    fn compare_exchange64(&self, cell: &Cell<u64>, old: u64, new: u64) -> u64 {
        exchange(cell, old, new)
    }

    fn add(&self, cell: &Cell<u32>, delta: u32) {
        cell.set(cell.get().wrapping_add(delta));
    }

    fn add64(&self, cell: &Cell<u64>, delta: u64) {
        cell.set(cell.get().wrapping_add(delta));
    }

    fn or64(&self, cell: &Cell<u64>, bits: u64) {
        cell.set(cell.get() | bits);
    }

    fn repeat<V: Visit>(&self, count: u32, visitor: &mut V) {
        for index in 0..count {
            if !visitor.visit(index) {
                break;
            }
        }
    }
}

impl Notes for &Plain {
    fn slow(&self) -> Option<&Slow> {
        Some(&self.slow)
    }

    fn note(&self, key: &NoteKey) -> Option<Note> {
        self.notes.borrow().get(key).copied()
    }

    fn leave(&self, key: &NoteKey, note: &Note) {
        let mut notes = self.notes.borrow_mut();
        notes.retain(|_, note| note.is_fresh(Memory::now(*self)));
        if notes.len() < NOTES as usize {
            notes.insert(*key, *note);
        }
    }
}

impl Limiter for &Plain {
    fn moment(&self) -> Moment {
        self.moment.get()
    }

    fn limits(&self) -> Option<&Limits> {
        Some(&self.limits)
    }

    fn receiver(&self, addr: &[u32; 4]) -> Option<Receiver> {
        self.receivers.borrow().get(addr).copied()
    }

    fn remember(&self, addr: &[u32; 4], receiver: Receiver) {
        self.receivers.borrow_mut().insert(*addr, receiver);
    }
}

impl Tables<V4> for &Plain {
    fn set(&self, index: u32) -> Option<&ConnSet<V4>> {
        self.conns4.get(index as usize)
    }

    fn tags(&self, set: u32) -> Option<&Cell<u64>> {
        self.tags4.get(set as usize)
    }

    fn passing(&self) -> Option<&Conn<V4>> {
        Some(&self.passing4)
    }

    fn parts<'c>(&self, config: &'c Config) -> &'c Parts {
        &config.parts4
    }

    fn service(&self, addr: &ServiceAddr<V4>) -> Option<u32> {
        self.services.get(&ServiceHash::V4(*addr)).copied()
    }

    fn real_server(&self, addr: &ServiceAddr<V4>) -> Option<u32> {
        self.real_servers.get(&ServiceHash::V4(*addr)).copied()
    }
}

impl Tables<V6> for &Plain {
    fn set(&self, index: u32) -> Option<&ConnSet<V6>> {
        self.conns6.get(index as usize)
    }

    fn tags(&self, set: u32) -> Option<&Cell<u64>> {
        self.tags6.get(set as usize)
    }

    fn passing(&self) -> Option<&Conn<V6>> {
        Some(&self.passing6)
    }

    fn parts<'c>(&self, config: &'c Config) -> &'c Parts {
        &config.parts6
    }

    fn service(&self, addr: &ServiceAddr<V6>) -> Option<u32> {
        self.services.get(&ServiceHash::V6(*addr)).copied()
    }

    fn real_server(&self, addr: &ServiceAddr<V6>) -> Option<u32> {
        self.real_servers.get(&ServiceHash::V6(*addr)).copied()
    }
}
