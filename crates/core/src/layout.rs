//! The contents of the BPF maps, shared by the eBPF programs, the daemon that writes the
//! configuration and the native tests. All of it is pinned, so a change here changes
//! [`LAYOUT_VERSION`].
//!
//! How a packet gets from a service to a destination:
//!
//! ```text
//!  SERVICES4/6 hash         SLOTS array            VERSIONS array           ROWS array        DESTS array
//!  {vip, port, proto} ──► slot {version} ──► {scheduler, rows, state} ──► {dest, weight} ──► {address, counts}
//! ```
//!
//! A version is immutable but for the scheduler's position. A configuration change writes a new
//! version and its rows, then stores one aligned word in the slot: a packet sees the old
//! configuration or the new one. The old version's place is used again only after an RCU grace
//! period.
//!
//! Memory that other CPUs and the daemon write at the same time is in `Cell`s; read-modify-write
//! goes through [`Env`](crate::env::Env), plain loads and stores of aligned words are atomic on
//! every machine that Linux BPF runs on.

use core::cell::Cell;

use crate::addr::{Addr, V4, V6};
use crate::control::Stats;
use crate::sysctl;
use crate::time::Clock;
use crate::types::ServiceFlags;

/// Version of everything in this file. rvsd adopts pinned maps of its own version only.
pub const LAYOUT_VERSION: u32 = 11;

/// TCP state numbers are below this: size of the timeout table.
pub const TCP_STATES: usize = 16;

/// SCTP state numbers are below this: size of the timeout table.
pub const SCTP_STATES: usize = 16;

/// `CONFIG`, one element: what every packet may need.
#[repr(C, align(64))]
pub struct Config {
    /// [`LAYOUT_VERSION`] of who made the maps.
    pub layout: Cell<u32>,
    /// `CONFIG_*` bits.
    pub flags: Cell<u32>,
    /// Seed of the connection hash, drawn at random when the maps are made.
    pub seed: Cell<u64>,
    /// The IPv4 connection table.
    pub parts4: Parts,
    /// The IPv6 connection table.
    pub parts6: Parts,
    /// The programs' clock.
    pub clock: Clock,
    /// Places for destinations: of so many counters a CPU.
    pub dests: Cell<u32>,
    /// Timeout of a UDP flow, in ticks.
    pub udp_timeout: Cell<u32>,
    /// Settings of the host's loopback that rvsd changed, and what they were: `rvs down` needs it.
    pub loopback: Cell<u32>,
    /// Rules that mark packets: see [`InForce`](crate::mark::InForce).
    pub marks: Cell<u32>,
    /// Number of places for Call-IDs, less one; the number is a power of two.
    pub call_id_mask: Cell<u32>,
    /// Timeout of a TCP connection by state, in ticks.
    pub tcp_timeouts: [Cell<u32>; TCP_STATES],
    /// Of how many new connections one is dropped; 0 if none is. See `defence`.
    pub drop_rate: Cell<i32>,
    /// New connections until the next is dropped.
    pub drop_counter: Cell<i32>,
    /// Settings, by [`Sysctl`](crate::sysctl::Sysctl).
    pub sysctls: [Cell<i32>; sysctl::PLACES],
    /// Timeout of an SCTP association by state, in ticks.
    pub sctp_timeouts: [Cell<u32>; SCTP_STATES],
    /// One bit a port: whether any TCP (row 0), UDP (row 1) or SCTP (row 2) service has it. Spares
    /// packets that are nobody's the look-up of a service.
    pub ports: [[Cell<u64>; 1024]; 3],
    /// Addresses of services and destinations: see [`ours`](crate::ours).
    pub addresses: [Cell<u64>; ADDRESS_WORDS],
    /// Entries of the connection table whose packets netfilter translates, when they were counted last.
    pub tracked: Cell<u32>,
    /// The sync daemons that run, master and backup, as the director describes them: a restarted
    /// rvsd starts them again.
    pub daemons: [[Cell<u32>; DAEMON_WORDS]; 2],
}

