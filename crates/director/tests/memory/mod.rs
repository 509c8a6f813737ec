//! A data path that moves no packets: a table. The tests of `ipvsadm` use it as well.

use std::hash::{DefaultHasher, Hash, Hasher};

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
    rounds: u64,
}

impl Memory {
    /// A table with this many connections, from the ports 1, 2, 3 and so on.
    #[allow(dead_code, reason = "not every test that shares this file needs connections")]
    pub fn with_conns(conns: u16) -> Self {
        Self { conns, ..Self::default() }
    }

    /// Lets traffic pass: counters of all sizes grow.
    #[allow(dead_code, reason = "not every test that shares this file needs counters")]
    pub fn count(&mut self) {
        self.rounds += 1;
    }

    /// Counters of at most so many bits, with any number of digits, by what they are of.
    fn counted(&self, subject: impl Hash, bits: u32) -> Stats {
        let number = |which: u8| {
            let mut hasher = DefaultHasher::new();
            (&subject, which).hash(&mut hasher);
            let random = hasher.finish() >> (64 - bits);
            (random >> (random % u64::from(bits))).wrapping_mul(self.rounds)
        };
        Stats {
            conns: number(0),
            in_pkts: number(1),
            out_pkts: number(2),
            in_bytes: number(3),
            out_bytes: number(4),
        }
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

    fn service_stats(&self, key: &ServiceKey) -> Stats {
        self.counted(key, 64)
    }

    fn dest_status(&self, key: &ServiceKey, dest: &DestKey) -> DestStatus {
        // ipvsadm 1.31 shows no more than 32 bits of a destination's counters.
        let stats = self.counted((key, dest), 27);
        let [active_conns, inactive_conns, persist_conns] =
            [stats.in_pkts, stats.out_pkts, stats.in_bytes].map(|number| number as u32);
        DestStatus { active_conns, inactive_conns, persist_conns, stats }
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
            engine: None,
        };
        let _ = (1..=self.conns).map(row).all(|row| f(&row));
    }

    fn supports(&self, _: Protocol) -> bool {
        true
    }
}
