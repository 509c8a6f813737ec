//! The tables as vectors, and the clock.

use std::array;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use rvs_core::addr::{V4, V6};
use rvs_core::control::DatapathError;
use rvs_core::fragment::{Note, NoteKey, Slow};
use rvs_core::layout::{
    Asked, CallId, Config, Conn, ConnSet, Dest, DestStats, MARK_RULES, MarkRule, Parts, Row, Slot,
    Version,
};
use rvs_core::limit::{Limits, Moment, Receiver};
use rvs_core::reason::Reason;
use rvs_core::table;
use rvs_core::time::{Clock, Tick};
use rvs_tables::sweeper::{self, Pass};
use rvs_tables::{Memory, ServiceHash, initialise};

/// Capacities.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Sets of each connection table, [`LEAST_SETS`](table::LEAST_SETS) or more.
    pub sets: u32,
    /// Services.
    pub services: u32,
    /// Destinations, of all services together.
    pub destinations: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { sets: 4096, services: 256, destinations: 4096 }
    }
}

/// Everything that the data path knows.
pub struct Plain {
    pub(crate) config: Box<Config>,
    pub(crate) slow: Box<Slow>,
    pub(crate) limits: Limits,
    pub(crate) receivers: RefCell<HashMap<[u32; 4], Receiver>>,
    /// The moment by which ICMP errors are limited: the caller's to move.
    pub moment: Cell<Moment>,
    pub(crate) notes: RefCell<HashMap<NoteKey, Note>>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) versions: Vec<Version>,
    pub(crate) rows: Vec<Row>,
    pub(crate) tables: Vec<u32>,
    pub(crate) marks: Vec<MarkRule>,
    pub(crate) dests: Vec<Dest>,
    pub(crate) stats: Vec<DestStats>,
    pub(crate) conns4: Vec<ConnSet<V4>>,
    pub(crate) tags4: Vec<Cell<u64>>,
    pub(crate) passing4: Conn<V4>,
    pub(crate) passing6: Conn<V6>,
    pub(crate) conns6: Vec<ConnSet<V6>>,
    pub(crate) tags6: Vec<Cell<u64>>,
    pub(crate) asked: Asked,
    pub(crate) call_ids: Vec<CallId>,
    pub(crate) services: HashMap<ServiceHash, u32>,
    pub(crate) real_servers: HashMap<ServiceHash, u32>,
    pub(crate) reasons: Vec<Cell<u64>>,
    pub(crate) random: Cell<u32>,
    now: Cell<Tick>,
}

fn zeroed<T: Default>(len: u32) -> Vec<T> {
    (0..len).map(|_| T::default()).collect()
}

impl Plain {
    /// Empty tables. `seed` is that of the connection hash and of random numbers.
    pub fn new(sizes: &Sizes, seed: u64) -> Self {
        let sets = sizes.sets.max(table::LEAST_SETS);
        let config = Config {
            layout: Cell::default(),
            flags: Cell::default(),
            seed: Cell::default(),
            parts4: Parts::default(),
            parts6: Parts::default(),
            clock: Clock::default(),
            dests: Cell::default(),
            udp_timeout: Cell::default(),
            loopback: Cell::default(),
            marks: Cell::default(),
            call_id_mask: Cell::default(),
            tcp_timeouts: array::from_fn(|_| Cell::default()),
            drop_rate: Cell::default(),
            drop_counter: Cell::default(),
            sysctls: array::from_fn(|_| Cell::default()),
            sctp_timeouts: array::from_fn(|_| Cell::default()),
            ports: array::from_fn(|_| array::from_fn(|_| Cell::default())),
            addresses: array::from_fn(|_| Cell::default()),
            tracked: Cell::default(),
            daemons: array::from_fn(|_| array::from_fn(|_| Cell::default())),
        };
        // One place more than asked for where the first is nobody's; twice as many where the old
        // and the new version of a service exist side by side.
        let plain = Self {
            config: Box::new(config),
            slow: Box::default(),
            limits: Limits::default(),
            receivers: RefCell::default(),
            moment: Cell::new(Moment(0)),
            notes: RefCell::default(),
            slots: zeroed(sizes.services + 1),
            versions: zeroed(sizes.services * 2 + 2),
            rows: zeroed(sizes.destinations * 4),
            tables: zeroed(sizes.services * 2 * rvs_core::layout::MH_SIZE),
            marks: zeroed(2 * MARK_RULES),
            dests: zeroed(sizes.destinations + 1),
            stats: zeroed(sizes.destinations + 1),
            conns4: zeroed(sets),
            tags4: zeroed(sets),
            passing4: Conn::default(),
            passing6: Conn::default(),
            conns6: zeroed(sets),
            tags6: zeroed(sets),
            asked: Asked::default(),
            call_ids: zeroed(sets),
            services: HashMap::new(),
            real_servers: HashMap::new(),
            reasons: zeroed(Reason::ALL.len() as u32),
            random: Cell::new(seed as u32 | 1),
            now: Cell::new(Tick(0)),
        };
        initialise(&plain, seed);
        plain
    }