/// Sets of the three [parts](crate::table) of a connection table, as they lie one behind the other.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Parts {
    /// In the first.
    pub near: Cell<u32>,
    /// In the second.
    pub middle: Cell<u32>,
    /// In the last.
    pub last: Cell<u32>,
}

/// Words of [`Config::addresses`], a power of two.
pub const ADDRESS_WORDS: usize = 1024;

/// Words that describe a sync daemon.
pub const DAEMON_WORDS: usize = 12;

/// In [`Config::flags`]: a service with port 0 exists.
pub const CONFIG_PORT_ZERO: u32 = 1;
/// In [`Config::flags`]: a fwmark service exists.
pub const CONFIG_FWMARK: u32 = 2;
/// In [`Config::flags`]: TCP states follow the tables of `secure_tcp`.
pub const CONFIG_SECURE_TCP: u32 = 4;
/// In [`Config::flags`]: a service with a persistence engine exists.
pub const CONFIG_ENGINE: u32 = 8;
/// In [`Config::flags`]: clients' packets are the host's, because connections are only taken from
/// another director (`backup_only`).
pub const CONFIG_BACKUP_ONLY: u32 = 1 << 8;
/// In [`Config::flags`]: connections count their first packets, because `drop_entry` may ask.
pub const CONFIG_COUNT_PACKETS: u32 = 1 << 9;
/// In [`Config::flags`]: connections that nobody seems to need are ended (`drop_entry`).
pub const CONFIG_DROP_ENTRY: u32 = 1 << 10;
/// In [`Config::flags`]: packets that netfilter only tracks come back to the programs, so connections by direct
/// routing and tunnels may be tracked.
pub const CONFIG_COMES_BACK: u32 = 1 << 11;
/// In [`Config::flags`]: IPv4 connections of the director's own clients may be tracked.
pub const CONFIG_OWN4: u32 = 1 << 12;
/// In [`Config::flags`]: those of IPv6 may.
pub const CONFIG_OWN6: u32 = 1 << 13;

/// In a value of `REAL_SERVERS4` and `REAL_SERVERS6`, beside the destination's index: its service has a
/// persistence engine.
pub const REAL_SERVER_ENGINE: u32 = 1 << 31;

/// Key of `SERVICES4` and `SERVICES6`; of a real server in `REAL_SERVERS4` and `REAL_SERVERS6`, where
/// protocol 0 stands for a service by mark, which is of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ServiceAddr<A> {
    /// Virtual address.
    pub addr: A,
    /// Virtual port in network byte order.
    pub port_be: u16,
    /// Protocol number.
    pub protocol: u16,
}

/// `SLOTS`: a service's place for as long as it exists.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    /// Index into `VERSIONS`; 0 while the place is free.
    pub version: Cell<u32>,
    /// Order of creation, for listings after a restart.
    pub sequence: Cell<u32>,
    /// Address family: 4 or 6.
    pub family: Cell<u32>,
    /// Protocol number; 0 for a fwmark service.
    pub protocol: Cell<u32>,
    /// Virtual address, or the mark in the first word.
    pub addr: Cell<[u32; 4]>,
    /// Virtual port, host order.
    pub port: Cell<u32>,
    /// Generations of the scheduler's cache so far: see `sched::cache`.
    pub generation: Cell<u32>,
    /// Addresses in the scheduler's cache.
    pub cached: Cell<u32>,
    /// Unused.
    pub reserved: Cell<u32>,
    /// Counters of destinations that are gone, and, negated, of what was zeroed: added to the sum
    /// over the service's destinations it gives the service's counters. In the first place, which is
    /// nobody's, what was forwarded and counts for no service.
    pub adjust: [Cell<u64>; 5],
}

