//! The configuration in the maps: what `rvs_core::control::Datapath` asks for, written so that a
//! packet sees the old state or the new one (`rvs_core::layout` says how), and read back after a
//! restart.

mod adopt;
pub(crate) mod conns;
mod gate;
mod real_servers;
mod stats;
mod tracked;
mod uses;
mod write;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;

use rvs_core::control::{Change, ConnRow, Datapath, DatapathError, DestStatus, Stats};
use rvs_core::defence;
use rvs_core::layout::{CONFIG_BACKUP_ONLY, DAEMON_WORDS, ENTRIES, MARK_RULES, MarkRule, WAYS};
use rvs_core::mark::InForce;
use rvs_core::proto::tcp;
use rvs_core::sysctl::Sysctl;
use rvs_core::time::{Tick, seconds, ticks};
use rvs_core::timeout::Timeout;
use rvs_core::tunnel::Tunnel;
use rvs_core::types::{DestConfig, DestKey, Family, ServiceConfig, ServiceKey, Timeouts};

use crate::extents::Extents;
use crate::memory::{Memory, ServiceHash};
use tracked::Tracking;
pub use tracked::Translator;

/// A destination and its place in `DESTS`.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) config: DestConfig,
    pub(crate) index: u32,
}

/// A service as the maps have it.
pub(crate) struct Service {
    key: ServiceKey,
    config: ServiceConfig,
    slot: u32,
    version: u32,
    pub(crate) dests: Vec<Placed>,
}

/// A destination that left its service while connections used it.
#[derive(Clone)]
struct Trash {
    slot: u32,
    key: DestKey,
    index: u32,
    /// `Slot::sequence` of the service that it left: not that of one added later by the same name.
    service: u32,
    /// What it had counted when it left, by CPU.
    counted: Vec<Stats>,
    /// Since when no connection has used it.
    idle: Option<Tick>,
}

/// Seconds for which a destination that left and is not used is remembered, with what it counted
/// (`IP_VS_DEST_TRASH_PERIOD`; `tests/oracle/recorded/readd_idle.jsonl`). The kernel looks once a
/// minute, so it may be a minute more there.
const TRASH_PERIOD: u32 = 120;
/// How many of them are remembered at most: each that is added is looked for among them.
const TRASH_KEPT: usize = 1000;

/// What may be used again after a grace period.
enum Retired {
    Version(u32),
    Dest(Trash),
    Slot(u32),
}

/// The services of a data path, in the maps that it reads them from.
pub struct Services<M> {
    maps: M,
    /// In the order of creation.
    services: Vec<Service>,
    by_key: HashMap<ServiceKey, usize>,
    /// Deleted services whose destinations still have connections.
    ghosts: HashMap<ServiceKey, u32>,
    trash: Vec<Trash>,
    retired: Vec<Retired>,
    slots: Extents,
    versions: Extents,
    rows: Extents,
    tables: Extents,
    dests: Extents,
    sequence: u32,
    /// What services have in the hash of real servers, by place, the one added last at the end.
    real_servers: HashMap<ServiceHash, Vec<u32>>,
    uses: uses::Uses,
    /// Places taken since [`Services::take_new`] was called last.
    new: Vec<(u32, IpAddr)>,
    /// Services put in force since [`Services::take_changed`] was called last.
    changed: Vec<ServiceKey>,
    /// What [`Services::take_marks_changed`] is to say.
    marks_changed: bool,
    /// Pages of memory that were left when [`Services::defend`] was called last.
    available: u64,
    tracking: Tracking,
}

impl<M: Memory> Services<M> {
    /// The maps.
    pub fn maps(&self) -> &M {
        &self.maps
    }

    /// Every destination in use, to route to and keep the neighbours of: its place and address.
    pub fn destinations(&self) -> impl Iterator<Item = (u32, &DestConfig)> {
        self.services.iter().flat_map(|s| s.dests.iter().map(|d| (d.index, &d.config)))
    }

    /// The destinations that got a place since the last call: the way to them is yet unknown.
    pub fn take_new(&mut self) -> Vec<(u32, IpAddr)> {
        std::mem::take(&mut self.new)
    }

    /// The services that were put in force since the last call.
    pub fn take_changed(&mut self) -> Vec<ServiceKey> {
        std::mem::take(&mut self.changed)
    }

    /// Whether since the last call services by mark came or went, or tracking began or ended.
    pub fn take_marks_changed(&mut self) -> bool {
        std::mem::take(&mut self.marks_changed)
    }

    /// The marks that have services.
    pub fn marks(&self) -> impl Iterator<Item = (Family, u32)> {
        self.keys().filter_map(|key| match *key {
            ServiceKey::Fwmark { family, mark } => Some((family, mark)),
            ServiceKey::Address { .. } => None,
        })
    }

