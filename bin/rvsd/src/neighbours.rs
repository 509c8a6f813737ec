//! The way to each destination: its tunnel's source address, its MTU, and its next hop's MAC
//! address kept resolved, so that the first packet after an idle hour is not the one that asks for
//! it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use rvs_datapath::BpfDatapath;
use rvs_host::{Hop, Host, HostError};

/// Next hops that the kernel keeps resolved for us.
#[derive(Default)]
pub struct Neighbours {
    managed: HashSet<(u32, IpAddr)>,
    /// Interfaces on which nothing is resolved.
    no_arp: HashSet<u32>,
    ways: HashMap<IpAddr, Option<Hop>>,
    /// Destinations without a way, so that it is said once.
    unreachable: HashSet<IpAddr>,
    /// Whether a new destination has no way yet.
    incomplete: bool,
    refused: bool,
}

impl Neighbours {
    /// Finds the way to destinations that are new.
    pub fn enter(&mut self, host: &mut Host, datapath: &mut BpfDatapath) -> Result<(), HostError> {
        let mut refused = Ok(());
        for (index, addr) in datapath.take_new() {
            // A way that was missed may be there by now; one that was found is looked up again when
            // routes change.
            if !self.has_way(addr) {
                self.ways.remove(&addr);
            }
            match self.way(host, datapath, index, addr) {
                Ok(hop) => hop.into_iter().for_each(|hop| self.keep(host, hop)),
                // The others are not to suffer for it.
                Err(error) => refused = Err(error),
            }
            self.incomplete |= !self.has_way(addr);
        }
        refused
    }

    /// Whether a way to `addr` was found.
    fn has_way(&self, addr: IpAddr) -> bool {
        matches!(self.ways.get(&addr), Some(Some(_)))
    }

    /// Whether a new destination has no way yet, since this was asked last: it is time to
    /// [`refresh`](Self::refresh).
    pub fn is_incomplete(&mut self) -> bool {
        std::mem::take(&mut self.incomplete)
    }

    /// Looks up the way to every destination anew and manages exactly their next hops.
    pub fn refresh(&mut self, host: &mut Host, datapath: &BpfDatapath) -> Result<(), HostError> {
        let links = host.interfaces()?;
        self.no_arp = links.iter().filter(|i| i.no_arp || i.loopback).map(|i| i.index).collect();
        self.ways.clear();
        let mut wanted = HashSet::new();
        for (index, dest) in datapath.destinations() {
            wanted.extend(self.way(host, datapath, index, dest.key.addr)?);
        }
        let managed = std::mem::take(&mut self.managed);
        for (ifindex, addr) in managed.difference(&wanted) {
            // The entry may be gone with its interface.
            let _ = host.release_neighbour(*ifindex, *addr);
        }
        // Entered again even if it is ours: whoever flushes neighbours takes ours along.
        for hop in wanted {
            self.keep(host, hop);
        }
        Ok(())
    }

    /// The next hop to `addr`, if it is one to resolve. Tells the data path the source address and
    /// the MTU of the route.
    fn way(
        &mut self,
        host: &mut Host,
        datapath: &BpfDatapath,
        index: u32,
        addr: IpAddr,
    ) -> Result<Option<(u32, IpAddr)>, HostError> {
        let hop = match self.ways.get(&addr) {
            Some(hop) => *hop,
            None => *self.ways.entry(addr).or_insert(host.route(addr)?),
        };
        let Some(hop) = hop else {
            if self.unreachable.insert(addr) {
                tracing::warn!(destination = %addr, "there is no route");
            }
            return Ok(None);
        };
        self.unreachable.remove(&addr);
        if let Some(source) = hop.source {
            datapath.set_source(index, source);
        }
        datapath.set_mtu(index, hop.mtu);
        let resolvable = !hop.local && !self.no_arp.contains(&hop.ifindex);
        Ok(resolvable.then_some((hop.ifindex, hop.next_hop)))
    }

    fn keep(&mut self, host: &mut Host, (ifindex, addr): (u32, IpAddr)) {
        if !self.managed.contains(&(ifindex, addr)) && self.manage(host, ifindex, addr) {
            self.managed.insert((ifindex, addr));
        }
    }

    fn manage(&mut self, host: &mut Host, ifindex: u32, addr: IpAddr) -> bool {
        if host.is_permanent(ifindex, addr) {
            return false;
        }
        match host.manage_neighbour(ifindex, addr) {
            Ok(()) => true,
            Err(error) => {
                if !self.refused {
                    self.refused = true;
                    tracing::warn!(
                        "{error}: neighbours are resolved when traffic needs them (Linux 5.16 can \
                         keep them resolved)"
                    );
                }
                false
            }
        }
    }
}
