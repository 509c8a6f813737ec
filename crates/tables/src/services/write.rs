//! Changes: a new version of a service is written beside the one in force, then one word makes it
//! the one in force.

use std::net::IpAddr;

use rvs_core::addr::{Addr, V4, V6, words};
use rvs_core::control::{Change, DatapathError};
use rvs_core::dest;
use rvs_core::layout::{ENDING, Row, Slot, TRASHED};
use rvs_core::ours;
use rvs_core::sched::{self, dh, mh, rr, sh, wrr};
use rvs_core::sysctl::Sysctl;
use rvs_core::tunnel::Tunnel;
use rvs_core::types::{DestConfig, Family, Scheduler, ServiceConfig, ServiceFlags, ServiceKey};

use super::{Placed, Retired, Service, Services, Trash};
use crate::memory::{Memory, ServiceHash};

/// Places taken for a new version, given back if the change fails.
struct Taken {
    version: u32,
    first_row: u32,
    table: u32,
    new_dests: Vec<u32>,
    slot: Option<u32>,
}

impl<M: Memory> Services<M> {
    pub(super) fn put(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) -> Result<(), DatapathError> {
        let position = self.by_key.get(key).copied();
        let taken = match self.take(position, key, config, dests) {
            Ok(taken) => taken,
            // What was deleted just now may be all that is missing: a restore clears first.
            Err(_) => {
                self.forget();
                self.take(position, key, config, dests)?
            }
        };
        let slot = match (position.and_then(|p| self.services.get(p)), taken.slot) {
            (Some(service), _) => service.slot,
            (None, Some(slot)) => slot,
            (None, None) => return Err(DatapathError::Full("service")),
        };
        let placed = self.place(position, slot, dests, &taken);
        self.open_gate(key, dests);
        self.track_service(key, dests);
        self.write_version(key, &taken, position, config, &placed, change);
        let removed = self.replaced(position, &placed);
        let listed = position.and_then(|position| self.services.get(position));
        let before = listed.map(|s| self.entries(key, &s.config, &s.dests)).unwrap_or_default();
        let after = self.entries(key, config, &placed);
        self.begin_uses(key, config);
        match position {
            Some(position) => self.switch(position, config, &taken, placed),
            None => self.insert(key, config, slot, &taken, placed)?,
        }
        self.replace_real_servers(&before, &after);
        self.trash(slot, removed);
        Ok(())
    }

    /// Takes room for everything that the change needs, or nothing.
    fn take(
        &mut self,
        position: Option<usize>,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
    ) -> Result<Taken, DatapathError> {
        let known = |dest: &DestConfig| self.known(position, key, dest).is_some();
        let new = dests.iter().filter(|dest| !known(dest)).count();
        let table_len = sched::table_len(config.scheduler);
        let mut taken =
            Taken { version: 0, first_row: 0, table: 0, new_dests: Vec::new(), slot: None };
        let Some(version) = self.versions.take(1) else {
            return Err(DatapathError::Full("service version"));
        };
        taken.version = version;
        let Some(first_row) = self.rows.take(dests.len() as u32) else {
            self.versions.give(version, 1);
            return Err(DatapathError::Full("destination row"));
        };
        taken.first_row = first_row;
        let Some(table) = self.tables.take(table_len) else {
            self.rows.give(first_row, dests.len() as u32);
            self.versions.give(version, 1);
            return Err(DatapathError::Full("hash table"));
        };
        taken.table = table;
        let mut full = None;
        for _ in 0..new {
            match self.dests.take(1) {
                Some(index) => taken.new_dests.push(index),
                None => full = Some("destination"),
            }
        }
        if position.is_none() && full.is_none() {
            taken.slot = self.ghosts.remove(key).or_else(|| self.slots.take(1));
            if taken.slot.is_none() {
                full = Some("service");
            }
        }
        let Some(name) = full else { return Ok(taken) };
        for index in taken.new_dests {
            self.dests.give(index, 1);
        }
        self.tables.give(table, table_len);
        self.rows.give(first_row, dests.len() as u32);
        self.versions.give(version, 1);
        Err(DatapathError::Full(name))
    }

    /// The place of a destination that the service has, or had and still has connections of.
    fn known(&self, position: Option<usize>, key: &ServiceKey, dest: &DestConfig) -> Option<u32> {
        let service = position.and_then(|p| self.services.get(p));
        let listed = service.and_then(|s| s.dests.iter().find(|d| d.config.key == dest.key));
        if let Some(placed) = listed {
            return Some(placed.index);
        }
        let slot = service.map(|s| s.slot).or_else(|| self.ghosts.get(key).copied())?;
        let trash = self.trash.iter().find(|t| t.slot == slot && t.key == dest.key)?;
        Some(trash.index)
    }

