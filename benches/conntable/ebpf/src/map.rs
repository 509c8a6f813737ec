//! The two kinds of table under one trait, and all access to map and packet memory.

use core::arch::asm;
use core::cell::Cell;

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use conntable_ebpf::{BUSY, FREE, Key, LIVE, PROBES, Run, Value, hash};

/// A set as the kernel sees it.
pub type Set<const WAYS: usize> = conntable_ebpf::Set<Cell<u32>, Cell<u64>, WAYS>;

const BPF_NOEXIST: u64 = 1;

/// A connection table.
pub trait Table {
    /// The data of `key`'s entry, read some time after it was found if `held`.
    fn find(&self, run: &Run, key: Key, held: bool) -> Option<[u64; 2]>;
    /// Adds `key`; whether there was place in the first `probes` sets.
    fn insert(&self, run: &Run, key: Key, probes: usize) -> bool;
}

/// A: `BPF_MAP_TYPE_HASH`.
pub struct Hash<'a, const FLAGS: usize>(pub &'a HashMap<Key, Value, 1, FLAGS>);

impl<const FLAGS: usize> Table for Hash<'_, FLAGS> {
    #[inline(always)]
    fn find(&self, run: &Run, key: Key, held: bool) -> Option<[u64; 2]> {
        let value = self.0.get_ptr(key)?;
        if held {
            pause(run);
        }
        // SAFETY: the map's value, of this type; others may write it meanwhile, hence volatile.
        unsafe {
            let data = &raw const (*value).data;
            Some([data.cast::<u64>().read_volatile(), data.cast::<u64>().add(1).read_volatile()])
        }
    }

    #[inline(always)]
    fn insert(&self, run: &Run, key: Key, _: usize) -> bool {
        let data = [key[0], key[1], 0, 0, 0];
        let value = Value { word: LIVE, expires: run.expires, data };
        self.0.insert(key, value, BPF_NOEXIST).is_ok()
    }
}

/// B: set-associative, in an array map. Probing goes on to the next set, or, with `LEAP`, by a
/// stride that the hash gives.
pub struct Sets<'a, const WAYS: usize, const LEAP: bool>(pub &'a Array<Set<WAYS>, 1, { 1 << 10 }>);

impl<const WAYS: usize, const LEAP: bool> Sets<'_, WAYS, LEAP> {
    /// Home set and stride.
    #[inline(always)]
    fn home(run: &Run, key: Key) -> (u32, u32) {
        let h = hash(key, run.seed);
        let home = (h >> 32) as u32 & run.mask;
        (home, if LEAP { h as u32 | 1 } else { 1 })
    }
}

impl<const WAYS: usize, const LEAP: bool> Table for Sets<'_, WAYS, LEAP> {
    #[inline(always)]
    fn find(&self, run: &Run, key: Key, held: bool) -> Option<[u64; 2]> {
        let (mut index, stride) = Self::home(run, key);
        for _ in 0..PROBES {
            let set = self.0.get(index)?;
            for entry in &set.ways {
                if load(&entry.key[0]) == key[0]
                    && load(&entry.key[1]) == key[1]
                    && load(&entry.word) == LIVE
                {
                    if held {
                        pause(run);
                    }
                    return Some([load(&entry.data[0]), load(&entry.data[1])]);
                }
            }
            if load(&set.ways[0].overflow) == 0 {
                return None;
            }
            index = index.wrapping_add(stride) & run.mask;
        }
        None
    }

    #[inline(always)]
    fn insert(&self, run: &Run, key: Key, probes: usize) -> bool {
        let (mut index, stride) = Self::home(run, key);
        for _ in 0..probes {
            let Some(set) = self.0.get(index) else { return false };
            for entry in &set.ways {
                if load(&entry.word) == FREE && compare_exchange(&entry.word, FREE, BUSY) == FREE {
                    store(&entry.expires, run.expires);
                    store(&entry.data[0], key[0]);
                    store(&entry.data[1], key[1]);
                    store(&entry.key[0], key[0]);
                    store(&entry.key[1], key[1]);
                    // Ordered on every machine, unlike a plain store of LIVE.
                    compare_exchange(&entry.word, BUSY, LIVE);
                    return true;
                }
            }
            if load(&set.ways[0].overflow) == 0 {
                store(&set.ways[0].overflow, 1);
            }
            index = index.wrapping_add(stride) & run.mask;
        }
        false
    }
}

/// Takes as long as the run says: a packet's time between its look-up and its last use of the entry.
#[inline(always)]
fn pause(run: &Run) {
    for call in 0..4096 {
        if call >= run.pause {
            break;
        }
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() };
    }
}

/// The run's parameters, if the packet is long enough for them.
#[inline(always)]
pub fn packet<'a>(start: usize, end: usize) -> Option<&'a mut Run> {
    if start + size_of::<Run>() > end {
        return None;
    }
    // SAFETY: the packet is that long, as just checked; any bytes make a `Run`; x86 takes any
    // alignment; no other reference to the packet exists.
    Some(unsafe { &mut *(start as *mut Run) })
}

/// Reads exactly once, in program order.
#[inline(always)]
fn load<T: Copy>(cell: &Cell<T>) -> T {
    // SAFETY: a cell is valid and aligned.
    unsafe { cell.as_ptr().read_volatile() }
}

/// Writes exactly once, in program order.
#[inline(always)]
fn store<T>(cell: &Cell<T>, value: T) {
    // SAFETY: a cell is valid and aligned.
    unsafe { cell.as_ptr().write_volatile(value) }
}

/// Stores `new` if the word is `old`; what it was. `core::sync::atomic` has none for BPF.
#[inline(always)]
fn compare_exchange(cell: &Cell<u32>, old: u32, new: u32) -> u32 {
    let mut previous = old;
    // SAFETY: one atomic instruction on a valid, aligned word.
    unsafe {
        asm!("w0 = cmpxchg32_32({p} + 0, w0, {n})", p = in(reg) cell.as_ptr(), n = in(wreg) new, inout("r0") previous);
    }
    previous
}
