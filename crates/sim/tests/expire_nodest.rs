//! `expire_nodest_conn`: when the connections of deleted destinations end without a packet of theirs,
//! as Linux 6.1 ended them (`tests/oracle/recorded/expire_nodest.jsonl`).

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rvs_core::control::Datapath;
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Outcome, SimDatapath};
use serde::Deserialize;

use common::{ACK, Packet, SYN, dest, key, put, run, sim};

const RECORDED: &str = include_str!("../../../tests/oracle/recorded/expire_nodest.jsonl");

#[derive(Deserialize)]
struct Row {
    scenario: String,
    step: String,
    /// Addresses of the destinations of the connections that are left.
    left: Vec<String>,
}

/// The recording's services, each with the last bytes of its destinations' addresses.
struct Table {
    sim: SimDatapath,
    services: BTreeMap<u16, Vec<u8>>,
}

impl Table {
    /// Two services with two destinations each, and a connection to each of these.
    fn new() -> Self {
        let services = BTreeMap::from([(80, vec![11, 12]), (81, vec![13, 14])]);
        let mut table = Self { sim: sim(64), services };
        for port in [80, 81] {
            table.put(port);
            for client in [40_000, 40_001] {
                let (client, vip) = (([10, 0, 0, 2], client).into(), ([10, 9, 1, 1], port).into());
                run(&table.sim, &Packet::new(Protocol::Tcp, client, vip, SYN));
            }
        }
        table
    }

    fn put(&mut self, port: u16) {
        let at = |last: &u8| dest(([10, 1, 0, *last], 80).into(), ForwardMethod::Masquerade, 1);
        let dests: Vec<_> = self.services[&port].iter().map(at).collect();
        let service = key(Protocol::Tcp, ([10, 9, 1, 1], port).into());
        put(&mut self.sim, service, Scheduler::Rr, ServiceFlags::empty(), &dests);
    }

    /// Carries out a step: a setting, or a command line of ipvsadm.
    fn step(&mut self, line: &str) {
        if let Some(value) = line.strip_prefix("expire_nodest_conn=") {
            let value = value.parse().expect("a number");
            self.sim.set_sysctl(Sysctl::ExpireNodestConn, value).expect("it can be set");
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |flag: &str| -> Option<SocketAddr> {
            let at = words.iter().position(|word| *word == flag)?;
            Some(words[at + 1].parse().expect("an address and a port"))
        };
        let service = after("-t").expect("a service");
        let last = after("-r").map_or(0, |at| at.ip().to_string()[7..].parse().expect("a byte"));
        let dests = self.services.get_mut(&service.port()).expect("it is there");
        match words[0] {
            "-a" => dests.push(last),
            "-d" => dests.retain(|known| *known != last),
            "-e" => {}
            "-D" => {
                self.sim.remove_service(&key(Protocol::Tcp, service));
                return;
            }
            other => panic!("no command {other}"),
        }
        self.put(service.port());
    }

    fn left(&self) -> Vec<String> {
        self.sim.maps().sweep();
        let mut left = Vec::new();
        self.sim.for_each_conn(&mut |conn| {
            left.push(conn.dest.to_string());
            true
        });
        left.sort_unstable();
        left
    }
}

#[test]
fn connections_of_deleted_destinations_end_when_the_kernels_do() {
    let (mut table, mut scenario, mut rows) = (Table::new(), String::new(), 0);
    for line in RECORDED.lines() {
        let row: Row = serde_json::from_str(line).expect("a recorded row");
        if row.scenario != scenario {
            (table, scenario) = (Table::new(), row.scenario.clone());
        }
        table.step(&row.step);
        assert_eq!(table.left(), row.left, "{}: {}", row.scenario, row.step);
        rows += 1;
    }
    assert_eq!(rows, 31);
}

/// The kernel takes some milliseconds to end them, rvsd up to half a second: meanwhile they lead nowhere.
#[test]
fn they_lead_nowhere_from_the_moment_on_that_the_destination_is_deleted() {
    for (set, goes_on) in [("expire_nodest_conn=0", true), ("expire_nodest_conn=1", false)] {
        let mut table = Table::new();
        let from = |last| ([10, 1, 0, last], 80).into();
        let client = ([10, 0, 0, 2], 40_000).into();
        let reply = |last| Packet::new(Protocol::Tcp, from(last), client, SYN | ACK);
        let answers = |last: &u8| run(&table.sim, &reply(*last)).0 == Outcome::Sent;
        let last = [11, 12].into_iter().find(answers).expect("a destination");
        table.step(set);
        table.step(&format!("-d -t 10.9.1.1:80 -r 10.1.0.{last}:80"));
        let outcome = run(&table.sim, &reply(last)).0;
        if goes_on {
            assert_eq!(outcome, Outcome::Sent);
        } else {
            assert_eq!(outcome, Outcome::Pass(Reason::NotOurs));
        }
    }
}
