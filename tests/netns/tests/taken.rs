//! Connections that are open when a fwmark service takes their mark, row by row as with a real
//! kernel's IPVS (`tests/oracle/recorded/taken.jsonl`, by `taken.py`, which has the same network).

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, sockopt};
use rvs_testkit::lab::{Director, Host, Lab, LabError, Stop, Topology};
use rvs_testkit::need_lab;
use rvs_tests_netns::{at, nft};
use serde_json::{Value, json};

/// Addresses of the service, which the director has; of the client; of the server.
const VIP: [&str; 2] = ["10.9.1.1", "fd09::1"];
const CLIENT: [&str; 2] = ["10.0.0.2", "fd00::2"];
const SERVER: [&str; 2] = ["10.1.0.11", "fd01::11"];
/// Ports of the client that the director's sockets know.
const DATAGRAMS: u16 = 4000;
const AGAIN: u16 = 5000;
/// The time that an answer takes at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Netfilter's rules: the mark of all that is for the service or the server.
const NFT: &str = "
table inet marks {
  chain in { type filter hook prerouting priority mangle;
    ip daddr { 10.9.0.0/16, 10.1.0.11 } meta mark set 5
    ip6 daddr { fd09::/16, fd01::11 } meta mark set 5
  }
  chain out { type route hook output priority mangle;
    ip daddr { 10.9.0.0/16, 10.1.0.11 } meta mark set 5
    ip6 daddr { fd09::/16, fd01::11 } meta mark set 5
  }
}";

fn network() -> Result<Lab, LabError> {
    let lab = Topology::new()
        .attach("client", "c", &["10.0.0.2/24", "fd00::2/64"])
        .attach("director", "c", &["10.0.0.1/24", "fd00::1/64"])
        .attach("director", "s", &["10.1.0.1/24", "fd01::1/64"])
        .attach("server", "s", &["10.1.0.11/24", "fd01::11/64"])
        .build()?;
    for (host, gateways) in
        [("client", ["10.0.0.1", "fd00::1"]), ("server", ["10.1.0.1", "fd01::1"])]
    {
        for gateway in gateways {
            lab.host(host).ip(&format!("route add default via {gateway}"))?;
        }
    }
    let director = lab.host("director");
    director.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    for (vip, length) in VIP.into_iter().zip(["/32", "/128 nodad"]) {
        director.ip(&format!("addr add {vip}{length} dev lo"))?;
    }
    for name in ["director", "server"] {
        echo_streams(&lab.host(name))?;
    }
    for family in 0..2 {
        let to = |addr: &str, port| SocketAddr::new(addr.parse().expect("an address"), port);
        let client = to(CLIENT[family], DATAGRAMS);
        echo_datagrams(&director, to(VIP[family], 53), Some(client))?;
        echo_datagrams(&lab.host("server"), to(SERVER[family], 53), None)?;
    }
    Ok(lab)
}

/// Answers whatever comes on TCP port 80 with the host's name; closes first after `bye`.
fn echo_streams(host: &Host) -> Result<(), LabError> {
    let name = host.name().to_owned();
    let open = || {
        let listener = TcpListener::bind(("::", 80))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    host.serve(open, move |listener, stop: &Stop| {
        let mut streams: Vec<TcpStream> = Vec::new();
        while !stop.is_set() {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).expect("an open socket");
                streams.push(stream);
            }
            streams.retain_mut(|stream| {
                let mut buffer = [0; 100];
                match stream.read(&mut buffer) {
                    Ok(0) => false,
                    Ok(3) if buffer.starts_with(b"bye") => false,
                    Ok(_) => stream.write_all(name.as_bytes()).is_ok(),
                    Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                }
            });
            std::thread::sleep(Duration::from_millis(2));
        }
    })?;
    Ok(())
}

