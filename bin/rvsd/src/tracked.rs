//! Connections that netfilter tracks (`conntrack`): its table says where the programs send them, and
//! what it knows of a connection ends with it.

use std::collections::{HashMap, HashSet};

use rvs_core::tracked::{KEEPS_PORT, PRIORITY};
use rvs_core::types::{DestKey, ServiceKey};
use rvs_host::{HostError, Netfilter, Target, Virtual};
use rvs_tables::Translator;
use rvs_tables::sweeper::Tracked;

/// The destinations as netfilter's table has them.
#[derive(Default)]
pub struct Table {
    netfilter: Option<Netfilter>,
    dests: HashMap<u32, DestKey>,
    services: HashSet<Virtual>,
    /// Whether a change failed, so that the table is to be made anew.
    stale: bool,
}

/// What is to be done with packets to the destination in this place: those to its port, and those that
/// keep another.
fn targets(index: u32, dest: DestKey) -> impl Iterator<Item = Target> {
    let own = Target { priority: PRIORITY | index, addr: dest.addr, port: dest.port };
    let keeps = Target { priority: PRIORITY | KEEPS_PORT | index, addr: dest.addr, port: 0 };
    Some(own).filter(|_| dest.port != 0).into_iter().chain([keeps])
}

/// What clients send a service's packets to, if it has an address.
fn address(key: &ServiceKey) -> Option<Virtual> {
    match *key {
        ServiceKey::Address { protocol, addr, port } => {
            Some(Virtual { protocol: protocol as u8, addr, port })
        }
        ServiceKey::Fwmark { .. } => None,
    }
}

impl Table {
    fn make(&mut self) -> Result<(), HostError> {
        let all = self.dests.iter().flat_map(|(index, dest)| targets(*index, *dest));
        let all: Vec<Target> = all.collect();
        let services: Vec<Virtual> = self.services.iter().copied().collect();
        let netfilter = match &mut self.netfilter {
            Some(netfilter) => netfilter,
            none => none.insert(Netfilter::open()?),
        };
        netfilter.probe()?;
        netfilter.make_table(&all, &services)
    }

    fn change(&mut self, change: impl FnOnce(&mut Netfilter) -> Result<(), HostError>) {
        let Some(netfilter) = &mut self.netfilter else { return };
        if let Err(error) = change(netfilter) {
            tracing::warn!("{error}; the table is made anew");
            self.repair();
        }
    }

    fn repair(&mut self) {
        self.stale = match self.make() {
            Ok(()) => false,
            Err(error) => {
                tracing::error!("tracked connections get nowhere: {error}");
                true
            }
        };
    }
}

impl Translator for Table {
    fn start(&mut self, dests: Vec<(u32, DestKey)>, services: Vec<ServiceKey>) -> Result<(), i32> {
        self.dests = dests.into_iter().collect();
        self.services = services.iter().filter_map(address).collect();
        self.stale = false;
        self.make().map_err(|error| {
            tracing::debug!("{error}");
            error.errno()
        })
    }

    fn enter(&mut self, index: u32, dest: DestKey) {
        self.dests.insert(index, dest);
        let new: Vec<Target> = targets(index, dest).collect();
        self.change(|netfilter| netfilter.add_targets(&new));
    }

    fn leave(&mut self, index: u32) {
        let Some(dest) = self.dests.remove(&index) else { return };
        let gone: Vec<Target> = targets(index, dest).collect();
        self.change(|netfilter| netfilter.remove_targets(&gone));
    }

    fn enter_service(&mut self, key: &ServiceKey) {
        if let Some(service) = address(key).filter(|service| self.services.insert(*service)) {
            self.change(|netfilter| netfilter.add_services(&[service]));
        }
    }

    fn leave_service(&mut self, key: &ServiceKey) {
        if let Some(service) = address(key).filter(|service| self.services.remove(service)) {
            self.change(|netfilter| netfilter.remove_services(&[service]));
        }
    }

    fn check(&mut self) {
        let whole = self.netfilter.as_mut().map(Netfilter::has_table);
        if !self.stale && matches!(whole, Some(Ok(true))) {
            return;
        }
        tracing::warn!("somebody removed netfilter's table `{}`; it is made anew", rvs_host::TABLE);
        self.repair();
    }

    fn stop(&mut self) {
        self.change(Netfilter::remove_table);
        *self = Self::default();
    }
}

/// Has netfilter forget connections that ended.
#[derive(Default)]
pub struct Forgetting(Option<Netfilter>);

impl Forgetting {
    /// Forgets these. What fails is tried again with no other: a packet of the same addresses that goes
    /// elsewhere is dropped by the table until the kernel forgets by itself.
    pub fn forget(&mut self, ended: &[Tracked]) {
        if let Err(error) = ended.iter().try_for_each(|ended| self.forget_one(ended)) {
            tracing::warn!("{error}");
        }
    }

    fn forget_one(&mut self, ended: &Tracked) -> Result<(), HostError> {
        let netfilter = match &mut self.0 {
            Some(netfilter) => netfilter,
            none => none.insert(Netfilter::open()?),
        };
        let Tracked { protocol, client, virtual_addr, dest } = *ended;
        netfilter.forget(&rvs_host::Tracked { protocol, client, virtual_addr }, dest).map(drop)
    }
}
