//! What wrr picks after it found all destinations overloaded, as the kernel does.

mod common;

use common::{Packet, dest, key, put, run, sim};
use rvs_core::time::ticks;
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Outcome, SimDatapath};
use serde::Deserialize;

const RECORDED: &str = include_str!("../../../tests/oracle/recorded/wrr_full.jsonl");
const VIP: ([u8; 4], u16) = ([10, 9, 1, 1], 53);

/// Weights and upper thresholds of 10.1.0.11 and so on, and where packets of so many clients went: as
/// long as destinations took them, to nowhere, and once all was over.
#[derive(Deserialize)]
struct Row {
    weights: Vec<u32>,
    limits: Vec<u32>,
    fill: Vec<String>,
    refused: Vec<String>,
    then: Vec<String>,
}

/// Where packets of clients from this port on go to.
fn picks(sim: &SimDatapath, port: u16, count: usize) -> Vec<String> {
    let clients = (port..).take(count).map(|port| ([10, 0, 0, 2], port).into());
    let packets = clients.map(|at| Packet::new(Protocol::Udp, at, VIP.into(), 0));
    let to = |packet: Packet| match run(sim, &packet) {
        (Outcome::Sent, frame) => {
            let [a, b, c, d] = [30, 31, 32, 33].map(|at| frame[at]);
            format!("{a}.{b}.{c}.{d}")
        }
        _ => "-".into(),
    };
    packets.map(to).collect()
}

#[test]
fn after_a_search_in_vain_wrr_goes_on_where_the_kernel_does() {
    let mut rows = 0;
    for line in RECORDED.lines() {
        let row: Row = serde_json::from_str(line).expect("a recorded row");
        let (mut sim, mut dests) = (sim(16), Vec::<DestConfig>::new());
        for (last, (weight, limit)) in (11..).zip(row.weights.iter().zip(&row.limits)) {
            let at = ([10, 1, 0, last], 80).into();
            let new = dest(at, ForwardMethod::Masquerade, *weight);
            dests.insert(0, DestConfig { upper_threshold: *limit, ..new });
            let service = key(Protocol::Udp, VIP.into());
            put(&mut sim, service, Scheduler::Wrr, ServiceFlags::empty(), &dests);
        }
        assert_eq!(picks(&sim, 1000, row.fill.len()), row.fill, "{line}");
        assert_eq!(picks(&sim, 2000, row.refused.len()), row.refused, "{line}");
        sim.maps().advance(ticks(300));
        sim.maps().sweep();
        assert_eq!(picks(&sim, 3000, row.then.len()), row.then, "{line}");
        rows += 1;
    }
    assert_eq!(rows, 42);
}
