//! The maps as `rvs-tables` sees them: arrays as memory, the hashes of services and the per-CPU
//! counters by system call.

use std::cell::Cell;

use aya::maps::MapData;
use rvs_core::addr::{Addr, V4, V6};
use rvs_core::control::DatapathError;
use rvs_core::fragment::Slow;
use rvs_core::layout::{
    CallId, Config, ConnSet, Dest, DestStats, MarkRule, Row, ServiceAddr, Slot, Version,
};
use rvs_core::limit::Limits;
use rvs_core::time::Tick;
use rvs_tables::{Memory, ServiceHash};

use crate::maps::Maps;
use crate::{env, sweeper};

impl Memory for Maps {
    fn config(&self) -> &Config {
        Maps::config(self)
    }

    fn slow(&self) -> &Slow {
        self.slow.first().expect("SLOW has one element, checked when it was mapped")
    }

    fn limits(&self) -> &Limits {
        self.limits.first().expect("ICMP_LIMITS has one element, checked when it was mapped")
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn versions(&self) -> &[Version] {
        &self.versions
    }

    fn dests(&self) -> &[Dest] {
        &self.dests
    }

    fn conns4(&self) -> &[ConnSet<V4>] {
        &self.conns4
    }

    fn conns6(&self) -> &[ConnSet<V6>] {
        &self.conns6
    }

    fn call_ids(&self) -> &[CallId] {
        &self.call_ids
    }

    fn row_count(&self) -> usize {
        self.rows.as_flattened().len()
    }

    fn row(&self, index: u32) -> Option<Row> {
        self.rows.as_flattened().get(index as usize).map(Cell::get)
    }

    fn write_row(&mut self, index: u32, row: Row) {
        if let Some(place) = self.rows.as_flattened().get(index as usize) {
            place.set(row);
        }
    }

    fn mark_rule(&self, index: u32) -> Option<MarkRule> {
        self.marks.get(index as usize).map(Cell::get)
    }

    fn write_mark_rule(&mut self, index: u32, rule: MarkRule) {
        if let Some(place) = self.marks.get(index as usize) {
            place.set(rule);
        }
    }

    fn table_words(&self) -> usize {
        self.tables.len()
    }

    fn write_table(&mut self, first: u32, words: &[u32]) {
        for (padded, word) in self.tables.iter().skip(first as usize).zip(words) {
            padded[0].set(*word);
        }
    }

    fn link(&mut self, service: &ServiceHash, slot: u32) -> Result<(), DatapathError> {
        match service {
            ServiceHash::V4(addr) => self.services4.insert(bytes(addr), slot, 0),
            ServiceHash::V6(addr) => self.services6.insert(bytes(addr), slot, 0),
        }
        .map_err(|_| DatapathError::Full("service"))
    }

    fn unlink(&mut self, service: &ServiceHash) {
        // A missing element is what is wanted; nothing else can go wrong with a key of ours.
        let _ = match service {
            ServiceHash::V4(addr) => self.services4.remove(&bytes(addr)),
            ServiceHash::V6(addr) => self.services6.remove(&bytes(addr)),
        };
    }

    fn linked(&self) -> Vec<ServiceHash> {
        keys(&self.services4, &self.services6)
    }

    fn link_real_server(&mut self, at: &ServiceHash, dest: u32) -> Result<(), DatapathError> {
        match at {
            ServiceHash::V4(addr) => self.real_servers4.insert(bytes(addr), dest, 0),
            ServiceHash::V6(addr) => self.real_servers6.insert(bytes(addr), dest, 0),
        }
        .map_err(|_| DatapathError::Full("real server"))
    }

    fn unlink_real_server(&mut self, at: &ServiceHash) {
        // As for `unlink`.
        let _ = match at {
            ServiceHash::V4(addr) => self.real_servers4.remove(&bytes(addr)),
            ServiceHash::V6(addr) => self.real_servers6.remove(&bytes(addr)),
        };
    }

    fn real_servers(&self) -> Vec<ServiceHash> {
        keys(&self.real_servers4, &self.real_servers6)
    }

    fn counters(&self, dest: u32) -> impl Iterator<Item = &DestStats> {
        self.dest_stats.iter().skip(dest as usize).step_by(self.dests.len())
    }

    fn store(&self, cell: &Cell<u32>, value: u32) {
        env::store(cell, value);
    }

    fn grace_period(&self) {
        sweeper::grace_period();
    }

    fn now(&self) -> Tick {
        env::now()
    }
}

/// A hash by the bytes of a `ServiceAddr`.
type Hash<const N: usize> = aya::maps::HashMap<MapData, [u8; N], u32>;

/// Everything in the two hashes.
fn keys(v4: &Hash<8>, v6: &Hash<20>) -> Vec<ServiceHash> {
    let v4 = v4.keys().flatten().map(|bytes| {
        let [word, tail] = words(&bytes);
        ServiceHash::V4(service([word, 0, 0, 0], tail))
    });
    let v6 = v6.keys().flatten().map(|bytes| {
        let [a, b, c, d, tail] = words(&bytes);
        ServiceHash::V6(service([a, b, c, d], tail))
    });
    v4.chain(v6).collect()
}

/// The bytes of a `ServiceAddr`, as the kernel compares them: `N` words.
fn bytes<A: Addr, const N: usize>(service: &ServiceAddr<A>) -> [u8; N] {
    let mut bytes = [0; N];
    let addr = service.addr.to_words().into_iter().take(N / 4 - 1).flat_map(u32::to_ne_bytes);
    let tail = [service.port_be, service.protocol].into_iter().flat_map(u16::to_ne_bytes);
    for (byte, value) in bytes.iter_mut().zip(addr.chain(tail)) {
        *byte = value;
    }
    bytes
}

/// The inverse of [`bytes`]: the words of the address; port and protocol.
fn words<const N: usize, const W: usize>(bytes: &[u8; N]) -> [u32; W] {
    let mut words = [0; W];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_ne_bytes(*chunk);
    }
    words
}

fn service<A: Addr>(addr: [u32; 4], tail: u32) -> ServiceAddr<A> {
    let [a, b, c, d] = tail.to_ne_bytes();
    let (port_be, protocol) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
    ServiceAddr { addr: A::from_words(addr), port_be, protocol }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_and_its_bytes_are_inverse() {
        let v4 = ServiceAddr::new(V4(0x0102_0304), 0x5000, 17);
        let packed: [u8; 8] = bytes(&v4);
        let [word, tail] = words(&packed);
        assert_eq!(service::<V4>([word, 0, 0, 0], tail), v4);
        let v6 = ServiceAddr::new(V6([1, 2, 3, 4]), 0x5000, 6);
        let packed: [u8; 20] = bytes(&v6);
        let [a, b, c, d, tail] = words(&packed);
        assert_eq!(service::<V6>([a, b, c, d], tail), v6);
    }
}
