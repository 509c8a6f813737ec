//! A data path that moves no packets: a table. The tests of `ipvsadm` use it as well.

use rvs_core::control::{Change, ConnRow, Datapath, DatapathError, DestStatus, Stats};
use rvs_core::types::{
    DestConfig, DestKey, ForwardMethod, Protocol, ServiceConfig, ServiceKey, Timeouts,
};

/// The table.
#[derive(Default)]
pub struct Memory {
    services: Vec<(ServiceKey, ServiceConfig, Vec<DestConfig>)>,
    timeouts: Timeouts,
    conns: u16,
}

impl Memory {
    /// A table with this many connections, from the ports 1, 2, 3 and so on.
    #[allow(dead_code, reason = "not every test that shares this file needs connections")]
    pub fn with_conns(conns: u16) -> Self {
        Self { conns, ..Self::default() }
    }
}

impl Datapath for Memory {
    fn put_service(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        _: Change,
    ) -> Result<(), DatapathError> {
        let entry = (*key, *config, dests.to_vec());
        match self.services.iter_mut().find(|(k, ..)| k == key) {
            Some(place) => *place = entry,
            None => self.services.push(entry),
        }
        Ok(())
    }

    fn remove_service(&mut self, key: &ServiceKey) -> bool {
        let before = self.services.len();
        self.services.retain(|(k, ..)| k != key);
        self.services.len() < before
    }

    fn for_each_service(&self, f: &mut dyn FnMut(&ServiceKey, &ServiceConfig, &[DestConfig])) {
        for (key, config, dests) in &self.services {
            f(key, config, dests);
        }
    }

    fn service_stats(&self, _: &ServiceKey) -> Stats {
        Stats::default()
    }

    fn dest_status(&self, _: &ServiceKey, _: &DestKey) -> DestStatus {
        DestStatus::default()
    }

    fn zero(&mut self, _: &ServiceKey) {}

    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), DatapathError> {
        self.timeouts = timeouts;
        Ok(())
    }

    fn conn_capacity(&self) -> u32 {
        4096
    }

    fn for_each_conn(&self, f: &mut dyn FnMut(&ConnRow) -> bool) {
        let row = |client_port| ConnRow {
            protocol: 6,
            client: [10, 0, 0, 2].into(),
            client_port,
            virtual_addr: [10, 9, 1, 1].into(),
            virtual_port: 80,
            dest: [10, 1, 0, 11].into(),
            dest_port: 80,
            forward: ForwardMethod::Masquerade,
            state: "ESTABLISHED",
            expires: 900,
            template: false,
        };
        let _ = (1..=self.conns).map(row).all(|row| f(&row));
    }

    fn supports(&self, _: Protocol) -> bool {
        true
    }

    fn has_engine(&self, name: &str) -> bool {
        name == "sip"
    }
}