    /// Gives every destination its place, writes the new ones and revives those from the trash.
    fn place(
        &mut self,
        position: Option<usize>,
        slot: u32,
        dests: &[DestConfig],
        taken: &Taken,
    ) -> Vec<Placed> {
        let mut new = taken.new_dests.iter().copied();
        let mut placed = Vec::with_capacity(dests.len());
        for config in dests {
            let listed = position.and_then(|position| self.services.get(position));
            let listed = listed.and_then(|s| s.dests.iter().find(|d| d.config.key == config.key));
            let added = listed.is_none();
            let in_trash = |t: &Trash| t.slot == slot && t.key == config.key;
            let trashed = if added { self.trash.iter().position(in_trash) } else { None };
            let index = match (listed, trashed) {
                (Some(listed), _) => listed.index,
                (None, Some(position)) => {
                    let trash = self.trash.remove(position);
                    self.revive(&trash);
                    let index = trash.index;
                    // Nobody looked after its way meanwhile.
                    self.new.push((index, config.key.addr));
                    index
                }
                (None, None) => {
                    let index = new.next().expect("`take` counted the new destinations");
                    self.write_dest(slot, index, config);
                    index
                }
            };
            self.update_dest(index, config);
            if let Some(dest) = self.maps.dests().get(index as usize) {
                dest.weight.set(config.weight);
                if added || config.weight != 0 {
                    dest.last_weight.set(config.weight);
                }
            }
            placed.push(Placed { config: *config, index });
        }
        placed
    }

    fn write_dest(&mut self, slot: u32, index: u32, config: &DestConfig) {
        let Some(dest) = self.maps.dests().get(index as usize) else { return };
        dest.addr.set(words(config.key.addr));
        dest.tunnel_source.set([0; 4]);
        dest.mtu.set(0);
        dest.port_be.set(u32::from(config.key.port.to_be()));
        dest.slot.set(slot);
        dest.trash.set(0);
        for counter in [&dest.active, &dest.inactive, &dest.persist, &dest.overload] {
            counter.set(0);
        }
        for base in &dest.base {
            base.set(0);
        }
        let family = if Family::of(config.key.addr) == Family::V4 { 4 } else { 6 };
        self.note(config.key.addr);
        self.maps.store(&dest.family, family);
        self.track_dest(index, config.key);
        self.new.push((index, config.key.addr));
    }

    /// What of a destination holds for its established connections, too.
    fn update_dest(&self, index: u32, config: &DestConfig) {
        let Some(dest) = self.maps.dests().get(index as usize) else { return };
        dest::set_thresholds(dest, config.upper_threshold, config.lower_threshold);
        let (kind, port, flags) = (config.tunnel_type, config.tunnel_port, config.tunnel_flags);
        let pieces = self.maps.config().sysctl(Sysctl::PmtuDisc) == 0;
        dest.tunnel.set(Tunnel::new(kind, port, flags).in_pieces(pieces).0);
        dest.trash.set(0);
    }

    fn write_version(
        &mut self,
        key: &ServiceKey,
        taken: &Taken,
        position: Option<usize>,
        config: &ServiceConfig,
        placed: &[Placed],
        change: Change,
    ) {
        for (index, placed) in (taken.first_row..).zip(placed) {
            let row = Row {
                dest: placed.index,
                weight: placed.config.weight,
                forward: placed.config.forward as u8,
                tunnel_type: placed.config.tunnel_type,
                tunnel_port: placed.config.tunnel_port,
                tunnel_flags: placed.config.tunnel_flags,
                port_be: port(key, config, &placed.config).to_be(),
            };
            self.maps.write_row(index, row);
        }
        let weights: Vec<u32> = placed.iter().map(|p| p.config.weight).collect();
        let mut table = vec![0; sched::table_len(config.scheduler) as usize];
        match config.scheduler {
            Scheduler::Sh => sh::fill(&weights, &mut table),
            Scheduler::Dh => dh::fill(weights.len() as u32, &mut table),
            Scheduler::Mh => mh::fill(&mut self.maglev(key.family(), placed), &mut table),
            _ => {}
        }
        self.maps.write_table(taken.table, &table);
        let Some(version) = self.maps.versions().get(taken.version as usize) else { return };
        let (max, gcd) = wrr::limits(weights.iter().copied());
        version.scheduler.set(config.scheduler as u32);
        version.flags.set(config.flags.bits());
        version.first_row.set(taken.first_row);
        version.rows.set(placed.len() as u32);
        version.wrr_max.set(max);
        version.wrr_gcd.set(gcd);
        version.table.set(taken.table);
        version.timeout.set(config.timeout);
        version.netmask.set(config.netmask);
        version.engine.set(config.engine.map_or(0, |engine| engine as u32));
        let known = position.and_then(|p| self.services.get(p)).map(|service| service.slot);
        let slot = known.or(taken.slot).unwrap_or_default();
        version.state.set(self.carry(position, slot, config, placed, change, (max, gcd)));
    }

