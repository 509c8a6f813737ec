//! What a change of the configuration does to connections and counters that are there already.

mod common;

use std::net::SocketAddr;

use common::{ACK, Packet, SYN, dest, key, put, run, sim, status};
use rvs_core::control::{Change, Datapath, DatapathError, Stats};
use rvs_core::reason::Reason;
use rvs_core::time::ticks;
use rvs_core::types::{
    DestConfig, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Outcome, Plain, SimDatapath, Sizes};

const CLIENT: ([u8; 4], u16) = ([203, 0, 113, 7], 4000);
const VIP: ([u8; 4], u16) = ([192, 0, 2, 1], 80);

fn service() -> ServiceKey {
    key(Protocol::Tcp, VIP.into())
}

fn server(last: u8) -> DestConfig {
    dest(([10, 0, 0, last], 8080).into(), ForwardMethod::Masquerade, 1)
}

/// Puts the service in force with rr and these servers.
fn serve(sim: &mut SimDatapath, servers: &[DestConfig]) {
    put(sim, service(), Scheduler::Rr, ServiceFlags::empty(), servers);
}

/// A packet of the client.
fn request(sim: &SimDatapath, flags: u8) -> Outcome {
    run(sim, &Packet::new(Protocol::Tcp, CLIENT.into(), VIP.into(), flags)).0
}

/// The service with one server and one established connection.
fn connected() -> SimDatapath {
    let mut sim = sim(16);
    serve(&mut sim, &[server(1)]);
    assert_eq!((request(&sim, SYN), request(&sim, ACK)), (Outcome::Sent, Outcome::Sent));
    sim
}

/// Address and port of the connection's server.
fn served_by(sim: &SimDatapath) -> Option<SocketAddr> {
    let mut found = None;
    sim.for_each_conn(&mut |row| {
        found = Some(SocketAddr::new(row.dest, row.dest_port));
        true
    });
    found
}

#[test]
fn packets_to_a_server_that_left_are_dropped() {
    let mut sim = connected();
    serve(&mut sim, &[server(2)]);
    assert_eq!(request(&sim, ACK), Outcome::Drop(Reason::DestGone));
    assert_eq!(sim.maps().reason(Reason::DestGone), 1);
}

#[test]
fn what_a_server_that_left_answers_arrives_and_counts_nowhere() {
    let mut sim = connected();
    let server1 = ([10, 0, 0, 1], 8080).into();
    let answer = Packet::new(Protocol::Tcp, server1, CLIENT.into(), ACK);
    assert_eq!(run(&sim, &answer).0, Outcome::Sent);
    serve(&mut sim, &[server(2)]);
    assert_eq!(run(&sim, &answer).0, Outcome::Sent);
    assert_eq!(sim.service_stats(&service()).out_pkts, 1);
}

#[test]
fn a_server_that_comes_back_has_its_connections_and_counts_still() {
    let mut sim = connected();
    serve(&mut sim, &[server(2)]);
    sim.tick();
    serve(&mut sim, &[server(2), server(1)]);
    assert_eq!(request(&sim, ACK), Outcome::Sent);
    assert_eq!(served_by(&sim), Some(([10, 0, 0, 1], 8080).into()));
    let live = status(&sim, &service(), &server(1));
    assert_eq!((live.active_conns, live.stats.in_pkts), (1, 3));
}

#[test]
fn a_place_is_used_again_only_after_its_connections_ended() {
    let mut sim =
        SimDatapath::adopt(Plain::new(&Sizes { sets: 4, services: 1, destinations: 1 }, 1));
    serve(&mut sim, &[server(1)]);
    assert_eq!(request(&sim, SYN), Outcome::Sent);
    serve(&mut sim, &[]);
    sim.tick();
    let config = ServiceConfig {
        scheduler: Scheduler::Rr,
        flags: ServiceFlags::empty(),
        timeout: 0,
        netmask: u32::MAX,
        engine: None,
    };
    let refused = sim.put_service(&service(), &config, &[server(2)], Change::Dests);
    assert_eq!(refused, Err(DatapathError::Full("destination")));
    assert_eq!(request(&sim, ACK), Outcome::Drop(Reason::DestGone), "nothing changed");
    sim.maps().advance(ticks(15 * 60));
    sim.maps().sweep();
    sim.tick();
    serve(&mut sim, &[server(2)]);
    assert_eq!(status(&sim, &service(), &server(2)), Default::default());
    assert_eq!(request(&sim, SYN), Outcome::Sent);
    assert_eq!(served_by(&sim), Some(([10, 0, 0, 2], 8080).into()));
}

#[test]
fn a_service_keeps_the_counters_of_servers_that_left_until_it_is_zeroed() {
    let mut sim = connected();
    let before = sim.service_stats(&service());
    assert_eq!((before.conns, before.in_pkts, before.in_bytes), (1, 2, 80));
    serve(&mut sim, &[server(2)]);
    sim.maps().advance(ticks(15 * 60));
    sim.maps().sweep();
    sim.tick();
    assert_eq!(sim.service_stats(&service()), before);
    sim.zero(&service());
    assert_eq!(sim.service_stats(&service()), Stats::default());
    assert_eq!(request(&sim, SYN), Outcome::Sent);
    assert_eq!(sim.service_stats(&service()).in_pkts, 1);
}

#[test]
fn zeroing_a_service_zeroes_its_servers_counters_and_no_counts() {
    let mut sim = connected();
    sim.zero(&service());
    let live = status(&sim, &service(), &server(1));
    assert_eq!((live.active_conns, live.stats), (1, Stats::default()));
}

#[test]
fn a_removed_service_takes_no_new_connections() {
    let mut sim = connected();
    let neighbour = key(Protocol::Tcp, ([192, 0, 2, 2], VIP.1).into());
    put(&mut sim, neighbour, Scheduler::Rr, ServiceFlags::empty(), &[server(1)]);
    assert!(sim.remove_service(&service()));
    assert!(!sim.remove_service(&service()));
    let other: SocketAddr = ([203, 0, 113, 8], 4000).into();
    let packet = Packet::new(Protocol::Tcp, other, VIP.into(), SYN);
    assert_eq!(run(&sim, &packet).0, Outcome::Pass(Reason::NotOurs));
}

#[test]
fn a_service_that_comes_back_counts_from_zero_and_knows_its_connections() {
    let mut sim = connected();
    sim.remove_service(&service());
    sim.tick();
    serve(&mut sim, &[server(1)]);
    assert_eq!(sim.service_stats(&service()), Stats::default());
    assert_eq!(request(&sim, ACK), Outcome::Sent);
    assert_eq!(status(&sim, &service(), &server(1)).active_conns, 1);
}

#[test]
fn what_the_tables_hold_is_listed_in_the_order_of_creation() {
    let mut sim = sim(4);
    let keys = [80u16, 443, 8080].map(|port| key(Protocol::Tcp, (VIP.0, port).into()));
    for service in keys {
        put(&mut sim, service, Scheduler::Wlc, ServiceFlags::empty(), &[server(1), server(2)]);
    }
    sim.remove_service(&keys[0]);
    put(&mut sim, keys[0], Scheduler::Sh, ServiceFlags::SCHED1, &[server(3)]);
    let mut listed = Vec::new();
    sim.for_each_service(&mut |key, config, dests| {
        listed.push((*key, config.scheduler, dests.to_vec()));
    });
    let both = vec![server(1), server(2)];
    let expected = [
        (keys[1], Scheduler::Wlc, both.clone()),
        (keys[2], Scheduler::Wlc, both),
        (keys[0], Scheduler::Sh, vec![server(3)]),
    ];
    assert_eq!(listed, expected);
}
