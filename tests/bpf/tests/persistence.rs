//! Persistence against what a real kernel's IPVS did: which destination a client sticks to, the
//! rows of `ipvsadm -Lnc`, counts, renewal and expiry, second by second
//! (`tests/oracle/recorded/persist.jsonl` and `persist6.jsonl`; its README explains them).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use rvs_core::control::Datapath;
use rvs_core::types::Protocol;
use rvs_tests_bpf::frame::{ACK, Flags, build, read};
use rvs_tests_bpf::replay::{Replay, Row};
use rvs_tests_bpf::{Hook, Verdict, in_namespace, ip, read_recording};
use serde_json::Value;

const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

fn recording(name: &str) -> Vec<Value> {
    read_recording(name)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|n| n.try_into().ok()).expect("a number")
}

fn socket(addr: &Value, port: &Value) -> SocketAddr {
    let port = u16::try_from(number(port)).expect("a port");
    SocketAddr::new(text(addr).parse().expect("an address"), port)
}

/// The recorded rows of `conns`.
fn recorded_rows(conns: &Value) -> Vec<Row> {
    let row = |row: &Value| Row {
        protocol: text(&row["proto"]).into(),
        client: socket(&row["c"], &row["cp"]),
        vip: socket(&row["v"], &row["vp"]),
        dest: socket(&row["d"], &row["dp"]),
        state: text(&row["state"]).into(),
        expires: number(&row["expires"]),
    };
    let mut rows: Vec<Row> = conns.as_array().expect("rows").iter().map(row).collect();
    rows.sort();
    rows
}

/// Seconds by which an expiry may differ: the kernel's whole seconds, recorded a few tenths after
/// the packet, against ticks of 134 ms and sweeps twice a second.
const SLACK: u32 = 1;

/// The same after a timer of the kernel expired: it fires up to 2 s late (the granularity of its
/// timer wheel at 60 s), and the template's next minute begins then.
const TIMER_SLACK: u32 = 3;

/// Compares rows but for `slack` seconds: what is due on one side may be gone or renewed on the
/// other.
fn assert_rows(ours: &[Row], kernels: &[Row], slack: u32, case: &str) {
    let same = |a: &Row, b: &Row| {
        let key = |row: &Row| Row { expires: 0, ..row.clone() };
        let due = a.expires.min(b.expires) <= slack;
        key(a) == key(b) && (due || a.expires.abs_diff(b.expires) <= slack)
    };
    let missing =
        |row: &&Row, there: &[Row]| row.expires > slack && !there.iter().any(|o| same(row, o));
    let ours_only: Vec<&Row> = ours.iter().filter(|row| missing(row, kernels)).collect();
    let kernels_only: Vec<&Row> = kernels.iter().filter(|row| missing(row, ours)).collect();
    assert!(
        ours_only.is_empty() && kernels_only.is_empty(),
        "{case}\nours: {ours_only:#?}\nthe kernel's: {kernels_only:#?}"
    );
}

/// The services that persist.py makes at once: port, options, destinations' last numbers.
const SERVICES: [(u16, &str, &[u8]); 19] = [
    (1001, "-t -p 5", &[11, 12, 13]),
    (1002, "-t -p 5", &[11, 12, 13]),
    (1003, "-t -p 30", &[11, 12, 13]),
    (1004, "-t -p 30", &[11, 12, 13]),
    (1005, "-t -p 5", &[11, 12, 13]),
    (1006, "-t -p 60", &[11, 12, 13]),
    (1007, "-t -p", &[11, 12, 13]),
    (1008, "-t -p 60 -M 255.255.255.0", &[11, 12, 13]),
    (1009, "-u -p 60", &[11, 12, 13]),
    (1010, "-t -p 60 -g", &[11, 12, 13]),
    (1011, "-t -p 60", &[11, 12, 13]),
    (1012, "-t -p 60", &[11, 12, 13]),
    (1013, "-t -p 60", &[11, 12, 13]),
    (1014, "-t -p 60", &[11, 12, 13]),
    (1015, "-t -p 60", &[11, 12, 13]),
    (1016, "-t -p 60", &[11]),
    (1017, "-t -p 60 -x 2", &[11, 12]),
    (1018, "-t -p 60", &[11, 12, 13]),
    (1019, "-t -p 60", &[11, 12, 13]),
];

