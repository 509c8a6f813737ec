//! The virtual services and their destinations: found by key, listed by age.

use std::collections::{BTreeMap, HashMap};

use rvs_core::types::{DestConfig, DestKey, ServiceConfig, ServiceKey};

/// A virtual service and its destinations, the one added last first, as the kernel lists them.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub key: ServiceKey,
    pub config: ServiceConfig,
    pub dests: Vec<DestConfig>,
}

impl Service {
    /// Position of a destination.
    pub fn position(&self, key: &DestKey) -> Option<usize> {
        self.dests.iter().position(|dest| dest.key == *key)
    }
}

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_age: BTreeMap<u64, Service>,
    age: HashMap<ServiceKey, u64>,
    next: u64,
}

impl Table {
    /// The service with this key.
    pub fn get(&self, key: &ServiceKey) -> Option<&Service> {
        self.by_age.get(self.age.get(key)?)
    }

    /// Enters a service in the place of the one with its key, else as the newest.
    pub fn put(&mut self, service: Service) {
        let age = *self.age.entry(service.key).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.by_age.insert(age, service);
    }

    /// Takes a service out.
    pub fn remove(&mut self, key: &ServiceKey) -> Option<Service> {
        self.by_age.remove(&self.age.remove(key)?)
    }

    /// All services, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.by_age.values()
    }
}
