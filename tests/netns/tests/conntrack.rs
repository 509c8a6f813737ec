//! `conntrack`: netfilter tracks masqueraded connections and translates their packets, with the host's own
//! rules; RVS schedules and counts them. What the kernel's IPVS leaves in netfilter's table is in
//! `tests/oracle/recorded/conntrack.jsonl`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rvs_testkit::lab::{Checksums, Director, Host, Lab, LabError, Stop, wait_until};
use rvs_testkit::need_lab;
use rvs_tests_netns::routed::{self, CLIENT, DIRECTOR, SERVERS, VIPS};
use rvs_tests_netns::{QUIET, at, lab, nft, setting};

/// The director's addresses on the clients' side.
const CLIENTS_SIDE: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// The virtual port, and the servers'.
const PORTS: (u16, u16) = (8080, 80);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What kube-proxy does: marks by the virtual address in nat PREROUTING, masquerades what is marked.
const MASQUERADE: &str = "table inet kube {
    chain services { type nat hook prerouting priority dstnat;
        ip daddr 10.9.1.1 meta mark set 0x4000
        ip6 daddr fd09::1 meta mark set 0x4000
    }
    chain postrouting { type nat hook postrouting priority srcnat;
        meta mark 0x4000 masquerade
    }
}";

/// The routed network, with servers that say who they are.
fn network() -> Result<Lab, LabError> {
    let lab = routed::network()?;
    lab.host("director").sysctls(&[("net.netfilter.nf_conntrack_acct", "1")])?;
    for name in ["rs1", "rs2"] {
        introduce(&lab.host(name))?;
        let any = ["0.0.0.0", "::"].map(|addr| at(addr, PORTS.1).parse().expect("an address"));
        lab.host(name).serve_udp_echo(&any[1..])?;
    }
    Ok(lab)
}

/// A TCP server that says its name and whom it sees, then says again what it is told.
fn introduce(host: &Host) -> Result<(), LabError> {
    let name = host.name().to_owned();
    let open = || {
        let listener = TcpListener::bind(("::", PORTS.1))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    host.serve(open, move |listener, stop: &Stop| {
        std::thread::scope(|scope| {
            while !stop.is_set() {
                let Ok((mut stream, from)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let line = format!("{name} {}\n", from.ip().to_canonical());
                scope.spawn(move || {
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                    let _ = stream.write_all(line.as_bytes());
                    let mut buffer = [0; 65_536];
                    while let Ok(len @ 1..) = stream.read(&mut buffer) {
                        let _ = stream.write_all(&buffer[..len]);
                    }
                });
            }
        });
    })?;
    Ok(())
}

/// Services of both families to these servers.
fn services(director: &Director, protocol: &str, servers: &[[&str; 2]]) -> Result<(), LabError> {
    routed::masquerade(director, protocol, PORTS, servers)
}

/// One direction of what netfilter tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Direction {
    from: SocketAddr,
    to: SocketAddr,
    packets: u64,
    bytes: u64,
}

/// What netfilter tracks of a client's port: both directions.
fn tracked(host: &Host, port: u16) -> Result<Vec<[Direction; 2]>, LabError> {
    let mut found = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let text = host.run(&format!("conntrack -L -f {family}"))?;
        for line in text.lines() {
            let mut values = line.split_whitespace().filter_map(|word| word.split_once('='));
            let mut direction = || -> Option<Direction> {
                let mut value = |name: &str| values.find(|(n, _)| *n == name).map(|(_, v)| v);
                let (src, dst) = (value("src")?, value("dst")?);
                let (sport, dport) = (value("sport")?, value("dport")?);
                let number = |text: &str| text.parse().expect("a number");
                let socket = |addr: &str, port: &str| {
                    SocketAddr::new(
                        addr.parse::<IpAddr>().expect("an address"),
                        number(port) as u16,
                    )
                };
                let (from, to) = (socket(src, sport), socket(dst, dport));
                let (packets, bytes) = (number(value("packets")?), number(value("bytes")?));
                Some(Direction { from, to, packets, bytes })
            };
            if let (Some(original), Some(reply)) = (direction(), direction())
                && original.from.port() == port
            {
                found.push([original, reply]);
            }
        }
    }
    Ok(found)
}

/// Packets and bytes that ipvsadm shows of a service: from clients, to clients.
fn counters(director: &Director, service: &str) -> Result<[u64; 5], LabError> {
    let text = director.ipvsadm(&format!("-Ln {service} --stats --exact"))?;
    let line = text.lines().nth(3).expect("the service");
    let words: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Ok(words[..].try_into().expect("five counters"))
}

