//! What a backup takes: the messages that a real kernel was sent, and the connections and counts that
//! it then had (`tests/oracle/recorded/sync_taken.jsonl`; with persistence engines, and where calls
//! then go, `sync_pe_taken.jsonl`).

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use common::{ACK, Packet, SYN, dest, key, put, run, sim, status};
use rvs_core::control::{Change, ConnRow, Datapath};
use rvs_core::reason::Reason;
use rvs_core::sync::Arrived;
use rvs_core::sysctl::Sysctl;
use rvs_core::time::ticks;
use rvs_core::types::{
    DestConfig, Engine, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Outcome, Plain, SimDatapath, Sizes};
use rvs_sync::{Batch, Entry, Message, Version};
use rvs_tables::sync::Told;
use serde_json::Value;

/// What is not balanced here yet, or cannot be told: `kernel` takes it, RVS does not.
const ONLY_THE_KERNEL: [&str; 2] = ["ESP", "version 0: protocol 50"];

/// Room for one case.
const SIZES: Sizes = Sizes { sets: 128, services: 16, destinations: 64 };

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("a text");
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// Gives a datagram to a backup with syncid 5.
fn take(sim: &SimDatapath, datagram: &[u8]) {
    let Ok(message) = Message::parse(datagram) else { return };
    if message.sync_id == 5 {
        for entry in message.entries().flatten() {
            let _ = sim.take_in(sim.maps(), &entry);
        }
    }
}

/// Runs a line of `ipvsadm -R`.
fn configure(sim: &mut SimDatapath, rule: &str) {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let after = |flag: &str| {
        words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1)).copied()
    };
    let is = |flag: &str| words.contains(&flag);
    let family =
        if rule.contains('[') { rvs_core::types::Family::V6 } else { rvs_core::types::Family::V4 };
    let (protocol, addr) = match (after("-t"), after("-u")) {
        (Some(addr), _) => (Protocol::Tcp, Some(addr)),
        (None, addr) => (Protocol::Udp, addr),
    };
    let service = match addr {
        Some(addr) => key(protocol, addr.parse().expect("an address")),
        None => {
            let mark = after("-f").expect("a service").parse().expect("a mark");
            ServiceKey::Fwmark { family, mark }
        }
    };
    let mut found = None;
    sim.for_each_service(&mut |known, config, dests| {
        if *known == service {
            found = Some((*config, dests.to_vec()));
        }
    });
    let mut flags = ServiceFlags::empty();
    flags.set(ServiceFlags::PERSISTENT, is("-p"));
    flags.set(ServiceFlags::ONEPACKET, is("-o"));
    let netmask =
        after("-M").map_or(u32::MAX, |mask| mask.parse::<Ipv4Addr>().expect("a mask").to_bits());
    let timeout = after("-p").map_or(0, |text| text.parse().expect("seconds"));
    let engine = after("--pe").and_then(Engine::from_name);
    let new = ServiceConfig { scheduler: Scheduler::Rr, flags, timeout, netmask, engine };
    let (config, mut dests) = found.unwrap_or((new, Vec::new()));
    if is("-a") {
        let at = after("-r").expect("a destination");
        let at = at.parse().or_else(|_| format!("{at}:0").parse()).expect("an address");
        let forward = match (is("-m"), is("-i")) {
            (true, _) => ForwardMethod::Masquerade,
            (_, true) => ForwardMethod::Tunnel,
            _ => ForwardMethod::DirectRoute,
        };
        dests.insert(0, dest(at, forward, 1));
    }
    sim.put_service(&service, &config, &dests, Change::Dests).expect("there is room");
}

/// An address as `/proc/net/ip_vs_conn` has it.
fn addr(hex: &str) -> IpAddr {
    match u32::from_str_radix(hex, 16) {
        Ok(bits) => Ipv4Addr::from_bits(bits).into(),
        Err(_) => hex.trim_matches(['[', ']']).parse::<Ipv6Addr>().expect("IPv6").into(),
    }
}