    /// The keys of all services.
    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.iter().map(|service| &service.key)
    }

    /// The destinations of a service; none if there is no such service.
    pub fn dests_of(&self, key: &ServiceKey) -> impl Iterator<Item = &DestConfig> {
        self.service(key).into_iter().flat_map(|service| service.dests.iter().map(|d| &d.config))
    }

    /// Sets the source address of a destination's tunnel packets, and of errors about its own.
    pub fn set_source(&self, dest: u32, source: IpAddr) {
        if let Some(dest) = self.maps.dests().get(dest as usize) {
            dest.tunnel_source.set(rvs_core::addr::words(source));
        }
    }

    /// Sets the MTU of the route to a destination; `None` if it has none of its own.
    pub fn set_mtu(&self, dest: u32, mtu: Option<u32>) {
        if let Some(dest) = self.maps.dests().get(dest as usize) {
            dest.mtu.set(mtu.unwrap_or(0));
        }
    }

    /// Brings the measures against floods up to date with the pages of memory that are left: free
    /// ones and buffers. To be called every second or so.
    pub fn defend(&mut self, available: u64) {
        self.available = available;
        defence::update(self.maps.config(), available);
    }

    /// Leaves clients' packets to the host if that is asked for and a backup sync daemon runs.
    fn update_backup_only(&self) {
        let config = self.maps.config();
        let runs = self.kept_daemon(true) != [0; DAEMON_WORDS];
        let others = config.flags.get() & !CONFIG_BACKUP_ONLY;
        let only = runs && config.sysctl(Sysctl::BackupOnly) != 0;
        config.flags.set(others | if only { CONFIG_BACKUP_ONLY } else { 0 });
    }

    /// Frees what no packet and no connection uses any more, destinations two minutes later. To be
    /// called every second or so.
    pub fn tick(&mut self) {
        self.release(ticks(TRASH_PERIOD));
        self.check_tracking();
    }

    /// Frees at once what [`tick`](Self::tick) would free in time.
    pub fn forget(&mut self) {
        self.release(0);
    }

    /// Frees what has not been used for so many ticks.
    fn release(&mut self, period: u32) {
        let (now, mut gone) = (self.maps.now(), Vec::new());
        let period = if self.trash.len() > TRASH_KEPT { 0 } else { period };
        self.trash.retain_mut(|trash| {
            let Some(dest) = self.maps.dests().get(trash.index as usize) else { return false };
            let used = dest.active.get() | dest.inactive.get() | dest.persist.get() != 0;
            let since = *trash.idle.get_or_insert(now);
            let keep = used || !now.reached(since.after(period));
            if used {
                trash.idle = None;
            }
            if !keep {
                gone.push(trash.clone());
            }
            keep
        });
        for trash in gone {
            self.absorb(&trash);
            self.retired.push(Retired::Dest(trash));
        }
        let ended: Vec<ServiceKey> = self
            .ghosts
            .iter()
            .filter(|(_, slot)| !self.trash.iter().any(|trash| trash.slot == **slot))
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            if let Some(slot) = self.ghosts.remove(&key) {
                self.retired.push(Retired::Slot(slot));
            }
            self.untrack_service(&key);
        }
        self.reclaim();
        self.update_gate();
    }

    /// Waits for a grace period and gives back what was retired before it.
    fn reclaim(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        self.maps.grace_period();
        for retired in std::mem::take(&mut self.retired) {
            match retired {
                Retired::Version(index) => self.free_version(index),
                Retired::Dest(Trash { index, counted, .. }) => {
                    self.retire(index, &counted);
                    self.untrack_dest(index);
                    if let Some(dest) = self.maps.dests().get(index as usize) {
                        dest.family.set(0);
                        dest.trash.set(0);
                    }
                    self.dests.give(index, 1);
                }
                Retired::Slot(index) => {
                    if let Some(slot) = self.maps.slots().get(index as usize) {
                        slot.sequence.set(0);
                    }
                    self.slots.give(index, 1);
                }
            }
        }
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(*self.by_key.get(key)?)
    }
}

impl<M: Memory> Datapath for Services<M> {
    fn put_service(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) -> Result<(), DatapathError> {
        self.put(key, config, dests, change)?;
        if self.changed.last() != Some(key) {
            self.changed.push(*key);
        }
        Ok(())
    }

    fn remove_service(&mut self, key: &ServiceKey) -> bool {
        self.remove(key)
    }

    fn for_each_service(&self, f: &mut dyn FnMut(&ServiceKey, &ServiceConfig, &[DestConfig])) {
        for service in &self.services {
            let dests: Vec<DestConfig> = service.dests.iter().map(|d| d.config).collect();
            f(&service.key, &service.config, &dests);
        }
    }

    fn service_stats(&self, key: &ServiceKey) -> Stats {
        self.service(key).map(|service| self.service_counters(service)).unwrap_or_default()
    }

    fn everything(&self, f: &mut dyn FnMut(&Stats)) -> Stats {
        let by_cpu = self.by_cpu();
        by_cpu.iter().for_each(f);
        self.total_counters(&by_cpu)
    }

    fn zero_everything(&mut self) {
        self.zero_total();
    }

