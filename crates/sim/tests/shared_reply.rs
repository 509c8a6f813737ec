//! Two services that share a destination, and a client that uses one port for both: what the
//! destination answers goes where the kernel sends it.

mod common;

use common::{dest, key, put, sim};
use rvs_core::control::Datapath;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Frame, Outcome};
use serde::Deserialize;

const RECORDED: &str = include_str!("../../../tests/oracle/recorded/shared_reply.jsonl");
const ETHERNET: usize = 14;

#[derive(Deserialize)]
struct Row {
    case: String,
    protocol: String,
    #[serde(rename = "in")]
    given: Sent,
    to_client: Vec<Sent>,
    to_server: Vec<Sent>,
    conns: Vec<Conn>,
}

#[derive(Clone, Deserialize)]
struct Sent {
    frame: String,
}

/// A row of the kernel's connection table.
#[derive(Deserialize)]
struct Conn {
    proto: String,
    vp: u16,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&self.frame[at..at + 2], 16).expect("hex");
        (0..self.frame.len()).step_by(2).map(digits).collect()
    }
}

#[test]
fn replies_of_a_shared_destination_belong_to_the_newer_connection() {
    let mut rows = 0;
    for (name, protocol) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)] {
        let mut sim = sim(16);
        for port in [101u16, 102] {
            let service = key(protocol, ([10, 9, 1, 1], port).into());
            let server = dest(([10, 1, 0, 11], 80).into(), ForwardMethod::Masquerade, 1);
            put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
        }
        let all = RECORDED.lines().map(|line| serde_json::from_str(line).expect("a recorded row"));
        for row in all.filter(|row: &Row| row.protocol == name) {
            let mut frame = Frame::new(&row.given.bytes());
            assert_eq!(sim.maps().run(&mut frame), Outcome::Sent, "{}", row.case);
            let [expected] = &[row.to_client, row.to_server].concat()[..] else {
                panic!("one frame: {}", row.case);
            };
            assert_eq!(frame.bytes()[ETHERNET..], expected.bytes()[ETHERNET..], "{}", row.case);
            let mut ours = Vec::new();
            sim.for_each_conn(&mut |conn| {
                ours.push(conn.virtual_port);
                true
            });
            let theirs = row.conns.iter().filter(|conn| conn.proto.eq_ignore_ascii_case(name));
            let mut theirs: Vec<u16> = theirs.map(|conn| conn.vp).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{}", row.case);
            rows += 1;
        }
    }
    assert_eq!(rows, 26);
}
