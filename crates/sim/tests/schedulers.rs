//! What every scheduler promises, for any weights, counts and overloads.

mod common;

use std::net::SocketAddr;

use common::{cases, dest, key, put, sim};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::addr::{Addr, V4};
use rvs_core::layout::{Dest, HASH_SIZE, Key, Version};
use rvs_core::sched::{NONE, Place, pick, pick_cached, remembers};
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags, ServiceKey};
use rvs_sim::{Plain, SimDatapath};
use rvs_tables::Memory;

/// A destination: what is configured and what lives.
#[derive(Clone, Debug)]
struct Server {
    weight: u32,
    active: u32,
    inactive: u32,
    overloaded: bool,
}

impl Server {
    fn available(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// An active connection counts as 256 inactive ones.
    fn load(&self) -> u128 {
        u128::from(self.active) * 256 + u128::from(self.inactive)
    }
}

fn server(weight: impl Strategy<Value = u32>) -> impl Strategy<Value = Server> {
    // Small loads, for equals, and any.
    let active = prop_oneof![0u32..3, 0u32..2000];
    let inactive = prop_oneof![Just(0), 0u32..100_000];
    (weight, active, inactive, prop::bool::weighted(0.2)).prop_map(
        |(weight, active, inactive, overloaded)| Server { weight, active, inactive, overloaded },
    )
}

/// Small weights, none, and the greatest there are.
fn any_weight() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 6 => 1u32..20, 2 => 1u32..2000, 1 => 0x7fff_fff0u32..=0x7fff_ffff]
}

fn servers() -> impl Strategy<Value = Vec<Server>> {
    vec(server(any_weight()), 0..60)
}

fn schedulers() -> impl Strategy<Value = Scheduler> {
    let all = Scheduler::ALL.iter().copied().filter(|s| *s != Scheduler::None);
    prop::sample::select(all.collect::<Vec<_>>())
}

fn flags() -> impl Strategy<Value = ServiceFlags> {
    let choices = [
        ServiceFlags::empty(),
        ServiceFlags::SCHED1,
        ServiceFlags::SCHED2,
        ServiceFlags::SCHED1 | ServiceFlags::SCHED2,
    ];
    prop::sample::select(choices.to_vec())
}

fn service() -> ServiceKey {
    key(Protocol::Tcp, SocketAddr::from(([192, 0, 2, 1], 80)))
}

fn config(number: u16, server: &Server) -> DestConfig {
    let at = SocketAddr::from(([10, 0, 0, 1], 1000 + number));
    dest(at, ForwardMethod::DirectRoute, server.weight)
}

/// A data path with one service of these servers.
struct Bench {
    sim: SimDatapath,
}

impl Bench {
    fn new(scheduler: Scheduler, flags: ServiceFlags, servers: &[Server]) -> Self {
        let mut sim = sim(1);
        let dests: Vec<_> =
            (0..).zip(servers).map(|(number, server)| config(number, server)).collect();
        put(&mut sim, service(), scheduler, flags, &dests);
        let bench = Self { sim };
        for (index, server) in servers.iter().enumerate() {
            let dest = bench.dest(index);
            dest.active.set(server.active);
            dest.inactive.set(server.inactive);
            dest.overload.set(server.overloaded as u32);
        }
        bench
    }

    /// Replaces the list: servers with the numbers that they have, and new ones.
    fn replace(&mut self, scheduler: Scheduler, list: &[(Option<usize>, Server)]) {
        let dests: Vec<_> = (100u16..)
            .zip(list)
            .map(|(new, (old, server))| config(old.map_or(new, |old| old as u16), server))
            .collect();
        put(&mut self.sim, service(), scheduler, ServiceFlags::empty(), &dests);
        for (index, (_, server)) in list.iter().enumerate() {
            // A destination that is written without an upper threshold stops being overloaded.
            self.dest(index).overload.set(server.overloaded as u32);
        }
    }

    fn maps(&self) -> &Plain {
        self.sim.maps()
    }

    /// Where the one service is.
    fn place(&self) -> Place {
        let mut slots = (0..).zip(self.maps().slots());
        let (slot, held) = slots.find(|(_, slot)| slot.version.get() != 0).expect("one service");
        Place { slot, version: held.version.get() }
    }

