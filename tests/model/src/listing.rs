//! What `ipvsadm -L` and its kin show.

use std::net::SocketAddr;

use rvs_core::control::{DestStatus, Stats};
use rvs_core::types::{DestConfig, DestKey, ForwardMethod, Protocol, ServiceConfig, ServiceKey};

use crate::{Jiffies, Model};

/// A connection or template, as a row of `ipvsadm -Lnc` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Protocol number; 0 of a template of a service by mark.
    pub protocol: u8,
    /// The client; port 0 in a template.
    pub client: SocketAddr,
    /// The virtual address.
    pub virt: SocketAddr,
    /// The destination.
    pub dest: SocketAddr,
    /// How packets get to it.
    pub forward: ForwardMethod,
    /// State.
    pub state: &'static str,
    /// Seconds left.
    pub expires: u32,
    /// Whether it is a template.
    pub template: bool,
}

/// Whole seconds until `deadline`.
fn seconds(deadline: Jiffies, now: Jiffies) -> u32 {
    (((deadline - now) << 27) / 1_000_000_000) as u32
}

impl Model {
    /// All connections and templates.
    pub fn rows(&self) -> Vec<Row> {
        let conns = self.conns.values().map(|conn| Row {
            protocol: conn.protocol as u8,
            client: conn.client,
            virt: conn.virt,
            dest: conn.target,
            forward: conn.forward,
            state: conn.state.name(),
            expires: seconds(conn.deadline, self.now),
            template: false,
        });
        let templates = self.templates.values().map(|template| Row {
            protocol: template.protocol.map_or(0, |protocol: Protocol| protocol as u8),
            client: SocketAddr::new(template.client, 0),
            virt: template.virt,
            dest: SocketAddr::new(self.dest(template.dest).config.key.addr, template.port),
            forward: template.forward,
            state: if template.assured { "ASSURED" } else { "NONE" },
            expires: seconds(template.deadline, self.now),
            template: true,
        });
        conns.chain(templates).collect()
    }

    /// The services in force and their destinations, the one added last first.
    pub fn services(&self) -> impl Iterator<Item = (ServiceKey, ServiceConfig, Vec<DestConfig>)> {
        self.services.iter().map(|service| {
            let dests = service.dests.iter().map(|id| self.dest(*id).config).collect();
            (service.key, service.config, dests)
        })
    }

    /// What a service has counted.
    pub fn service_stats(&self, key: &ServiceKey) -> Stats {
        self.service(key).expect("a known service").stats
    }

    /// What a destination has, and has counted.
    pub fn dest_status(&self, key: &ServiceKey, dest: &DestKey) -> DestStatus {
        let id = self.dest_of(key, dest).expect("a known destination");
        let [active_conns, inactive_conns, persist_conns] = self.counts(id).map(|n| n as u32);
        let stats = self.dest(id).stats;
        DestStatus { active_conns, inactive_conns, persist_conns, stats }
    }

    /// What everything has counted.
    pub fn total_stats(&self) -> Stats {
        self.total
    }
}