/// Waits for what comes about within some seconds.
fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool, LabError>) -> Result<(), LabError> {
    let end = Instant::now() + Duration::from_secs(12);
    while !holds()? {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Connects from a port.
fn connect(host: &Host, to: &str, port: u16) -> Result<TcpStream, LabError> {
    let any: IpAddr = if to.starts_with('[') { [0u16; 8].into() } else { [0; 4].into() };
    connect_from(host, any, to, port)
}

/// Connects from an address and a port.
fn connect_from(host: &Host, from: IpAddr, to: &str, port: u16) -> Result<TcpStream, LabError> {
    let to: SocketAddr = to.parse().expect("an address");
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    host.enter(|| {
        // A program that is started meanwhile would keep it.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("an option");
        rustix::net::bind(&socket, &SocketAddr::new(from, port)).expect("a free port");
        rustix::net::connect(&socket, &to).expect("an answer");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    })
}

/// The line that a server introduces itself with.
fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("an answer") == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("UTF-8")
}

/// Says `len` bytes and hears them again.
fn echo(stream: &mut TcpStream, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let mut back = vec![0; len];
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("a descriptor");
        scope.spawn(move || writer.write_all(&bytes).expect("a connection"));
        stream.read_exact(&mut back).expect("all of it");
    });
    assert!(back.into_iter().enumerate().all(|(i, byte)| byte == i as u8));
}

/// Ends a connection without a farewell.
fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
}

fn udp(host: &Host, to: &str, port: u16) -> Result<UdpSocket, LabError> {
    let any = if to.starts_with('[') { "::" } else { "0.0.0.0" };
    host.enter(|| {
        let socket = UdpSocket::bind((any, port)).expect("a free port");
        socket.connect(to).expect("a route");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket
    })
}

fn ask(socket: &UdpSocket, len: usize) -> String {
    socket.send(&vec![b'x'; len]).expect("it can be sent");
    let mut buffer = vec![0; 65_536];
    let got = socket.recv(&mut buffer).expect("an answer");
    let text = String::from_utf8(buffer[..got].to_vec()).expect("UTF-8");
    let (name, rest) = text.split_once(':').expect("a name");
    assert_eq!(rest.len(), len);
    name.to_owned()
}

/// Real connections with and without MASQUERADE: what netfilter knows, whom the server sees, and each
/// packet counted once.
fn translates(mode: &str) -> Result<(), LabError> {
    let lab = network()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", mode])?;
    assert_eq!(setting(&director, "conntrack=1").as_deref(), Ok("net.ipv4.vs.conntrack = 1\n"));
    let mut port = 40_000;
    for masquerades in [false, true] {
        if masquerades {
            nft(&host, MASQUERADE)?;
        }
        for protocol in ["-t", "-u"] {
            services(&director, protocol, &SERVERS[..1])?;
            for family in 0..2 {
                port += 1;
                let source = if masquerades { DIRECTOR[family] } else { CLIENT[family] };
                let case = Case { family, protocol, port, from: CLIENT[family], source };
                case.goes_by_netfilter(&client, &host, &director)?;
            }
            director.ipvsadm("-C")?;
        }
    }
    Ok(())
}

/// A connection to a service of the first server.
struct Case<'c> {
    family: usize,
    protocol: &'c str,
    port: u16,
    /// The client's address.
    from: &'c str,
    /// The address that the server sees.
    source: &'c str,
}

impl Case<'_> {
    /// Netfilter knows it by one entry, and every packet counts once.
    fn goes_by_netfilter(
        &self,
        client: &Host,
        host: &Host,
        director: &Director,
    ) -> Result<(), LabError> {
        let Self { family, protocol, port, from, source } = *self;
        let vip = at(VIPS[family], PORTS.0);
        if protocol == "-t" {
            let mut stream = connect(client, &vip, port)?;
            assert_eq!(line(&mut stream), format!("rs1 {source}"));
            echo(&mut stream, 300_000);
            drop(stream);
        } else {
            let socket = udp(client, &vip, port)?;
            for len in [5, 1200] {
                assert_eq!(ask(&socket, len), "rs1");
            }
        }
        // What the last acknowledgement still changes.
        let service = format!("{protocol} {vip}");
        let same = || -> Result<bool, LabError> {
            let known = tracked(host, port)?;
            let [[original, reply]] = &known[..] else { panic!("{known:?}") };
            let [_, counted @ ..] = counters(director, &service)?;
            Ok(counted == [original.packets, reply.packets, original.bytes, reply.bytes])
        };
        let what = format!("{service}: {:?}", counters(director, &service)?);
        wait_for(&format!("{what} {:?}", tracked(host, port)?), same)?;
        let [original, reply] = &tracked(host, port)?[0];
        assert_eq!(original.from.to_string(), at(from, port));
        assert_eq!(original.to.to_string(), vip);
        assert_eq!(reply.from.to_string(), at(SERVERS[0][family], PORTS.1));
        assert_eq!(reply.to.ip().to_string(), source);
        assert!(original.packets > 1 && reply.packets > 1);
        let listed = director.ipvsadm("-Lcn")?;
        let states: &[&str] = if protocol == "-t" { &["FIN_WAIT", "TIME_WAIT"] } else { &["UDP"] };
        let row = listed.lines().find(|row| row.contains(&at(from, port)));
        let row = row.unwrap_or_else(|| panic!("{listed}"));
        assert!(states.iter().any(|state| row.contains(state)), "{row}");
        Ok(())
    }
}