    /// Where Maglev hashing begins with each destination of a service of this family. A quiesced
    /// destination keeps its places, so that others do not move.
    fn maglev(&self, family: Family, placed: &[Placed]) -> Vec<mh::Place> {
        let dest = |p: &Placed| self.maps.dests().get(p.index as usize);
        let weight = |p: &Placed| dest(p).map_or(0, |dest| dest.last_weight.get());
        let (_, gcd) = wrr::limits(placed.iter().map(weight));
        let greatest = placed.iter().map(weight).max().unwrap_or(0);
        let place = |p: &Placed| {
            let (addr, port) = (words(p.config.key.addr), p.config.key.port);
            match family {
                Family::V4 => mh::Place::new(V4::from_words(addr), port, weight(p), gcd, greatest),
                Family::V6 => mh::Place::new(V6::from_words(addr), port, weight(p), gcd, greatest),
            }
        };
        placed.iter().map(place).collect()
    }

    /// The scheduler's position, carried over from the version in force; `limits` are wrr's new
    /// greatest current weight and common divisor.
    fn carry(
        &self,
        position: Option<usize>,
        slot: u32,
        config: &ServiceConfig,
        placed: &[Placed],
        change: Change,
        (max, gcd): (u32, u32),
    ) -> u64 {
        let old = position.and_then(|p| self.services.get(p));
        let old = old.filter(|old| old.config.scheduler == config.scheduler);
        let state = old
            .and_then(|old| self.maps.versions().get(old.version as usize))
            .map_or(0, |version| version.state.get());
        match config.scheduler {
            Scheduler::Rr => rr::carry(state, |index| {
                let old = old?.dests.get(index as usize)?;
                placed.iter().position(|p| p.index == old.index).map(|p| p as u32)
            }),
            Scheduler::Wrr if change == Change::Service && state != 0 => state,
            Scheduler::Wrr => wrr::carry(state, max, gcd),
            Scheduler::Lblc | Scheduler::Lblcr if old.is_some() => state,
            Scheduler::Lblc | Scheduler::Lblcr => {
                self.maps.slots().get(slot as usize).map_or(0, |slot| {
                    slot.generation.set(slot.generation.get().wrapping_add(1));
                    slot.generation.get().into()
                })
            }
            _ => 0,
        }
    }

    /// Destinations that are in the version in force and not in the new one.
    fn replaced(&self, position: Option<usize>, placed: &[Placed]) -> Vec<(DestConfig, u32)> {
        let Some(old) = position.and_then(|p| self.services.get(p)) else { return Vec::new() };
        let gone = old.dests.iter().filter(|d| !placed.iter().any(|p| p.index == d.index));
        gone.map(|d| (d.config, d.index)).collect()
    }

    /// Puts the new version of a known service in force.
    fn switch(
        &mut self,
        position: usize,
        config: &ServiceConfig,
        taken: &Taken,
        placed: Vec<Placed>,
    ) {
        let Some(service) = self.services.get_mut(position) else { return };
        if let Some(slot) = self.maps.slots().get(service.slot as usize) {
            self.maps.store(&slot.version, taken.version);
        }
        self.retired.push(Retired::Version(service.version));
        let (key, before) = (service.key, service.config);
        service.config = *config;
        service.version = taken.version;
        service.dests = placed;
        self.end_uses(&key, &before);
    }