/// `VERSIONS`: one configuration of one service.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Version {
    /// The scheduler's number.
    pub scheduler: Cell<u32>,
    /// `ServiceFlags` bits.
    pub flags: Cell<u32>,
    /// First row in `ROWS`, at any place in an element.
    pub first_row: Cell<u32>,
    /// Number of rows.
    pub rows: Cell<u32>,
    /// The scheduler's position, by scheduler: see `sched`.
    pub state: Cell<u64>,
    /// wrr: the greatest weight, less the common divisor, plus one.
    pub wrr_max: Cell<u32>,
    /// wrr: greatest common divisor of the weights.
    pub wrr_gcd: Cell<u32>,
    /// First word in `TABLES` of a hashing scheduler's table.
    pub table: Cell<u32>,
    /// Persistence timeout in seconds.
    pub timeout: Cell<u32>,
    /// Persistence netmask: IPv4, host order; IPv6, prefix length.
    pub netmask: Cell<u32>,
    /// The persistence engine's number; 0 is none.
    pub engine: Cell<u32>,
    /// Unused.
    pub reserved: [Cell<u32>; 2],
}

impl Version {
    /// Whether the service has this flag.
    #[inline(always)]
    pub fn has(&self, flag: ServiceFlags) -> bool {
        self.flags.get() & flag.bits() != 0
    }
}

/// Rows of an element of `ROWS`: one look-up for all of them, for schedulers that look at every row.
pub const ROWS_TOGETHER: usize = 16;

/// A row of `ROWS`, [`ROWS_TOGETHER`] to an element: a destination as one version of a service has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Row {
    /// Index into `DESTS`.
    pub dest: u32,
    /// Weight.
    pub weight: u32,
    /// Forwarding method.
    pub forward: u8,
    /// Tunnel type.
    pub tunnel_type: u8,
    /// Tunnel port, host order.
    pub tunnel_port: u16,
    /// Tunnel flags.
    pub tunnel_flags: u16,
    /// Port that new connections go to, network byte order; 0 if each goes to the packet's own.
    pub port_be: u16,
}

/// `MARKS`: a rule by which a packet gets a mark. Immutable while it is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MarkRule {
    /// Source network, words in network byte order.
    pub src: [u32; 4],
    /// Its mask; all zero: any source.
    pub src_mask: [u32; 4],
    /// Destination network.
    pub dst: [u32; 4],
    /// Its mask.
    pub dst_mask: [u32; 4],
    /// First destination port, host order.
    pub first_port: u16,
    /// Last destination port.
    pub last_port: u16,
    /// 4 or 6; 0: either.
    pub family: u8,
    /// Protocol number; 0: any.
    pub protocol: u8,
    /// Unused.
    pub reserved: u16,
    /// The mark.
    pub mark: u32,
    /// Unused.
    pub padding: u32,
}

/// Rules that can be in force; `MARKS` has as many places again for those that will be.
pub const MARK_RULES: u32 = 256;

/// `DESTS`: what a destination is (first cache line) and its live counts (second).
#[doc(alias = "ip_vs_dest")]
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Dest {
    /// Address of the real server.
    pub addr: Cell<[u32; 4]>,
    /// Source address of its tunnel packets; all zero while there is no route.
    pub tunnel_source: Cell<[u32; 4]>,
    /// Family of the address: 4 or 6; 0 while the place is free.
    pub family: Cell<u32>,
    /// Port in network byte order, in the low half; 0: the virtual port.
    pub port_be: Cell<u32>,
    /// Index of its service in `SLOTS`.
    pub slot: Cell<u32>,
    /// [`TRASHED`] or [`ENDING`] once it left its service and waits for its connections to end; else 0.
    pub trash: Cell<u32>,
    /// Its latest weight that was not 0, or the weight that it was added with (`last_weight`).
    pub last_weight: Cell<u32>,
    /// MTU that the route to it was given or has learnt; 0 if it has none of its own.
    pub mtu: Cell<u32>,
    /// Its weight.
    pub weight: Cell<u32>,
    /// How its packets are tunneled: see [`Tunnel`](crate::tunnel::Tunnel).
    pub tunnel: Cell<u32>,
    /// Active connections.
    pub active: Cell<u32>,
    /// Inactive connections.
    pub inactive: Cell<u32>,
    /// Persistence templates.
    pub persist: Cell<u32>,
    /// 1 while overloaded (`IP_VS_DEST_F_OVERLOAD`).
    pub overload: Cell<u32>,
    /// Upper threshold; 0 is none.
    pub upper: Cell<u32>,
    /// Lower threshold; 0 is none.
    pub lower: Cell<u32>,
    /// Counters at the last zeroing; in the first place, which is nobody's, those of everything.
    pub base: [Cell<u64>; 5],
}

