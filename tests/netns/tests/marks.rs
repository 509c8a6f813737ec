//! Fwmark services: packets that are marked by rules of RVS's own (`rvs mark`), on both hooks, and
//! by nftables in prerouting and on the way out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
use rvs_testkit::lab::{Checksums, Director, Lab, LabError, Topology};
use rvs_testkit::need_lab;
use rvs_tests_netns::{QUIET, at, nft};

/// Virtual addresses: one that the director has, one that it has not.
const VIPS: [[&str; 2]; 2] = [["10.9.1.1", "fd09::1"], ["10.9.2.2", "fd09::2"]];
/// The real servers.
const SERVERS: [(&str, [&str; 2]); 2] =
    [("rs1", ["10.1.0.11", "fd01::11"]), ("rs2", ["10.1.0.12", "fd01::12"])];

/// A client, the director in between, two servers that have the virtual addresses and reply past
/// the director, on the client's segment.
fn network() -> Result<Lab, LabError> {
    let lab = Topology::new()
        .attach("client", "c", &["10.0.0.2/24", "fd00::2/64"])
        .attach("director", "c", &["10.0.0.1/24", "fd00::1/64"])
        .attach("director", "s", &["10.1.0.1/24", "fd01::1/64"])
        .attach("rs1", "s", &["10.1.0.11/24", "fd01::11/64"])
        .attach("rs1", "c", &["10.0.0.11/24", "fd00::11/64"])
        .attach("rs2", "s", &["10.1.0.12/24", "fd01::12/64"])
        .attach("rs2", "c", &["10.0.0.12/24", "fd00::12/64"])
        .build()?;
    for net in ["10.9.0.0/16 via 10.0.0.1", "fd09::/16 via fd00::1"] {
        lab.host("client").ip(&format!("route add {net}"))?;
    }
    for (vip, length) in VIPS[0].into_iter().zip(["/32", "/128 nodad"]) {
        lab.host("director").ip(&format!("addr add {vip}{length} dev lo"))?;
    }
    lab.web_file("bulk", 3_000_000)?;
    for (name, _) in SERVERS {
        let host = lab.host(name);
        host.sysctls(&QUIET)?;
        for net in ["10.9.0.0/16 via 10.1.0.1", "fd09::/16 via fd01::1"] {
            host.ip(&format!("route add {net}"))?;
        }
        host.serve_http(80)?;
        host.serve_decap(Checksums::Complete)?;
    }
    Ok(lab)
}

/// How the servers are set up for a forwarding method: with masquerading replies go by the
/// director, else the servers have the virtual addresses.
fn prepare(lab: &Lab, method: &str) -> Result<(), LabError> {
    for (name, _) in SERVERS {
        let host = lab.host(name);
        for (client, hop) in [("10.0.0.2", "10.1.0.1"), ("fd00::2", "fd01::1")] {
            let verb = if method == "-m" { "replace" } else { "del" };
            let via = if method == "-m" { format!("via {hop}") } else { String::new() };
            let _ = host.ip(&format!("route {verb} {client} {via}"));
        }
        for vips in VIPS {
            for (vip, length) in vips.into_iter().zip(["/32", "/128 nodad"]) {
                let verb = if method == "-m" { "del" } else { "add" };
                // The first method may find nothing to remove.
                let _ = host.ip(&format!("addr {verb} {vip}{length} dev lo"));
            }
        }
    }
    Ok(())
}

/// Services for mark 5, of both families; the option says how the servers are reached.
fn services(director: &Director, method: &str) -> Result<(), LabError> {
    director.ipvsadm("-C")?;
    for (family, option) in ["", "-6"].into_iter().enumerate() {
        director.ipvsadm(&format!("-A -f 5 {option} -s rr"))?;
        for (_, addrs) in SERVERS {
            let server = at(addrs[family], 0);
            director.ipvsadm(&format!("-a -f 5 {option} -r {server} {method}"))?;
        }
    }
    Ok(())
}

