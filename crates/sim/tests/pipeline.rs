//! Random packets through the whole data path: states, counts and counters are those of a model
//! that keeps connections in a map, and no bytes make it panic.

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use common::{ACK, FIN, Packet, RST, SYN, cases, dest, key, put, run, sim};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::control::{Datapath, Stats};
use rvs_core::proto::Direction;
use rvs_core::proto::tcp::{Event, State, is_active, next};
use rvs_core::reason::Reason;
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Frame, Outcome, SimDatapath};

/// One packet of a client to a service, or what its destination answers.
#[derive(Clone, Debug)]
struct Step {
    client: u8,
    protocol: Protocol,
    reply: bool,
    flags: u8,
    payload: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop_oneof![
        4 => prop::sample::select(vec![SYN, ACK, SYN | ACK, FIN | ACK, FIN, RST, 0]),
        1 => any::<u8>().prop_map(|bits| bits & (SYN | ACK | FIN | RST)),
    ];
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp]);
    let step = (0u8..8, protocol, prop::bool::weighted(0.4), flags, 0usize..100).prop_map(
        |(client, protocol, reply, flags, payload)| Step {
            client,
            protocol,
            reply,
            flags,
            payload,
        },
    );
    vec(step, 1..200)
}

/// A connection as the model has it.
#[derive(Clone, Copy, Debug)]
struct Known {
    server: usize,
    /// TCP's; UDP has none.
    state: u32,
    /// Whether its replies come through the director: it is masqueraded.
    both_ways: bool,
}

struct Bench {
    sim: SimDatapath,
    v6: bool,
    servers: Vec<DestConfig>,
    model: HashMap<(Protocol, u8), Known>,
    stats: HashMap<(Protocol, usize), Stats>,
}

impl Bench {
    fn new(v6: bool, scheduler: Scheduler, methods: &[ForwardMethod]) -> Self {
        let mut sim = sim(64);
        let servers: Vec<DestConfig> = (11u8..)
            .zip(methods)
            .map(|(last, method)| {
                let port = if *method == ForwardMethod::Masquerade { 8080 } else { 80 };
                // More than there are clients: ovf takes no more connections than weight.
                let weight = 16 * u32::from(last % 3 + 1);
                dest(SocketAddr::new(address(v6, last), port), *method, weight)
            })
            .collect();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            put(&mut sim, key(protocol, vip(v6)), scheduler, ServiceFlags::empty(), &servers);
        }
        Self { sim, v6, servers, model: HashMap::new(), stats: HashMap::new() }
    }

    fn client(&self, client: u8) -> SocketAddr {
        SocketAddr::new(address(self.v6, 100 + client), 4000)
    }

    /// Which server a connection went to, as the list of connections has it.
    fn server_of(&self, protocol: Protocol, client: u8) -> usize {
        let at = self.client(client);
        let mut found = None;
        self.sim.for_each_conn(&mut |row| {
            if row.protocol == protocol as u8
                && (row.client, row.client_port) == (at.ip(), at.port())
            {
                assert_eq!(found, None, "one connection for one flow");
                found = self.servers.iter().position(|server| server.key.addr == row.dest);
            }
            true
        });
        found.expect("a connection that was just opened is listed")
    }

    fn play(&mut self, step: &Step) {
        let Step { client, protocol, reply, flags, payload } = *step;
        let (id, tcp) = ((protocol, client), protocol == Protocol::Tcp);
        let known = self.model.get(&id).copied();
        let flags = if tcp { flags } else { 0 };
        let at = self.client(client);
        let packet = |src, dst| Packet {
            payload: vec![client; payload],
            ..Packet::new(protocol, src, dst, flags)
        };
        if reply {
            let Some(mut known) = known else { return };
            let server = self.servers[known.server];
            if server.forward != ForwardMethod::Masquerade {
                return;
            }
            let packet = packet(SocketAddr::new(server.key.addr, server.key.port), at);
            let expected = Packet { src: vip(self.v6), ttl: 63, ..packet.clone() };
            assert_eq!(run(&self.sim, &packet), (Outcome::Sent, expected.build()));
            if tcp {
                known.state = next(false, Direction::Output, known.state, Event::of(flags));
            }
            self.model.insert(id, known);
            let stats = self.stats.entry((protocol, known.server)).or_default();
            stats.out_pkts += 1;
            stats.out_bytes += packet.len();
            return;
        }
        let over = |known: &Known| {
            let state = known.state;
            state == State::TimeWait as u32 || state == State::Close as u32
        };
        let opens = tcp && flags & SYN != 0;
        // What ended has to make room for the next of the same flow, at the latest for the seventh.
        if opens && known.as_ref().is_some_and(over) {
            self.sim.maps().sweep();
        }
        let known = known.filter(|known| !(opens && over(known)));
        if known.is_none() {
            self.model.remove(&id);
        }
        let packet = packet(at, vip(self.v6));
        let (outcome, frame) = run(&self.sim, &packet);
        if known.is_none() && tcp && flags & (SYN | RST) != SYN {
            assert_eq!((outcome, frame), (Outcome::Pass(Reason::NoConnection), packet.build()));
            return;
        }
        assert_eq!(outcome, Outcome::Sent);
        let mut now = known.unwrap_or_else(|| {
            let server = self.server_of(protocol, client);
            let masquerade = self.servers[server].forward == ForwardMethod::Masquerade;
            Known { server, state: State::None as u32, both_ways: masquerade }
        });
        if tcp {
            let direction = if now.both_ways { Direction::Input } else { Direction::InputOnly };
            now.state = next(false, direction, now.state, Event::of(flags));
        }
        let server = self.servers[now.server];
        let dst = match server.forward {
            ForwardMethod::Masquerade => SocketAddr::new(server.key.addr, server.key.port),
            _ => packet.dst,
        };
        assert_eq!(frame, Packet { dst, ttl: 63, ..packet.clone() }.build());
        self.model.insert(id, now);
        let stats = self.stats.entry((protocol, now.server)).or_default();
        stats.conns += u64::from(known.is_none());
        stats.in_pkts += 1;
        stats.in_bytes += packet.len();
    }

    /// States, counts and counters, all of them.
    fn check(&self) {
        let mut listed = HashMap::new();
        self.sim.for_each_conn(&mut |row| {
            listed.insert((row.protocol, row.client), row.state);
            true
        });
        assert_eq!(listed.len(), self.model.len());
        for ((protocol, client), known) in &self.model {
            let state = match protocol {
                Protocol::Tcp => State::ALL[known.state as usize].name(),
                _ => "UDP",
            };
            assert_eq!(listed[&(*protocol as u8, self.client(*client).ip())], state);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let service = key(protocol, vip(self.v6));
            let mut total = Stats::default();
            for (index, server) in self.servers.iter().enumerate() {
                let all = self.model.iter().filter(|(id, k)| id.0 == protocol && k.server == index);
                let (active, inactive): (Vec<_>, Vec<_>) =
                    all.partition(|(_, k)| protocol == Protocol::Tcp && is_active(k.state));
                let status = common::status(&self.sim, &service, server);
                assert_eq!(status.active_conns as usize, active.len(), "{protocol:?} {index}");
                assert_eq!(status.inactive_conns as usize, inactive.len(), "{protocol:?} {index}");
                let stats = self.stats.get(&(protocol, index)).copied().unwrap_or_default();
                assert_eq!(status.stats, stats, "{protocol:?} {index}");
                total = Stats {
                    conns: total.conns + stats.conns,
                    in_pkts: total.in_pkts + stats.in_pkts,
                    out_pkts: total.out_pkts + stats.out_pkts,
                    in_bytes: total.in_bytes + stats.in_bytes,
                    out_bytes: total.out_bytes + stats.out_bytes,
                };
            }
            assert_eq!(self.sim.service_stats(&service), total);
        }
    }
}