/// What persist.py does before the first line of a case that has not had it yet: commands of
/// ipvsadm, and settings.
const COMMANDS: [(&str, &[&str]); 20] = [
    (
        "port 0",
        &[
            "-A -t 10.9.1.1:0 -s rr -p 60",
            "-a -t 10.9.1.1:0 -r 10.1.0.14:0 -m",
            "-a -t 10.9.1.1:0 -r 10.1.0.15:0 -m",
        ],
    ),
    (
        "fwmark 7",
        &[
            "-D -t 10.9.1.1:0",
            "-A -f 7 -s rr -p 60",
            "-a -f 7 -r 10.1.0.14:0 -g",
            "-a -f 7 -r 10.1.0.15:0 -g",
        ],
    ),
    (
        "w0 (expire_quiescent_template=0): a second connection after weight 0",
        &["-e -t 10.9.1.1:1011 -r 10.1.0.13:1011 -m -w 0"],
    ),
    ("w0 (expire_quiescent_template=1)", &["expire_quiescent_template=1"]),
    (
        "w0 (expire_quiescent_template=1): a second connection after weight 0",
        &["-e -t 10.9.1.1:1012 -r 10.1.0.13:1012 -m -w 0"],
    ),
    ("deleted (expire_nodest_conn=0)", &["expire_quiescent_template=0"]),
    (
        "deleted (expire_nodest_conn=0): data on the first",
        &["-d -t 10.9.1.1:1013 -r 10.1.0.13:1013"],
    ),
    ("added again: data on the first", &["-a -t 10.9.1.1:1013 -r 10.1.0.13:1013 -m"]),
    ("deleted (expire_nodest_conn=1)", &["expire_nodest_conn=1"]),
    (
        "deleted (expire_nodest_conn=1): data on the first",
        &["-d -t 10.9.1.1:1014 -r 10.1.0.13:1014"],
    ),
    ("added again: data on the first", &["-a -t 10.9.1.1:1014 -r 10.1.0.13:1014 -m"]),
    ("del+add", &["expire_nodest_conn=0"]),
    (
        "del+add: a second connection",
        &["-d -t 10.9.1.1:1015 -r 10.1.0.13:1015", "-a -t 10.9.1.1:1015 -r 10.1.0.13:1015 -m"],
    ),
    ("single, weight 0: second connection", &["-e -t 10.9.1.1:1016 -r 10.1.0.11:1016 -m -w 0"]),
    ("single, deleted: third connection", &["-d -t 10.9.1.1:1016 -r 10.1.0.11:1016"]),
    ("-E -p 100: second connection", &["-E -t 10.9.1.1:1018 -s rr -p 100"]),
    ("-E without -p: third", &["-E -t 10.9.1.1:1018 -s rr"]),
    ("-E -p again: fifth", &["-E -t 10.9.1.1:1018 -s rr -p 60"]),
    ("service deleted: rows", &["-D -t 10.9.1.1:1019"]),
    (
        "service added again: data on the first",
        &[
            "-A -t 10.9.1.1:1019 -s rr -p 60",
            "-a -t 10.9.1.1:1019 -r 10.1.0.12:1019 -m",
            "-a -t 10.9.1.1:1019 -r 10.1.0.13:1019 -m",
            "-a -t 10.9.1.1:1019 -r 10.1.0.11:1019 -m",
        ],
    ),
];

/// Seconds between the clock of persist.py's packets and that of its watch.
const WATCH: f64 = 1.4;

