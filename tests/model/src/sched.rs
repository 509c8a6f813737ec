//! Schedulers: which destination of a service gets a new connection.

use std::net::IpAddr;

use rvs_core::types::{Scheduler, ServiceFlags, ServiceKey};

use crate::packet::Packet;
use crate::{Id, Model};

/// Where round robin is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// The destination that was picked last; none is the head of the list.
    pub(crate) last: Option<Id>,
    /// wrr takes destinations that weigh at least this much on its present way through the list.
    weight: u32,
}

impl Position {
    /// That of a scheduler that begins with these destinations.
    pub(crate) fn new(weights: &[u32]) -> Self {
        Self { last: None, weight: heaviest_pass(weights) }
    }

    /// Destinations came, went, or weigh something else: wrr begins at the head again, with as much
    /// of its weight as there still is. rr goes on.
    pub(crate) fn dests_changed(&mut self, scheduler: Scheduler, weights: &[u32]) {
        if scheduler == Scheduler::Rr {
            return;
        }
        self.last = None;
        let (heaviest, step) = (heaviest_pass(weights), step(weights));
        if self.weight > heaviest || self.weight == 0 {
            self.weight = heaviest;
        } else if step > 1 {
            self.weight = self.weight / step * step + 1;
        }
    }
}

/// By how much wrr's weight falls from one way through the list to the next.
fn step(weights: &[u32]) -> u32 {
    let divides = |n: &u32| weights.iter().all(|weight| weight % n == 0);
    let greatest = weights.iter().copied().max().unwrap_or(0);
    (1..=greatest).rev().find(divides).unwrap_or(1)
}

/// wrr's weight on the first way through the list; 0 if nothing weighs anything.
fn heaviest_pass(weights: &[u32]) -> u32 {
    let greatest = weights.iter().copied().max().unwrap_or(0);
    if greatest == 0 { 0 } else { greatest - (step(weights) - 1) }
}

/// A destination as schedulers see it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: Id,
    weight: u64,
    overloaded: bool,
    active: u64,
    inactive: u64,
}

impl Candidate {
    fn is_available(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// An active connection is as much as 256 others.
    fn load(&self) -> u64 {
        self.active * 256 + self.inactive
    }

    /// Connections for which a new one would wait.
    fn delay(&self) -> u64 {
        self.active + 1
    }
}

/// The first of those that `is_less` than no other.
fn least(candidates: &[Candidate], is_less: impl Fn(&Candidate, &Candidate) -> bool) -> Option<Id> {
    let available: Vec<&Candidate> = candidates.iter().filter(|c| c.is_available()).collect();
    let none_less = |c: &&&Candidate| !available.iter().any(|other| is_less(other, c));
    available.iter().find(none_less).map(|c| c.id)
}

impl Model {
    /// The destination for a new connection, if one takes it.
    pub(crate) fn schedule(&mut self, key: &ServiceKey, packet: &Packet) -> Option<Id> {
        let service = self.service(key)?;
        let (config, position) = (service.config, service.position);
        let all: Vec<Candidate> = service.dests.iter().map(|id| self.candidate(*id)).collect();
        let is = |flag| config.flags.contains(flag);
        match config.scheduler {
            Scheduler::Rr | Scheduler::Wrr => {
                let weighted = config.scheduler == Scheduler::Wrr;
                let (picked, position) =
                    if weighted { wrr(&all, position) } else { rr(&all, position) };
                let service = self.services.iter_mut().find(|service| service.key == *key);
                service.expect("it was found").position = position;
                picked
            }
            Scheduler::Lc => least(&all, |a, b| a.load() < b.load()),
            Scheduler::Wlc => least(&all, |a, b| a.load() * b.weight < b.load() * a.weight),
            Scheduler::Sed => sed(&all),
            Scheduler::Nq => {
                let idle = all.iter().find(|c| c.is_available() && c.active == 0);
                idle.map(|c| c.id).or_else(|| sed(&all))
            }
            Scheduler::Fo => least(&all, |a, b| a.weight > b.weight),
            Scheduler::Ovf => {
                let room: Vec<_> = all.into_iter().filter(|c| c.active <= c.weight).collect();
                least(&room, |a, b| a.weight > b.weight)
            }
            Scheduler::Dh => {
                let buckets: Vec<_> = all.iter().cycle().take(256).collect();
                let found = buckets.get(bucket(packet.dst.ip(), 0))?;
                found.is_available().then_some(found.id)
            }
            Scheduler::Sh => {
                let port = if is(ServiceFlags::SCHED2) { packet.src.port() } else { 0 };
                sh(&all, bucket(packet.src.ip(), port), is(ServiceFlags::SCHED1))
            }
            other => unimplemented!("{other} is not modelled"),
        }
    }