    /// Puts a new service in force.
    fn insert(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        slot_index: u32,
        taken: &Taken,
        placed: Vec<Placed>,
    ) -> Result<(), DatapathError> {
        let Some(slot) = self.maps.slots().get(slot_index as usize) else {
            return Err(DatapathError::Full("service"));
        };
        self.sequence += 1;
        describe(slot, key);
        self.zero_new(slot_index, placed.iter().map(|placed| placed.index));
        slot.sequence.set(self.sequence);
        self.maps.store(&slot.version, taken.version);
        let added = self.link(key, slot_index);
        self.by_key.insert(*key, self.services.len());
        self.services.push(Service {
            key: *key,
            config: *config,
            slot: slot_index,
            version: taken.version,
            dests: placed,
        });
        if added.is_err() {
            self.remove(key);
        }
        added
    }

    /// Tells the data path that packets to and from `addr` may be ours from now on.
    fn note(&self, addr: IpAddr) {
        let config = self.maps.config();
        match addr {
            IpAddr::V4(_) => ours::note(config, V4::from_words(words(addr))),
            IpAddr::V6(_) => ours::note(config, V6::from_words(words(addr))),
        }
    }

    /// Enters a service into the hash that packets are looked up in.
    pub(super) fn link(&mut self, key: &ServiceKey, slot: u32) -> Result<(), DatapathError> {
        match key {
            ServiceKey::Address { addr, .. } => self.note(*addr),
            ServiceKey::Fwmark { .. } => ours::note_all(self.maps.config()),
        }
        self.maps.link(&ServiceHash::of(key), slot)
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) -> bool {
        let Some(position) = self.by_key.remove(key) else { return false };
        let service = self.services.remove(position);
        for index in self.by_key.values_mut().filter(|index| **index > position) {
            *index -= 1;
        }
        self.maps.unlink(&ServiceHash::of(key));
        self.end_uses(key, &service.config);
        let before = self.entries(key, &service.config, &service.dests);
        self.replace_real_servers(&before, &[]);
        if let Some(slot) = self.maps.slots().get(service.slot as usize) {
            self.maps.store(&slot.version, 0);
        }
        self.retired.push(Retired::Version(service.version));
        self.ghosts.insert(*key, service.slot);
        self.trash(service.slot, service.dests.into_iter().map(|d| (d.config, d.index)));
        true
    }

    /// Remembers destinations that left the service in this slot, by configuration and place.
    fn trash(&mut self, slot: u32, left: impl IntoIterator<Item = (DestConfig, u32)>) {
        let before = self.trash.len();
        for (config, index) in left {
            if let Some(dest) = self.maps.dests().get(index as usize) {
                self.maps.store(&dest.trash, TRASHED);
            }
            let trash = self.new_trash(slot, config.key, index);
            self.trash.push(trash);
        }
        if self.trash.len() > before && self.maps.config().sysctl(Sysctl::ExpireNodestConn) != 0 {
            let indices = self.trash.iter().map(|trash| trash.index as usize);
            let dests = indices.filter_map(|index| self.maps.dests().get(index));
            dests.for_each(|dest| self.maps.store(&dest.trash, ENDING));
        }
    }

    pub(super) fn free_version(&mut self, index: u32) {
        let Some(version) = self.maps.versions().get(index as usize) else { return };
        if let Some(scheduler) = Scheduler::from_number(version.scheduler.get()) {
            self.tables.give(version.table.get(), sched::table_len(scheduler));
        }
        self.rows.give(version.first_row.get(), version.rows.get());
        self.versions.give(index, 1);
    }
}

/// The port that new connections to a destination go to; 0 if each goes to the packet's own, as all
/// of a client's do whom persistence keeps at one destination whatever the port
/// (`tests/oracle/recorded/any_port.jsonl`).
fn port(key: &ServiceKey, config: &ServiceConfig, dest: &DestConfig) -> u16 {
    let any = matches!(key, ServiceKey::Fwmark { .. } | ServiceKey::Address { port: 0, .. });
    if any && config.flags.contains(ServiceFlags::PERSISTENT) { 0 } else { dest.key.port }
}

/// Writes the service's name into its slot, for a restarted rvsd to read.
fn describe(slot: &Slot, key: &ServiceKey) {
    match key {
        ServiceKey::Address { protocol, addr, port } => {
            slot.protocol.set(*protocol as u32);
            slot.addr.set(words(*addr));
            slot.port.set(u32::from(*port));
        }
        ServiceKey::Fwmark { mark, .. } => {
            slot.protocol.set(0);
            slot.addr.set([*mark, 0, 0, 0]);
            slot.port.set(0);
        }
    }
    slot.family.set(if key.family() == Family::V4 { 4 } else { 6 });
}
