//! IPv4 options and IPv6 extension headers, against what a real kernel's IPVS made of them
//! (`tests/oracle/recorded/headers.jsonl`, by `headers.py`).

use std::collections::HashSet;
use std::net::SocketAddr;

use rvs_core::reason::Reason;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, SYN, build, for_director, from_hex};
use rvs_tests_bpf::{
    Bench, Hook, Verdict, dest, in_namespace, ip, linux61, read_recording, service,
};
use serde_json::Value;

/// Where an Ethernet header ends.
const L3: usize = 14;

struct Case {
    label: String,
    protocol: Protocol,
    forward: ForwardMethod,
    v6: bool,
    port: u16,
    client_port: u16,
    frame: Vec<u8>,
    /// What left the kernel, from the IP header on.
    expected: Option<Vec<u8>>,
}

impl Case {
    fn new(row: &Value) -> Self {
        let label = row["case"].as_str().expect("a label").to_owned();
        let text = |at: usize| row["service"][at].as_str().expect("a word");
        let number = |at: usize| row["service"][at].as_u64().expect("a number") as u16;
        let frame = for_director(row["in"]["frame"].as_str().expect("hexadecimal"));
        let sides = ["to_server", "to_client"].map(|side| row[side].as_array().expect("frames"));
        let mut frames = sides.into_iter().flatten();
        let hex = |row: &Value| from_hex(row["frame"].as_str().expect("hexadecimal"));
        let expected = frames.next().map(|row| hex(row)[L3..].to_vec());
        assert!(frames.next().is_none(), "{label}: two frames");
        Self {
            protocol: if text(0) == "tcp" { Protocol::Tcp } else { Protocol::Udp },
            forward: match text(1) {
                "NAT" => ForwardMethod::Masquerade,
                "DR" => ForwardMethod::DirectRoute,
                _ => ForwardMethod::Tunnel,
            },
            v6: label.contains("IPv6"),
            port: number(2),
            client_port: number(3),
            frame,
            expected,
            label,
        }
    }

    /// Enters the service.
    fn serve(&self, bench: &mut Bench) {
        let (vip, server) =
            if self.v6 { ("fd09::1", "fd01::11") } else { ("10.9.1.1", "10.1.0.11") };
        let port = if self.forward == ForwardMethod::Masquerade { 8080 } else { self.port };
        let server = [dest(server, port, self.forward, 1)];
        bench.service(service(self.protocol, vip, self.port), Scheduler::Rr, &server);
    }

    /// Opens the connection that the case goes on with, without anything between the headers.
    fn open(&self, bench: &mut Bench) {
        let (client, vip) = if self.v6 { ("fd00::2", "fd09::1") } else { ("10.0.0.2", "10.9.1.1") };
        let from = SocketAddr::new(client.parse().expect("an address"), self.client_port);
        let to = SocketAddr::new(vip.parse().expect("an address"), self.port);
        for flags in [SYN, ACK] {
            let outcome = bench.run(Hook::Tc, &build(self.protocol, from, to, flags, b""));
            assert_eq!(outcome.verdict, Verdict::Sent, "{}", self.label);
        }
    }

    /// Whether routers write into the options.
    fn is_recorded(&self) -> bool {
        let route = self.label.contains("record route")
            && !self.label.contains("full")
            && !self.label.contains("wrong");
        route || self.label.contains("timestamp")
    }

    /// Length of an IP header with the options of IPv4.
    fn header(&self, packet: &[u8]) -> usize {
        if self.v6 { 40 } else { usize::from(packet[0] & 15) * 4 }
    }

    /// Type of a packet's ICMP message.
    fn icmp(&self, packet: &[u8]) -> Option<u8> {
        let is_icmp = if self.v6 { packet[6] == 58 } else { packet[9] == 1 };
        is_icmp.then(|| packet[self.header(packet)])
    }

    /// Whether a packet is an ICMP error about what came in.
    fn is_answer(&self, packet: &[u8]) -> bool {
        self.icmp(packet).is_some() && !self.label.contains("port unreachable")
    }

    /// Whether the host's own IP layer sent it: a parameter problem, which IPVS never reports.
    fn is_hosts(&self, packet: &[u8]) -> bool {
        self.icmp(packet) == Some(if self.v6 { 4 } else { 12 })
    }
}

/// Makes options and the header checksum zero.
fn blank(case: &Case, packet: &mut [u8]) {
    let end = case.header(packet);
    packet[10..12].fill(0);
    packet[20..end].fill(0);
}

