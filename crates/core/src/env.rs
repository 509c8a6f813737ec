//! What a decision needs from around it: shared memory, a clock, atomic operations, a loop.
//! The eBPF programs, the native data path and the tests each implement it.

use core::cell::Cell;

use crate::addr::Addr;
use crate::flow::Flow;
use crate::layout::{
    Asked, CallId, Config, Conn, ConnSet, Dest, DestStats, Key, MarkRule, Parts, Row, ServiceAddr,
    Slot, Version,
};
use crate::mark;
use crate::pe;
use crate::pipeline::{asked_for, transition};
use crate::reason::Reason;
use crate::room;
use crate::sched::{self, NONE, Place, pick_cached};
use crate::schedule::{Picked, Scheduled, schedule};
use crate::table;
use crate::time::Tick;

/// A loop body whose whole state is one flat struct of initialised integers: the verifier refuses
/// an `Option` with a payload that is carried through a loop.
pub trait Visit {
    /// One step; false ends the loop.
    fn visit(&mut self, index: u32) -> bool;
}

/// A loop body that sees every row of a version, so small that calls are what it costs. Its state is flat,
/// as that of [`Visit`] is.
pub trait Fold {
    /// Takes in a row, the version's `index`th.
    fn take(&mut self, index: u32, row: &Row);
}

/// Tables, clock and atomics, for both address families.
pub trait Env: Copy {
    /// The current tick.
    fn now(&self) -> Tick;
    /// A random number.
    fn random(&self) -> u32;
    /// The `CONFIG` element.
    fn config(&self) -> Option<&Config>;
    /// A service's slot.
    fn slot(&self, index: u32) -> Option<&Slot>;
    /// A version of a service.
    fn version(&self, index: u32) -> Option<&Version>;
    /// The version that is in force of the service in a slot.
    #[inline(always)]
    fn version_in(&self, slot: u32) -> Option<&Version> {
        self.version(self.slot(slot)?.version.get())
    }
    /// A row.
    fn row(&self, index: u32) -> Option<&Row>;
    /// A word of a hashing scheduler's table.
    fn table(&self, index: u32) -> Option<u32>;
    /// A rule that marks packets.
    fn mark_rule(&self, index: u32) -> Option<&MarkRule>;
    /// A destination.
    fn dest(&self, index: u32) -> Option<&Dest>;
    /// This CPU's counters of a destination.
    fn stats(&self, dest: u32) -> Option<&DestStats>;
    /// What is known of the packet that this CPU has in hand for a persistence engine.
    fn asked(&self) -> Option<&Asked>;
    /// The Call-ID with this index, plus one; `None` for 0.
    fn call_id_at(&self, index_plus_one: u32) -> Option<&CallId>;
    /// Counts a packet that was not forwarded.
    fn count(&self, reason: Reason);

    /// Stores `new` if the cell holds `old`; what it held before, with full ordering.
    fn compare_exchange(&self, cell: &Cell<u32>, old: u32, new: u32) -> u32;
    /// The same for 64 bits.
    fn compare_exchange64(&self, cell: &Cell<u64>, old: u64, new: u64) -> u64;
    /// Adds, wrapping.
    fn add(&self, cell: &Cell<u32>, delta: u32);
    /// The same for 64 bits.
    fn add64(&self, cell: &Cell<u64>, delta: u64);
    /// Sets bits.
    fn or64(&self, cell: &Cell<u64>, bits: u64);

    /// [`compare`](crate::sched::compare). A function of the environment as those of [`Tables`] are: one for
    /// both address families.
    #[inline(always)]
    fn compare(&self, version: &Version) -> u32 {
        sched::compare(self, version)
    }

    /// The same number, as one that no verifier knows: what a [`Visit`] or a [`Fold`] changes and decides by
    /// has to begin so. Linux 6.1 to 6.6 verify one call only, and take out what its beginning does
    /// not lead to.
    #[inline(always)]
    fn unknown(&self, number: u32) -> u32 {
        number
    }

