//! The kernel as `rvs-core` sees it.

use core::arch::asm;
use core::cell::Cell;
use core::ffi::{c_long, c_void};

use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_coarse_ns,
};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use rvs_core::addr::{V4, V6};
use rvs_core::env::{Env, Fold, Tables, Visit};
use rvs_core::flow::Flow;
use rvs_core::fragment::{Note, NoteKey, Notes, Slow};
use rvs_core::layout::{
    Asked, CallId, Config, Conn, ConnSet, Dest, DestStats, Key, MarkRule, Parts, ROWS_TOGETHER,
    Row, ServiceAddr, Slot, Version,
};
use rvs_core::limit::{Limiter, Limits, Moment, Receiver};
use rvs_core::mark;
use rvs_core::pe;
use rvs_core::pipeline::{asked_for, transition};
use rvs_core::reason::Reason;
use rvs_core::room;
use rvs_core::sched::{self, NONE, Place, pick_cached};
use rvs_core::schedule::{Picked, Scheduled, schedule};
use rvs_core::table;
use rvs_core::time::Tick;

use crate::{atomic, maps};

/// The maps and helpers of the running kernel.
#[derive(Clone, Copy)]
pub struct Kernel;

/// What `bpf_loop` calls: a step of the visitor behind `context`; non-zero ends the loop.
extern "C" fn step<V: Visit>(index: u32, context: *mut c_void) -> c_long {
    // SAFETY: `repeat` passes a visitor of this type that outlives the loop.
    let visitor = unsafe { &mut *context.cast::<V>() };
    !visitor.visit(index) as c_long
}

/// A fold over some rows, for [`take`].
struct Several<F> {
    fold: *mut F,
    first_row: u32,
    count: u32,
}

/// [`ROWS_TOGETHER`], as rows are numbered.
const TOGETHER: u32 = ROWS_TOGETHER as u32;

/// What `bpf_loop` calls for a fold: all rows of an element are taken in one call.
extern "C" fn take<F: Fold>(call: u32, context: *mut c_void) -> c_long {
    // SAFETY: `fold` passes this type, and a fold, that outlive the loop.
    let (fold, first_row, count) = unsafe {
        let several = &*context.cast::<Several<F>>();
        (&mut *several.fold, several.first_row, several.count)
    };
    let Some(rows) = maps::ROWS.get((first_row / TOGETHER).wrapping_add(call)) else { return 1 };
    let first = call.wrapping_mul(TOGETHER).wrapping_sub(first_row % TOGETHER);
    macro_rules! take {
        ($($lane:literal)*) => {$(
            let index = first.wrapping_add($lane);
            // Rows of the element that are before the first have an index that is far too great.
            if index < count {
                fold.take(index, &rows[$lane]);
            }
        )*};
    }
    take!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    0
}

/// Keeps LLVM from making one call of several `bpf_loop`s, to a function in a register: the verifier
/// would not inline that loop. Without an instruction, two lines of the source would be of one place.
macro_rules! keep_apart {
    ($taken:ident, $called:path) => {
        // SAFETY: a register keeps its value.
        unsafe { asm!("/* {1} */", "{0} = {0}", inout(reg) $taken => _, sym $called) }
    };
}