type Conn = (u8, SocketAddr, SocketAddr, SocketAddr, String, bool);

/// The kernel's rows, and when each expires.
fn recorded(row: &Value) -> Vec<(Conn, u32)> {
    let parse = |row: &Value| {
        let words: Vec<&str> =
            row.as_array().expect("words").iter().map(|w| w.as_str().expect("a text")).collect();
        let end = |at: usize| {
            let port = u16::from_str_radix(words[at + 1], 16).expect("a port");
            SocketAddr::new(addr(words[at]), port)
        };
        let protocol = match words[0] {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => 0,
        };
        let conn = (protocol, end(1), end(3), end(5), words[7].to_owned(), words[8] == "SYNC");
        (conn, words[9].parse().expect("seconds"))
    };
    let mut conns: Vec<_> = row["conns"].as_array().expect("rows").iter().map(parse).collect();
    // That of the case "no such service", which others see as well.
    conns.retain(|((_, _, service, ..), _)| service.port() != 4444);
    conns.sort();
    conns
}

/// What ends the lines of templates with a Call-ID.
fn listed_calls(sim: &SimDatapath) -> Vec<String> {
    let mut calls = Vec::new();
    sim.for_each_conn(&mut |row: &ConnRow| {
        let service = SocketAddr::new(row.virtual_addr, row.virtual_port);
        if let Some((engine, data)) = row.engine.as_ref().filter(|_| !is_elsewhere(service)) {
            let data: String = data.bytes().iter().map(|byte| char::from(*byte)).collect();
            calls.push(format!("{} {data}", engine.name()));
        }
        true
    });
    calls.sort();
    calls
}

fn recorded_calls(row: &Value) -> Vec<String> {
    let ends = row["pe"].as_array().expect("rows").iter().map(|row| row[2].as_str().expect("text"));
    let mut calls: Vec<String> = ends.filter(|end| !end.is_empty()).map(str::to_owned).collect();
    calls.sort();
    calls
}

fn listed(sim: &SimDatapath) -> Vec<(Conn, u32)> {
    let mut conns = Vec::new();
    sim.for_each_conn(&mut |row: &ConnRow| {
        let (client, service) = (row.client, row.virtual_addr);
        let conn = (
            row.protocol,
            SocketAddr::new(client, row.client_port),
            SocketAddr::new(service, row.virtual_port),
            SocketAddr::new(row.dest, row.dest_port),
            row.state.to_owned(),
            row.synced,
        );
        conns.push((conn, row.expires));
        true
    });
    conns.retain(|((_, _, service, ..), _)| !is_elsewhere(*service));
    conns.sort();
    conns
}

/// Whether this is the service of a case "no such service", which recordings leave out.
fn is_elsewhere(service: SocketAddr) -> bool {
    service.port() == 4444 || service.ip() == IpAddr::from([10, 9, 99, 98])
}

/// Active and inactive connections of each destination that has any.
fn counts(sim: &SimDatapath) -> Vec<(String, u64, u64)> {
    let mut counts = Vec::new();
    sim.for_each_service(&mut |key, _, dests: &[DestConfig]| {
        for dest in dests {
            let status = sim.dest_status(key, &dest.key);
            let (active, inactive) = (status.active_conns.into(), status.inactive_conns.into());
            if (active, inactive) != (0, 0) {
                counts.push((name(dest.key.addr, dest.key.port), active, inactive));
            }
        }
    });
    counts.sort();
    counts
}

fn name(addr: IpAddr, port: u16) -> String {
    SocketAddr::new(addr, port).to_string()
}

