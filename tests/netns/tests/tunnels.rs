//! Bulk through tunnels of every type and checksum option, either family in either, on both hooks.
//! The far end verifies the outer checksums of what was cut into packets, and gives nothing on
//! whose checksum is wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rvs_testkit::lab::{Checksums, Director, GUE_PORT, Lab, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::{CLIENT, QUIET, SERVERS, at, lab, setting};

/// The virtual addresses, which the server has, too.
const SHARED: [&str; 2] = ["192.168.122.22", "fd22::22"];

/// Bytes sent to the server.
const BULK: usize = 1_000_000;

const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> [String; 6] {
    let gue = |checksum| format!("--tun-type gue --tun-port {GUE_PORT} {checksum}");
    [
        "--tun-type ipip".to_owned(),
        gue("--tun-nocsum"),
        gue("--tun-csum"),
        gue("--tun-remcsum"),
        "--tun-type gre --tun-nocsum".to_owned(),
        "--tun-type gre --tun-csum".to_owned(),
    ]
}

/// Sends bulk to `vip`, where the server answers with all of it.
fn upload(lab: &Lab, vip: &str, listener: &TcpListener, bytes: &[u8]) -> std::io::Result<bool> {
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut all = Vec::with_capacity(BULK);
            stream.read_to_end(&mut all)?;
            stream.write_all(if all == bytes { b"whole" } else { b"other" })
        });
        let to: SocketAddr = vip.parse().expect("an address");
        let host = lab.host("client");
        let stream = host.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("a namespace");
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Ends the server's waiting.
                let _ = lab.host("rs1").enter(|| TcpStream::connect_timeout(&to, PATIENCE));
                return Err(error);
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(bytes)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut verdict = String::new();
        stream.read_to_string(&mut verdict)?;
        server.join().expect("a server that does not panic")?;
        Ok(verdict == "whole")
    })
}

/// Whether a datagram comes back from `vip`.
fn echo(lab: &Lab, vip: &str) -> std::io::Result<bool> {
    let to: SocketAddr = vip.parse().expect("an address");
    // The same port each time: what is left of the connection before must not be in the way.
    let any = if to.is_ipv4() { "0.0.0.0:7007" } else { "[::]:7007" };
    let socket = lab.host("client").enter(|| UdpSocket::bind(any)).expect("a namespace")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let question = [7; 1201];
    socket.send_to(&question, to)?;
    let mut answer = [0; 2000];
    let (len, from) = socket.recv_from(&mut answer)?;
    Ok(from == to && answer[..len].ends_with(&question))
}

/// One server that has the virtual addresses, replies past the director and decapsulates.
fn serving_lab(checksums: Checksums) -> Result<Lab, LabError> {
    let lab = lab()?;
    for (vip, length) in SHARED.into_iter().zip(["/32", "/128 nodad"]) {
        lab.host("director").ip(&format!("addr add {vip}{length} dev eth0"))?;
        lab.host("rs1").ip(&format!("addr add {vip}{length} dev lo"))?;
    }
    let server = lab.host("rs1");
    server.ip(&format!("route del {}", CLIENT[0]))?;
    server.ip(&format!("route del {}", CLIENT[1]))?;
    server.sysctls(&QUIET)?;
    server.serve_udp_echo(&SHARED.map(|vip| at(vip, 7).parse().expect("an address")))?;
    server.serve_decap(checksums)?;
    Ok(lab)
}

/// Every tunnel; `prepare` sets up the devices.
fn tunnels(
    mode: &str,
    checksums: Checksums,
    prepare: impl FnOnce(&Lab) -> Result<(), LabError>,
) -> Result<(), LabError> {
    let lab = serving_lab(checksums)?;
    prepare(&lab)?;
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    // Else packets of a connection whose destination is gone are dropped, as by the kernel: a round
    // would fail whose client has the port of one before.
    setting(&director, "expire_nodest_conn=1").expect("it can be set");
    let bytes = std::fs::read(lab.web_file("bulk", BULK)?).expect("it was just written");
    for (family, vip) in SHARED.into_iter().enumerate() {
        let (tcp, udp) = (at(vip, 80), at(vip, 7));
        let listener = lab.host("rs1").enter(|| TcpListener::bind(&tcp))?.expect("a free port");
        for (outer, server) in SERVERS[0].1.into_iter().enumerate() {
            for options in options() {
                let label = format!("{mode} {family} in {outer} {options}");
                for (protocol, vip, port) in [("-t", &tcp, 80), ("-u", &udp, 7)] {
                    director.ipvsadm(&format!("-A {protocol} {vip} -s rr"))?;
                    let server = at(server, port);
                    director.ipvsadm(&format!("-a {protocol} {vip} -r {server} -i {options}"))?;
                }
                let whole = upload(&lab, &tcp, &listener, &bytes);
                assert!(matches!(whole, Ok(true)), "{label}: {whole:?}");
                let echoed = echo(&lab, &udp);
                assert!(matches!(echoed, Ok(true)), "{label}: {echoed:?}");
                director.ipvsadm(&format!("-D -t {tcp}"))?;
                director.ipvsadm(&format!("-D -u {udp}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn super_packets_go_through_every_tunnel() -> Result<(), LabError> {
    need_lab!();
    tunnels("tc", Checksums::Complete, |_| Ok(()))
}

#[test]
fn the_kernel_cuts_tunneled_super_packets_right() -> Result<(), LabError> {
    need_lab!();
    tunnels("tc", Checksums::Keep, |lab| {
        lab.host("director").run("ethtool -K eth0 tx off tso off gso off").map(drop)
    })
}

#[test]
fn xdp_sends_bulk_through_every_tunnel() -> Result<(), LabError> {
    need_lab!();
    // GRO at the receiver joins packets again, and leaves the checksum of what it made to do.
    tunnels("xdp", Checksums::Complete, Lab::prepare_for_xdp)
}