impl Env for Kernel {
    #[inline(always)]
    fn now(&self) -> Tick {
        // SAFETY: a helper without arguments, which the verifier replaces by a load.
        let jiffies = unsafe { bpf_jiffies64() };
        let known = self.config().and_then(|config| config.clock.at(jiffies));
        // SAFETY: a helper without arguments.
        Tick::from_nanos(known.unwrap_or_else(|| unsafe { bpf_ktime_get_coarse_ns() }))
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<&Slot> {
        maps::SLOTS.get(index)
    }

    #[inline(always)]
    fn version(&self, index: u32) -> Option<&Version> {
        maps::VERSIONS.get(index)
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row> {
        maps::ROWS.get(index / TOGETHER)?.get((index % TOGETHER) as usize)
    }

    #[inline(always)]
    fn table(&self, index: u32) -> Option<u32> {
        maps::TABLES.get(index).copied()
    }

    #[inline(always)]
    fn mark_rule(&self, index: u32) -> Option<&MarkRule> {
        maps::MARKS.get(index)
    }

    #[inline(always)]
    fn dest(&self, index: u32) -> Option<&Dest> {
        maps::DESTS.get(index)
    }

    #[inline(always)]
    fn stats(&self, dest: u32) -> Option<&DestStats> {
        // SAFETY: a helper without arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        maps::DEST_STATS.get(cpu * self.config()?.dests.get() + dest)
    }

    #[inline(always)]
    fn asked(&self) -> Option<&Asked> {
        maps::ASKED.get(0)
    }

    #[inline(always)]
    fn call_id_at(&self, index_plus_one: u32) -> Option<&CallId> {
        if index_plus_one == 0 { None } else { maps::CALL_IDS.get(index_plus_one - 1) }
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = maps::REASONS.get_ptr_mut(reason as u32) {
            // SAFETY: this CPU's own element; nothing else writes it meanwhile.
            unsafe { *counter = (*counter).wrapping_add(1) };
        }
    }

    #[inline(always)]
    fn compare_exchange(&self, cell: &Cell<u32>, old: u32, new: u32) -> u32 {
        // SAFETY: cells of the layout lie in map values, aligned.
        unsafe { atomic::compare_exchange(cell.as_ptr(), old, new) }
    }

    #[inline(always)]
    fn compare_exchange64(&self, cell: &Cell<u64>, old: u64, new: u64) -> u64 {
        // SAFETY: cells of the layout lie in map values, aligned.
        unsafe { atomic::compare_exchange64(cell.as_ptr(), old, new) }
    }

    #[inline(always)]
    fn add(&self, cell: &Cell<u32>, delta: u32) {
        // SAFETY: cells of the layout lie in map values, aligned.
        unsafe { atomic::add(cell.as_ptr(), delta) }
    }

    #[inline(always)]
    fn add64(&self, cell: &Cell<u64>, delta: u64) {
        // SAFETY: cells of the layout lie in map values, aligned.
        unsafe { atomic::add64(cell.as_ptr(), delta) }
    }

    #[inline(always)]
    fn or64(&self, cell: &Cell<u64>, bits: u64) {
        // SAFETY: cells of the layout lie in map values, aligned.
        unsafe { atomic::or64(cell.as_ptr(), bits) }
    }

    #[inline(always)]
    fn compare(&self, version: &Version) -> u32 {
        rvs_compare(version)
    }

    #[inline(always)]
    fn unknown(&self, number: u32) -> u32 {
        let Some(config) = self.config() else { return number };
        // SAFETY: a map value, aligned; nobody changes it.
        let read = || unsafe { config.layout.as_ptr().read_volatile() };
        // The verifier does not see that a value in memory stays what it is.
        number ^ read() ^ read()
    }

    #[inline(always)]
    fn repeat<V: Visit>(&self, count: u32, visitor: &mut V) {
        let context = core::ptr::from_mut(visitor).cast::<c_void>();
        // SAFETY: `step::<V>` gets the visitor back, alive, as the type it is.
        let taken = unsafe { bpf_loop(count, step::<V> as *mut c_void, context, 0) };
        keep_apart!(taken, step::<V>);
    }

    #[inline(always)]
    fn fold<F: Fold>(&self, version: &Version, fold: &mut F) {
        let (first_row, count) = (version.first_row.get(), version.rows.get());
        let mut several = Several { fold, first_row, count };
        let context = core::ptr::from_mut(&mut several).cast::<c_void>();
        let calls = (first_row % TOGETHER).wrapping_add(count).div_ceil(TOGETHER);
        // SAFETY: `take::<F>` gets the loop back, alive, as the type it is.
        let taken = unsafe { bpf_loop(calls, take::<F> as *mut c_void, context, 0) };
        keep_apart!(taken, take::<F>);
    }
}

impl Notes for Kernel {
    #[inline(always)]
    fn slow(&self) -> Option<&Slow> {
        maps::SLOW.get(0)
    }

    #[inline(always)]
    fn note(&self, key: &NoteKey) -> Option<Note> {
        // SAFETY: a note that is replaced meanwhile misleads one fragment, as a late one does.
        unsafe { maps::NOTES.get(key).copied() }
    }

    #[inline(always)]
    fn leave(&self, key: &NoteKey, note: &Note) {
        // Without memory the fragments wait in rvsd until they are dropped and counted.
        let _ = maps::NOTES.insert(key, note, 0);
    }
}

impl Limiter for Kernel {
    #[inline(always)]
    fn moment(&self) -> Moment {
        // SAFETY: a helper without arguments.
        Moment::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn limits(&self) -> Option<&Limits> {
        maps::ICMP_LIMITS.get(0)
    }

    #[inline(always)]
    fn receiver(&self, addr: &[u32; 4]) -> Option<Receiver> {
        // SAFETY: a bucket that is replaced meanwhile is right for one error more or less.
        unsafe { maps::RECEIVERS.get(addr).copied() }
    }

    #[inline(always)]
    fn remember(&self, addr: &[u32; 4], receiver: Receiver) {
        // Without memory the next error to it is not limited, but by what all together may get.
        let _ = maps::RECEIVERS.insert(addr, receiver, 0);
    }
}

impl Tables<V4> for Kernel {
    #[inline(always)]
    fn set(&self, index: u32) -> Option<&ConnSet<V4>> {
        maps::CONNS4.get(index)
    }

    #[inline(always)]
    fn tags(&self, set: u32) -> Option<&Cell<u64>> {
        maps::TAGS4.get(set)
    }

    #[inline(always)]
    fn passing(&self) -> Option<&Conn<V4>> {
        // SAFETY: a helper without arguments.
        maps::PASSING4.get(unsafe { bpf_get_smp_processor_id() })
    }

    #[inline(always)]
    fn parts<'c>(&self, config: &'c Config) -> &'c Parts {
        &config.parts4
    }

    #[inline(always)]
    fn service(&self, addr: &ServiceAddr<V4>) -> Option<u32> {
        // SAFETY: one aligned word is read; entries are only ever replaced as a whole.
        unsafe { maps::SERVICES4.get(addr).copied() }
    }

    #[inline(always)]
    fn real_server(&self, addr: &ServiceAddr<V4>) -> Option<u32> {
        // SAFETY: as for `service`.
        unsafe { maps::REAL_SERVERS4.get(addr).copied() }
    }

    #[inline(always)]
    fn find(&self, key: &Key<V4>) -> u32 {
        rvs_find4(key)
    }

    #[inline(always)]
    fn mark(&self, key: &Key<V4>) -> u32 {
        rvs_mark4(key)
    }

    #[inline(always)]
    fn known(&self, flow: &Flow<V4>) -> u32 {
        rvs_known4(flow)
    }

    #[inline(always)]
    fn claim(&self, key: &Key<V4>) -> u32 {
        rvs_claim4(key)
    }

    #[inline(always)]
    fn cached(&self, key: &Key<V4>, place: Place) -> u32 {
        rvs_cached4(key, place.slot, place.version)
    }

    #[inline(always)]
    fn schedule(&self, flow: &Flow<V4>, slot: u32, picked: Picked) -> Scheduled {
        Scheduled::from_raw(rvs_schedule4(flow, slot, picked.version, picked.row))
    }

    #[inline(always)]
    fn asked_for(&self, flow: &Flow<V4>) -> u32 {
        rvs_asked_for4(flow)
    }

    #[inline(always)]
    fn pick(&self, key: &Key<V4>, version: u32) -> u32 {
        rvs_pick4(key, version)
    }

    #[inline(always)]
    fn template(&self, flow: &Flow<V4>, place: Place) -> u64 {
        rvs_template4(flow, place.slot, place.version)
    }

    #[inline(always)]
    fn persist(&self, flow: &Flow<V4>, slot: u32, picked: Picked) -> u32 {
        rvs_persist4(flow, slot, picked.version, picked.row)
    }

    #[inline(always)]
    fn transition(&self, entry: &Conn<V4>, flags: u8) {
        rvs_transition4(entry, flags as u32);
    }
}

impl Tables<V6> for Kernel {
    #[inline(always)]
    fn set(&self, index: u32) -> Option<&ConnSet<V6>> {
        maps::CONNS6.get(index)
    }