/// The same with a client on the director, whose address is the virtual one; or another's, if the director has
/// not got it. With MASQUERADE the server has a way to the director's address on its own link, and no other.
#[test]
fn own_clients_go_by_netfilter_as_others() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (host, server) = (lab.host("director"), lab.host("rs1"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    assert!(setting(&director, "conntrack=1").is_ok());
    let mut port = 49_000;
    for (masquerades, has_vip) in [(false, true), (true, true), (true, false)] {
        if masquerades && has_vip {
            nft(&host, MASQUERADE)?;
            server.ip("route del default")?;
            server.ip("-6 route del default")?;
        } else if !has_vip {
            for (vip, gateway) in VIPS.into_iter().zip(CLIENT) {
                host.ip(&format!("addr del {vip} dev lo"))?;
                host.ip(&format!("route add {vip} via {gateway}"))?;
            }
        }
        for protocol in ["-t", "-u"] {
            services(&director, protocol, &SERVERS[..1])?;
            for family in 0..2 {
                port += 1;
                let from = if has_vip { VIPS[family] } else { CLIENTS_SIDE[family] };
                let source = if masquerades { DIRECTOR[family] } else { from };
                let case = Case { family, protocol, port, from, source };
                case.goes_by_netfilter(&host, &host, &director)?;
            }
            director.ipvsadm("-C")?;
        }
    }
    Ok(())
}

#[test]
fn netfilter_translates_and_every_packet_counts_once_by_tc() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    translates("tc")
}

#[test]
fn netfilter_translates_and_every_packet_counts_once_by_xdp() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    translates("xdp")
}

/// A datagram in fragments, an ICMP error of the server's, the director as client and as real server.
#[test]
fn fragments_errors_and_the_director_itself() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    introduce(&host)?;
    assert!(setting(&director, "conntrack=1").is_ok());
    services(&director, "-u", &SERVERS[..1])?;
    for (family, vip) in VIPS.into_iter().enumerate() {
        let socket = udp(&client, &at(vip, PORTS.0), 41_000)?;
        assert_eq!(ask(&socket, 4000), "rs1");
        // Nobody serves port 81.
        let closed = at(vip, 81);
        director.ipvsadm(&format!("-A -u {closed} -s rr"))?;
        director.ipvsadm(&format!("-a -u {closed} -r {} -m", at(SERVERS[0][family], 81)))?;
        let socket = udp(&client, &closed, 41_001)?;
        socket.send(b"?").expect("it can be sent");
        let error = socket.recv(&mut [0; 8]).expect_err("nobody is there");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{vip}");
        // The director's own.
        director.ipvsadm(&format!("-A -t {} -s rr", at(vip, PORTS.0)))?;
        let server = at(SERVERS[0][family], PORTS.1);
        director.ipvsadm(&format!("-a -t {} -r {server} -m", at(vip, PORTS.0)))?;
        let mut stream = connect(&host, &at(vip, PORTS.0), 41_002)?;
        assert!(line(&mut stream).starts_with("rs1 "));
        echo(&mut stream, 100_000);
        // A real server that is the director.
        let own = at(DIRECTOR[family], PORTS.1);
        director.ipvsadm(&format!("-A -t {} -s rr", at(vip, 82)))?;
        director.ipvsadm(&format!("-a -t {} -r {own} -m", at(vip, 82)))?;
        let mut stream = connect(&client, &at(vip, 82), 41_003)?;
        assert_eq!(line(&mut stream), format!("director {}", CLIENT[family]));
        echo(&mut stream, 100_000);
        let [[original, reply]] = &tracked(&host, 41_003)?[..] else { panic!("one entry") };
        let [_, counted @ ..] = counters(&director, &format!("-t {}", at(vip, 82)))?;
        assert_eq!(counted, [original.packets, reply.packets, original.bytes, reply.bytes]);
        reset(stream);
        // And by direct routing.
        let direct = format!("-t {}", at(vip, PORTS.1));
        director.ipvsadm(&format!("-A {direct} -s rr"))?;
        director.ipvsadm(&format!("-a {direct} -r {own} -g"))?;
        let mut stream = connect(&client, &at(vip, PORTS.1), 41_004)?;
        assert_eq!(line(&mut stream), format!("director {}", CLIENT[family]));
        echo(&mut stream, 100_000);
        assert_eq!(tracked(&host, 41_004)?.len(), 1);
        let [conns, packets, ..] = counters(&director, &direct)?;
        assert!(conns == 1 && packets > 5, "{conns} {packets}");
        reset(stream);
        host.run("conntrack -F")?;
    }
    Ok(())
}