fn recorded_counts(row: &Value) -> Vec<(String, u64, u64)> {
    let mut counts = Vec::new();
    for dest in row["dests"].as_array().expect("destinations") {
        let (at, port) = dest[1].as_str().expect("a text").rsplit_once(':').expect("a port");
        let port = u16::from_str_radix(port, 16).expect("a port");
        let number = |at: usize| dest[at].as_u64().expect("a number");
        if (number(3), number(4)) != (0, 0) {
            counts.push((name(addr(at), port), number(3), number(4)));
        }
    }
    counts.sort();
    counts
}

/// Lines of a recording.
fn rows(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/recorded").join(name);
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Sends the packets that the kernel was sent, and compares where they go.
fn compare_calls(sim: &SimDatapath, row: &Value) -> usize {
    let sent = row["sent"].as_array().expect("packets");
    for call in sent {
        let packet = &call["packet"];
        let text = |at: usize| packet[at].as_str().expect("a text");
        let end = |at: usize| {
            let port = packet[at + 1].as_u64().and_then(|port| port.try_into().ok());
            SocketAddr::new(text(at).parse().expect("an address"), port.expect("a port"))
        };
        let payload = bytes(&packet[4]);
        let sent = Packet { payload, ..Packet::new(Protocol::Udp, end(0), end(2), 0) };
        let (outcome, frame) = run(sim, &sent);
        assert_eq!(outcome, Outcome::Sent, "{}", row["case"]);
        let to = match end(0) {
            SocketAddr::V4(_) => {
                IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).expect("an address"))
            }
            SocketAddr::V6(_) => {
                IpAddr::from(<[u8; 16]>::try_from(&frame[38..54]).expect("an address"))
            }
        };
        let at = if to.is_ipv4() { 36 } else { 56 };
        let to = SocketAddr::new(to, u16::from_be_bytes([frame[at], frame[at + 1]]));
        assert_eq!(
            Some(to.to_string().as_str()),
            call["to"][0].as_str(),
            "{}: {sent:?}",
            row["case"]
        );
    }
    sent.len()
}

#[test]
fn a_backup_takes_what_the_kernel_takes() {
    let (compared, left_out, _) = compare("sync_taken.jsonl");
    assert_eq!((compared, left_out), (142, 2));
}

#[test]
fn a_backup_takes_calls_as_the_kernel_takes_them_and_sends_them_to_the_same_servers() {
    let (compared, left_out, calls) = compare("sync_pe_taken.jsonl");
    assert_eq!((compared, left_out, calls), (54, 0, 189));
}

/// Replays a recording: cases compared, cases left out, packets sent.
fn compare(name: &str) -> (u32, u32, usize) {
    let mut calls = 0;
    let mut backup = sim(16);
    let (mut compared, mut left_out) = (0, 0);
    for row in rows(name) {
        let case = row["case"].as_str().expect("a name");
        // Packets: tests of their own.
        let Some(messages) = row["messages"].as_array() else { continue };
        if let Some(rules) = row["rules"].as_array() {
            backup = SimDatapath::adopt(Plain::new(&SIZES, 1));
            for rule in rules {
                configure(&mut backup, rule.as_str().expect("a rule"));
            }
        }
        if let Some(rule) = row["before"].as_str() {
            configure(&mut backup, rule);
        }
        for message in messages {
            take(&backup, &bytes(message));
        }
        if ONLY_THE_KERNEL.iter().any(|name| case.starts_with(name)) {
            left_out += 1;
            continue;
        }
        let (ours, theirs) = (listed(&backup), recorded(&row));
        let without_time = |rows: &[(Conn, u32)]| -> Vec<Conn> {
            rows.iter().map(|(conn, _)| conn.clone()).collect()
        };
        assert_eq!(without_time(&ours), without_time(&theirs), "{case}");
        for ((conn, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            // The kernel's clock went on while it was asked.
            assert!(ours >= theirs && ours - theirs <= 6, "{case}: {conn:?} {ours} {theirs}");
        }
        assert_eq!(counts(&backup), recorded_counts(&row), "{case}");
        if row["pe"].is_array() {
            assert_eq!(listed_calls(&backup), recorded_calls(&row), "{case}");
            calls += compare_calls(&backup, &row);
        }
        compared += 1;
    }
    (compared, left_out, calls)
}

const CLIENT: &str = "10.0.0.2:40000";
const VIP: &str = "10.9.1.1:80";
const SERVER: &str = "10.1.0.11:80";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

fn entry(state: u16, flags: u32) -> Entry<'static> {
    Entry {
        protocol: 6,
        flags,
        state,
        mark: 0,
        timeout: 900,
        client: at(CLIENT),
        service: at(VIP),
        dest: at(SERVER),
        deltas: None,
        engine: None,
    }
}