    fn version(&self) -> &Version {
        &self.maps().versions()[self.place().version as usize]
    }

    fn dest(&self, index: usize) -> &Dest {
        let row = self.maps().row(self.version().first_row.get() + index as u32);
        &self.maps().dests()[row.expect("a row of the service").dest as usize]
    }

    /// The index of the server for a client.
    fn pick(&self, client: u32, port: u16) -> Option<usize> {
        let key = Key {
            src: V4(client.to_be()),
            dst: V4::from_words([0x0100_00c0, 0, 0, 0]),
            sport_be: port.to_be(),
            dport_be: 80u16.to_be(),
            protocol: Protocol::Tcp as u32,
        };
        let picked = if remembers(self.version()) {
            pick_cached(&self.maps(), &key, self.place())
        } else {
            pick(&self.maps(), self.version(), &key)
        };
        match picked {
            NONE => None,
            index => Some(index as usize),
        }
    }
}

/// The servers that get a part of a source-hashing table: each takes as many words as it weighs,
/// one at least, until the table is full.
fn in_table(servers: &[Server]) -> usize {
    let mut taken = 0;
    let starts = servers.iter().map(|server| {
        let start = taken;
        taken += u64::from(server.weight.max(1));
        start
    });
    starts.take_while(|start| *start < u64::from(HASH_SIZE)).count()
}