/// An own client's connection goes on whatever becomes of the setting, the table and rvsd, and ends in netfilter
/// as well; what does not forward has it translated by RVS.
#[test]
fn own_clients_last_and_end() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let host = lab.host("director");
    let director = Director::start(&host, &["--mode", "tc"])?;
    director.ipvsadm("--set 0 0 2")?;
    services(&director, "-t", &SERVERS[..1])?;
    services(&director, "-u", &SERVERS[..1])?;
    // Open before: translated by RVS as long as it lasts.
    let mut before = connect(&host, &at(VIPS[0], PORTS.0), 49_100)?;
    line(&mut before);
    assert!(setting(&director, "conntrack=1").is_ok());
    nft(&host, MASQUERADE)?;
    echo(&mut before, 10_000);
    let mut streams = Vec::new();
    for (family, port) in [(0, 49_101), (1, 49_111)] {
        let vip = at(VIPS[family], PORTS.0);
        let mut stream = connect(&host, &vip, port)?;
        assert_eq!(line(&mut stream), format!("rs1 {}", DIRECTOR[family]));
        streams.push(stream);
        let server = |known: &[[Direction; 2]]| known.iter().any(|[_, r]| r.to.ip() != r.from.ip());
        let socket = udp(&host, &vip, port + 1)?;
        assert_eq!(ask(&socket, 5), "rs1");
        assert!(server(&tracked(&host, port + 1)?));
        // Netfilter's own time for it is 30 seconds.
        wait_for("it expires", || Ok(tracked(&host, port + 1)?.is_empty()))?;
        assert_eq!(ask(&socket, 5), "rs1");
        host.run(&format!("conntrack -D -p udp --orig-port-src {}", port + 1))?;
        assert_eq!(ask(&socket, 5), "rs1");
    }
    let all = |streams: &mut [TcpStream]| streams.iter_mut().for_each(|s| echo(s, 10_000));
    // A service of all ports is one, too.
    let any = at(VIPS[0], 0);
    director.ipvsadm(&format!("-A -t {any} -s rr -p 300"))?;
    director.ipvsadm(&format!("-a -t {any} -r {} -m", at(SERVERS[1][0], 0)))?;
    let from = CLIENTS_SIDE[0].parse().expect("an address");
    let mut stream = connect_from(&host, from, &at(VIPS[0], PORTS.1), 49_103)?;
    assert_eq!(line(&mut stream), format!("rs2 {}", DIRECTOR[0]));
    reset(stream);
    director.ipvsadm(&format!("-D -t {any}"))?;
    assert!(setting(&director, "conntrack=0").is_ok());
    all(&mut streams);
    let mut new = connect(&host, &at(VIPS[0], PORTS.0), 49_104)?;
    assert_eq!(line(&mut new), format!("rs1 {}", VIPS[0]), "nobody masquerades it");
    assert!(setting(&director, "conntrack=1").is_ok());
    echo(&mut new, 10_000);
    director.process().kill();
    all(&mut streams);
    let mut stream = connect(&host, &at(VIPS[0], PORTS.0), 49_105)?;
    assert_eq!(line(&mut stream), format!("rs1 {}", DIRECTOR[0]), "with rvsd dead");
    streams.push(stream);
    director.restart()?;
    host.run("nft delete table inet rvs")?;
    all(&mut streams);
    wait_for("it is made anew", || Ok(host.run("nft list tables")?.contains("inet rvs")))?;
    all(&mut streams);
    let mut stream = connect(&host, &at(VIPS[0], PORTS.0), 49_106)?;
    assert_eq!(line(&mut stream), format!("rs1 {}", DIRECTOR[0]));
    streams.push(stream);
    streams.into_iter().chain([new, before]).for_each(reset);
    director.process().terminate(PATIENCE)?;
    let mut down: Command = director.rvs_command()?;
    let output = down.arg("down").arg("--pin").arg(director.pin()).output().expect("rvs starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left = host.run("nft list tables")? + &host.ip("-o link")? + &host.ip("rule")?;
    let gone = ["inet rvs", "rvs0", "0x72"].iter().all(|word| !left.contains(word));
    assert!(gone, "{left}");
    Ok(())
}