/// A backup with one service of one destination.
fn backup(forward: ForwardMethod) -> (SimDatapath, ServiceKey, DestConfig) {
    let mut sim = sim(64);
    let (service, server) = (key(Protocol::Tcp, at(VIP)), dest(at(SERVER), forward, 1));
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
    (sim, service, server)
}

#[test]
fn packets_of_a_connection_taken_over_go_both_ways_and_end_it() {
    let (sim, service, server) = backup(ForwardMethod::Masquerade);
    assert_eq!(sim.take_in(sim.maps(), &entry(1, 0)), Ok(Arrived::Entered));
    let forth = Packet::new(Protocol::Tcp, at(CLIENT), at(VIP), ACK);
    assert_eq!(run(&sim, &forth).0, Outcome::Sent);
    let back = Packet::new(Protocol::Tcp, at(SERVER), at(CLIENT), ACK);
    assert_eq!(run(&sim, &back).0, Outcome::Sent);
    let live = status(&sim, &service, &server);
    assert_eq!((live.active_conns, live.inactive_conns, live.stats.conns), (1, 0, 0));
    sim.maps().advance(ticks(901));
    sim.maps().sweep();
    let live = status(&sim, &service, &server);
    assert_eq!((live.active_conns, live.inactive_conns), (0, 0));
    assert_eq!(listed(&sim), []);
    assert_eq!(run(&sim, &back).0, Outcome::Pass(Reason::NotOurs));
}

#[test]
fn a_backup_that_only_backs_up_leaves_clients_packets_to_the_host() {
    let (mut sim, ..) = backup(ForwardMethod::Masquerade);
    sim.take_in(sim.maps(), &entry(1, 0)).expect("it is taken");
    let forth = Packet::new(Protocol::Tcp, at(CLIENT), at(VIP), ACK);
    let new = Packet::new(Protocol::Tcp, at("10.0.0.3:1"), at(VIP), SYN);
    let back = Packet::new(Protocol::Tcp, at(SERVER), at(CLIENT), ACK);
    sim.set_sysctl(Sysctl::BackupOnly, 1).expect("a setting");
    assert_eq!(run(&sim, &forth).0, Outcome::Sent, "no backup runs");
    sim.keep_daemon(true, [1; rvs_core::layout::DAEMON_WORDS]);
    assert_eq!(run(&sim, &forth).0, Outcome::Pass(Reason::NotOurs));
    assert_eq!(run(&sim, &new).0, Outcome::Pass(Reason::NotOurs));
    assert_eq!(run(&sim, &back).0, Outcome::Sent);
    sim.keep_daemon(true, [0; rvs_core::layout::DAEMON_WORDS]);
    assert_eq!(run(&sim, &forth).0, Outcome::Sent);
    assert_eq!(run(&sim, &new).0, Outcome::Sent);
}