    /// Moves the clock on; [`ticks`](rvs_core::time::ticks) says how far.
    pub fn advance(&self, ticks: u32) {
        self.now.set(self.now.get().after(ticks));
    }

    /// Ends the connections that have expired and clears what has ended.
    pub fn sweep(&self) -> Pass {
        sweeper::pass(self, self)
    }

    /// Clears what has ended, between two sweeps.
    pub fn make_room(&self) -> Pass {
        sweeper::make_room(self, self)
    }

    /// How many packets were counted for `reason`.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.get(reason as usize).map_or(0, Cell::get)
    }
}

impl Memory for Plain {
    fn config(&self) -> &Config {
        &self.config
    }

    fn slow(&self) -> &Slow {
        &self.slow
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn versions(&self) -> &[Version] {
        &self.versions
    }

    fn dests(&self) -> &[Dest] {
        &self.dests
    }

    fn conns4(&self) -> &[ConnSet<V4>] {
        &self.conns4
    }

    fn conns6(&self) -> &[ConnSet<V6>] {
        &self.conns6
    }

    fn call_ids(&self) -> &[CallId] {
        &self.call_ids
    }

    fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, index: u32) -> Option<Row> {
        self.rows.get(index as usize).copied()
    }

    fn write_row(&mut self, index: u32, row: Row) {
        if let Some(place) = self.rows.get_mut(index as usize) {
            *place = row;
        }
    }

    fn mark_rule(&self, index: u32) -> Option<MarkRule> {
        self.marks.get(index as usize).copied()
    }

    fn write_mark_rule(&mut self, index: u32, rule: MarkRule) {
        if let Some(place) = self.marks.get_mut(index as usize) {
            *place = rule;
        }
    }

    fn table_words(&self) -> usize {
        self.tables.len()
    }

    fn write_table(&mut self, first: u32, words: &[u32]) {
        for (place, word) in self.tables.iter_mut().skip(first as usize).zip(words) {
            *place = *word;
        }
    }

    fn link(&mut self, service: &ServiceHash, slot: u32) -> Result<(), DatapathError> {
        self.services.insert(*service, slot);
        Ok(())
    }

    fn unlink(&mut self, service: &ServiceHash) {
        self.services.remove(service);
    }

    fn linked(&self) -> Vec<ServiceHash> {
        self.services.keys().copied().collect()
    }

    fn link_real_server(&mut self, at: &ServiceHash, dest: u32) -> Result<(), DatapathError> {
        self.real_servers.insert(*at, dest);
        Ok(())
    }

    fn unlink_real_server(&mut self, at: &ServiceHash) {
        self.real_servers.remove(at);
    }

    fn real_servers(&self) -> Vec<ServiceHash> {
        self.real_servers.keys().copied().collect()
    }

    fn counters(&self, dest: u32) -> impl Iterator<Item = &DestStats> {
        self.stats.get(dest as usize).into_iter()
    }

    fn store(&self, cell: &Cell<u32>, value: u32) {
        cell.set(value);
    }

    fn grace_period(&self) {
        // No packet is being processed while anything else is done.
    }

    fn now(&self) -> Tick {
        self.now.get()
    }
}