fn replay_persist(hook: Hook) {
    let mut replay = Replay::new(hook);
    for (port, options, dests) in SERVICES {
        let (protocol, options) = options.split_once(' ').expect("a protocol first");
        let at = format!("{protocol} 10.9.1.1:{port}");
        let (mine, dests_options) = match options.split_once(" -g").or(options.split_once(" -x")) {
            Some((mine, _)) if options.contains("-g") => (mine, "-g"),
            Some((mine, _)) => (mine, "-m -x 2"),
            None => (options, "-m"),
        };
        replay.command(&format!("-A {at} -s rr {mine}"));
        for last in dests {
            replay.command(&format!("-a {at} -r 10.1.0.{last}:{port} {dests_options}"));
        }
    }
    let mut commands = COMMANDS.to_vec();
    let mut compared = 0;
    for line in recording("persist.jsonl") {
        let case = text(&line["case"]);
        let second = line["t"].as_f64();
        if let Some(second) = second {
            replay.advance(if case == "watch" { second + WATCH } else { second });
        }
        let packet = line["packet"].as_array();
        let at = packet.map(|packet| socket(&packet[2], &packet[3]));
        if let Some(index) = commands.iter().position(|(before, _)| *before == case) {
            for command in commands.remove(index).1 {
                match command.split_once('=') {
                    Some((name, value)) => replay.set(name, value),
                    None => replay.command(command),
                }
            }
        }
        let case = format!("{hook:?} {case} at {second:?}");
        if let (Some(packet), Some(vip)) = (packet, at) {
            let mark = if case.contains("fwmark") { 7 } else { 0 };
            let src = socket(&packet[0], &packet[1]);
            let to = replay.marked(src, vip, text(&packet[4]), mark);
            let expected = line["to"].get(0).map(|to| text(to).parse().expect("an address"));
            assert_eq!(to, expected, "{case}");
        } else if let Some(rows) = line["rows"].as_object() {
            compare_watch(&replay, rows, &case);
        } else if line.get("conns").is_some() {
            compare_note(&replay, &line, &case);
        } else if let Some(lines) = line["lnc"].as_array() {
            compare_lines(&replay, lines, &case);
        } else {
            compare_listing(&replay, text(&line["pconn"]), &case);
        }
        compared += 1;
    }
    assert!(commands.is_empty(), "never came: {commands:?}");
    assert_eq!(compared, 158, "{hook:?}");
    replay.end();
}

/// Rows and counts of the ports that the note is about.
fn compare_note(replay: &Replay, line: &Value, case: &str) {
    let of_port_0 = case.contains("port 0");
    let mut kernels = recorded_rows(&line["conns"]);
    kernels.retain(|row| of_port_0 || row.vip.port() != 0);
    let dests = line["dests"].as_object().expect("destinations");
    let mut ports: HashSet<u16> = kernels.iter().map(|row| row.vip.port()).collect();
    if !of_port_0 {
        let at = |at: &String| at.parse::<SocketAddr>().expect("an address").port();
        ports.extend(dests.keys().map(at));
    }
    assert!(!ports.is_empty(), "{case}");
    let mut ours = replay.rows();
    ours.retain(|row| ports.contains(&row.vip.port()));
    assert_rows(&ours, &kernels, SLACK, case);
    for (at, kernels) in dests {
        let at: SocketAddr = at.parse().expect("an address");
        let (method, [weight, active, inactive, _]) =
            replay.dest(at.ip(), at.port()).unwrap_or_else(|| panic!("{case}: no {at}"));
        assert_eq!(&serde_json::json!([method, weight, active, inactive]), kernels, "{case}: {at}");
    }
    if !of_port_0 {
        let ours: usize = ports.iter().map(|port| replay.dests_at(*port)).sum();
        assert_eq!(ours, dests.len(), "{case}: destinations");
    }
}