    #[inline(always)]
    fn tags(&self, set: u32) -> Option<&Cell<u64>> {
        maps::TAGS6.get(set)
    }

    #[inline(always)]
    fn passing(&self) -> Option<&Conn<V6>> {
        // SAFETY: a helper without arguments.
        maps::PASSING6.get(unsafe { bpf_get_smp_processor_id() })
    }

    #[inline(always)]
    fn parts<'c>(&self, config: &'c Config) -> &'c Parts {
        &config.parts6
    }

    #[inline(always)]
    fn service(&self, addr: &ServiceAddr<V6>) -> Option<u32> {
        // SAFETY: one aligned word is read; entries are only ever replaced as a whole.
        unsafe { maps::SERVICES6.get(addr).copied() }
    }

    #[inline(always)]
    fn real_server(&self, addr: &ServiceAddr<V6>) -> Option<u32> {
        // SAFETY: as for `service`.
        unsafe { maps::REAL_SERVERS6.get(addr).copied() }
    }

    #[inline(always)]
    fn find(&self, key: &Key<V6>) -> u32 {
        rvs_find6(key)
    }

    #[inline(always)]
    fn mark(&self, key: &Key<V6>) -> u32 {
        rvs_mark6(key)
    }

    #[inline(always)]
    fn known(&self, flow: &Flow<V6>) -> u32 {
        rvs_known6(flow)
    }

    #[inline(always)]
    fn claim(&self, key: &Key<V6>) -> u32 {
        rvs_claim6(key)
    }

    #[inline(always)]
    fn cached(&self, key: &Key<V6>, place: Place) -> u32 {
        rvs_cached6(key, place.slot, place.version)
    }

    #[inline(always)]
    fn schedule(&self, flow: &Flow<V6>, slot: u32, picked: Picked) -> Scheduled {
        Scheduled::from_raw(rvs_schedule6(flow, slot, picked.version, picked.row))
    }

    #[inline(always)]
    fn asked_for(&self, flow: &Flow<V6>) -> u32 {
        rvs_asked_for6(flow)
    }

    #[inline(always)]
    fn pick(&self, key: &Key<V6>, version: u32) -> u32 {
        rvs_pick6(key, version)
    }

    #[inline(always)]
    fn template(&self, flow: &Flow<V6>, place: Place) -> u64 {
        rvs_template6(flow, place.slot, place.version)
    }

    #[inline(always)]
    fn persist(&self, flow: &Flow<V6>, slot: u32, picked: Picked) -> u32 {
        rvs_persist6(flow, slot, picked.version, picked.row)
    }

    #[inline(always)]
    fn transition(&self, entry: &Conn<V6>, flags: u8) {
        rvs_transition6(entry, flags as u32);
    }
}

