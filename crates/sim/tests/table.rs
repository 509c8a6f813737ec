//! The connection table against a map of the standard library, over random sequences of opening,
//! finding, ending and expiring flows.

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;

use common::{cases, dest, key, put, sim};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::addr::{Addr, V4};
use rvs_core::conn::{REPLY, Word};
use rvs_core::env::Env;
use rvs_core::flow::Flow;
use rvs_core::layout::{Key, WAYS};
use rvs_core::pipeline::{Verdict, commit, end, resolve};
use rvs_core::proto::udp;
use rvs_core::reason::Reason;
use rvs_core::table;
use rvs_core::time::ticks;
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Plain, SimDatapath};
use rvs_tables::Memory;

const VIP: ([u8; 4], u16) = ([192, 0, 2, 1], 53);
/// Ticks after which a UDP flow expires.
const TIMEOUT: u32 = ticks(udp::DEFAULT_TIMEOUT);

#[derive(Clone, Debug)]
enum Step {
    /// A packet of a client: opens its flow, or finds it.
    Packet(u8),
    /// Its flow ends.
    End(u8),
    /// So many ticks pass.
    Wait(u32),
    /// A sweep.
    Sweep,
}

fn steps(clients: u8) -> impl Strategy<Value = Vec<Step>> {
    // Just too short for expiry, just long enough, and other times.
    let wait = prop_oneof![Just(1), Just(TIMEOUT - 1), Just(TIMEOUT), 1..TIMEOUT];
    let step = prop_oneof![
        12 => (0..clients).prop_map(Step::Packet),
        3 => (0..clients).prop_map(Step::End),
        2 => wait.prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ];
    vec(step, 1..250)
}

fn method() -> impl Strategy<Value = ForwardMethod> {
    prop::sample::select(vec![ForwardMethod::Masquerade, ForwardMethod::DirectRoute])
}

/// A flow as the model has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    dest: u32,
    /// The tick of its last packet.
    last: u32,
}

struct Bench {
    sim: SimDatapath,
    dests: Vec<DestConfig>,
    method: ForwardMethod,
    model: HashMap<u8, Known>,
    /// Entries that ended and were not swept yet.
    dead: usize,
    now: u32,
}

impl Bench {
    fn new(sets: u32, method: ForwardMethod) -> Self {
        let mut sim = sim(sets);
        let at = |last| SocketAddr::from(([10, 0, 0, last], 5353));
        let dests: Vec<_> = (1..6).map(|last| dest(at(last), method, 1)).collect();
        let service = key(Protocol::Udp, VIP.into());
        put(&mut sim, service, Scheduler::Wlc, ServiceFlags::empty(), &dests);
        Self { sim, dests, method, model: HashMap::new(), dead: 0, now: 0 }
    }

    fn maps(&self) -> &Plain {
        self.sim.maps()
    }

    fn flow(client: u8) -> Flow<V4> {
        let key = Key {
            src: V4(u32::from_ne_bytes([203, 0, 113, client])),
            dst: V4(u32::from_ne_bytes(VIP.0)),
            sport_be: 4000u16.to_be(),
            dport_be: VIP.1.to_be(),
            protocol: Protocol::Udp as u32,
        };
        let (l4, len) = (34, 28);
        Flow {
            key,
            l4,
            len,
            tcp_flags: 0,
            ttl: 64,
            tos: 0,
            dont_fragment: true,
            marked: true,
            mark: 0,
        }
    }

    /// The key of what the destination answers.
    fn reply(&self, client: u8, dest: u32) -> Key<V4> {
        let flow = Self::flow(client).key;
        let addr = V4::from_words(self.maps().dests()[dest as usize].addr.get());
        let (sport_be, dport_be) = (5353u16.to_be(), flow.sport_be);
        Key { src: addr, dst: flow.src, sport_be, dport_be, protocol: flow.protocol }
    }

    /// Entries that one flow takes.
    fn entries(&self) -> usize {
        if self.method == ForwardMethod::Masquerade { 2 } else { 1 }
    }

    fn free(&self) -> usize {
        self.maps().conns4().len() * WAYS - self.model.len() * self.entries() - self.dead
    }

