//! The director itself as a client and as a real server, and a real server as its own client:
//! what real sockets see, row by row as with a real kernel's IPVS
//! (`tests/oracle/recorded/local.jsonl`, by `local.py`, which has the same network).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rvs_testkit::lab::{Checksums, Director, Host, Lab, LabError, Stop, Topology};
use rvs_testkit::need_lab;
use rvs_tests_netns::QUIET;
use rvs_tests_netns::at;
use serde_json::Value;

/// The virtual addresses.
const VIP: [&str; 2] = ["10.9.1.1", "fd09::1"];
/// The real servers: the director itself and one elsewhere.
const SERVERS: [[&str; 2]; 2] = [["10.1.0.1", "10.1.0.11"], ["fd01::1", "fd01::11"]];
/// The time that an answer takes at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time after which there is none.
const SILENCE: Duration = Duration::from_millis(700);

/// The recording's network: a client, the director in between, a server.
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
    lab.host("server").sysctls(&QUIET)?;
    let router = [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];
    lab.host("director").sysctls(&router)?;
    lab.host("server").serve_decap(Checksums::Complete)?;
    Ok(lab)
}

/// A server that says its host's name, and both ends of the connection as it sees them.
fn introduce(host: &Host, port: u16) -> Result<(), LabError> {
    let name = host.name().to_owned();
    let open = move || {
        let listener = TcpListener::bind(("::", port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    host.serve(open, move |listener, stop: &Stop| {
        while !stop.is_set() {
            let Ok((mut stream, from)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let to = stream.local_addr().expect("a connected socket");
            let (to, from) = (SocketAddr::new(to.ip().to_canonical(), to.port()), from.ip());
            let _ = write!(stream, "{name} {to} {}", from.to_canonical());
        }
    })?;
    Ok(())
}

/// What the server at `to` says to a client with this source address, if any was asked for.
fn ask(to: SocketAddr, source: Option<IpAddr>, patience: Duration) -> std::io::Result<String> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    if let Some(source) = source {
        rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    rustix::net::connect(&socket, &to)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// `ok director ('10.1.0.1', 80) ('10.9.1.1', 46990)` as [`ask`] has it; `None` if it failed.
fn recorded(answer: &str) -> Option<String> {
    let words: Vec<&str> = answer
        .strip_prefix("ok ")?
        .split([' ', ',', '(', ')', '\''])
        .filter(|w| !w.is_empty())
        .collect();
    let [name, to, port, from, _] = words.as_slice() else { panic!("{answer}") };
    Some(format!("{name} {} {from}", at(to, port.parse().expect("a port"))))
}

/// What a row is about.
struct Row<'r>(&'r Value);

impl Row<'_> {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().expect("a string")
    }

    fn v6(&self) -> bool {
        self.0["family"] == 6
    }

    fn server(&self) -> String {
        at(self.text("server"), self.0["port"].as_u64().expect("a port") as u16)
    }

    fn label(&self) -> String {
        let words = ["vip", "client", "source", "method"].map(|name| self.text(name));
        format!("{words:?} {} {}", self.server(), self.0["accept_local"])
    }

    /// Where RVS serves what the kernel does not: a virtual address that the director does not
    /// have. The kernel looks only at what is delivered on the director, and refuses a local
    /// destination there; TC sees packets before they are routed.
    fn is_served_here_only(&self) -> bool {
        let own = self.text("server").ends_with(":1") || self.text("server").ends_with(".1");
        let loopback = ["127.0.0.1", "::1"].contains(&self.text("server"));
        self.text("vip") == "none"
            && match (self.text("client"), self.text("method")) {
                ("director", "NAT") => own || loopback,
                ("client", "NAT") => !loopback,
                ("client", _) => !own && !loopback,
                _ => false,
            }
    }
}

/// The virtual addresses where a row wants them.
#[derive(Default, PartialEq)]
struct Places {
    vip: String,
    on_server: bool,
}

impl Places {
    fn go_to(&mut self, lab: &Lab, wanted: Places) -> Result<(), LabError> {
        let (director, server) = (lab.host("director"), lab.host("server"));
        for (vip, length) in VIP.into_iter().zip(["/32", "/128 nodad"]) {
            let hop = if vip.contains(':') { "fd00::2" } else { "10.0.0.2" };
            for (place, verb) in [(&self.vip, "del"), (&wanted.vip, "add")] {
                match place.as_str() {
                    _ if self.vip == wanted.vip => {}
                    "" => {}
                    "none" => drop(director.ip(&format!("route {verb} {vip} via {hop}"))?),
                    place => {
                        let dev = if place == "lo" { "lo" } else { "eth1" };
                        director.ip(&format!("addr {verb} {vip}{length} dev {dev}"))?;
                    }
                }
            }
            if self.on_server != wanted.on_server {
                let verb = if wanted.on_server { "add" } else { "del" };
                server.ip(&format!("addr {verb} {vip}{length} dev lo"))?;
            }
        }
        *self = wanted;
        Ok(())
    }
}

#[test]
fn sockets_see_what_they_see_with_a_kernel_s_ipvs() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    for name in ["director", "server"] {
        for port in [80, 18080] {
            introduce(&lab.host(name), port)?;
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/recorded/local.jsonl");
    let rows = std::fs::read_to_string(path).expect("it is part of the repository");
    let director = Director::start(&lab.host("director"), &[])?;
    let mut places = Places::default();
    let (mut played, mut more, mut wrong) = (0, 0, Vec::new());
    for line in rows.lines() {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        let row = Row(&value);
        let (nat, client) = (row.text("method") == "NAT", row.text("client"));
        let on_server = !nat && client != "server";
        places.go_to(&lab, Places { vip: row.text("vip").into(), on_server })?;
        if let Some(value) = value["accept_local"].as_u64() {
            lab.host("server").sysctl("net.ipv4.conf.all.accept_local", &value.to_string())?;
        }
        let vip = at(VIP[usize::from(row.v6())], 80);
        let method = match row.text("method") {
            "NAT" => "-m",
            "DR" => "-g",
            _ => "-i",
        };
        director.ipvsadm("-C")?;
        director.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        director.ipvsadm(&format!("-a -t {vip} -r {} {method}", row.server()))?;
        let expected = recorded(row.text("answer"));
        let patience =
            if expected.is_some() || row.is_served_here_only() { PATIENCE } else { SILENCE };
        let source = Some(row.text("source")).filter(|source| *source != "-");
        let source = source.map(|source| source.parse().expect("an address"));
        let to = vip.parse().expect("an address");
        let answer = lab.host(client).enter(|| ask(to, source, patience))?;
        if row.is_served_here_only() {
            more += 1;
            assert!(expected.is_none() && answer.is_ok(), "{}: {answer:?}", row.label());
        } else if answer.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{}: {answer:?}, the kernel {expected:?}", row.label()));
        }
        let listed = director.dests()?;
        assert_eq!(listed[0].forward, value["listing"][0][2], "{}", row.label());
        played += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(played > 200 && more > 20, "{played} {more}");
    Ok(())
}

/// Bytes of a bulk transfer: many super-packets.
const BULK: usize = 12_000_000;

/// Downloads bulk over HTTP and compares it.
fn download(lab: &Lab, client: &str, vip: &str) -> Result<(), LabError> {
    let (got, www) = (lab.dir().join("got"), lab.dir().join("www"));
    let host = lab.host(client);
    host.run(&format!("curl -sS --max-time 60 -o {} http://{vip}/bulk", got.display()))?;
    host.run(&format!("cmp {} {}", got.display(), www.join("bulk").display())).map(drop)
}

/// Strict source checks, and a director that is no router: what IPVS does not mind either.
fn strict_director(lab: &Lab) -> Result<(), LabError> {
    lab.host("director").sysctls(&[
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
    ])
}

/// A lab with real web servers on ports 80 and 18080 of the director and the server.
fn web() -> Result<(Lab, Director), LabError> {
    let lab = network()?;
    lab.web_file("bulk", BULK)?;
    strict_director(&lab)?;
    for name in ["director", "server"] {
        for port in [80, 18080] {
            lab.host(name).serve_http(port)?;
        }
    }
    let director = Director::start(&lab.host("director"), &[])?;
    Ok((lab, director))
}

/// The programs on the director's interfaces, as `rvs status` has them.
fn attached(director: &Director) -> Result<Vec<String>, LabError> {
    let mut command = director.rvs_command()?;
    command.arg("status").arg("--pin").arg(director.pin());
    let output = command.output().expect("rvs starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut words: Vec<String> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("attached:")?.trim().to_owned()))
        .collect();
    words.sort();
    Ok(words)
}

#[test]
fn bulk_goes_whole_between_clients_and_servers_here_and_elsewhere() -> Result<(), LabError> {
    need_lab!();
    let (lab, director) = web()?;
    assert_eq!(attached(&director)?, ["eth0 tc", "eth1 tc"]);
    for (place, port) in [("lo", 80), ("none", 81)] {
        let mut places = Places::default();
        places.go_to(&lab, Places { vip: place.into(), on_server: false })?;
        for (vip, servers) in VIP.into_iter().zip(SERVERS) {
            let vip = at(vip, port);
            for server in servers {
                director.ipvsadm(&format!("-A -t {vip} -s rr"))?;
                director.ipvsadm(&format!("-a -t {vip} -r {} -m", at(server, 18080)))?;
                let egress = place == "none" || server == servers[0];
                let programs = ["eth0 egress", "eth0 tc", "eth1 egress", "eth1 tc", "lo tc"];
                let wanted = programs.into_iter().filter(|p| egress || !p.ends_with("egress"));
                assert_eq!(
                    attached(&director)?,
                    wanted.collect::<Vec<_>>(),
                    "{vip} {server}\n{}",
                    director.process().log()
                );
                for client in ["director", "client"] {
                    download(&lab, client, &vip)?;
                }
                let active = director.dests()?;
                assert_eq!(active[0].active + active[0].inactive, 2, "{vip} {server}");
                director.ipvsadm("-C")?;
                // What nobody needs is detached when the ways are looked up anew.
                lab.host("director").ip("route add 10.77.0.0/16 dev eth0")?;
                rvs_testkit::lab::wait_until("detached", PATIENCE, || {
                    Ok(attached(&director)? == ["eth0 tc", "eth1 tc"])
                })?;
                lab.host("director").ip("route del 10.77.0.0/16 dev eth0")?;
            }
        }
        places.go_to(&lab, Places::default())?;
    }
    Ok(())
}

/// Who answers to the director, the client and the server, which is a client of its own service then.
type Answers = [Option<&'static str>; 3];

#[test]
fn curl_gets_what_nginx_on_the_director_and_elsewhere_has() -> Result<(), LabError> {
    need_lab!();
    let (lab, director) = web()?;
    // Replies past the director's own way to the virtual address: what a strict check refuses.
    lab.host("director").sysctl("net.ipv4.conf.all.rp_filter", "0")?;
    let mut places = Places::default();
    let (here, there) = (Some("director"), Some("server"));
    for (family, loopback) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        let (vip, [own, other]) = (at(VIP[family], 80), SERVERS[family]);
        let cases: [(&str, &str, u16, &str, Answers); 8] = [
            ("lo", loopback, 18080, "-m", [here, None, None]),
            ("lo", loopback, 80, "-g", [here; 3]),
            ("lo", own, 18080, "-m", [here; 3]),
            ("lo", own, 80, "-g", [here; 3]),
            ("lo", own, 80, "-i", [here; 3]),
            ("lo", other, 18080, "-m", [there, there, None]),
            ("none", other, 80, "-g", [there, None, there]),
            ("none", other, 80, "-i", [there, None, there]),
        ];
        for (place, server, port, method, answers) in cases {
            // Direct routing and tunneling need the virtual address on the server.
            let on_server = place == "none";
            places.go_to(&lab, Places { vip: place.into(), on_server })?;
            director.ipvsadm(&format!("-A -t {vip} -s rr"))?;
            director.ipvsadm(&format!("-a -t {vip} -r {} {method}", at(server, port)))?;
            for (client, wanted) in ["director", "client", "server"].into_iter().zip(answers) {
                // RVS serves clients elsewhere, which the kernel does not.
                if on_server && client == "client" {
                    continue;
                }
                let label = format!("{place} {server}:{port} {method} {client}");
                let patience = if wanted.is_some() { 10.0 } else { 0.7 };
                let curl = format!("curl -sS --max-time {patience} http://{vip}/");
                let answer = lab.host(client).run(&curl).ok();
                assert_eq!(answer.as_deref().map(str::trim), wanted, "{label}");
                if wanted.is_some() {
                    download(&lab, client, &vip)?;
                }
            }
            director.ipvsadm("-C")?;
        }
        places.go_to(&lab, Places::default())?;
    }
    Ok(())
}

#[test]
fn local_traffic_outlives_a_killed_rvsd() -> Result<(), LabError> {
    need_lab!();
    let (lab, director) = web()?;
    let mut places = Places::default();
    places.go_to(&lab, Places { vip: "lo".into(), on_server: false })?;
    let vip = at(VIP[0], 80);
    director.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    for server in ["10.1.0.1", "10.1.0.11"] {
        director.ipvsadm(&format!("-a -t {vip} -r {server}:18080 -m"))?;
    }
    let both = |client: &str| -> Result<(), LabError> {
        let answer = || lab.host(client).run(&format!("curl -sS --max-time 10 http://{vip}/"));
        assert_ne!(answer()?, answer()?, "{client}");
        Ok(())
    };
    director.process().kill();
    both("director")?;
    both("client")?;
    director.restart()?;
    both("director")?;
    both("client")?;
    director.process().kill();
    let mut command = director.rvs_command()?;
    let status = command.arg("down").arg("--pin").arg(director.pin()).status();
    assert!(status.is_ok_and(|status| status.success()));
    let host = lab.host("director");
    for (name, before) in LOOPBACK {
        assert_eq!(host.sysctl_value(&format!("net.{name}"))?, before, "{name}");
    }
    Ok(())
}

/// What the loopback's settings are in a namespace that was just made.
const LOOPBACK: [(&str, &str); 5] = [
    ("ipv4.conf.lo.forwarding", "0"),
    ("ipv6.conf.lo.forwarding", "0"),
    ("ipv4.conf.lo.accept_local", "0"),
    ("ipv4.conf.lo.route_localnet", "0"),
    ("ipv4.conf.lo.rp_filter", "0"),
];

/// Sends a datagram to `to` and waits for what comes back, data or an error.
fn datagram(host: &Host, to: SocketAddr) -> Result<std::io::Result<SocketAddr>, LabError> {
    host.enter(move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(&[7; 1000])?;
        let mut answer = [0; 2000];
        let (_, from) = socket.recv_from(&mut answer)?;
        Ok(from)
    })
}

#[test]
fn datagrams_and_errors_come_back_from_the_virtual_address() -> Result<(), LabError> {
    need_lab!();
    let (lab, director) = web()?;
    for (number, name) in ["director", "server"].into_iter().enumerate() {
        let addrs = SERVERS.map(|servers| at(servers[number], 5353).parse().expect("an address"));
        lab.host(name).serve_udp_echo(&addrs)?;
    }
    for place in ["lo", "none"] {
        let mut places = Places::default();
        places.go_to(&lab, Places { vip: place.into(), on_server: false })?;
        for (vip, servers) in VIP.into_iter().zip(SERVERS) {
            let to: SocketAddr = at(vip, 53).parse().expect("an address");
            for (server, client) in servers.iter().flat_map(|s| [(s, "director"), (s, "client")]) {
                let label = format!("{place} {vip} {server} {client}");
                director.ipvsadm(&format!("-A -u {to} -s rr"))?;
                director.ipvsadm(&format!("-a -u {to} -r {} -m", at(server, 5353)))?;
                let answer = datagram(&lab.host(client), to)?;
                assert!(answer.as_ref().is_ok_and(|from| *from == to), "{label}: {answer:?}");
                // Nobody listens there.
                director.ipvsadm(&format!("-d -u {to} -r {}", at(server, 5353)))?;
                director.ipvsadm(&format!("-a -u {to} -r {} -m", at(server, 5354)))?;
                let refused = datagram(&lab.host(client), to)?.map_err(|error| error.kind());
                assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{label}");
                // Nobody at all.
                director.ipvsadm(&format!("-d -u {to} -r {}", at(server, 5354)))?;
                let refused = datagram(&lab.host(client), to)?.map_err(|error| error.kind());
                assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{label}: no server");
                director.ipvsadm("-C")?;
            }
        }
        places.go_to(&lab, Places::default())?;
    }
    Ok(())
}

/// The kernel, asked by hand: the same.
#[test]
fn own_clients_use_services_of_every_port() -> Result<(), LabError> {
    need_lab!();
    let lab = network()?;
    introduce(&lab.host("server"), 80)?;
    let host = lab.host("director");
    let director = Director::start(&host, &[])?;
    let mut places = Places::default();
    places.go_to(&lab, Places { vip: "lo".into(), on_server: false })?;
    for (vip, [own, server]) in VIP.into_iter().zip(SERVERS) {
        director.ipvsadm(&format!("-A -t {} -s rr -p 60", at(vip, 0)))?;
        director.ipvsadm(&format!("-a -t {} -r {} -m", at(vip, 0), at(server, 0)))?;
        let to: SocketAddr = at(vip, 80).parse().expect("an address");
        // By the virtual address itself, which the host chooses, and by another of its own.
        for source in [None, Some(own.parse().expect("an address"))] {
            let answer = host.enter(move || ask(to, source, PATIENCE))?;
            let expected = format!("server {} ", at(server, 80));
            let label = format!("{to} from {source:?}: {answer:?}");
            assert!(answer.is_ok_and(|answer| answer.starts_with(&expected)), "{label}");
        }
    }
    Ok(())
}
