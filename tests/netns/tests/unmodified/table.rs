//! The table in memory, with connections and counters in it.

use std::collections::HashSet;

use rvs_core::control::{Change, ConnRow, Datapath, DatapathError, DestStatus, Stats};
use rvs_core::types::{DestConfig, DestKey, ServiceConfig, ServiceKey, Timeouts};

use crate::memory::Memory;

/// A [`Memory`] that also lists connections, and whose services have counted.
#[derive(Default)]
pub struct Table {
    memory: Memory,
    conns: Vec<ConnRow>,
    counted: Stats,
    zeroed: HashSet<ServiceKey>,
    /// How many services there have been, and how many of them before all was zeroed.
    services: (u64, u64),
}

impl Table {
    /// What so many services count.
    fn times(&self, services: u64) -> Stats {
        let Stats { conns, in_pkts, out_pkts, in_bytes, out_bytes } = self.counted;
        Stats {
            conns: conns * services,
            in_pkts: in_pkts * services,
            out_pkts: out_pkts * services,
            in_bytes: in_bytes * services,
            out_bytes: out_bytes * services,
        }
    }
}

impl Table {
    /// A table without services; what connections it has, and what every service counted before it is
    /// zeroed.
    pub fn new(conns: Vec<ConnRow>, counted: Stats) -> Self {
        Self { conns, counted, ..Self::default() }
    }
}

impl Datapath for Table {
    fn put_service(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) -> Result<(), DatapathError> {
        let mut known = false;
        self.memory.for_each_service(&mut |other, _, _| known |= other == key);
        self.services.0 += u64::from(!known);
        self.memory.put_service(key, config, dests, change)
    }

    fn remove_service(&mut self, key: &ServiceKey) -> bool {
        self.memory.remove_service(key)
    }

    fn for_each_service(&self, f: &mut dyn FnMut(&ServiceKey, &ServiceConfig, &[DestConfig])) {
        self.memory.for_each_service(f);
    }

    fn service_stats(&self, key: &ServiceKey) -> Stats {
        if self.zeroed.contains(key) { Stats::default() } else { self.counted }
    }

    fn dest_status(&self, key: &ServiceKey, dest: &DestKey) -> DestStatus {
        self.memory.dest_status(key, dest)
    }

    /// All on one CPU, as with the recorded kernel.
    fn everything(&self, f: &mut dyn FnMut(&Stats)) -> Stats {
        f(&self.times(self.services.0));
        self.times(self.services.0 - self.services.1)
    }

    fn zero_everything(&mut self) {
        self.services.1 = self.services.0;
    }

    fn zero(&mut self, key: &ServiceKey) {
        self.zeroed.insert(*key);
    }

    fn timeouts(&self) -> Timeouts {
        self.memory.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), DatapathError> {
        self.memory.set_timeouts(timeouts)
    }

    fn conn_capacity(&self) -> u32 {
        self.memory.conn_capacity()
    }

    fn for_each_conn(&self, f: &mut dyn FnMut(&ConnRow) -> bool) {
        let _ = self.conns.iter().all(f);
    }
}