#[test]
fn a_connection_without_destination_is_forwarded_and_bound_once_there_is_one() {
    let (mut sim, service, server) = backup(ForwardMethod::DirectRoute);
    let other = dest(at("10.1.0.15:80"), ForwardMethod::DirectRoute, 1);
    let told = Entry { dest: at("10.1.0.15:80"), ..entry(1, 0x83) };
    assert_eq!(sim.take_in(sim.maps(), &told), Ok(Arrived::Entered));
    sim.set_sysctl(Sysctl::ExpireNodestConn, 1).expect("a setting");
    let forth = Packet::new(Protocol::Tcp, at(CLIENT), at(VIP), ACK);
    assert_eq!(run(&sim, &forth).0, Outcome::Sent);
    assert_eq!(status(&sim, &service, &server).active_conns, 0);
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[other, server]);
    assert_eq!(sim.take_in(sim.maps(), &told), Ok(Arrived::Entered));
    assert_eq!(status(&sim, &service, &other).active_conns, 1);
    assert_eq!(listed(&sim).len(), 1);
    let inactive = Entry { flags: 0x183, state: 4, timeout: 120, ..told };
    assert_eq!(sim.take_in(sim.maps(), &inactive), Ok(Arrived::Updated));
    let live = status(&sim, &service, &other);
    assert_eq!((live.active_conns, live.inactive_conns), (0, 1));
}

/// All that a master has to tell of.
fn tell(master: &SimDatapath) -> Vec<Told> {
    let mut told = Vec::new();
    rvs_tables::sync::each(master.maps(), &mut |_, seen, tell| {
        if seen.telling {
            told.push(tell().expect("it is live"));
        }
    });
    told
}

/// The cases of `sync_pe_sent.jsonl` whose packets have no mark: service, destination, Call-IDs.
const CALLS: [(&str, &str, &str, &[&str]); 9] = [
    ("nat", "-u 10.9.1.1:5060", "10.1.0.11:5060 -m", &["one@x", "two@x"]),
    ("dr", "-u 10.9.1.1:5061", "10.1.0.11:5061 -g", &["one@x"]),
    ("tun", "-u 10.9.1.1:5062", "10.1.0.11:5062 -i", &["one@x"]),
    ("mask", "-u 10.9.1.1:5063 -M 255.255.255.0", "10.1.0.11:5063 -m", &["one@x"]),
    ("any port", "-u 10.9.1.1:0", "10.1.0.11:0 -g", &["one@x"]),
    ("one packet", "-u 10.9.1.1:5065 -o", "10.1.0.11:5065 -m", &["one@x"]),
    (
        "lengths",
        "-u 10.9.1.1:5066",
        "10.1.0.11:5066 -m",
        &["1", "22", "333", "4444", "x254", "y255"],
    ),
    ("bytes", "-u 10.9.1.1:5067", "10.1.0.11:5067 -m", &["caf\u{e9}\"<>"]),
    ("IPv6", "-u [fd09::1]:5068", "[fd01::11]:5068 -m", &["six@x"]),
];

/// The Call-ID as bytes; `x254` is 254 times `x`.
fn call_id(text: &str) -> Vec<u8> {
    match text.split_at_checked(1) {
        Some((letter @ ("x" | "y"), number)) => {
            letter.repeat(number.parse().expect("a number")).into_bytes()
        }
        _ => text.chars().map(|letter| u8::try_from(letter).expect("Latin 1")).collect(),
    }
}

/// What the kernel said last of each template.
fn kernel_templates(case: &str, port: u16) -> Vec<String> {
    let found = rows("sync_pe_sent.jsonl").into_iter().find(|row| row["case"] == case);
    let mut last = std::collections::BTreeMap::new();
    for message in found.expect("a case")["messages"].as_array().expect("messages") {
        let data = bytes(&message["data"]);
        for entry in Message::parse(&data).expect("a message").entries() {
            let entry = entry.expect("an entry");
            // Those of cases before may be told of again.
            if entry.is_template() && entry.service.port() == port {
                let engine = entry.engine.map(|engine| engine.data.to_vec());
                last.insert(engine, format!("{entry:?}"));
            }
        }
    }
    last.into_values().collect()
}

