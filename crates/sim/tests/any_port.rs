//! Persistence for all ports looks at no destination's port, and a persistent service of FTP is for
//! its data, too: packets and connections as the kernel has them.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{ACK, Packet, SYN, dest, sim};
use rvs_core::control::{Change, ConnRow, Datapath};
use rvs_core::types::{
    DestConfig, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Frame, Outcome, SimDatapath};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn at(addr: &Value, port: &Value) -> SocketAddr {
    let addr: IpAddr = text(addr).parse().expect("an address");
    SocketAddr::new(addr, port.as_u64().expect("a port") as u16)
}

/// The mark that the recording's rules gave packets to an address.
fn mark(addr: IpAddr) -> u32 {
    match addr.to_string().as_str() {
        "10.9.2.1" => 7,
        "10.9.2.2" => 8,
        _ => 0,
    }
}

/// The service that a rule names.
fn service(rule: &[&str]) -> ServiceKey {
    let name = |protocol| {
        let at: SocketAddr = rule[2].parse().expect("an address and a port");
        ServiceKey::Address { protocol, addr: at.ip(), port: at.port() }
    };
    match rule[1] {
        "-f" => ServiceKey::Fwmark { family: Family::V4, mark: rule[2].parse().expect("a mark") },
        "-t" => name(Protocol::Tcp),
        _ => name(Protocol::Udp),
    }
}

/// A data path with these rules, of `-A` and `-a`.
fn restored(rules: &Value) -> SimDatapath {
    let mut sim = sim(64);
    let mut known: Vec<(ServiceKey, ServiceConfig, Vec<DestConfig>)> = Vec::new();
    for rule in rules.as_array().expect("rules").iter().map(text) {
        let rule: Vec<&str> = rule.split(' ').collect();
        let key = service(&rule);
        if rule[0] == "-A" {
            let mut flags = ServiceFlags::empty();
            flags.set(ServiceFlags::PERSISTENT, rule.contains(&"-p"));
            let (timeout, netmask) = (60, u32::MAX);
            let config =
                ServiceConfig { scheduler: Scheduler::Rr, flags, timeout, netmask, engine: None };
            known.push((key, config, Vec::new()));
        } else {
            let at = rule[4].parse().expect("an address and a port");
            let found = known.iter_mut().find(|(known, ..)| *known == key);
            let dests = &mut found.expect("-A comes first").2;
            dests.insert(0, dest(at, ForwardMethod::Masquerade, 1));
        }
    }
    for (key, config, dests) in known {
        sim.put_service(&key, &config, &dests, Change::Service).expect("there is room");
    }
    sim
}

/// Sends a recorded packet: where it goes if it is balanced, as the recording has it.
fn send(sim: &SimDatapath, sent: &Value) -> Value {
    let (src, dst) = (at(&sent[0], &sent[1]), at(&sent[2], &sent[3]));
    let udp = text(&sent[4]) == "udp";
    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
    let flags = if text(&sent[4]) == "A" { ACK } else { SYN };
    let frame = Packet::new(protocol, src, dst, flags).build();
    let mut frame = Frame::new(&frame).with_mark(mark(dst.ip()));
    if sim.maps().run(&mut frame) != Outcome::Sent {
        return json!([]);
    }
    let [a, b, c, d, high, low] = [30, 31, 32, 33, 36, 37].map(|at| frame.bytes()[at]);
    json!([[format!("{a}.{b}.{c}.{d}"), u16::from_be_bytes([high, low])]])
}

/// Plays the lines of a recording; what is listed after each is for `templates` to change before it
/// is compared.
fn play(recorded: &str, templates: impl Fn(&mut ConnRow)) -> usize {
    for line in recorded.lines() {
        let row: Value = serde_json::from_str(line).expect("a recorded row");
        let sim = restored(&row["rules"]);
        for packet in row["packets"].as_array().expect("packets") {
            assert_eq!(send(&sim, &packet["packet"]), packet["to"], "{packet}: {line}");
        }
        let mut conns = Vec::new();
        sim.for_each_conn(&mut |conn| {
            let mut conn = *conn;
            if conn.template {
                templates(&mut conn);
            }
            let protocol = match conn.protocol {
                0 => "IP",
                6 => "TCP",
                _ => "UDP",
            };
            conns.push(json!([
                protocol,
                conn.client,
                conn.client_port,
                conn.virtual_addr,
                conn.virtual_port,
                conn.dest,
                conn.dest_port
            ]));
            true
        });
        conns.sort_by_key(Value::to_string);
        let expected = row["conns"].as_array().expect("rows").iter();
        let mut expected: Vec<Value> =
            expected.map(|row| row.as_array().expect("a row")[..7].into()).collect();
        expected.sort_by_key(Value::to_string);
        assert_eq!(conns, expected, "{line}");
    }
    recorded.lines().count()
}

#[test]
fn connections_keep_their_port_where_persistence_is_for_all() {
    let recorded = include_str!("../../../tests/oracle/recorded/any_port.jsonl");
    assert_eq!(play(recorded, |_| {}), 4);
}

/// Templates of port 21 are listed with that port, the kernel's with 0: so there a service of port
/// 0 at the same address has them, too, which is the case that is left out.
#[test]
fn a_persistent_ftp_service_takes_its_data_and_port_20_opens_nothing() {
    let recorded = include_str!("../../../tests/oracle/recorded/ftp_service.jsonl");
    let apart = |line: &&str| !line.contains("port 21 -p and port 0 -p");
    let recorded: Vec<&str> = recorded.lines().filter(apart).collect();
    let listed = |template: &mut ConnRow| {
        if template.virtual_port == 21 {
            (template.virtual_port, template.dest_port) = (0, 0);
        }
    };
    assert_eq!(play(&recorded.join("\n"), listed), 7);
}