fn address(v6: bool, last: u8) -> IpAddr {
    if v6 {
        [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last].into()
    } else {
        [192, 0, 2, last].into()
    }
}

fn vip(v6: bool) -> SocketAddr {
    SocketAddr::new(address(v6, 1), 80)
}

/// Bytes to change: anywhere, the IPv4 header's length, a packet's length.
fn damage() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let header = (0x44u8..0x50).prop_map(|byte| (14, byte));
    let length = (prop::sample::select(vec![17usize, 19]), 0u8..80);
    vec(prop_oneof![2 => (14usize..90, any::<u8>()), 1 => header, 2 => length], 0..4)
}

/// Whether both headers are within the packet and the packet within the frame.
fn headers_fit(frame: &[u8], v6: bool) -> bool {
    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (header, len, protocol) = if v6 {
        let len = if number(18) == 0 { frame.len() - 14 } else { 40 + number(18) };
        (40, len, frame[20])
    } else {
        (usize::from(frame[14] & 15) * 4, number(16), frame[23])
    };
    let transport = if protocol == Protocol::Tcp as u8 { 20 } else { 8 };
    header >= 20 && header + transport <= len && len <= frame.len() - 14
}

fn methods() -> impl Strategy<Value = Vec<ForwardMethod>> {
    let method = prop::sample::select(vec![ForwardMethod::Masquerade, ForwardMethod::DirectRoute]);
    vec(method, 1..6)
}

fn schedulers() -> impl Strategy<Value = Scheduler> {
    let all =
        Scheduler::ALL.iter().copied().filter(|s| !matches!(s, Scheduler::None | Scheduler::Ovf));
    prop::sample::select(all.collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn states_counts_and_counters_add_up(
        v6: bool, scheduler in schedulers(), methods in methods(), steps in steps(),
    ) {
        let mut bench = Bench::new(v6, scheduler, &methods);
        for step in &steps {
            bench.play(step);
        }
        bench.check();
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn no_bytes_panic_and_none_that_stay_are_touched(
        bytes in vec(any::<u8>(), 0..200), ethertype in prop::sample::select(vec![0x0800u16, 0x86dd]),
    ) {
        let mut bytes = bytes;
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&ethertype.to_be_bytes());
        }
        let bench = Bench::new(false, Scheduler::Rr, &[ForwardMethod::Masquerade]);
        let mut frame = Frame::new(&bytes);
        prop_assert_ne!(bench.sim.maps().run(&mut frame), Outcome::Sent, "a service by chance");
        prop_assert_eq!(frame.bytes(), bytes);
    }

    #[test]
    fn a_damaged_packet_is_sent_whole_or_left_alone(
        v6: bool, protocol in prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]),
        payload in 0usize..60, damage in damage(), cut in 10usize..150,
    ) {
        let bench = Bench::new(v6, Scheduler::Rr, &[ForwardMethod::Masquerade]);
        let client = bench.client(0);
        let packet =
            Packet { payload: vec![7; payload], ..Packet::new(protocol, client, vip(v6), SYN) };
        let mut bytes = packet.build();
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        let mut frame = Frame::new(&bytes);
        match bench.sim.maps().run(&mut frame) {
            Outcome::Sent => {
                prop_assert_eq!(frame.bytes().len(), bytes.len());
                prop_assert!(headers_fit(&bytes, v6), "{:x?}", bytes);
            }
            Outcome::Pass(_) | Outcome::Drop(_) | Outcome::Held => {
                prop_assert_eq!(frame.bytes(), bytes);
            }
        }
    }
}
