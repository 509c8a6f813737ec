//! Persistence: connections of one network go to one destination while its template lives.

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use common::{Packet, cases, dest, key, run, sim, status};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::control::{Change, ConnRow, Datapath};
use rvs_core::proto::udp;
use rvs_core::reason::Reason;
use rvs_core::time::ticks;
use rvs_core::types::{
    DestConfig, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Outcome, SimDatapath};

const VIP: ([u8; 4], u16) = ([192, 0, 2, 1], 53);

#[derive(Clone, Debug)]
enum Step {
    /// A packet from a host of a network, from a port.
    Packet(u8, u8, u16),
    /// So many seconds pass.
    Wait(u32),
    /// A sweep.
    Sweep,
    /// A server's weight changes.
    Weight(usize, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0u8..4, 1u8..4, 1000u16..1004).prop_map(|(n, h, p)| Step::Packet(n, h, p)),
        3 => prop_oneof![1u32..150, Just(udp::DEFAULT_TIMEOUT)].prop_map(Step::Wait),
        3 => Just(Step::Sweep),
        2 => (0usize..4, 0u32..3).prop_map(|(server, weight)| Step::Weight(server, weight)),
    ];
    vec(step, 1..150)
}

struct Bench {
    sim: SimDatapath,
    config: ServiceConfig,
    servers: Vec<DestConfig>,
    /// The server of each network's template, and when it was last started: by a connection that
    /// it scheduled, or by its connections when it expired.
    templates: HashMap<u8, (IpAddr, u32)>,
    /// Networks whose template expired while it had connections (true): it lasts a minute from then
    /// on; or while it may have had some (false), which depends on what was swept first.
    shortened: HashMap<u8, bool>,
    /// Flows with their server and the tick of their last packet.
    flows: HashMap<(u8, SocketAddr), (IpAddr, u32)>,
    now: u32,
}

fn service() -> ServiceKey {
    key(Protocol::Udp, VIP.into())
}

fn client(network: u8, host: u8, port: u16) -> SocketAddr {
    ([203, 0, network, host], port).into()
}

impl Bench {
    fn new(scheduler: Scheduler, timeout: u32, method: ForwardMethod) -> Self {
        let server = |last| dest(([10, 0, 0, last], 53).into(), method, 1);
        // With fallback sh refuses nobody while a server is there; the others know no such flag.
        let flags = ServiceFlags::PERSISTENT | ServiceFlags::SCHED1;
        let config =
            ServiceConfig { scheduler, flags, timeout, netmask: 0xffff_ff00, engine: None };
        let servers = (1..5).map(server).collect();
        let (templates, flows, shortened) = (HashMap::new(), HashMap::new(), HashMap::new());
        let sim = sim(64);
        let mut bench = Self { sim, config, servers, templates, shortened, flows, now: 0 };
        bench.put();
        bench
    }

    fn put(&mut self) {
        let put = self.sim.put_service(&service(), &self.config, &self.servers, Change::Dests);
        put.expect("there is room");
    }

    fn rows(&self) -> Vec<ConnRow> {
        let mut rows = Vec::new();
        self.sim.for_each_conn(&mut |row| {
            rows.push(*row);
            true
        });
        rows
    }

    /// How long a network's template lasts at least, in ticks.
    fn lifetime(&self, network: u8) -> u32 {
        ticks(if self.shortened.contains_key(&network) { 60 } else { self.config.timeout })
    }

    /// The template's server, if the template must be there: it is young, or connections that it
    /// controls are.
    fn held(&self, network: u8) -> Option<IpAddr> {
        let (server, last) = *self.templates.get(&network)?;
        let young = self.now - last < self.lifetime(network);
        let controls = self.flows.keys().any(|(of, _)| *of == network);
        (young || controls).then_some(server)
    }

