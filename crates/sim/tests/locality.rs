//! lblc and lblcr against models of them that are plain and slow: one destination or a list of them
//! for each address, whatever happens to loads, weights and destinations in between.

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;

use common::{cases, dest, key, put, sim};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::addr::V4;
use rvs_core::control::Datapath;
use rvs_core::layout::{Dest, Key};
use rvs_core::sched::{NONE, Place, pick_cached};
use rvs_core::sysctl::Sysctl;
use rvs_core::time::ticks;
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags, ServiceKey};
use rvs_sim::SimDatapath;
use rvs_tables::Memory;

/// What the scheduler sees of a destination.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Server {
    /// Last number of its address; the newest destination comes first in a list.
    id: u8,
    weight: u32,
    active: u32,
    overloaded: bool,
}

impl Server {
    /// Whether it carries more for its weight than `other`.
    fn exceeds(&self, other: &Self) -> bool {
        u64::from(self.active) * u64::from(other.weight)
            > u64::from(other.active) * u64::from(self.weight)
    }
}

/// The least loaded of those that take connections; the first of equals.
fn least<'s>(servers: impl Iterator<Item = &'s Server>) -> Option<Server> {
    let up = servers.filter(|server| server.weight > 0 && !server.overloaded);
    up.copied().reduce(|least, next| if least.exceeds(&next) { next } else { least })
}

/// Whether it is over its weight while another is less than half full.
fn is_full(server: &Server, servers: &[Server]) -> bool {
    server.active > server.weight && servers.iter().any(|other| other.active * 2 < other.weight)
}

/// The set of an address: newest first, when it was used and when it changed.
#[derive(Default)]
struct Set {
    members: Vec<u8>,
    used: u32,
    changed: u32,
}

#[derive(Default)]
struct Model {
    single: HashMap<u8, (u8, u32)>,
    sets: HashMap<u8, Set>,
}

impl Model {
    fn lblc(&mut self, addr: u8, servers: &[Server], now: u32) -> Option<u8> {
        let known = self.single.get_mut(&addr).and_then(|(id, used)| {
            *used = now;
            servers.iter().find(|server| server.id == *id)
        });
        if let Some(server) = known.filter(|s| s.weight > 0 && !is_full(s, servers)) {
            return Some(server.id);
        }
        let picked = least(servers.iter())?.id;
        self.single.insert(addr, (picked, now));
        Some(picked)
    }

    fn lblcr(&mut self, addr: u8, servers: &[Server], now: u32, time: u32) -> Option<u8> {
        if let Some(set) = self.sets.get_mut(&addr) {
            set.used = now;
            let find = |id: &u8| servers.iter().find(|server| server.id == *id);
            let minimum = least(set.members.iter().filter_map(find));
            if set.members.len() > 1 && now - set.changed >= time {
                let up = set.members.iter().filter_map(find).filter(|server| server.weight > 0);
                let most =
                    up.copied().reduce(|most, next| if next.exceeds(&most) { next } else { most });
                if let Some(most) = most {
                    set.members.retain(|id| *id != most.id);
                    set.changed = now;
                }
            }
            if let Some(server) = minimum.filter(|server| !is_full(server, servers)) {
                return Some(server.id);
            }
        }
        let picked = least(servers.iter())?.id;
        let set = self.sets.entry(addr).or_insert(Set { used: now, ..Set::default() });
        if !set.members.contains(&picked) {
            set.members.insert(0, picked);
            set.changed = now;
        }
        Some(picked)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pick(u8),
    Active(usize, u32),
    Overload(usize, bool),
    Weight(usize, u32),
    Wait(u32),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..3).prop_map(Step::Pick),
        6 => (0usize..8, 0u32..8).prop_map(|(at, active)| Step::Active(at, active)),
        1 => (0usize..8, any::<bool>()).prop_map(|(at, is)| Step::Overload(at, is)),
        1 => (0usize..8, 0u32..4).prop_map(|(at, weight)| Step::Weight(at, weight)),
        2 => (1u32..1000).prop_map(|seconds| Step::Wait(ticks(seconds))),
        2 => Just(Step::Sweep),
    ]
}

/// The data path with one service.
struct Bench {
    sim: SimDatapath,
    scheduler: Scheduler,
}

fn service() -> ServiceKey {
    key(Protocol::Tcp, "192.0.2.1:80".parse().expect("an address"))
}

