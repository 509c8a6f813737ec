//! What persistence engines need of the configuration: the real servers whose own packets they
//! translate (`ip_vs_rs_hash`, `ip_vs_find_real_service`).

use std::collections::HashMap;

use rvs_core::addr::{Addr, V4, V6, words};
use rvs_core::layout::ServiceAddr;
use rvs_core::types::{DestKey, Family, ForwardMethod, Protocol, ServiceKey};

use super::Services;
use crate::memory::{Memory, ServiceHash};

/// Where the hash has a real server of a UDP service.
fn place(dest: &DestKey) -> ServiceHash {
    let (addr, port_be, protocol) = (words(dest.addr), dest.port.to_be(), Protocol::Udp as u8);
    match Family::of(dest.addr) {
        Family::V4 => ServiceHash::V4(ServiceAddr::new(V4::from_words(addr), port_be, protocol)),
        Family::V6 => ServiceHash::V6(ServiceAddr::new(V6::from_words(addr), port_be, protocol)),
    }
}

impl<M: Memory> Services<M> {
    /// Takes over what the hash holds and puts it in order.
    pub(super) fn adopt_real_servers(&mut self) {
        self.real_servers = self.maps.real_servers().into_iter().map(|at| (at, None)).collect();
        self.update_real_servers();
    }

    /// Brings the hash up to date: masqueraded destinations of UDP services that have an engine and
    /// a port of their own. Of services that share a real server, the one added last has it.
    pub(super) fn update_real_servers(&mut self) {
        let mut wanted = HashMap::new();
        for service in self.services.iter().filter(|service| service.config.engine.is_some()) {
            let ServiceKey::Address { protocol: Protocol::Udp, port: 1.., .. } = service.key else {
                continue;
            };
            let masqueraded = |p: &&super::Placed| p.config.forward == ForwardMethod::Masquerade;
            for placed in service.dests.iter().rev().filter(masqueraded) {
                wanted.insert(place(&placed.config.key), Some(placed.index));
            }
        }
        let gone = self.real_servers.keys().filter(|at| !wanted.contains_key(at));
        for at in gone {
            self.maps.unlink_real_server(at);
        }
        for (at, dest) in &wanted {
            if self.real_servers.get(at) != Some(dest)
                && let Some(dest) = dest
            {
                // The hash has as many places as there are destinations.
                let _ = self.maps.link_real_server(at, *dest);
            }
        }
        self.real_servers = wanted;
    }
}