/// Two draws by weight and the lighter of them: with equal loads the first draw stands, so that
/// each destination gets its weight's share; a destination loaded far above the others gets only
/// what draws it twice.
#[test]
fn twos_draws_by_weight_and_takes_the_lighter() {
    const DRAWS: usize = 100_000;
    let picks = |servers: &[Server]| {
        let bench = Bench::new(Scheduler::Twos, ServiceFlags::empty(), servers);
        let mut found = vec![0usize; servers.len()];
        for _ in 0..DRAWS {
            found[bench.pick(1, 1).expect("one is up")] += 1;
        }
        found
    };
    let near = |found: usize, share: f64| {
        let expected = DRAWS as f64 * share;
        assert!((found as f64 - expected).abs() <= 5.0 * expected.sqrt(), "{found} for {expected}");
    };
    let server = |weight, active| Server { weight, active, inactive: 0, overloaded: false };
    // A weight's line has one point more than the sum, which is the first's: 0.
    let found = picks(&[server(1000, 0), server(3000, 0), server(6000, 0), server(0, 0)]);
    for (found, weight) in found.iter().zip([1001.0, 3000.0, 6000.0, 0.0]) {
        near(*found, weight / 10_001.0);
    }
    let found = picks(&[server(5000, 0), server(5000, 1_000_000)]);
    near(found[1], (5000.0f64 / 10_001.0).powi(2));
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn the_choice_is_available_and_there_is_one_if_any_is(
        scheduler in schedulers(), flags in flags(), servers in servers(),
        clients in vec(any::<(u32, u16)>(), 1..20),
    ) {
        let bench = Bench::new(scheduler, flags, &servers);
        let reach = match scheduler {
            Scheduler::Sh => in_table(&servers),
            _ => servers.len(),
        };
        // ovf takes only what has no more active connections than weight.
        let available = |server: &Server| {
            server.available()
                && (scheduler != Scheduler::Ovf || server.active <= server.weight)
        };
        let any = servers.iter().take(reach).any(available);
        let hashes = match scheduler {
            Scheduler::Sh | Scheduler::Mh => !flags.contains(ServiceFlags::SCHED1),
            Scheduler::Dh => true,
            _ => false,
        };
        for (client, port) in clients {
            match bench.pick(client, port) {
                Some(index) => prop_assert!(servers[index].available(), "{index}"),
                None if hashes => {}
                None => prop_assert!(!any),
            }
        }
    }

    #[test]
    fn sed_and_nq_take_the_shortest_expected_delay(servers in servers()) {
        let delay = |server: &Server, other: &Server| {
            (u128::from(server.active) + 1) * u128::from(other.weight)
        };
        let up = || (0..).zip(&servers).filter(|(_, server)| server.available());
        let least = up().reduce(|least, next| {
            if delay(least.1, next.1) > delay(next.1, least.1) { next } else { least }
        });
        let idle = up().find(|(_, server)| server.active == 0);
        let sed = Bench::new(Scheduler::Sed, ServiceFlags::empty(), &servers).pick(1, 1);
        prop_assert_eq!(sed, least.map(|(index, _)| index));
        let nq = Bench::new(Scheduler::Nq, ServiceFlags::empty(), &servers).pick(1, 1);
        prop_assert_eq!(nq, idle.or(least).map(|(index, _)| index));
    }

    #[test]
    fn fo_and_ovf_take_the_first_of_the_greatest_weight(servers in servers()) {
        let greatest = |may: &dyn Fn(&Server) -> bool| {
            let up = (0..).zip(&servers).filter(|(_, server)| server.available() && may(server));
            up.reduce(|best: (usize, &Server), next| {
                if next.1.weight > best.1.weight { next } else { best }
            })
            .map(|(index, _)| index)
        };
        let fo = Bench::new(Scheduler::Fo, ServiceFlags::empty(), &servers).pick(1, 1);
        prop_assert_eq!(fo, greatest(&|_| true));
        let ovf = Bench::new(Scheduler::Ovf, ServiceFlags::empty(), &servers).pick(1, 1);
        prop_assert_eq!(ovf, greatest(&|server| server.active <= server.weight));
    }

    #[test]
    fn mh_gives_each_its_share_and_keeps_clients_when_another_goes(
        weights in vec(1u32..8, 2..12), gone in any::<prop::sample::Index>(),
    ) {
        let up = |weight: &u32| Server { weight: *weight, active: 0, inactive: 0, overloaded: false };
        let mut servers: Vec<Server> = weights.iter().map(up).collect();
        let picks = |servers: &[Server]| {
            let bench = Bench::new(Scheduler::Mh, ServiceFlags::empty(), servers);
            (0..4000u32).map(|c| bench.pick(c, 1).expect("one is up")).collect::<Vec<_>>()
        };
        let before = picks(&servers);
        let total: u32 = weights.iter().sum();
        for (index, weight) in weights.iter().enumerate() {
            let found = before.iter().filter(|pick| **pick == index).count() as f64;
            let share = 4000.0 * f64::from(*weight) / f64::from(total);
            prop_assert!((found - share).abs() < 4.5 * share.sqrt() + 20.0, "{found} for {share}");
        }
        let gone = gone.index(servers.len());
        servers[gone].overloaded = true;
        let bench = Bench::new(Scheduler::Mh, ServiceFlags::SCHED1, &servers);
        for (client, pick) in (0..).zip(&before).filter(|(_, pick)| **pick != gone) {
            prop_assert_eq!(bench.pick(client, 1), Some(*pick));
        }
    }

    #[test]
    fn rr_goes_around_the_list(servers in servers(), rounds in 1usize..4) {
        let bench = Bench::new(Scheduler::Rr, ServiceFlags::empty(), &servers);
        let available: Vec<usize> =
            (0..servers.len()).filter(|index| servers[*index].available()).collect();
        let expected = available.repeat(rounds);
        let found: Vec<usize> =
            (0..expected.len()).map(|_| bench.pick(1, 1).expect("one is available")).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn rr_goes_on_after_its_last_choice_or_the_one_before_when_the_list_changes(
        servers in vec(server(any_weight()), 1..30), picks in 0usize..60,
        kept in vec(any::<bool>(), 30), new in vec((0usize..30, server(any_weight())), 0..5),
    ) {
        let mut bench = Bench::new(Scheduler::Rr, ServiceFlags::empty(), &servers);
        let last = (0..picks).filter_map(|_| bench.pick(1, 1)).last();
        // The old numbers of those that stay, in their order, and `None` for new ones.
        let mut list: Vec<(Option<usize>, Server)> = servers
            .into_iter()
            .enumerate()
            .filter(|(number, _)| kept[*number])
            .map(|(number, server)| (Some(number), server))
            .collect();
        for (at, server) in new {
            list.insert(at.min(list.len()), (None, server));
        }
        bench.replace(Scheduler::Rr, &list);
        let stayed = |number: usize| list.iter().position(|(old, _)| *old == Some(number));
        let anchor = last.and_then(|last| (0..=last).rev().find_map(stayed));
        let start = anchor.map_or(0, |anchor| anchor + 1);
        let mut around = (start..list.len()).chain(0..start);
        prop_assert_eq!(bench.pick(1, 1), around.find(|index| list[*index].1.available()));
    }

    #[test]
    fn wrr_gives_each_its_weight_in_every_period(
        servers in vec(server(prop_oneof![1 => Just(0), 4 => 1u32..12]), 1..20),
        factor in 1u32..1000, warm_up in 0u32..300,
    ) {
        let servers: Vec<Server> = servers
            .into_iter()
            .map(|server| Server { weight: server.weight * factor, ..server })
            .collect();
        let divisor = (1..=12 * factor)
            .rev()
            .find(|d| servers.iter().all(|server| server.weight % d == 0))
            .expect("one divides all");
        let share = |server: &Server| if server.available() { server.weight / divisor } else { 0 };
        let expected: Vec<u32> = servers.iter().map(share).collect();
        let bench = Bench::new(Scheduler::Wrr, ServiceFlags::empty(), &servers);
        for _ in 0..warm_up {
            bench.pick(1, 1);
        }
        let mut found = vec![0; servers.len()];
        for _ in 0..expected.iter().sum() {
            found[bench.pick(1, 1).expect("one is available")] += 1;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn lc_takes_the_first_of_the_least_loaded(servers in servers()) {
        let bench = Bench::new(Scheduler::Lc, ServiceFlags::empty(), &servers);
        let all = servers.iter().enumerate().filter(|(_, server)| server.available());
        let least = all.min_by_key(|(_, server)| server.load());
        prop_assert_eq!(bench.pick(1, 1), least.map(|(index, _)| index));
    }

    #[test]
    fn wlc_takes_the_first_of_the_least_loaded_for_their_weight(servers in servers()) {
        let bench = Bench::new(Scheduler::Wlc, ServiceFlags::empty(), &servers);
        let all = servers.iter().enumerate().filter(|(_, server)| server.available());
        let least = all.min_by(|(_, a), (_, b)| {
            (a.load() * u128::from(b.weight)).cmp(&(b.load() * u128::from(a.weight)))
        });
        prop_assert_eq!(bench.pick(1, 1), least.map(|(index, _)| index));
    }

    #[test]
    fn sh_keeps_a_client_whatever_the_load_and_refuses_when_its_server_cannot(
        servers in servers(), client in any::<u32>(), ports in any::<[u16; 2]>(),
    ) {
        let up: Vec<Server> = servers
            .iter()
            .map(|server| Server { overloaded: false, active: 0, inactive: 0, ..*server })
            .collect();
        let home = Bench::new(Scheduler::Sh, ServiceFlags::empty(), &up).pick(client, ports[0]);
        let bench = Bench::new(Scheduler::Sh, ServiceFlags::empty(), &servers);
        let expected = home.filter(|index| servers[*index].available());
        for port in ports {
            prop_assert_eq!(bench.pick(client, port), expected);
        }
        let fallback = Bench::new(Scheduler::Sh, ServiceFlags::SCHED1, &servers);
        if expected.is_some() {
            prop_assert_eq!(fallback.pick(client, ports[0]), expected);
        }
        prop_assert_eq!(fallback.pick(client, ports[0]), fallback.pick(client, ports[1]));
    }

    #[test]
    fn sh_with_ports_keeps_a_client_port(servers in servers(), client in any::<u32>(), port: u16) {
        let bench = Bench::new(Scheduler::Sh, ServiceFlags::SCHED2, &servers);
        let first = bench.pick(client, port);
        for other in 0..50 {
            bench.pick(client ^ other, port);
        }
        prop_assert_eq!(bench.pick(client, port), first);
    }

    #[test]
    fn a_table_of_sh_is_divided_by_weight(weights in vec(1u32..8, 1..30)) {
        let mut table = [0; HASH_SIZE as usize];
        rvs_core::sched::sh::fill(&weights, &mut table);
        let total: u32 = weights.iter().sum();
        for (row, weight) in (0u32..).zip(&weights) {
            let words = table.iter().filter(|word| **word == row).count() as u32;
            let rounds = HASH_SIZE / total;
            prop_assert!((rounds * weight..=(rounds + 1) * weight).contains(&words));
        }
    }
}