/// Where the host does not forward, RVS translates what its own clients send, as without the setting.
#[test]
fn own_clients_need_no_forwarding() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let host = lab.host("director");
    host.sysctls(&[("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.forwarding", "0")])?;
    let director = Director::start(&host, &["--mode", "tc"])?;
    assert!(setting(&director, "conntrack=1").is_ok());
    services(&director, "-t", &SERVERS[..1])?;
    for (vip, port) in VIPS.into_iter().zip([49_200, 49_201]) {
        let mut stream = connect(&host, &at(vip, PORTS.0), port)?;
        assert_eq!(line(&mut stream), format!("rs1 {vip}"));
        echo(&mut stream, 10_000);
    }
    Ok(())
}

/// A service of all ports: each connection keeps its own. And one of another port than the service's, which
/// only the second of two destinations at one address has.
#[test]
fn ports_are_the_connection_s() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    assert!(setting(&director, "conntrack=1").is_ok());
    for (family, vip) in VIPS.into_iter().enumerate() {
        let any = at(vip, 0);
        director.ipvsadm(&format!("-A -t {any} -s rr -p 300"))?;
        director.ipvsadm(&format!("-a -t {any} -r {} -m", at(SERVERS[0][family], 0)))?;
        let mut stream = connect(&client, &at(vip, PORTS.1), 46_000)?;
        assert_eq!(line(&mut stream), format!("rs1 {}", CLIENT[family]));
        drop(stream);
        // Nobody serves port 81.
        let to: SocketAddr = at(vip, 81).parse().expect("an address");
        let refused = client.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        assert_eq!(refused.expect_err("nobody").kind(), std::io::ErrorKind::ConnectionRefused);
        director.ipvsadm("-C")?;
        let two = at(vip, PORTS.0);
        director.ipvsadm(&format!("-A -t {two} -s rr"))?;
        for port in [81, PORTS.1] {
            let server = at(SERVERS[1][family], port);
            director.ipvsadm(&format!("-a -t {two} -r {server} -m"))?;
        }
        let to: SocketAddr = two.parse().expect("an address");
        let mut served = 0;
        for _ in 0..4 {
            match client.enter(|| TcpStream::connect_timeout(&to, PATIENCE))? {
                Ok(_) => served += 1,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
            }
        }
        assert_eq!(served, 2, "in turn");
    }
    Ok(())
}

/// What netfilter knows ends with the connection: by its time, and before another takes its place, which
/// may go elsewhere.
#[test]
fn what_ends_is_forgotten() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    assert!(setting(&director, "conntrack=1").is_ok());
    director.ipvsadm("--set 0 0 2")?;
    services(&director, "-t", &SERVERS)?;
    services(&director, "-u", &SERVERS)?;
    for (vip, port) in VIPS.into_iter().zip([42_000, 42_010]) {
        let vip = at(vip, PORTS.0);
        let socket = udp(&client, &vip, port)?;
        let first = ask(&socket, 5);
        assert_eq!(tracked(&host, port)?.len(), 1);
        // Netfilter's own time for it is 30 seconds at least.
        wait_for("it expires", || Ok(tracked(&host, port)?.is_empty()))?;
        assert_ne!(ask(&socket, 5), first, "in turn");
        drop(socket);
        wait_for("it expires again", || Ok(tracked(&host, port)?.is_empty()))?;

        // A port that is used again at once: the SYN is dropped, sent again, and goes to the next server.
        let mut stream = connect(&client, &vip, port + 1)?;
        let first = line(&mut stream);
        reset(stream);
        let mut stream = connect(&client, &vip, port + 1)?;
        let second = line(&mut stream);
        assert_ne!(first, second, "in turn");
        echo(&mut stream, 10_000);
        let known = tracked(&host, port + 1)?;
        let [[_, reply]] = &known[..] else { panic!("{known:?}") };
        let listed = director.ipvsadm("-Lcn")?;
        let row = listed
            .lines()
            .find(|row| row.contains(&format!(":{}", port + 1)) && row.contains("ESTABLISHED"));
        assert!(row.is_some_and(|row| row.contains(&reply.from.to_string())), "{listed}");
        reset(stream);
    }
    let mut command = director.rvs_command()?;
    let pin = director.pin();
    let status = command.args(["status", "--reasons", "--pin"]).arg(pin).output().expect("rvs");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    let dropped = text.lines().find(|line| line.starts_with("drop.tracked")).expect("a reason");
    assert_eq!(dropped.split_whitespace().nth(1), Some("2"), "{text}");
    Ok(())
}

