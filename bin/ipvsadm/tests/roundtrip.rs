//! `-S` prints what `-R` reads, over random tables, with names and without.

mod lab;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lab::{Lab, Memory};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Addresses whose names, if they have any, lead back to them.
fn addr(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        let addr = |n: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, n));
        (1_u16..8).prop_map(addr).boxed()
    } else {
        let addr = |n: u16| IpAddr::from(Ipv4Addr::new(198, 18, (n >> 8) as u8, n as u8));
        (1_u16..8).prop_map(addr).boxed()
    }
}

fn shown(addr: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

/// A service's options and its destinations' rules.
#[derive(Clone, Debug)]
struct Service {
    named: String,
    options: String,
    dests: Vec<String>,
}

fn options(protocol: &'static str, v6: bool) -> impl Strategy<Value = String> {
    let mask = if v6 {
        (1..=128_u8).prop_map(|bits| bits.to_string()).boxed()
    } else {
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_string()).boxed()
    };
    let persistence = (1..2_678_400_u32, prop::option::of(mask), any::<bool>()).prop_map(
        |(timeout, mask, sip)| {
            let mask = mask.map_or(String::new(), |mask| format!(" -M {mask}"));
            format!(" -p {timeout}{mask}{}", if sip { " --pe sip" } else { "" })
        },
    );
    let schedulers = prop::sample::select(vec![
        " -s rr",
        " -s wrr -b flag-2",
        " -s sh -b sh-fallback,sh-port",
        " -s sh",
        "",
        " -s lc -b flag-1,flag-3",
    ]);
    let ops = if protocol == "-u" { any::<bool>().boxed() } else { Just(false).boxed() };
    (schedulers, prop::option::of(persistence), ops).prop_map(|(scheduler, persistence, ops)| {
        let ops = if ops { " -o" } else { "" };
        format!("{scheduler}{}{ops}", persistence.unwrap_or_default())
    })
}

fn dest(v6: bool, port: u16) -> impl Strategy<Value = String> {
    let tunnel = prop::sample::select(vec![
        "-i",
        "-i --tun-type ipip",
        "-i --tun-type gue --tun-port 6080",
        "-i --tun-type gue --tun-port 1 --tun-remcsum",
        "-i --tun-type gre --tun-csum",
        "-i --tun-type gre --tun-nocsum",
    ]);
    let same = (addr(v6), any::<u16>(), prop::sample::select(vec!["-m", "-g"]));
    let same = same.prop_map(move |(addr, own, how)| {
        format!("-r {} {how}", shown(addr, if how == "-m" { own } else { port }))
    });
    let any_family = any::<bool>().prop_flat_map(addr);
    let tunneled =
        (any_family, tunnel).prop_map(move |(addr, how)| format!("-r {} {how}", shown(addr, port)));
    let numbers =
        (any::<bool>(), 0..=i32::MAX as u32, 0..=i32::MAX as u32).prop_map(|(limits, a, b)| {
            let (lower, upper) = (a.min(b), a.max(b));
            if limits { format!(" -w {a} -x {upper} -y {lower}") } else { format!(" -w {b}") }
        });
    (prop_oneof![same, tunneled], numbers).prop_map(|(server, numbers)| server + &numbers)
}

fn service() -> impl Strategy<Value = Service> {
    let protocol = prop::sample::select(vec!["-t", "-u", "--sctp-service", "-f"]);
    (protocol, any::<bool>(), 1_u16..).prop_flat_map(|(protocol, v6, port)| {
        let named = if protocol == "-f" {
            let mark = (1_u32.., Just(if v6 { " -6" } else { "" }));
            mark.prop_map(|(mark, six)| format!("-f {mark}{six}")).boxed()
        } else {
            addr(v6).prop_map(move |addr| format!("{protocol} {}", shown(addr, port))).boxed()
        };
        (named, options(protocol, v6), vec(dest(v6, port), 0..5))
            .prop_map(|(named, options, dests)| Service { named, options, dests })
    })
}

fn rules(services: &[Service]) -> String {
    let mut text = String::new();
    for Service { named, options, dests } in services {
        text += &format!("-A {named}{options}\n");
        for dest in dests {
            text += &format!("-a {named} {dest}\n");
        }
    }
    text
}

/// The lines in an order that does not depend on the table's age: 1.31's does, when marks or addresses
/// are so far apart that their differences wrap.
fn sorted(rules: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = rules.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_is_saved_is_restored() {
    let lab = Lab::new("roundtrip", Memory::default());
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&vec(service(), 0..12), |services| {
        lab.ipvsadm(&["-C"], None);
        // Twins are refused; the others are the table.
        let (_, stdout, stderr) = lab.ipvsadm(&["-R"], Some(&rules(&services)));
        prop_assert_eq!(stdout, "");
        let fine = |line: &str| {
            line.contains("already exists") || line.ends_with("refused") || line.contains("warning")
        };
        prop_assert!(stderr.lines().all(fine), "{}", stderr);
        let (code, numeric, _) = lab.ipvsadm(&["-Sn"], None);
        prop_assert_eq!(code, 0);
        let mut forms = vec![numeric.clone()];
        // Names have to be asked for, which takes its time.
        if services.len() % 4 == 1 {
            let (code, named, _) = lab.ipvsadm(&["-S"], None);
            prop_assert_eq!(code, 0);
            forms.push(named);
        }
        for saved in &forms {
            lab.ipvsadm(&["-C"], None);
            let (code, _, stderr) = lab.ipvsadm(&["-R"], Some(saved));
            prop_assert!(code == 0, "{}\n{}", stderr, saved);
            let (_, again, _) = lab.ipvsadm(&["-Sn"], None);
            prop_assert_eq!(sorted(&again), sorted(&numeric));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
