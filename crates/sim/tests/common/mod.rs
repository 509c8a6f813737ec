//! Packets built by a library that is not ours, and a data path to give them to.
#![allow(dead_code, reason = "each test uses its part")]

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use proptest::test_runner::{Config, FileFailurePersistence};
use rvs_core::control::{Change, Datapath, DestStatus};
use rvs_core::types::{
    DestConfig, DestKey, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};

pub use rvs_wire::tcp_flags::{ACK, FIN, RST, SYN};

/// `cases` random cases, or `PROPTEST_CASES`; what fails is written beside the test and tried
/// first from then on.
pub fn cases(cases: u32) -> Config {
    let wanted = std::env::var("PROPTEST_CASES").map(|text| text.parse().expect("a number"));
    let cases = wanted.unwrap_or(cases);
    let persistence = FileFailurePersistence::WithSource("regressions");
    Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() }
}

/// What a packet says.
#[derive(Clone, Debug)]
pub struct Packet {
    pub protocol: Protocol,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    /// TCP flags; nothing for UDP.
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet with TTL 64 and no payload.
    pub fn new(protocol: Protocol, src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self { protocol, src, dst, ttl: 64, flags, payload: Vec::new() }
    }

    /// The frame, all its checksums right.
    pub fn build(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), self.ttl),
            (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), self.ttl),
            _ => panic!("mixed address families"),
        };
        let (sport, dport) = (self.src.port(), self.dst.port());
        let mut bytes = Vec::new();
        if self.protocol == Protocol::Udp {
            builder.udp(sport, dport).write(&mut bytes, &self.payload).expect("memory");
            return bytes;
        }
        let mut tcp = builder.tcp(sport, dport, 1000, 65_000);
        let has = |flag| self.flags & flag != 0;
        if has(SYN) {
            tcp = tcp.syn();
        }
        if has(ACK) {
            tcp = tcp.ack(2000);
        }
        if has(FIN) {
            tcp = tcp.fin();
        }
        if has(RST) {
            tcp = tcp.rst();
        }
        tcp.write(&mut bytes, &self.payload).expect("memory");
        bytes
    }

    /// Length from the IP header on.
    pub fn len(&self) -> u64 {
        self.build().len() as u64 - 14
    }
}

/// A data path with tables of so many sets.
pub fn sim(sets: u32) -> SimDatapath {
    let sizes = Sizes { sets, services: 8, destinations: 256 };
    SimDatapath::adopt(Plain::new(&sizes, 0x5eed))
}

/// Processes a packet; the frame afterwards.
pub fn run(sim: &SimDatapath, packet: &Packet) -> (Outcome, Vec<u8>) {
    let mut frame = Frame::new(&packet.build());
    let outcome = sim.maps().run(&mut frame);
    (outcome, frame.bytes().to_vec())
}

/// A service's key.
pub fn key(protocol: Protocol, at: SocketAddr) -> ServiceKey {
    ServiceKey::Address { protocol, addr: at.ip(), port: at.port() }
}

/// A destination without thresholds.
pub fn dest(at: SocketAddr, forward: ForwardMethod, weight: u32) -> DestConfig {
    DestConfig {
        key: DestKey { addr: at.ip(), port: at.port() },
        forward,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel_type: 0,
        tunnel_port: 0,
        tunnel_flags: 0,
    }
}

/// Puts a service in force; its destinations in the order in which schedulers see them.
pub fn put(
    sim: &mut SimDatapath,
    key: ServiceKey,
    scheduler: Scheduler,
    flags: ServiceFlags,
    dests: &[DestConfig],
) {
    let config = ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
    sim.put_service(&key, &config, dests, Change::Dests).expect("there is room");
}

/// Live numbers of a destination.
pub fn status(sim: &SimDatapath, key: &ServiceKey, dest: &DestConfig) -> DestStatus {
    sim.dest_status(key, &dest.key)
}