    /// Calls `visitor` with 0, 1 ... below `count` until it returns false.
    fn repeat<V: Visit>(&self, count: u32, visitor: &mut V);
    /// Gives `fold` all rows of a version.
    fn fold<F: Fold>(&self, version: &Version, fold: &mut F) {
        let first_row = version.first_row.get();
        for index in 0..version.rows.get() {
            let Some(row) = self.row(first_row.wrapping_add(index)) else { return };
            fold.take(index, row);
        }
    }
}

/// The maps that exist once per address family.
pub trait Tables<A: Addr>: Env {
    /// A set of the connection table.
    fn set(&self, index: u32) -> Option<&ConnSet<A>>;
    /// The tags of a set of the connection table's first two parts: see [`table`].
    fn tags(&self, set: u32) -> Option<&Cell<u64>>;
    /// This CPU's entry for packets that leave no connection behind: it is in no set, and holds what
    /// it is filled with until the packet is done.
    fn passing(&self) -> Option<&Conn<A>>;
    /// The connection table.
    fn parts<'c>(&self, config: &'c Config) -> &'c Parts;
    /// Index in `SLOTS` of the service with this address.
    fn service(&self, addr: &ServiceAddr<A>) -> Option<u32>;

    /// Index in `DESTS` of the real server of a service with a persistence engine at this address.
    fn real_server(&self, addr: &ServiceAddr<A>) -> Option<u32>;

    /// Index, plus one, of the live entry with this key; 0 if there is none.
    ///
    /// This and the next ones are functions of the environment because in the kernel they are global
    /// ones: the verifier follows them once, not on every path that leads to them and from them.
    #[inline(always)]
    fn find(&self, key: &Key<A>) -> u32 {
        table::find(self, key).map_or(0, |(_, index)| index + 1)
    }

    /// The mark that a rule of ours gives packets with this key; 0 if none does.
    #[inline(always)]
    fn mark(&self, key: &Key<A>) -> u32 {
        mark::find(self, key)
    }

    /// [`find`](Tables::find) of a packet's key. A function of its own in the kernel because it is
    /// given all that is known of the packet: the verifier forgets of what protocol it is, and so
    /// follows what comes behind once instead of once for each.
    #[inline(always)]
    fn known(&self, flow: &Flow<A>) -> u32 {
        self.find(&flow.key)
    }

    /// Index, plus one, of an entry claimed for this key; 0 if all in reach are taken.
    #[inline(always)]
    fn claim(&self, key: &Key<A>) -> u32 {
        room::claim(self, key).map_or(0, |(_, index)| index + 1)
    }

    /// [`pick_cached`](crate::sched::pick_cached).
    #[inline(always)]
    fn cached(&self, key: &Key<A>, place: Place) -> u32 {
        pick_cached(self, key, place)
    }

    /// [`schedule`](crate::schedule::schedule).
    #[inline(always)]
    fn schedule(&self, flow: &Flow<A>, slot: u32, picked: Picked) -> Scheduled {
        schedule(self, flow, slot, picked)
    }

    /// [`asked_for`].
    #[inline(always)]
    fn asked_for(&self, flow: &Flow<A>) -> u32 {
        asked_for(self, flow)
    }

    /// The row that a version's scheduler picks, or [`NONE`].
    #[inline(always)]
    fn pick(&self, key: &Key<A>, version: u32) -> u32 {
        self.version(version).map_or(NONE, |version| sched::pick(self, version, key))
    }

    /// [`pe::find_template`].
    #[inline(always)]
    fn template(&self, flow: &Flow<A>, place: Place) -> u64 {
        pe::find_template(self, flow, place)
    }

    /// [`pe::persist`].
    #[inline(always)]
    fn persist(&self, flow: &Flow<A>, slot: u32, picked: Picked) -> u32 {
        pe::persist(self, flow, slot, picked)
    }

    /// [`transition`](crate::pipeline::transition).
    #[inline(always)]
    fn transition(&self, entry: &Conn<A>, flags: u8) {
        transition(self, entry, flags);
    }
}
