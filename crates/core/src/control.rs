//! What the control plane asks of a data path. Two implementations: the BPF maps
//! (`rvs-datapath`) and the native one that tests and the simulation use (`rvs-sim`).

use core::fmt;
use core::net::IpAddr;

use crate::layout::{DAEMON_WORDS, MarkRule};
use crate::sysctl::Sysctl;
use crate::timeout::Timeout;
use crate::types::{
    DestConfig, DestKey, Engine, ForwardMethod, ServiceConfig, ServiceKey, Timeouts,
};

/// Traffic counters, as `ipvsadm --stats` shows them. Bytes count from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_pkts: u64,
    /// Packets from destinations (masquerading only: other replies bypass the director).
    pub out_pkts: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes from destinations.
    pub out_bytes: u64,
}

/// Rates per second, as `ipvsadm --rate` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections per second.
    pub cps: u64,
    /// Packets per second from clients.
    pub in_pps: u64,
    /// Packets per second from destinations.
    pub out_pps: u64,
    /// Bytes per second from clients.
    pub in_bps: u64,
    /// Bytes per second from destinations.
    pub out_bps: u64,
}

/// Live numbers of one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestStatus {
    /// Connections in an active state (TCP: SYN_SENT, SYN_RECV, ESTABLISHED, SYNACK).
    pub active_conns: u32,
    /// All other connections.
    pub inactive_conns: u32,
    /// Persistence templates.
    pub persist_conns: u32,
    /// Counters since the last zeroing.
    pub stats: Stats,
}

/// One row of `ipvsadm -Lnc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRow {
    /// Protocol number; 0 (IP) for the template of a fwmark service.
    pub protocol: u8,
    /// Client address.
    pub client: IpAddr,
    /// Client port, host order; 0 in a template.
    pub client_port: u16,
    /// Virtual address; `0.0.0.mark` style for fwmark templates.
    pub virtual_addr: IpAddr,
    /// Virtual port, host order.
    pub virtual_port: u16,
    /// Destination address.
    pub dest: IpAddr,
    /// Destination port, host order.
    pub dest_port: u16,
    /// How its packets are forwarded.
    pub forward: ForwardMethod,
    /// Connection state as in `/proc/net/ip_vs_conn` ("ESTABLISHED", "UDP", "NONE" ...).
    pub state: &'static str,
    /// Seconds until the connection expires if nothing more arrives.
    pub expires: u32,
    /// Whether this is a persistence template.
    pub template: bool,
    /// Whether another director told of it.
    pub synced: bool,
    /// The persistence engine of a template, and what it found.
    pub engine: Option<(Engine, EngineData)>,
}

/// What a persistence engine found in a packet: up to 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineData {
    bytes: [u8; 256],
    len: usize,
}

impl EngineData {
    /// The first 255 of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes.len().min(255);
        let mut data = Self { bytes: [0; 256], len };
        for (to, from) in data.bytes.iter_mut().zip(bytes).take(len) {
            *to = *from;
        }
        data
    }

    /// What a kernel lists of it: what comes before the first zero.
    pub fn up_to_zero(&self) -> Self {
        let bytes = self.bytes();
        Self::new(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Why a data path refused a change. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathError {
    /// A table is full; the name of the table.
    Full(&'static str),
    /// The data path lacks this feature.
    Unsupported(&'static str),
    /// The kernel refused an operation: the errno.
    Kernel(i32),
    /// Netfilter does not track and translate connections here: the errno.
    Netfilter(i32),
}

impl fmt::Display for DatapathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(table) => write!(f, "the {table} table is full"),
            Self::Unsupported(what) => write!(f, "the data path has no {what}"),
            Self::Kernel(errno) => write!(f, "the kernel refused the change: errno {errno}"),
            Self::Netfilter(errno) => write!(
                f,
                "the kernel tracks no connections: nf_tables with NAT and nf_conntrack_netlink are \
                 needed (errno {errno})"
            ),
        }
    }
}

impl core::error::Error for DatapathError {}

/// What a change to a service is about: wrr's position stays with one and starts over with the
/// other, even if nothing differs (`tests/oracle/recorded/sched_changes.jsonl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The service itself: `ipvsadm -A`, `-E`.
    Service,
    /// Its destinations: `ipvsadm -a`, `-e`, `-d`.
    Dests,
}

