//! Packets that are too big for the way on: tunnels, narrow links at the director, and narrow
//! links at routers before and behind it; both address families, both hooks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rvs_testkit::lab::{Director, Host, Lab, LabError, Topology, wait_until};
use rvs_testkit::need_lab;
use rvs_tests_netns::{DIRECTOR, SERVERS, at, lab};

/// The path MTU that a host has learnt to `addr`, if any.
fn path_mtu(host: &Host, addr: &str) -> Result<Option<u32>, LabError> {
    let route = host.ip(&format!("route get {addr}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    Ok(words.next().and_then(|mtu| mtu.parse().ok()))
}

fn wait_for_mtu(host: &Host, addr: &str, mtu: u32) -> Result<(), LabError> {
    let what = format!("a path MTU of {mtu} from {} to {addr}", host.name());
    wait_until(&what, Duration::from_secs(10), || Ok(path_mtu(host, addr)? == Some(mtu)))
}

/// Sends a UDP datagram that fills a packet of `size` bytes, which must not be fragmented.
fn send_datagram(host: &Host, to: &str, size: usize) -> Result<(), LabError> {
    let to: SocketAddr = to.parse().expect("an address");
    let (any, headers) = if to.is_ipv4() { ("0.0.0.0:0", 28) } else { ("[::]:0", 48) };
    host.enter(move || {
        let socket = UdpSocket::bind(any).expect("a port");
        socket.send_to(&vec![0; size - headers], to).expect("it fits the link");
    })
}

fn too_big_for_the_tunnel(mode: &str) -> Result<(), LabError> {
    let lab = lab()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    for (family, (vip, mtu)) in DIRECTOR.into_iter().zip([1480, 1460]).enumerate() {
        let server = at(SERVERS[0].1[family], 5353);
        director.ipvsadm(&format!("-A -u {} -s rr", at(vip, 5353)))?;
        director.ipvsadm(&format!("-a -u {} -r {server} -i", at(vip, 5353)))?;
        send_datagram(&lab.host("client"), &at(vip, 5353), 1500)?;
        wait_for_mtu(&lab.host("client"), vip, mtu)?;
    }
    Ok(())
}

#[test]
fn a_sender_learns_the_tunnel_s_mtu_through_tc() -> Result<(), LabError> {
    need_lab!();
    too_big_for_the_tunnel("tc")
}

#[test]
fn a_sender_learns_the_tunnel_s_mtu_through_xdp() -> Result<(), LabError> {
    need_lab!();
    too_big_for_the_tunnel("xdp")
}

/// A host's addresses on one segment.
type Addrs = [&'static str; 2];

// client -- outer -- edge -- front -- director -- back -- core -- inner -- rs
const CLIENT: Addrs = ["10.1.0.70", "fd01::70"];
const EDGE_OUTER: Addrs = ["10.1.0.1", "fd01::1"];
const EDGE_FRONT: Addrs = ["10.2.0.1", "fd02::1"];
const VIP: Addrs = ["10.2.0.30", "fd02::30"];
const DIRECTOR_BACK: Addrs = ["10.3.0.30", "fd03::30"];
const CORE_BACK: Addrs = ["10.3.0.1", "fd03::1"];
const CORE_INNER: Addrs = ["10.4.0.1", "fd04::1"];
const SERVER: Addrs = ["10.4.0.45", "fd04::45"];

/// Bytes sent each way.
const BULK: usize = 20_000_000;

/// A client and a server, each behind a router of its own, the director in between.
fn routed_lab() -> Result<Lab, LabError> {
    let attached = [
        ("client", "outer", CLIENT),
        ("edge", "outer", EDGE_OUTER),
        ("edge", "front", EDGE_FRONT),
        ("director", "front", VIP),
        ("director", "back", DIRECTOR_BACK),
        ("core", "back", CORE_BACK),
        ("core", "inner", CORE_INNER),
        ("rs1", "inner", SERVER),
    ];
    let mut topology = Topology::new();
    for (host, segment, [v4, v6]) in attached {
        topology = topology.attach(host, segment, &[&format!("{v4}/24"), &format!("{v6}/64")]);
    }
    let lab = topology.build()?;
    let ways = [
        ("client", "default", "default", EDGE_OUTER),
        ("edge", "10.4.0.0/24", "fd04::/64", VIP),
        ("director", "10.1.0.0/24", "fd01::/64", EDGE_FRONT),
        ("director", "10.4.0.0/24", "fd04::/64", CORE_BACK),
        ("core", "10.1.0.0/24", "fd01::/64", DIRECTOR_BACK),
        ("core", "10.2.0.0/24", "fd02::/64", DIRECTOR_BACK),
        ("rs1", "default", "default", CORE_INNER),
    ];
    for (host, to4, to6, via) in ways {
        lab.host(host).ip(&format!("route add {to4} via {}", via[0]))?;
        lab.host(host).ip(&format!("-6 route add {to6} via {}", via[1]))?;
    }
    for router in ["edge", "core"] {
        let forward = [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];
        lab.host(router).sysctls(&forward)?;
    }
    Ok(lab)
}

/// A narrow place: packets from `host` to `to` have at most as many bytes as the route's `mtu`
/// says. A locked one holds for eBPF's look-ups, too.
struct Narrow {
    host: &'static str,
    to: Addrs,
    via: Addrs,
    mtu: &'static str,
}

impl Narrow {
    fn apply(&self, lab: &Lab) -> Result<(), LabError> {
        let Self { host, to, via, mtu } = self;
        for (to, via) in to.iter().zip(via) {
            let via = if to == via { String::new() } else { format!("via {via} ") };
            let route = lab.host(host).ip(&format!("route get {to}"))?;
            let device = route.split_whitespace().skip_while(|word| *word != "dev").nth(1);
            let device = device.expect("a device");
            let length = if to.contains(':') { 128 } else { 32 };
            lab.host(host).ip(&format!("route add {to}/{length} {via}dev {device} mtu {mtu}"))?;
        }
        Ok(())
    }
}

/// Sends [`BULK`] bytes to a server, which sends them back, through a lab that is narrow here and
/// there; client and server must learn these path MTUs of each other.
fn bulk(mode: &str, narrow: &[Narrow], client_mtu: u32, server_mtu: u32) -> Result<(), LabError> {
    let lab = routed_lab()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    narrow.iter().try_for_each(|narrow| narrow.apply(&lab))?;
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    let bytes = std::fs::read(lab.web_file("bulk", BULK)?).expect("it was just written");
    for family in 0..2 {
        let (vip, server) = (at(VIP[family], 7), at(SERVER[family], 7));
        director.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        director.ipvsadm(&format!("-a -t {vip} -r {server} -m"))?;
        let listener = lab.host("rs1").enter(|| TcpListener::bind(&server))?.expect("a free port");
        let service = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.set_write_timeout(Some(Duration::from_secs(30)))?;
            let mut all = Vec::with_capacity(BULK);
            stream.read_to_end(&mut all)?;
            stream.write_all(&all)
        });
        let whole = lab.host("client").enter(|| {
            let mut stream = TcpStream::connect_timeout(
                &vip.parse().expect("an address"),
                Duration::from_secs(10),
            )?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.set_write_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(&bytes)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut back = Vec::with_capacity(BULK);
            stream.read_to_end(&mut back)?;
            Ok::<bool, std::io::Error>(back == bytes)
        })?;
        let served = service.join().expect("a server that does not panic");
        assert!(served.is_ok(), "{mode} {vip}: {served:?}");
        assert!(matches!(whole, Ok(true)), "{mode} {vip}: {whole:?}");
        wait_for_mtu(&lab.host("client"), VIP[family], client_mtu)?;
        wait_for_mtu(&lab.host("rs1"), CLIENT[family], server_mtu)?;
    }
    Ok(())
}

/// Narrow towards the server and, less so, towards the client, both at the director.
fn narrow_director() -> [Narrow; 2] {
    [
        Narrow { host: "director", to: SERVER, via: CORE_BACK, mtu: "1400" },
        Narrow { host: "director", to: CLIENT, via: EDGE_FRONT, mtu: "lock 1450" },
    ]
}

#[test]
fn both_sides_learn_the_director_s_mtus_through_tc() -> Result<(), LabError> {
    need_lab!();
    bulk("tc", &narrow_director(), 1400, 1450)
}

#[test]
fn both_sides_learn_the_director_s_mtus_through_xdp() -> Result<(), LabError> {
    need_lab!();
    bulk("xdp", &narrow_director(), 1400, 1450)
}

/// The same at the routers: their errors are about packets that the director has rewritten.
fn narrow_routers() -> [Narrow; 2] {
    [
        Narrow { host: "core", to: SERVER, via: SERVER, mtu: "lock 1400" },
        Narrow { host: "edge", to: CLIENT, via: CLIENT, mtu: "lock 1450" },
    ]
}

#[test]
fn both_sides_learn_the_routers_mtus_through_tc() -> Result<(), LabError> {
    need_lab!();
    bulk("tc", &narrow_routers(), 1400, 1450)
}

#[test]
fn both_sides_learn_the_routers_mtus_through_xdp() -> Result<(), LabError> {
    need_lab!();
    bulk("xdp", &narrow_routers(), 1400, 1450)
}

/// A client's datagram of 1500 bytes, towards a link of 1400 of the director.
fn datagrams(mode: &str) -> Result<(), LabError> {
    let lab = routed_lab()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    for (host, interface) in [("director", "eth1"), ("core", "eth0")] {
        lab.host(host).ip(&format!("link set {interface} mtu 1400"))?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    let client = lab.host("client");
    for family in 0..2 {
        let (vip, server) = (at(VIP[family], 7), at(SERVER[family], 7));
        director.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        director.ipvsadm(&format!("-a -u {vip} -r {server} -m"))?;
        let address = server.parse().expect("an address");
        let _echo = lab.host("rs1").serve_udp_echo(&[address])?;
        assert_eq!(path_mtu(&client, VIP[family])?, None);
        send_datagram(&client, &vip, 1500)?;
        wait_for_mtu(&client, VIP[family], 1400)?;
        // What fits exactly arrives.
        let to: SocketAddr = vip.parse().expect("an address");
        let answered = client.enter(move || {
            let (any, headers) = if to.is_ipv4() { ("0.0.0.0:0", 28) } else { ("[::]:0", 48) };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            // The answer has the server's name and a colon before it: "rs1:".
            let question = vec![7; 1400 - headers - 4];
            socket.send_to(&question, to)?;
            let mut answer = [0; 2000];
            let (len, from) = socket.recv_from(&mut answer)?;
            Ok::<bool, std::io::Error>(from == to && answer[4..len] == question)
        })?;
        assert!(matches!(answered, Ok(true)), "{mode} {vip}: {answered:?}");
    }
    Ok(())
}

#[test]
fn a_client_learns_the_mtu_of_the_servers_link_through_tc() -> Result<(), LabError> {
    need_lab!();
    datagrams("tc")
}

#[test]
fn a_client_learns_the_mtu_of_the_servers_link_through_xdp() -> Result<(), LabError> {
    need_lab!();
    datagrams("xdp")
}
