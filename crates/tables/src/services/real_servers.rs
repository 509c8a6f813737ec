//! The hash of real servers, by which their own packets are known: for persistence engines, which
//! translate them, and for `nat_icmp_send`, which answers those of no connection (`ip_vs_rs_hash`).

use rvs_core::addr::{Addr, V4, V6, words};
use rvs_core::layout::{REAL_SERVER_ENGINE, ServiceAddr};
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{DestKey, Family, ForwardMethod, Protocol, ServiceConfig, ServiceKey};

use super::{Placed, Services};
use crate::memory::{Memory, ServiceHash};

/// A place in the hash, and the value there.
pub(super) type Entry = (ServiceHash, u32);

/// Where the hash has a real server of a service of this protocol; 0 if it is by mark.
fn place(dest: &DestKey, protocol: u8) -> ServiceHash {
    let (addr, port_be) = (words(dest.addr), dest.port.to_be());
    match Family::of(dest.addr) {
        Family::V4 => ServiceHash::V4(ServiceAddr::new(V4::from_words(addr), port_be, protocol)),
        Family::V6 => ServiceHash::V6(ServiceAddr::new(V6::from_words(addr), port_be, protocol)),
    }
}

impl<M: Memory> Services<M> {
    /// What a service has in the hash: its masqueraded destinations, if it has an engine that
    /// translates their packets, or all services' are asked for.
    pub(super) fn entries(
        &self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[Placed],
    ) -> Vec<Entry> {
        let (protocol, has_engine) = match *key {
            ServiceKey::Address { protocol, port, .. } => {
                let translated = protocol == Protocol::Udp && port != 0;
                (protocol as u8, translated && config.engine.is_some())
            }
            ServiceKey::Fwmark { .. } => (0, false),
        };
        if !has_engine && self.maps.config().sysctl(Sysctl::NatIcmpSend) == 0 {
            return Vec::new();
        }
        let bit = if has_engine { REAL_SERVER_ENGINE } else { 0 };
        // The one added last comes first in the service.
        let dests = dests.iter().rev();
        let masqueraded = dests.filter(|dest| dest.config.forward == ForwardMethod::Masquerade);
        masqueraded.map(|dest| (place(&dest.config.key, protocol), dest.index | bit)).collect()
    }

    /// Enters what all services have there now, and nothing else: after a restart, and when the setting
    /// changed.
    pub(super) fn rebuild_real_servers(&mut self) {
        let of =
            |service: &super::Service| self.entries(&service.key, &service.config, &service.dests);
        let entries: Vec<Entry> = self.services.iter().flat_map(of).collect();
        self.real_servers.clear();
        self.replace_real_servers(&[], &entries);
        for at in self.maps.real_servers() {
            if !self.real_servers.contains_key(&at) {
                self.maps.unlink_real_server(&at);
            }
        }
    }

    /// Brings the hash up to date once a service has `new` in place of `old`. What both begin or end
    /// with stays as it is: a restore adds one after the other.
    pub(super) fn replace_real_servers(&mut self, old: &[Entry], new: &[Entry]) {
        let same = |(a, b): &(&Entry, &Entry)| a == b;
        let first = old.iter().zip(new).take_while(same).count();
        let (old, new) = (&old[first..], &new[first..]);
        let last = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
        let (old, new) = (&old[..old.len() - last], &new[..new.len() - last]);
        for (at, value) in old {
            let Some(values) = self.real_servers.get_mut(at) else { continue };
            if let Some(position) = values.iter().rposition(|held| held == value) {
                values.remove(position);
            }
        }
        for (at, value) in new {
            self.real_servers.entry(*at).or_default().push(*value);
        }
        for (at, _) in old.iter().chain(new) {
            self.settle_real_server(at);
        }
    }

    /// Of services that share a real server, the one added last has it, one with an engine before the others.
    fn settle_real_server(&mut self, at: &ServiceHash) {
        let Some(values) = self.real_servers.get(at) else { return };
        let engine = values.iter().rfind(|value| **value & REAL_SERVER_ENGINE != 0);
        match engine.or(values.last()) {
            // The hash has as many places as there are destinations.
            Some(value) => drop(self.maps.link_real_server(at, *value)),
            None => {
                self.real_servers.remove(at);
                self.maps.unlink_real_server(at);
            }
        }
    }
}