/// What netfilter knows to lead elsewhere than was scheduled, whoever told it, gets nowhere.
#[test]
fn a_packet_goes_where_it_was_scheduled_or_nowhere() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    // Before there is a service the host sends it to the second server.
    nft(
        &host,
        "table ip early { chain pre { type nat hook prerouting priority dstnat;
         udp dport 8080 dnat to 10.1.0.12:80; }\n}",
    )?;
    let socket = udp(&client, &at(VIPS[0], PORTS.0), 45_000)?;
    assert_eq!(ask(&socket, 5), "rs2");
    host.run("nft delete table ip early")?;
    assert!(setting(&director, "conntrack=1").is_ok());
    services(&director, "-u", &SERVERS[..1])?;
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a time");
    socket.send(b"?").expect("it can be sent");
    let error = socket.recv(&mut [0; 8]).expect_err("no answer");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    host.run("conntrack -D -p udp --orig-port-src 45000")?;
    assert_eq!(ask(&socket, 5), "rs1");
    Ok(())
}

/// The table is there while it is needed: after a flush by others, for connections that are open when the
/// setting is turned off, across a restart; and not any longer.
#[test]
fn the_table_stays_as_long_as_it_is_needed() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    let has_table = || -> Result<bool, LabError> {
        Ok(host.run("nft list tables")?.lines().any(|line| line == "table inet rvs"))
    };
    services(&director, "-t", &SERVERS[..1])?;
    let vip = at(VIPS[0], PORTS.0);
    // Open before: translated by RVS as long as it lasts.
    let mut untracked = connect(&client, &vip, 43_000)?;
    assert!(!has_table()? && tracked(&host, 43_000)?.is_empty());
    assert!(setting(&director, "conntrack=1").is_ok());
    assert!(has_table()?);
    assert_eq!(line(&mut untracked), "rs1 10.0.0.2");
    echo(&mut untracked, 10_000);
    assert!(tracked(&host, 43_000)?.is_empty());

    let mut stream = connect(&client, &vip, 43_001)?;
    assert_eq!(line(&mut stream), "rs1 10.0.0.2");
    assert_eq!(tracked(&host, 43_001)?.len(), 1);
    host.run("nft flush ruleset")?;
    wait_for("it is made anew", has_table)?;
    // A destination that comes while nobody has the table is in it as well.
    director.process().kill();
    assert!(has_table()?);
    echo(&mut stream, 10_000);
    drop(connect(&client, &vip, 43_002)?);
    assert_eq!(tracked(&host, 43_002)?.len(), 1, "with rvsd dead");
    host.run("nft flush ruleset")?;
    director.restart()?;
    assert!(has_table()?);
    services(&director, "-u", &SERVERS[1..])?;
    assert_eq!(ask(&udp(&client, &vip, 43_003)?, 5), "rs2");
    assert_eq!(tracked(&host, 43_003)?.len(), 1);

    assert!(setting(&director, "conntrack=0").is_ok());
    echo(&mut stream, 10_000);
    drop(connect(&client, &vip, 43_004)?);
    assert!(tracked(&host, 43_004)?.is_empty());
    assert!(has_table()?, "for what is open");
    echo(&mut stream, 10_000);
    Ok(())
}

#[test]
fn commands_take_it_away() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = network()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    services(&director, "-u", &SERVERS[..1])?;
    director.ipvsadm("--set 0 0 2")?;
    // More destinations than a socket's buffer has room for.
    let mut rules = String::from("-A -t 10.9.3.3:80 -s rr\n");
    for server in 0..4000 {
        let addr = format!("10.2.{}.{}", server / 250, server % 250 + 1);
        rules += &format!("-a -t 10.9.3.3:80 -r {addr}:80 -m\n");
    }
    let mut restore = director.ipvsadm_command()?;
    let mut restore = restore.arg("-R").stdin(Stdio::piped()).spawn().expect("ipvsadm starts");
    let mut input = restore.stdin.take().expect("a pipe");
    input.write_all(rules.as_bytes()).expect("it reads");
    drop(input);
    assert!(restore.wait().expect("it ends").success());
    assert!(setting(&director, "conntrack=1").is_ok());
    let vip = at(VIPS[0], PORTS.0);
    assert_eq!(ask(&udp(&client, &vip, 44_000)?, 5), "rs1");
    assert!(setting(&director, "conntrack=0").is_ok());
    assert_eq!(ask(&udp(&client, &vip, 44_001)?, 5), "rs1");
    assert!(tracked(&host, 44_001)?.is_empty());
    let tables = || host.run("nft list tables");
    wait_for("nothing needs it", || Ok(!tables()?.contains("rvs")))?;
    assert!(setting(&director, "conntrack=1").is_ok());
    assert!(tables()?.contains("inet rvs"));
    director.process().terminate(PATIENCE)?;
    assert!(tables()?.contains("inet rvs"));
    let mut down: Command = director.rvs_command()?;
    let output = down.arg("down").arg("--pin").arg(director.pin()).output().expect("rvs starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!tables()?.contains("inet rvs"));
    Ok(())
}

