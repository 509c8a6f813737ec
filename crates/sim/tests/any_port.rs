//! Persistence for all ports looks at no destination's port: packets and connections as the kernel has
//! them.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Packet, SYN, dest, sim};
use rvs_core::control::{Change, Datapath};
use rvs_core::types::{
    Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::Frame;
use serde_json::Value;

const RECORDED: &str = include_str!("../../../tests/oracle/recorded/any_port.jsonl");

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

#[test]
fn connections_keep_their_port_where_persistence_is_for_all() {
    let mut rows = 0;
    for line in RECORDED.lines() {
        let row: Value = serde_json::from_str(line).expect("a recorded row");
        let rules: Vec<Vec<&str>> = row["rules"]
            .as_array()
            .expect("rules")
            .iter()
            .map(text)
            .map(|rule| rule.split(' ').collect())
            .collect();
        let [service, server] = [&rules[0], &rules[1]];
        let name = |protocol, at: &str| {
            let at: SocketAddr = at.parse().expect("an address and a port");
            ServiceKey::Address { protocol, addr: at.ip(), port: at.port() }
        };
        let key = match service[1] {
            "-f" => {
                ServiceKey::Fwmark { family: Family::V4, mark: service[2].parse().expect("a mark") }
            }
            "-t" => name(Protocol::Tcp, service[2]),
            _ => name(Protocol::Udp, service[2]),
        };
        let mut flags = ServiceFlags::empty();
        flags.set(ServiceFlags::PERSISTENT, service.contains(&"-p"));
        let config = ServiceConfig {
            scheduler: Scheduler::Rr,
            flags,
            timeout: 60,
            netmask: u32::MAX,
            engine: None,
        };
        let server = server[4].parse().expect("an address and a port");
        let mut sim = sim(16);
        let dests = [dest(server, ForwardMethod::Masquerade, 1)];
        sim.put_service(&key, &config, &dests, Change::Service).expect("there is room");
        for packet in row["packets"].as_array().expect("packets") {
            let sent = &packet["packet"];
            let (src, dst) = (at(&sent[0], &sent[1]), at(&sent[2], &sent[3]));
            let udp = text(&sent[4]) == "udp";
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let frame = Packet::new(protocol, src, dst, SYN).build();
            let mut frame = Frame::new(&frame).with_mark(mark(dst.ip()));
            sim.maps().run(&mut frame);
            let [a, b, c, d, high, low] = [30, 31, 32, 33, 36, 37].map(|at| frame.bytes()[at]);
            let to = SocketAddr::new([a, b, c, d].into(), u16::from_be_bytes([high, low]));
            assert_eq!(to, at(&packet["to"][0][0], &packet["to"][0][1]), "{line}");
        }
        let mut conns = Vec::new();
        sim.for_each_conn(&mut |conn| {
            let protocol = match conn.protocol {
                0 => "IP",
                6 => "TCP",
                _ => "UDP",
            };
            conns.push(serde_json::json!([
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
        let mut expected = row["conns"].as_array().expect("rows").clone();
        expected.sort_by_key(Value::to_string);
        assert_eq!(conns, expected, "{line}");
        rows += 1;
    }
    assert_eq!(rows, 4);
}