    fn dest_status(&self, key: &ServiceKey, dest: &DestKey) -> DestStatus {
        let placed = self.service(key).and_then(|s| s.dests.iter().find(|d| d.config.key == *dest));
        let Some((placed, live)) =
            placed.and_then(|p| Some((p, self.maps.dests().get(p.index as usize)?)))
        else {
            return DestStatus::default();
        };
        DestStatus {
            active_conns: live.active.get(),
            inactive_conns: live.inactive.get(),
            persist_conns: live.persist.get(),
            stats: self.dest_counters(placed.index),
        }
    }

    fn zero(&mut self, key: &ServiceKey) {
        if let Some(service) = self.service(key) {
            self.zero_counters(service);
        }
    }

    fn timeouts(&self) -> Timeouts {
        let config = self.maps.config();
        let of = |state: tcp::State| {
            config.tcp_timeouts.get(state as usize).map_or(0, |timeout| seconds(timeout.get()))
        };
        Timeouts {
            tcp: of(tcp::State::Established),
            tcp_fin: of(tcp::State::FinWait),
            udp: seconds(config.udp_timeout.get()),
        }
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), DatapathError> {
        let config = self.maps.config();
        for (state, value) in
            [(tcp::State::Established, timeouts.tcp), (tcp::State::FinWait, timeouts.tcp_fin)]
        {
            if let Some(timeout) = config.tcp_timeouts.get(state as usize) {
                timeout.set(ticks(value));
            }
        }
        config.udp_timeout.set(ticks(timeouts.udp));
        conns::settle(&self.maps);
        Ok(())
    }

    fn sysctl(&self, sysctl: Sysctl) -> i32 {
        self.maps.config().sysctl(sysctl)
    }

    fn set_sysctl(&mut self, sysctl: Sysctl, value: i32) -> Result<(), DatapathError> {
        if sysctl == Sysctl::Conntrack && value != 0 {
            self.begin_tracking()?;
        }
        let config = self.maps.config();
        let changed = config.sysctl(sysctl) != value;
        config.set_sysctl(sysctl, value);
        // What other settings mean to these shows within a second, as in the kernel.
        if changed && matches!(sysctl, Sysctl::DropEntry | Sysctl::DropPacket | Sysctl::SecureTcp) {
            self.defend(self.available);
        }
        if changed && sysctl == Sysctl::PmtuDisc {
            for dest in self.maps.dests() {
                dest.tunnel.set(Tunnel(dest.tunnel.get()).in_pieces(value == 0).0);
            }
        }
        if changed && sysctl == Sysctl::NatIcmpSend {
            self.rebuild_real_servers();
        }
        self.update_backup_only();
        Ok(())
    }

    fn for_each_mark(&self, f: &mut dyn FnMut(&MarkRule)) {
        let rules = InForce(self.maps.config().marks.get());
        let places = rules.first()..rules.first() + rules.count();
        places.filter_map(|place| self.maps.mark_rule(place)).for_each(|rule| f(&rule));
    }

    fn set_marks(&mut self, rules: &[MarkRule]) -> Result<(), DatapathError> {
        if rules.len() > MARK_RULES as usize {
            return Err(DatapathError::Full("mark rule"));
        }
        // Packets may still look at the rules that were in force before the last change.
        self.maps.grace_period();
        let first = InForce(self.maps.config().marks.get()).next_first();
        for (place, rule) in (first..).zip(rules) {
            self.maps.write_mark_rule(place, *rule);
        }
        let next = InForce::new(first, rules.len() as u32);
        self.maps.store(&self.maps.config().marks, next.0);
        Ok(())
    }

    fn timeout(&self, timeout: Timeout) -> u32 {
        timeout.place(self.maps.config()).map_or(0, |ticks| seconds(ticks.get()))
    }

    fn set_timeout(&mut self, timeout: Timeout, seconds: u32) -> Result<(), DatapathError> {
        if let Some(place) = timeout.place(self.maps.config()) {
            place.set(ticks(seconds));
            conns::settle(&self.maps);
        }
        Ok(())
    }

    fn kept_daemon(&self, backup: bool) -> [u32; DAEMON_WORDS] {
        self.maps.config().daemons[usize::from(backup)].each_ref().map(Cell::get)
    }

    fn keep_daemon(&mut self, backup: bool, words: [u32; DAEMON_WORDS]) {
        let places = &self.maps.config().daemons[usize::from(backup)];
        places.iter().zip(words).for_each(|(place, word)| place.set(word));
        self.update_backup_only();
    }

    fn conn_capacity(&self) -> u32 {
        // Masqueraded connections take two entries each, and a third of the entries stays free so
        // that inserts find room near their home set. Tags take the place of a few.
        ((self.maps.conns4().len() * WAYS) as u32 / ENTRIES).next_power_of_two()
    }

    fn for_each_conn(&self, f: &mut dyn FnMut(&ConnRow) -> bool) {
        conns::from(&self.maps, 0, f);
    }

    fn conns_from(&self, cursor: u64, f: &mut dyn FnMut(&ConnRow) -> bool) -> Option<u64> {
        conns::from(&self.maps, cursor, f)
    }
}