fn rvs(director: &Director, words: &str) -> Result<String, String> {
    let mut command = director.rvs_command().map_err(|error| error.to_string())?;
    let output = command.args(words.split_whitespace()).output().expect("rvs starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Whether both servers answer `from` at every address, and bulk comes whole.
fn serves(lab: &Lab, from: &str, vips: &[[&str; 2]]) -> Result<(), LabError> {
    let host = lab.host(from);
    for vip in vips.iter().flatten() {
        let url = format!("http://{}/", at(vip, 80));
        let answer = || host.run(&format!("curl -sS --max-time 10 {url}"));
        let (first, second) = (answer()?, answer()?);
        assert_ne!(first, second, "{from} {vip}");
        assert!(first.starts_with("rs") && second.starts_with("rs"), "{first} {second}");
        let got = lab.dir().join("got");
        host.run(&format!("curl -sS --max-time 30 -o {} {url}bulk", got.display()))?;
        host.run(&format!("cmp {} {}", got.display(), lab.dir().join("www/bulk").display()))?;
    }
    Ok(())
}

/// That nobody answers there.
fn is_silent(lab: &Lab, from: &str, vip: &str) -> Result<(), LabError> {
    let to = SocketAddr::new(vip.parse::<IpAddr>().expect("an address"), 80);
    let wait = Duration::from_millis(700);
    let answer = lab.host(from).enter(|| TcpStream::connect_timeout(&to, wait))?;
    assert!(answer.is_err(), "{from} {vip}");
    Ok(())
}

/// Rules of our own on one hook.
fn own_rules(mode: &str) -> Result<(), LabError> {
    let lab = network()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    let rules = ["--dst 10.9.0.0/16 --proto tcp --dport 80", "--dst fd09::/16 --dport 1-1024"];
    let reason = |name: &str| -> u64 {
        let pin = director.pin();
        let text = rvs(&director, &format!("status --reasons --pin {}", pin.display()));
        let text = text.expect("a data path");
        let line = text.lines().find(|line| line.starts_with(name)).expect("a reason");
        line.split_whitespace().nth(1).expect("a count").parse().expect("a number")
    };
    for method in ["-m", "-g", "-i"] {
        prepare(&lab, method)?;
        services(&director, method)?;
        is_silent(&lab, "client", VIPS[1][0])?;
        // The first that fits decides.
        rvs(&director, "mark add --src 10.0.0.99 --dst 10.9.0.0/16 6").expect("a rule");
        for rule in rules {
            rvs(&director, &format!("mark add {rule} 5")).expect("a rule");
        }
        rvs(&director, "mark add 7").expect("a rule");
        let before = reason("punt.mark");
        serves(&lab, "client", &VIPS)?;
        serves(&lab, "client", &VIPS)?;
        if mode == "xdp" {
            // What has a mark by a rule is not handed on for another's.
            assert_eq!(reason("punt.mark"), before, "{method}");
        }
        rvs(&director, "mark flush").expect("no rules");
    }
    Ok(())
}

#[test]
fn rules_of_our_own_mark_packets_on_tc() -> Result<(), LabError> {
    need_lab!();
    own_rules("tc")
}

#[test]
fn rules_of_our_own_mark_packets_on_xdp() -> Result<(), LabError> {
    need_lab!();
    own_rules("xdp")
}

#[test]
fn rules_are_listed_as_they_are_told_and_outlive_rvsd() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    let director = Director::start(&lab.host("director"), &[])?;
    prepare(&lab, "-m")?;
    services(&director, "-m")?;
    let rules =
        ["--src 10.0.0.99 --dst 10.9.0.0/16 6", "--dst 10.9.0.0/16 --proto tcp --dport 80 5"];
    for rule in rules {
        assert_eq!(rvs(&director, &format!("mark add {rule}")).as_deref(), Ok(""));
    }
    let list = format!("{}\n{}\n", rules[0], rules[1]);
    assert_eq!(rvs(&director, "mark list").as_ref(), Ok(&list));
    director.process().kill();
    let vips = VIPS.map(|[v4, _]| [v4, v4]);
    serves(&lab, "client", &vips)?;
    director.restart()?;
    assert_eq!(rvs(&director, "mark list").as_ref(), Ok(&list));
    serves(&lab, "client", &vips)?;
    let refused = rvs(&director, "mark del 6").expect_err("no such rule");
    assert_eq!(refused, "rvs: no rule 6\n");
    let refused = rvs(&director, "mark add --dst 10.9.0.0/33 6").expect_err("no network");
    assert_eq!(refused, "rvs: --src and --dst take an address with an optional prefix length\n");
    assert_eq!(rvs(&director, &format!("mark del {}", rules[1])).as_deref(), Ok(""));
    assert_eq!(rvs(&director, "mark list"), Ok(format!("{}\n", rules[0])));
    is_silent(&lab, "client", VIPS[1][0])?;
    // The table is bounded.
    for _ in 1..256 {
        rvs(&director, "mark add 9").expect("there is room");
    }
    let refused = rvs(&director, "mark add 9").expect_err("there is no room");
    assert!(refused.starts_with("rvs: ") && refused.contains("full"), "{refused}");
    Ok(())
}

#[test]
fn rules_come_from_the_file_that_rvsd_starts_with() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    let path = lab.dir().join("rvsd.conf");
    let write = |text: &str| std::fs::write(&path, text).expect("the lab's folder");
    write("");
    let file = path.to_string_lossy().into_owned();
    let director = Director::start(&lab.host("director"), &["--config", &file])?;
    prepare(&lab, "-m")?;
    services(&director, "-m")?;
    for rule in ["--dst 10.9.0.0/16 --proto tcp --dport 80 5", "--dst fd09::/16 --proto sctp 6"] {
        rvs(&director, &format!("mark add {rule}")).expect("a rule");
    }
    // What is listed is what the file takes.
    let list = rvs(&director, "mark list").expect("rules");
    let lines: Vec<&str> = list.lines().collect();
    rvs(&director, "mark flush").expect("no rules");
    rvs(&director, "mark add 9").expect("a rule");
    write(&format!("marks = {lines:?}\n"));
    director.process().kill();
    director.restart()?;
    assert_eq!(rvs(&director, "mark list").as_ref(), Ok(&list));
    serves(&lab, "client", &VIPS.map(|[v4, _]| [v4, v4]))?;
    // A file that says nothing of them leaves them; one that is not valid, too.
    director.process().kill();
    write("marks = [\"--dst 10.9.0.0/33 5\"]\n");
    let refused = director.restart().expect_err("the file is not valid");
    assert!(format!("{refused}").contains("10.9.0.0/33 5"), "{refused}");
    write("");
    director.restart()?;
    assert_eq!(rvs(&director, "mark list").as_ref(), Ok(&list));
    director.process().kill();
    write("marks = []\n");
    director.restart()?;
    assert_eq!(rvs(&director, "mark list").as_deref(), Ok(""));
    Ok(())
}

