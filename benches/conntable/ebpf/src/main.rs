//! The measured programs: one operation of one table on one flow each.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod map;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use conntable_ebpf::{Key, PROBES, Run, Value, key};
use map::{Set, Table};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

const NO_PREALLOC: usize = 1;
const MMAPABLE: usize = 1 << 10;

#[btf_map]
static HASH: HashMap<Key, Value, 1> = HashMap::new();
#[btf_map]
static LAZY: HashMap<Key, Value, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SETS4: Array<Set<4>, 1, MMAPABLE> = Array::new();
#[btf_map]
static SETS8: Array<Set<8>, 1, MMAPABLE> = Array::new();
/// As `SETS4`, but the hash also gives the stride of probing.
#[btf_map]
static LEAP4: Array<Set<4>, 1, MMAPABLE> = Array::new();
#[btf_map]
static LEAP8: Array<Set<8>, 1, MMAPABLE> = Array::new();

#[inline(always)]
fn with(run: Option<&mut Run>, operation: impl FnOnce(&mut Run)) -> u32 {
    match run {
        Some(run) => operation(run),
        None => return XDP_ABORTED,
    }
    XDP_PASS
}

/// The same operation as an XDP program, which test runs time without a socket buffer, and as a TC
/// program, of which test runs do not wait for two RCU grace periods (the XDP dispatcher's).
macro_rules! program {
    ($xdp:ident, $tc:ident, $operation:expr) => {
        #[xdp]
        pub fn $xdp(context: XdpContext) -> u32 {
            with(map::packet(context.data(), context.data_end()), $operation)
        }
        #[classifier]
        pub fn $tc(context: TcContext) -> i32 {
            with(map::packet(context.data(), context.data_end()), $operation) as i32
        }
    };
}

// The wrapper without an operation: to be subtracted.
program!(empty, tc_empty, |run| {
    let key = run.pick();
    run.sum ^= key[0] ^ key[1];
    run.done += 1;
});

#[inline(always)]
fn look_up(table: &impl Table, run: &mut Run, chained: bool, held: bool) {
    let key = run.pick();
    match table.find(run, key, held) {
        Some(data) => {
            let difference = (data[0] ^ key[0]) | (data[1] ^ key[1]);
            run.done += 1;
            run.wrong += (difference != 0) as u64;
            if chained {
                run.random ^= difference;
            }
        }
        None => run.missed += 1,
    }
}

#[inline(always)]
fn count(run: &mut Run, done: bool) {
    if done {
        run.done += 1;
    } else {
        run.missed += 1;
    }
}

#[inline(always)]
fn insert(table: &impl Table, run: &mut Run, probes: usize) {
    let key = run.step();
    let done = table.insert(run, key, probes);
    count(run, done);
}

// find: look-ups that do not wait for each other. chain: the next flow depends on what the last
// look-up read. hold: the data is read a while later, as a packet's last use of it is.
macro_rules! programs {
    ($map:expr, $find:ident $tc_find:ident, $chain:ident $tc_chain:ident,
     $hold:ident $tc_hold:ident, $insert:ident $tc_insert:ident) => {
        program!($find, $tc_find, |run| look_up(&$map, run, false, false));
        program!($chain, $tc_chain, |run| look_up(&$map, run, true, false));
        program!($hold, $tc_hold, |run| look_up(&$map, run, false, true));
        program!($insert, $tc_insert, |run| insert(&$map, run, PROBES));
    };
}
programs!(
    map::Hash(&HASH),
    find_hash tc_find_hash, chain_hash tc_chain_hash, hold_hash tc_hold_hash, insert_hash tc_insert_hash
);
programs!(
    map::Hash(&LAZY),
    find_lazy tc_find_lazy, chain_lazy tc_chain_lazy, hold_lazy tc_hold_lazy, insert_lazy tc_insert_lazy
);
programs!(
    map::Sets::<4, false>(&SETS4),
    find_sets4 tc_find_sets4, chain_sets4 tc_chain_sets4, hold_sets4 tc_hold_sets4, insert_sets4 tc_insert_sets4
);
programs!(
    map::Sets::<8, false>(&SETS8),
    find_sets8 tc_find_sets8, chain_sets8 tc_chain_sets8, hold_sets8 tc_hold_sets8, insert_sets8 tc_insert_sets8
);
programs!(
    map::Sets::<4, true>(&LEAP4),
    find_leap4 tc_find_leap4, chain_leap4 tc_chain_leap4, hold_leap4 tc_hold_leap4, insert_leap4 tc_insert_leap4
);
programs!(
    map::Sets::<8, true>(&LEAP8),
    find_leap8 tc_find_leap8, chain_leap8 tc_chain_leap8, hold_leap8 tc_hold_leap8, insert_leap8 tc_insert_leap8
);

// swap: a connection ends, and the next begins, as `range` of them live.
macro_rules! deletes {
    ($map:expr, $table:expr, $delete:ident $tc_delete:ident, $swap:ident $tc_swap:ident) => {
        program!($delete, $tc_delete, |run| {
            let key = run.step();
            count(run, $map.remove(key).is_ok());
        });
        program!($swap, $tc_swap, |run| {
            let (next, live) = (run.next, run.range);
            let oldest = next.wrapping_sub(live) & (live.wrapping_mul(2).wrapping_sub(1));
            let _ = $map.remove(key(run.first.wrapping_add(oldest)));
            run.next = next & (live.wrapping_mul(2).wrapping_sub(1));
            insert(&$table, run, PROBES);
        });
    };
}
deletes!(HASH, map::Hash(&HASH), delete_hash tc_delete_hash, swap_hash tc_swap_hash);
deletes!(LAZY, map::Hash(&LAZY), delete_lazy tc_delete_lazy, swap_lazy tc_swap_lazy);

macro_rules! probes {
    ($map:expr, $($insert:ident $tc_insert:ident $probes:expr),*) => {
        $(program!($insert, $tc_insert, |run| insert(&$map, run, $probes));)*
    };
}
probes!(
    map::Sets::<4, false>(&SETS4),
    insert_sets4_1 tc_insert_sets4_1 1, insert_sets4_2 tc_insert_sets4_2 2, insert_sets4_3 tc_insert_sets4_3 3
);
probes!(
    map::Sets::<8, false>(&SETS8),
    insert_sets8_1 tc_insert_sets8_1 1, insert_sets8_2 tc_insert_sets8_2 2, insert_sets8_3 tc_insert_sets8_3 3
);
