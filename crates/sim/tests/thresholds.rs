//! What other thresholds do to a destination with connections, as the kernel answered.

mod common;

use common::{Packet, SYN, dest, key, put, run, sim};
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Outcome, SimDatapath};
use serde::Deserialize;

const RECORDED: &str = include_str!("../../../tests/oracle/recorded/thresholds.jsonl");
const VIP: ([u8; 4], u16) = ([192, 0, 2, 1], 80);

/// Thresholds are upper and lower.
#[derive(Deserialize)]
struct Row {
    before: [u32; 2],
    /// SYNs that came before the change, and how many of them the destination took.
    sent: u16,
    conns: usize,
    after: [u32; 2],
    /// How many of three more it took.
    then: usize,
}

fn set(sim: &mut SimDatapath, [upper_threshold, lower_threshold]: [u32; 2]) {
    let server = dest(([10, 0, 0, 1], 8080).into(), ForwardMethod::Masquerade, 1);
    let server = DestConfig { upper_threshold, lower_threshold, ..server };
    let service = key(Protocol::Tcp, VIP.into());
    put(sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
}

/// How many of these clients' ports get a connection.
fn taken(sim: &SimDatapath, ports: std::ops::Range<u16>) -> usize {
    let syn = |port| Packet::new(Protocol::Tcp, ([203, 0, 113, 7], port).into(), VIP.into(), SYN);
    ports.filter(|port| run(sim, &syn(*port)).0 == Outcome::Sent).count()
}

#[test]
fn changed_thresholds_hold_for_the_connections_there_are() {
    let mut rows = 0;
    for line in RECORDED.lines() {
        let row: Row = serde_json::from_str(line).expect("a recorded row");
        let mut sim = sim(16);
        set(&mut sim, row.before);
        assert_eq!(taken(&sim, 1000..1000 + row.sent), row.conns, "{line}");
        set(&mut sim, row.after);
        assert_eq!(taken(&sim, 2000..2003), row.then, "{line}");
        rows += 1;
    }
    assert_eq!(rows, 270);
}

/// So many flows, then single packets (`-E -o`): which of them went on.
#[derive(Deserialize)]
struct Single {
    flows: u16,
    thresholds: [u32; 2],
    taken: usize,
    then: Vec<usize>,
}

#[test]
fn a_single_packet_may_be_one_too_many() {
    let recorded = include_str!("../../../tests/oracle/recorded/ops_full.jsonl");
    for line in recorded.lines() {
        let row: Single = serde_json::from_str(line).expect("a recorded row");
        let [upper_threshold, lower_threshold] = row.thresholds;
        let server = dest(([10, 0, 0, 1], 8080).into(), ForwardMethod::Masquerade, 1);
        let servers = [DestConfig { upper_threshold, lower_threshold, ..server }];
        let service = key(Protocol::Udp, VIP.into());
        let mut sim = sim(16);
        let is_sent = |sim: &SimDatapath, port: u16| {
            let packet = Packet::new(Protocol::Udp, ([203, 0, 113, 7], port).into(), VIP.into(), 0);
            run(sim, &packet).0 == Outcome::Sent
        };
        put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &servers);
        let taken = (1000..).take(row.flows.into()).filter(|port| is_sent(&sim, *port)).count();
        assert_eq!(taken, row.taken, "{line}");
        put(&mut sim, service, Scheduler::Rr, ServiceFlags::ONEPACKET, &servers);
        let then = (2000..).take(row.then.len()).map(|port| is_sent(&sim, port).into());
        assert_eq!(then.collect::<Vec<usize>>(), row.then, "{line}");
    }
    assert_eq!(recorded.lines().count(), 48);
}
