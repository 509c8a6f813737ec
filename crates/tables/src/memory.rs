//! What the tables lie in.

use std::cell::Cell;
use std::net::IpAddr;

use rvs_core::addr::{Addr, V4, V6, words};
use rvs_core::control::DatapathError;
use rvs_core::fragment::Slow;
use rvs_core::layout::{
    CallId, Config, ConnSet, Dest, DestStats, LAYOUT_VERSION, MarkRule, Row, ServiceAddr, Slot,
    Version,
};
use rvs_core::limit::{Limits, Settings};
use rvs_core::proto::{sctp, tcp, udp};
use rvs_core::sysctl::Sysctl;
use rvs_core::table;
use rvs_core::time::{Tick, ticks};
use rvs_core::types::{Family, ServiceKey};

/// The tables of `rvs_core::layout`, and what else differs between those that the kernel reads at
/// the same time and those that nobody does.
pub trait Memory {
    /// The `CONFIG` element.
    fn config(&self) -> &Config;
    /// The `SLOW` element.
    fn slow(&self) -> &Slow;
    /// The `ICMP_LIMITS` element.
    fn limits(&self) -> &Limits;
    /// `SLOTS`; the first is nobody's.
    fn slots(&self) -> &[Slot];
    /// `VERSIONS`; the first is nobody's.
    fn versions(&self) -> &[Version];
    /// `DESTS`; the first is nobody's.
    fn dests(&self) -> &[Dest];
    /// The IPv4 connection table.
    fn conns4(&self) -> &[ConnSet<V4>];
    /// The IPv6 connection table.
    fn conns6(&self) -> &[ConnSet<V6>];

    /// `CALL_IDS`: a power of two of places.
    fn call_ids(&self) -> &[CallId];

    /// Number of rows in `ROWS`.
    fn row_count(&self) -> usize;
    /// A row.
    fn row(&self, index: u32) -> Option<Row>;
    /// Writes a row. Only while no version in force has it.
    fn write_row(&mut self, index: u32, row: Row);

    /// A rule that marks packets.
    fn mark_rule(&self, index: u32) -> Option<MarkRule>;
    /// Writes a rule that marks packets. Only while it is not in force.
    fn write_mark_rule(&mut self, index: u32, rule: MarkRule);

    /// Number of words of `TABLES`.
    fn table_words(&self) -> usize;
    /// Writes words of `TABLES` from `first` on. Only while no version in force has them.
    fn write_table(&mut self, first: u32, words: &[u32]);

    /// Enters a service's place into the hash that packets are looked up in.
    fn link(&mut self, service: &ServiceHash, slot: u32) -> Result<(), DatapathError>;
    /// Takes a service out of the hash; fine if it is not in it.
    fn unlink(&mut self, service: &ServiceHash);
    /// Everything in the hash.
    fn linked(&self) -> Vec<ServiceHash>;

    /// Enters the place of a real server into the hash that its own packets are looked up in.
    fn link_real_server(&mut self, at: &ServiceHash, dest: u32) -> Result<(), DatapathError>;
    /// Takes a real server out of that hash; fine if it is not in it.
    fn unlink_real_server(&mut self, at: &ServiceHash);
    /// Everything in that hash.
    fn real_servers(&self) -> Vec<ServiceHash>;

    /// A destination's counters since its place was taken, by CPU: of all that the machine may have.
    fn counters(&self, dest: u32) -> impl Iterator<Item = &DestStats>;

    /// Stores a word after everything that was written before it.
    fn store(&self, cell: &Cell<u32>, value: u32);
    /// Waits until every packet that is being processed now is done.
    fn grace_period(&self);
    /// The current tick of the clock that packets are processed by.
    fn now(&self) -> Tick;
}

/// What a service is found by in `SERVICES4` or `SERVICES6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceHash {
    /// In `SERVICES4`.
    V4(ServiceAddr<V4>),
    /// In `SERVICES6`.
    V6(ServiceAddr<V6>),
}

impl ServiceHash {
    /// That of the service with this key.
    pub fn of(key: &ServiceKey) -> Self {
        let (protocol, addr, port) = match *key {
            ServiceKey::Address { protocol, addr, port } => (protocol, addr, port),
            ServiceKey::Fwmark { family: Family::V4, mark } => {
                return Self::V4(ServiceAddr::fwmark(mark));
            }
            ServiceKey::Fwmark { family: Family::V6, mark } => {
                return Self::V6(ServiceAddr::fwmark(mark));
            }
        };
        let (protocol, port_be) = (protocol as u8, port.to_be());
        match addr {
            IpAddr::V4(_) => {
                Self::V4(ServiceAddr::new(V4::from_words(words(addr)), port_be, protocol))
            }
            IpAddr::V6(_) => {
                Self::V6(ServiceAddr::new(V6::from_words(words(addr)), port_be, protocol))
            }
        }
    }
}

/// Writes the configuration of new tables, all zero until now: the kernel's defaults, and the seed
/// of the connection hash.
pub fn initialise<M: Memory>(memory: &M, seed: u64) {
    let config = memory.config();
    config.seed.set(seed);
    table::divide(&config.parts4, memory.conns4().len() as u32);
    table::divide(&config.parts6, memory.conns6().len() as u32);
    config.dests.set(memory.dests().len() as u32);
    config.call_id_mask.set(memory.call_ids().len() as u32 - 1);
    config.udp_timeout.set(ticks(udp::DEFAULT_TIMEOUT));
    for (timeout, state) in config.tcp_timeouts.iter().zip(tcp::State::ALL) {
        timeout.set(ticks(state.default_timeout()));
    }
    for (timeout, state) in config.sctp_timeouts.iter().zip(sctp::State::ALL) {
        timeout.set(ticks(state.timeout()));
    }
    for sysctl in Sysctl::ALL {
        config.set_sysctl(*sysctl, sysctl.default());
    }
    memory.limits().set(&Settings::default());
    // What has no destination has weight, as far as `expire_nodest_conn` asks.
    if let Some(nobody) = memory.dests().first() {
        nobody.weight.set(1);
    }
    config.layout.set(LAYOUT_VERSION);
}
