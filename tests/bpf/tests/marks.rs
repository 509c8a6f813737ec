//! Rules that mark packets for fwmark services: which rule decides, on both hooks, and what a change
//! of the rules does to connections.

use std::net::SocketAddr;

use rvs_core::control::Datapath;
use rvs_core::layout::MarkRule;
use rvs_core::reason::Reason;
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{ACK, Flags, SYN, build};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, fwmark, in_namespace, sctp};

fn rules(lines: &[&str]) -> Vec<MarkRule> {
    lines.iter().map(|line| line.parse().unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn packet(protocol: Protocol, from: &str, to: &str, flags: Flags) -> Vec<u8> {
    let addr = |text: &str| -> SocketAddr { text.parse().expect("an address and a port") };
    match protocol {
        // An INIT opens an association.
        Protocol::Sctp => sctp::build(addr(from), addr(to), 1),
        _ => build(protocol, addr(from), addr(to), flags, b""),
    }
}

/// A bench with services for marks 5 and 6 of both families, whose servers tell them apart.
fn bench() -> Bench {
    let mut bench = Bench::new();
    for (mark, host) in [(5, 11), (6, 12)] {
        for (family, addr) in
            [(Family::V4, format!("10.1.0.{host}")), (Family::V6, format!("fd01::{host}"))]
        {
            let server = [dest(&addr, 0, ForwardMethod::DirectRoute, 1)];
            bench.service(fwmark(family, mark), Scheduler::Rr, &server);
        }
    }
    bench
}

/// The marks that decided about the connections of a client's port: by their servers' addresses.
fn marks(bench: &Bench, port: u16) -> Vec<u32> {
    let mut marks = Vec::new();
    bench.datapath.for_each_conn(&mut |row| {
        if row.client_port == port {
            marks.push(if row.dest.to_string().ends_with("11") { 5 } else { 6 });
        }
        true
    });
    marks
}

#[test]
fn the_first_rule_that_fits_decides() {
    in_namespace("the_first_rule_that_fits_decides", || {
        let list = [
            "--src 10.0.0.3 --dst 10.9.0.0/16 6",
            "--dst 10.9.0.0/16 --proto tcp --dport 8000-9000 5",
            "--dst 10.9.0.0/16 --proto udp --dport 53 6",
            "--dst 10.9.0.0/16 --proto sctp --dport 53-54 5",
            "--src fd01::/120 --dst fd09:1::/31 --proto tcp 5",
            "--dst fd09::/16 6",
            "--dst 10.8.0.1 --dport 1-99 7",
            "--dport 7777 5",
        ];
        let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
        let cases = [
            (tcp, "10.0.0.3:1000", "10.9.1.1:8000", Some(6)),
            (tcp, "10.0.0.2:1001", "10.9.1.1:8000", Some(5)),
            (tcp, "10.0.0.2:1002", "10.9.255.1:9000", Some(5)),
            (tcp, "10.0.0.2:1003", "10.9.1.1:7999", None),
            (tcp, "10.0.0.2:1004", "10.9.1.1:9001", None),
            (tcp, "10.0.0.2:1005", "10.8.1.1:8000", None),
            (udp, "10.0.0.2:1006", "10.9.1.1:8000", None),
            (udp, "10.0.0.2:1007", "10.9.1.1:53", Some(6)),
            (tcp, "[fd01::2]:1008", "[fd09:1::1]:80", Some(5)),
            (tcp, "[fd01::2]:1009", "[fd09::1]:80", Some(5)),
            (tcp, "[fd01::2]:1010", "[fd09:2::1]:80", Some(6)),
            (udp, "[fd01::2]:1011", "[fd09:1::1]:80", Some(6)),
            (tcp, "[fd01::2]:1012", "[fd08::1]:80", None),
            (sctp, "10.0.0.2:1016", "10.9.1.1:53", Some(5)),
            (sctp, "10.0.0.2:1017", "10.9.1.1:55", None),
            (sctp, "[fd01::2]:1018", "[fd09:2::1]:53", Some(6)),
            // A mark without a service.
            (tcp, "10.0.0.2:1013", "10.8.0.1:80", None),
            (tcp, "10.0.0.2:1014", "10.8.0.1:7777", Some(5)),
            (udp, "[fd01::2]:1015", "[fd08::1]:7777", Some(5)),
        ];
        for hook in [Hook::Tc, Hook::Xdp] {
            let mut bench = bench();
            for (protocol, from, to, mark) in cases {
                let label = format!("{hook:?} {protocol:?} {from} {to}");
                bench.datapath.set_marks(&[]).expect("there is room");
                let frame = packet(protocol, from, to, SYN);
                assert_eq!(bench.run(hook, &frame).verdict, Verdict::Pass, "{label}: no rules");
                bench.datapath.set_marks(&rules(&list)).expect("there is room");
                let outcome = bench.run(hook, &frame);
                let verdict = if mark.is_some() { Verdict::Sent } else { Verdict::Pass };
                assert_eq!(outcome.verdict, verdict, "{label}");
                let port = from.rsplit(':').next().and_then(|port| port.parse().ok());
                let decided = marks(&bench, port.expect("a port"));
                assert_eq!(decided, Vec::from_iter(mark), "{label}");
            }
        }
    });
}

#[test]
fn rules_go_before_other_marks_and_their_change_leaves_connections_alone() {
    in_namespace("rules_go_before_other_marks_and_their_change_leaves_connections_alone", || {
        let mut bench = bench();
        bench.datapath.set_marks(&rules(&["--dst 10.9.0.0/16 --dport 80 5"])).expect("room");
        let syn = packet(Protocol::Tcp, "10.0.0.2:1000", "10.9.1.1:80", SYN);
        assert_eq!(bench.run_marked(Hook::Tc, &syn, 6).verdict, Verdict::Sent);
        assert_eq!(marks(&bench, 1000), [5]);
        bench.datapath.set_marks(&rules(&["--dst 10.9.0.0/16 --dport 80 6"])).expect("room");
        let ack = packet(Protocol::Tcp, "10.0.0.2:1000", "10.9.1.1:80", ACK);
        assert_eq!(bench.run(Hook::Tc, &ack).verdict, Verdict::Sent);
        bench.datapath.set_marks(&[]).expect("room");
        assert_eq!(bench.run(Hook::Xdp, &ack).verdict, Verdict::Sent);
        assert_eq!(marks(&bench, 1000), [5]);
        // Without a rule it is the mark that the packet has, which XDP cannot see.
        let other = packet(Protocol::Tcp, "10.0.0.2:1001", "10.9.1.1:80", SYN);
        assert_eq!(bench.run(Hook::Xdp, &other).verdict, Verdict::Pass);
        assert_eq!(bench.reason(Reason::PuntMark), 1);
        assert_eq!(bench.run_marked(Hook::Tc, &other, 6).verdict, Verdict::Sent);
        assert_eq!(marks(&bench, 1001), [6]);
        let many = vec![rules(&["5"])[0]; 257];
        assert!(bench.datapath.set_marks(&many).is_err());
    });
}