/// What netfilter marks with 5: what is for the virtual addresses, coming in or going out.
const NFT: &str = "
table inet marks {
  chain in { type filter hook prerouting priority mangle;
    ip daddr 10.9.0.0/16 tcp dport 80 meta mark set 5
    ip6 daddr fd09::/16 tcp dport 80 meta mark set 5
  }
  chain out { type route hook output priority mangle;
    ip daddr 10.9.0.0/16 tcp dport 80 meta mark set 5
    ip6 daddr fd09::/16 tcp dport 80 meta mark set 5
  }
}";

/// The rules for routing of a family, without those that the machine always has.
fn routing(lab: &Lab, family: &str) -> Result<String, LabError> {
    let rules = lab.host("director").ip(&format!("{family} rule show"))?;
    let ours = rules
        .lines()
        .filter(|line| ["fwmark", "lookup local", "goto"].iter().any(|word| line.contains(word)));
    Ok(ours.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + ";").collect())
}

#[test]
fn marks_of_nftables_are_seen() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    let host = lab.host("director");
    let router = [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];
    host.sysctls(&router)?;
    nft(&host, NFT)?;
    let director = Director::start(&host, &[])?;
    for method in ["-m", "-g", "-i"] {
        prepare(&lab, method)?;
        services(&director, method)?;
        serves(&lab, "client", &VIPS)?;
    }
    // The host's own packets go the same way: of masquerading their answers come back to it.
    prepare(&lab, "-m")?;
    services(&director, "-m")?;
    for (vip, hop) in VIPS[1].into_iter().zip(["10.0.0.2", "fd00::2"]) {
        host.ip(&format!("route add {vip} via {hop}"))?;
    }
    serves(&lab, "director", &VIPS)?;
    for family in ["-4", "-6"] {
        let ours = "0: from all iif lo goto 1;0: from all fwmark 0x5 lookup 7475;";
        let expected = format!("{ours}1: from all lookup local;");
        assert_eq!(routing(&lab, family)?, expected);
    }
    // Without rvsd, and with the next.
    director.process().kill();
    serves(&lab, "client", &VIPS)?;
    director.restart()?;
    serves(&lab, "client", &VIPS)?;
    director.ipvsadm("-C")?;
    for family in ["-4", "-6"] {
        assert_eq!(routing(&lab, family)?, "0: from all lookup local;");
    }
    assert!(host.ip("link show rvs0").is_err(), "the device went with the services");
    Ok(())
}

/// Whether `to` answers an ICMP echo request of `from`.
fn pings(lab: &Lab, from: &str, to: Ipv4Addr) -> Result<bool, LabError> {
    let exchange = || -> std::io::Result<bool> {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))?;
        // Type, code, checksum, identifier, number.
        let request = [8, 0, 0xf7, 0xfe, 0, 0, 0, 1];
        rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddrV4::new(to, 0))?;
        let mut answer = [0; 64];
        let (len, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
        Ok(len == 28 && answer[20] == 0)
    };
    Ok(lab.host(from).enter(exchange)?.unwrap_or(false))
}

#[test]
fn marked_packets_for_the_director_itself_reach_it() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    let host = lab.host("director");
    host.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    nft(&host, &NFT.replace("tcp dport 80 ", ""))?;
    host.serve_http(80)?;
    let director = Director::start(&host, &[])?;
    prepare(&lab, "-m")?;
    // A real server on the director, whose connections have the mark in every packet.
    for method in ["-g", "-i", "-m"] {
        director.ipvsadm("-C")?;
        for (option, server) in [("", "10.1.0.1:0"), ("-6", "[fd01::1]:0")] {
            director.ipvsadm(&format!("-A -f 5 {option} -s rr"))?;
            director.ipvsadm(&format!("-a -f 5 {option} -r {server} {method}"))?;
        }
        for vip in VIPS[0] {
            let (url, got) = (format!("http://{}/bulk", at(vip, 80)), lab.dir().join("got"));
            let get = format!("curl -sS --max-time 20 -o {} {url}", got.display());
            lab.host("client").run(&get)?;
            host.run(&format!("cmp {} {}", got.display(), lab.dir().join("www/bulk").display()))?;
        }
        assert!(director.dests()?.iter().all(|row| row.active + row.inactive > 0), "{method}");
        // No service's: it goes to the stack, and does not come round again.
        let vip = VIPS[0][0].parse().expect("an address");
        assert!(pings(&lab, "client", vip)?, "{method}");
    }
    Ok(())
}