impl Bench {
    fn place(&self) -> Place {
        let mut slots = (0..).zip(self.sim.maps().slots());
        let (slot, held) = slots.find(|(_, slot)| slot.version.get() != 0).expect("one service");
        Place { slot, version: held.version.get() }
    }

    /// Writes weights; the other numbers are set in the tables.
    fn configure(&mut self, servers: &[Server]) {
        let config = |server: &Server| -> DestConfig {
            let at = SocketAddr::from(([10, 0, 0, server.id], 80));
            dest(at, ForwardMethod::Masquerade, server.weight)
        };
        let dests: Vec<DestConfig> = servers.iter().map(config).collect();
        put(&mut self.sim, service(), self.scheduler, ServiceFlags::empty(), &dests);
        for (index, server) in servers.iter().enumerate() {
            self.dest(index).active.set(server.active);
            self.dest(index).overload.set(server.overloaded.into());
        }
    }

    fn dest(&self, index: usize) -> &Dest {
        let maps = self.sim.maps();
        let first = maps.versions()[self.place().version as usize].first_row.get();
        &maps.dests()[maps.row(first + index as u32).expect("a row").dest as usize]
    }

    fn pick(&self, addr: u8, servers: &[Server]) -> Option<u8> {
        let key = Key {
            src: V4(1),
            dst: V4(u32::from(addr) + 7),
            sport_be: 1,
            dport_be: 80,
            protocol: 6,
        };
        let maps = self.sim.maps();
        match pick_cached(&maps, &key, self.place()) {
            NONE => None,
            index => Some(servers[index as usize].id),
        }
    }
}

/// Seconds after which unused entries go, and sets shrink.
const TIME: i32 = 2400;

fn play(
    scheduler: Scheduler,
    mut servers: Vec<Server>,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut bench = Bench { sim: sim(64), scheduler };
    for sysctl in [Sysctl::LblcExpiration, Sysctl::LblcrExpiration] {
        bench.sim.set_sysctl(sysctl, TIME).expect("it can be changed");
    }
    let (time, mut now) = (ticks(TIME as u32), Memory::now(bench.sim.maps()).0);
    bench.configure(&servers);
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Pick(addr) => {
                let expected = match scheduler {
                    Scheduler::Lblc => model.lblc(addr, &servers, now),
                    _ => model.lblcr(addr, &servers, now, time),
                };
                prop_assert_eq!(bench.pick(addr, &servers), expected, "{:?}", servers);
            }
            Step::Active(at, active) if at < servers.len() => {
                servers[at].active = active;
                bench.dest(at).active.set(active);
            }
            Step::Overload(at, is) if at < servers.len() => {
                servers[at].overloaded = is;
                bench.dest(at).overload.set(is.into());
            }
            Step::Weight(at, weight) if at < servers.len() => {
                servers[at].weight = weight;
                bench.configure(&servers);
            }
            Step::Wait(ticks) => {
                bench.sim.maps().advance(ticks);
                now += ticks;
            }
            Step::Sweep => {
                bench.sim.maps().sweep();
                model.single.retain(|_, (_, used)| now - *used < time);
                model.sets.retain(|_, set| now - set.used < time);
            }
            _ => {}
        }
    }
    // Nothing is left once nothing is used: not a member, not a count.
    bench.sim.maps().advance(time);
    for _ in 0..3 {
        bench.sim.maps().sweep();
    }
    let maps = bench.sim.maps();
    prop_assert_eq!(maps.sweep().live, 0);
    prop_assert!(maps.slots().iter().all(|slot| slot.cached.get() == 0));
    Ok(())
}

fn servers() -> impl Strategy<Value = Vec<Server>> {
    let server = (0u32..4, 0u32..6, prop::bool::weighted(0.1));
    vec(server, 1..8).prop_map(|servers| {
        let server = |(id, (weight, active, overloaded))| Server { id, weight, active, overloaded };
        (1..).zip(servers).map(server).collect()
    })
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn lblc_keeps_an_address_with_its_destination(servers in servers(), steps in vec(step(), 1..120)) {
        play(Scheduler::Lblc, servers, &steps)?;
    }

    #[test]
    fn lblcr_keeps_an_address_with_its_set(servers in servers(), steps in vec(step(), 1..120)) {
        play(Scheduler::Lblcr, servers, &steps)?;
    }
}
