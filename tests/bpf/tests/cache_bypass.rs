//! Packets for services by mark that have no destination, with `cache_bypass`, against what a real
//! kernel's IPVS made of them (`tests/oracle/recorded/cache_bypass.jsonl`, by `cache_bypass.py`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rvs_core::control::{Change, Datapath};
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{
    DestConfig, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_tests_bpf::frame::{for_director, from_hex};
use rvs_tests_bpf::{
    Bench, Hook, Outcome, Verdict, dest, fwmark, in_namespace, ip, neighbours, next_tick,
    read_recording, service,
};
use serde_json::Value;

/// All packets for these have mark 5 in the recording.
const MARKED: [&str; 7] = [
    "--dst 10.1.0.0/16 5",
    "--dst 10.9.1.1 5",
    "--dst 10.77.0.1 5",
    "--dst 224.1.1.1 5",
    "--dst fd01::/64 5",
    "--dst fd09::1 5",
    "--dst fd77::1 5",
];

/// No route leads there.
const UNREACHED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

/// The recording's replies of IPv4 that were to come from an address which is not the director's: the
/// kernel cannot send them, RVS does.
const UNSENT: [(&str, [u8; 2]); 9] = [
    ("no destination, ", [3, 3]),
    ("switched off: a new one", [3, 3]),
    ("ttl 1", [11, 0]),
    ("to a broadcast address", [3, 3]),
    ("to a multicast address", [3, 3]),
    // To RVS an address that no route leads to is as good as one of the director's own.
    ("to where no route leads", [3, 3]),
    ("a service by address", [3, 3]),
    ("1400 bytes, MTU 1300, DF 1", [3, 4]),
    ("an error about the answer, ttl 1", [0, 0]),
];

/// Source port of a frame that is no ICMP error.
fn client_port(frame: &[u8]) -> u16 {
    let at = if frame[12] == 0x86 { 54 } else { 14 + usize::from(frame[14] & 15) * 4 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// A line of `ipvsadm -R`: the service, and the destination that it adds.
fn parse(rule: &str) -> (ServiceKey, ServiceFlags, Option<DestConfig>) {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address and a port") };
    let family = if words.contains(&"-6") { Family::V6 } else { Family::V4 };
    let by_addr =
        [("-t", Protocol::Tcp), ("-u", Protocol::Udp), ("--sctp-service", Protocol::Sctp)];
    let key = by_addr.into_iter().find_map(|(flag, protocol)| {
        let addr = at(after(flag)?);
        Some(service(protocol, &addr.ip().to_string(), addr.port()))
    });
    let mut flags = ServiceFlags::empty();
    flags.set(ServiceFlags::PERSISTENT, words.contains(&"-p"));
    flags.set(ServiceFlags::ONEPACKET, words.contains(&"-o"));
    let server = after("-r").map(|server| {
        let weight = after("-w").expect("a weight").parse().expect("a number");
        dest(&at(server).ip().to_string(), 0, ForwardMethod::Masquerade, weight)
    });
    (key.unwrap_or(fwmark(family, 5)), flags, server)
}

/// Puts exactly these services in force.
fn configure(bench: &mut Bench, rules: &str) {
    let mut known = Vec::new();
    bench.datapath.for_each_service(&mut |key, _, _| known.push(*key));
    known.iter().for_each(|key| assert!(bench.datapath.remove_service(key)));
    bench.datapath.tick();
    let lines: Vec<_> = rules.lines().map(parse).collect();
    let (key, flags, _) = lines[0];
    let dests: Vec<DestConfig> = lines.iter().filter_map(|(.., server)| *server).collect();
    let whole = if key.family() == Family::V4 { u32::MAX } else { 128 };
    let config = ServiceConfig {
        scheduler: Scheduler::Rr,
        flags,
        timeout: 60,
        netmask: whole,
        engine: None,
    };
    bench.change(key, config, &dests, Change::Dests);
}

/// Gives the frame to the programs, as a device that has both does.
fn run(bench: &mut Bench, hook: Hook, frame: &[u8]) -> Outcome {
    if hook == Hook::Xdp {
        let outcome = bench.run(Hook::Xdp, frame);
        if outcome.verdict != Verdict::Pass {
            return outcome;
        }
    }
    bench.run(Hook::Tc, frame)
}

/// Type and code of a packet that is an ICMP error from the director to the client.
fn error(packet: &[u8], v6: bool) -> Option<[u8; 2]> {
    let (protocol, at) = if v6 { (packet[6] == 58, 40) } else { (packet[9] == 1, 20) };
    protocol.then(|| [packet[at], packet[at + 1]])
}

fn packets(side: &Value) -> Vec<Vec<u8>> {
    let frames = side.as_array().expect("frames");
    frames.iter().map(|frame| from_hex(text(frame, "frame"))[14..].to_vec()).collect()
}

type Conn = (String, String, SocketAddr, SocketAddr, SocketAddr);

/// The connections, but for those to where no route leads.
fn conns(bench: &Bench) -> BTreeSet<Conn> {
    let mut rows = BTreeSet::new();
    bench.datapath.for_each_conn(&mut |row| {
        let protocol = Protocol::from_number(row.protocol).map(|p| format!("{p:?}").to_uppercase());
        let at = SocketAddr::new;
        rows.insert((
            protocol.expect("it is balanced"),
            row.state.to_owned(),
            at(row.client, row.client_port),
            at(row.virtual_addr, row.virtual_port),
            at(row.dest, row.dest_port),
        ));
        assert_eq!(row.dest.is_unspecified(), row.forward == ForwardMethod::Bypass);
        true
    });
    rows
}

/// The same, as the kernel listed them.
fn recorded(rows: &Value) -> BTreeSet<Conn> {
    let rows = rows.as_array().expect("rows").iter().filter(|row| row["expires"] != 0);
    let end = |row: &Value, addr: &str, port: &str| {
        let addr: IpAddr = text(row, addr).parse().expect("an address");
        SocketAddr::new(addr, row[port].as_u64().expect("a port") as u16)
    };
    rows.map(|row| {
        let (protocol, state) = (text(row, "proto").to_owned(), text(row, "state").to_owned());
        (protocol, state, end(row, "c", "cp"), end(row, "v", "vp"), end(row, "d", "dp"))
    })
    .filter(|(.., virt, _)| virt.ip() != UNREACHED)
    .collect()
}

/// Whether packets to this address are dropped. Here, such packets change no state.
fn is_dropped(virt: &SocketAddr) -> bool {
    ["fd09::1", "fd77::1"].contains(&virt.ip().to_string().as_str())
}

fn unsent((protocol, state, client, virt, dest): Conn) -> Conn {
    (protocol, if is_dropped(&virt) { String::new() } else { state }, client, virt, dest)
}

/// Whether it may be over before the next packet of the recording.
fn is_brief((protocol, state, _, virt, _): &Conn) -> bool {
    state == "INIT1" || protocol == "SCTP" && is_dropped(virt)
}

/// A packet and what came of it.
fn play(bench: &mut Bench, hook: Hook, case: &Value, label: &str) {
    let v6 = case["family"] == 6;
    let frame = for_director(text(&case["in"], "frame"));
    let outcome = run(bench, hook, &frame);
    let (to_server, to_client) = (packets(&case["to_server"]), packets(&case["to_client"]));
    let title = text(case, "case");
    if text(&case["in"], "from_") == "r" {
        // The host forwards it.
        assert_eq!((outcome.verdict, to_client.len()), (Verdict::Pass, 1), "{label}");
        return;
    }
    if title.contains("fragment at") {
        // The kernel has put them together, and cut them elsewhere.
        assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
        assert_eq!(outcome.frame[26..34], frame[26..34], "{label}");
        return;
    }
    if title.contains("DF 0") && !v6 {
        // Cut by rvsd, which is not there.
        assert_eq!(error(&outcome.frame[14..], false), Some([3, 4]), "{label}");
        return;
    }
    if let Some(expected) = to_server.first() {
        assert_eq!((outcome.verdict, to_server.len()), (Verdict::Sent, 1), "{label}");
        assert_eq!(&outcome.frame[14..], expected, "{label}");
        return;
    }
    let expected = match to_client.first() {
        // RVS never tells of routes that there are not.
        Some(answer) if v6 && error(answer, v6) == Some([1, 3]) => None,
        Some(answer) => error(answer, v6),
        None if v6 => None,
        None => UNSENT.iter().find(|(case, _)| title.starts_with(case)).map(|(_, error)| *error),
    };
    match expected.filter(|error| *error != [0, 0]) {
        Some(expected) => {
            assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
            assert_eq!(error(&outcome.frame[14..], v6), Some(expected), "{label}");
        }
        None => assert_eq!(outcome.verdict, Verdict::Drop, "{label}"),
    }
}

fn replay(hook: Hook) {
    ip("addr add fd00::1/64 dev eth0 nodad");
    ip("addr add 10.9.1.1/32 dev lo");
    ip("addr add fd09::1/128 dev lo nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
    ip("addr del 10.0.0.1/8 dev eth0");
    ip("addr add 10.0.0.1/24 dev eth0");
    ip("addr add 10.1.0.1/24 dev eth0");
    neighbours();
    let recording = read_recording("cache_bypass.jsonl");
    let mut bench = Bench::new();
    let marks: Vec<_> = MARKED.iter().map(|rule| rule.parse().expect("a rule")).collect();
    bench.datapath.set_marks(&marks).expect("there is room");
    let (mut in_force, mut played, mut route) = (String::new(), 0, false);
    for line in recording.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let label = format!(
            "{hook:?} IPv{} {} {} {}",
            case["family"], case["protocol"], case["case"], case["in"]["text"]
        );
        played += 1;
        match text(&case, "case") {
            "listings" => {
                let kept = |rows: BTreeSet<Conn>| -> BTreeSet<Conn> {
                    rows.into_iter().filter(|row| !is_brief(row)).map(unsent).collect()
                };
                let theirs = text(&case, "lnc").lines().skip(2).map(|row| {
                    let words: Vec<&str> = row.split_whitespace().collect();
                    let [protocol, _, state, ref ends @ ..] = words[..] else { panic!("{row}") };
                    let end = |at: usize| -> SocketAddr { ends[at].parse().expect("an address") };
                    let [a, b, c] = [0, 1, 2].map(end);
                    (protocol.to_owned(), state.to_owned(), a, b, c)
                });
                let theirs = theirs.filter(|(.., virt, _)| virt.ip() != UNREACHED).collect();
                let (listed, theirs) = (kept(conns(&bench)), kept(theirs));
                assert_eq!(listed, theirs, "{label}");
                continue;
            }
            "counters" => {
                let v6 = case["family"] == 6;
                let key = fwmark(if v6 { Family::V6 } else { Family::V4 }, 5);
                let theirs = text(&case, "service").lines().last().expect("a row");
                assert!(theirs.ends_with("0        0        0        0        0"), "{theirs}");
                assert_eq!(bench.datapath.service_stats(&key), Default::default(), "{label}");
                let all = bench.datapath.everything(&mut |_| ());
                let all = [all.conns, all.in_pkts, all.out_pkts, all.in_bytes, all.out_bytes];
                assert_eq!(case["all"], serde_json::json!(all), "{label}");
                continue;
            }
            // See crates/sim/tests/bypass.rs.
            "told" => continue,
            _ => {}
        }
        let settings = [Sysctl::CacheBypass, Sysctl::ExpireNodestConn, Sysctl::ScheduleIcmp];
        for setting in settings {
            let value = case["settings"][setting.name()].as_i64().expect("a number");
            bench.datapath.set_sysctl(setting, value as i32).expect("it can be set");
        }
        if in_force != text(&case, "rules") {
            in_force = text(&case, "rules").to_owned();
            configure(&mut bench, &in_force);
        }
        if case.get("route_mtu").is_some() && !route {
            ip("route add 10.1.0.18/32 dev eth0 mtu lock 1300");
            ip("route add fd01::18/128 dev eth0 mtu lock 1300");
            next_tick();
            route = true;
        }
        play(&mut bench, hook, &case, &label);
        // The kernel opens the connection once it has the whole datagram.
        if text(&case, "case") == "a fragment at 0" {
            continue;
        }
        let port = client_port(&from_hex(text(&case["in"], "frame")));
        let [ours, theirs] = [conns(&bench), recorded(&case["conns"])].map(|mut rows| {
            rows.retain(|row| !is_brief(row) || row.2.port() == port);
            rows.into_iter().map(unsent).collect::<BTreeSet<_>>()
        });
        assert_eq!(ours, theirs, "{label}");
    }
    assert_eq!(played, recording.lines().count());
    let bypassed = bench.reason(Reason::Uncounted);
    assert!(played > 190 && bypassed > 80, "{played} {bypassed}");
}

#[test]
fn without_destinations_packets_go_to_their_own_address_through_tc() {
    let test = "without_destinations_packets_go_to_their_own_address_through_tc";
    in_namespace(test, || replay(Hook::Tc));
}

#[test]
fn without_destinations_packets_go_to_their_own_address_through_xdp() {
    let test = "without_destinations_packets_go_to_their_own_address_through_xdp";
    in_namespace(test, || replay(Hook::Xdp));
}
