//! When masqueraded connections expire: their last packet says it, from whichever side, although
//! replies leave the connection's own entry alone while they change nothing.

mod common;

use std::net::SocketAddr;

use common::{ACK, FIN, Packet, SYN, dest, key, put, run, sim};
use rvs_core::control::Datapath;
use rvs_core::time::ticks;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags, Timeouts};
use rvs_sim::{Outcome, SimDatapath};

const CLIENT: ([u8; 4], u16) = ([203, 0, 113, 7], 4000);
const VIP: ([u8; 4], u16) = ([192, 0, 2, 1], 80);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 8080);

struct Bench {
    sim: SimDatapath,
    protocol: Protocol,
}

impl Bench {
    fn new(protocol: Protocol) -> Self {
        let mut sim = sim(64);
        let server = dest(SERVER.into(), ForwardMethod::Masquerade, 1);
        let service = key(protocol, VIP.into());
        put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
        Self { sim, protocol }
    }

    /// One whose handshake is over.
    fn established() -> Self {
        let bench = Self::new(Protocol::Tcp);
        bench.client(SYN);
        bench.server(SYN | ACK);
        bench.client(ACK);
        bench
    }

    fn send(&self, src: SocketAddr, dst: SocketAddr, flags: u8) {
        let packet = Packet::new(self.protocol, src, dst, flags);
        let (outcome, _) = run(&self.sim, &packet);
        assert!(matches!(outcome, Outcome::Sent), "{packet:?}: {outcome:?}");
    }

    fn client(&self, flags: u8) {
        self.send(CLIENT.into(), VIP.into(), flags);
    }

    fn server(&self, flags: u8) {
        self.send(SERVER.into(), CLIENT.into(), flags);
    }

    fn wait(&self, seconds: u32) {
        self.sim.maps().advance(ticks(seconds));
        self.sim.maps().sweep();
    }

    /// State and seconds left, if the connection lives.
    fn row(&self) -> Option<(&'static str, u32)> {
        let mut rows = Vec::new();
        self.sim.for_each_conn(&mut |row| {
            rows.push((row.state, row.expires));
            true
        });
        assert!(rows.len() < 2, "{rows:?}");
        rows.pop()
    }

    fn expect(&self, state: &str, seconds: u32) {
        let (found, left) = self.row().expect("it lives");
        assert_eq!(found, state);
        assert!(left.abs_diff(seconds) <= 1, "{left} s left, not {seconds}");
    }
}

#[test]
fn replies_keep_a_connection_and_its_end_ends_it() {
    let bench = Bench::established();
    bench.expect("ESTABLISHED", 900);
    for _ in 0..3 {
        bench.wait(600);
        bench.server(ACK);
        bench.expect("ESTABLISHED", 900);
    }
    // The time that replies have given it is over with the client's FIN.
    bench.client(FIN | ACK);
    bench.expect("CLOSE_WAIT", 60);
    bench.server(FIN | ACK);
    bench.expect("TIME_WAIT", 120);
    bench.wait(121);
    assert_eq!(bench.row(), None);
}

#[test]
fn a_reset_of_the_server_ends_it() {
    let bench = Bench::established();
    bench.server(ACK);
    bench.server(common::RST);
    bench.expect("CLOSE", 10);
    bench.client(ACK);
    bench.wait(11);
    assert_eq!(bench.row(), None);
}

#[test]
fn replies_keep_a_udp_flow() {
    let bench = Bench::new(Protocol::Udp);
    bench.client(0);
    for _ in 0..4 {
        bench.wait(200);
        bench.server(0);
        bench.expect("UDP", 300);
    }
    bench.wait(301);
    assert_eq!(bench.row(), None);
}

#[test]
fn a_shorter_timeout_holds_from_the_next_packet_on() {
    for from_client in [true, false] {
        let mut bench = Bench::established();
        bench.server(ACK);
        let timeouts = Timeouts { tcp: 100, tcp_fin: 120, udp: 300 };
        bench.sim.set_timeouts(timeouts).expect("in memory");
        bench.expect("ESTABLISHED", 900);
        if from_client {
            bench.client(ACK)
        } else {
            bench.server(ACK)
        }
        bench.expect("ESTABLISHED", 100);
    }
}