/// See [`Env::compare`].
///
/// The verifier proves that `version`, if it is not null, spans the struct.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rvs_compare(version: *const Version) -> u32 {
    // SAFETY: see above.
    unsafe { version.as_ref() }.map_or(NONE, |version| sched::compare(&Kernel, version))
}

/// The global functions of an address family: each is verified once and by itself.
///
/// The verifier proves that a pointer to a struct, if it is not null, spans the struct.
macro_rules! global {
    ($addr:ty: $find:ident, $known:ident, $mark:ident, $claim:ident, $cached:ident, $schedule:ident, $transition:ident;
     $asked_for:ident, $pick:ident, $template:ident, $persist:ident) => {
        /// See [`Tables::find`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $find(key: *const Key<$addr>) -> u32 {
            // SAFETY: see the macro.
            let found = unsafe { key.as_ref() }.and_then(|key| table::find(&Kernel, key));
            found.map_or(0, |(_, index)| index + 1)
        }

        /// See [`Tables::mark`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $mark(key: *const Key<$addr>) -> u32 {
            // SAFETY: see the macro.
            unsafe { key.as_ref() }.map_or(0, |key| mark::find(&Kernel, key))
        }

        /// See [`Tables::known`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $known(flow: *const Flow<$addr>) -> u32 {
            // SAFETY: see the macro.
            let found = unsafe { flow.as_ref() }.and_then(|flow| table::find(&Kernel, &flow.key));
            found.map_or(0, |(_, index)| index + 1)
        }

        /// See [`Tables::claim`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $claim(key: *const Key<$addr>) -> u32 {
            // SAFETY: see the macro.
            let claimed = unsafe { key.as_ref() }.and_then(|key| room::claim(&Kernel, key));
            claimed.map_or(0, |(_, index)| index + 1)
        }

        /// See [`Tables::cached`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $cached(key: *const Key<$addr>, slot: u32, version: u32) -> u32 {
            // SAFETY: see the macro.
            match unsafe { key.as_ref() } {
                Some(key) => pick_cached(&Kernel, key, Place { slot, version }),
                None => NONE,
            }
        }

        /// See [`Tables::schedule`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $schedule(
            flow: *const Flow<$addr>,
            slot: u32,
            version: u32,
            row: u32,
        ) -> u64 {
            // SAFETY: see the macro.
            match unsafe { flow.as_ref() } {
                Some(flow) => schedule(&Kernel, flow, slot, Picked { version, row }).raw(),
                None => 0,
            }
        }

        /// See [`Tables::asked_for`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $asked_for(flow: *const Flow<$addr>) -> u32 {
            // SAFETY: see the macro.
            unsafe { flow.as_ref() }.map_or(0, |flow| asked_for(&Kernel, flow))
        }

        /// See [`Tables::pick`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $pick(key: *const Key<$addr>, version: u32) -> u32 {
            // SAFETY: see the macro.
            match (unsafe { key.as_ref() }, Kernel.version(version)) {
                (Some(key), Some(version)) => sched::pick(&Kernel, version, key),
                _ => NONE,
            }
        }

        /// See [`Tables::template`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $template(flow: *const Flow<$addr>, slot: u32, version: u32) -> u64 {
            // SAFETY: see the macro.
            match unsafe { flow.as_ref() } {
                Some(flow) => pe::find_template(&Kernel, flow, Place { slot, version }),
                None => 0,
            }
        }

        /// See [`Tables::persist`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $persist(
            flow: *const Flow<$addr>,
            slot: u32,
            version: u32,
            row: u32,
        ) -> u32 {
            // SAFETY: see the macro.
            match unsafe { flow.as_ref() } {
                Some(flow) => pe::persist(&Kernel, flow, slot, Picked { version, row }),
                None => 0,
            }
        }

        /// See [`Tables::transition`]. What it returns nobody asks for: a global function has to.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $transition(entry: *const Conn<$addr>, flags: u32) -> u32 {
            // SAFETY: see the macro.
            if let Some(entry) = unsafe { entry.as_ref() } {
                transition(&Kernel, entry, flags as u8);
            }
            0
        }
    };
}
global!(V4: rvs_find4, rvs_known4, rvs_mark4, rvs_claim4, rvs_cached4, rvs_schedule4, rvs_transition4;
        rvs_asked_for4, rvs_pick4, rvs_template4, rvs_persist4);
global!(V6: rvs_find6, rvs_known6, rvs_mark6, rvs_claim6, rvs_cached6, rvs_schedule6, rvs_transition6;
        rvs_asked_for6, rvs_pick6, rvs_template6, rvs_persist6);
