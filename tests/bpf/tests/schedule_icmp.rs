//! `schedule_icmp`: ICMP errors about packets of no connection, and what the connections that they open
//! do next, against what a real kernel's IPVS did (`tests/oracle/recorded/schedule_icmp.jsonl`).

use rvs_core::reason::Reason;
use rvs_core::sysctl::{self, Kind};
use rvs_tests_bpf::frame::{for_director, from_hex};
use rvs_tests_bpf::replay::Replay;
use rvs_tests_bpf::{Hook, Verdict, in_namespace, ip, read_recording};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Sets what a row says, or puts it back.
fn set(replay: &mut Replay, settings: &Value, back: bool) {
    for (name, value) in settings.as_object().expect("settings") {
        let mut known = sysctl::SETTINGS.into_iter();
        let (name, kind) = known.find(|(known, _)| known == name).expect("a setting");
        let Kind::Changes(sysctl) = kind else { panic!("{name} cannot be set") };
        let on = i32::from(name == "schedule_icmp");
        let value = if back { on.max(sysctl.default()).to_string() } else { value.to_string() };
        replay.set(name, &value);
    }
}

/// One packet.
fn play(replay: &mut Replay, row: &Value) {
    let frame = for_director(text(&row["in"]["frame"]));
    let case = text(&row["case"]);
    let outcome = replay.bench.run(Hook::Tc, &frame);
    let Some(expected) = list(&row["to_server"]).first() else {
        // What the kernel's own stack answers, or IPVS itself.
        let answered = !list(&row["to_client"]).is_empty();
        assert!(outcome.verdict != Verdict::Sent || answered, "{case}: sent");
        return;
    };
    assert_eq!(outcome.verdict, Verdict::Sent, "{case}");
    let (expected, ours) = (&from_hex(text(&expected["frame"]))[14..], &outcome.frame[14..]);
    let v6 = expected[0] >> 4 == 6;
    // Outer headers have an identification and a source of their own.
    let (outer, dst) = match (case.starts_with("TUN"), v6) {
        (true, true) => (40, 24..40),
        (true, false) => (20, 16..20),
        (false, _) => (0, 0..0),
    };
    assert_eq!(ours[dst.clone()], expected[dst], "{case}: the outer header");
    assert_eq!(ours[outer..], expected[outer..], "{case}");
}

/// The connections that are left, and their destinations' counts.
fn compare(replay: &mut Replay, row: &Value) {
    let port = u16::try_from(row["port"].as_u64().expect("a port")).expect("a port");
    let rows = replay.rows();
    let ours = rows.iter().filter(|conn| conn.vip.port() == port).map(|conn| {
        json!([conn.protocol, conn.client.port(), conn.dest.ip().to_string(), conn.state])
    });
    let sorted = |mut rows: Vec<Value>| {
        rows.sort_by_key(Value::to_string);
        rows
    };
    let ours = sorted(ours.collect());
    assert_eq!(ours, sorted(list(&row["rows"]).to_vec()), "{row}");
    for dest in list(&row["dests"]) {
        let port = if text(&dest[1]) == "Masq" { 8080 } else { port };
        let addr = text(&dest[0]).parse().expect("an address");
        let (method, [weight, active, inactive, _]) =
            replay.last_dest(addr, port).expect("a destination");
        assert_eq!(&json!([dest[0], method, weight, active, inactive]), dest, "{row}");
    }
}

#[test]
fn icmp_errors_open_connections_as_in_the_kernel() {
    in_namespace("icmp_errors_open_connections_as_in_the_kernel", || {
        ip("addr add fd00::1/16 dev eth0 nodad");
        ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
        let recording = read_recording("schedule_icmp.jsonl");
        let rows: Vec<Value> = recording
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        let mut replay = Replay::new(Hook::Tc);
        replay.set("schedule_icmp", "1");
        let mut played = 0;
        for case in rows.chunk_by(|a, b| a["port"] == b["port"]) {
            let commands = list(&case[0]["commands"]);
            commands.iter().for_each(|command| replay.command(text(command)));
            set(&mut replay, &case[0]["sysctls"], false);
            for row in case {
                if row["in"].is_object() {
                    play(&mut replay, row);
                } else {
                    compare(&mut replay, row);
                }
                played += 1;
            }
            set(&mut replay, &case[0]["sysctls"], true);
        }
        assert_eq!((played, rows.len()), (164, 164));
        // Errors and packets: nothing is there for them.
        assert!(replay.bench.reason(Reason::NoDest) > 0);
    });
}
