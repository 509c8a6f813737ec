//! Fragmented datagrams through rvsd, with real sockets: every forwarding method, both hooks, in
//! and out of order, in a flood, and with rvsd dead.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rvs_testkit::lab::{Checksums, Director, Lab, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::{CLIENT, DIRECTOR, QUIET, SERVERS, at, lab, masquerade, setting};

/// The port of the echo servers.
const PORT: u16 = 7;
/// The virtual addresses that servers have, too.
const SHARED: [&str; 2] = ["192.168.122.22", "fd22::22"];
/// Bytes of datagrams: from two fragments to as many as there may be.
const SIZES: [usize; 3] = [2000, 8192, 60_000];

/// Whether a datagram of `size` bytes comes back from `vip`, sent `tries` times at most: the sender
/// may have to learn what fits a tunnel.
fn echo(lab: &Lab, vip: &str, size: usize, tries: usize) -> Result<bool, LabError> {
    let to: SocketAddr = vip.parse().expect("an address");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    lab.host("client").enter(|| {
        let socket = UdpSocket::bind(any).expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        let question: Vec<u8> = (0..size).map(|at| (at * 7 + at / 256) as u8).collect();
        let mut answer = vec![0; 65_536];
        (0..tries).any(|_| {
            // An error of before, "too big" among them, shows here.
            let _ = socket.send_to(&question, to);
            matches!(socket.recv_from(&mut answer),
                Ok((len, from)) if from == to && answer[..len].ends_with(&question))
        })
    })
}

/// What the script of this name beside this file says.
fn script(lab: &Lab, words: &str) -> Result<String, LabError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fragments.py");
    lab.host("client").run(&format!("python3 {} {words}", path.display()))
}

fn director_mac(lab: &Lab) -> Result<String, LabError> {
    let link = lab.host("director").ip("-br link show dev eth0")?;
    Ok(link.split_whitespace().nth(2).expect("a MAC address").to_owned())
}

/// Sends datagrams to the virtual addresses in any order.
fn any_order(lab: &Lab, vips: [&str; 2], label: &str) -> Result<(), LabError> {
    let mac = director_mac(lab)?;
    for (vip, client) in vips.into_iter().zip(CLIENT) {
        for order in ["in-order", "reversed", "shuffled", "twice"] {
            for size in SIZES {
                let words = format!("echo {client} {vip} {PORT} {size} {order} {mac}");
                let said = script(lab, &words)?;
                assert!(said.starts_with("echoed"), "{label} {words}: {said}");
            }
        }
    }
    Ok(())
}

