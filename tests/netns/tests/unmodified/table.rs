//! The table in memory, with connections in it.

use rvs_core::control::{Change, ConnRow, Datapath, DatapathError, DestStatus, Stats};
use rvs_core::types::{DestConfig, DestKey, Protocol, ServiceConfig, ServiceKey, Timeouts};

use crate::memory::Memory;

/// A [`Memory`] that also lists connections.
#[derive(Default)]
pub struct Table {
    memory: Memory,
    conns: Vec<ConnRow>,
}

impl Table {
    /// A table without services, with these connections.
    pub fn new(conns: Vec<ConnRow>) -> Self {
        Self { conns, ..Self::default() }
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
        self.memory.put_service(key, config, dests, change)
    }

    fn remove_service(&mut self, key: &ServiceKey) -> bool {
        self.memory.remove_service(key)
    }

    fn for_each_service(&self, f: &mut dyn FnMut(&ServiceKey, &ServiceConfig, &[DestConfig])) {
        self.memory.for_each_service(f);
    }

    fn service_stats(&self, key: &ServiceKey) -> Stats {
        self.memory.service_stats(key)
    }

    fn dest_status(&self, key: &ServiceKey, dest: &DestKey) -> DestStatus {
        self.memory.dest_status(key, dest)
    }

    fn zero(&mut self, key: &ServiceKey) {
        self.memory.zero(key);
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

    fn supports(&self, protocol: Protocol) -> bool {
        self.memory.supports(protocol)
    }
}