    fn candidate(&self, id: Id) -> Candidate {
        let dest = self.dest(id);
        let [active, inactive, _] = self.counts(id).map(|count| count as u64);
        let (weight, overloaded) = (u64::from(dest.config.weight), dest.overloaded);
        Candidate { id, weight, overloaded, active, inactive }
    }
}

/// The next one in the list.
fn rr(all: &[Candidate], position: Position) -> (Option<Id>, Position) {
    let at = all.iter().position(|c| Some(c.id) == position.last);
    let start = at.map_or(0, |at| at + 1);
    let around = all.iter().skip(start).chain(all.iter().take(start));
    match around.into_iter().find(|c| c.is_available()) {
        Some(picked) => (Some(picked.id), Position { last: Some(picked.id), ..position }),
        None => (None, position),
    }
}

/// The next one in the list that weighs enough; what is enough falls from the greatest weight to
/// the least, way after way through the list.
fn wrr(all: &[Candidate], position: Position) -> (Option<Id>, Position) {
    let weights: Vec<u32> = all.iter().map(|c| c.weight as u32).collect();
    let (heaviest, step) = (heaviest_pass(&weights), step(&weights));
    if heaviest == 0 {
        return (None, position);
    }
    if !all.iter().any(Candidate::is_available) {
        // A search in vain ends at the head, unless it was on the last way and past the head.
        let last_way = position.weight <= step && position.last.is_some();
        let at_head = Position { last: None, weight: heaviest };
        return (None, if last_way { position } else { at_head });
    }
    let at = all.iter().position(|c| Some(c.id) == position.last);
    let (mut start, mut weight) = (at.map_or(0, |at| at + 1), position.weight);
    loop {
        let enough = |c: &&Candidate| c.is_available() && c.weight >= u64::from(weight);
        if let Some(picked) = all.iter().skip(start).find(enough) {
            return (Some(picked.id), Position { last: Some(picked.id), weight });
        }
        start = 0;
        weight = if weight > step { weight - step } else { heaviest };
    }
}

/// The one with the least delay for its weight.
fn sed(all: &[Candidate]) -> Option<Id> {
    least(all, |a, b| a.delay() * b.weight < b.delay() * a.weight)
}

/// Source hashing: destinations fill 256 buckets in turn, each as many as it weighs, one at least.
/// If that of `home` takes no connection, the ones behind it may.
fn sh(all: &[Candidate], home: usize, falls_back: bool) -> Option<Id> {
    let turn = all.iter().flat_map(|c| vec![c; c.weight.max(1) as usize]);
    let turn: Vec<&Candidate> = turn.take(256).collect();
    let buckets: Vec<&Candidate> = turn.iter().copied().cycle().take(256).collect();
    // The kernel adds the hash to the offset from its own bucket: twice.
    let others = (0..256).map(|offset| (home + home + offset) % 256);
    let tried = [home].into_iter().chain(others.take(if falls_back { 256 } else { 0 }));
    let mut found = tried.filter_map(|bucket| buckets.get(bucket));
    found.find(|c| c.is_available()).map(|c| c.id)
}

/// The bucket of an address and a port, of 256: the upper bits of a product with the golden ratio.
fn bucket(addr: IpAddr, port: u16) -> usize {
    let number = match addr {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => {
            let words = addr.octets();
            let words = words.chunks(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
            words.fold(0, |all, word| all ^ word)
        }
    };
    let hash = number.wrapping_add(u32::from(port)).wrapping_mul(0x61c8_8647);
    (hash >> 24) as usize
}