/// A data path: holds the tables that packets are looked up in. Every change is atomic: a packet
/// sees the old configuration or the new one, never a mixture, and an error changes nothing.
///
/// Destination lists are in the kernel's order: the destination added last comes first.
pub trait Datapath {
    /// Adds the service or replaces its configuration and its destination list as a whole.
    /// Destinations that left the list live on, hidden, while connections use them; one that comes
    /// back takes its live connections with it. The scheduler's position survives as in the kernel.
    fn put_service(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) -> Result<(), DatapathError>;

    /// Removes the service; its established connections go on. False if there was none.
    fn remove_service(&mut self, key: &ServiceKey) -> bool;

    /// Calls `f` for each service held, in the order they were added, with its destinations: what
    /// a restarted director adopts.
    fn for_each_service(&self, f: &mut dyn FnMut(&ServiceKey, &ServiceConfig, &[DestConfig]));

    /// Counters of a service, deleted destinations included; zero if there is none.
    fn service_stats(&self, key: &ServiceKey) -> Stats;

    /// Counters of everything, services that are gone included: calls `f` for each CPU, with what it
    /// has counted ever, and returns the sum of all since it was zeroed.
    fn everything(&self, f: &mut dyn FnMut(&Stats)) -> Stats;

    /// Zeroes that sum, and nothing else.
    fn zero_everything(&mut self);

    /// Live numbers of a destination; all zero if there is none.
    fn dest_status(&self, key: &ServiceKey, dest: &DestKey) -> DestStatus;

    /// Zeroes the counters of one service and its destinations.
    fn zero(&mut self, key: &ServiceKey);

    /// The timeouts in force.
    fn timeouts(&self) -> Timeouts;

    /// Sets the timeouts for whatever happens from now on.
    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), DatapathError>;

    /// The value of a setting.
    fn sysctl(&self, sysctl: Sysctl) -> i32 {
        sysctl.default()
    }

    /// Changes a setting to a value within its bounds, for whatever happens from now on.
    fn set_sysctl(&mut self, _sysctl: Sysctl, _value: i32) -> Result<(), DatapathError> {
        Err(DatapathError::Unsupported("settings"))
    }

    /// Calls `f` for each rule that marks packets, in their order.
    fn for_each_mark(&self, _f: &mut dyn FnMut(&MarkRule)) {}

    /// Puts rules that mark packets in force, in place of all there are.
    fn set_marks(&mut self, _rules: &[MarkRule]) -> Result<(), DatapathError> {
        Err(DatapathError::Unsupported("rules that mark packets"))
    }

    /// Seconds of a timeout.
    fn timeout(&self, timeout: Timeout) -> u32 {
        timeout.default()
    }

    /// Changes a timeout to so many seconds, for whatever happens from now on.
    fn set_timeout(&mut self, _timeout: Timeout, _seconds: u32) -> Result<(), DatapathError> {
        Err(DatapathError::Unsupported("timeouts by state"))
    }

    /// What [`keep_daemon`](Self::keep_daemon) was told of a sync daemon last, by this director or
    /// the one before it; zeros at first.
    fn kept_daemon(&self, _backup: bool) -> [u32; DAEMON_WORDS] {
        [0; DAEMON_WORDS]
    }

    /// Keeps the description of a sync daemon that runs, for the next director; zeros if none does.
    /// That a backup runs matters to packets, too (`backup_only`).
    fn keep_daemon(&mut self, _backup: bool, _words: [u32; DAEMON_WORDS]) {}

    /// Capacity of the connection table, in connections.
    fn conn_capacity(&self) -> u32;

    /// Calls `f` for each connection and template until it returns false.
    fn for_each_conn(&self, f: &mut dyn FnMut(&ConnRow) -> bool);

    /// Calls `f` for the connections and templates from position `cursor` on until it returns
    /// false; where to go on, or `None` at the end. 0 is the begin; no other position means
    /// anything but to the data path.
    fn conns_from(&self, cursor: u64, f: &mut dyn FnMut(&ConnRow) -> bool) -> Option<u64> {
        let (mut at, mut next) = (0, None);
        self.for_each_conn(&mut |row| {
            at += 1;
            if at <= cursor || f(row) {
                return true;
            }
            next = Some(at);
            false
        });
        next
    }
}
