//! A connection in the place of one that is over: whom the scheduler takes for it, as the kernel did. The
//! old one still counts at its destination then.

mod common;

use common::{ACK, Packet, RST, SYN, dest, key, put, run, sim, status};
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::Outcome;
use serde::Deserialize;

const RECORDED: &str = include_str!("../../../tests/oracle/recorded/reuse_counts.jsonl");
const VIP: ([u8; 4], u16) = ([10, 9, 1, 1], 80);

#[derive(Deserialize)]
struct Row {
    method: String,
    scheduler: String,
    /// The one destination's threshold; 0 is for two destinations without.
    upper: u32,
    /// Who took each SYN of the client's port.
    took: Vec<Option<usize>>,
}

#[test]
fn what_is_over_counts_until_its_place_is_taken() {
    let mut rows = 0;
    for line in RECORDED.lines() {
        let row: Row = serde_json::from_str(line).expect("a recorded row");
        let mut sim = sim(16);
        let service = key(Protocol::Tcp, VIP.into());
        let method = match row.method.as_str() {
            "m" => ForwardMethod::Masquerade,
            _ => ForwardMethod::DirectRoute,
        };
        let scheduler = Scheduler::from_name(&row.scheduler).expect("one of them");
        let server = |host: u8| DestConfig {
            upper_threshold: row.upper,
            ..dest(([10, 1, 0, 11 + host], 80).into(), method, 1)
        };
        let servers: Vec<DestConfig> =
            (0..if row.upper == 0 { 2 } else { 1 }).map(server).collect();
        // The one that was added last is first.
        let listed: Vec<DestConfig> = servers.iter().rev().cloned().collect();
        put(&mut sim, service, scheduler, ServiceFlags::empty(), &listed);
        let packet =
            |flags| Packet::new(Protocol::Tcp, ([10, 0, 0, 2], 30001).into(), VIP.into(), flags);
        for took in &row.took {
            let sent = run(&sim, &packet(SYN)).0 == Outcome::Sent;
            let has_it = |server: &DestConfig| {
                let status = status(&sim, &service, server);
                status.active_conns + status.inactive_conns == 1
            };
            let taken = sent.then(|| servers.iter().position(has_it)).flatten();
            assert_eq!(taken, *took, "{line}");
            run(&sim, &packet(ACK));
            run(&sim, &packet(RST));
        }
        rows += 1;
    }
    assert_eq!(rows, 20);
}