fn play(bench: &mut Bench, case: &Case) {
    let label = &case.label;
    let outcome = bench.run(Hook::Tc, &case.frame);
    let expected = case.expected.as_deref().filter(|expected| !case.is_hosts(expected));
    match (outcome.verdict, expected) {
        (Verdict::Sent, Some(expected)) if case.is_answer(expected) => {
            let (ours, theirs) = (&outcome.frame[L3..], expected);
            let (ours, theirs) = (&ours[case.header(ours)..], &theirs[case.header(theirs)..]);
            // The kernel's repeats options in its own header, and quotes them as it changed them.
            let len = if case.is_recorded() { 2 } else { theirs.len() };
            assert_eq!(ours[..len], theirs[..len], "{label}");
        }
        (Verdict::Sent, Some(expected)) => {
            let outer = match (case.forward, case.v6) {
                (ForwardMethod::Tunnel, false) => 20,
                (ForwardMethod::Tunnel, true) => 40,
                _ => 0,
            };
            let mut ours = outcome.frame[L3 + outer..].to_vec();
            let mut theirs = expected[outer..].to_vec();
            if case.is_recorded() {
                let options = 20..case.header(&ours);
                assert_eq!(ours[options.clone()], case.frame[L3..][options], "{label}");
                blank(case, &mut ours);
                blank(case, &mut theirs);
            }
            assert_eq!(ours, theirs, "{label}");
        }
        // An ICMP error whose options the host would have written into is not forwarded by it.
        (Verdict::Sent, None) => {
            assert!(case.is_recorded() && label.contains("port unreachable in"), "{label}: sent");
        }
        (Verdict::Pass, None) => assert_eq!(outcome.frame, case.frame, "{label}"),
        // Not for IPVS: routed on as it came.
        (Verdict::Pass, Some(expected)) => {
            let addresses = if case.v6 { 8..40 } else { 12..20 };
            assert_eq!(case.frame[L3..][addresses.clone()], expected[addresses], "{label}: passed");
        }
        (verdict, expected) => panic!("{label}: {verdict:?}, the kernel {expected:?}"),
    }
}

#[test]
fn options_and_extension_headers_are_treated_as_the_kernel_does() {
    in_namespace("options_and_extension_headers_are_treated_as_the_kernel_does", || {
        ip("addr add fd00::1/16 dev eth0 nodad");
        ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
        let text = read_recording("headers.jsonl");
        let mut bench = Bench::new();
        let (mut served, mut opened) = (HashSet::new(), HashSet::new());
        let mut played = 0;
        for line in text.lines() {
            let case = Case::new(&serde_json::from_str(line).expect("a line of JSON"));
            if served.insert(case.port) {
                case.serve(&mut bench);
            }
            let opens = case.label.contains(": opens, ");
            if !opens && opened.insert((case.port, case.client_port)) {
                case.open(&mut bench);
            }
            play(&mut bench, &case);
            played += 1;
        }
        println!("{played} cases of {} services", served.len());
        assert_eq!((served.len(), played > 550), (8, true), "{played}");
        assert!(bench.reason(Reason::ExtensionHeader) > 0);
    });
}

#[test]
fn xdp_leaves_options_and_extension_headers_to_tc() {
    in_namespace("xdp_leaves_options_and_extension_headers_to_tc", || {
        let text = read_recording("headers.jsonl");
        let mut bench = Bench::new();
        for opening in ["NAT IPv4 tcp: opens, no operation", "NAT IPv6 tcp: opens, hop-by-hop"] {
            let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let mut found = rows.filter(|row| row["case"] == opening);
            let case = Case::new(&found.next().expect("it was asked"));
            case.serve(&mut bench);
            let before = bench.reason(Reason::ExtensionHeader);
            let outcome = bench.run(Hook::Xdp, &case.frame);
            assert_eq!(
                (outcome.verdict, &outcome.frame),
                (Verdict::Pass, &case.frame),
                "{opening}"
            );
            assert_eq!(bench.reason(Reason::ExtensionHeader), before + 1, "{opening}");
        }
    });
}

#[test]
fn the_same_on_linux_6_1() {
    let tests = [
        "options_and_extension_headers_are_treated_as_the_kernel_does",
        "xdp_leaves_options_and_extension_headers_to_tc",
    ];
    let recordings = ["tests/oracle/recorded/headers.jsonl"];
    linux61::pass(&tests, &recordings);
}