/// The virtual addresses where servers answer past the director, the client's and one server's.
const SHARED: [&str; 2] = ["192.168.122.22", "fd22::22"];
const BESIDE: [&str; 2] = rvs_tests_netns::CLIENT;
const SERVER: [&str; 2] = rvs_tests_netns::SERVERS[0].1;

/// A director beside a server that has the virtual addresses, too, and takes packets out of tunnels.
fn beside() -> Result<Lab, LabError> {
    let lab = lab()?;
    let (director, server) = (lab.host("director"), lab.host("rs1"));
    for (vip, length) in SHARED.into_iter().zip(["/32", "/128 nodad"]) {
        director.ip(&format!("addr add {vip}{length} dev eth0"))?;
        server.ip(&format!("addr add {vip}{length} dev lo"))?;
    }
    for client in BESIDE {
        server.ip(&format!("route del {client}"))?;
    }
    server.sysctls(&QUIET)?;
    server.serve_udp_echo(&SHARED.map(|vip| at(vip, PORTS.1).parse().expect("an address")))?;
    introduce(&server)?;
    server.serve_decap(Checksums::Complete)?;
    director.sysctls(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.netfilter.nf_conntrack_acct", "1"),
    ])?;
    Ok(lab)
}

/// Services of both families and protocols to the server.
fn serve_beside(director: &Director, words: &str) -> Result<(), LabError> {
    for (vip, server) in SHARED.into_iter().zip(SERVER) {
        for protocol in ["-t", "-u"] {
            let service = format!("{protocol} {}", at(vip, PORTS.1));
            director.ipvsadm(&format!("-A {service} -s rr"))?;
            director.ipvsadm(&format!("-a {service} -r {} {words}", at(server, PORTS.1)))?;
        }
    }
    Ok(())
}

/// The host's rules see the packets and their own marks, and give them no other source.
const WATCH: &str = "table inet watch {
    chain services { type nat hook prerouting priority dstnat;
        ip daddr 192.168.122.22 meta mark set 0x4000
        ip6 daddr fd22::22 meta mark set 0x4000
    }
    chain forward { type filter hook forward priority filter;
        meta mark 0x4000 ip daddr 192.168.122.22 counter
        meta mark 0x4000 ip6 daddr fd22::22 counter
        meta mark & 0xff000000 == 0x72000000 counter drop
    }
    chain postrouting { type nat hook postrouting priority srcnat;
        meta mark 0x4000 masquerade
    }
}";

/// Real connections by direct routing and tunnels: netfilter knows them by the virtual address, each packet
/// counts once, the server sees the client.
fn tracks_direct(mode: &str) -> Result<(), LabError> {
    let lab = beside()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", mode])?;
    assert!(setting(&director, "conntrack=1").is_ok());
    nft(&host, WATCH)?;
    let mut port = 47_000;
    for method in ["-g", "-i", "-i --tun-type gre --tun-csum"] {
        serve_beside(&director, method)?;
        for family in 0..2 {
            port += 1;
            let vip = at(SHARED[family], PORTS.1);
            let mut stream = connect(&client, &vip, port)?;
            assert_eq!(line(&mut stream), format!("rs1 {}", BESIDE[family]), "{method}");
            echo(&mut stream, 300_000);
            let known = tracked(&host, port)?;
            let [[original, reply]] = &known[..] else { panic!("{method}: {known:?}") };
            assert_eq!(original.from.to_string(), at(BESIDE[family], port));
            assert_eq!((original.to.to_string(), reply.from), (vip.clone(), original.to));
            assert_eq!((reply.to, reply.packets), (original.from, 0), "past the director");
            let [_, packets, to_clients, ..] = counters(&director, &format!("-t {vip}"))?;
            assert!(packets > 5 && to_clients == 0, "{method} {packets} {to_clients}");

            let socket = udp(&client, &vip, port)?;
            for len in [5, 1200] {
                assert_eq!(ask(&socket, len), "rs1");
            }
            let known = tracked(&host, port)?;
            let udp = known.iter().find(|[original, _]| original.packets == 2).expect("both");
            let [_, counted @ ..] = counters(&director, &format!("-u {vip}"))?;
            assert_eq!(counted, [udp[0].packets, 0, udp[0].bytes, 0], "{method} {vip}");
            // In fragments, which netfilter puts together and cuts again.
            if family == 0 || method == "-g" {
                assert_eq!(ask(&socket, 4000), "rs1");
                let counted = counters(&director, &format!("-u {vip}"))?;
                assert_eq!(counted[1], 3, "{method} {vip}");
            }
        }
        director.ipvsadm("-C")?;
        host.run("conntrack -F")?;
    }
    let watched = host.run("nft list table inet watch")?;
    assert_eq!(watched.matches("counter packets 0 ").count(), 1, "{watched}");
    assert!(watched.contains("counter packets 0 bytes 0 drop"), "{watched}");
    Ok(())
}

