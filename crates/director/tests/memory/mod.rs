//! A data path that moves no packets: a table. The tests of `ipvsadm` use it as well.

use rvs_director::{Daemons, SyncDaemon};
use rvs_netlink::ipvs::Role;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use rvs_core::control::{Change, ConnRow, Datapath, DatapathError, DestStatus, Stats};
use rvs_core::types::{DestConfig, DestKey, ForwardMethod, ServiceConfig, ServiceKey, Timeouts};

/// Network is unreachable.
#[allow(dead_code, reason = "not every test that shares this file needs interfaces")]
const ENETUNREACH: i32 = 101;

/// A machine's interfaces, their MTU and whether they are up; sync daemons on them do nothing.
#[derive(Clone)]
#[allow(dead_code, reason = "not every test that shares this file needs interfaces")]
pub struct Links(pub Arc<Mutex<Vec<(String, u32, bool)>>>);

#[allow(dead_code, reason = "not every test that shares this file needs interfaces")]
impl Links {
    /// A new namespace's: only the loopback.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![("lo".into(), 65_536, true)])))
    }

    fn find(&self, name: &str) -> Option<(u32, bool)> {
        let links = self.0.lock().expect("no panic while locked");
        links.iter().find(|(known, ..)| known == name).map(|(_, mtu, up)| (*mtu, *up))
    }
}

impl Daemons for Links {
    fn mtu(&mut self, interface: &str) -> Option<u32> {
        self.find(interface).map(|(mtu, _)| mtu)
    }

    fn start(&mut self, daemon: &SyncDaemon, _: Option<usize>) -> Result<(), i32> {
        // As connect(2) says it: no way out of a link that is down, none for IPv6 on the loopback.
        let up = self.find(&daemon.interface).is_some_and(|(_, up)| up);
        let leads = up && (daemon.interface != "lo" || daemon.group.is_ipv4());
        if daemon.role == Role::Master && !leads { Err(ENETUNREACH) } else { Ok(()) }
    }

    fn stop(&mut self, _: Role) {}
}

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

    fn everything(&self, f: &mut dyn FnMut(&Stats)) -> Stats {
        f(&Stats::default());
        Stats::default()
    }

    fn zero_everything(&mut self) {}

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
            synced: false,
        };
        let _ = (1..=self.conns).map(row).all(|row| f(&row));
    }
}
