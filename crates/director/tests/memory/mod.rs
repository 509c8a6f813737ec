//! A data path that moves no packets: a table. The tests of `ipvsadm` use it as well.

use rvs_core::control::{Change, ConnRow, Datapath, DatapathError, DestStatus, Stats};
use rvs_core::types::{DestConfig, DestKey, Protocol, ServiceConfig, ServiceKey, Timeouts};

/// The table.
#[derive(Default)]
pub struct Memory {
    services: Vec<(ServiceKey, ServiceConfig, Vec<DestConfig>)>,
    timeouts: Timeouts,
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

    fn for_each_conn(&self, _: &mut dyn FnMut(&ConnRow) -> bool) {}

    fn supports(&self, _: Protocol) -> bool {
        true
    }

    fn has_engine(&self, name: &str) -> bool {
        name == "sip"
    }
}
