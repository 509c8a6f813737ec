//! After a restart: the configuration as the pinned maps have it.

use std::collections::HashMap;
use std::collections::HashSet;

use rvs_core::addr::from_words;
use rvs_core::layout::{Dest, Row, Slot, TRASHED};
use rvs_core::sched;
use rvs_core::types::{
    DestConfig, DestKey, Engine, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig,
    ServiceFlags, ServiceKey,
};

use super::{Placed, Service, Services};
use crate::extents::Extents;
use crate::memory::{Memory, ServiceHash};

impl<M: Memory> Services<M> {
    /// Takes over whatever the maps hold. What a killed rvsd left half done is put in order: a
    /// service that no packet could reach yet or any more, destinations that no service lists.
    pub fn adopt(maps: M) -> Self {
        let mut datapath = Self::view(maps);
        datapath.adopt_trash();
        datapath.adopt_hash();
        datapath.adopt_uses();
        datapath.update_gate();
        datapath.rebuild_real_servers();
        datapath
    }

    /// What the maps hold, to look at while an rvsd serves them: changes nothing.
    pub fn view(maps: M) -> Self {
        let end = |len: usize| len as u32;
        let mut datapath = Self {
            slots: Extents::new(1, end(maps.slots().len())),
            versions: Extents::new(1, end(maps.versions().len())),
            rows: Extents::new(0, end(maps.row_count())),
            tables: Extents::new(0, end(maps.table_words())),
            dests: Extents::new(1, end(maps.dests().len())),
            maps,
            services: Vec::new(),
            by_key: HashMap::new(),
            ghosts: HashMap::new(),
            trash: Vec::new(),
            retired: Vec::new(),
            sequence: 0,
            real_servers: HashMap::new(),
            uses: HashMap::new(),
            new: Vec::new(),
            changed: Vec::new(),
            marks_changed: true,
            available: u64::MAX,
            tracking: Default::default(),
        };
        datapath.adopt_services();
        datapath
    }

    fn adopt_services(&mut self) {
        let mut found = Vec::new();
        for (index, slot) in self.maps.slots().iter().enumerate().skip(1) {
            let Some(key) = service_key(slot).filter(|_| slot.sequence.get() != 0) else {
                continue;
            };
            self.sequence = self.sequence.max(slot.sequence.get());
            found.push((slot.sequence.get(), index as u32, slot.version.get(), key));
        }
        found.sort_unstable_by_key(|(sequence, ..)| *sequence);
        for (_, slot, version, key) in found {
            self.slots.reserve(slot, 1);
            match self.adopt_version(slot, version, key) {
                Some(service) => {
                    self.by_key.insert(key, self.services.len());
                    self.services.push(service);
                }
                None => {
                    self.ghosts.insert(key, slot);
                }
            }
        }
    }

    /// The service in `slot`; `None` if it was deleted.
    fn adopt_version(&mut self, slot: u32, index: u32, key: ServiceKey) -> Option<Service> {
        let version = self.maps.versions().get(index as usize).filter(|_| index != 0)?;
        let scheduler = Scheduler::from_number(version.scheduler.get())?;
        let config = ServiceConfig {
            scheduler,
            flags: ServiceFlags::from_bits_truncate(version.flags.get()),
            timeout: version.timeout.get(),
            netmask: version.netmask.get(),
            engine: Engine::from_number(version.engine.get()),
        };
        let (first, count) = (version.first_row.get(), version.rows.get());
        let rows = (first..).take(count as usize).map_while(|index| self.maps.row(index));
        let dests = rows.filter_map(|row| placed(&self.maps, row)).collect();
        self.versions.reserve(index, 1);
        self.rows.reserve(first, count);
        self.tables.reserve(version.table.get(), sched::table_len(scheduler));
        Some(Service { key, config, slot, version: index, dests })
    }

    fn adopt_trash(&mut self) {
        let listed: HashSet<u32> =
            self.services.iter().flat_map(|s| s.dests.iter().map(|d| d.index)).collect();
        for (index, dest) in self.maps.dests().iter().enumerate().skip(1) {
            let index = index as u32;
            let Some(key) = dest_key(dest) else { continue };
            self.dests.reserve(index, 1);
            if !listed.contains(&index) {
                dest.trash.set(dest.trash.get().max(TRASHED));
                self.trash.push(self.new_trash(dest.slot.get(), key, index));
            }
        }
    }

    /// Makes the hashes that packets are looked up in say what the slots say.
    fn adopt_hash(&mut self) {
        let services: Vec<(ServiceKey, u32)> =
            self.services.iter().map(|s| (s.key, s.slot)).collect();
        for (key, slot) in &services {
            // The hash has as many places as there are slots.
            let _ = self.link(key, *slot);
        }
        let ours: HashSet<ServiceHash> =
            services.iter().map(|(key, _)| ServiceHash::of(key)).collect();
        for stale in self.maps.linked().iter().filter(|linked| !ours.contains(linked)) {
            self.maps.unlink(stale);
        }
    }
}

fn family(number: u32) -> Option<Family> {
    match number {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}

fn service_key(slot: &Slot) -> Option<ServiceKey> {
    let family = family(slot.family.get())?;
    let protocol = slot.protocol.get() as u8;
    if protocol == 0 {
        return Some(ServiceKey::Fwmark { family, mark: slot.addr.get()[0] });
    }
    Some(ServiceKey::Address {
        protocol: Protocol::from_number(protocol)?,
        addr: from_words(family, slot.addr.get()),
        port: slot.port.get() as u16,
    })
}

pub(super) fn dest_key(dest: &Dest) -> Option<DestKey> {
    let family = family(dest.family.get())?;
    let port = u16::from_be(dest.port_be.get() as u16);
    Some(DestKey { addr: from_words(family, dest.addr.get()), port })
}

fn placed<M: Memory>(maps: &M, row: Row) -> Option<Placed> {
    let dest = maps.dests().get(row.dest as usize)?;
    let config = DestConfig {
        key: dest_key(dest)?,
        forward: ForwardMethod::from_number(row.forward)?,
        weight: row.weight,
        upper_threshold: dest.upper.get(),
        lower_threshold: dest.lower.get(),
        tunnel_type: row.tunnel_type,
        tunnel_port: row.tunnel_port,
        tunnel_flags: row.tunnel_flags,
    };
    Some(Placed { config, index: row.dest })
}