    fn packet(&mut self, client: u8) {
        let maps = self.sim.maps();
        let mut flow = Self::flow(client);
        let verdict = resolve(&maps, &mut flow);
        let known = self.model.get(&client).copied();
        // A key's home, whether its tag is in use there, and the ways that are free.
        let home = |key: &Key<V4>| {
            let home = table::home(&maps, key).expect("a set");
            let tags = maps.conns4()[home.set as usize].ways[0].tags.get().to_le_bytes();
            let of = |tag: u64| tags.iter().filter(|byte| u64::from(**byte & 0x7f) == tag).count();
            (home, of(home.tag) != 0, of(0))
        };
        match verdict {
            Verdict::Forward(forward) => {
                assert!(!forward.reply, "the client's packet is not a reply");
                let dest = known.map_or(forward.dest_index, |known| known.dest);
                assert_eq!(forward.dest_index, dest, "client {client} keeps its destination");
                assert_eq!(forward.entry.target.get().to_words(), forward.dest.addr.get());
                assert!(known.is_some() || self.free() >= self.entries());
                commit(&maps, Env::now(&maps), &flow, &forward);
                self.model.insert(client, Known { dest, last: self.now });
            }
            Verdict::Drop(Reason::TableFull) => {
                assert_eq!(known, None, "an established flow goes on in a full table");
                let (own, tagged, free) = home(&flow.key);
                let masqueraded = self.method == ForwardMethod::Masquerade;
                let dests = (1..).zip(&maps.dests()[1..]).filter(|(_, d)| d.family.get() != 0);
                let mut replies = dests.map(|(index, _)| home(&self.reply(client, index)));
                // The place that the client's entry had until the reply's found none is free again.
                let no_reply =
                    replies.any(|(place, tagged, free)| tagged || free <= 1 || place == own);
                assert!(tagged || free == 0 || masqueraded && no_reply);
            }
            Verdict::Drop(reason) | Verdict::Pass(reason) => panic!("{reason:?}"),
        }
    }

    fn end(&mut self, client: u8) {
        let maps = self.sim.maps();
        let found = table::find(&maps, &Self::flow(client).key).map(|(conn, _)| conn);
        assert_eq!(found.is_some(), self.model.contains_key(&client));
        let Some(conn) = found else { return };
        assert!(end(&maps, conn));
        assert!(!end(&maps, conn), "a flow ends once");
        self.model.remove(&client);
        self.dead += self.entries();
    }

    fn sweep(&mut self) {
        let (now, entries) = (self.now, self.entries());
        let before = self.model.len();
        self.model.retain(|_, known| now - known.last < TIMEOUT);
        // The sweeper sees a flow's reply entry either before or after it ends the flow: one
        // that it passed already is cleared the next time.
        let expired = before - self.model.len();
        let pass = self.maps().sweep();
        let cleared = pass.cleared as usize;
        let all = self.dead + expired * entries;
        assert!((self.dead + expired..=all).contains(&cleared), "{cleared} of {all}");
        self.dead = all - cleared;
        assert_eq!(pass.live as usize, self.model.len() * entries + self.dead);
    }

    /// Everything that can be asked gets the model's answer.
    fn check(&self, clients: u8) {
        let maps = self.sim.maps();
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for client in 0..clients {
            let found = table::find(&maps, &Self::flow(client).key);
            let dest = found.map(|(conn, _)| conn.dest.get());
            let known = self.model.get(&client);
            assert_eq!(dest, known.map(|known| known.dest), "client {client}");
            let (Some((conn, index)), Some(known)) = (found, known) else { continue };
            *counts.entry(known.dest).or_default() += 1;
            let reply = table::find(&maps, &self.reply(client, known.dest));
            if self.method != ForwardMethod::Masquerade {
                assert!(reply.is_none());
                continue;
            }
            let (reply, reply_index) = reply.expect("a masqueraded flow has its reply entry");
            assert!(Word(reply.word.get()).has(REPLY));
            assert_eq!((reply.pair.get(), conn.pair.get()), (index + 1, reply_index + 1));
        }
        let service = key(Protocol::Udp, VIP.into());
        let total: u32 = counts.values().sum();
        let mut inactive = 0;
        for dest in &self.dests {
            let status = common::status(&self.sim, &service, dest);
            assert_eq!((status.active_conns, status.persist_conns), (0, 0));
            inactive += status.inactive_conns;
        }
        assert_eq!(inactive, total);
        for (index, count) in counts {
            assert_eq!(maps.dests()[index as usize].inactive.get(), count);
        }
    }

    fn play(&mut self, clients: u8, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Packet(client) => self.packet(client),
                Step::End(client) => self.end(client),
                Step::Wait(ticks) => {
                    self.now += ticks;
                    self.sim.maps().advance(ticks);
                }
                Step::Sweep => self.sweep(),
            }
            self.check(clients);
        }
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_table_with_room_agrees_with_a_map(method in method(), steps in steps(60)) {
        Bench::new(256, method).play(60, &steps);
    }

    #[test]
    fn a_table_that_overflows_agrees_with_a_map(
        sets in prop::sample::select(vec![3u32, 4, 8, 16]), method in method(), steps in steps(60),
    ) {
        Bench::new(sets, method).play(60, &steps);
    }

    #[test]
    fn everything_expires_in_the_end(method in method(), steps in steps(60)) {
        let mut bench = Bench::new(table::LEAST_SETS, method);
        bench.play(60, &steps);
        bench.play(60, &[Step::Wait(TIMEOUT), Step::Sweep, Step::Sweep]);
        prop_assert_eq!(bench.dead, 0);
        // More than there is room for, as some share their tags with others.
        for client in 0..2 * (bench.free() / bench.entries()) as u8 {
            bench.packet(client);
        }
        prop_assert!(bench.free() < bench.entries(), "every entry can be used again");
    }
}
