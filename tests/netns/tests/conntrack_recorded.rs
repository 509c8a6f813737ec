//! `conntrack`, packet by packet beside a real kernel's IPVS: what leaves, what netfilter knows of it, what
//! is counted (`tests/oracle/recorded/conntrack.jsonl`, by `conntrack.py`, which has the same network).

use std::path::Path;

use rvs_testkit::lab::{Director, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::bench::{End, is_forgotten, known, network, recorded};
use rvs_tests_netns::{nft, setting};
use serde_json::Value;

/// The rules that the recording was made with: kube-proxy's, in short, or a harmless one.
const NAT: [&str; 2] = [
    "table inet t { chain post { type nat hook postrouting priority srcnat; \
     ip daddr 10.99.9.9 masquerade; }\n}",
    "table inet t { chain pre { type nat hook prerouting priority dstnat; \
     ip daddr 10.9.1.1 meta mark set 0x4000; ip6 daddr fd09::1 meta mark set 0x4000; }\n\
     chain post { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }\n}",
];

/// The commands that lead to a recorded row's services.
fn services(row: &Value) -> String {
    let v4 = row["family"] == 4;
    let vip = if v4 { "10.9.1.1" } else { "[fd09::1]" };
    let server = |i: usize| if v4 { format!("10.1.0.1{i}") } else { format!("[fd01::1{i}]") };
    let (option, count) = match (&row["anew"], &row["nodest"], row["protocol"].as_str()) {
        (Value::Number(_), ..) => ("-t", 2),
        (_, Value::Number(_), _) | (.., Some("udp")) => ("-u", 1),
        _ => ("-t", 1),
    };
    let method = row["method"].as_str().unwrap_or("m");
    let port = if row["method"] == "m" { 8080 } else { 80 };
    let mut lines = format!("-A {option} {vip}:80 -s rr\n");
    for i in 1..=count {
        lines += &format!("-a {option} {vip}:80 -r {}:{port} -{method}\n", server(i));
    }
    lines
}

/// A packet after a hop.
fn hop(packet: &str) -> String {
    let old = packet;
    let byte = |at: usize| u8::from_str_radix(&old[2 * at..2 * at + 2], 16).expect("a byte");
    let mut packet = old.to_owned();
    let mut set =
        |at: usize, byte: u8| packet.replace_range(2 * at..2 * at + 2, &format!("{byte:02x}"));
    if byte(0) >> 4 == 4 {
        set(8, byte(8) - 1);
        set(10, byte(10) + 1);
    } else {
        set(7, byte(7) - 1);
    }
    packet
}

#[test]
fn packets_and_netfilter_s_entries_are_the_kernel_s() -> Result<(), LabError> {
    need_lab!("conntrack", "nft", "python3");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/recorded/conntrack.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let lab = network()?;
    let host = lab.host("director");
    let director = Director::start(&host, &["--mode", "tc"])?;
    setting(&director, "conntrack=1").expect("it can be set");
    let mut client = End::new(&lab.host("client"), &host, "eth0")?;
    let mut servers = End::new(&lab.host("servers"), &host, "eth1")?;
    let (mut port, mut masquerades) = (0, None);
    let (mut packets, mut entries, mut stats, mut differences) = (0, 0, 0, 0);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let case = row["case"].as_str().expect("a text");
        let what = format!("{case} {}", row["cport"]);
        let masquerade = row["masquerade"] == 1;
        if masquerades != Some(masquerade) {
            let flush = if masquerades.is_some() { "delete table inet t\n" } else { "" };
            nft(&host, &format!("{flush}{}", NAT[usize::from(masquerade)]))?;
            masquerades = Some(masquerade);
        }
        let cport = row["cport"].as_u64().expect("a port");
        if cport != port {
            port = cport;
            director.ipvsadm("-C")?;
            director.ipvsadm(if row["expires"] == 1 {
                "--set 2 2 2"
            } else {
                "--set 900 120 300"
            })?;
            let nodest = u8::from(row["nodest"] == 1);
            setting(&director, &format!("expire_nodest_conn={nodest}")).expect("it can be set");
            for line in services(&row).lines() {
                director.ipvsadm(line)?;
            }
        }
        // The kernel masquerades what it routes directly, which then has the director's address twice or is
        // answered to it; here nothing but masqueraded connections is.
        let masqueraded = masquerade && row["method"] == "g";
        if let Some(frame) = row["in"]["frame"].as_str() {
            if case == "gone" {
                let words = services(&row);
                let add = words.lines().nth(1).expect("a destination");
                let (rest, server) = add.split_once(" -r ").expect("a server");
                let next = format!("{rest} -r {}", server.replacen("11", "12", 1));
                director.ipvsadm(&next)?;
                let server = server.strip_suffix(" -m").expect("a method");
                director.ipvsadm(&format!("{} -r {server}", rest.replacen("-a", "-d", 1)))?;
                // At once there, with the next sweep here.
                is_forgotten(&host, cport)?;
            }
            let from_client = row["in"]["from_"] == "c";
            let (sender, receiver) =
                if from_client { (&mut client, &mut servers) } else { (&mut servers, &mut client) };
            sender.send(frame);
            let came = receiver.came();
            let side = if from_client { "to_server" } else { "to_client" };
            let sent = row[side].as_array().expect("a list").iter();
            let sent: Vec<&str> =
                sent.map(|sent| &sent["frame"].as_str().expect("a frame")[28..]).collect();
            if masqueraded {
                assert_ne!(came, sent, "{what}: nothing differs any more");
                assert_eq!(came, [hop(&frame[28..])], "{what}");
                differences += 1;
            } else {
                assert_eq!(came, sent, "{what}");
            }
            packets += 1;
        } else if case == "stats" {
            let listed = director.ipvsadm("-Ln --stats --exact")?;
            let counted = |text: &str| -> Vec<Vec<String>> {
                let lines = text.lines().skip(3);
                lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
            };
            assert_eq!(counted(&listed), counted(row["stats"].as_str().expect("a text")), "{what}");
            stats += 1;
        } else {
            if case == "expired" {
                is_forgotten(&host, cport)?;
            }
            let mut expected = recorded(&row, cport);
            if masqueraded {
                let client = if row["family"] == 4 { "10.0.0.2" } else { "fd00::2" };
                let vip = if row["family"] == 4 { "10.9.1.1" } else { "fd09::1" };
                let ours =
                    format!("{client} {vip} {cport} 80 {vip} {client} 80 {cport} [UNREPLIED]");
                assert!(expected != [ours.as_str()], "{what}: nothing differs any more");
                expected = vec![ours];
                differences += 1;
            }
            assert_eq!(known(&host, cport)?, expected, "{what}");
            entries += 1;
        }
    }
    assert_eq!((packets, entries, stats, differences), (80, 88, 8, 8));
    Ok(())
}