fn status(director: &Director) -> Result<String, LabError> {
    let mut status = director.rvs_command()?;
    status.args(["status", "--reasons", "--pin"]).arg(director.pin());
    let output = status.arg("--socket").arg(director.socket()).output().expect("rvs starts");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How many packets were counted for a reason.
fn reason(director: &Director, name: &str) -> Result<u64, LabError> {
    let status = status(director)?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let found = status.lines().map(words).find(|words| words.iter().any(|word| word == name));
    let number = |words: Vec<String>| words.iter().find_map(|word| word.parse().ok());
    Ok(found.and_then(number).unwrap_or(0))
}

fn masqueraded(mode: &str) -> Result<(), LabError> {
    let lab = lab()?;
    for (name, addrs) in SERVERS {
        let addrs = addrs.map(|addr| at(addr, PORT).parse().expect("an address"));
        lab.host(name).serve_udp_echo(&addrs)?;
    }
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    masquerade(&director, "-u", PORT, "")?;
    for vip in DIRECTOR {
        for size in SIZES {
            assert!(echo(&lab, &at(vip, PORT), size, 1)?, "{mode} {vip} {size}");
        }
    }
    assert_eq!(reason(&director, "slow.fragment")?, 0, "what is in order needs no rvsd");
    any_order(&lab, DIRECTOR, mode)?;
    assert!(reason(&director, "slow.fragment")? > 0);
    assert!(!status(&director)?.lines().any(|l| l.contains("attached") && l.contains("rvsslow")));
    // Nothing in order needs a living rvsd.
    director.process().kill();
    for vip in DIRECTOR {
        assert!(echo(&lab, &at(vip, PORT), 60_000, 1)?, "{mode} {vip} without rvsd");
    }
    director.restart()?;
    any_order(&lab, DIRECTOR, mode)
}

#[test]
fn masqueraded_datagrams_come_back_whole_through_tc() -> Result<(), LabError> {
    need_lab!();
    masqueraded("tc")
}

#[test]
fn masqueraded_datagrams_come_back_whole_through_xdp() -> Result<(), LabError> {
    need_lab!();
    masqueraded("xdp")
}

/// Direct routing, or tunnels with both servers reached over the address family `outer`.
fn shared(mode: &str, outer: Option<(usize, &str)>) -> Result<(), LabError> {
    let lab = lab()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    for (vip, length) in SHARED.into_iter().zip(["/32", "/128 nodad"]) {
        lab.host("director").ip(&format!("addr add {vip}{length} dev eth0"))?;
        lab.host("rs1").ip(&format!("addr add {vip}{length} dev lo"))?;
    }
    let server = lab.host("rs1");
    server.ip(&format!("route del {}", CLIENT[0]))?;
    server.ip(&format!("route del {}", CLIENT[1]))?;
    server.sysctls(&QUIET)?;
    server.serve_udp_echo(&SHARED.map(|vip| at(vip, PORT).parse().expect("an address")))?;
    if outer.is_some() {
        // The client's checksums are complete: it has fragmented the datagrams itself.
        server.serve_decap(Checksums::Keep)?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    for (family, vip) in SHARED.into_iter().enumerate() {
        let vip = at(vip, PORT);
        director.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        let (method, addr) = match outer {
            Some((outer, options)) => (format!("-i {options}"), SERVERS[0].1[outer]),
            None => ("-g".to_owned(), SERVERS[0].1[family]),
        };
        director.ipvsadm(&format!("-a -u {vip} -r {} {method}", at(addr, PORT)))?;
        // IPv4 fragments that do not fit are cut; of IPv6 the client learns what fits.
        let tries = if outer.is_some() && family == 1 { 3 } else { 1 };
        for size in SIZES {
            assert!(echo(&lab, &vip, size, tries)?, "{mode} {outer:?} {vip} {size}");
        }
    }
    any_order(&lab, SHARED, &format!("{mode} {outer:?}"))?;
    if outer.is_some() {
        setting(&director, "pmtu_disc=0").expect("it can be set");
        let before = reason(&director, "slow.too_big")?;
        // The client sends it whole, not to be cut, and need not learn that it is too big.
        assert!(echo(&lab, &at(SHARED[0], PORT), 1472, 1)?, "{mode} {outer:?}");
        assert!(reason(&director, "slow.too_big")? > before, "{mode} {outer:?}");
    }
    Ok(())
}

#[test]
fn direct_routing_carries_fragments() -> Result<(), LabError> {
    need_lab!();
    shared("tc", None)?;
    shared("xdp", None)
}

#[test]
fn tunnels_carry_fragments() -> Result<(), LabError> {
    need_lab!();
    shared("tc", Some((0, "")))?;
    shared("tc", Some((1, "--tun-type gre --tun-csum")))?;
    shared("xdp", Some((0, "")))
}

#[test]
fn fragments_for_the_host_reach_it_in_any_order() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let director = Director::start(&lab.host("director"), &[])?;
    // Services at these addresses, but not at the port.
    masquerade(&director, "-u", PORT + 1, "")?;
    let addrs = DIRECTOR.map(|addr| at(addr, PORT).parse().expect("an address"));
    lab.host("director").serve_udp_echo(&addrs)?;
    any_order(&lab, DIRECTOR, "to the host")
}

#[test]
fn a_flood_of_fragments_without_a_first_harms_nobody() -> Result<(), LabError> {
    need_lab!();
    const FLOOD: u64 = 30_000;
    let lab = lab()?;
    for (name, addrs) in SERVERS {
        let addrs = addrs.map(|addr| at(addr, PORT).parse().expect("an address"));
        lab.host(name).serve_udp_echo(&addrs)?;
    }
    let director = Director::start(&lab.host("director"), &[])?;
    masquerade(&director, "-u", PORT, "")?;
    let memory = || director.process().memory("VmRSS");
    let mac = director_mac(&lab)?;
    any_order(&lab, DIRECTOR, "before")?;
    let before = memory();
    // From an address of nobody's: the client's own share is left to it.
    let words = format!("flood 192.168.122.99 {} {FLOOD} {mac}", DIRECTOR[0]);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| script(&lab, &words));
        for _ in 0..20 {
            assert!(echo(&lab, &at(DIRECTOR[0], PORT), 8192, 1).expect("a namespace"));
        }
        flood.join().expect("no panic").map(drop)
    })?;
    any_order(&lab, DIRECTOR, "after")?;
    let grown = memory().saturating_sub(before);
    assert!(grown < 12 * 1024, "rvsd grew by {grown} KiB");
    // Each was handed over or refused, and what was handed over was given up in time.
    std::thread::sleep(Duration::from_secs(5));
    let [slow, limit, late] = ["slow.fragment", "drop.fragment_limit", "drop.fragment_late"]
        .map(|name| reason(&director, name));
    let (slow, limit, late) = (slow?, limit?, late?);
    assert!(slow + limit >= FLOOD, "{slow} {limit} {late}");
    assert!(limit > 0 && late > 0, "{slow} {limit} {late}");
    Ok(())
}

/// Packets that arrived at the director's interface.
fn arrived(lab: &Lab) -> Result<u64, LabError> {
    let link = lab.host("director").ip("-s link show dev eth0")?;
    let counts = link.lines().skip_while(|line| !line.trim().starts_with("RX:")).nth(1);
    let packets = counts.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Ok(packets.expect("a number of packets"))
}

#[test]
fn a_fragment_is_counted_once_whether_held_or_given_up() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    for (name, addrs) in SERVERS {
        let addrs = addrs.map(|addr| at(addr, PORT).parse().expect("an address"));
        lab.host(name).serve_udp_echo(&addrs)?;
    }
    lab.host("director").run("ethtool -K eth0 gro off")?;
    let director =
        Director::start(&lab.host("director"), &["--mode", "tc", "--interface", "eth0"])?;
    masquerade(&director, "-u", PORT, "")?;
    // Nothing comes between the looks at both counts.
    let counts = || -> Result<(u64, u64), LabError> {
        loop {
            let before = arrived(&lab)?;
            let seen = reason(&director, "seen")?;
            if arrived(&lab)? == before {
                return Ok((before, seen));
            }
        }
    };
    let (arrived, seen) = counts()?;
    any_order(&lab, DIRECTOR, "counted")?;
    script(&lab, &format!("flood 192.168.122.99 {} 100 {}", DIRECTOR[0], director_mac(&lab)?))?;
    // Those that wait for nothing are given up.
    std::thread::sleep(Duration::from_secs(5));
    let (arrived_now, seen_now) = counts()?;
    assert_eq!(seen_now - seen, arrived_now - arrived, "{}", status(&director)?);
    let held = reason(&director, "slow.fragment")?;
    let late = reason(&director, "drop.fragment_late")?;
    assert!(late >= 100 && held > late, "{}", status(&director)?);
    Ok(())
}