    fn packet(&mut self, network: u8, host: u8, port: u16) {
        let from = client(network, host, port);
        let held = self.held(network);
        let known = self.flows.get(&(network, from)).map(|(server, _)| *server);
        let outcome = run(&self.sim, &Packet::new(Protocol::Udp, from, VIP.into(), 0)).0;
        if outcome == Outcome::Drop(Reason::NoDest) {
            assert_eq!((held, known), (None, None));
            assert!(self.servers.iter().all(|server| server.weight == 0));
            return;
        }
        assert_eq!(outcome, Outcome::Sent);
        let rows = self.rows();
        let mut rows = rows.iter().filter(|row| !row.template);
        let row = rows.find(|row| (row.client, row.client_port) == (from.ip(), from.port()));
        let server = row.expect("a packet that was sent has a connection").dest;
        assert_eq!(server, known.or(held).unwrap_or(server));
        self.flows.insert((network, from), (server, self.now));
        if known.is_none() {
            self.templates.insert(network, (server, self.now));
        }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Packet(network, host, port) => self.packet(network, host, port),
            Step::Wait(seconds) => {
                self.now += ticks(seconds);
                self.sim.maps().advance(ticks(seconds));
            }
            Step::Sweep => {
                self.sim.maps().sweep();
                let now = self.now;
                self.flows.retain(|_, (_, last)| now - *last < ticks(udp::DEFAULT_TIMEOUT));
                let expired = |(network, (_, last)): &(u8, (IpAddr, u32))| {
                    now - *last >= self.lifetime(*network)
                };
                let all = self.templates.iter().map(|(network, template)| (*network, *template));
                for (network, (server, _)) in all.filter(expired).collect::<Vec<_>>() {
                    let controls = self.flows.keys().any(|(of, _)| *of == network);
                    match self.shortened.get(&network) {
                        // It may have lasted longer: from now on only its connections hold it.
                        Some(false) if controls => {}
                        _ if controls => {
                            self.shortened.insert(network, true);
                            self.templates.insert(network, (server, now));
                        }
                        _ => {
                            self.shortened.insert(network, false);
                            self.templates.remove(&network);
                        }
                    }
                }
            }
            Step::Weight(server, weight) => {
                self.servers[server].weight = weight;
                self.put();
            }
        }
        self.check();
    }

    /// Connections and templates are counted where they are listed.
    fn check(&self) {
        let rows = self.rows();
        assert_eq!(rows.iter().filter(|row| !row.template).count(), self.flows.len());
        for server in &self.servers {
            let here = rows.iter().filter(|row| row.dest == server.key.addr);
            let (templates, conns): (Vec<&ConnRow>, Vec<&ConnRow>) =
                here.partition(|row| row.template);
            let live = status(&self.sim, &service(), server);
            assert_eq!(live.persist_conns as usize, templates.len());
            assert_eq!(live.inactive_conns as usize, conns.len());
        }
        for row in rows.iter().filter(|row| row.template) {
            let IpAddr::V4(network) = row.client else { panic!("{row:?}") };
            assert_eq!((network.octets()[3], row.client_port), (0, 0), "masked: {row:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_network_stays_with_its_server(
        scheduler in prop::sample::select(vec![Scheduler::Rr, Scheduler::Wlc, Scheduler::Sh]),
        timeout in prop::sample::select(vec![60u32, 300, 1000]),
        method in prop::sample::select(vec![ForwardMethod::Masquerade, ForwardMethod::DirectRoute]),
        steps in steps(),
    ) {
        let mut bench = Bench::new(scheduler, timeout, method);
        for step in &steps {
            bench.play(step);
        }
        // However long the templates last: one minute after their connections they end.
        for _ in 0..3 {
            bench.play(&Step::Wait(1000));
            bench.play(&Step::Sweep);
        }
        prop_assert_eq!(bench.rows(), []);
    }
}

#[test]
fn a_template_of_a_server_that_left_gives_way() {
    let mut bench = Bench::new(Scheduler::Rr, 300, ForwardMethod::DirectRoute);
    bench.packet(1, 1, 1000);
    let (first, _) = bench.templates[&1];
    bench.servers.retain(|server| server.key.addr != first);
    bench.put();
    bench.templates.clear();
    bench.packet(1, 2, 1000);
    let (second, _) = bench.templates[&1];
    assert_ne!(second, first);
    bench.flows.retain(|_, (server, _)| *server == second);
    bench.packet(1, 3, 1000);
    assert_eq!(bench.templates[&1].0, second);
}
