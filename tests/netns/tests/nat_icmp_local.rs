//! `nat_icmp_send` for what the director itself sends as a real server: what its sockets are told, and
//! whether anything leaves, as with a real kernel's IPVS (`tests/oracle/recorded/nat_icmp_local.jsonl`,
//! by `nat_icmp_local.py`, which has the same addresses).

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rvs_testkit::lab::{Director, Host, Lab, LabError, Topology};
use rvs_testkit::need_lab;
use rvs_tests_netns::{at, setting};
use serde_json::Value;

/// The client's port in the recording, to which the director sends.
const PORT: u16 = 40_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited for what does not come, as in the recording: a connection's socket does not heed
/// errors about its first SYN, which come before it has gone to sleep, but the next one's, a second later.
const SILENCE: Duration = Duration::from_millis(1500);

/// What a socket was told.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Whom it sent to answered.
    Answered,
    /// Nothing: the packet is lost.
    Nothing,
    /// The port is unreachable.
    Refused,
}

impl Said {
    fn of<T>(result: std::io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Answered,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::CONNREFUSED) => Self::Refused,
                Some(Errno::AGAIN | Errno::INPROGRESS) => Self::Nothing,
                _ => panic!("{error}"),
            },
        }
    }
}

/// The recording's network but for the real servers' side: the director's address there is on a device
/// of its own.
fn network() -> Result<Lab, LabError> {
    let lab = Topology::new()
        .attach("client", "c", &["10.0.0.2/24", "fd00::2/64"])
        .attach("director", "c", &["10.0.0.1/24", "fd00::1/64"])
        .attach("director", "s", &["10.1.0.1/24", "fd01::1/64"])
        .build()?;
    let (client, director) = (lab.host("client"), lab.host("director"));
    for gateway in ["10.0.0.1", "fd00::1"] {
        client.ip(&format!("route add default via {gateway}"))?;
    }
    for vip in ["10.9.1.1/32", "fd09::1/128 nodad"] {
        director.ip(&format!("addr add {vip} dev lo"))?;
    }
    Ok(lab)
}

/// A client's side that answers whatever comes, and takes connections.
fn answer(client: &Host) -> Result<(), LabError> {
    let addrs = ["10.0.0.2", "fd00::2"].map(|addr| at(addr, PORT).parse().expect("an address"));
    client.serve_udp_echo(&addrs)?;
    for addr in addrs {
        client.serve(
            move || {
                let listener = TcpListener::bind(addr)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            },
            |listener, stop| {
                while !stop.is_set() {
                    drop(listener.accept());
                    std::thread::sleep(Duration::from_millis(5));
                }
            },
        )?;
    }
    Ok(())
}

/// A TCP connection from one address to another, and no TIME_WAIT when it is closed.
fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SILENCE))?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// What a datagram brings back.
fn exchange(from: SocketAddr, to: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(from)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.connect(to)?;
    socket.send(b"hello")?;
    socket.recv(&mut [0; 16]).map(drop)
}

/// What a socket of the director is told that sends to `to`; or, if that is the director's, too, what
/// a client there is told that talks to a server at `from`.
fn say(protocol: &str, from: SocketAddr, to: SocketAddr) -> Said {
    let of_director = to.ip() == at("10.0.0.1", 0).parse::<SocketAddr>().expect("it is one").ip()
        || to.ip() == at("fd00::1", 0).parse::<SocketAddr>().expect("it is one").ip();
    match (protocol, of_director) {
        ("udp", false) => Said::of(exchange(from, to)),
        (_, false) => Said::of(connect(from, to)),
        ("udp", true) => {
            let server = UdpSocket::bind(from).expect("the port is free");
            server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let echo = std::thread::spawn(move || {
                let (_, client) = server.recv_from(&mut [0; 16]).expect("a datagram");
                // The kernel says EPERM here.
                let _ = server.send_to(b"pong", client);
            });
            let said = Said::of(exchange(SocketAddr::new(to.ip(), 0), from));
            echo.join().expect("it ended well");
            said
        }
        (_, true) => {
            let _server = TcpListener::bind(from).expect("the port is free");
            Said::of(connect(SocketAddr::new(to.ip(), 0), from))
        }
    }
}

/// What the kernel's sockets were told in a row. A datagram that its IPVS drops as it leaves is refused
/// with EPERM (RVS drops it later, when only an error can tell); a TCP connection that nobody answered
/// was asked for all the same.
fn recorded(row: &Value) -> Said {
    let sent = row["to_client"].as_array().is_some_and(|frames| !frames.is_empty());
    let own = row["case"].as_str().is_some_and(|case| case.contains("a client on the director"));
    match row["said"].as_str().expect("a word") {
        "pong" | "connected" => Said::Answered,
        "none" | "timeout" if sent => Said::Answered,
        "EPERM" if own => Said::Nothing,
        "EPERM" | "ECONNREFUSED" => Said::Refused,
        "timeout" => Said::Nothing,
        other => panic!("{other}"),
    }
}

#[test]
fn what_the_director_sends_as_a_real_server_is_answered_as_by_the_kernel() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    let host = lab.host("director");
    let director = Director::start(&host, &[])?;
    answer(&lab.host("client"))?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../oracle/recorded/nat_icmp_local.jsonl");
    let recording = std::fs::read_to_string(path).expect("the recording");
    let (mut wrong, mut refused, mut service) = (Vec::new(), 0, String::new());
    for line in recording.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| row[name].as_str().expect("a string");
        let port = |name: &str| row[name].as_u64().expect("a port") as u16;
        let flag = if text("proto") == "udp" { "-u" } else { "-t" };
        let wanted = format!("{flag} {}", at(text("vip"), 100));
        let server = at(text("server"), port("server_port"));
        let next = format!("{wanted} -r {server} {}", text("method"));
        if service != next {
            director.ipvsadm("-C")?;
            director.ipvsadm(&format!("-A {wanted} -s rr"))?;
            director.ipvsadm(&format!("-a {next}"))?;
            service = next;
        }
        let on = row["nat_icmp_send"].as_u64().expect("a number");
        setting(&director, &format!("nat_icmp_send={on}")).expect("it can be set");
        let own = text("case").contains("a client on the director");
        let from = at(text("server"), port("port")).parse().expect("an address");
        let to = at(text("to"), if own { 0 } else { PORT }).parse().expect("an address");
        let protocol = text("proto").to_owned();
        let said = host.enter(|| say(&protocol, from, to))?;
        let kernel = recorded(&row);
        refused += usize::from(kernel == Said::Refused);
        if said != kernel {
            wrong.push(format!("{}, {on}: {said:?}, the kernel {kernel:?}", text("case")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((recording.lines().count(), refused), (72, 4));
    Ok(())
}