#[test]
fn direct_routing_and_tunnels_are_tracked_by_tc() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    tracks_direct("tc")
}

#[test]
fn direct_routing_and_tunnels_are_tracked_by_xdp() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    tracks_direct("xdp")
}

/// What is only tracked ends with its connection, goes on without rvsd and with another setting, and leaves
/// nothing behind; services by mark, which use the same device, come and go meanwhile.
#[test]
fn tracked_direct_connections_last_and_end() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let lab = beside()?;
    let (client, host) = (lab.host("client"), lab.host("director"));
    let director = Director::start(&host, &["--mode", "tc"])?;
    serve_beside(&director, "-g")?;
    director.ipvsadm("--set 0 2 2")?;
    assert!(setting(&director, "conntrack=1").is_ok());
    let rules = |host: &Host| -> Result<usize, LabError> {
        let both = host.ip("rule")? + &host.ip("-6 rule")?;
        Ok(both.lines().filter(|line| line.contains("fwmark 0x72000000/0xff000000")).count())
    };
    assert_eq!(rules(&host)?, 2);
    let mut streams = Vec::new();
    for (vip, port) in SHARED.into_iter().zip([48_000, 48_010]) {
        let vip = at(vip, PORTS.1);
        let mut stream = connect(&client, &vip, port)?;
        line(&mut stream);
        assert_eq!(tracked(&host, port)?.len(), 1);
        streams.push(stream);
        let socket = udp(&client, &vip, port + 1)?;
        assert_eq!(ask(&socket, 5), "rs1");
        assert_eq!(tracked(&host, port + 1)?.len(), 1);
        // Netfilter's own time for it is 30 seconds.
        wait_until("it expires", Duration::from_secs(12), || {
            Ok(tracked(&host, port + 1)?.is_empty())
        })?;
    }
    // The first packet finds its service by netfilter's mark; the next, of a connection that is tracked, keep it.
    nft(
        &host,
        "table inet five { chain pre { type filter hook prerouting priority mangle;
            udp dport 7007 meta mark set 5; }
          chain forward { type filter hook forward priority filter; meta mark 5 counter; }\n}",
    )?;
    director.ipvsadm("-A -f 5 -s rr")?;
    director.ipvsadm(&format!("-a -f 5 -r {} -g", at(SERVER[0], 0)))?;
    lab.host("rs1").serve_udp_echo(&[at(SHARED[0], 7007).parse().expect("an address")])?;
    let socket = udp(&client, &at(SHARED[0], 7007), 48_004)?;
    for _ in 0..3 {
        assert_eq!(ask(&socket, 5), "rs1");
    }
    let known = tracked(&host, 48_004)?;
    assert!(matches!(&known[..], [[original, _]] if original.packets == 3), "{known:?}");
    assert_eq!(counters(&director, "-f 5")?[..3], [1, 3, 0]);
    let forwarded = host.run("nft list table inet five")?;
    assert!(forwarded.contains("counter packets 3 "), "{forwarded}");
    director.ipvsadm("-D -f 5")?;
    assert_eq!(rules(&host)?, 2);
    director.process().kill();
    for (number, stream) in (48_002..).zip(&mut streams) {
        echo(stream, 10_000);
        let mut new = connect(&client, &at(SHARED[0], PORTS.1), number)?;
        line(&mut new);
        reset(new);
        assert_eq!(tracked(&host, number)?.len(), 1, "with rvsd dead");
    }
    director.restart()?;
    assert!(setting(&director, "conntrack=0").is_ok());
    let mut new = connect(&client, &at(SHARED[1], PORTS.1), 48_011)?;
    line(&mut new);
    assert!(tracked(&host, 48_011)?.is_empty());
    for stream in &mut streams {
        echo(stream, 10_000);
    }
    assert!(setting(&director, "conntrack=1").is_ok());
    for stream in streams.iter_mut().chain([&mut new]) {
        echo(stream, 10_000);
    }
    assert!(tracked(&host, 48_011)?.is_empty(), "it goes on as it began");
    assert!(setting(&director, "conntrack=0").is_ok());
    streams.into_iter().chain([new]).for_each(reset);
    director.ipvsadm("-C")?;
    wait_until("nothing is left", Duration::from_secs(30), || {
        let device = host.ip("-o link")?.contains("rvs0");
        Ok(rules(&host)? == 0 && !device && !host.run("nft list tables")?.contains("rvs"))
    })?;
    Ok(())
}
