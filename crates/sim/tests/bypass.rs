//! Connections without a destination (`cache_bypass`): what a master tells of them, what a backup makes
//! of it, and what ends them. Where packets go is compared in tests/bpf/tests/cache_bypass.rs.

mod common;

use std::net::SocketAddr;
use std::path::Path;

use common::{ACK, Packet, SYN, dest, put, run, sim};
use rvs_core::control::{ConnRow, Datapath};
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler, ServiceFlags, ServiceKey};
use rvs_sim::{Outcome, SimDatapath};
use rvs_sync::{Entry, Message};
use serde_json::Value;

/// A director with a service for mark 5 of each family, which has no destination.
fn director() -> SimDatapath {
    let mut sim = sim(16);
    for family in [Family::V4, Family::V6] {
        let key = ServiceKey::Fwmark { family, mark: 5 };
        put(&mut sim, key, Scheduler::Rr, ServiceFlags::empty(), &[]);
    }
    sim.set_marks(&["5".parse().expect("a rule")]).expect("there is room");
    sim.set_sysctl(Sysctl::CacheBypass, 1).expect("it can be set");
    sim
}

fn packet(protocol: Protocol, src: SocketAddr, dst: SocketAddr, flags: u8) -> Packet {
    Packet::new(protocol, src, dst, flags)
}

fn rows(sim: &SimDatapath) -> Vec<ConnRow> {
    let mut rows = Vec::new();
    sim.for_each_conn(&mut |row| {
        rows.push(*row);
        true
    });
    rows.sort_by_key(|row| row.protocol);
    rows
}

/// Shows `f` what a master tells of all connections.
fn told(sim: &SimDatapath, f: &mut dyn FnMut(&Entry<'_>)) {
    rvs_tables::sync::each(sim.maps(), &mut |_, seen, entry| {
        if seen.telling {
            f(&entry().expect("nobody changes it").entry());
        }
    });
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The recorded messages, by family.
fn recorded() -> Vec<(SocketAddr, Vec<Vec<u8>>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/oracle/recorded/cache_bypass.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let rows = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    rows.filter(|row: &Value| row["case"] == "told")
        .map(|row| {
            let port = row["port"].as_u64().expect("a port") as u16;
            let client = if row["family"] == 6 { "fd00::2" } else { "10.0.0.2" };
            let messages = row["messages"].as_array().expect("messages").iter();
            let messages = messages.map(|message| bytes(message.as_str().expect("a text")));
            (SocketAddr::new(client.parse().expect("a literal"), port), messages.collect())
        })
        .collect()
}

#[test]
fn a_master_tells_of_them_as_the_kernel_does() {
    let mut compared = 0;
    for (client, messages) in recorded() {
        let master = director();
        let to = if client.is_ipv6() { "fd01::20" } else { "10.1.0.20" };
        let to = |port| SocketAddr::new(to.parse().expect("a literal"), port);
        for flags in [SYN, ACK, ACK] {
            let outcome = run(&master, &packet(Protocol::Tcp, client, to(80), flags)).0;
            assert_eq!(outcome, Outcome::Sent);
        }
        run(&master, &packet(Protocol::Udp, client, to(53), 0));
        let mut theirs: Vec<String> = Vec::new();
        for message in &messages {
            let message = Message::parse(message).expect("the kernel's");
            for entry in message.entries() {
                // The mark of its first packet is not remembered here; nobody looks for it.
                theirs.push(format!("{:?}", Entry { mark: 0, ..entry.expect("whole") }));
            }
        }
        theirs.sort();
        theirs.dedup();
        let mut ours: Vec<String> = Vec::new();
        told(&master, &mut |entry| ours.push(format!("{entry:?}")));
        ours.sort();
        assert_eq!(ours, theirs, "{client}");
        compared += ours.len();
    }
    assert_eq!(compared, 4);
}

#[test]
fn a_backup_sends_their_packets_where_the_master_did() {
    for (client, messages) in recorded() {
        let backup = sim(16);
        for message in &messages {
            let message = Message::parse(message).expect("the kernel's");
            message.entries().flatten().for_each(|entry| {
                backup.take_in(backup.maps(), &entry).expect("it can be taken");
            });
        }
        let rows = rows(&backup);
        let listed: Vec<_> = rows.iter().map(|row| (row.state, row.dest, row.dest_port)).collect();
        let nowhere = if client.is_ipv6() { "::" } else { "0.0.0.0" }.parse().expect("a literal");
        assert_eq!(listed, [("ESTABLISHED", nowhere, 0), ("UDP", nowhere, 0)], "{client}");
        assert!(rows.iter().all(|row| row.forward == ForwardMethod::Bypass && row.synced));
        for row in &rows {
            let to = SocketAddr::new(row.virtual_addr, row.virtual_port);
            let protocol = Protocol::from_number(row.protocol).expect("TCP or UDP");
            let packet = packet(protocol, client, to, ACK);
            let (outcome, frame) = run(&backup, &packet);
            assert_eq!(outcome, Outcome::Sent, "{client}");
            let mut expected = Packet { ttl: 63, ..packet }.build();
            expected.truncate(frame.len());
            assert_eq!(frame, expected, "{client}");
        }
    }
}

#[test]
fn they_end_by_themselves_and_count_for_nobody() {
    let mut sim = director();
    let at = |text: &str| -> SocketAddr { text.parse().expect("a literal") };
    let (client, to) = (at("10.0.0.2:4000"), at("10.1.0.20:80"));
    assert_eq!(run(&sim, &packet(Protocol::Tcp, client, to, SYN)).0, Outcome::Sent);
    let key = ServiceKey::Fwmark { family: Family::V4, mark: 5 };
    // What comes and goes meanwhile, with a setting that ends what has lost its destination.
    sim.set_sysctl(Sysctl::ExpireNodestConn, 1).expect("it can be set");
    let server = dest(at("10.1.0.11:0"), ForwardMethod::Masquerade, 1);
    put(&mut sim, key, Scheduler::Rr, ServiceFlags::empty(), &[server]);
    assert!(sim.remove_service(&key));
    sim.maps().sweep();
    assert_eq!(run(&sim, &packet(Protocol::Tcp, client, to, ACK)).0, Outcome::Sent);
    assert_eq!(rows(&sim)[0].state, "ESTABLISHED");
    assert_eq!(sim.maps().reason(Reason::Uncounted), 2);
    assert_eq!((sim.forwarded(), sim.everything(&mut |_| ()).in_pkts), ((0, 0), 0));
    sim.maps().advance(rvs_core::time::ticks(899));
    sim.maps().sweep();
    assert_eq!(rows(&sim).len(), 1);
    sim.maps().advance(rvs_core::time::ticks(3));
    sim.maps().sweep();
    sim.maps().sweep();
    assert_eq!(rows(&sim).len(), 0);
    assert_eq!(
        run(&sim, &packet(Protocol::Tcp, client, to, SYN)).0,
        Outcome::Pass(Reason::NotOurs)
    );
}