/// Lines of `ipvsadm -Lnc`: the connections and the template of the fwmark service.
fn compare_lines(replay: &Replay, lines: &[Value], case: &str) {
    let row = |line: &Value| {
        let words: Vec<&str> = text(line).split_whitespace().collect();
        let [protocol, expires, state, client, vip, dest] = words[..] else { panic!("{line}") };
        let at = |text: &str| text.parse().expect("an address and a port");
        let (minutes, seconds) = expires.split_once(':').expect("minutes");
        let number = |text: &str| text.parse::<u32>().expect("a number");
        Row {
            protocol: protocol.into(),
            client: at(client),
            vip: at(vip),
            dest: at(dest),
            state: state.into(),
            expires: number(minutes) * 60 + number(seconds),
        }
    };
    let kernels: Vec<Row> = lines.iter().map(row).collect();
    let mut ours = replay.rows();
    ours.retain(|row| row.protocol == "IP" || row.vip.to_string().starts_with("10.9.2."));
    assert_eq!(ours.len(), 4, "{case}");
    assert_rows(&ours, &kernels, SLACK, case);
}

/// The five services that were watched until their templates expired.
fn compare_watch(replay: &Replay, rows: &serde_json::Map<String, Value>, case: &str) {
    let (vip, server) = ("10.9.1.1".parse().expect("one"), "10.1.0.13".parse().expect("one"));
    let client: IpAddr = "10.0.0.2".parse().expect("one");
    let mut kernels = Vec::new();
    for (port, letter) in (1001..).zip(["A", "B", "C", "D", "E"]) {
        for row in rows.get(letter).and_then(Value::as_array).into_iter().flatten() {
            kernels.push(Row {
                protocol: "TCP".into(),
                client: SocketAddr::new(client, number(&row[0]) as u16),
                vip: SocketAddr::new(vip, port),
                dest: SocketAddr::new(server, port),
                state: text(&row[1]).into(),
                expires: number(&row[2]),
            });
        }
    }
    let mut ours = replay.rows();
    ours.retain(|row| (1001..=1005).contains(&row.vip.port()));
    assert_rows(&ours, &kernels, TIMER_SLACK, case);
}

/// `ipvsadm -Ln --persistent-conn`.
fn compare_listing(replay: &Replay, listing: &str, case: &str) {
    let mut seen = 0;
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["->", at, weight, persistent, active, inactive] = words[..] else { continue };
        let at: SocketAddr = at.parse().expect("an address");
        let (_, ours) = replay.dest(at.ip(), at.port()).expect("a destination");
        let kernels: [u32; 4] =
            [weight, active, inactive, persistent].map(|n| n.parse().expect("a number"));
        assert_eq!(ours, kernels, "{case}: {at}");
        seen += 1;
    }
    assert_eq!(seen, 18, "{case}");
}

#[test]
fn clients_stick_as_they_do_in_the_kernel() {
    in_namespace("clients_stick_as_they_do_in_the_kernel", || {
        HOOKS.into_iter().for_each(replay_persist);
    });
}

/// Virtual port in the kernel's listing of a template that has lost its destination but still
/// controls connections. RVS does not list it any more.
const INVALID: u16 = 65535;

