//! Limits of ICMP errors in the programs: the settings reach them, and each receiver and all together
//! get what they may. How many in detail: `crates/sim/tests/icmp_limits.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use rvs_core::limit::Settings;
use rvs_core::reason::Reason;
use rvs_core::types::{Protocol, Scheduler};
use rvs_tables::Memory as _;
use rvs_tests_bpf::frame::{SYN, build};
use rvs_tests_bpf::{Bench, Hook, Verdict, in_namespace, service};

/// A data path with a service that has no destinations.
fn bench() -> Bench {
    let mut bench = Bench::new();
    for vip in ["10.9.1.1", "fd09::1"] {
        bench.service(service(Protocol::Udp, vip, 100), Scheduler::Rr, &[]);
    }
    bench
}

fn limit(bench: &Bench, change: impl FnOnce(&mut Settings)) {
    let mut settings = Settings::default();
    change(&mut settings);
    bench.datapath.maps().limits().set(&settings);
}

/// One packet of each of so many clients with IPv4, beginning with the one after `first`; how many got
/// an error.
fn clients(bench: &mut Bench, first: u32, count: u32) -> u32 {
    let to: SocketAddr = "10.9.1.1:100".parse().expect("an address");
    let answered = (first + 1..=first + count).filter(|client| {
        let from = Ipv4Addr::from(0x0a40_0000 + client);
        let frame = build(Protocol::Udp, SocketAddr::new(from.into(), 4000), to, SYN, b"");
        bench.run(Hook::Tc, &frame).verdict == Verdict::Sent
    });
    answered.count() as u32
}

/// So many packets of one client; how many were answered.
fn of_one(bench: &mut Bench, from: &str, to: &str, count: u32) -> u32 {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let frame = build(Protocol::Udp, address(from), address(to), SYN, b"");
    (0..count).filter(|_| bench.run(Hook::Tc, &frame).verdict == Verdict::Sent).count() as u32
}

#[test]
fn a_receiver_gets_six_errors_at_once() {
    in_namespace("a_receiver_gets_six_errors_at_once", || {
        let mut bench = bench();
        // Nine seconds are enough for the test's length not to matter.
        limit(&bench, |settings| settings.ratelimit = [9_000, 9_000 << 2]);
        for (client, other, vip) in [
            ("10.0.0.2:4000", "10.0.0.3:4000", "10.9.1.1:100"),
            ("[fd01::2]:4000", "[fd01::3]:4000", "[fd09::1]:100"),
        ] {
            assert_eq!(of_one(&mut bench, client, vip, 20), 6, "{client}");
            assert_eq!(of_one(&mut bench, client, vip, 20), 0, "{client}");
            assert_eq!(of_one(&mut bench, other, vip, 20), 6, "{other}");
        }
        assert_eq!(bench.reason(Reason::NoDest), 120);
        assert_eq!(bench.reason(Reason::IcmpSent), 24);
    });
}

#[test]
fn all_receivers_together_get_about_fifty_errors_at_once() {
    in_namespace("all_receivers_together_get_about_fifty_errors_at_once", || {
        let mut bench = bench();
        limit(&bench, |_| ());
        let start = Instant::now();
        let sent = clients(&mut bench, 0, 200);
        // A thousand a second are put in as time goes by; each takes none to two.
        let most = 50 + 40 + start.elapsed().as_millis() as u32;
        assert!((25..=most).contains(&sent), "{sent} of 200, at most {most}");
        limit(&bench, |settings| settings.per_second = 0);
        // What was left over, and never more.
        clients(&mut bench, 200, 200);
        assert_eq!(clients(&mut bench, 400, 200), 0);
    });
}

#[test]
fn types_that_the_mask_lacks_are_not_limited() {
    in_namespace("types_that_the_mask_lacks_are_not_limited", || {
        let mut bench = bench();
        // All but port unreachable.
        limit(&bench, |settings| settings.ratemask = [!(1 << 3), !(1 << 1)]);
        assert_eq!(clients(&mut bench, 0, 200), 200);
        assert_eq!(of_one(&mut bench, "10.0.0.2:4000", "10.9.1.1:100", 50), 50);
        assert_eq!(of_one(&mut bench, "[fd01::2]:4000", "[fd09::1]:100", 50), 50);
        // No time between two errors to one receiver.
        limit(&bench, |settings| {
            (settings.ratelimit, settings.burst, settings.per_second) = ([0; 2], 1000, 100_000);
        });
        assert_eq!(of_one(&mut bench, "10.0.0.2:4000", "10.9.1.1:100", 50), 50);
    });
}