/// Answers datagrams with the host's name: all, or by a socket that is connected to `peer` its.
fn echo_datagrams(host: &Host, to: SocketAddr, peer: Option<SocketAddr>) -> Result<(), LabError> {
    let name = host.name().to_owned();
    let open = move || {
        let socket = UdpSocket::bind(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        peer.map_or(Ok(()), |peer| socket.connect(peer))?;
        Ok(socket)
    };
    host.serve(open, move |socket, stop: &Stop| {
        while !stop.is_set() {
            let Ok((_, from)) = socket.recv_from(&mut [0; 100]) else { continue };
            let name = name.as_bytes();
            let _ = peer.map_or_else(|| socket.send_to(name, from), |_| socket.send(name));
        }
    })?;
    Ok(())
}

/// A client's socket, TCP or UDP: both are asked alike.
struct Asking(TcpStream);

impl Asking {
    fn open(host: &Host, tcp: bool, to: SocketAddr, port: u16) -> Result<Self, LabError> {
        let open = || -> std::io::Result<TcpStream> {
            let (family, any): (_, IpAddr) = match to {
                SocketAddr::V4(_) => (AddressFamily::INET, [0; 4].into()),
                SocketAddr::V6(_) => (AddressFamily::INET6, [0; 16].into()),
            };
            let (kind, protocol) = match tcp {
                true => (SocketType::STREAM, ipproto::TCP),
                false => (SocketType::DGRAM, ipproto::UDP),
            };
            let socket = rustix::net::socket(family, kind, Some(protocol))?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            for timeout in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
                sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
            }
            bind(&socket, &SocketAddr::new(any, port))?;
            connect(&socket, &to)?;
            Ok(TcpStream::from(socket))
        };
        let opened = host.enter(open)?;
        Ok(Self(opened.unwrap_or_else(|error| panic!("{} to {to}: {error}", host.name()))))
    }

    /// Who answers.
    fn ask(&mut self) -> String {
        let mut buffer = [0; 100];
        let answer = self.0.write_all(b"who").and_then(|()| self.0.read(&mut buffer));
        match answer {
            Ok(len) => String::from_utf8_lossy(&buffer[..len]).into_owned(),
            Err(_) => "failed".into(),
        }
    }

    /// Has the other end close first, which leaves its socket in TIME_WAIT.
    fn close(mut self) {
        self.0.write_all(b"bye").expect("an open connection");
        assert_eq!(self.0.read(&mut [0; 1]).expect("the other end closes"), 0);
    }
}

#[test]
fn open_connections_stay_with_their_sockets_and_new_ones_are_balanced() -> Result<(), LabError> {
    need_lab!();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/recorded/taken.jsonl");
    let recorded = std::fs::read_to_string(path).expect("it is part of the repository");
    let recorded: Vec<Value> =
        recorded.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &[])?;
    let mut rows = Vec::new();
    for family in 0..2 {
        let of = |addr: &str, tcp| {
            SocketAddr::new(addr.parse().expect("an address"), if tcp { 80 } else { 53 })
        };
        let cases = [
            ("client", "vip", true, 0),
            ("client", "vip", false, DATAGRAMS),
            ("director", "vip", true, 0),
            ("director", "server", true, 0),
        ];
        let open = |(from, to, tcp, port): (&str, &str, bool, u16)| {
            let addr = if to == "vip" { VIP[family] } else { SERVER[family] };
            Asking::open(&lab.host(from), tcp, of(addr, tcp), port)
        };
        let mut opened = Vec::new();
        for case in cases {
            let mut asking = open(case)?;
            let before = asking.ask();
            opened.push((case, asking, before));
        }
        let to = of(VIP[family], true);
        let mut waiting = Asking::open(&client, true, to, AGAIN)?;
        let over = waiting.ask();
        waiting.close();

        nft(&host, NFT)?;
        let option = ["", "-6"][family];
        director.ipvsadm(&format!("-A -f 5 {option} -s rr"))?;
        let server = at(SERVER[family], 0);
        director.ipvsadm(&format!("-a -f 5 {option} -r {server} -m"))?;
        let number = [4, 6][family];
        for ((from, to, tcp, port), mut asking, before) in opened {
            let (after, again) = (asking.ask(), asking.ask());
            let new = if tcp { open((from, to, tcp, port))?.ask() } else { asking.ask() };
            let protocol = if tcp { "tcp" } else { "udp" };
            rows.push(json!({"family": number, "client": from, "to": to, "protocol": protocol,
                "before": before, "after": after, "again": again, "new": new}));
        }
        let after = Asking::open(&client, true, to, AGAIN)?.ask();
        rows.push(json!({"family": number, "client": "client", "to": "vip", "protocol": "tcp",
            "before": over, "time_wait": true, "after": after}));
        director.ipvsadm("-C")?;
        host.run("nft flush ruleset")?;
    }
    assert_eq!(rows.len(), recorded.len());
    for (row, recorded) in rows.iter().zip(&recorded) {
        assert_eq!(row, recorded);
    }
    Ok(())
}