fn replay_persist6(hook: Hook) {
    let mut replay = Replay::new(hook);
    let (mut packets, mut notes) = (0, 0);
    for line in recording("persist6.jsonl") {
        replay.advance(line["t"].as_f64().expect("a time"));
        let case = format!("{hook:?} {line}");
        if let Some(command) = line["cmd"].as_str() {
            replay.command(command);
        } else if let Some(packet) = line["packet"].as_array() {
            let at = |index: usize| socket(&packet[index], &packet[index + 1]);
            let to = replay.packet(at(0), at(2), text(&packet[4]));
            let expected = line["to"].get(0).map(|to| socket(&to[0], &to[1]));
            assert_eq!(to, expected, "{case}");
            packets += 1;
        } else if let Some(reply) = line["reply"].as_array() {
            let (src, dst) = (socket(&reply[0], &reply[1]), socket(&reply[2], &reply[3]));
            let frame = build(Protocol::Udp, src, dst, Flags::default(), b"hello");
            let sent = replay.bench.run(hook, &frame);
            assert_eq!(sent.verdict, Verdict::Sent, "{case}");
            let vip = if src.is_ipv4() { "10.9.1.1:2004" } else { "[fd09::1]:2004" };
            assert_eq!(read(&sent.frame).src, vip.parse().expect("an address"), "{case}");
        } else {
            let mut kernels = recorded_rows(&line["conns"]);
            kernels.retain(|row| row.vip.port() != INVALID);
            assert_rows(&replay.rows(), &kernels, SLACK, &case);
            for (at, kernels) in line["dests"].as_object().expect("destinations") {
                let (addr, port) = at.split_once('|').expect("an address and a port");
                let (addr, port) = (addr.parse().expect("one"), port.parse().expect("one"));
                let (method, [weight, active, inactive, _]) =
                    replay.dest(addr, port).expect("a destination");
                let ours = serde_json::json!([method, weight, active, inactive]);
                assert_eq!(&ours, kernels, "{case}: {at}");
            }
            notes += 1;
        }
    }
    assert_eq!((packets, notes), (31, 11));
    replay.end();
}

#[test]
fn clients_of_either_family_stick_by_prefix_port_and_protocol() {
    in_namespace("clients_of_either_family_stick_by_prefix_port_and_protocol", || {
        ip("route add fd00::/16 via fd01::2");
        HOOKS.into_iter().for_each(replay_persist6);
    });
}

#[test]
fn each_service_of_a_client_has_its_own_template() {
    in_namespace("each_service_of_a_client_has_its_own_template", || {
        for hook in HOOKS {
            for [vip, client, other, servers] in [
                ["10.9.1.1", "10.0.0.2", "10.0.0.3", "10.1.0."],
                ["[fd09::1]", "[fd01::2]", "[fd01::3]", "[fd01::"],
            ] {
                let mut replay = Replay::new(hook);
                let close = if vip.starts_with('[') { "]" } else { "" };
                for port in [80, 443] {
                    replay.command(&format!("-A -t {vip}:{port} -s rr -p 300"));
                    for last in [11, 12] {
                        let server = format!("{servers}{last}{close}:{port}");
                        replay.command(&format!("-a -t {vip}:{port} -r {server} -m"));
                    }
                }
                let at = |host: &str, port: u16| -> SocketAddr {
                    format!("{host}:{port}").parse().expect("an address")
                };
                let mut to = |from: &str, source: u16, port: u16| {
                    let sent = replay.packet(at(from, source), at(vip, port), "S");
                    sent.unwrap_or_else(|| panic!("{hook:?} {from} to {port}"))
                };
                // Another client moves the round robin of 443, so that the two differ.
                to(other, 40_000, 443);
                let (http, https) = (to(client, 40_000, 80), to(client, 40_000, 443));
                assert_ne!(http.ip(), https.ip());
                for source in 40_001..40_010 {
                    assert_eq!((to(client, source, 80), to(client, source, 443)), (http, https));
                }
                let templates: Vec<Row> =
                    replay.rows().into_iter().filter(|row| row.client.port() == 0).collect();
                assert_eq!(templates.len(), 3, "{templates:#?}");
                // A late packet of no connection changes nothing.
                let stray = build(Protocol::Tcp, at(client, 50_000), at(vip, 80), ACK, b"");
                assert_eq!(replay.bench.run(hook, &stray).verdict, Verdict::Pass);
                let stats = |port: u16| {
                    let key =
                        rvs_tests_bpf::service(Protocol::Tcp, vip.trim_matches(['[', ']']), port);
                    replay.bench.datapath.service_stats(&key).conns
                };
                assert_eq!((stats(80), stats(443)), (10, 11));
                replay.end();
            }
        }
    });
}
