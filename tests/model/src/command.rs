//! Services and destinations, and the commands that change them.

use rvs_core::control::Stats;
use rvs_core::types::{DestConfig, DestKey, ServiceConfig, ServiceKey, Timeouts};

use crate::sched::Position;
use crate::{Id, Jiffies, Model, jiffies};

/// A virtual service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) key: ServiceKey,
    pub(crate) config: ServiceConfig,
    /// The one added last comes first.
    pub(crate) dests: Vec<Id>,
    pub(crate) position: Position,
    pub(crate) stats: Stats,
    /// Tells it from one that was deleted before and had the same name.
    id: Id,
}

/// A destination, in force or deleted.
#[derive(Clone, Debug)]
pub(crate) struct Dest {
    /// The name of its service.
    service: ServiceKey,
    /// The service that it was in force for last.
    service_id: Id,
    pub(crate) config: DestConfig,
    /// In force (`IP_VS_DEST_F_AVAILABLE`).
    pub(crate) available: bool,
    /// Takes no new connections (`IP_VS_DEST_F_OVERLOAD`).
    pub(crate) overloaded: bool,
    pub(crate) stats: Stats,
    /// Deleted, and not used since this moment as far as was looked.
    unused_since: Option<Jiffies>,
}

/// Seconds after which a deleted destination that is not used is forgotten, with what it counted.
const FORGOTTEN: u32 = 120;

impl Model {
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.iter().find(|service| service.key == *key)
    }

    fn service_mut(&mut self, key: &ServiceKey) -> &mut Service {
        self.services.iter_mut().find(|service| service.key == *key).expect("a known service")
    }

    /// The destination of a service, if it is in force.
    pub(crate) fn dest_of(&self, key: &ServiceKey, dest: &DestKey) -> Option<Id> {
        let dests = &self.service(key)?.dests;
        dests.iter().copied().find(|id| self.dest(*id).config.key == *dest)
    }

    /// Whether a service has a destination of this name.
    pub fn has_dest(&self, key: &ServiceKey, dest: &DestKey) -> bool {
        self.dest_of(key, dest).is_some()
    }

    /// `ipvsadm -A`
    pub fn add_service(&mut self, key: ServiceKey, config: ServiceConfig) {
        let (id, position, stats) = (self.new_id(), Position::default(), Stats::default());
        self.services.push(Service { key, config, dests: Vec::new(), position, stats, id });
    }

    /// `ipvsadm -E`: the scheduler goes on as if nothing had happened unless it is another.
    pub fn edit_service(&mut self, key: &ServiceKey, config: ServiceConfig) {
        let weights = self.weights(key);
        let service = self.service_mut(key);
        if service.config.scheduler != config.scheduler {
            service.position = Position::new(&weights);
        }
        service.config = config;
    }

    /// `ipvsadm -D`
    pub fn remove_service(&mut self, key: &ServiceKey) {
        let at = self.services.iter().position(|service| service.key == *key);
        for dest in self.services.remove(at.expect("a known service")).dests {
            self.dest_mut(dest).available = false;
        }
        self.expire_nodest();
    }

    /// `ipvsadm -a`: a destination that is not yet forgotten comes back with its connections and
    /// all that it counted, unless its service is another than then.
    pub fn add_dest(&mut self, key: &ServiceKey, config: DestConfig) {
        let service_id = self.service_mut(key).id;
        let left = self.dests.iter().find(|(_, dest)| {
            !dest.available && dest.service == *key && dest.config.key == config.key
        });
        let id = match left {
            Some((id, _)) => *id,
            None => self.new_id(),
        };
        let dest = self.dests.entry(id).or_insert(Dest {
            service: *key,
            service_id,
            config,
            available: true,
            overloaded: false,
            stats: Stats::default(),
            unused_since: None,
        });
        dest.unused_since = None;
        if dest.service_id != service_id {
            dest.stats = Stats::default();
        }
        dest.service_id = service_id;
        dest.available = true;
        self.service_mut(key).dests.insert(0, id);
        self.configure(id, config);
        self.dests_changed(key);
    }

    /// `ipvsadm -e`
    pub fn edit_dest(&mut self, key: &ServiceKey, config: DestConfig) {
        let id = self.dest_of(key, &config.key).expect("a known destination");
        self.configure(id, config);
        self.dests_changed(key);
    }

    /// Thresholds hold for the connections that there are
    /// (`tests/oracle/recorded/thresholds.jsonl`).
    fn configure(&mut self, id: Id, config: DestConfig) {
        self.dest_mut(id).config = config;
        self.unbound(id);
        self.bound(id);
    }

    /// `ipvsadm -d`
    pub fn remove_dest(&mut self, key: &ServiceKey, dest: &DestKey) {
        let id = self.dest_of(key, dest).expect("a known destination");
        let service = self.service_mut(key);
        let at = service.dests.iter().position(|known| *known == id).expect("it was found");
        // rr goes on from the one before it.
        let before = at.checked_sub(1).and_then(|before| service.dests.get(before).copied());
        if service.position.last == Some(id) {
            service.position.last = before;
        }
        service.dests.remove(at);
        self.dest_mut(id).available = false;
        self.dests_changed(key);
        self.expire_nodest();
    }

    /// With `expire_nodest_conn`, what belongs to a deleted destination ends.
    fn expire_nodest(&mut self) {
        if !self.settings.expire_nodest_conn {
            return;
        }
        let gone = |model: &Self, dest| !model.dest(dest).available;
        let conns: Vec<Id> = self.conns.keys().copied().collect();
        for id in conns {
            if gone(self, self.conns[&id].dest) {
                self.end(id);
            }
        }
        let templates: Vec<Id> = self.templates.keys().copied().collect();
        for id in templates {
            let used = self.conns.values().any(|conn| conn.template == Some(id));
            if !used && gone(self, self.templates[&id].dest) {
                self.end_template(id);
            }
        }
    }

    /// Forgets deleted destinations that were not used for two minutes. To be called now and then,
    /// as the kernel looks for them once a minute: the first look sees that one is not used.
    pub fn tidy(&mut self) {
        let deleted = self.dests.iter().filter(|(_, dest)| !dest.available);
        let deleted: Vec<Id> = deleted.map(|(id, _)| *id).collect();
        for id in deleted {
            let (unused, now) = (self.counts(id) == [0, 0, 0], self.now);
            let dest = self.dest_mut(id);
            dest.unused_since = unused.then(|| dest.unused_since.unwrap_or(now));
            if dest.unused_since.is_some_and(|since| now >= since + jiffies(FORGOTTEN)) {
                self.dests.remove(&id);
            }
        }
    }

    /// `ipvsadm --set`: for whatever happens from now on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// `ipvsadm -Z`
    pub fn zero(&mut self, key: &ServiceKey) {
        let service = self.service_mut(key);
        service.stats = Stats::default();
        for dest in service.dests.clone() {
            self.dest_mut(dest).stats = Stats::default();
        }
    }

    /// The weights of a service's destinations, in their order.
    fn weights(&self, key: &ServiceKey) -> Vec<u32> {
        let dests = self.service(key).into_iter().flat_map(|service| &service.dests);
        dests.map(|dest| self.dest(*dest).config.weight).collect()
    }

    fn dests_changed(&mut self, key: &ServiceKey) {
        let weights = self.weights(key);
        let service = self.service_mut(key);
        service.position.dests_changed(service.config.scheduler, &weights);
    }
}
