//! SIP with real sockets: what belongs to a call goes to one server, whichever of a client's
//! addresses and ports it comes from, through both hooks, with and without `--ops`, and over the end
//! of an rvsd.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rvs_testkit::lab::{Director, Host, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::{CLIENT, DIRECTOR, SERVERS, at, lab};

const PORT: u16 = 5060;
/// The client's second addresses.
const SECOND: [&str; 2] = ["192.168.122.71", "fd22::71"];
const CALLS: usize = 6;

/// Sends a message from an address and a new port, again if need be; the name of the server whose
/// answer comes back from the virtual address.
fn ask(host: &Host, from: &str, vip: &str, message: &str) -> Result<Option<String>, LabError> {
    host.enter(|| {
        let socket = UdpSocket::bind(SocketAddr::new(from.parse().expect("an address"), 0))
            .expect("the address is the host's");
        socket.connect(vip).expect("there is a route");
        socket.set_read_timeout(Some(Duration::from_millis(700))).expect("it is not zero");
        let mut buffer = [0; 2048];
        for _ in 0..3 {
            socket.send(message.as_bytes()).expect("it can be sent");
            if let Ok(length) = socket.recv(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let (name, rest) = answer.split_once(':').expect("a name");
                assert_eq!(rest, message);
                return Some(name.to_owned());
            }
        }
        None
    })
}

fn invite(call: usize) -> String {
    format!("INVITE sip:b@lab SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nCall-ID: {call}@lab\r\n\r\n")
}

fn calls_stay_together(mode: &str, words: &str) -> Result<(), LabError> {
    let lab = lab()?;
    let host = lab.host("client");
    for (family, length) in ["/24", "/64 nodad"].into_iter().enumerate() {
        host.ip(&format!("addr add {}{length} dev eth0", SECOND[family]))?;
        for (server, _) in SERVERS {
            let route = format!("route add {} via {}", SECOND[family], DIRECTOR[family]);
            lab.host(server).ip(&route)?;
        }
    }
    for (server, addrs) in SERVERS {
        let addrs = addrs.map(|addr| at(addr, PORT).parse().expect("an address and a port"));
        lab.host(server).serve_udp_echo(&addrs)?;
    }
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    for (family, mask) in ["255.255.255.0", "64"].into_iter().enumerate() {
        let vip = at(DIRECTOR[family], PORT);
        director.ipvsadm(&format!("-A -u {vip} -s rr -p 300 -M {mask} {words} --pe sip"))?;
        for (_, addrs) in SERVERS {
            director.ipvsadm(&format!("-a -u {vip} -r {} -m", at(addrs[family], PORT)))?;
        }
        let server = |from: &str, call: usize| {
            let name = ask(&host, from, &vip, &invite(call))?;
            Ok::<String, LabError>(
                name.unwrap_or_else(|| panic!("{mode} {from} {call}: no answer")),
            )
        };
        let all =
            |from: &str| (0..CALLS).map(|call| server(from, call)).collect::<Result<Vec<_>, _>>();
        let first = all(CLIENT[family])?;
        let distinct: HashSet<&String> = first.iter().collect();
        assert_eq!(distinct.len(), SERVERS.len(), "{mode} {vip}: {first:?}");
        assert_eq!((&first[0], &first[1]), (&first[2], &first[3]), "{mode} {vip}: {first:?}");
        assert_eq!(all(SECOND[family])?, first, "{mode} {vip}: from the second address");
        director.process().kill();
        director.restart()?;
        assert_eq!(all(CLIENT[family])?, first, "{mode} {vip}: new ports, with a new rvsd");
        // What has no Call-ID goes nowhere.
        assert_eq!(ask(&host, CLIENT[family], &vip, "hello")?, None, "{mode} {vip}");

        let listing = director.ipvsadm("-Lnc --persistent-conn")?;
        let saved = director.ipvsadm("-Sn")?;
        assert!(saved.contains(" --pe sip"), "{saved}");
        for call in 0..CALLS {
            let is_its =
                |line: &&str| line.contains(&vip) && line.ends_with(&format!(" {call}@lab"));
            let rows: Vec<&str> = listing.lines().filter(is_its).collect();
            assert_eq!(rows.len(), 1, "{mode} {call}: {listing}");
            assert!(rows[0].contains(" sip "), "{}", rows[0]);
        }
    }
    director.process().terminate(Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn calls_stay_at_their_servers_through_tc() -> Result<(), LabError> {
    need_lab!();
    calls_stay_together("tc", "")
}

#[test]
fn calls_stay_at_their_servers_through_xdp() -> Result<(), LabError> {
    need_lab!();
    calls_stay_together("xdp", "")
}

#[test]
fn calls_stay_at_their_servers_packet_by_packet_through_tc() -> Result<(), LabError> {
    need_lab!();
    calls_stay_together("tc", "-o")
}

#[test]
fn calls_stay_at_their_servers_packet_by_packet_through_xdp() -> Result<(), LabError> {
    need_lab!();
    calls_stay_together("xdp", "-o")
}
