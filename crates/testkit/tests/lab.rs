//! The lab itself: hosts that reach each other, servers, the decapsulator, and nothing left behind.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use rvs_testkit::lab::{Checksums, Lab, LabError, Topology};
use rvs_testkit::need_lab;

const CLIENT: [&str; 2] = ["10.9.0.70", "fd09::70"];
const SERVER: [&str; 2] = ["10.9.0.45", "fd09::45"];
const VIP: [&str; 2] = ["10.9.0.22", "fd09::22"];

fn lab() -> Result<Lab, LabError> {
    Topology::new()
        .host("client", &["10.9.0.70/24", "fd09::70/64"])
        .host("rs1", &["10.9.0.45/24", "fd09::45/64"])
        .build()
}

#[test]
fn a_client_gets_pages_and_files_over_both_families() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    lab.web_file("big", 3_000_000)?;
    lab.host("rs1").serve_http(80)?;
    lab.host("rs1").serve_builtin_http(8080)?;
    for port in [80, 8080] {
        for host in ["10.9.0.45", "[fd09::45]"] {
            let curl = format!("curl -sS --max-time 5 http://{host}:{port}/");
            assert_eq!(lab.host("client").run(&curl)?, "rs1\n");
        }
        for path in ["big", "slow/big"] {
            let file = lab.dir().join("got");
            let mut curl = lab.host("client").command("curl");
            curl.args(["-sS", "--max-time", "20", "-w", "%header{x-real-server}", "-o"]);
            let url = format!("http://10.9.0.45:{port}/{path}");
            let output = curl.arg(&file).arg(url).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "rs1");
            let sent = std::fs::read(lab.dir().join("www/big")).unwrap();
            assert!(std::fs::read(&file).unwrap() == sent, "port {port}, {path}");
        }
    }
    Ok(())
}

#[test]
fn routes_lead_through_a_host_with_two_interfaces() -> Result<(), LabError> {
    need_lab!();
    let lab = Topology::new()
        .attach("client", "wan", &["10.9.1.70/24"])
        .attach("router", "wan", &["10.9.1.1/24"])
        .attach("router", "lan", &["10.9.2.1/24"])
        .attach("rs1", "lan", &["10.9.2.45/24"])
        .build()?;
    lab.host("router").sysctl("net.ipv4.ip_forward", "1")?;
    lab.host("client").ip("route add default via 10.9.1.1")?;
    lab.host("rs1").ip("route add default via 10.9.2.1")?;
    lab.host("rs1").serve_udp_echo(&["10.9.2.45:7".parse().unwrap()])?;
    let answer = lab.host("client").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(b"hello", "10.9.2.45:7").unwrap();
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    })?;
    assert_eq!(answer, (b"rs1:hello".to_vec(), "10.9.2.45:7".parse().unwrap()));
    Ok(())
}

#[test]
fn the_decapsulator_takes_both_families_in_both() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let rs1 = lab.host("rs1");
    rs1.ip("addr add 10.9.0.22/32 dev lo")?;
    rs1.ip("addr add fd09::22/128 dev lo nodad")?;
    rs1.serve_udp_echo(&VIP.map(|vip| SocketAddr::new(vip.parse().unwrap(), 7)))?;
    rs1.serve_decap(Checksums::Complete)?;
    for inner in 0..2 {
        let address = SocketAddr::new(CLIENT[inner].parse().unwrap(), 4000);
        let (client, server) = (lab.host("client"), lab.host("rs1"));
        let socket = client.enter(|| UdpSocket::bind(address).unwrap())?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for (outer, server_address) in SERVER.iter().enumerate() {
            let packet = packet(address.ip(), VIP[inner].parse().unwrap());
            client.enter(|| send_encapsulated(outer, inner, server_address, &packet))?;
            let mut buffer = [0; 64];
            let received = socket.recv_from(&mut buffer);
            let (length, from) =
                received.unwrap_or_else(|e| panic!("inner {inner}, outer {outer}: {e}"));
            assert_eq!(&buffer[..length], b"rs1:hi");
            assert_eq!(from.ip().to_string(), VIP[inner]);
        }
        drop(server);
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_dropped_lab() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let (name, dir) = (lab.name().to_owned(), lab.dir());
    lab.host("rs1").serve_http(80)?;
    let mut sleep = lab.host("rs1").command("sleep");
    sleep.arg("1000");
    let sleep = lab.host("rs1").spawn("sleep", sleep)?;
    drop(lab);
    assert!(sleep.status().is_some());
    assert!(!dir.exists());
    let namespaces = std::fs::read_dir("/run/netns").unwrap();
    let names: Vec<_> = namespaces.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !names.iter().any(|n| n.to_string_lossy().starts_with(&format!("{name}-"))),
        "{names:?}"
    );
    Ok(())
}

/// UDP port 4000 -> 7 with the bytes "hi" and a checksum left to the device.
fn packet(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let udp = [0x0f, 0xa0, 0, 7, 0, 10, 0, 0, b'h', b'i'];
    let (mut packet, addresses) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
            let addresses = [from.octets(), to.octets()].concat();
            let checksum = !sum(&[&header[..], &addresses].concat());
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            (header, addresses)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = vec![0x60, 0, 0, 0, 0, 10, 17, 64];
            (header, [from.octets(), to.octets()].concat())
        }
        _ => panic!("one family"),
    };
    let pseudo = sum(&[&addresses[..], &[0, 17, 0, 10]].concat());
    packet.extend(addresses);
    packet.extend(udp);
    let field = packet.len() - 4;
    packet[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    packet
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Sends through a raw socket, for which the kernel makes the outer header.
fn send_encapsulated(outer: usize, inner: usize, to: &str, packet: &[u8]) {
    let family = [AddressFamily::INET, AddressFamily::INET6][outer];
    let protocol = [ipproto::IPIP, ipproto::IPV6][inner];
    let socket = socket(family, SocketType::RAW, Some(protocol)).unwrap();
    let to = SocketAddr::new(to.parse().unwrap(), 0);
    sendto(&socket, packet, SendFlags::empty(), &to).unwrap();
}
