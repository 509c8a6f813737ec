//! The maps. Sizes here are only placeholders: the loader sets them. All are pinned.

use core::cell::Cell;

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use rvs_core::addr::{V4, V6};
use rvs_core::flow::Flow;
use rvs_core::fragment::{Fragment, NOTES as MAX_NOTES, Note, NoteKey, Slow};
use rvs_core::layout::{
    Asked, CallId, Config, Conn, ConnSet, Dest, DestStats, INTERFACES as MAX_INTERFACES, Interface,
    MARK_RULES, MarkRule, ROWS_TOGETHER, Row, ServiceAddr, Slot, Version,
};
use rvs_core::limit::{Limits, Receiver};
use rvs_core::reason::Reason;

use crate::icmp::Request;
use crate::route::{self, Hop};

/// `BPF_F_MMAPABLE`: rvsd reads and writes the map as memory.
const MMAPABLE: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`: elements take memory when they are made.
const NO_PREALLOC: usize = 1;

/// See [`Config`].
#[btf_map]
pub static CONFIG: Array<Config, 1, MMAPABLE> = Array::new();
/// Virtual services by IPv4 address: index in `SLOTS`.
#[btf_map]
pub static SERVICES4: HashMap<ServiceAddr<V4>, u32, 1024> = HashMap::new();
/// Virtual services by IPv6 address: index in `SLOTS`.
#[btf_map]
pub static SERVICES6: HashMap<ServiceAddr<V6>, u32, 1024> = HashMap::new();
/// See [`Slot`].
#[btf_map]
pub static SLOTS: Array<Slot, 1024, MMAPABLE> = Array::new();
/// See [`Version`].
#[btf_map]
pub static VERSIONS: Array<Version, 1024, MMAPABLE> = Array::new();
/// See [`Row`].
#[btf_map]
pub static ROWS: Array<[Row; ROWS_TOGETHER], 64, MMAPABLE> = Array::new();
/// Tables of hashing schedulers: rows by bucket.
#[btf_map]
pub static TABLES: Array<u32, 1024, MMAPABLE> = Array::new();
/// See [`MarkRule`].
#[btf_map]
pub static MARKS: Array<MarkRule, { 2 * MARK_RULES as usize }, MMAPABLE> = Array::new();
/// See [`Dest`].
#[btf_map]
pub static DESTS: Array<Dest, 1024, MMAPABLE> = Array::new();
/// See [`DestStats`].
#[btf_map]
pub static DEST_STATS: Array<DestStats, 1024, MMAPABLE> = Array::new();
/// The IPv4 connection table.
#[btf_map]
pub static CONNS4: Array<ConnSet<V4>, 1024, MMAPABLE> = Array::new();
/// The IPv6 connection table.
#[btf_map]
pub static CONNS6: Array<ConnSet<V6>, 1024, MMAPABLE> = Array::new();
/// Tags of the IPv4 connection table's first two parts: see [`table`](rvs_core::table).
#[btf_map]
pub static TAGS4: Array<Cell<u64>, 1024, MMAPABLE> = Array::new();
/// Those of the IPv6 connection table.
#[btf_map]
pub static TAGS6: Array<Cell<u64>, 1024, MMAPABLE> = Array::new();
/// See [`Asked`].
#[btf_map]
pub static ASKED: PerCpuArray<Asked, 1> = PerCpuArray::new();
/// The headers of the IPv4 packet that this CPU has in hand for a persistence engine.
#[btf_map]
pub static FLOW4: PerCpuArray<Flow<V4>, 1> = PerCpuArray::new();
/// The same of an IPv6 packet.
#[btf_map]
pub static FLOW6: PerCpuArray<Flow<V6>, 1> = PerCpuArray::new();
/// See [`CallId`].
#[btf_map]
pub static CALL_IDS: Array<CallId, 1024, MMAPABLE> = Array::new();
/// Real servers of services with a persistence engine, by IPv4 address: index in `DESTS`.
#[btf_map]
pub static REAL_SERVERS4: HashMap<ServiceAddr<V4>, u32, 1024, NO_PREALLOC> = HashMap::new();
/// The same by IPv6 address.
#[btf_map]
pub static REAL_SERVERS6: HashMap<ServiceAddr<V6>, u32, 1024, NO_PREALLOC> = HashMap::new();
/// By CPU number, an entry for an IPv4 packet that leaves no connection behind. No per-CPU array:
/// the kernel aligns the elements of those to eight bytes only.
#[btf_map]
pub static PASSING4: Array<Conn<V4>, 1> = Array::new();
/// The same for IPv6.
#[btf_map]
pub static PASSING6: Array<Conn<V6>, 1> = Array::new();
/// Ways out that were looked up lately. Not pinned: it is filled again within a tick.
#[btf_map]
pub static HOPS: PerCpuArray<Hop, { route::HOPS as usize }> = PerCpuArray::new();
/// See [`Interface`].
#[btf_map]
pub static INTERFACES: Array<Interface, { MAX_INTERFACES as usize }, MMAPABLE> = Array::new();
/// Packets by [`Reason`].
#[btf_map]
pub static REASONS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();
/// See [`Limits`].
#[btf_map]
pub static ICMP_LIMITS: Array<Limits, 1, MMAPABLE> = Array::new();
/// Receivers of ICMP errors that remember their [`Receiver`] at a time.
const MAX_RECEIVERS: u32 = 8192;
/// See [`Receiver`]; by address, words in network byte order.
#[btf_map]
pub static RECEIVERS: LruHashMap<[u32; 4], Receiver, { MAX_RECEIVERS as usize }> =
    LruHashMap::new();
/// Bytes of `SCRATCH`: four pieces of what `bpf_csum_diff` takes at once.
const SCRATCH_LEN: u32 = 2048;
/// Where an ICMP error's quotation is summed up.
#[btf_map]
pub static SCRATCH: PerCpuArray<[u8; SCRATCH_LEN as usize], 1> = PerCpuArray::new();
/// The error that the ICMP program is to send.
#[btf_map]
pub static ICMP_REQUEST: PerCpuArray<Request, 1> = PerCpuArray::new();
/// Programs that the TC program calls, and itself.
#[btf_map]
pub static PROGRAMS: ProgramArray<13> = ProgramArray::new();
/// Index in `PROGRAMS` of `rvs_icmp`.
pub const ICMP_PROGRAM: u32 = 0;
/// Index in `PROGRAMS` of `rvs_related`.
pub const RELATED_PROGRAM: u32 = 1;
/// Index in `PROGRAMS` of `rvs_cover`.
pub const COVER_PROGRAM: u32 = 2;
/// Index in `PROGRAMS` of `rvs_extended`.
pub const EXTENDED_PROGRAM: u32 = 3;
/// Index in `PROGRAMS` of `rvs_fragment`.
pub const FRAGMENT_PROGRAM: u32 = 4;
/// Index in `PROGRAMS` of `rvs_local_icmp`.
pub const LOCAL_ICMP_PROGRAM: u32 = 5;
/// Index in `PROGRAMS` of `rvs_local_extended`.
pub const LOCAL_EXTENDED_PROGRAM: u32 = 6;
/// Index in `PROGRAMS` of `rvs_engine`.
pub const ENGINE_PROGRAM: u32 = 7;
/// Index in `PROGRAMS` of `rvs_tc` itself.
pub const TC_PROGRAM: u32 = 8;
/// Index in `PROGRAMS` of `rvs_once`.
pub const ONCE_PROGRAM: u32 = 9;
/// Index in `PROGRAMS` of `rvs_bypass`.
pub const BYPASS_PROGRAM: u32 = 10;
/// Index in `PROGRAMS` of `rvs_tracked`.
pub const TRACKED_PROGRAM: u32 = 11;
/// Index in `PROGRAMS` of `rvs_local`.
pub const LOCAL_PROGRAM: u32 = 12;
/// Where the first fragments of datagrams went.
#[btf_map]
pub static NOTES: LruHashMap<NoteKey, Note, { MAX_NOTES as usize }> = LruHashMap::new();
/// See [`Slow`].
#[btf_map]
pub static SLOW: Array<Slow, 1, MMAPABLE> = Array::new();
/// Frames that this CPU handed to rvsd, by a hash of their source and, last, all: the tick, and how
/// many in it.
#[btf_map]
pub static SLOW_BUDGET: PerCpuArray<[u32; 2], { crate::slow::BUDGETS as usize }> =
    PerCpuArray::new();
/// Packets by [`Reason`], counted by rvsd.
#[btf_map]
pub static SLOW_REASONS: Array<u64, { Reason::ALL.len() }, MMAPABLE> = Array::new();
/// The IPv4 fragment that this CPU is at: no stack has room for it.
#[btf_map]
pub static FRAGMENT4: PerCpuArray<Fragment<V4>, 1> = PerCpuArray::new();
/// The same for IPv6.
#[btf_map]
pub static FRAGMENT6: PerCpuArray<Fragment<V6>, 1> = PerCpuArray::new();