/// In [`Dest::trash`]: its connections end with their time.
pub const TRASHED: u32 = 1;
/// In [`Dest::trash`]: they end now, because a destination was deleted, it or another, while
/// `expire_nodest_conn` was set (`ip_vs_enqueue_expire_nodest_conns`).
pub const ENDING: u32 = 2;

/// `DEST_STATS`: those of each CPU, one CPU behind the other, by destination index. Only the CPU that
/// they belong to writes them. No per-CPU array, which costs rvsd a system call for each that it reads.
/// In the first place, which is nobody's, rvsd keeps what destinations counted that are gone; other
/// free places are zero.
#[derive(Debug, Default)]
#[repr(C)]
pub struct DestStats {
    /// Connections scheduled.
    pub conns: Cell<u64>,
    /// Packets from clients.
    pub in_pkts: Cell<u64>,
    /// Packets from the destination.
    pub out_pkts: Cell<u64>,
    /// Bytes from clients.
    pub in_bytes: Cell<u64>,
    /// Bytes from the destination.
    pub out_bytes: Cell<u64>,
}

impl DestStats {
    /// What they are.
    pub fn get(&self) -> Stats {
        Stats {
            conns: self.conns.get(),
            in_pkts: self.in_pkts.get(),
            out_pkts: self.out_pkts.get(),
            in_bytes: self.in_bytes.get(),
            out_bytes: self.out_bytes.get(),
        }
    }

    /// Makes them what `stats` says. Only while no packet can count here.
    pub fn set(&self, stats: Stats) {
        self.conns.set(stats.conns);
        self.in_pkts.set(stats.in_pkts);
        self.out_pkts.set(stats.out_pkts);
        self.in_bytes.set(stats.in_bytes);
        self.out_bytes.set(stats.out_bytes);
    }
}

/// `INTERFACES`, by interface index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// Its MAC address: frames for other hosts are not ours.
    pub mac: [u8; 6],
    /// `INTERFACE_*` bits; 0 for an interface that rvsd does not attach to.
    pub flags: u16,
}

/// In [`Interface::flags`]: `mac` is valid.
pub const INTERFACE_KNOWN: u16 = 1;
/// In [`Interface::flags`]: it takes frames that XDP redirects to it.
pub const INTERFACE_XDP: u16 = 2;

/// In [`Interface::flags`]: frames go back out by redirection, not by XDP_TX. A veth device whose
/// peer has GRO but no XDP program of its own leaves frames of XDP_TX in the peer's ring until
/// something else wakes it (`veth_xdp_flush`); redirected frames wake it.
pub const INTERFACE_NO_TX: u16 = 4;

/// Elements of `INTERFACES`. XDP leaves interfaces with higher numbers to TC.
pub const INTERFACES: u32 = 4096;

/// Entries that are made for each connection that there is to be room for, less what takes the place of
/// their tags: a masqueraded one takes two.
pub const ENTRIES: u32 = 3;

/// Ways of a set of the connection table.
pub const WAYS: usize = 8;

/// Sets that a look-up may visit: one in each of the first two parts of the table, the others in the
/// last. Eight bytes wide, as the verifier forgets half of a register that LLVM puts on the stack beside a
/// map's key.
pub const PROBES: u64 = 6;

/// What a packet's connection is found by: its addresses, ports and protocol as they lie in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Key<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port in network byte order.
    pub sport_be: u16,
    /// Destination port in network byte order.
    pub dport_be: u16,
    /// Protocol number.
    pub protocol: u32,
}

impl<A: Copy> Key<A> {
    /// That of the other direction.
    #[inline(always)]
    pub fn turned(&self) -> Self {
        let Self { src, dst, sport_be, dport_be, protocol } = *self;
        Self { src: dst, dst: src, sport_be: dport_be, dport_be: sport_be, protocol }
    }
}