#[test]
fn what_a_master_tells_of_calls_is_what_the_kernel_tells() {
    for (case, service, dest, calls) in CALLS {
        let mut master = sim(64);
        configure(&mut master, &format!("-A {service} -s rr -p 77 --pe sip"));
        configure(&mut master, &format!("-a {service} -r {dest}"));
        let v6 = case == "IPv6";
        let client = |index: usize| {
            let ip: IpAddr = if v6 { "fd00::2" } else { "10.0.0.2" }.parse().expect("a literal");
            SocketAddr::new(ip, 4000 + index as u16)
        };
        let at: Option<SocketAddr> = service.split(' ').nth(1).and_then(|at| at.parse().ok());
        let at = at.expect("an address");
        let port = at.port();
        let at = if case == "any port" { "10.9.1.1:5064".parse().expect("a literal") } else { at };
        let server = dest.split(' ').next().and_then(|at| at.parse().ok()).expect("an address");
        for (index, call) in calls.iter().enumerate() {
            let head: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: ";
            let tail: &[u8] = b"\r\nCSeq: 1 OPTIONS\r\n\r\n";
            let payload = [head, &call_id(call), tail].concat();
            let udp = |from, to| Packet {
                payload: payload.clone(),
                ..Packet::new(Protocol::Udp, from, to, 0)
            };
            assert_eq!(run(&master, &udp(client(index), at)).0, Outcome::Sent, "{case}");
            if dest.ends_with("-m") {
                assert_eq!(run(&master, &udp(server, client(index))).0, Outcome::Sent, "{case}");
            }
        }
        let told = tell(&master);
        let mut templates: Vec<_> =
            told.iter().map(Told::entry).filter(Entry::is_template).collect();
        templates.sort_by_key(|entry| entry.engine.map(|engine| engine.data.to_vec()));
        assert_eq!(templates.len(), calls.len(), "{case}");
        let ours: Vec<_> = templates.iter().map(|entry| format!("{entry:?}")).collect();
        assert_eq!(ours, kernel_templates(&format!("version 1: {case}"), port), "{case}");
        // Version 0 has no room for Call-IDs and timeouts. The kernel's says nothing at all of services
        // with -o.
        let mut batch = Batch::new(Version::V0, 30, 1472);
        let said = !v6 && case != "one packet";
        let Some(first) = templates.first().filter(|_| said) else { continue };
        assert_eq!(batch.push(first), None);
        let message = batch.finish().expect("a message");
        let plain = Message::parse(&message).expect("our message").entries().next();
        let plain = format!("{:?}", plain.expect("one").expect("an entry"));
        assert_eq!(vec![plain], kernel_templates(&format!("version 0: {case}"), port), "{case}");
    }
}

#[test]
fn what_a_master_tells_is_what_a_backup_takes() {
    let (master, service, server) = backup(ForwardMethod::Masquerade);
    let packet = |flags| Packet::new(Protocol::Tcp, at(CLIENT), at(VIP), flags);
    let reply = |flags| Packet::new(Protocol::Tcp, at(SERVER), at(CLIENT), flags);
    run(&master, &packet(SYN));
    assert_eq!(tell(&master), [], "a connection that is being opened");
    run(&master, &reply(SYN | ACK));
    run(&master, &packet(ACK));
    let told = tell(&master);
    assert_eq!(told.iter().map(Told::entry).collect::<Vec<_>>(), [entry(1, 0)]);
    let mut batch = Batch::new(Version::V1, 5, 1472);
    told.iter().for_each(|told| assert_eq!(batch.push(&told.entry()), None));
    let (second, ..) = backup(ForwardMethod::Masquerade);
    take(&second, &batch.finish().expect("a message"));
    let rows = |sim: &SimDatapath| -> Vec<Conn> {
        listed(sim).into_iter().map(|((a, b, c, d, e, _), _)| (a, b, c, d, e, true)).collect()
    };
    assert_eq!(rows(&second), rows(&master));
    assert_eq!(status(&second, &service, &server).active_conns, 1);
}