/// An entry of the connection table: a connection, the reply direction of a masqueraded one, or
/// a persistence template.
#[doc(alias = "ip_vs_conn")]
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Conn<A: Copy> {
    /// Life, state and flags: see [`Word`](crate::conn::Word).
    pub word: Cell<u32>,
    /// Tick at which it expires. Replies renew that of their own entry: a masqueraded connection
    /// expires at the later of the two, see [`expiry`](crate::pipeline::expiry).
    pub expires: Cell<u32>,
    /// The key.
    pub key: Cell<Key<A>>,
    /// Index into `DESTS`.
    pub dest: Cell<u32>,
    /// Entry index, plus one, of the other direction; 0 if there is none. In a template its
    /// timeout in ticks.
    pub pair: Cell<u32>,
    /// In the first way only, and only where the set has none in `TAGS4` or `TAGS6`: the set's
    /// [tags](crate::table).
    pub tags: Cell<u64>,
    /// Where its packets go: the new destination address, in replies the new source address.
    pub target: Cell<A>,
    /// The port that goes with `target`, network byte order, in the low half.
    pub target_port_be: Cell<u32>,
    /// Entry index, plus one, of the controlling persistence template; in a template the number
    /// of connections that it controls; in the reply entry of FTP data, and while its client is
    /// expected, that of the control connection.
    pub control: Cell<u32>,
    /// Of a template with a Call-ID, its index in `CALL_IDS`, plus one; else 0.
    pub call_id: Cell<u32>,
}

/// A set of the connection table.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ConnSet<A: Copy> {
    /// The entries.
    pub ways: [Conn<A>; WAYS],
}

const _: () = assert!(size_of::<Conn<V4>>() == 64 && size_of::<Conn<V6>>() == 128);
const _: () = assert!(size_of::<Version>() == 64 && size_of::<Dest>() == 128);
const _: () = assert!(size_of::<MarkRule>() == 80);
const _: () = assert!(size_of::<Row>() == 16 && size_of::<Slot>() == 88);

/// `CALL_IDS`: what a persistence engine found in the packet that a template was made for. A place
/// is taken by whoever makes `used` 1, and given back by the sweeper with the template.
#[derive(Debug, Default)]
#[repr(C)]
pub struct CallId {
    /// 1 while a template has it.
    pub used: Cell<u32>,
    /// Length in bytes, up to 255.
    pub len: Cell<u32>,
    /// The bytes, zeros behind them.
    pub words: [Cell<u64>; 32],
}

const _: () = assert!(size_of::<CallId>() == 264);

/// A packet in the hands of a persistence engine, by CPU.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Asked {
    /// What the engine found in it; length 0 if nothing.
    pub call_id: CallId,
    /// Index of its service in `SLOTS`.
    pub slot: Cell<u32>,
    /// Index in `VERSIONS` of the version that decides.
    pub version: Cell<u32>,
    /// The row for it.
    pub row: Cell<u32>,
    /// Its template's index, plus one; 0 if it has none.
    pub template: Cell<u32>,
    /// Index in `DESTS` of the real server that sent it; 0 for a client's packet.
    pub dest: Cell<u32>,
}

/// Words of a source- or destination-hashing table (`IP_VS_SH_TAB_SIZE`, `IP_VS_DH_TAB_SIZE`).
pub const HASH_SIZE: u32 = 256;
/// Words of a Maglev table: the kernel's default (`IP_VS_MH_TAB_SIZE`).
pub const MH_SIZE: u32 = 4093;

/// The connection set that holds entry `index`, and the way in it.
pub const fn split_entry(index: u32) -> (u32, usize) {
    (index / WAYS as u32, (index % WAYS as u32) as usize)
}

impl<A: Addr> ServiceAddr<A> {
    /// The key for a packet with this mark: protocol 0 is no packet's.
    #[inline(always)]
    pub fn fwmark(mark: u32) -> Self {
        Self { addr: A::from_words([mark, 0, 0, 0]), port_be: 0, protocol: 0 }
    }

    /// The key for a packet or a configured service.
    #[inline(always)]
    pub fn new(addr: A, port_be: u16, protocol: u8) -> Self {
        Self { addr, port_be, protocol: protocol as u16 }
    }
}
